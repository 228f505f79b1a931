//! Nodes in states that slurmctld does not get out of by itself (docs/slurm-states.md), on each release of Slurm: made on
//! purpose, seen to be stuck, and healed by the sweep beside a job that runs on untouched.

use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;

use crate::support::{Story, job, job_is, node, none_runs, pause, powered_down, submit, until};
use crate::sweep::{push_short_grace, sweep};

/// How long a job for a wedged node is watched to wait: slurmctld tries to start jobs every few seconds.
const STUCK_SECONDS: u64 = 20;
/// Between two sweeps: a finding must last longer than the grace of these stories.
const BETWEEN_SECONDS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    let made = [down(), not_responding(), drained()];
    heals("wedged-installed", SlurmRelease::Installed, &made).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    let made = [down(), not_responding(), drained()];
    heals("wedged-debian-13", SlurmRelease::Debian13, &made).await;
}

/// 26.05 leaves a powered-down node responding whatever it is told: what 22.05 and 24.11 wedge so cannot be made.
#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    let made = [down(), drained()];
    heals("wedged-debian-sid", SlurmRelease::DebianSid, &made).await;
}

/// A way to wedge a powered-down node.
struct Wedge {
    node: &'static str,
    /// Each the rest of `scontrol update NodeName=…`.
    updates: Vec<&'static str>,
    /// Flags that it shows then.
    flags: &'static [&'static str],
}

/// As ResumeTimeout leaves it.
fn down() -> Wedge {
    Wedge {
        node: "cloud-2",
        updates: vec!["State=DOWN Reason=ResumeTimeout reached"],
        flags: &["DOWN", "POWERED_DOWN"],
    }
}

/// After an administrator's `resume` and a reconfiguration.
fn not_responding() -> Wedge {
    Wedge {
        node: "cloud-3",
        updates: vec!["State=DOWN Reason=ResumeTimeout reached", "State=RESUME"],
        flags: &["POWERED_DOWN", "NOT_RESPONDING"],
    }
}

/// As a notice leaves it whose node was powered down meanwhile.
fn drained() -> Wedge {
    Wedge {
        node: "cloud-4",
        updates: vec!["State=DRAIN Reason=spillway: spot interruption"],
        flags: &["DRAIN", "POWERED_DOWN"],
    }
}

async fn heals(name: &str, slurm: SlurmRelease, wedges: &[Wedge]) {
    let lab = Story::begin(name, |spec| spec.slurm = slurm).await;
    push_short_grace(&lab).await;
    let running = submit(&lab, "cloud-0", 600).await;
    job_is(&lab, &running, "RUNNING", 120).await;
    let start = job(&lab, &running, "StartTime").await;

    for wedge in wedges {
        for update in &wedge.updates {
            let (state, reason) = update.split_once(" Reason=").unwrap_or((update, ""));
            let reason = format!("Reason={reason}");
            let named = format!("NodeName={}", wedge.node);
            let mut words = vec!["update", &named, state];
            words.extend((reason.len() > "Reason=".len()).then_some(reason.as_str()));
            lab.head.scontrol(&words).await.expect("scontrol");
        }
    }
    // His to undo.
    let disk = [
        "update",
        "NodeName=cloud-5",
        "State=DOWN",
        "Reason=bad disk",
    ];
    lab.head.scontrol(&disk).await.expect("scontrol");
    lab.head.scontrol(&["reconfigure"]).await.expect("scontrol");
    for wedge in wedges {
        let seen = node(&lab, wedge.node).await;
        for flag in wedge.flags {
            assert!(seen.is(flag), "{} is {seen:?}", wedge.node);
        }
    }

    let mut waiting = Vec::new();
    for wedge in wedges {
        waiting.push((wedge.node, submit(&lab, wedge.node, 0).await));
    }
    pause(STUCK_SECONDS).await;
    for (name, id) in &waiting {
        assert_eq!(job(&lab, id, "JobState").await, "PENDING", "{name}");
    }

    until("all of them are healed", 240, async || {
        sweep(&lab).await;
        pause(BETWEEN_SECONDS).await;
        all_started(&lab, &waiting).await.then_some(())
    })
    .await;
    for (_, id) in &waiting {
        job_is(&lab, id, "COMPLETED", 180).await;
    }
    assert!(node(&lab, "cloud-5").await.is("DOWN"), "an administrator's");
    assert_eq!(job(&lab, &running, "JobState").await, "RUNNING");
    assert_eq!(job(&lab, &running, "Restarts").await, "0");
    assert_eq!(job(&lab, &running, "StartTime").await, start);
    lab.head.run("scancel", &[&running]).await.expect("scancel");
    for (name, _) in &waiting {
        powered_down(&lab, name).await;
        let seen = node(&lab, name).await;
        for flag in ["DOWN", "DRAIN", "NOT_RESPONDING"] {
            assert!(!seen.is(flag), "{name} is {seen:?}");
        }
    }
    none_runs(&lab).await;
    lab.end().await;
}

async fn all_started(lab: &Lab, waiting: &[(&str, String)]) -> bool {
    for (_, id) in waiting {
        if job(lab, id, "JobState").await == "PENDING" {
            return false;
        }
    }
    true
}
