//! SQS cannot be reached while Slurm asks for nodes.

use std::fs;
use std::time::{Duration, Instant};

use spillway_lab::faults::{Action, Fault};
use spillway_lab::lab::Lab;

use super::{
    HEAD_NODE, arm_sqs, begin, disarm, log_lines, log_what_slurmctld_is_told, logged, no_answer,
    queue_is_empty, ran, spool_is_empty, srun, start_agent, times_told, wrap_program,
};
use crate::support::{
    alive, fired, internal_error, job, job_is, launched_ever, node, powered_down, submit,
    submit_with, until,
};

/// Far more than slurmctld takes to answer, on a loaded machine too; far less than a call to SQS may take.
const HELD_UP: Duration = Duration::from_secs(2);

/// The programs are gone in tens of milliseconds; here a loaded machine starts them.
const PROGRAM_MS: u64 = 500;

/// How long slurmctld is watched: longer than the agent waits for one answer of SQS.
const WATCH: Duration = Duration::from_secs(8);

/// Slurm's ResumeTimeout where a request misses its deadline, which is ten seconds earlier.
const RESUME_TIMEOUT_SECONDS: u32 = 40;

const OUR_REASON: &str = "spillway: the resume request could not be sent in time";

#[tokio::test(flavor = "multi_thread")]
async fn sqs_is_away_during_resume() {
    let lab = begin("agent_sqs_is_away_during_resume", |_| {}).await;
    let times = time_resume_program(&lab);
    let rounds = [("cloud-0", no_answer()), ("cloud-1", internal_error())];
    for (round, (nodes, action)) in (1..).zip(rounds) {
        let fault = arm_sqs(&lab, Some("SendMessage"), action);
        let job = srun(&lab, nodes);
        logged(&lab, &["resume requested", &format!("nodes={nodes} ")], 1).await;
        let slowest = slowest_answer(&lab, WATCH).await;
        assert!(slowest < HELD_UP, "slurmctld took {slowest:?} to answer");
        assert!(node(&lab, nodes).await.is("POWERING_UP"));
        assert_eq!(launched_ever(&lab), round - 1, "nothing can have been sent");
        disarm(&lab, &fault);
        ran(job, nodes).await;
        assert_eq!(launched_ever(&lab), round);
    }
    let times: Vec<u64> = fs::read_to_string(&times)
        .expect("the program was run")
        .lines()
        .map(|line| line.parse().expect("milliseconds"))
        .collect();
    assert_eq!(times.len(), 2, "slurmctld called once for each job");
    assert!(
        times.iter().all(|ms| *ms < PROGRAM_MS),
        "spillway-resume took {times:?} ms"
    );
    println!("spillway-resume took {times:?} ms");
    lab.end().await;
}

/// Past the deadline Slurm is told so before it finds out, and a request that arrived all the same is undone: the
/// resume of cloud-0 reached SQS and only its answer was lost, that of cloud-1 never left.
#[tokio::test(flavor = "multi_thread")]
async fn sqs_is_away_past_the_deadline() {
    past_the_deadline("agent_sqs_is_away_past_the_deadline", None).await;
}

/// The agent dies when the suspend that undoes the resume is stamped and nothing else has been done.
#[tokio::test(flavor = "multi_thread")]
async fn after_fsync_of_its_own_suspend() {
    past_the_deadline("agent_after_fsync_of_its_own_suspend", Some("after-fsync")).await;
}

async fn past_the_deadline(name: &str, crash_at: Option<&str>) {
    let mut lab = begin(name, |spec| {
        spec.resume_timeout_seconds = RESUME_TIMEOUT_SECONDS;
    })
    .await;
    log_what_slurmctld_is_told(&lab).await;
    // Started anew, or the receive that waits at SQS already would still bring one answer.
    lab.agent.stop().await;
    let deaf = arm_sqs(&lab, Some("ReceiveMessage"), no_answer());
    let environment: Vec<(&str, &str)> = crash_at
        .map(|point| ("SPILLWAY_CRASH_AT", point))
        .into_iter()
        .collect();
    start_agent(&mut lab, &environment).await;
    let lost = lose_one_answer(&lab, "lab-resume");

    let requeued = submit(&lab, "cloud-0", 0).await;
    let asked = Instant::now();
    fired(&lab, &lost, 1).await;
    let mute = arm_sqs(&lab, Some("SendMessage"), no_answer());
    let failed = submit_with(&lab, "cloud-1", 0, "--no-requeue").await;
    if crash_at.is_some() {
        lab.agent.ended().await.expect("it was started");
        start_agent(&mut lab, &[]).await;
    }
    for name in ["cloud-0", "cloud-1"] {
        until(
            &format!("Slurm has our reason for {name}"),
            60,
            async || {
                let reason = node(&lab, name).await.reason?;
                reason.starts_with(OUR_REASON).then_some(())
            },
        )
        .await;
    }
    let timeout = Duration::from_secs(RESUME_TIMEOUT_SECONDS.into());
    assert!(asked.elapsed() < timeout, "after {:?}", asked.elapsed());
    job_is(&lab, &failed, "NODE_FAIL", 5).await;
    job_is(&lab, &requeued, "PENDING", 5).await;
    assert_eq!(job(&lab, &requeued, "Restarts").await, "1");
    lab.head
        .run("scancel", &[&requeued])
        .await
        .expect("scancel");

    disarm(&lab, &mute);
    disarm(&lab, &deaf);
    spool_is_empty(&lab).await;
    for queue in ["ResumeQueueUrl", "SuspendQueueUrl"] {
        queue_is_empty(&lab, queue).await;
    }
    until("nothing runs", 30, async || {
        alive(&lab).is_empty().then_some(())
    })
    .await;
    assert_eq!(launched_ever(&lab), 1, "of cloud-0 alone SQS had heard");
    for name in ["cloud-0", "cloud-1"] {
        powered_down(&lab, name).await;
        assert!(!node(&lab, name).await.is("DOWN"));
        assert_eq!(times_told(&lab, name), 1, "{name} was failed once");
        assert_eq!(log_lines(&lab.agent, &["failed in Slurm", name]).len(), 1);
    }
    ran(srun(&lab, "cloud-0,cloud-1"), "cloud-0,cloud-1").await;
    assert_eq!(launched_ever(&lab), 3);
    lab.end().await;
}

/// The requests arrive, and their answers never: what comes back on the other queue says as much.
#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_sqs_are_lost_past_the_deadline() {
    let lab = begin("agent_the_answers_of_sqs_are_lost", |spec| {
        spec.resume_timeout_seconds = RESUME_TIMEOUT_SECONDS;
        // The node stays although it idles.
        spec.suspend_time_seconds = 300;
    })
    .await;
    let lost = Fault {
        times: None,
        ..lost_answer("lab-resume")
    };
    let lost = lab.cloud.proxy.faults().arm(lost).expect("well formed");
    ran(srun(&lab, "cloud-0"), "cloud-0").await;
    let instances = alive(&lab);
    // The agent goes on sending until it takes the request for late.
    spool_is_empty(&lab).await;
    let id = submit(&lab, "cloud-0", 0).await;
    job_is(&lab, &id, "COMPLETED", 30).await;
    assert!(lab.cloud.proxy.faults().fired(&lost) > 1);
    assert_eq!(alive(&lab), instances, "the node that runs is left alone");
    assert_eq!(node(&lab, "cloud-0").await.reason, None);
    assert_eq!(launched_ever(&lab), 1);
    lab.end().await;
}

fn lost_answer(queue: &str) -> Fault {
    Fault {
        id: None,
        service: "sqs".to_owned(),
        operation: Some("SendMessage".to_owned()),
        principal: Some(HEAD_NODE.to_owned()),
        body_contains: Some(format!("/{queue}\"")),
        times: Some(1),
        action: Action::LoseAnswer {},
    }
}

fn lose_one_answer(lab: &Lab, queue: &str) -> String {
    let fault = lost_answer(queue);
    lab.cloud.proxy.faults().arm(fault).expect("well formed")
}

/// Has each run of `ResumeProgram` timed; the file with one line of milliseconds a run.
fn time_resume_program(lab: &Lab) -> std::path::PathBuf {
    let times = lab.head.directory().join("log/resume-program-ms");
    let script = format!(
        r#"start=$(date +%s%N)
(exec -a spillway-resume "$PROGRAM" "$@")
status=$?
echo $(( ($(date +%s%N) - start) / 1000000 )) >> {}
exit $status"#,
        times.display()
    );
    wrap_program(lab, "spillway-resume", &script);
    times
}

/// The longest that slurmctld took to answer one of a series of questions.
async fn slowest_answer(lab: &Lab, watch: Duration) -> Duration {
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    while start.elapsed() < watch {
        for question in [
            ["scontrol", "ping"],
            ["sinfo", "--all"],
            ["squeue", "--all"],
        ] {
            let asked = Instant::now();
            let [program, argument] = question;
            lab.head
                .run(program, &[argument])
                .await
                .expect("slurmctld answers");
            slowest = slowest.max(asked.elapsed());
        }
    }
    slowest
}
