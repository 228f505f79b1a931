//! The record: what comes free again and when, what EC2 corrects, and how much room it takes.

use std::collections::BTreeMap;

use spillway_core::config::Site;
use spillway_core::usage::{LAUNCH_LIFE_MS, MAX_LAUNCHES, MAX_UNKNOWN_NODES_PER_HOUR, Usage};

use super::{
    HOUR_MS, ITEM_BYTES, NOW_MS, SITE, granted, group, launch, names, policy, refused, request,
    reserve,
};

#[test]
fn what_ends_or_never_came_is_free_again_once() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-008]", &policy);
    usage.end(&launch(1), &cpu, 1);
    // 5 of 8 came; one of them has ended already.
    assert!(usage.settle(&launch(1), &cpu, 8, 5));
    assert!(!usage.settle(&launch(1), &cpu, 8, 5));
    assert_eq!((usage.nodes(), usage.launched_within_hour(NOW_MS)), (4, 5));
    usage.end(&launch(1), &cpu, 4);
    assert_eq!(usage.nodes(), 0);
    usage.end(&launch(1), &cpu, 1);
    assert!(!usage.settle(&launch(1), &cpu, 8, 5), "it is forgotten");
    // The rate is of launches: it does not come back with the nodes, but with time.
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS - 60_000), 5);
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS), 0);
    // An instance that died before it was paired was launched again: 9 instances for 8 nodes.
    reserve(&mut usage, 2, "cloud[001-008]", &policy);
    assert!(usage.settle(&launch(2), &cpu, 8, 9));
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
    let freed = usage.compare(live.iter().map(|launch| (launch, &cpu)), later_ms);
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

/// Its life, five minutes for a stamp that lies ahead and ten for EC2: until then the record is believed.
#[test]
fn a_launch_is_believed_for_eighty_minutes() {
    const MINUTE_MS: u64 = 60_000;
    assert_eq!(LAUNCH_LIFE_MS, 65 * 60 * 1_000);
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let mut usage = Usage::default();
    reserve(&mut usage, 1, "cloud[001-005]", &policy);
    assert_eq!(usage.compare([], NOW_MS + 79 * MINUTE_MS), 0);
    assert_eq!(usage.compare([], NOW_MS + 80 * MINUTE_MS), 5);
}

/// The rate counts the minutes of the last hour, and the record keeps no others.
#[test]
fn launches_count_for_sixty_minutes() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let mut usage = Usage::default();
    let minute = NOW_MS / 60_000;
    for (number, node, later) in [(1, "cloud001", 0), (2, "cloud002", 1), (3, "cloud003", 60)] {
        let now_ms = NOW_MS + later * 60_000;
        usage.reserve(
            &launch(number),
            &request(&[]),
            &names(node),
            &policy,
            now_ms,
        );
    }
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS), 2);
    let record = serde_json::to_value(&usage).expect("a record is JSON");
    let kept = [
        ((minute + 1).to_string(), 1),
        ((minute + 60).to_string(), 1),
    ];
    assert_eq!(record["launched"], serde_json::json!(BTreeMap::from(kept)));
}

/// EC2 shows all that is held: what ends later was not given back yet.
#[test]
fn what_ec2_still_shows_is_given_back_when_it_ends() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-002]", &policy);
    let live = [launch(1), launch(1)];
    let later_ms = NOW_MS + 2 * HOUR_MS;
    assert_eq!(
        usage.compare(live.iter().map(|launch| (launch, &cpu)), later_ms),
        0
    );
    usage.end(&launch(1), &cpu, 1);
    assert_eq!(usage.nodes(), 1);
}

#[test]
fn a_launch_that_holds_nothing_leaves_nothing() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let groups = |usage: &Usage| serde_json::to_value(usage).expect("JSON")["node_groups"].clone();
    reserve(&mut usage, 1, "cloud[001-002]", &policy);
    reserve(&mut usage, 2, "cloud003", &policy);
    usage.end(&launch(1), &cpu, 2);
    assert_eq!(
        groups(&usage)["cpu"]["launches"]
            .as_object()
            .map(serde_json::Map::len),
        Some(1)
    );
    usage.end(&launch(2), &cpu, 1);
    assert_eq!(groups(&usage), serde_json::json!({}));
}

/// There may be ten thousand: what is zero for most of them is not written.
#[test]
fn a_launch_is_written_in_few_bytes() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let mut usage = Usage::default();
    reserve(&mut usage, 1, "cloud[001-005]", &policy);
    let held = |usage: &Usage| {
        let record = serde_json::to_value(usage).expect("a record is JSON");
        let launches = record["node_groups"]["cpu"]["launches"]
            .as_object()
            .cloned();
        launches
            .expect("launches")
            .into_values()
            .collect::<Vec<_>>()
    };
    let minute = NOW_MS / 60_000;
    assert_eq!(held(&usage), [serde_json::json!([5, minute])]);
    assert!(usage.settle(&launch(1), &group("cpu"), 5, 4));
    assert_eq!(held(&usage), [serde_json::json!([4, minute, 1])]);
}

/// Of two instances one has ended by itself and EC2 shows one. That the ended one is let go later, with Slurm's next
/// call for its node, does not free the place of the one that runs.
#[test]
fn what_ec2_no_longer_showed_is_not_given_back_again() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 100\n");
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let later_ms = NOW_MS + LAUNCH_LIFE_MS + 15 * 60_000;
    reserve(&mut usage, 1, "cloud[001-002]", &policy);
    assert_eq!(usage.compare([(&launch(1), &cpu)], later_ms), 1);
    usage.end(&launch(1), &cpu, 1);
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

/// Every node launched by itself, by a launch that brought less than was planned: that takes the most bytes.
#[test]
fn ten_thousand_launches_fit_into_one_item_and_no_more_are_taken() {
    let text = SITE
        .replace("cloud[001-256]", "cloud[00001-20000]")
        .replace(
            "max_nodes = 300\nlaunches_per_hour = 600\n",
            "max_nodes = 20000\nlaunches_per_hour = 20000\n",
        )
        .replace("max_nodes = 200\n", "max_nodes = 20000\n");
    let policy = Site::parse(&text, "spillway.toml")
        .expect("it is valid")
        .policy;
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    // Reserving counts the whole record, so ten thousand times would take long: what one launch holds is copied.
    let first = reserve(&mut usage, 0, "cloud[00001-00002]", &policy);
    assert_eq!(first.granted.len(), 2);
    assert!(usage.settle(&launch(0), &cpu, 2, 1));
    let mut text: serde_json::Value = serde_json::to_value(&usage).expect("JSON");
    let launches = text["node_groups"]["cpu"]["launches"]
        .as_object_mut()
        .expect("launches");
    let (id, held) = launches.iter().next().expect("a launch");
    assert_eq!(id.len(), 20, "as long as the names made up here");
    let held = held.clone();
    for number in 1..MAX_LAUNCHES {
        launches.insert(format!("{number:020}"), held.clone());
    }
    let bytes = text.to_string().len();
    assert!(bytes < ITEM_BYTES, "{bytes} bytes");
    assert_eq!(bytes / 10_000, 38, "as decision 0006 says: {bytes} bytes");
    let mut usage: Usage = serde_json::from_value(text).expect("a record");
    assert_eq!(usage.nodes() as usize, MAX_LAUNCHES);
    let reservation = reserve(&mut usage, 3, "cloud00004", &policy);
    assert_eq!(
        refused(&reservation),
        [(
            "cloud00004",
            "spillway: 10000 launches hold nodes already; no more can be counted"
        )]
    );
    let unknown = reserve(&mut usage, 4, "stranger", &policy);
    assert_eq!(granted(&unknown), "stranger", "it holds nothing");
}
