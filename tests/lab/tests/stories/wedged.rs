//! Nodes in states that slurmctld does not get out of by itself (docs/slurm-states.md), on each release of Slurm: made on
//! purpose, seen to be stuck, and healed by the sweep beside a job that runs on untouched.

use std::collections::BTreeSet;

use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;

use crate::support::{Story, job, job_is, node, none_runs, pause, powered_down, submit, until};
use crate::sweep::{push_short_grace, report, sweep};

/// How long a job for a wedged node is watched to wait: slurmctld tries to start jobs every few seconds.
const STUCK_SECONDS: u64 = 20;
/// Between two sweeps: a finding must last longer than the grace of these stories.
const BETWEEN_SECONDS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    let made = [down(), not_responding(), drained()];
    heals("wedged-installed", SlurmRelease::Installed, &made, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    let made = [down(), not_responding(), drained()];
    heals("wedged-debian-13", SlurmRelease::Debian13, &made, None).await;
}

/// 26.05 leaves a powered-down node responding whatever it is told: what 22.05 and 24.11 wedge so cannot be made.
#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    let made = [down(), drained()];
    let well = Some(not_responding());
    heals("wedged-debian-sid", SlurmRelease::DebianSid, &made, well).await;
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

/// `well` is not wedged by what is done to it.
async fn heals(name: &str, slurm: SlurmRelease, wedges: &[Wedge], well: Option<Wedge>) {
    let lab = Story::begin(name, |spec| spec.slurm = slurm).await;
    push_short_grace(&lab).await;
    let beside = Beside::begin(&lab).await;
    for wedge in wedges.iter().chain(&well) {
        for what in &wedge.updates {
            update(&lab, wedge.node, what).await;
        }
    }
    // His to undo.
    update(&lab, "cloud-5", "State=DOWN Reason=bad disk").await;
    lab.head.scontrol(&["reconfigure"]).await.expect("scontrol");
    for wedge in wedges {
        let seen = node(&lab, wedge.node).await;
        for flag in wedge.flags {
            assert!(seen.is(flag), "{} is {seen:?}", wedge.node);
        }
    }

    if let Some(well) = well {
        is_well(&lab, &well).await;
    }

    let nodes: Vec<&str> = wedges.iter().map(|wedge| wedge.node).collect();
    let waiting = Waiting::are_stuck(&lab, &nodes).await;
    let healed = waiting.are_healed(&lab).await;
    for name in &nodes {
        assert!(
            healed.iter().any(|(_, of)| of == name),
            "{name}: {healed:?}"
        );
    }
    assert!(node(&lab, "cloud-5").await.is("DOWN"), "an administrator's");
    beside.ends_untouched(&lab).await;
    for name in nodes {
        powered_down(&lab, name).await;
        let seen = node(&lab, name).await;
        for flag in ["DOWN", "DRAIN", "NOT_RESPONDING"] {
            assert!(!seen.is(flag), "{name} is {seen:?}");
        }
    }
    none_runs(&lab).await;
    lab.end().await;
}

/// No sweep is needed: a job gets the node.
async fn is_well(lab: &Lab, wedge: &Wedge) {
    let seen = node(lab, wedge.node).await;
    println!("{} is well: {}", wedge.node, seen.flags.join("+"));
    let is_wedged = wedge.flags.iter().all(|flag| seen.is(flag));
    assert!(!is_wedged, "{seen:?}");
    let id = submit(lab, wedge.node, 0).await;
    job_is(lab, &id, "COMPLETED", 120).await;
    assert_eq!(job(lab, &id, "Restarts").await, "0");
    print_log_of(lab, wedge.node);
}

/// What slurmctld has logged of a node's state.
pub fn print_log_of(lab: &Lab, name: &str) {
    let log = std::fs::read_to_string(lab.head.slurmctld_log()).expect("slurmctld's log");
    let is_of_state = |line: &&str| {
        let words = ["update_node", "power", "POWER", "not resumed", "responding"];
        line.contains(name) && words.iter().any(|word| line.contains(word))
    };
    for line in log.lines().filter(is_of_state) {
        println!("slurmctld: {line}");
    }
}

/// `scontrol update` of a node, as an administrator.
pub async fn update(lab: &Lab, node: &str, what: &str) {
    let named = format!("NodeName={node}");
    let (state, reason) = what.split_once(" Reason=").unwrap_or((what, ""));
    let reason = format!("Reason={reason}");
    let mut words = vec!["update", &named, state];
    words.extend((reason.len() > "Reason=".len()).then_some(reason.as_str()));
    lab.head.scontrol(&words).await.expect("scontrol");
}

/// Replaces a line of the head node's slurm.conf and has it read.
pub async fn reconfigure(lab: &Lab, from: &str, to: &str) {
    let path = lab.head.slurm_conf();
    let text = std::fs::read_to_string(&path).expect("slurm.conf");
    let changed = text.replace(from, to);
    assert_ne!(changed, text, "slurm.conf does not say {from}");
    std::fs::write(&path, changed).expect("write slurm.conf");
    lab.head.scontrol(&["reconfigure"]).await.expect("scontrol");
}

/// A job beside all this, on cloud-0, that nothing may disturb.
pub struct Beside {
    id: String,
    start: String,
}

impl Beside {
    pub async fn begin(lab: &Lab) -> Self {
        let id = submit(lab, "cloud-0", 900).await;
        job_is(lab, &id, "RUNNING", 120).await;
        let start = job(lab, &id, "StartTime").await;
        Self { id, start }
    }

    /// It runs as it always did; and now it ends.
    pub async fn ends_untouched(self, lab: &Lab) {
        assert_eq!(job(lab, &self.id, "JobState").await, "RUNNING");
        assert_eq!(job(lab, &self.id, "Restarts").await, "0");
        assert_eq!(job(lab, &self.id, "StartTime").await, self.start);
        lab.head.run("scancel", &[&self.id]).await.expect("scancel");
    }
}

/// Jobs that wait, each for one node.
pub struct Waiting<'a>(Vec<(&'a str, String)>);

impl<'a> Waiting<'a> {
    /// Gives each of the nodes a job, and sees that Slurm does not start them.
    pub async fn are_stuck(lab: &Lab, nodes: &[&'a str]) -> Self {
        let mut waiting = Vec::new();
        for node in nodes {
            waiting.push((*node, submit(lab, node, 0).await));
        }
        pause(STUCK_SECONDS).await;
        for (name, id) in &waiting {
            let seen = node(lab, name).await;
            println!(
                "{name} is stuck: {} ({:?})",
                seen.flags.join("+"),
                seen.reason
            );
            assert_eq!(job(lab, id, "JobState").await, "PENDING", "{name}");
        }
        Self(waiting)
    }

    /// Sweeps until all have started, and sees them end. Answers what the sweeps healed: what was found, of which node.
    pub async fn are_healed(&self, lab: &Lab) -> BTreeSet<(String, String)> {
        let mut healed = BTreeSet::new();
        until("all of them are healed", 240, async || {
            sweep(lab).await;
            healed.extend(healed_by_last_sweep(lab).await);
            pause(BETWEEN_SECONDS).await;
            self.have_started(lab).await.then_some(())
        })
        .await;
        println!("healed: {healed:?}");
        for (_, id) in &self.0 {
            job_is(lab, id, "COMPLETED", 180).await;
        }
        healed
    }

    async fn have_started(&self, lab: &Lab) -> bool {
        for (_, id) in &self.0 {
            if job(lab, id, "JobState").await == "PENDING" {
                return false;
            }
        }
        true
    }
}

async fn healed_by_last_sweep(lab: &Lab) -> Vec<(String, String)> {
    let last = report(lab, "last").await;
    let findings = last["findings"].as_array().into_iter().flatten();
    let healed = findings.filter(|finding| finding["heal"].is_object());
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    healed
        .map(|finding| (text(&finding["what"]), text(&finding["node"])))
        .collect()
}
