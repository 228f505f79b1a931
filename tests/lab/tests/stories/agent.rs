//! The agent in trouble: AWS away, the agent dead at the worst moment, away for long, or beside another one.
//! Nothing is lost, nothing is told or launched twice, and slurmctld is never held up.

mod away;
mod crash;
mod life;
mod unreachable;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use spillway_core::hostlist::Hostlist;
use spillway_lab::faults::Action;
use spillway_lab::head::Agent;
use spillway_lab::lab::{Lab, LabSpec};
use tokio::process::Child;

use crate::support::{Story, arm, until};

/// The principal of everything that the head node's credentials sign.
const HEAD_NODE: &str = "head-node";

/// A job that waits for one redelivery or one resend, and for its nodes to join.
const JOB_SECONDS: u64 = 100;

/// A lab whose updates come by the queue alone: by SSM they would be applied without the agent.
async fn begin(name: &str, change: impl FnOnce(&mut LabSpec)) -> Story {
    Story::begin(name, |spec| {
        "queue".clone_into(&mut spec.update_roads);
        change(spec);
    })
    .await
}

/// Starts a job that prints its nodes' names. Interactive: slurmctld 22.05 looks only every 30 s whether the nodes of
/// a batch job have booted.
pub fn srun(lab: &Lab, nodes: &str) -> Child {
    let count = nodes.split(',').count().to_string();
    lab.head
        .command("srun")
        .args(["-N", &count, "-w", nodes, "printenv", "SLURMD_NODENAME"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("srun starts")
}

/// Waits for the end of [`srun`], which must have run on its nodes.
pub async fn ran(job: Child, nodes: &str) {
    let end = tokio::time::timeout(Duration::from_secs(JOB_SECONDS), job.wait_with_output())
        .await
        .expect("the job ends in time")
        .expect("srun can be waited for");
    let said = String::from_utf8_lossy(&end.stderr).into_owned();
    assert!(end.status.success(), "srun on {nodes}: {said}");
    let printed = String::from_utf8_lossy(&end.stdout).into_owned();
    let mut names: Vec<&str> = printed.lines().collect();
    names.sort_unstable();
    assert_eq!(names.join(","), nodes);
}

/// Arms a fault on what the head node asks of SQS.
fn arm_sqs(lab: &Lab, operation: Option<&str>, action: Action) -> String {
    arm(lab, "sqs", operation, HEAD_NODE, None, action)
}

fn disarm(lab: &Lab, fault: &str) {
    assert!(lab.cloud.proxy.faults().disarm(fault), "it was armed");
}

/// Longer than any call of the agent waits.
fn no_answer() -> Action {
    Action::HangMs(60_000)
}

/// The lines of the agent's log, of all its lives, that hold all of `words`.
fn log_lines(agent: &Agent, words: &[&str]) -> Vec<String> {
    let log = fs::read_to_string(agent.log_file()).expect("the agent has a log");
    log.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .map(str::to_owned)
        .collect()
}

/// Waits until the agent has logged a line with all of `words`, `count` times in all its lives.
async fn logged(lab: &Lab, words: &[&str], count: usize) {
    until(
        &format!("the agent has logged {words:?} {count} times"),
        60,
        async || (log_lines(&lab.agent, words).len() >= count).then_some(()),
    )
    .await;
}

/// Starts the agent again, and waits until the programs can wake it.
async fn start_agent(lab: &mut Lab, environment: &[(&str, &str)]) {
    const STARTED: &[&str] = &["agent started"];
    let before = log_lines(&lab.agent, STARTED).len();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    lab.agent.start(&environment).expect("the agent starts");
    logged(lab, STARTED, before + 1).await;
}

/// Makes slurmctld log each node that it is told of, for [`times_told`].
async fn log_what_slurmctld_is_told(lab: &Lab) {
    lab.head
        .scontrol(&["setdebug", "debug2"])
        .await
        .expect("slurmctld logs more");
}

/// How often slurmctld was told of this node with `scontrol update`, by anyone.
fn times_told(lab: &Lab, node: &str) -> usize {
    let log = fs::read_to_string(lab.head.slurmctld_log()).expect("slurmctld has a log");
    let tells = |line: &str| {
        let (_, names) = line.split_once("_slurm_rpc_update_node complete for ")?;
        let names = names.split_whitespace().next()?;
        let names = Hostlist::parse(names).expect("slurmctld logs what it was given");
        names.iter().any(|name| name == node).then_some(())
    };
    log.lines().filter_map(tells).count()
}

/// Waits until nothing is in the spool.
async fn spool_is_empty(lab: &Lab) {
    let requests = lab.head.directory().join("spool/requests");
    until("the spool is empty", 60, async || {
        let mut entries = fs::read_dir(&requests).expect("the spool is there");
        entries.next().is_none().then_some(())
    })
    .await;
}

/// Waits until nothing is on a queue or in its readers' hands.
async fn queue_is_empty(lab: &Lab, queue_output: &str) {
    let url = lab.output(queue_output).expect("the stack has the queue");
    let root = lab.cloud.emulator.root();
    until(&format!("{queue_output} is empty"), 60, async || {
        let attributes = root.queue_attributes(url).await.expect("SQS answers");
        let none = |name: &str| attributes[name] == "0";
        (none("ApproximateNumberOfMessages") && none("ApproximateNumberOfMessagesNotVisible"))
            .then_some(())
    })
    .await;
}

/// Takes everything off a queue; the messages' bodies.
async fn take_all(lab: &Lab, queue_output: &str) -> Vec<String> {
    let url = lab.output(queue_output).expect("the stack has the queue");
    let root = lab.cloud.emulator.root();
    let mut bodies = Vec::new();
    loop {
        let ask = json!({"QueueUrl": url, "MaxNumberOfMessages": 10});
        let answer = root
            .json("sqs", "AmazonSQS.ReceiveMessage", &ask)
            .await
            .expect("SQS answers");
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() {
            return bodies;
        }
        for message in messages {
            let delete = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
            root.json("sqs", "AmazonSQS.DeleteMessage", &delete)
                .await
                .expect("SQS answers");
            let body = message["Body"].as_str().expect("a message has a body");
            bodies.push(body.to_owned());
        }
    }
}

/// Puts a script in the place of a program that slurmctld runs. In it `"$PROGRAM"` is ours under its own name, for
/// bash's `exec -a`; slurmctld's arguments and environment are as slurmctld gave them.
fn wrap_program(lab: &Lab, name: &str, script: &str) {
    let directory = lab.head.directory().join("bin");
    let program = directory.join("spillway");
    let wrapper = directory.join(name);
    let text = format!("#!/bin/bash\nPROGRAM={}\n{script}\n", program.display());
    fs::remove_file(&wrapper).expect("the program was there");
    fs::write(&wrapper, text).expect("write a wrapper");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("make it executable");
}
