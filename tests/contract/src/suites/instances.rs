//! What the table promises of instances whatever their nodes do.

use futures::future::join;
use spillway_control::ports::Table;
use spillway_control::record::{HeldBy, InstanceRecord, Origin};
use spillway_core::name::{InstanceId, NodeGroupName};
use spillway_core::plan::InstanceState;

use super::promises;
use crate::sample::{NOW_MS, free, instance, node, origin, pair};

/// All of it, on a table in which none of the instances from 300 on is known.
pub async fn suite<T: Table>(table: &T) {
    promises!(
        instances_are_those_that_exist_each_once,
        what_no_node_took_is_released_and_what_is_paired_stays,
        the_first_note_of_an_unknown_instance_stays,
        an_instance_is_marked_terminated_by_one_call,
        an_orphan_is_released_unless_somebody_took_it_up,
        a_hold_stays_until_it_is_taken_away => table
    );
}

async fn item<T: Table>(table: &T, number: u32) -> InstanceRecord {
    let records = table.instances(&[instance(number)]).await;
    records.expect("an answer").pop().expect("an item")
}

async fn release<T: Table>(table: &T, numbers: impl IntoIterator<Item = u32>) {
    let ids: Vec<InstanceId> = numbers.into_iter().map(instance).collect();
    let released = table.release_unpaired(&ids, &origin()).await;
    released.expect("an answer");
}

async fn pairs<T: Table>(table: &T, number: u32) {
    let written = table.write_pairings(&[pair(number, 0)]).await;
    assert_eq!(written.expect("an answer"), [true]);
}

async fn instances_are_those_that_exist_each_once<T: Table>(table: &T) {
    release(table, 301..=420).await;
    let asked: Vec<InstanceId> = (301..=421).chain([301]).map(instance).collect();
    let records = table.instances(&asked).await.expect("an answer");
    let mut found: Vec<InstanceId> = records.into_iter().map(|r| r.instance_id).collect();
    found.sort();
    let expected: Vec<InstanceId> = (301..=420).map(instance).collect();
    assert_eq!(found, expected);
    assert_eq!(table.instances(&[]).await.expect("an answer"), []);
}

async fn what_no_node_took_is_released_and_what_is_paired_stays<T: Table>(table: &T) {
    pairs(table, 431).await;
    release(table, [431, 432]).await;
    assert_eq!(item(table, 431).await.state, InstanceState::Paired);
    let spare = item(table, 432).await;
    assert_eq!(
        (spare.state, spare.node.as_ref(), spare.origin.as_ref()),
        (InstanceState::Released, None, Some(&origin()))
    );
    // Its origin is said once.
    let other = Origin {
        node_group: NodeGroupName::new("gpu").expect("a name"),
        ..origin()
    };
    let again = table.release_unpaired(&[instance(432)], &other).await;
    again.expect("an answer");
    assert_eq!(item(table, 432).await, spare);
    // What is terminated stays so.
    let marked = table.mark_terminated(&[instance(432)]).await;
    assert_eq!(marked.expect("an answer"), [instance(432)]);
    release(table, [432]).await;
    assert_eq!(item(table, 432).await.state, InstanceState::Terminated);
}

async fn the_first_note_of_an_unknown_instance_stays<T: Table>(table: &T) {
    pairs(table, 441).await;
    release(table, [442, 443]).await;
    let ended = table.mark_terminated(&[instance(443)]).await;
    assert_eq!(ended.expect("an answer"), [instance(443)]);
    let all = [441, 442, 443, 444].map(instance);
    for now_ms in [NOW_MS, NOW_MS + 5_000] {
        table.note_unknown(&all, now_ms).await.expect("an answer");
    }
    // Of what is paired or terminated nothing is noted, and no item is made.
    let noted = async |number| item(table, number).await.unknown_since_ms;
    assert_eq!(noted(441).await, None);
    assert_eq!(noted(442).await, Some(NOW_MS));
    assert_eq!(noted(443).await, None);
    let stranger = table.instances(&all[3..]).await;
    assert_eq!(stranger.expect("an answer"), []);
}

async fn an_instance_is_marked_terminated_by_one_call<T: Table>(table: &T) {
    pairs(table, 451).await;
    release(table, 452..=459).await;
    // One that is paired, and one that nobody knows, are not marked.
    let all: Vec<InstanceId> = (451..=460).map(instance).collect();
    let (first, second) = join(table.mark_terminated(&all), table.mark_terminated(&all)).await;
    let mut marked = [first.expect("an answer"), second.expect("an answer")].concat();
    marked.sort();
    assert_eq!(marked, all[1..9], "each is answered once");
    let again = table.mark_terminated(&all).await;
    assert_eq!(again.expect("an answer"), []);
    assert_eq!(item(table, 451).await.state, InstanceState::Paired);
    assert_eq!(item(table, 452).await.state, InstanceState::Terminated);
    assert_eq!(
        table.instances(&all[9..]).await.expect("an answer"),
        [],
        "no item is made"
    );
    // Let go of by its node, it can be marked.
    let freed = table.write_pairings(&[free(451, 1)]).await;
    assert_eq!(freed.expect("an answer"), [true]);
    let marked = table.mark_terminated(&all[..1]).await;
    assert_eq!(marked.expect("an answer"), all[..1]);
    assert_eq!(item(table, 451).await.node, Some(node(451)));
}

async fn an_orphan_is_released_unless_somebody_took_it_up<T: Table>(table: &T) {
    let orphan = async |number, seen: Option<&InstanceRecord>| {
        let released = table.release_orphan(&instance(number), seen).await;
        released.expect("an answer")
    };
    // One that nothing is known of.
    assert!(orphan(461, None).await);
    assert_eq!(item(table, 461).await.state, InstanceState::Released);
    assert!(!orphan(461, None).await, "it is known by now");
    // One that a launch pairs after the look.
    pairs(table, 462).await;
    assert!(!orphan(462, None).await);
    let seen = item(table, 462).await;
    assert_eq!(seen.state, InstanceState::Paired);
    // One whose node's record is lost.
    assert!(orphan(462, Some(&seen)).await);
    let released = item(table, 462).await;
    assert_eq!(
        (released.state, &released.node, &released.origin),
        (InstanceState::Released, &seen.node, &seen.origin)
    );
    // One that was taken for terminated and runs.
    let ended = table.mark_terminated(&[instance(462)]).await;
    assert_eq!(ended.expect("an answer"), [instance(462)]);
    assert!(!orphan(462, Some(&released)).await);
    let ended = item(table, 462).await;
    assert!(orphan(462, Some(&ended)).await);
    assert_eq!(item(table, 462).await.state, InstanceState::Released);
}

async fn a_hold_stays_until_it_is_taken_away<T: Table>(table: &T) {
    pairs(table, 471).await;
    let both = [471, 472].map(instance);
    let held = async |number| item(table, number).await.held;
    for by in [HeldBy::Tag, HeldBy::Operator] {
        table.hold(&both, Some(by)).await.expect("an answer");
        assert_eq!((held(471).await, held(472).await), (Some(by), Some(by)));
    }
    assert_eq!(item(table, 471).await.state, InstanceState::Paired);
    // Nothing was known of it: it serves nobody.
    assert_eq!(item(table, 472).await.state, InstanceState::Released);
    let freed = table.write_pairings(&[free(471, 1)]).await;
    assert_eq!(freed.expect("an answer"), [true]);
    assert_eq!(held(471).await, Some(HeldBy::Operator));
    table.hold(&both, None).await.expect("an answer");
    assert_eq!((held(471).await, held(472).await), (None, None));
}
