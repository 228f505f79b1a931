//! What launches hold of the caps: no order of reserving, ending and settling lets more nodes be launched than the
//! policy says, and what has ended comes free again.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spillway_core::config::{Policy, Site};
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{RequestJob, ResumeRequest};
use spillway_core::name::{Generation, JobId, NodeGroupName, NodeName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::usage::{
    LAUNCH_LIFE_MS, Live, MAX_BYTES, MAX_UNKNOWN_NODES_PER_HOUR, Owner, Reservation, Usage,
};

#[path = "usage/owners.rs"]
mod owners;
#[path = "usage/record.rs"]
mod record;

const SITE: &str = include_str!("../../infra/examples/spillway.toml");
const NOW_MS: u64 = 1_790_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const FULL: &str =
    "spillway: as many launches hold nodes as can be counted; no more until some have ended";
/// 400 KB (DynamoDB, item size), less what the item has beside the record.
const ITEM_BYTES: usize = 400 * 1024 - 1_000;

/// The example's policy with other limits; 256 nodes of 32 vCPUs in `cpu`, 16 of 16 in `gpu`.
fn policy(limits: &str) -> Policy {
    let text = SITE.replace("max_nodes = 300\nlaunches_per_hour = 600\n", limits);
    assert_ne!(
        text, SITE,
        "the example's limits are others than this test knows"
    );
    Site::parse(&text, "spillway.toml")
        .expect("it is valid")
        .policy
}

fn names(expression: &str) -> Vec<NodeName> {
    let list = Hostlist::parse(expression).expect("a hostlist");
    list.node_names().expect("node names")
}

fn group(name: &str) -> NodeGroupName {
    NodeGroupName::new(name).expect("a name")
}

fn launch(number: usize) -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new(format!("request-{number}")).expect("an id"),
        part: 1,
    }
}

/// Who holds nodes of a partition that are for nobody known.
fn anyone(partition: &str) -> Owner {
    format!("{partition}/unknown/unknown")
        .parse()
        .expect("an owner")
}

fn owner_in(group: &NodeGroupName) -> Owner {
    anyone(if group.as_str() == "cpu" {
        "burst"
    } else {
        "gpu"
    })
}

fn shown<'a>(launch: &'a LaunchKey, node_group: &'a NodeGroupName) -> Live<'a> {
    Live {
        launch,
        node_group,
        owner: None,
    }
}

/// A request with a job for each hostlist.
fn request(jobs: &[&str]) -> ResumeRequest {
    let job = |(id, nodes): (usize, &&str)| RequestJob {
        job_id: JobId::new((id + 1).to_string()).expect("an id"),
        nodes_resume: (*nodes).to_owned(),
        nodes_alloc: None,
        partition: None,
        features: None,
        user: None,
        account: None,
    };
    ResumeRequest {
        request_id: RequestId::new("r-1").expect("an id"),
        generation: Generation::new(NOW_MS * 1000).expect("a stamp"),
        part: 1,
        parts: 1,
        deadline_ms: NOW_MS + 600_000,
        nodes: String::new(),
        jobs: jobs.iter().enumerate().map(job).collect(),
    }
}

fn reserve(usage: &mut Usage, number: usize, nodes: &str, policy: &Policy) -> Reservation {
    usage.reserve(
        &launch(number),
        &request(&[]),
        &names(nodes),
        policy,
        NOW_MS,
    )
}

fn granted(reservation: &Reservation) -> String {
    spillway_core::hostlist::fold(&reservation.granted)
}

fn refused(reservation: &Reservation) -> Vec<(&str, &str)> {
    reservation
        .refused
        .iter()
        .map(|refused| (refused.nodes.as_str(), refused.reason.as_str()))
        .collect()
}

#[test]
fn each_cap_refuses_what_is_over_it_and_says_so() {
    let cases = [
        (
            "max_nodes = 3\nlaunches_per_hour = 600\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 3 nodes (limits.max_nodes)",
        ),
        (
            "max_nodes = 300\nmax_vcpus = 100\nlaunches_per_hour = 600\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 100 vCPUs (limits.max_vcpus)",
        ),
        (
            "max_nodes = 300\nlaunches_per_hour = 3\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 3 launches an hour (limits.launches_per_hour)",
        ),
    ];
    for (limits, fits, reason) in cases {
        let mut usage = Usage::default();
        let reservation = reserve(&mut usage, 1, "cloud[001-005]", &policy(limits));
        assert_eq!(granted(&reservation), fits);
        assert_eq!(refused(&reservation), [("cloud[004-005]", reason)]);
        assert_eq!((usage.nodes(), usage.vcpus()), (3, 96));
    }
    // The group's own cap is 200 of its 256 nodes.
    let policy = policy("max_nodes = 300\nlaunches_per_hour = 600\nmax_vcpus = 1000000\n");
    let mut usage = Usage::default();
    let reservation = reserve(&mut usage, 1, "cloud[001-256],gpu[1-2]", &policy);
    let reason =
        "spillway: over the site's limit of 200 nodes of node group cpu (node_group.max_nodes)";
    assert_eq!(granted(&reservation), "cloud[001-200],gpu[1-2]");
    assert_eq!(refused(&reservation), [("cloud[201-256]", reason)]);
}

#[test]
fn a_job_that_does_not_fit_as_a_whole_takes_nothing_from_those_that_do() {
    let policy = policy("max_nodes = 4\nlaunches_per_hour = 600\n");
    let mut usage = Usage::default();
    let jobs = request(&["cloud[001-005]", "cloud[005-006]", "cloud007"]);
    let nodes = names("cloud[001-009]");
    let reservation = usage.reserve(&launch(1), &jobs, &nodes, &policy, NOW_MS);
    // cloud005 is refused with the first job, and comes with the second; cloud008 is of no job.
    assert_eq!(granted(&reservation), "cloud[005-008]");
    let reason = "spillway: over the site's limit of 4 nodes (limits.max_nodes)";
    assert_eq!(refused(&reservation), [("cloud[001-004,009]", reason)]);
}

#[test]
fn a_job_counts_with_all_of_its_vcpus() {
    let policy = policy("max_nodes = 300\nmax_vcpus = 96\nlaunches_per_hour = 600\n");
    let of = |nodes: &str| {
        let mut usage = Usage::default();
        let jobs = request(&[nodes]);
        granted(&usage.reserve(&launch(1), &jobs, &names(nodes), &policy, NOW_MS))
    };
    assert_eq!(of("cloud[001-003]"), "cloud[001-003]");
    assert_eq!(of("cloud[001-004]"), "", "128 vCPUs");
    assert_eq!(of("cloud001,gpu[1-5]"), "", "112 vCPUs");
}

#[test]
fn a_launch_that_reserves_again_is_counted_once() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 8\n");
    let mut usage = Usage::default();
    for nodes in ["cloud[001-008]", "cloud[001-005]", "cloud[001-008]"] {
        assert_eq!(granted(&reserve(&mut usage, 1, nodes, &policy)), nodes);
    }
    assert_eq!((usage.nodes(), usage.launched_within_hour(NOW_MS)), (8, 8));
    assert_eq!(granted(&reserve(&mut usage, 2, "cloud009", &policy)), "");
    let unknown = reserve(&mut usage, 3, "stranger", &policy);
    assert_eq!(
        granted(&unknown),
        "stranger",
        "the planner tells what is wrong with it"
    );
    assert_eq!(usage.nodes(), 8);
}

#[test]
fn what_ends_or_never_came_is_free_again_once() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-008]", &policy);
    usage.end(&launch(1), &cpu, &anyone("burst"), 1);
    // 5 of 8 came; one of them has ended already.
    assert!(usage.settle(&launch(1), &cpu, &anyone("burst"), 8, 5));
    assert!(!usage.settle(&launch(1), &cpu, &anyone("burst"), 8, 5));
    assert_eq!((usage.nodes(), usage.launched_within_hour(NOW_MS)), (4, 5));
    usage.end(&launch(1), &cpu, &anyone("burst"), 4);
    assert_eq!(usage.nodes(), 0);
    usage.end(&launch(1), &cpu, &anyone("burst"), 1);
    assert!(
        !usage.settle(&launch(1), &cpu, &anyone("burst"), 8, 5),
        "it is forgotten"
    );
    // The rate is of launches: it does not come back with the nodes, but with time.
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS - 60_000), 5);
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS), 0);
    // Should there be more than were granted, they count.
    reserve(&mut usage, 2, "cloud[001-008]", &policy);
    assert!(usage.settle(&launch(2), &cpu, &anyone("burst"), 8, 9));
    assert_eq!(usage.nodes(), 9);
}

#[test]
fn ec2_corrects_launches_whose_life_is_over_and_no_others() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let later_ms = NOW_MS + LAUNCH_LIFE_MS + 15 * 60_000;
    reserve(&mut usage, 1, "cloud[001-005]", &policy);
    let young = names("cloud[006-008]");
    usage.reserve(
        &launch(2),
        &request(&[]),
        &young,
        &policy,
        later_ms - 60_000,
    );
    assert!(usage.may_compare(later_ms));
    let live = [launch(1), launch(1)];
    let freed = usage.compare(live.iter().map(|launch| shown(launch, &cpu)), later_ms);
    assert_eq!(
        (freed, usage.nodes()),
        (3, 5),
        "two of the first and three of the second"
    );
    assert!(
        !usage.may_compare(later_ms),
        "EC2 is left alone for the rest of the minute"
    );
    assert_eq!(usage.compare([], later_ms), 2);
    assert_eq!(usage.compare([], later_ms), 0);
}

/// Of two instances one has ended by itself and EC2 shows one. That the ended one is let go later, with Slurm's next
/// call for its node, does not free the place of the one that runs.
#[test]
fn what_ec2_no_longer_showed_is_not_given_back_again() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let later_ms = NOW_MS + LAUNCH_LIFE_MS + 15 * 60_000;
    reserve(&mut usage, 1, "cloud[001-002]", &policy);
    assert_eq!(usage.compare([shown(&launch(1), &cpu)], later_ms), 1);
    usage.end(&launch(1), &cpu, &anyone("burst"), 1);
    assert_eq!(usage.nodes(), 1);
    assert_eq!(usage.compare([], later_ms), 1);
    assert_eq!(usage.nodes(), 0);
}

#[test]
fn nodes_of_no_policy_are_told_up_to_a_bound_an_hour() {
    let mut usage = Usage::default();
    let most = MAX_UNKNOWN_NODES_PER_HOUR as usize;
    assert_eq!(usage.tell_unknown(10, NOW_MS), 10);
    assert_eq!(usage.tell_unknown(9_992, NOW_MS), most - 10);
    assert_eq!(usage.tell_unknown(1, NOW_MS), 0);
    let hour_ends_ms = (NOW_MS / HOUR_MS + 1) * HOUR_MS;
    assert_eq!(usage.tell_unknown(1, hour_ends_ms - 1), 0);
    assert_eq!(usage.tell_unknown(1, hour_ends_ms), 1);
}

/// A policy that leaves room for whatever the record takes.
fn roomy() -> Policy {
    let text = SITE
        .replace("cloud[001-256]", "cloud[00001-20000]")
        .replace(
            "max_nodes = 300\nlaunches_per_hour = 600\n",
            "max_nodes = 20000\nlaunches_per_hour = 20000\n",
        )
        .replace("max_nodes = 200\n", "max_nodes = 20000\n");
    let site = Site::parse(&text, "spillway.toml").expect("it is valid");
    site.policy
}

/// Every node launched by itself, by a launch that brought less than was planned: that takes the most bytes.
#[test]
fn ten_thousand_launches_fit_into_one_item_and_not_many_more() {
    let policy = roomy();
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    // Reserving counts the whole record, so ten thousand times would take long: what one launch holds is copied.
    let first = reserve(&mut usage, 0, "cloud[00001-00002]", &policy);
    assert_eq!(first.granted.len(), 2);
    assert!(usage.settle(&launch(0), &cpu, &anyone("burst"), 2, 1));
    let mut text: serde_json::Value = serde_json::to_value(&usage).expect("JSON");
    let launches = text["node_groups"]["cpu"]["owners"]["burst/unknown/unknown"]
        .as_object_mut()
        .expect("launches");
    let (id, held) = launches.iter().next().expect("a launch");
    assert_eq!(id.len(), 20, "as long as the names made up here");
    let held = held.clone();
    for number in 1..10_000 {
        launches.insert(format!("{number:020}"), held.clone());
    }
    let bytes = text.to_string().len();
    assert!(bytes < ITEM_BYTES, "{bytes} bytes");
    assert_eq!(bytes / 10_000, 38, "as decision 0006 says: {bytes} bytes");
    let mut usage: Usage = serde_json::from_value(text).expect("a record");
    assert_eq!(usage.nodes(), 10_000);
    let mut number = 10_000;
    let reservation = loop {
        let reservation = reserve(&mut usage, number, "cloud00004", &policy);
        if reservation.granted.is_empty() {
            break reservation;
        }
        assert!(number < 11_000, "it takes whatever comes");
        number += 1;
    };
    assert_eq!(refused(&reservation), [("cloud00004", FULL)]);
    let bytes = serde_json::to_string(&usage).expect("JSON").len();
    assert!(
        (MAX_BYTES - 1_000..ITEM_BYTES).contains(&bytes),
        "{bytes} bytes"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        launch: usize,
        nodes: Vec<prop::sample::Index>,
        jobs: usize,
    },
    End {
        launch: usize,
    },
    Settle {
        launch: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let nodes = prop::collection::vec(any::<prop::sample::Index>(), 1..40);
    prop_oneof![
        3 => (0_usize..20, nodes, 0_usize..4).prop_map(|(launch, nodes, jobs)| Step::Reserve { launch, nodes, jobs }),
        3 => (0_usize..20).prop_map(|launch| Step::End { launch }),
        1 => (0_usize..20).prop_map(|launch| Step::Settle { launch }),
    ]
}

proptest! {
    /// The reference: for each launch what it was granted and how many of its instances have ended. A launch brings
    /// all it was granted but, if it settles short, one.
    #[test]
    fn the_caps_hold_for_any_history(steps in prop::collection::vec(step(), 1..60)) {
        let policy = policy("max_nodes = 30\nmax_vcpus = 1000\nlaunches_per_hour = 120\n");
        let known = names("cloud[001-256],gpu[1-16]");
        let mut usage = Usage::default();
        let mut live: BTreeMap<(usize, NodeGroupName), (u32, u32, bool)> = BTreeMap::new();
        let mut launched = 0;
        for step in steps {
            match step {
                Step::Reserve { launch: number, .. } if live.keys().any(|(l, _)| *l == number) => {}
                Step::Reserve { launch: number, nodes, jobs } => {
                    let mut nodes: Vec<NodeName> = nodes.iter().map(|i| i.get(&known).clone()).collect();
                    nodes.sort();
                    nodes.dedup();
                    let lists: Vec<String> = nodes.chunks(3).take(jobs).map(spillway_core::hostlist::fold).collect();
                    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
                    let reservation = usage.reserve(&launch(number), &request(&lists), &nodes, &policy, NOW_MS);
                    let refused: usize = reservation.refused.iter().map(|r| names(&r.nodes).len()).sum();
                    prop_assert_eq!(reservation.granted.len() + refused, nodes.len());
                    launched += reservation.granted.len();
                    for node in &reservation.granted {
                        let group = policy.group_of(node).expect("a known node").name.clone();
                        live.entry((number, group)).or_default().0 += 1;
                    }
                }
                Step::End { launch: number } => {
                    for ((_, group), (granted, ended, _)) in live.iter_mut().filter(|((l, _), _)| *l == number) {
                        if ended < granted {
                            *ended += 1;
                            usage.end(&launch(number), group, &owner_in(group), 1);
                        }
                    }
                }
                Step::Settle { launch: number } => {
                    for ((_, group), (granted, ended, settled)) in live.iter_mut().filter(|((l, _), _)| *l == number) {
                        if !*settled && ended < granted {
                            usage.settle(&launch(number), group, &owner_in(group), *granted, *granted - 1);
                            *granted -= 1;
                            launched -= 1;
                        }
                        *settled = true;
                    }
                }
            }
            let runs = |of: &dyn Fn(&NodeGroupName) -> bool| -> u32 {
                live.iter().filter(|((_, g), _)| of(g)).map(|(_, (granted, ended, _))| granted - ended).sum()
            };
            let (cpu, gpu) = (runs(&|g| g.as_str() == "cpu"), runs(&|g| g.as_str() == "gpu"));
            prop_assert_eq!((usage.nodes_of(&group("cpu")), usage.nodes_of(&group("gpu"))), (cpu, gpu));
            prop_assert!(cpu + gpu <= 30);
            prop_assert!(usage.vcpus() <= 1000);
            prop_assert!(launched <= 120);
            let text = serde_json::to_string(&usage).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Usage>(&text).expect("and reads back"), &usage);
        }
    }
}
