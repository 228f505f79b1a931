//! An instance is about to go, or of no use: what slurmctld is told of its node, and what the machine does by itself.

use base64::Engine as _;
use spillway_core::envelope::{ENVELOPE_LIFE_MS, Envelope, Update, UpdateAction, seal};
use spillway_core::name::{ClusterName, Generation, Signal};
use spillway_lab::hypervisor::SpotAction;
use spillway_lab::lab::Lab;
use spillway_world::ec2::{InstanceProfile, LaunchTemplateData, RunInstances, ShutdownBehavior};

use crate::support::{
    Story, admin_comment, alive, generation, job, job_is, node, now_ms, pause, powered_down, put,
    signing_key, submit_with, until,
};

/// A job may wait for its node to boot, which slurmctld 22.05 looks at every 30 s.
const JOB_SECONDS: u64 = 110;

/// What somebody who lets his jobs be signalled writes: the script waits in the background, and so does its step.
const PREPARED: &str = r#"#!/bin/bash
trap 'echo the script got it' USR1
srun bash -c 'trap "echo the step got it" USR1; echo the step runs; while :; do sleep 0.2; done' &
until wait; do :; done
"#;

const REASON: &str = "spillway: spot interruption";

/// Tells the head node of a node, as the control plane would.
async fn tell(lab: &Lab, nodes: &str, number: u64, action: UpdateAction) {
    let first = nodes.split(',').next().expect("a node");
    let generation = Generation::new(generation(lab, first).await).expect("it was asked for");
    let envelope = Envelope {
        envelope_id: format!("{nodes}-{number}"),
        issued_ms: now_ms(),
        expires_ms: now_ms() + ENVELOPE_LIFE_MS,
        updates: vec![Update {
            nodes: nodes.to_owned(),
            generation,
            number,
            request_id: None,
            action,
            note: None,
        }],
    };
    let cluster = ClusterName::new(lab.spec.cluster.clone()).expect("the lab's name");
    let sealed = seal(&cluster, &envelope, &signing_key(lab).await).expect("sealed");
    put(lab, "UpdatesQueueUrl", &sealed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_leaves_and_its_job_finds_another() {
    let lab = Story::begin("a_node_leaves_and_its_job_finds_another", |spec| {
        spec.suspend_time_seconds = 3600;
    })
    .await;
    let output = format!("--output={}/%j.out", lab.shared_directory().display());
    let options = ["-N", "2", "-w", "cloud-0,cloud-1", "--requeue", &output];
    let leaving = lab.head.sbatch(&options, PREPARED).await.expect("sbatch");
    let beside = submit_with(&lab, "cloud-2", 600, "--requeue").await;
    let printed = async || {
        let path = lab.shared_directory().join(format!("{leaving}.out"));
        std::fs::read_to_string(path).unwrap_or_default()
    };
    until("the step runs", JOB_SECONDS, async || {
        (printed().await.matches("the step runs").count() == 2).then_some(())
    })
    .await;
    job_is(&lab, &beside, "RUNNING", JOB_SECONDS).await;

    let drain = || UpdateAction::Drain {
        reason: REASON.to_owned(),
        signal: Some(Signal::new("USR1").expect("a signal")),
        replace_from: Some("cloud-[0-7]".to_owned()),
    };
    // Each of the job's nodes by itself, as notices come.
    for name in ["cloud-0", "cloud-1"] {
        tell(&lab, name, 100, drain()).await;
        until("it drains", 30, async || {
            node(&lab, name).await.is("DRAIN").then_some(())
        })
        .await;
        assert_eq!(node(&lab, name).await.reason.as_deref(), Some(REASON));
    }
    until("script and step have the signal", 30, async || {
        let text = printed().await;
        let is_there = text.contains("the script got it") && text.contains("the step got it");
        is_there.then_some(())
    })
    .await;
    pause(3).await;
    let text = printed().await;
    assert_eq!(text.matches("the script got it").count(), 1, "{text}");
    assert_eq!(text.matches("the step got it").count(), 2, "{text}");
    until("two others are launched", 60, async || {
        (alive(&lab).len() == 5).then_some(())
    })
    .await;

    let id = leaving.to_string();
    let requeue = || UpdateAction::Requeue {
        reason: REASON.to_owned(),
    };
    tell(&lab, "cloud-0", 101, requeue()).await;
    tell(&lab, "cloud-1", 101, requeue()).await;
    job_is(&lab, &id, "PENDING", 30).await;
    until("both are told", 30, async || {
        let log = std::fs::read_to_string(lab.agent.log_file()).ok()?;
        (log.matches(": requeue").count() + log.matches("requeue ").count() >= 2).then_some(())
    })
    .await;
    assert_eq!(job(&lab, &id, "Restarts").await, "1");
    assert_eq!(admin_comment(&lab, &id).await, REASON);
    for name in ["cloud-0", "cloud-1"] {
        assert!(node(&lab, name).await.is("DRAIN"), "{name}");
    }

    // With its job gone, nothing holds it: what we drained is free again once it is powered down.
    until("cloud-0 is idle", 60, async || {
        let view = node(&lab, "cloud-0").await;
        (view.is("IDLE") && !view.is("COMPLETING")).then_some(())
    })
    .await;
    let recover = UpdateAction::Recover {
        reason: "spillway: its instance is gone".to_owned(),
    };
    tell(&lab, "cloud-0", 102, recover).await;
    powered_down(&lab, "cloud-0").await;
    let view = node(&lab, "cloud-0").await;
    assert!(view.is("IDLE") && !view.is("DRAIN"), "{view:?}");
    assert_eq!(job(&lab, &beside, "JobState").await, "RUNNING");
    assert_eq!(job(&lab, &beside, "Restarts").await, "0");
    lab.end().await;
}

fn console(lab: &Lab, instance_id: &str) -> String {
    let console = lab.hypervisor.console_output(instance_id);
    String::from_utf8_lossy(&console.unwrap_or_default()).into_owned()
}

/// The event is lost; the node's own watcher tells, once, also where the queue refuses it at first.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_itself_tells_of_its_end() {
    let lab = Story::begin("the_node_itself_tells_of_its_end", |_| {}).await;
    let id = submit_with(&lab, "cloud-0", 600, "--requeue").await;
    job_is(&lab, &id, "RUNNING", JOB_SECONDS).await;
    let [instance] = &alive(&lab)[..] else {
        panic!("one instance");
    };
    let told = |action: &str| {
        let words =
            format!("\"kind\":\"notice\",\"instance_id\":\"{instance}\",\"action\":\"{action}\"");
        let console = console(&lab, instance);
        console
            .lines()
            .filter(|line| line.contains("reported: ") && line.contains(&words))
            .count()
    };
    lab.hypervisor
        .set_rebalance_notice(instance, "2026-11-23T08:20:00Z")
        .expect("it runs");
    until("it tells of the recommendation", 20, async || {
        (told("rebalance") == 1).then_some(())
    })
    .await;
    let action = SpotAction {
        action: "terminate".to_owned(),
        time: "2026-11-23T08:22:00Z".to_owned(),
    };
    lab.hypervisor
        .set_spot_action(instance, Some(&action))
        .expect("it runs");
    until("it tells of the interruption", 20, async || {
        (told("terminate") == 1).then_some(())
    })
    .await;
    assert!(console(&lab, instance).contains("\"until_ms\":1795422120000"));
    pause(12).await;
    assert_eq!((told("rebalance"), told("terminate")), (1, 1), "once each");
    lab.end().await;
}

/// An instance that the control plane knows nothing of, with this script as its user data.
fn launch(lab: &Lab, script: &str) -> String {
    let profile = lab
        .output("BurstNodeInstanceProfileArn")
        .expect("a profile");
    let direct = LaunchTemplateData {
        image_id: Some("ami-0123456789abcdef0".to_owned()),
        instance_type: Some(lab.spec.instance_types[0].clone()),
        instance_profile: Some(InstanceProfile {
            arn: Some(profile.to_owned()),
            name: None,
        }),
        shutdown_behavior: Some(ShutdownBehavior::Terminate),
        user_data: Some(base64::engine::general_purpose::STANDARD.encode(script)),
        ..LaunchTemplateData::default()
    };
    let request = RunInstances {
        direct,
        subnet_id: Some(lab.network.subnets()[0].subnet_id.clone()),
        min_count: 1,
        max_count: 1,
        ..RunInstances::default()
    };
    let reservation = lab
        .ec2
        .with(|ec2, now_ms| ec2.run_instances(now_ms, &request));
    let reservation = reservation.expect("EC2 launches it");
    reservation.instances[0].instance_id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_needs_turns_itself_off() {
    let lab = Story::begin("a_machine_that_nobody_needs_turns_itself_off", |_| {}).await;
    let watch = format!(
        "/usr/bin/spillway node watch --cluster {} --region us-east-1 --table {} --reports-queue {} \
         --unclaimed-seconds 8 --cut-off-seconds 8",
        lab.spec.cluster,
        lab.output("TableName").expect("a table"),
        lab.output("ReportsQueueUrl").expect("a queue"),
    );
    let unclaimed = launch(&lab, &format!("#!/bin/bash\nexec {watch}\n"));
    // A process of slurmstepd's name: a job step, as far as the machine can tell.
    let step = "cp /bin/sleep /run/slurmstepd; /run/slurmstepd 75 &";
    let working = launch(&lab, &format!("#!/bin/bash\n{step}\nexec {watch}\n"));
    // Neither AWS nor slurmctld: for this one both are somewhere where nobody is.
    let away = "export AWS_ENDPOINT_URL=https://127.0.0.1:9 SLURM_CONF=/run/slurm.conf\n\
                sed 's/^SlurmctldHost=.*/SlurmctldHost=gone(127.0.0.1)/' /etc/slurm/slurm.conf >$SLURM_CONF";
    let cut_off = launch(&lab, &format!("#!/bin/bash\n{away}\nexec {watch}\n"));

    let is_alive = |id: &String| alive(&lab).contains(id);
    until(
        "the unclaimed and the cut off one are gone",
        45,
        async || (!is_alive(&unclaimed) && !is_alive(&cut_off)).then_some(()),
    )
    .await;
    let said = console(&lab, &unclaimed);
    assert!(
        said.contains("no node was assigned to this instance for"),
        "{said}"
    );
    let said = console(&lab, &cut_off);
    assert!(
        said.contains("neither slurmctld nor AWS has answered for"),
        "{said}"
    );
    assert!(
        is_alive(&working),
        "its step was cut: {}",
        console(&lab, &working)
    );
    until("the working one is gone after its step", 90, async || {
        (!is_alive(&working)).then_some(())
    })
    .await;
    lab.end().await;
}
