//! EC2 has less than is asked for: what serves instead, what is given back, how long a node group rests, and what
//! Slurm shows of it all.

mod exhausted;
mod gang;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;

use spillway_lab::lab::{Lab, LabSpec};
use spillway_world::ec2::CapacityKind;
use tokio::process::Child;

use crate::support::{
    Story, admin_comment, calls, job, job_is, node, set_free_capacity, submit, until,
};

/// A job from its submission, or from the moment its nodes may be had, to its end. slurmctld 22.05 looks only every
/// 30 s whether the nodes of a batch job have booted.
const JOB_SECONDS: u64 = 90;

/// What AWS says of a pool that has nothing.
const NO_CAPACITY: &str = "InsufficientInstanceCapacity";

#[tokio::test(flavor = "multi_thread")]
async fn spot_is_exhausted_in_all_zones_and_on_demand_serves() {
    let lab = Story::begin("spot_is_exhausted_in_all_zones", spot_then_on_demand).await;
    set_free_capacity(&lab, CapacityKind::Spot, Some(0));
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;

    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    let (kinds, requests): (Vec<CapacityKind>, BTreeSet<String>) = lab.ec2.with(|ec2, _| {
        let request = |tags: &BTreeMap<String, String>| {
            tags.get("spillway:request").cloned().unwrap_or_default()
        };
        ec2.instances().map(|i| (i.kind, request(&i.tags))).unzip()
    });
    assert_eq!(kinds, [CapacityKind::OnDemand; 2]);
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(resume_calls(&lab), 1);
    assert_eq!(calls(&lab, "CreateFleet"), 2, "one for each kind");
    let told = admin_comment(&lab, &id).await;
    let expected =
        format!("spillway: cloud-[0-1]: launched 2 on-demand, for spot: {NO_CAPACITY}: ");
    assert!(told.starts_with(&expected), "{told}");
    for name in ["cloud-0", "cloud-1"] {
        assert_eq!(node(&lab, name).await.reason, None);
    }
    lab.end().await;
}

fn spot_then_on_demand(spec: &mut LabSpec) {
    spec.capacity = vec!["spot".to_owned(), "on-demand".to_owned()];
}

/// How often slurmctld has called `ResumeProgram`.
fn resume_calls(lab: &Lab) -> usize {
    let log = std::fs::read_to_string(lab.head.slurmctld_log()).expect("slurmctld has a log");
    // The second is 26.05's way to say it.
    let said = [
        " waking nodes ",
        "Issued slurmctld power action __resumeprog__ ",
    ];
    let is_call = |line: &&str| said.iter().any(|words| line.contains(words));
    log.lines().filter(is_call).count()
}

/// Waits until the node's Reason is ours.
async fn told_why(lab: &Lab, name: &str) -> String {
    until("Slurm's Reason is ours", 60, async || {
        let reason = node(lab, name).await.reason?;
        reason.starts_with("spillway: ").then_some(reason)
    })
    .await
}

/// Waits until the job's AdminComment is ours.
async fn job_is_told(lab: &Lab, id: &str) -> String {
    until("the job is told", 10, async || {
        let told = admin_comment(lab, id).await;
        told.starts_with("spillway: ").then_some(told)
    })
    .await
}

/// Notes over and over what slurmctld says of its nodes, also of states that pass quickly.
struct Watch {
    notes: PathBuf,
    _looks: Child,
}

impl Watch {
    fn begin(lab: &Lab) -> Self {
        let notes = lab.head.directory().join("nodes-seen");
        let file = File::create(&notes).expect("a file for the notes");
        // A shell, not a task of this program: it outlives a slurmctld that is away.
        let looks = lab
            .head
            .command("/bin/sh")
            .args(["-c", "while :; do scontrol -o show nodes; sleep 0.3; done"])
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell starts");
        Self {
            notes,
            _looks: looks,
        }
    }

    /// Name, address and flags of each node at each look.
    fn seen(&self) -> Vec<(String, String, Vec<String>)> {
        let text = std::fs::read_to_string(&self.notes).expect("the notes");
        let read = |line: &str| {
            let field = |key: &str| {
                let word = line.split(' ').find_map(|word| word.strip_prefix(key))?;
                Some(word.to_owned())
            };
            let flags = field("State=")?.split('+').map(str::to_owned).collect();
            Some((field("NodeName=")?, field("NodeAddr=")?, flags))
        };
        text.lines().filter_map(read).collect()
    }
}
