//! Two clusters in one account and region, with nodes of the same names: neither touches the other's instances.

use spillway_core::tag;
use spillway_lab::lab::Lab;
use spillway_world::ec2::InstanceState;

use crate::support::{Story, alive, job_is, metric, none_runs, pause, powered_down, submit, until};
use crate::sweep::{GRACE_SECONDS, launched_behind_our_back, push_short_grace, sweep};

/// A job may wait for its node to boot, which slurmctld 22.05 looks at every 30 s.
const JOB_SECONDS: u64 = 120;
/// A finding is marked by one sweep and healed by the next; the third finds nothing.
const SWEEPS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn two_clusters_never_touch_each_others_instances() {
    let lab = Story::begin("two_clusters", |_| {}).await;
    let other = lab.start_neighbour("other", |line| println!("{line}"));
    let other = Box::pin(other).await.expect("the other cluster starts");
    push_short_grace(&lab).await;
    push_short_grace(&other).await;
    let ours = submit(&lab, "cloud-0,cloud-1", 600).await;
    let theirs = submit(&other, "cloud-0,cloud-1", 600).await;
    job_is(&lab, &ours, "RUNNING", JOB_SECONDS).await;
    job_is(&other, &theirs, "RUNNING", JOB_SECONDS).await;
    let (our_nodes, their_nodes) = (alive_of(&lab), alive_of(&other));
    assert_eq!((our_nodes.len(), their_nodes.len()), (2, 2));
    assert_eq!(alive(&lab).len(), 4);

    // One has an orphan, then the other; both sweep.
    for (has_orphan, healthy) in [(&*lab, &other), (&other, &*lab)] {
        let before = (
            orphans_ended(has_orphan).await,
            orphans_ended(healthy).await,
        );
        let asked_before = terminations(healthy);
        let orphan = launched_behind_our_back(has_orphan);
        for _ in 0..SWEEPS {
            sweep(has_orphan).await;
            sweep(healthy).await;
            pause(GRACE_SECONDS).await;
        }
        until("the orphan is gone", 30, async || {
            (!alive(&lab).contains(&orphan)).then_some(())
        })
        .await;
        let after = (
            orphans_ended(has_orphan).await,
            orphans_ended(healthy).await,
        );
        assert_eq!(after, (before.0 + 1, before.1));
        assert_eq!(terminations(healthy), asked_before);
    }
    assert_eq!(alive_of(&lab), our_nodes);
    assert_eq!(alive_of(&other), their_nodes);

    a_notice_is_for_its_cluster(&lab, &other, &our_nodes[0]).await;
    assert_eq!(alive_of(&other), their_nodes);

    // The one has no more work; the other works on.
    let asked_before = terminations(&other);
    let all = ["--partition=cloud"];
    lab.head.run("scancel", &all).await.expect("scancel");
    for name in ["cloud-0", "cloud-1"] {
        powered_down(&lab, name).await;
    }
    until("none of the one's instances runs", 60, async || {
        alive_of(&lab).is_empty().then_some(())
    })
    .await;
    assert_eq!(alive_of(&other), their_nodes);
    assert_eq!(terminations(&other), asked_before);
    job_is(&other, &theirs, "RUNNING", 1).await;
    other.head.run("scancel", &all).await.expect("scancel");
    none_runs(&other).await;
    other.stop().await;
    lab.end().await;
}

/// Somebody ends an instance of `lab`'s. EC2 tells both clusters.
async fn a_notice_is_for_its_cluster(lab: &Lab, other: &Lab, taken: &str) {
    let asked_before = terminations(other);
    let ids = [taken.to_owned()];
    lab.ec2
        .with(|ec2, now_ms| ec2.terminate_instances(now_ms, &ids, false))
        .expect("EC2 terminates");
    until("its cluster has dealt with it", 60, async || {
        (metric(lab, "notice", "InstancesGone").await == 1).then_some(())
    })
    .await;
    until("the other has dropped it", 60, async || {
        (metric(other, "notice", "NoticesOfStrangers").await > 0).then_some(())
    })
    .await;
    assert_eq!(metric(other, "notice", "InstancesGone").await, 0);
    assert_eq!(terminations(other), asked_before);
}

/// The cluster's instances that are pending or running, by its tag.
fn alive_of(lab: &Lab) -> Vec<String> {
    let alive = |state| matches!(state, InstanceState::Pending | InstanceState::Running);
    let mut ids: Vec<String> = lab.ec2.with(|ec2, _| {
        ec2.instances()
            .filter(|i| alive(i.state) && i.tags.get(tag::CLUSTER) == Some(&lab.spec.cluster))
            .map(|i| i.instance_id.clone())
            .collect()
    });
    ids.sort();
    ids
}

async fn orphans_ended(lab: &Lab) -> usize {
    metric(lab, "sweep", "OrphansEnded").await
}

/// How often anything of the cluster's has asked EC2 to terminate instances.
fn terminations(lab: &Lab) -> usize {
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    let own = format!("{}-", lab.spec.cluster);
    calls
        .iter()
        .filter(|call| call.operation == "TerminateInstances" && call.principal.starts_with(&own))
        .count()
}
