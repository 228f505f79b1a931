//! The agent, or a program that Slurm runs, dies between two durable steps. Nothing is lost and nothing done twice.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use spillway_lab::lab::LabSpec;

use super::{
    begin, log_lines, log_what_slurmctld_is_told, queue_is_empty, ran, spool_is_empty, srun,
    start_agent, times_told, wrap_program,
};
use crate::support::{Story, launched_ever, node};

/// What the agent is told comes again soon.
fn redelivers_soon(spec: &mut LabSpec) {
    spec.function_timeout_seconds = 10;
    spec.queue_visibility_seconds = 12;
}

/// The agent takes up what a program could not even wake it for.
#[tokio::test(flavor = "multi_thread")]
async fn after_fsync_of_the_program() {
    let lab = begin("agent_after_fsync_of_the_program", |_| {}).await;
    log_what_slurmctld_is_told(&lab).await;
    wrap_program(
        &lab,
        "spillway-resume",
        "SPILLWAY_CRASH_AT=after-fsync exec -a spillway-resume \"$PROGRAM\" \"$@\"",
    );
    ran(srun(&lab, "cloud-0"), "cloud-0").await;
    let slurmctld_log = std::fs::read_to_string(lab.head.slurmctld_log()).expect("a log");
    assert!(slurmctld_log.contains("program signaled: Aborted"));
    once_and_for_all(&lab).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_send() {
    dies_at("after-send").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_receive() {
    dies_at("after-receive").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_scontrol() {
    dies_at("after-scontrol").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_acknowledge() {
    dies_at("after-acknowledge").await;
}

async fn dies_at(point: &str) {
    let name = format!("agent_dies_{}", point.replace('-', "_"));
    let mut lab = begin(&name, redelivers_soon).await;
    log_what_slurmctld_is_told(&lab).await;
    start_agent(&mut lab, &[("SPILLWAY_CRASH_AT", point)]).await;
    let job = srun(&lab, "cloud-0");
    let end = tokio::time::timeout(Duration::from_mins(1), lab.agent.ended())
        .await
        .expect("the agent comes to the point")
        .expect("it was started");
    assert_eq!(end.signal(), Some(Signal::SIGABRT as i32), "{end:?}");
    let last_words = format!("SPILLWAY_CRASH_AT={point}: aborting");
    assert_eq!(log_lines(&lab.agent, &[&last_words]).len(), 1);
    start_agent(&mut lab, &[]).await;
    ran(job, "cloud-0").await;
    once_and_for_all(&lab).await;
    lab.end().await;
}

/// One instance, one word to slurmctld, and nothing left to do.
async fn once_and_for_all(lab: &Story) {
    spool_is_empty(lab).await;
    for queue in ["ResumeQueueUrl", "UpdatesQueueUrl"] {
        queue_is_empty(lab, queue).await;
    }
    assert_eq!(launched_ever(lab), 1);
    assert_eq!(times_told(lab, "cloud-0"), 1);
    assert_eq!(node(lab, "cloud-0").await.reason, None);
}
