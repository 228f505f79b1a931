//! The record: how long it is believed, what it keeps, how it is written, and when it is full.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway_core::config::Policy;
use spillway_core::usage::{LAUNCH_LIFE_MS, Live, MAX_BYTES, Usage};

use super::owners::{self, LATER_MS, ROOM, of_user, owner};
use super::{
    FULL, HOUR_MS, NOW_MS, anyone, granted, group, launch, names, policy, refused, request,
    reserve, roomy, shown,
};

const MINUTE_MS: u64 = 60_000;

fn small() -> Policy {
    policy("max_nodes = 8\nlaunches_per_hour = 100\n")
}

/// Its life, five minutes for a stamp that lies ahead and ten for EC2.
#[test]
fn a_launch_is_believed_for_eighty_minutes() {
    assert_eq!(LAUNCH_LIFE_MS, 65 * 60 * 1_000);
    let mut usage = Usage::default();
    reserve(&mut usage, 1, "cloud[001-005]", &small());
    assert_eq!(usage.compare([], NOW_MS + 79 * MINUTE_MS), 0);
    assert_eq!(usage.compare([], NOW_MS + 80 * MINUTE_MS), 5);
}

/// The rate counts the minutes of the last hour, and the record keeps no others.
#[test]
fn launches_count_for_sixty_minutes() {
    let (policy, mut usage) = (small(), Usage::default());
    for (number, node, later) in [(1, "cloud001", 0), (2, "cloud002", 1), (3, "cloud003", 60)] {
        let now_ms = NOW_MS + later * MINUTE_MS;
        let nodes = names(node);
        usage.reserve(&launch(number), &request(&[]), &nodes, &policy, now_ms);
    }
    assert_eq!(usage.launched_within_hour(NOW_MS + HOUR_MS), 2);
    let minute = NOW_MS / MINUTE_MS;
    let kept = [1, 60].map(|later| ((minute + later).to_string(), 1));
    let record = serde_json::to_value(&usage).expect("JSON");
    assert_eq!(record["launched"], json!(BTreeMap::from(kept)));
}

/// EC2 shows all that is held: what ends later was not given back yet.
#[test]
fn what_ec2_still_shows_is_given_back_when_it_ends() {
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-002]", &small());
    let first = launch(1);
    assert_eq!(usage.compare([shown(&first, &cpu); 2], LATER_MS), 0);
    usage.end(&first, &cpu, &anyone("burst"), 1);
    assert_eq!(usage.nodes(), 1);
}

/// Of five of a launch EC2 shows two, and only of one it is known whose it is.
#[test]
fn an_instance_that_may_be_anyones_counts_beside_the_known_ones() {
    let policy = policy(&format!("{ROOM}max_vcpus = 1000000\n"));
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    let jobs = [
        ("cloud[001-003]", "physics/alice"),
        ("cloud[004-005]", "physics/bob"),
    ];
    owners::reserve(&mut usage, 1, &jobs, &policy);
    let (first, alice) = (launch(1), owner("burst/physics/alice"));
    let seen = |owner| Live {
        launch: &first,
        node_group: &cpu,
        owner,
    };
    let whose = [Some(&alice), None];
    assert_eq!(usage.ambiguous(whose.map(seen), LATER_MS).len(), 1);
    let all = [Some(&alice), Some(&alice), Some(&alice), None, None];
    assert!(usage.ambiguous(all.map(seen), LATER_MS).is_empty());
    usage.compare(whose.map(seen), LATER_MS);
    assert_eq!((of_user(&usage, "alice"), of_user(&usage, "bob")), (2, 1));
}

#[test]
fn what_one_owner_holds_alone_needs_no_looking_up() {
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-002]", &small());
    let first = launch(1);
    assert!(usage.ambiguous([shown(&first, &cpu)], LATER_MS).is_empty());
}

fn groups(usage: &Usage) -> Value {
    serde_json::to_value(usage).expect("JSON")["node_groups"].clone()
}

#[test]
fn a_launch_that_holds_nothing_leaves_nothing() {
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-002],gpu1", &small());
    reserve(&mut usage, 2, "cloud003", &small());
    let launches = |usage: &Usage| {
        let held = groups(usage)["cpu"]["owners"]["burst/unknown/unknown"].clone();
        held.as_object().map(serde_json::Map::len)
    };
    assert_eq!(launches(&usage), Some(2));
    usage.end(&launch(1), &cpu, &anyone("burst"), 2);
    assert_eq!(launches(&usage), Some(1));
    usage.end(&launch(2), &cpu, &anyone("burst"), 1);
    assert!(groups(&usage).get("cpu").is_none());
    usage.end(&launch(1), &group("gpu"), &anyone("gpu"), 1);
    assert_eq!(groups(&usage), json!({}));
}

/// There may be ten thousand: what is zero for most of them is not written.
#[test]
fn a_launch_is_written_in_few_bytes() {
    let (cpu, mut usage) = (group("cpu"), Usage::default());
    reserve(&mut usage, 1, "cloud[001-005]", &small());
    let held = |usage: &Usage| {
        let launches = groups(usage)["cpu"]["owners"]["burst/unknown/unknown"].clone();
        let launches = launches.as_object().cloned().expect("launches");
        launches.into_iter().map(|(_, held)| held).collect()
    };
    let minute = NOW_MS / MINUTE_MS;
    let written: Vec<Value> = held(&usage);
    assert_eq!(written, [json!([5, minute])]);
    assert!(usage.settle(&launch(1), &cpu, &anyone("burst"), 5, 4));
    let written: Vec<Value> = held(&usage);
    assert_eq!(written, [json!([4, minute, 1])]);
}

/// Of which group, owner and launch the hold with this number is.
type Shape = fn(usize) -> (String, String, String);

/// What takes the bytes: groups with names as long as may be, owners, launches.
const SHAPES: [Shape; 3] = [
    |n| (format!("{n:0>30}"), "p/a/u".into(), format!("{n:020}")),
    |n| ("g".into(), format!("p/a/{n:020}"), format!("{n:020}")),
    |n| ("g".into(), "p/a/u".into(), format!("{n:020}")),
];

/// A record as long as `count` holds make it; each is written as long as one of a single node can be.
fn record(shape: Shape, count: usize) -> (Usage, usize) {
    let mut node_groups = serde_json::Map::new();
    for (name, owner, launch) in (0..count).map(shape) {
        let group = node_groups.entry(name);
        let group = group.or_insert_with(|| json!({"cpus": u32::MAX, "owners": {}}));
        group["owners"][owner][launch] = json!([1, NOW_MS / MINUTE_MS, 1]);
    }
    let text = json!({ "node_groups": node_groups }).to_string();
    (serde_json::from_str(&text).expect("a record"), text.len())
}

/// The longest of the shape that is no longer than `bytes`, but for a few.
fn record_of(shape: Shape, bytes: usize) -> Usage {
    let (start, one) = (record(shape, 100).1, record(shape, 101).1);
    let (usage, length) = record(shape, 100 + (bytes - start) / (one - start));
    assert!(
        (bytes - 200..=bytes).contains(&length),
        "{length} of {bytes}"
    );
    usage
}

/// Whatever takes the room: what is counted is no less than what is written, and not much more.
#[test]
fn the_record_is_full_when_its_text_is() {
    let policy = roomy();
    for shape in SHAPES {
        let mut full = record_of(shape, MAX_BYTES);
        let none = reserve(&mut full, 1, "cloud00001", &policy);
        assert_eq!(refused(&none), [("cloud00001", FULL)]);
        let mut almost = record_of(shape, MAX_BYTES / 10 * 9);
        let one = reserve(&mut almost, 1, "cloud00001", &policy);
        assert_eq!(granted(&one), "cloud00001");
    }
}

/// Twenty jobs of as many users, and room for some: the last bytes are used, and no more than those.
#[test]
fn each_owner_of_a_launch_takes_its_bytes() {
    let policy = roomy();
    let mut usage = record_of(SHAPES[2], MAX_BYTES - 1_000);
    let before = serde_json::to_string(&usage).expect("JSON").len();
    let jobs: Vec<(String, String)> = (1..=20)
        .map(|n| (format!("cloud{n:05}"), format!("a/u{n}")))
        .collect();
    let jobs: Vec<(&str, &str)> = jobs.iter().map(|(n, o)| (n.as_str(), o.as_str())).collect();
    let reservation = owners::reserve(&mut usage, 1, &jobs, &policy);
    let after = serde_json::to_string(&usage).expect("JSON").len();
    let some = reservation.granted.len();
    assert!((10..20).contains(&some), "{some}");
    assert!(after <= MAX_BYTES && before < after, "{before}, {after}");
}
