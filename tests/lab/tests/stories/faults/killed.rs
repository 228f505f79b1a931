//! `launch` is killed around every call that it makes: before the call, so that nothing of it is done; and after it, so
//! that it is done and nobody knows. The message comes again, and the job gets its nodes, each one instance.
//!
//! The resumes are made by hand and each killed once, one after the other; then all their messages come again
//! together, as SQS does it. No machine boots, so that `node join` and slurmd are left out: `launch` is over when its nodes
//! are paired.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use spillway_lab::faults::{Action, Fault};
use spillway_lab::journal::Call;
use spillway_lab::lab::Lab;

use super::{FOR_EVER_MS, calls, dead_letters};
use crate::by_hand::{resume, send, suspend};
use crate::support::functions::kill;
use crate::support::{Story, alive, fired, items, launched_ever, none_runs, now_ms, put, until};

/// Nodes of each job.
const NODES: usize = 2;

/// How many AWS calls a fresh process of `launch` makes for a job of two nodes that nothing disturbs.
const CALLS: usize = 31;

/// How long the queue hides a message, here, in place of six times the functions' time-out of a minute: as long as all
/// the killing takes, so that no message comes again before the last process was killed.
const VISIBILITY_SECONDS: u32 = 110;

/// How long a call is kept waiting; its caller is dead long before.
const HANG_MS: u64 = 5_000;

#[tokio::test(flavor = "multi_thread")]
async fn launch_is_killed_before_each_call() {
    launch_is_killed("launch_is_killed_before_each_call", Action::HangMs(HANG_MS)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn launch_is_killed_after_each_call() {
    launch_is_killed(
        "launch_is_killed_after_each_call",
        Action::HangAnswerMs(HANG_MS),
    )
    .await;
}

async fn launch_is_killed(name: &str, action: Action) {
    // One for each call, one that is undisturbed, and one more.
    let jobs = CALLS + 2;
    let nodes = NODES * jobs;
    let lab = Story::begin(name, |spec| {
        spec.nodes = u32::try_from(nodes).expect("few");
        spec.max_nodes = spec.nodes;
        spec.resume_timeout_seconds = 900;
        spec.queue_visibility_seconds = VISIBILITY_SECONDS;
    })
    .await;
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = FOR_EVER_MS);

    let undisturbed = undisturbed(&lab).await;
    let names = undisturbed.iter().map(|call| call.operation.as_str());
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), CALLS, "{names:?}");
    println!("undisturbed: {names:?}");
    let begun = Instant::now();
    // The process that is there already is killed at work, too: from then on each one is fresh.
    killed(&lab, &undisturbed, 0, CALLS + 1, &action).await;
    for index in 0..CALLS {
        killed(&lab, &undisturbed, index, index, &action).await;
    }
    let took = begun.elapsed();
    println!("{CALLS} processes killed in {took:?}");
    assert!(
        took < Duration::from_secs(VISIBILITY_SECONDS.into()),
        "messages came again before all were killed: {took:?}"
    );

    until("launch is done with all", 300, async || {
        requests_done(&lab, jobs).await.then_some(())
    })
    .await;
    let running: BTreeSet<String> = alive(&lab).into_iter().collect();
    assert_eq!(paired(&lab).await, (running, nodes), "one instance a node");
    assert_eq!(launched_ever(&lab), nodes, "none was launched twice");

    let all = format!("cloud-[0-{}]", nodes - 1);
    send(&lab, &[("SuspendQueueUrl", suspend(&all))]).await;
    none_runs(&lab).await;
    assert_eq!(launched_ever(&lab), nodes);
    assert_eq!(dead_letters(&lab).await, 0);
    lab.end().await;
}

/// Asks for the nodes of the job with this number.
async fn ask(lab: &Lab, job: usize) {
    let first = NODES * job;
    let nodes = format!("cloud-[{first}-{}]", first + NODES - 1);
    let mut message = resume(&nodes, now_ms() + 800_000);
    message["body"]["jobs"] = json!([
        {"job_id": (job + 1).to_string(), "nodes_resume": nodes, "partition": "cloud"},
    ]);
    put(lab, "ResumeQueueUrl", &message.to_string()).await;
}

/// A resume that nothing disturbs: the calls that it takes.
async fn undisturbed(lab: &Lab) -> Vec<Call> {
    let begun_ms = now_ms();
    ask(lab, CALLS).await;
    until("the undisturbed resume is done", 60, async || {
        requests_done(lab, 1).await.then_some(())
    })
    .await;
    calls(lab, "lab-launch", begun_ms)
}

/// The resume of a job whose process is killed around its call number `index`.
async fn killed(lab: &Lab, undisturbed: &[Call], index: usize, job: usize, action: &Action) {
    let call = &undisturbed[index];
    let faults = lab.cloud.proxy.faults();
    let arm = |times: usize, action: &Action| {
        let fault = Fault {
            id: None,
            service: call.service.clone(),
            operation: Some(call.operation.clone()),
            principal: Some("lab-launch".to_owned()),
            body_contains: None,
            times: Some(times as u64),
            action: action.clone(),
        };
        faults.arm(fault).expect("the fault is well formed")
    };
    let is_same =
        |other: &&Call| (&other.service, &other.operation) == (&call.service, &call.operation);
    let before = undisturbed[..index].iter().filter(is_same).count();
    arm(before, &Action::DelayMs(0));
    let fault = arm(1, action);
    ask(lab, job).await;
    fired(lab, &fault, 1).await;
    kill(lab, "launch");
    faults.clear();
}

/// Whether so many resumes have come, and `launch` is done with all of them.
async fn requests_done(lab: &Lab, count: usize) -> bool {
    let requests = items(lab, "request").await;
    let done = requests.iter().filter(|item| item["done"]["BOOL"] == true);
    (requests.len(), done.count()) == (count, count)
}

/// The instances with which nodes are paired, and how many nodes have one.
async fn paired(lab: &Lab) -> (BTreeSet<String>, usize) {
    let nodes = items(lab, "node").await;
    let instances = nodes
        .iter()
        .filter_map(|node| node["instance_id"]["S"].as_str());
    let instances: Vec<String> = instances.map(str::to_owned).collect();
    let count = instances.len();
    (instances.into_iter().collect(), count)
}
