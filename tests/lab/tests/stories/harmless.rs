//! What looks wedged on a node that Slurm has let go, and what comes of it on each release of Slurm: an address of before does
//! no harm, and a node that would power down for ever, by its configuration, is powered down by the sweep
//! (docs/slurm-states.md).

use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;

use crate::support::{Story, job, job_is, node, none_runs, pause, powered_down, submit, until};
use crate::sweep::{push_short_grace, report, sweep};
use crate::wedged::{Beside, print_log_of, reconfigure, update};

/// A node that is up stays so, unless the story lets it go.
const SUSPEND_TIME_SECONDS: u32 = 900;
/// TEST-NET-1: nobody is there.
const STALE_ADDRESS: &str = "192.0.2.77";
/// Near the most that Slurm takes, which is 65,533 s.
const BEYOND_REASON: &str = "SuspendTimeout=60000\n";

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    is_harmless("harmless-installed", SlurmRelease::Installed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    is_harmless("harmless-debian-13", SlurmRelease::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    is_harmless("harmless-debian-sid", SlurmRelease::DebianSid).await;
}

async fn is_harmless(name: &str, slurm: SlurmRelease) {
    let lab = Story::begin(name, |spec| {
        spec.slurm = slurm;
        spec.suspend_time_seconds = SUSPEND_TIME_SECONDS;
    })
    .await;
    push_short_grace(&lab).await;
    let beside = Beside::begin(&lab).await;
    a_stale_address_is_harmless(&lab, "cloud-4").await;
    powers_down_for_ever(&lab, "cloud-4").await;
    beside.ends_untouched(&lab).await;
    update(&lab, "cloud-0", "State=POWER_DOWN").await;
    none_runs(&lab).await;
    lab.end().await;
}

/// As ResumeTimeout leaves it on all releases, and each power-down on 22.05: nothing need heal it.
async fn a_stale_address_is_harmless(lab: &Lab, name: &str) {
    update(lab, name, &format!("NodeAddr={STALE_ADDRESS}")).await;
    let seen = node(lab, name).await;
    assert!(seen.is("POWERED_DOWN"), "{seen:?}");
    assert_eq!(seen.node_addr, STALE_ADDRESS);
    let id = submit(lab, name, 0).await;
    job_is(lab, &id, "COMPLETED", 120).await;
    assert_eq!(job(lab, &id, "Restarts").await, "0");
    assert_ne!(node(lab, name).await.node_addr, STALE_ADDRESS);
}

/// Only a SuspendTimeout beyond reason keeps a node powering down. The policy has a reasonable one, by which the sweep goes.
async fn powers_down_for_ever(lab: &Lab, name: &str) {
    let own = format!("SuspendTimeout={}\n", lab.spec.suspend_timeout_seconds);
    reconfigure(lab, &own, BEYOND_REASON).await;
    update(lab, name, "State=POWER_DOWN").await;
    until("it powers down", 30, async || {
        node(lab, name).await.is("POWERING_DOWN").then_some(())
    })
    .await;
    // Slurm's own time for it is over.
    pause(u64::from(lab.spec.suspend_timeout_seconds) + 5).await;
    let seen = node(lab, name).await;
    assert!(seen.is("POWERING_DOWN"), "{seen:?}");
    println!("{name} is stuck: {}", seen.flags.join("+"));
    let id = submit(lab, name, 0).await;
    // The agent's report of the states may be half a minute old, and the sweep waits for twice the policy's time.
    let mut is_found = false;
    until("the job has the node", 240, async || {
        sweep(lab).await;
        let last = report(lab, "last").await;
        let findings = last["findings"].as_array().into_iter().flatten();
        is_found |= findings
            .filter(|finding| finding["node"] == name && finding["heal"].is_object())
            .filter_map(|finding| finding["reason"].as_str())
            .any(|reason| reason.contains("POWERING_DOWN"));
        pause(6).await;
        (job(lab, &id, "JobState").await != "PENDING").then_some(())
    })
    .await;
    assert!(is_found, "no sweep has healed {name}");
    job_is(lab, &id, "COMPLETED", 150).await;
    print_log_of(lab, name);
    reconfigure(lab, BEYOND_REASON, &own).await;
    update(lab, name, "State=POWER_DOWN").await;
    powered_down(lab, name).await;
}
