//! The agent's daily life: slurmctld away, SIGTERM, another agent.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use spillway_lab::head::Agent;

use super::{
    begin, log_lines, log_what_slurmctld_is_told, logged, queue_is_empty, ran, spool_is_empty,
    srun, start_agent, times_told,
};
use crate::support::{alive, job, job_is, launched_ever, node, submit, until};

/// systemd waits for 90 s; a person for a moment.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn slurmctld_is_away_when_the_update_comes() {
    let mut lab = begin("agent_slurmctld_is_away_when_the_update_comes", |spec| {
        spec.function_timeout_seconds = 10;
        spec.queue_visibility_seconds = 12;
    })
    .await;
    // Time to stop slurmctld before there is an address.
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = 5_000);
    let id = submit(&lab, "cloud-0", 0).await;
    until("EC2 was asked", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    lab.head.stop_slurmctld().await;
    logged(&lab, &["slurmctld cannot be told"], 1).await;
    lab.head
        .start_slurmctld()
        .await
        .expect("slurmctld starts again");
    log_what_slurmctld_is_told(&lab).await;
    job_is(&lab, &id, "COMPLETED", super::JOB_SECONDS).await;
    queue_is_empty(&lab, "UpdatesQueueUrl").await;
    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    assert_eq!(times_told(&lab, "cloud-0"), 1);
    assert_eq!(launched_ever(&lab), 1);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_long_poll_at_once() {
    let mut lab = begin("agent_sigterm_ends_a_long_poll_at_once", |_| {}).await;
    logged(&lab, &["said hello"], 1).await;
    let pid = Pid::from_raw(lab.agent.pid().expect("the agent runs"));
    let asked = Instant::now();
    kill(pid, Signal::SIGTERM).expect("it can be signalled");
    let end = tokio::time::timeout(AT_ONCE * 5, lab.agent.ended())
        .await
        .expect("it ends")
        .expect("it was started");
    assert!(asked.elapsed() < AT_ONCE, "it took {:?}", asked.elapsed());
    assert!(end.success(), "{end:?}");
    assert_eq!(
        log_lines(&lab.agent, &["agent stopped by SIGTERM"]).len(),
        1
    );

    // The program sends by itself meanwhile; the answer waits for the agent.
    let job = srun(&lab, "cloud-0");
    until("the program has sent by itself", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    start_agent(&mut lab, &[]).await;
    ran(job, "cloud-0").await;
    spool_is_empty(&lab).await;
    assert_eq!(launched_ever(&lab), 1);
    assert_eq!(node(&lab, "cloud-0").await.reason, None);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_spool_refuses() {
    let lab = begin("agent_a_second_agent_on_the_spool_refuses", |_| {}).await;
    logged(&lab, &["said hello"], 1).await;
    let mut second = Agent::of(&lab.head);
    second.start(&[].into()).expect("it can be started");
    let end = tokio::time::timeout(Duration::from_secs(10), second.ended())
        .await
        .expect("it ends")
        .expect("it was started");
    assert_eq!(end.code(), Some(1));
    let complaint = "another agent holds";
    let said = log_lines(&lab.agent, &[complaint, "only one may run per spool"]);
    assert_eq!(said.len(), 1, "both write this log");
    assert_eq!(log_lines(&lab.agent, &["agent started"]).len(), 1);

    assert!(lab.agent.pid().is_some(), "the first one lives");
    ran(srun(&lab, "cloud-0"), "cloud-0").await;
    assert_eq!(log_lines(&lab.agent, &["sent", "nodes=cloud-0 "]).len(), 1);
    assert_eq!(launched_ever(&lab), 1);
    assert_eq!(node(&lab, "cloud-0").await.reason, None);
    lab.end().await;
}
