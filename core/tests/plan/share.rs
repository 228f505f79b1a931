//! Sharing what came: whole gangs in the order of the request, and nothing is kept back that serves somebody.

use std::collections::BTreeSet;

use proptest::prelude::*;
use spillway_core::config::Strategy::{self as OnShortage, AllOrNothing, BestEffort, Greedy};
use spillway_core::hostlist;
use spillway_core::name::NodeName;
use spillway_core::plan::{Chunk, units};

use super::{any_chunk, chunk, names, set};

fn share(chunk: &Chunk, wanted: &str, instances: usize) -> String {
    hostlist::fold(units(chunk).share(&set(wanted), instances))
}

#[test]
fn jobs_in_order_and_what_a_gang_leaves_serves_those_behind_it() {
    let jobs = [
        ("n[1-4]", AllOrNothing),
        ("n[5-6]", Greedy),
        ("n[7-9]", BestEffort),
    ];
    let chunk = chunk("n[1-11]", &jobs, false);
    let served = |instances| share(&chunk, "n[1-11]", instances);
    let expected = [
        (0, ""),
        (1, "n7"),
        (2, "n[5-6]"),
        (3, "n[5-7]"),
        (4, "n[1-4]"),
        (5, "n[1-4,7]"),
        (6, "n[1-6]"),
        (10, "n[1-10]"),
        (11, "n[1-11]"),
        (99, "n[1-11]"),
    ];
    for (instances, nodes) in expected {
        assert_eq!(served(instances), nodes, "{instances} instances");
    }
}

#[test]
fn only_what_still_waits_is_served() {
    let chunk = chunk("n[1-6]", &[("n[1-4]", AllOrNothing)], false);
    assert_eq!(
        share(&chunk, "n[3-6]", 1),
        "n5",
        "two are missing for the gang"
    );
    assert_eq!(
        share(&chunk, "n[3-6]", 2),
        "n[3-4]",
        "whose others are there"
    );
    assert_eq!(share(&chunk, "", 2), "");
}

#[test]
fn a_node_of_two_jobs_is_served_once() {
    let jobs = [("n[1-2]", AllOrNothing), ("n[2-3]", AllOrNothing)];
    let chunk = chunk("n[1-3]", &jobs, false);
    assert_eq!(share(&chunk, "n[1-3]", 2), "n[1-2]");
    assert_eq!(share(&chunk, "n[1-3]", 3), "n[1-3]");
    assert_eq!(
        share(&chunk, "n[2-3]", 1),
        "n2",
        "all that the first still needs"
    );
}

/// The sizes of a chunk's jobs as far as they wait, and whether each must be whole; last the nodes of no job.
fn needs(chunk: &Chunk, wanted: &BTreeSet<NodeName>) -> Vec<(BTreeSet<NodeName>, bool)> {
    let waiting = |nodes: BTreeSet<NodeName>| nodes.intersection(wanted).cloned().collect();
    let of_job = |job: &spillway_core::plan::ChunkJob| {
        (
            waiting(set(&job.nodes)),
            job.strategy != OnShortage::BestEffort,
        )
    };
    let mut needs: Vec<(BTreeSet<NodeName>, bool)> = chunk.jobs.iter().map(of_job).collect();
    let mut others = waiting(set(&chunk.nodes));
    others.retain(|node| needs.iter().all(|(nodes, _)| !nodes.contains(node)));
    needs.push((others, false));
    needs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The reference counts: a job takes what it needs if that is left; if not, one that must be whole takes nothing,
    /// another takes all that is left.
    #[test]
    fn as_the_reference_counts(chunk in any_chunk(), waits in prop::collection::vec(any::<bool>(), 28), instances in 0_usize..30) {
        let nodes = names(&chunk.nodes);
        let wanted: BTreeSet<NodeName> = nodes.into_iter().zip(waits).filter_map(|(node, waits)| waits.then_some(node)).collect();
        let order = units(&chunk).share(&wanted, instances);
        let served: BTreeSet<NodeName> = order.iter().cloned().collect();
        prop_assert_eq!(served.len(), order.len(), "a node was served twice");
        prop_assert!(served.is_subset(&wanted));
        let mut left = instances;
        for (nodes, is_whole) in needs(&chunk, &wanted) {
            let gets = match nodes.len() {
                all if all <= left => all,
                _ if is_whole => 0,
                _ => left,
            };
            prop_assert_eq!(served.intersection(&nodes).count(), gets, "of {:?}", nodes);
            left -= gets;
        }
        prop_assert_eq!(served.len(), instances - left);
    }

    /// Where jobs share nodes: whoever is served is of no gang, or of one that is whole by that.
    #[test]
    fn no_part_of_a_gang_is_served(
        jobs in prop::collection::vec((prop::collection::btree_set(0_u32..12, 2..6), any::<bool>()), 1..6),
        instances in 0_usize..14,
    ) {
        let jobs: Vec<(String, OnShortage)> = jobs.into_iter().map(|(nodes, is_gang)| {
            let nodes = hostlist::fold(nodes.iter().map(|number| format!("n{number:02}")));
            (nodes, if is_gang { Greedy } else { BestEffort })
        }).collect();
        let jobs: Vec<(&str, OnShortage)> = jobs.iter().map(|(nodes, strategy)| (nodes.as_str(), *strategy)).collect();
        let all: BTreeSet<NodeName> = jobs.iter().flat_map(|(nodes, _)| names(nodes)).collect();
        let chunk = chunk(&hostlist::fold(&all), &jobs, false);
        let order = units(&chunk).share(&all, instances);
        prop_assert!(order.len() <= instances);
        let served: BTreeSet<NodeName> = order.iter().cloned().collect();
        prop_assert_eq!(served.len(), order.len());
        for node in &served {
            let mut of_node = jobs.iter().filter(|(nodes, _)| set(nodes).contains(node));
            let is_right = of_node.any(|(nodes, strategy)| *strategy == BestEffort || set(nodes).is_subset(&served));
            prop_assert!(is_right, "{} of an incomplete gang", node);
        }
    }
}
