//! What a thousand nodes cost: calls of EC2 for all of them, and items written for each. The journal counts both; the
//! writes are listed in docs/ARCHITECTURE.md.
//!
//! The thousand are asked for by the real programs, as slurmctld calls them, and the real agent tells a real slurmctld
//! their addresses. Their machines do not boot, so that the report of a node that has joined is missing there; what it
//! writes is measured with two nodes that do.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway_lab::lab::Lab;

use super::{FOR_EVER_MS, calls};
use crate::support::{Story, job_is, none_runs, now_ms, submit, until};

const THOUSAND: u32 = 1_000;

/// The most calls of EC2 for a thousand nodes. A node's name in the console (CreateTags) is not on the way to a job and
/// not among them.
const RESUME_CALLS: usize = 4;
const SUSPEND_CALLS: usize = 2;

/// The most items written for a node, from its resume to the end of its instance.
const WRITES: u32 = 10;

/// Of these the ones that write the node's own item and its instance's, and of them the one for the report that it has
/// joined.
const OWN_WRITES: [(&str, u32); 2] = [("NODE", 5), ("instance", 4)];
const READY_WRITES: u32 = 1;

/// Written as time goes by, whether nodes run or not.
const BY_TIME: [&str; 2] = ["HEARTBEAT", "STATES"];

#[tokio::test(flavor = "multi_thread")]
async fn one_job_of_a_thousand_nodes() {
    let jobs = vec![json!({"job_id": 1, "nodes_resume": all(), "partition": "cloud"})];
    a_thousand_nodes("one_job_of_a_thousand_nodes", jobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_of_one_node() {
    let job = |node| {
        let name = format!("cloud-{node}");
        json!({"job_id": node + 1, "nodes_resume": name, "partition": "cloud"})
    };
    let jobs = (0..THOUSAND).map(job).collect();
    a_thousand_nodes("a_thousand_jobs_of_one_node", jobs).await;
}

fn all() -> String {
    format!("cloud-[0-{}]", THOUSAND - 1)
}

async fn a_thousand_nodes(name: &str, jobs: Vec<Value>) {
    let lab = Story::begin(name, |spec| {
        spec.nodes = THOUSAND;
        spec.max_nodes = THOUSAND;
        spec.resume_timeout_seconds = 900;
        spec.function_timeout_seconds = 60;
        spec.queue_visibility_seconds = 70;
        // slurmctld's own call, for nodes that it is told to power up, names no jobs: the story makes the call.
        spec.slurm_lines = vec!["ResumeProgram=/bin/true".to_owned()];
    })
    .await;
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = FOR_EVER_MS);
    let nodename = format!("nodename={}", all());
    let up = ["update", &nodename, "state=power_up"];
    lab.head.scontrol(&up).await.expect("power up");

    let begun_ms = now_ms();
    let file = lab.head.directory().join("spool/resume.json");
    let text = json!({"all_nodes_resume": all(), "jobs": jobs}).to_string();
    std::fs::write(&file, text).expect("write a resume file");
    call(&lab, "spillway-resume", &file.display().to_string()).await;
    until("every address is applied", 300, async || {
        let written = written(&lab, "lab-report", begun_ms);
        (written.get("instance") == Some(&THOUSAND)).then_some(())
    })
    .await;
    let resume = of_ec2(&lab, "lab-launch", begun_ms);
    println!("resume: {resume:?} in {} ms", now_ms() - begun_ms);
    call(&lab, "spillway-suspend", "").await;
    none_runs(&lab).await;
    let suspend = of_ec2(&lab, "lab-terminate", begun_ms);
    println!("suspend: {suspend:?}");
    let mut written = written(&lab, "lab-", begun_ms);
    println!("written: {written:?}");

    assert!(resume.len() <= RESUME_CALLS, "{resume:?}");
    assert!(suspend.len() <= SUSPEND_CALLS, "{suspend:?}");
    // Nobody else asked EC2 for anything, and nobody asked later.
    let all = of_ec2(&lab, "lab-", begun_ms);
    assert_eq!(all.len(), resume.len() + suspend.len(), "{all:?}");
    written.retain(|kind, _| !BY_TIME.contains(&kind.as_str()));
    let all: u32 = written.values().sum();
    assert!(
        all + READY_WRITES * THOUSAND <= WRITES * THOUSAND,
        "{written:?}"
    );
    lab.end().await;
}

/// Nothing but the life of two nodes happens: what is written to their items and their instances'.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_over_a_nodes_life() {
    let lab = Story::begin("what_is_written_over_a_nodes_life", |spec| {
        spec.suspend_time_seconds = 900;
    })
    .await;
    let begun_ms = now_ms();
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", 110).await;
    let before = written(&lab, "lab-report", begun_ms);
    assert_eq!(
        before.get("NODE"),
        Some(&(2 * (1 + READY_WRITES))),
        "acknowledged and ready: {before:?}"
    );
    let down = ["update", "nodename=cloud-[0-1]", "state=power_down"];
    lab.head.scontrol(&down).await.expect("power down");
    none_runs(&lab).await;
    let written = written(&lab, "lab-", begun_ms);
    println!("written for two nodes: {written:?}");
    for (kind, count) in OWN_WRITES {
        assert_eq!(written.get(kind), Some(&(2 * count)), "{written:?}");
    }
    lab.end().await;
}

/// Calls one of the programs for all nodes, as slurmctld does.
async fn call(lab: &Lab, program: &str, resume_file: &str) {
    let mut command = lab.head.command("/usr/bin/setpriv");
    command
        .args(["--reuid=slurm", "--regid=slurm", "--clear-groups", "--"])
        .arg(lab.head.directory().join("bin").join(program))
        .arg(all());
    if !resume_file.is_empty() {
        command.env("SLURM_RESUME_FILE", resume_file);
    }
    let output = command.output().await.expect("the program runs");
    assert!(output.status.success(), "{output:?}");
}

/// The calls of EC2 that a function made, refused ones included, but for the names of instances.
fn of_ec2(lab: &Lab, function: &str, since_ms: u64) -> Vec<String> {
    let calls = calls(lab, function, since_ms).into_iter();
    let calls = calls.filter(|call| call.service == "ec2" && call.operation != "CreateTags");
    calls.map(|call| call.operation).collect()
}

/// How many items functions wrote, by kind.
fn written(lab: &Lab, function: &str, since_ms: u64) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for (kind, count) in calls(lab, function, since_ms)
        .into_iter()
        .flat_map(|call| call.writes)
    {
        *counts.entry(kind).or_default() += count;
    }
    counts
}
