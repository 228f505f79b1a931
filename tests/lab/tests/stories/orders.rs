//! Requests and updates that arrive in another order than Slurm made them. Nothing runs that Slurm holds
//! powered down; nothing Slurm wants is terminated or failed.

use spillway_core::message::{
    Message, ResumeQueueBody, ResumeRequest, SuspendCause, SuspendQueueBody, SuspendRequest,
};
use spillway_core::name::{ClusterName, Generation, RequestId};
use spillway_lab::lab::Lab;

use crate::support::{
    Story, alive, arm, denied, fired, generation, internal_error, job, job_is, launched_ever, node,
    now_ms, pause, powered_down, push_short_rest, put, put_aside_after_one_failure, submit, take,
    until,
};

/// Longer than a queue hides a message that failed: it is delivered again within this.
const REDELIVERY_SECONDS: u64 = 32;

#[tokio::test(flavor = "multi_thread")]
async fn a_suspend_overtakes_its_resume() {
    let lab = Story::begin("a_suspend_overtakes_its_resume", |_| {}).await;
    let fault = arm(&lab, "dynamodb", None, "lab-launch", None, internal_error());
    let id = submit(&lab, "cloud-0", 0).await;
    fired(&lab, &fault, 1).await;

    lab.head.run("scancel", &[&id]).await.expect("scancel");
    lab.head
        .scontrol(&["update", "nodename=cloud-0", "state=power_down_force"])
        .await
        .expect("power down");
    until("the suspend is accepted", 60, async || {
        (generation(&lab, "cloud-0").await > 0).then_some(())
    })
    .await;
    assert!(lab.cloud.proxy.faults().disarm(&fault));
    pause(REDELIVERY_SECONDS).await;

    assert_eq!(
        launched_ever(&lab),
        0,
        "the resume came after its suspend and must launch nothing"
    );
    powered_down(&lab, "cloud-0").await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_overtakes_the_suspend_before_it() {
    let lab = Story::begin("a_resume_overtakes_the_suspend_before_it", |_| {}).await;
    let first = submit(&lab, "cloud-0", 0).await;
    job_is(&lab, &first, "COMPLETED", 90).await;
    let old = alive(&lab);
    assert_eq!(old.len(), 1);

    let fault = arm(
        &lab,
        "dynamodb",
        None,
        "lab-terminate",
        None,
        internal_error(),
    );
    lab.head
        .scontrol(&["update", "nodename=cloud-0", "state=power_down"])
        .await
        .expect("power down");
    fired(&lab, &fault, 1).await;
    powered_down(&lab, "cloud-0").await;
    assert_eq!(alive(&lab), old, "the suspend has not arrived yet");

    let second = submit(&lab, "cloud-0", REDELIVERY_SECONDS + 8).await;
    job_is(&lab, &second, "RUNNING", 90).await;
    assert!(lab.cloud.proxy.faults().disarm(&fault));
    until("the old instance is gone", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    assert_ne!(alive(&lab), old, "the new instance must stay");
    job_is(&lab, &second, "COMPLETED", 90).await;
    assert_eq!(job(&lab, &second, "Restarts").await, "0");
    assert_eq!(launched_ever(&lab), 2);
    lab.end().await;
}

/// A resume and a suspend end in their dead-letter queues. An hour of stamps later, while what they were about runs
/// for newer requests, an operator puts them back.
#[tokio::test(flavor = "multi_thread")]
async fn messages_redriven_an_hour_later_change_nothing() {
    let lab = Story::begin("messages_redriven_an_hour_later_change_nothing", |_| {}).await;
    let an_hour_ago_us = (now_ms() - 3_600_000) * 1000;
    let (resume, suspend) = (
        resume(&lab, "cloud-[0,5]", an_hour_ago_us),
        suspend(&lab, "cloud-0", an_hour_ago_us + 1),
    );
    let mut put_aside = Vec::new();
    for (queue, function, body) in [
        ("Resume", "lab-launch", resume),
        ("Suspend", "lab-terminate", suspend),
    ] {
        let (queue, dead_letter) = (
            format!("{queue}QueueUrl"),
            format!("{queue}DeadLetterQueueUrl"),
        );
        put_aside_after_one_failure(&lab, &queue, &dead_letter).await;
        let fault = arm(&lab, "dynamodb", None, function, None, internal_error());
        put(&lab, &queue, &body).await;
        put_aside.push((queue, dead_letter, fault));
    }
    let mut redriven = Vec::new();
    for (queue, dead_letter, fault) in put_aside {
        redriven.push((queue, take(&lab, &dead_letter).await));
        assert!(lab.cloud.proxy.faults().disarm(&fault));
    }

    let id = submit(&lab, "cloud-0", 15).await;
    job_is(&lab, &id, "RUNNING", 90).await;
    let running = alive(&lab);
    let before = generation(&lab, "cloud-0").await;
    for (queue, body) in redriven {
        put(&lab, &queue, &body).await;
    }
    until("the old resume is dealt with", 60, async || {
        (generation(&lab, "cloud-5").await > 0).then_some(())
    })
    .await;
    job_is(&lab, &id, "COMPLETED", 60).await;

    assert_eq!(
        alive(&lab),
        running,
        "what runs goes on, and nothing is launched"
    );
    assert_eq!(generation(&lab, "cloud-0").await, before);
    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    let idle = node(&lab, "cloud-5").await;
    assert!(
        idle.is("POWERED_DOWN") && !idle.is("DOWN") && idle.reason.is_none(),
        "{idle:?}"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_after_slurm_has_called_resume_again() {
    let lab = Story::begin(
        "a_failure_is_told_after_slurm_has_called_resume_again",
        |_| {},
    )
    .await;
    // The agent may have been listening already: then it hears of the failure, and the group rests.
    push_short_rest(&lab).await;
    let deaf = arm(
        &lab,
        "sqs",
        Some("ReceiveMessage"),
        "head-node",
        None,
        internal_error(),
    );
    let refused = arm(
        &lab,
        "ec2",
        Some("CreateFleet"),
        "lab-launch",
        Some(1),
        denied(),
    );
    let first = submit(&lab, "cloud-0", 0).await;
    fired(&lab, &refused, 1).await;

    lab.head.run("scancel", &[&first]).await.expect("scancel");
    lab.head
        .scontrol(&["update", "nodename=cloud-0", "state=power_down_force"])
        .await
        .expect("power down");
    powered_down(&lab, "cloud-0").await;
    let second = submit(&lab, "cloud-0", 10).await;
    until("the second resume has launched", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    assert!(lab.cloud.proxy.faults().disarm(&deaf));

    job_is(&lab, &second, "COMPLETED", 120).await;
    assert_eq!(
        job(&lab, &second, "Restarts").await,
        "0",
        "the old failure must not touch the new request"
    );
    assert_eq!(launched_ever(&lab), 1);
    lab.end().await;
}

fn cluster(lab: &Lab) -> ClusterName {
    ClusterName::new(lab.spec.cluster.clone()).expect("the lab's name is one")
}

fn old(stamp_us: u64) -> (RequestId, Generation) {
    let id = RequestId::new(format!("old-{stamp_us}")).expect("a valid id");
    (id, Generation::new(stamp_us).expect("a valid stamp"))
}

fn resume(lab: &Lab, nodes: &str, stamp_us: u64) -> String {
    let (request_id, generation) = old(stamp_us);
    let request = ResumeRequest {
        request_id,
        generation,
        part: 1,
        parts: 1,
        deadline_ms: stamp_us / 1000 + 100_000,
        nodes: nodes.to_owned(),
        jobs: Vec::new(),
    };
    Message::new(cluster(lab), ResumeQueueBody::Resume(request)).to_json()
}

fn suspend(lab: &Lab, nodes: &str, stamp_us: u64) -> String {
    let (request_id, generation) = old(stamp_us);
    let cause = SuspendCause::Suspend;
    let request = SuspendRequest {
        request_id,
        generation,
        part: 1,
        parts: 1,
        cause,
        nodes: nodes.to_owned(),
    };
    Message::new(cluster(lab), SuspendQueueBody::Suspend(request)).to_json()
}
