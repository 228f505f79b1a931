//! Whatever is delivered twice, dies half-way or is asked again: never a second instance for a node, and the
//! nodes join.

use spillway_lab::faults::{Action, Fault};
use spillway_lab::lab::Lab;
use spillway_world::ec2::TokenReplay;

use crate::support::functions::{enable, kill, mapping};
use crate::support::{Story, alive, fired, job, job_is, launched_ever, put, submit, take, until};

/// A job may wait for a message to be delivered again, and for its nodes to join.
const JOB_SECONDS: u64 = 110;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_resume_three_times_at_once() {
    let lab = Story::begin("the_same_resume_three_times_at_once", |_| {}).await;
    let mapping = mapping(&lab, "launch").await;
    enable(&lab, &mapping, false).await;
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    let body = take(&lab, "ResumeQueueUrl").await;
    for _ in 0..3 {
        put(&lab, "ResumeQueueUrl", &body).await;
    }
    enable(&lab, &mapping, true).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(launched_ever(&lab), 2);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slurmctld_is_restarted_while_nodes_power_up() {
    let mut lab = Story::begin("slurmctld_is_restarted_while_nodes_power_up", |_| {}).await;
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = 8_000);
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    until("EC2 was asked", 60, async || {
        (alive(&lab).len() == 2).then_some(())
    })
    .await;
    lab.head.kill_slurmctld();
    lab.head
        .start_slurmctld()
        .await
        .expect("slurmctld starts again");
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(launched_ever(&lab), 2);
    lab.end().await;
}

/// EC2 shows what the dead worker launched only after the message was delivered again (25 s) and before the
/// grace period of the worker that repeats the call is over (10 s more): so the call is repeated, and what the
/// repetition answers matters.
const SEEN_AFTER_MS: u64 = 29_000;

#[tokio::test(flavor = "multi_thread")]
async fn launch_dies_and_the_repeated_call_is_answered_as_the_first() {
    launch_dies("launch_dies_first_answer", TokenReplay::FirstAnswer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_dies_and_the_repeated_call_is_answered_without_instances() {
    launch_dies(
        "launch_dies_without_instances",
        TokenReplay::FleetWithoutInstances,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_dies_and_the_repeated_call_is_refused() {
    launch_dies("launch_dies_mismatch", TokenReplay::Mismatch).await;
}

/// EC2 said yes, the answer was on its way into the table, the Lambda died. What EC2 answers to the repeated
/// call is not documented for fleets; each answer must do. The policy pushed meanwhile changes nothing.
async fn launch_dies(name: &str, replay: TokenReplay) {
    let lab = Story::begin(name, |_| {}).await;
    lab.ec2.with(|ec2, _| {
        ec2.settings.token_replay = replay;
        ec2.settings.visibility_delay_ms = SEEN_AFTER_MS;
    });
    let fault = hang_answer(&lab);
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    fired(&lab, &fault, 1).await;
    kill(&lab, "launch");
    assert!(lab.cloud.proxy.faults().disarm(&fault));
    push_changed_policy(&lab).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(launched_ever(&lab), 2);
    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    assert_eq!(calls(&lab, "CreateFleet"), 2, "the call was to be repeated");
    lab.end().await;
}

/// How often EC2 was asked, refused calls included.
fn calls(lab: &Lab, operation: &str) -> usize {
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    calls
        .iter()
        .filter(|call| call.service == "ec2" && call.operation == operation)
        .count()
}

/// Holds up the write that stores EC2's answer to an attempt.
fn hang_answer(lab: &Lab) -> String {
    let fault = Fault {
        id: None,
        service: "dynamodb".to_owned(),
        operation: Some("UpdateItem".to_owned()),
        principal: Some("lab-launch".to_owned()),
        body_contains: Some("ATTEMPT#".to_owned()),
        times: None,
        action: Action::HangMs(60_000),
    };
    lab.cloud
        .proxy
        .faults()
        .arm(fault)
        .expect("the fault is well formed")
}

/// Another list of instance types: a call planned anew would be another call.
async fn push_changed_policy(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let changed = text.replace(
        r#"["c7i.large", "m7i.large"]"#,
        r#"["m6i.large", "r7i.large"]"#,
    );
    assert_ne!(
        changed, text,
        "the configuration names other instance types than this story knows"
    );
    std::fs::write(&path, changed).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}
