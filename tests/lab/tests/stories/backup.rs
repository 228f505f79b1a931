//! Two head nodes, with the spool on `StateSaveLocation`. The one that works is lost while nodes power up: slurmctld's
//! backup takes over, and the agent beside it works on the same spool.

use std::fs;
use std::time::{Duration, SystemTime};

use spillway_lab::lab::{BACKUP_HEAD_NODE_ID, HEAD_NODE_ID, Lab};

use crate::support::{
    Story, alive, arm, internal_error, job, job_is, launched_ever, none_runs, powered_down, submit,
    until,
};

/// A job may wait for the takeover, and for its nodes to boot, which slurmctld 22.05 looks at every 30 s.
const JOB_SECONDS: u64 = 180;
const NODES: [&str; 2] = ["cloud-0", "cloud-1"];

#[tokio::test(flavor = "multi_thread")]
async fn the_head_node_is_lost_before_the_request_is_sent() {
    let mut lab = begin("head_node_lost_before").await;
    let fault = arm(
        &lab,
        "sqs",
        Some("SendMessage"),
        "head-node",
        None,
        internal_error(),
    );
    let id = submitted_and_saved(&lab).await;
    assert_eq!(requests(&lab).len(), 1, "the request waits in the spool");
    assert_eq!(launched_ever(&lab), 0);
    lab.lose_head_node();
    assert!(lab.cloud.proxy.faults().disarm(&fault));
    the_backup_sees_to_it(&mut lab, &id).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_head_node_is_lost_after_the_request_was_sent() {
    let mut lab = begin("head_node_lost_after").await;
    // The nodes have not joined when their head node goes.
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = 20_000);
    let id = submitted_and_saved(&lab).await;
    until("EC2 was asked", 60, async || {
        (alive(&lab).len() == NODES.len()).then_some(())
    })
    .await;
    assert_eq!(job(&lab, &id, "JobState").await, "CONFIGURING");
    lab.lose_head_node();
    the_backup_sees_to_it(&mut lab, &id).await;
    lab.end().await;
}

/// Both head nodes run, and the agent of the second has found the spool taken.
async fn begin(name: &str) -> Story {
    let mut lab = Story::begin(name, |spec| {
        spec.head_node_ids = [HEAD_NODE_ID, BACKUP_HEAD_NODE_ID]
            .map(str::to_owned)
            .to_vec();
    })
    .await;
    until("the first agent has the spool", 30, async || {
        agent_log(&lab).contains("agent started").then_some(())
    })
    .await;
    let backup = lab.backup.as_mut().expect("a second head node");
    backup.agent.start(&[].into()).expect("it can be started");
    let end = tokio::time::timeout(Duration::from_secs(10), backup.agent.ended());
    let end = end.await.expect("it ends").expect("it was started");
    assert_eq!(end.code(), Some(1));
    let log = fs::read_to_string(backup.agent.log_file()).expect("a log");
    assert!(log.contains("another agent holds"), "{log}");
    lab
}

fn agent_log(lab: &Lab) -> String {
    fs::read_to_string(lab.agent.log_file()).unwrap_or_default()
}

/// Submits a job that Slurm powers its nodes up for, and waits until slurmctld has saved both: what it has not saved, no
/// backup can know.
async fn submitted_and_saved(lab: &Lab) -> String {
    let id = submit(lab, &NODES.join(","), 5).await;
    until("Slurm has called ResumeProgram", 60, async || {
        job(lab, &id, "JobState")
            .await
            .eq("CONFIGURING")
            .then_some(())
    })
    .await;
    let called = SystemTime::now();
    let state = lab.head.state_save_location();
    until("slurmctld has saved its state", 60, async || {
        let saved = |name| {
            let file = fs::metadata(state.join(name)).and_then(|file| file.modified());
            file.is_ok_and(|at| at > called)
        };
        (saved("job_state") && saved("node_state")).then_some(())
    })
    .await;
    id
}

/// The files of requests in the spool.
fn requests(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.head.spool_directory().join("requests")).expect("a spool");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The second head node takes over: one instance a node, the job runs to its end, nothing is left.
async fn the_backup_sees_to_it(lab: &mut Story, id: &str) {
    // systemd tries each second.
    lab.agent.start(&[].into()).expect("the agent starts");
    lab.head.scontrol(&["takeover"]).await.expect("a takeover");
    until("the backup answers for the cluster", 60, async || {
        let job = lab.head.scontrol(&["show", "job", id]).await;
        job.is_ok().then_some(())
    })
    .await;
    job_is(lab, id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(job(lab, id, "Restarts").await, "0");
    assert_eq!(launched_ever(lab), NODES.len());
    for name in NODES {
        powered_down(lab, name).await;
    }
    none_runs(lab).await;
    until("the spool is empty", 30, async || {
        requests(lab).is_empty().then_some(())
    })
    .await;
    assert_eq!(launched_ever(lab), NODES.len());
}
