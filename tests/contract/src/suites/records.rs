//! What the table promises of its other records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use futures::future::join;
use spillway_control::fault::FaultKind;
use spillway_control::ports::Table;
use spillway_control::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, LaunchAnswer, NodeStatesRecord, RequestRecord,
    Stored,
};
use spillway_control::shared::{ONLY, Shared};
use spillway_core::budget::{Bucket, Budget};
use spillway_core::capacity::{Capacity, Reach, Scope};
use spillway_core::config::{CapacityKind, OnDemandAllocation, Policy};
use spillway_core::gang::Gang;
use spillway_core::message::{NodesInState, ResumeRequest};
use spillway_core::name::RequestId;
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Candidate, LaunchCall, Recipe};
use spillway_core::usage::Usage;

use super::promises;
use crate::sample::{DEADLINE_MS, NOW_MS, generation, instance, launch_key, node};

/// All but what takes more than a table to see, on a table that knows no launch and never had a sign of life.
pub async fn suite<T: Table>(table: &T) {
    promises!(
        every_record_that_many_write_has_one_writer_a_version,
        a_request_has_one_writer_a_version,
        an_attempt_is_written_once_and_answered,
        an_older_sign_of_life_changes_nothing => table
    );
}

/// `pushed`: what `spillway config push` put there.
pub async fn the_policy_is_the_one_that_was_pushed<T: Table>(table: &T, pushed: &Policy) {
    let policy = table.policy().await.expect("an answer");
    assert_eq!(policy.as_ref(), Some(pushed));
}

/// `observed`: what the table holds, for no port reads it.
pub async fn older_node_states_change_nothing<T: Table>(table: &T) {
    let read = async || table.node_states().await.expect("an answer");
    let states = |observed_ms| NodeStatesRecord {
        observed_ms,
        states: vec![NodesInState {
            state: "IDLE".to_owned(),
            nodes: format!("burst-{observed_ms}"),
            reason: None,
            set_by_hand: false,
            addresses: Vec::new(),
            generations: Vec::new(),
        }],
    };
    assert_eq!(read().await, None);
    for (sent_ms, expected_ms) in [
        (2_000, 2_000),
        (1_000, 2_000),
        (2_000, 2_000),
        (3_000, 3_000),
    ] {
        let put = table.put_node_states(&states(sent_ms)).await;
        put.expect("an answer");
        assert_eq!(read().await, Some(states(expected_ms)));
    }
}

async fn every_record_that_many_write_has_one_writer_a_version<T: Table>(table: &T) {
    let (mut one, mut other) = (Usage::default(), Usage::default());
    one.tell_unknown(5, NOW_MS);
    other.tell_unknown(7, NOW_MS);
    has_one_writer_a_version(table, ONLY, one, other).await;
    let closed = |code| {
        let mut capacity = Capacity::default();
        let candidate = candidate();
        let scope = Scope {
            capacity: CapacityKind::Spot,
            reach: Reach::Pool,
            candidate: &candidate,
        };
        capacity.close(&scope, code, 60_000, NOW_MS);
        capacity
    };
    has_one_writer_a_version(table, ONLY, closed("First"), closed("Second")).await;
    let empty = |now_ms| {
        let mut budget = Budget::default();
        budget.found_empty(Bucket::CreateFleet, now_ms);
        budget
    };
    has_one_writer_a_version(table, ONLY, empty(NOW_MS), empty(NOW_MS + 1)).await;
    let gang = |last_part_ms| {
        Some(Gang {
            opened: generation(1),
            awaited: BTreeSet::from([node(1)]),
            parts: BTreeMap::new(),
            last_part_ms,
            end: None,
        })
    };
    has_one_writer_a_version(table, "4711", gang(NOW_MS), gang(NOW_MS + 1)).await;
    // Another job's is another record.
    let other = table.shared::<Option<Gang>>("4712").await;
    assert_eq!(other.expect("an answer").version, 0);
}

async fn has_one_writer_a_version<S: Shared + Debug, T: Table>(
    table: &T,
    name: &str,
    one: S,
    other: S,
) {
    assert_ne!(one, other);
    let read = async || table.shared::<S>(name).await.expect("an answer");
    let put = async |record: &S, version| {
        let put = table.put_shared(name, record, version).await;
        put.expect("an answer")
    };
    let none = Stored {
        record: S::default(),
        version: 0,
    };
    assert_eq!(read().await, none, "{}", S::KIND);
    assert!(!put(&one, 1).await, "{}: it is not there yet", S::KIND);
    let (first, second) = join(put(&one, 0), put(&other, 0)).await;
    assert!(first != second, "{}: {first}, {second}", S::KIND);
    let stored = read().await;
    assert_eq!(stored.version, 1);
    assert_eq!(
        stored.record,
        if first { one.clone() } else { other.clone() }
    );
    assert!(!put(&one, 0).await);
    assert!(put(&other, 1).await);
    assert!(!put(&one, 1).await);
    let expected = Stored {
        record: other,
        version: 2,
    };
    assert_eq!(read().await, expected);
}

async fn a_request_has_one_writer_a_version<T: Table>(table: &T) {
    let key = launch_key();
    let record = RequestRecord {
        request: ResumeRequest {
            request_id: key.request_id.clone(),
            generation: generation(1),
            part: 1,
            parts: 1,
            deadline_ms: DEADLINE_MS,
            nodes: "burst-[1-2]".to_owned(),
            jobs: Vec::new(),
        },
        plan: None,
        lease_until_ms: NOW_MS,
        done: false,
        launched: BTreeMap::new(),
    };
    let done = RequestRecord {
        done: true,
        launched: BTreeMap::from([(0, vec![2])]),
        ..record.clone()
    };
    let put = async |record, version| {
        let put = table.put_request(&key, record, version).await;
        put.expect("an answer")
    };
    let read = async |key: &LaunchKey| table.request(key).await.expect("an answer");
    assert_eq!(read(&key).await, None);
    assert!(!put(&record, 1).await, "it is not there yet");
    let (first, second) = join(put(&record, 0), put(&record, 0)).await;
    assert!(first != second, "{first}, {second}");
    assert!(put(&done, 1).await);
    for late in [0, 1, 3] {
        assert!(!put(&record, late).await);
    }
    let expected = Stored {
        record: done,
        version: 2,
    };
    assert_eq!(read(&key).await, Some(expected));
    let other = LaunchKey {
        part: 2,
        ..launch_key()
    };
    assert_eq!(read(&other).await, None);
}

fn candidate() -> Candidate {
    Candidate {
        instance_type: "c7i.large".to_owned(),
        subnet_id: "subnet-a".to_owned(),
        zone: "us-east-1a".to_owned(),
    }
}

async fn an_attempt_is_written_once_and_answered<T: Table>(table: &T) {
    let key = AttemptKey {
        launch: LaunchKey {
            request_id: RequestId::new("request-2").expect("an id"),
            part: 1,
        },
        chunk: 0,
        attempt: 1,
    };
    let recipe = Recipe {
        capacity: CapacityKind::OnDemand,
        launch_template_id: "lt-0123456789abcdef0".to_owned(),
        launch_template_version: "1".to_owned(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        candidates: vec![candidate()],
    };
    let call = LaunchCall {
        client_token: "token".to_owned(),
        count: 2,
        at_least: 1,
        recipe,
        tags: BTreeMap::from([("spillway:chunk".to_owned(), "0".to_owned())]),
    };
    let mut record = AttemptRecord {
        call,
        round: 0,
        answer: None,
    };
    let answer = LaunchAnswer {
        instances: vec![instance(1)],
        launched_in: vec![candidate()],
        shortages: Vec::new(),
    };
    let read = async || table.attempt(&key).await.expect("an answer");
    assert_eq!(read().await, None);
    let missing = table.answer_attempt(&key, &answer).await;
    let fault = missing.expect_err("there is no attempt to answer");
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::Invalid, "NoSuchAttempt")
    );
    assert_eq!(read().await, None);
    let put = async || table.put_attempt(&key, &record).await.expect("an answer");
    let (first, second) = join(put(), put()).await;
    assert!(first != second, "{first}, {second}");
    assert_eq!(read().await, Some(record.clone()));
    let answered = table.answer_attempt(&key, &answer).await;
    answered.expect("an answer");
    assert!(!put().await);
    record.answer = Some(answer);
    assert_eq!(read().await, Some(record));
}

async fn an_older_sign_of_life_changes_nothing<T: Table>(table: &T) {
    let heard = |received_ms, spooled| HeartbeatRecord {
        received_ms,
        sent_ms: received_ms,
        slurm_version: Some("25.05.0".to_owned()),
        spooled,
        oldest_spooled_ms: None,
    };
    let read = async || table.heartbeat().await.expect("an answer");
    assert_eq!(read().await, None);
    for (put, expected) in [
        (heard(2_000, 1), heard(2_000, 1)),
        (heard(1_000, 2), heard(2_000, 1)),
        (heard(2_000, 3), heard(2_000, 1)),
        (heard(3_000, 4), heard(3_000, 4)),
    ] {
        table.put_heartbeat(&put).await.expect("an answer");
        assert_eq!(read().await, Some(expected));
    }
}
