//! Newer Slurms than this machine's: head node and instances run what Debian 13 and Debian unstable package.

use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;

use crate::support::{
    Story, job, job_is, launched_ever, node, none_runs, powered_down, submit, until,
};

/// A job's whole road, on a Slurm whose version starts with one of `versions`.
async fn a_job_runs(story: &Story, versions: &[&str]) {
    let lab: &Lab = story;
    let version = lab.head.scontrol(&["--version"]).await.expect("a version");
    let number = version.split_whitespace().last().unwrap_or_default();
    assert!(
        versions.iter().any(|version| number.starts_with(version)),
        "{number} is none of {versions:?}"
    );

    let id = submit(lab, "cloud-1,cloud-4", 1).await;
    job_is(lab, &id, "COMPLETED", 120).await;
    assert_eq!(job(lab, &id, "Restarts").await, "0");
    assert_eq!(launched_ever(lab), 2);
    let up = node(lab, "cloud-4").await;
    let said = lab
        .head
        .scontrol(&["-o", "show", "node", "cloud-4"])
        .await
        .expect("scontrol answers");
    assert!(
        said.contains(&format!(" Version={number} ")),
        "slurmd is of another release: {said}"
    );
    assert_ne!(up.node_addr, "cloud-4");

    for name in ["cloud-1", "cloud-4"] {
        powered_down(lab, name).await;
    }
    none_runs(lab).await;
    until("slurmctld forgets the address", 30, async || {
        (node(lab, "cloud-4").await.node_addr == "cloud-4").then_some(())
    })
    .await;
    assert!(!node(lab, "cloud-4").await.is("NOT_RESPONDING"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_debian_13() {
    let story = Story::begin("releases-debian-13", |spec| {
        spec.slurm = SlurmRelease::Debian13;
        // `spillway apply` too runs in that Debian.
        spec.update_roads = "ssm".to_owned();
    })
    .await;
    a_job_runs(&story, &["24.11."]).await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_debian_unstable() {
    let story = Story::begin("releases-debian-sid", |spec| {
        spec.slurm = SlurmRelease::DebianSid;
    })
    .await;
    // Unstable goes on.
    a_job_runs(&story, &["26.", "27."]).await;
    story.end().await;
}
