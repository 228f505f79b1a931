//! Caps on partitions, accounts and users: they hold for any history, and each one's share comes free again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::config::Policy;
use spillway_core::message::{RequestJob, ResumeRequest};
use spillway_core::name::{JobId, NodeName};
use spillway_core::usage::{LAUNCH_LIFE_MS, Live, MAX_BYTES, Owner, Reservation, Usage};

use super::{
    FULL, ITEM_BYTES, NOW_MS, granted, group, launch, names, policy, refused, request, roomy,
};

pub(super) const ROOM: &str = "max_nodes = 300\nlaunches_per_hour = 600\n";
pub(super) const LATER_MS: u64 = NOW_MS + LAUNCH_LIFE_MS + 15 * 60_000;

/// A request with a job for each hostlist and `account/user`.
fn request_of(jobs: &[(&str, &str)]) -> ResumeRequest {
    let of = |((index, (nodes, owner)), job): ((usize, &(&str, &str)), RequestJob)| {
        let (account, user) = owner.split_once('/').expect("account/user");
        let known = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        RequestJob {
            job_id: JobId::new((index + 1).to_string()).expect("an id"),
            nodes_resume: (*nodes).to_owned(),
            account: known(account),
            user: known(user),
            ..job
        }
    };
    let lists: Vec<&str> = jobs.iter().map(|(nodes, _)| *nodes).collect();
    let plain = request(&lists);
    let jobs = jobs.iter().enumerate().zip(plain.jobs.clone()).map(of);
    ResumeRequest {
        jobs: jobs.collect(),
        ..plain
    }
}

pub(super) fn reserve(
    usage: &mut Usage,
    number: usize,
    jobs: &[(&str, &str)],
    policy: &Policy,
) -> Reservation {
    let lists: Vec<&str> = jobs.iter().map(|(nodes, _)| *nodes).collect();
    let nodes = names(&lists.join(","));
    let nodes: BTreeSet<NodeName> = nodes.into_iter().collect();
    let nodes: Vec<NodeName> = nodes.into_iter().collect();
    usage.reserve(&launch(number), &request_of(jobs), &nodes, policy, NOW_MS)
}

pub(super) fn owner(text: &str) -> Owner {
    text.parse().expect("an owner")
}

pub(super) fn of_user(usage: &Usage, user: &str) -> u32 {
    usage.nodes_for(|owner| owner.user.as_str() == user)
}

#[test]
fn each_cap_refuses_what_is_over_it_and_names_whose_it_is() {
    let over = "spillway: over the site's limit of ";
    let cases = [
        (
            "max_nodes_per_user = 2\n",
            "2 nodes of user alice (limits.max_nodes_per_user)",
        ),
        (
            "max_vcpus_per_user = 64\n",
            "64 vCPUs of user alice (limits.max_vcpus_per_user)",
        ),
        (
            "max_nodes_per_account = 2\n",
            "2 nodes of account physics (limits.max_nodes_per_account)",
        ),
        (
            "max_vcpus_per_account = 95\n",
            "95 vCPUs of account physics (limits.max_vcpus_per_account)",
        ),
        (
            "max_nodes_per_user = 9\n[limits.user.alice]\nmax_nodes = 2\n",
            "2 nodes of user alice (limits.user.alice.max_nodes)",
        ),
        (
            "max_nodes_per_user = 1\n[limits.user.alice]\nmax_nodes = 9\nmax_vcpus = 64\n",
            "64 vCPUs of user alice (limits.user.alice.max_vcpus)",
        ),
        (
            "[limits.account.physics]\nmax_nodes = 2\n",
            "2 nodes of account physics (limits.account.physics.max_nodes)",
        ),
    ];
    for (limits, reason) in cases {
        let policy = policy(&format!("{ROOM}{limits}"));
        let mut usage = Usage::default();
        let jobs = [
            ("cloud001", "physics/alice"),
            ("cloud002", "physics/alice"),
            ("cloud003", "physics/alice"),
            ("cloud004", "chemistry/bob"),
        ];
        let reservation = reserve(&mut usage, 1, &jobs, &policy);
        assert_eq!(granted(&reservation), "cloud[001-002,004]", "{limits}");
        let reason = format!("{over}{reason}");
        assert_eq!(refused(&reservation), [("cloud003", reason.as_str())]);
        assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (2, 1));
    }
}

#[test]
fn a_partition_counts_its_jobs_wherever_their_nodes_are() {
    let mut policy = policy(&format!("{ROOM}max_vcpus = 1000000\n"));
    let (burst, gpu) = ("burst".to_owned(), "gpu".to_owned());
    for (name, partition) in &mut policy.partitions {
        let is_burst = name.as_str() == burst;
        partition.limits.max_nodes = is_burst.then_some(2);
        partition.limits.max_vcpus = (!is_burst).then_some(16);
    }
    let mut usage = Usage::default();
    let mut request = request(&["cloud001", "cloud002", "cloud003", "gpu1", "gpu2"]);
    // Slurm before 23.02 names no partition; one that the group is not in counts for nothing.
    request.jobs[0].partition = Some(burst);
    request.jobs[2].partition = Some(gpu.clone());
    request.jobs[3].partition = Some(gpu);
    let nodes = names("cloud[001-003],gpu[1-2]");
    let reservation = usage.reserve(&launch(1), &request, &nodes, &policy, NOW_MS);
    assert_eq!(granted(&reservation), "cloud[001-002],gpu1");
    let over = "spillway: over the site's limit of ";
    let vcpus = format!("{over}16 vCPUs of partition gpu (partition.max_vcpus)");
    let nodes = format!("{over}2 nodes of partition burst (partition.max_nodes)");
    assert_eq!(
        refused(&reservation),
        [("gpu2", vcpus.as_str()), ("cloud003", nodes.as_str())]
    );
}

#[test]
fn the_partition_is_the_jobs_or_else_the_first_of_the_group() {
    let partitions = ["long", "short", "night"].map(|name| name.parse().expect("a name"));
    let of = |partition: Option<&str>| {
        let mut job = request(&["cloud001"]).jobs.remove(0);
        job.partition = partition.map(str::to_owned);
        Owner::of(Some(&job), &partitions).to_string()
    };
    assert_eq!(of(Some("night")), "night/unknown/unknown");
    assert_eq!(of(Some("long")), "long/unknown/unknown");
    assert_eq!(of(Some("debug")), "long/unknown/unknown");
    assert_eq!(of(None), "long/unknown/unknown");
}

#[test]
fn a_job_that_does_not_fit_for_its_user_takes_nothing_from_those_that_do() {
    let policy = policy(&format!("{ROOM}max_nodes_per_user = 3\n"));
    let mut usage = Usage::default();
    let jobs = [
        ("cloud[001-004]", "physics/alice"),
        ("cloud[004-006]", "physics/bob"),
        ("cloud007", "physics/alice"),
    ];
    let reservation = reserve(&mut usage, 1, &jobs, &policy);
    let reason =
        "spillway: over the site's limit of 3 nodes of user alice (limits.max_nodes_per_user)";
    assert_eq!(granted(&reservation), "cloud[004-007]");
    assert_eq!(refused(&reservation), [("cloud[001-003]", reason)]);
    // The node that both wanted is held for whose job got it.
    assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (1, 3));
}

/// Were they nobody's, whoever keeps the agent from asking squeue would have no cap.
#[test]
fn who_is_not_known_counts_as_one_user_and_one_account() {
    let limits = format!("{ROOM}max_nodes_per_user = 2\n[limits.account.unknown]\nmax_nodes = 5\n");
    let policy = policy(&limits);
    let mut usage = Usage::default();
    let jobs = [("cloud001", "/"), ("cloud002", "physics/")];
    assert_eq!(
        granted(&reserve(&mut usage, 1, &jobs, &policy)),
        "cloud[001-002]"
    );
    let none = usage.reserve(
        &launch(2),
        &request(&[]),
        &names("cloud003"),
        &policy,
        NOW_MS,
    );
    let reason =
        "spillway: over the site's limit of 2 nodes of user unknown (limits.max_nodes_per_user)";
    assert_eq!(refused(&none), [("cloud003", reason)]);
}

/// Names come from the head node: none may break a Reason, or the record.
#[test]
fn any_text_becomes_a_name_and_none_takes_more_than_its_place() {
    let mut usage = Usage::default();
    let hostile = format!("a/\"b\\\n ü{}/c", "x".repeat(100));
    let policy = policy(&format!("{ROOM}max_nodes_per_user = 1\n"));
    let mut jobs = request(&["cloud001", "cloud002"]);
    for job in &mut jobs.jobs {
        job.user = Some(hostile.clone());
        job.account = Some(String::new());
    }
    let nodes = names("cloud[001-002]");
    let reservation = usage.reserve(&launch(1), &jobs, &nodes, &policy, NOW_MS);
    let user = format!("a__b___ü{}", "x".repeat(56));
    let reason = format!(
        "spillway: over the site's limit of 1 nodes of user {user} (limits.max_nodes_per_user)"
    );
    assert_eq!(refused(&reservation), [("cloud002", reason.as_str())]);
    let held = owner(&format!("burst/unknown/{user}"));
    assert_eq!(usage.nodes_for(|owner| *owner == held), 1);
    let text = serde_json::to_string(&usage).expect("JSON");
    assert_eq!(
        serde_json::from_str::<Usage>(&text).expect("reads back"),
        usage
    );
}

#[test]
fn each_node_of_its_own_long_named_user_never_takes_more_than_the_item() {
    let policy = roomy();
    let mut usage = Usage::default();
    let nodes = names("cloud[00001-05000]");
    let jobs: Vec<(String, String)> = (0..5_000)
        .map(|n| (nodes[n].to_string(), format!("{n:ü>64}/{n:é>64}")))
        .collect();
    let jobs: Vec<(&str, &str)> = jobs.iter().map(|(n, o)| (n.as_str(), o.as_str())).collect();
    let reservation = reserve(&mut usage, 1, &jobs, &policy);
    assert!(
        reservation.granted.len() > 1_000,
        "{}",
        reservation.granted.len()
    );
    assert_eq!(refused(&reservation)[0].1, FULL);
    let bytes = serde_json::to_string(&usage).expect("JSON").len();
    assert!(
        (MAX_BYTES - 5_000..ITEM_BYTES).contains(&bytes),
        "{bytes} bytes"
    );
}

#[test]
fn what_is_not_known_whose_it_is_is_looked_up_and_counts_for_all_until_then() {
    let policy = policy(&format!("{ROOM}max_vcpus = 1000000\n"));
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let jobs = [
        ("cloud[001-003]", "physics/alice"),
        ("cloud[004-005]", "physics/bob"),
    ];
    reserve(&mut usage, 1, &jobs, &policy);
    reserve(&mut usage, 2, &[("cloud006", "physics/bob")], &policy);
    let (first, bob) = (launch(1), owner("burst/physics/bob"));
    let of = |owner| Live {
        launch: &first,
        node_group: &cpu,
        owner,
    };
    assert!(
        usage.ambiguous([of(None)], NOW_MS).is_empty(),
        "it is young"
    );
    assert_eq!(usage.ambiguous([of(None)], LATER_MS).len(), 1);
    assert!(
        usage.ambiguous([of(None); 5], LATER_MS).is_empty(),
        "all are there"
    );
    let mut guess = usage.clone();
    guess.compare([of(None)], LATER_MS);
    assert_eq!((of_user(&guess, "alice"), of_user(&guess, "bob")), (1, 1));
    guess.compare([], LATER_MS);
    assert_eq!(guess, compared(&Usage::default()));
    usage.compare([of(Some(&bob))], LATER_MS);
    assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (0, 1));
    // What it did not show is not given back once more.
    usage.end(&first, &cpu, &bob, 1);
    assert_eq!(of_user(&usage, "bob"), 1);
}

#[test]
fn what_no_node_ever_had_is_given_back_to_whoever_alone_holds_its_launch() {
    let policy = policy(&format!("{ROOM}max_vcpus = 1000000\n"));
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let two = [("cloud001", "physics/alice"), ("cloud002", "physics/bob")];
    reserve(&mut usage, 1, &two, &policy);
    reserve(&mut usage, 2, &[("cloud[003-004]", "physics/bob")], &policy);
    let nobody = Owner::default();
    usage.end(&launch(2), &cpu, &nobody, 1);
    assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (1, 2));
    usage.end(&launch(1), &cpu, &nobody, 1);
    let unchanged = (of_user(&usage, "alice"), of_user(&usage, "bob"));
    assert_eq!(unchanged, (1, 2), "either's");
    // Bob's own is given back to him and to nobody else.
    let bob = owner("burst/physics/bob");
    usage.end(&launch(1), &cpu, &bob, 1);
    usage.end(&launch(1), &cpu, &bob, 1);
    assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (1, 1));
}

fn compared(usage: &Usage) -> Usage {
    let mut usage = usage.clone();
    usage.compare([], LATER_MS);
    let mut launched = serde_json::to_value(&usage).expect("JSON");
    launched["launched"] = serde_json::json!({ (NOW_MS / 60_000).to_string(): 6 });
    serde_json::from_value(launched).expect("a record")
}

#[test]
fn a_record_and_a_policy_of_before_owners_were_counted_are_read() {
    let old =
        r#"{"node_groups":{"cpu":{"cpus":32,"launches":{"AAAAAAAAAAAAAAAAAAAA":[3,29833333]}}}}"#;
    let usage: Usage = serde_json::from_str(old).expect("a record");
    assert_eq!((usage.nodes(), usage.vcpus()), (3, 96));
    assert_eq!(usage.nodes_for(|owner| *owner == Owner::default()), 3);
    let policy = policy(&format!("{ROOM}max_vcpus = 1000000\n"));
    let text = policy.to_json();
    assert!(!text.contains("per_user") && !text.contains("accounts"));
    assert_eq!(Policy::from_json(&text).expect("a policy"), policy);
}

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        launch: usize,
        jobs: Vec<(Vec<usize>, usize)>,
    },
    /// The launch is planned again after a crash, before anything was launched.
    Again {
        launch: usize,
    },
    End {
        launch: usize,
        which: prop::sample::Index,
    },
    Settle {
        launch: usize,
    },
    /// A worker dies between ending an instance and giving it back.
    Lose {
        launch: usize,
        which: prop::sample::Index,
    },
    Compare {
        knows: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let job = (prop::collection::vec(0_usize..40, 1..4), 0_usize..6);
    let jobs = prop::collection::vec(job, 1..8);
    let which = any::<prop::sample::Index>();
    prop_oneof![
        4 => (0_usize..12, jobs).prop_map(|(launch, jobs)| Step::Reserve { launch, jobs }),
        1 => (0_usize..12).prop_map(|launch| Step::Again { launch }),
        5 => (0_usize..12, which.clone()).prop_map(|(launch, which)| Step::End { launch, which }),
        2 => (0_usize..12).prop_map(|launch| Step::Settle { launch }),
        1 => (0_usize..12, which).prop_map(|(launch, which)| Step::Lose { launch, which }),
        1 => any::<bool>().prop_map(|knows| Step::Compare { knows }),
    ]
}

/// The reference: which instances of a launch run, for whom.
#[derive(Debug, Default)]
struct Launched {
    request: Option<ResumeRequest>,
    nodes: Vec<NodeName>,
    running: Vec<Owner>,
    /// Of each owner's nodes one gets no instance.
    settled: bool,
    touched: bool,
}

const OWNERS: [&str; 6] = ["a/x", "a/y", "b/x", "b/z", "/", "a/"];

proptest! {
    /// Whatever happens in whatever order, no one runs more than its caps allow; nobody is held for less than runs; and
    /// when nothing runs any more nothing is held.
    #[test]
    fn no_cap_is_ever_exceeded_and_nothing_is_held_in_the_end(steps in prop::collection::vec(step(), 1..50)) {
        let policy = policy("max_nodes = 24\nlaunches_per_hour = 60000\nmax_nodes_per_user = 9\nmax_vcpus_per_account = 450\n\
                             [limits.user.y]\nmax_nodes = 3\n");
        let (cpu, known) = (group("cpu"), names("cloud[001-040]"));
        let mut usage = Usage::default();
        let mut launches: BTreeMap<usize, Launched> = BTreeMap::new();
        let mut lost = false;
        for step in steps {
            match step {
                Step::Reserve { launch: number, jobs } => {
                    if launches.contains_key(&number) { continue; }
                    let lists: Vec<String> = jobs.iter().map(|(nodes, _)| {
                        let nodes: BTreeSet<&NodeName> = nodes.iter().map(|n| &known[*n]).collect();
                        spillway_core::hostlist::fold(nodes)
                    }).collect();
                    let jobs: Vec<(&str, &str)> = lists.iter().zip(&jobs).map(|(list, (_, o))| (list.as_str(), OWNERS[*o])).collect();
                    let request = request_of(&jobs);
                    let reservation = reserve(&mut usage, number, &jobs, &policy);
                    let launched = Launched { nodes: reservation.granted.clone(), request: Some(request), ..Launched::default() };
                    launches.insert(number, launched);
                    run(launches.get_mut(&number).unwrap(), &reservation, &usage, &policy);
                }
                Step::Again { launch: number } => {
                    let Some(launched) = launches.get_mut(&number).filter(|l| !l.touched && !l.settled) else { continue };
                    let request = launched.request.clone().unwrap();
                    let reservation = usage.reserve(&launch(number), &request, &launched.nodes, &policy, NOW_MS);
                    launched.nodes.clone_from(&reservation.granted);
                    run(launched, &reservation, &usage, &policy);
                }
                Step::End { launch: number, which } | Step::Lose { launch: number, which } => {
                    let Some(launched) = launches.get_mut(&number).filter(|l| !l.running.is_empty()) else { continue };
                    launched.touched = true;
                    let owner = launched.running.swap_remove(which.index(launched.running.len()));
                    if matches!(step, Step::End { .. }) {
                        usage.end(&launch(number), &cpu, &owner, 1);
                    } else {
                        lost = true;
                    }
                }
                Step::Settle { launch: number } => {
                    // Of each owner that still has one, the last never came.
                    let Some(launched) = launches.get_mut(&number).filter(|l| !l.settled && !l.touched) else { continue };
                    launched.settled = true;
                    let owners: BTreeSet<Owner> = launched.running.iter().cloned().collect();
                    for owner in owners {
                        let planned = u32::try_from(launched.running.iter().filter(|o| **o == owner).count()).unwrap();
                        let last = launched.running.iter().position(|o| *o == owner).unwrap();
                        launched.running.swap_remove(last);
                        for _ in 0..2 {
                            usage.settle(&launch(number), &cpu, &owner, planned, planned - 1);
                        }
                    }
                }
                Step::Compare { knows } => {
                    let keys: Vec<_> = launches.keys().map(|number| (*number, launch(*number))).collect();
                    let live = keys.iter().flat_map(|(number, key)| {
                        launches[number].running.iter().map(|owner| Live {
                            launch: key, node_group: &cpu, owner: knows.then_some(owner),
                        })
                    });
                    usage.compare(live, LATER_MS);
                }
            }
            let runs = |of: &dyn Fn(&Owner) -> bool| -> u32 {
                let owners = launches.values().flat_map(|l| &l.running);
                u32::try_from(owners.filter(|owner| of(owner)).count()).unwrap()
            };
            prop_assert!(runs(&|_| true) <= 24);
            for name in ["x", "y", "z", "unknown"] {
                let most = if name == "y" { 3 } else { 9 };
                let (own, held) = (runs(&|o| o.user.as_str() == name), of_user(&usage, name));
                prop_assert!(own <= most, "{own} of user {name}");
                prop_assert!(held >= own && (lost || held == own), "user {name}: {held} held, {own} run");
            }
            for name in ["a", "b", "unknown"] {
                prop_assert!(runs(&|o| o.account.as_str() == name) * 32 <= 450);
            }
            let text = serde_json::to_string(&usage).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Usage>(&text).expect("and reads back"), &usage);
        }
        for (number, launched) in &mut launches {
            for owner in std::mem::take(&mut launched.running) {
                usage.end(&launch(*number), &cpu, &owner, 1);
            }
        }
        if lost {
            usage.compare([], LATER_MS);
        }
        prop_assert_eq!(usage.nodes(), 0);
    }
}

/// What was granted runs, each instance for whom the plan's holds say; that is also what the record says.
fn run(launched: &mut Launched, reservation: &Reservation, usage: &Usage, policy: &Policy) {
    let request = launched.request.as_ref().expect("a request");
    let jobs = reservation.holds.jobs(request);
    let mut by_group: BTreeMap<_, Vec<NodeName>> = BTreeMap::new();
    for node in &reservation.granted {
        let group = policy.group_of(node).expect("a known node");
        by_group
            .entry(group.name.clone())
            .or_default()
            .push(node.clone());
    }
    launched.running.clear();
    for (group, nodes) in by_group {
        launched
            .running
            .extend(reservation.holds.owners(&jobs, &group, nodes).into_values());
    }
    for owner in &launched.running {
        assert!(
            usage.nodes_for(|held| held == owner) > 0,
            "{owner} holds nothing"
        );
    }
}
