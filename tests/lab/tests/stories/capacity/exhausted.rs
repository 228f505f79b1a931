//! Nothing is left in any pool of a node group: its nodes fail at once and rest, the other group goes on, and the job
//! runs when the rest is over, whoever was away meanwhile.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_lab::head::HeadNode;
use spillway_lab::install::SlurmRelease;
use spillway_lab::lab::Lab;
use spillway_lab::site::{INSTANCE_TYPES, NODE_GROUP};
use spillway_world::ec2::CapacityKind;

use super::{
    JOB_SECONDS, NO_CAPACITY, Watch, job_is_told, resume_calls, spot_then_on_demand, told_why,
};
use crate::agent::{ran, srun};
use crate::support::{
    Story, calls, changed, job, job_is, launched_ever, node, now_ms, powered_down,
    set_free_capacity, submit, until,
};

/// `capacity_rest_seconds` here: time for a job of the other group, and for slurmctld to be away and back.
const REST_SECONDS: u64 = 50;

/// Slurm is told within this after its request.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// slurmctld saves a reservation some seconds after it was made: a crash before that forgets it
/// (`docs/slurm-states.md`).
const SAVED_AFTER: Duration = Duration::from_secs(10);

/// slurmctld gives the nodes to the job within this after the rest.
const BACK_WITHIN_SECONDS: u64 = 10;

/// What the other group launches; the first one's types are the lab's.
const OTHER_TYPE: &str = "m6i.large";

#[tokio::test(flavor = "multi_thread")]
async fn of_the_installed_slurm() {
    the_job_runs_after_the_rest("exhausted-installed", SlurmRelease::Installed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_13() {
    the_job_runs_after_the_rest("exhausted-debian-13", SlurmRelease::Debian13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_debian_unstable() {
    the_job_runs_after_the_rest("exhausted-debian-sid", SlurmRelease::DebianSid).await;
}

async fn the_job_runs_after_the_rest(name: &str, slurm: SlurmRelease) {
    let mut lab = Story::begin(name, |spec| {
        spot_then_on_demand(spec);
        spec.slurm = slurm;
    })
    .await;
    push_two_groups(&lab).await;
    let watch = Watch::begin(&lab);
    set_exhausted(&lab, true);

    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    let reason = failed_in_time(&lab).await;
    let made = Instant::now();
    until("the job is requeued", 5, async || {
        (job(&lab, &id, "Restarts").await == "1").then_some(())
    })
    .await;
    let told = job_is_told(&lab, &id).await;
    assert!(
        told.starts_with(&format!("spillway: cloud-[0-1]: {}", tried())),
        "{told}"
    );
    // Else Slurm itself holds a requeued batch job for two minutes.
    let job_id = format!("JobId={id}");
    lab.head
        .scontrol(&["update", &job_id, "StartTime=now"])
        .await
        .expect("the job may start");
    let rest = reservation(&lab.head).await.expect("the group rests");
    assert_eq!(rest["Nodes"], "cloud-[0-3]", "{rest:?}");
    let ends_seconds: u64 = rest["EndTime"].parse().expect("Unix seconds");
    let asked = calls(&lab, "CreateFleet");

    ran(srun(&lab, "cloud-4"), "cloud-4").await;
    for name in ["cloud-0", "cloud-1"] {
        powered_down(&lab, name).await;
    }
    tokio::time::sleep_until((made + SAVED_AFTER).into()).await;
    lab.head
        .scontrol(&["reconfigure"])
        .await
        .expect("slurmctld is reconfigured");
    still_rests(&lab, &id, &reason, ends_seconds).await;
    lab.head.kill_slurmctld();
    lab.head
        .start_slurmctld()
        .await
        .expect("slurmctld starts again");
    still_rests(&lab, &id, &reason, ends_seconds).await;
    assert_eq!(calls(&lab, "CreateFleet"), asked + 1, "for the other group");
    assert_eq!((resume_calls(&lab), launched_ever(&lab)), (2, 1));

    lab.agent.stop().await;
    set_exhausted(&lab, false);
    has_its_nodes_back(&lab, &id, ends_seconds).await;
    lab.agent.start(&BTreeMap::new()).expect("the agent starts");
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(job(&lab, &id, "Restarts").await, "1");
    assert_eq!(launched_ever(&lab), 3);
    never_not_responding_when_powered_down(&watch);
    lab.end().await;
}

/// What the Reason and the AdminComment begin with.
fn tried() -> String {
    format!("spot: {NO_CAPACITY}; on-demand: {NO_CAPACITY}: ")
}

/// Waits until both nodes have failed; says why.
async fn failed_in_time(lab: &Lab) -> String {
    until("slurmctld has asked for the nodes", 30, async || {
        let view = node(lab, "cloud-0").await;
        (view.is("POWERING_UP") || view.reason.is_some()).then_some(())
    })
    .await;
    let asked = Instant::now();
    let reason = told_why(lab, "cloud-0").await;
    assert_eq!(told_why(lab, "cloud-1").await, reason);
    let took = asked.elapsed();
    assert!(took < TOLD_WITHIN, "told after {took:?}");
    println!("told after {took:?}");
    assert!(
        reason.starts_with(&format!("spillway: {}", tried())),
        "{reason}"
    );
    reason
}

/// The group's nodes are kept back and say why, and the job waits for them.
async fn still_rests(lab: &Lab, id: &str, reason: &str, ends_seconds: u64) {
    let rest = reservation(&lab.head).await.expect("the group rests");
    assert_eq!(rest["Nodes"], "cloud-[0-3]", "{rest:?}");
    assert_eq!(rest["EndTime"], ends_seconds.to_string(), "{rest:?}");
    assert_eq!(rest["State"], "ACTIVE", "{rest:?}");
    for name in ["cloud-0", "cloud-1"] {
        // After a crash slurmctld may be back at powering down, which it had saved last.
        powered_down(lab, name).await;
        let view = node(lab, name).await;
        assert_eq!(view.reason.as_deref(), Some(reason), "{name}");
    }
    assert_eq!(job(lab, id, "JobState").await, "PENDING");
    assert!(now_ms() < ends_seconds * 1000, "looked at too late");
}

/// Waits until the job has its nodes, the agent being dead; not before the rest is over.
async fn has_its_nodes_back(lab: &Lab, id: &str, ends_seconds: u64) {
    let left_seconds = (ends_seconds * 1000).saturating_sub(now_ms()) / 1000;
    let most_seconds = left_seconds + BACK_WITHIN_SECONDS;
    let state = until("the job has its nodes", most_seconds, async || {
        // Looked at before: with its nodes the job gets its instances within a moment.
        let launched = launched_ever(lab);
        let state = job(lab, id, "JobState").await;
        if state == "PENDING" {
            assert_eq!(launched, 1, "launched while the job still waited");
        }
        (state != "PENDING").then_some(state)
    })
    .await;
    assert!(now_ms() >= ends_seconds * 1000, "{state} during the rest");
    assert_eq!(state, "CONFIGURING");
    assert_eq!(lab.agent.pid(), None, "the agent is dead");
}

/// A powered-down node that does not respond would be taken for dead.
fn never_not_responding_when_powered_down(watch: &Watch) {
    let seen = watch.seen();
    let is = |flags: &[String], flag: &str| flags.iter().any(|own| own == flag);
    let down: Vec<_> = seen
        .iter()
        .filter(|(_, _, flags)| is(flags, "POWERED_DOWN"))
        .collect();
    assert!(down.len() > 100, "{} looks", down.len());
    for (name, _, flags) in down {
        assert!(!is(flags, "NOT_RESPONDING"), "{name}: {flags:?}");
    }
}

/// The first group's reservation, by field; times in Unix seconds.
async fn reservation(head: &HeadNode) -> Option<BTreeMap<String, String>> {
    let output = head
        .command("scontrol")
        .args(["-o", "show", "reservation"])
        .env("SLURM_TIME_FORMAT", "%s")
        .output()
        .await
        .expect("scontrol runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ours = format!("ReservationName=spillway-{NODE_GROUP}");
    let line = text
        .lines()
        .find(|line| line.split(' ').next() == Some(&ours))?;
    let fields = line.split(' ').filter_map(|word| word.split_once('='));
    Some(
        fields
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// Whether the first group's pools have nothing, of either kind.
fn set_exhausted(lab: &Lab, is_exhausted: bool) {
    let free = is_exhausted.then_some(0);
    for kind in [CapacityKind::Spot, CapacityKind::OnDemand] {
        set_free_capacity(lab, kind, free);
    }
}

/// The lab's nodes in two groups: the first half launches the lab's types, the other half another one.
async fn push_two_groups(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let (site, group) = text.split_once("[[node_group]]").expect("a node group");
    let site = changed(
        site,
        "[limits]",
        &format!("[limits]\ncapacity_rest_seconds = {REST_SECONDS}"),
    );
    let groups = format!("[\"{NODE_GROUP}\"]");
    let site = changed(&site, &groups, &format!("[\"{NODE_GROUP}\", \"other\"]"));
    let first = changed(group, "cloud-[0-7]", "cloud-[0-3]");
    let other = changed(group, "cloud-[0-7]", "cloud-[4-7]");
    let other = changed(&other, &format!("\"{NODE_GROUP}\""), "\"other\"");
    let types = format!("{INSTANCE_TYPES:?}");
    let other = changed(&other, &types, &format!("[\"{OTHER_TYPE}\"]"));
    let text = [site, first, other].join("[[node_group]]");
    std::fs::write(&path, text).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}
