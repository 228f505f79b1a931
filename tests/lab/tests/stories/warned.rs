//! How soon a node drains after EC2's word, and what if EC2's event is lost: told on each release of Slurm.

use std::time::{Duration, Instant};

use spillway_lab::hypervisor::SpotAction;
use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;
use spillway_world::ec2::timestamp;

use crate::notices::{JOB_SECONDS, REQUEUED_SECONDS, push_notices, submit_unlucky};
use crate::support::{Story, alive, job, job_is, node, ready, submit, until};

/// How many notices the median is taken of.
const SAMPLES: usize = 9;
/// One more is warned by its own metadata alone, and another is where its job ends.
const NODES: u32 = 11;
/// The goal, the emulator's polling included.
const MEDIAN: Duration = Duration::from_secs(5);
/// The watcher on a node looks every five seconds; and no more than this is to pass in all.
const LOST_EVENT_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    drain_soon("warned-installed", SlurmRelease::Installed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    drain_soon("warned-debian-13", SlurmRelease::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    drain_soon("warned-debian-sid", SlurmRelease::DebianSid).await;
}

async fn drain_soon(name: &str, slurm: SlurmRelease) {
    let lab = Story::begin(name, |spec| {
        spec.slurm = slurm;
        spec.nodes = NODES;
        spec.capacity = vec!["spot".to_owned()];
        // What drained shall be there still.
        spec.suspend_time_seconds = 900;
    })
    .await;
    push_notices(&lab, false).await;
    let nodes: Vec<String> = (0..NODES).map(|n| format!("cloud-{n}")).collect();
    let all = submit(&lab, &nodes.join(","), 0).await;
    job_is(&lab, &all, "COMPLETED", JOB_SECONDS).await;
    let mut instances = Vec::new();
    for name in &nodes {
        instances.push((name.clone(), ready(&lab, name).await));
    }

    let unlucky = submit_unlucky(&lab).await;
    job_is(&lab, &unlucky, "RUNNING", JOB_SECONDS).await;
    let lost = job(&lab, &unlucky, "NodeList").await;
    let (mut samples, spared) = split(instances, &lost);
    its_own_watcher_tells(&lab, &samples.remove(0), &unlucky).await;
    median_is_short(&lab, &samples).await;

    job_is(&lab, &unlucky, "COMPLETED", REQUEUED_SECONDS).await;
    assert_eq!(job(&lab, &unlucky, "NodeList").await, spared);
    assert_eq!(job(&lab, &unlucky, "Restarts").await, "1");
    lab.end().await;
}

/// The unlucky node first, then those that are warned; and the name of the one that is left.
fn split(instances: Vec<(String, String)>, lost: &str) -> (Vec<(String, String)>, String) {
    let (mut warned, mut others): (Vec<_>, Vec<_>) =
        instances.into_iter().partition(|(name, _)| name == lost);
    let (spared, _) = others.pop().expect("one is left");
    warned.extend(others);
    assert_eq!(warned.len(), SAMPLES + 1);
    (warned, spared)
}

/// EC2 takes the instance back, and its event is lost: only instance metadata tells, and the node reads that itself.
async fn its_own_watcher_tells(lab: &Lab, (name, instance): &(String, String), unlucky: &str) {
    lab.bus.lose(true);
    let begun = Instant::now();
    let taken = lab
        .ec2
        .with(|ec2, now_ms| ec2.interrupt_spot(now_ms, instance))
        .expect("a spot instance");
    let action = SpotAction {
        action: taken.action,
        time: timestamp(taken.at_ms / 1000 * 1000).to_string(),
    };
    lab.hypervisor
        .set_spot_action(instance, Some(&action))
        .expect("it runs");
    let drained = drains(lab, name, begun).await;
    println!("by the node's own watcher, from the warning to DRAIN in slurmctld: {drained:?}");
    assert!(drained < LOST_EVENT_MAX, "{drained:?}");
    let reason = node(lab, name).await.reason.unwrap_or_default();
    assert!(reason.starts_with("spillway: "), "{reason}");
    println!("{name}: {reason}");
    until("the job is queued again", 60, async || {
        (job(lab, unlucky, "Restarts").await == "1").then_some(())
    })
    .await;
    assert!(alive(lab).contains(instance), "EC2 has not taken it yet");
    lab.bus.lose(false);
}

async fn median_is_short(lab: &Lab, warned: &[(String, String)]) {
    let mut samples = Vec::new();
    for (name, instance) in warned {
        let begun = Instant::now();
        lab.ec2
            .with(|ec2, now_ms| ec2.interrupt_spot(now_ms, instance))
            .expect("a spot instance");
        samples.push(drains(lab, name, begun).await);
    }
    samples.sort_unstable();
    let median = samples[samples.len() / 2];
    println!("from the event to DRAIN in slurmctld: {samples:?}, median {median:?}");
    assert_eq!(samples.len(), SAMPLES);
    assert!(median <= MEDIAN, "{median:?} of {samples:?}");
}

/// How long after `begun` the node was seen to drain.
async fn drains(lab: &Lab, name: &str, begun: Instant) -> Duration {
    until("the node drains", 60, async || {
        node(lab, name).await.is("DRAIN").then(|| begun.elapsed())
    })
    .await
}
