//! What the table promises of nodes.

use futures::future::join;
use spillway_control::ports::{InstanceWrite, PairingWrite, Table};
use spillway_control::record::InstanceRecord;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::Pairing;
use spillway_core::plan::InstanceState;

use super::promises;
use crate::sample::{
    DEADLINE_MS, acknowledged, address, admit, free, generation, instance, launched, node, origin,
    pair, pool, request, requested,
};

/// All of it, on a table in which no node is known.
pub async fn suite<T: Table>(table: &T) {
    promises!(
        a_node_never_heard_of_is_new_at_version_0,
        each_write_stands_alone,
        one_write_of_a_version_wins,
        a_pair_sets_its_instance_and_leaves_the_origin_where_it_names_none,
        an_admission_needs_an_item,
        a_release_makes_the_item_where_there_is_none,
        what_is_released_is_never_paired_again,
        an_update_is_due_until_it_is_acknowledged,
        a_node_is_active_while_it_has_an_instance_or_waits_for_one => table
    );
}

async fn written<T: Table, const N: usize>(table: &T, writes: [PairingWrite; N]) -> [bool; N] {
    let written = table.write_pairings(&writes).await.expect("an answer");
    written.try_into().expect("an answer for each")
}

async fn item<T: Table>(table: &T, id: InstanceId) -> Option<InstanceRecord> {
    let mut records = table.instances(&[id]).await.expect("an answer");
    assert!(records.len() < 2, "{records:?}");
    records.pop()
}

async fn version<T: Table>(table: &T, number: u32) -> u64 {
    let stored = table.pairings(&[node(number)]).await.expect("an answer");
    stored[0].version
}

async fn a_node_never_heard_of_is_new_at_version_0<T: Table>(table: &T) {
    let asked = [node(3), node(1), node(2), node(1)];
    let stored = table.pairings(&asked).await.expect("an answer");
    assert!(stored.iter().all(|stored| stored.version == 0));
    let records: Vec<Pairing> = stored.into_iter().map(|stored| stored.record).collect();
    assert_eq!(records, asked.map(Pairing::new));
    assert_eq!(table.pairings(&[]).await.expect("an answer"), []);
}

/// More than a call of DynamoDB takes. One in ten has moved on, the others of its transaction are written all the same.
async fn each_write_stands_alone<T: Table>(table: &T) {
    let numbers = 1..=120;
    let nodes: Vec<NodeName> = numbers.clone().map(node).collect();
    let requests: Vec<PairingWrite> = numbers.clone().map(|n| request(n, 0)).collect();
    let done = table.write_pairings(&requests).await.expect("an answer");
    assert_eq!(done, vec![true; 120]);
    let pairs = numbers.clone().map(|n| pair(n, u64::from(n % 10 != 0)));
    let pairs: Vec<PairingWrite> = pairs.collect();
    let expected: Vec<bool> = numbers.clone().map(|n| n % 10 != 0).collect();
    let done = table.write_pairings(&pairs).await.expect("an answer");
    assert_eq!(done, expected);
    let stored = table.pairings(&nodes).await.expect("an answer");
    for (n, stored) in numbers.zip(stored) {
        let expected = if n % 10 == 0 {
            (1, requested(n))
        } else {
            (2, launched(n))
        };
        assert_eq!((stored.version, stored.record), expected);
    }
    // The instance of a write that was not made is not there either.
    let records = table.instances(&[instance(9), instance(10)]).await;
    let ids: Vec<InstanceId> = records
        .expect("an answer")
        .into_iter()
        .map(|record| record.instance_id)
        .collect();
    assert_eq!(ids, [instance(9)]);
}

async fn one_write_of_a_version_wins<T: Table>(table: &T) {
    let (first, second) = ([request(201, 0)], [request(201, 0)]);
    let (first, second) = join(table.write_pairings(&first), table.write_pairings(&second)).await;
    let wins = [first.expect("an answer"), second.expect("an answer")].concat();
    assert_eq!(wins.iter().filter(|won| **won).count(), 1, "{wins:?}");
    for late in [0, 2] {
        assert_eq!(written(table, [pair(201, late)]).await, [false]);
    }
    assert_eq!(version(table, 201).await, 1);
    assert_eq!(written(table, [pair(201, 1)]).await, [true]);
    assert_eq!(version(table, 201).await, 2);
}

async fn a_pair_sets_its_instance_and_leaves_the_origin_where_it_names_none<T: Table>(table: &T) {
    assert_eq!(written(table, [pair(211, 0)]).await, [true]);
    let mut expected = InstanceRecord {
        instance_id: instance(211),
        state: InstanceState::Paired,
        node: Some(node(211)),
        generation: Some(generation(1)),
        acknowledged_generation: None,
        address: Some(address(211)),
        deadline_ms: Some(DEADLINE_MS),
        origin: Some(origin()),
        held: None,
        pool: Some(pool()),
        unknown_since_ms: None,
    };
    assert_eq!(item(table, instance(211)).await, Some(expected.clone()));
    let later = InstanceWrite::Pair {
        instance_id: instance(211),
        address: address(212),
        deadline_ms: DEADLINE_MS + 1,
        origin: None,
        pool: None,
    };
    let again = PairingWrite {
        instance: Some(later),
        ..pair(211, 1)
    };
    assert_eq!(written(table, [again]).await, [true]);
    expected.address = Some(address(212));
    expected.deadline_ms = Some(DEADLINE_MS + 1);
    assert_eq!(item(table, instance(211)).await, Some(expected));
}

async fn an_admission_needs_an_item<T: Table>(table: &T) {
    assert_eq!(written(table, [pair(221, 0)]).await, [true]);
    assert_eq!(written(table, [admit(221, 1)]).await, [true]);
    let record = item(table, instance(221)).await.expect("an item");
    assert_eq!(record.acknowledged_generation, Some(generation(1)));
    assert_eq!(record.state, InstanceState::Paired);
    // Neither the item nor the node is written.
    assert_eq!(written(table, [admit(222, 0)]).await, [false]);
    assert_eq!(item(table, instance(222)).await, None);
    assert_eq!(version(table, 222).await, 0);
}

async fn a_release_makes_the_item_where_there_is_none<T: Table>(table: &T) {
    assert_eq!(written(table, [free(231, 0)]).await, [true]);
    let record = item(table, instance(231)).await.expect("an item");
    assert_eq!((record.state, record.node), (InstanceState::Released, None));
    // A write that comes late lets go of nothing.
    assert_eq!(written(table, [pair(232, 0)]).await, [true]);
    assert_eq!(written(table, [free(232, 0)]).await, [false]);
    let record = item(table, instance(232)).await.expect("an item");
    assert_eq!(record.state, InstanceState::Paired);
}

async fn what_is_released_is_never_paired_again<T: Table>(table: &T) {
    assert_eq!(written(table, [pair(241, 0)]).await, [true]);
    assert_eq!(written(table, [free(241, 1)]).await, [true]);
    let record = item(table, instance(241)).await.expect("an item");
    assert_eq!(record.state, InstanceState::Released);
    assert_eq!(
        (record.node, record.origin),
        (Some(node(241)), Some(origin())),
        "what it served stays known"
    );
    assert_eq!(written(table, [pair(241, 2)]).await, [false]);
    let ended = table.mark_terminated(&[instance(241)]).await;
    assert_eq!(ended.expect("an answer"), [instance(241)]);
    assert_eq!(written(table, [pair(241, 2)]).await, [false]);
    assert_eq!(version(table, 241).await, 2);
    // Letting go of what is terminated leaves it so, and the node is written.
    assert_eq!(written(table, [free(241, 2)]).await, [true]);
    let record = item(table, instance(241)).await.expect("an item");
    assert_eq!(record.state, InstanceState::Terminated);
    assert_eq!(version(table, 241).await, 3);
}

async fn an_update_is_due_until_it_is_acknowledged<T: Table>(table: &T) {
    let own = [251, 252, 253].map(node);
    let due = async || {
        let mut due = table.nodes_with_update_due().await.expect("an answer");
        due.retain(|node| own.contains(node));
        due.sort();
        due
    };
    assert_eq!(
        written(table, [request(251, 0), pair(252, 0), pair(253, 0)]).await,
        [true; 3]
    );
    assert_eq!(due().await, own[1..]);
    assert!(acknowledged(252).update_due.is_none());
    assert_eq!(written(table, [admit(252, 1)]).await, [true]);
    assert_eq!(due().await, own[2..]);
}

async fn a_node_is_active_while_it_has_an_instance_or_waits_for_one<T: Table>(table: &T) {
    let own = [261, 262, 263].map(node);
    let sorted = |mut nodes: Vec<NodeName>| {
        nodes.retain(|node| own.contains(node));
        nodes.sort();
        nodes
    };
    let active = async || sorted(table.active_nodes().await.expect("an answer"));
    assert_eq!(
        written(table, [request(261, 0), pair(262, 0)]).await,
        [true; 2]
    );
    assert_eq!(active().await, own[..2]);
    assert_eq!(written(table, [free(262, 1)]).await, [true]);
    assert_eq!(active().await, own[..1]);
    // A node that is free is still known.
    let every = sorted(table.every_node().await.expect("an answer"));
    assert_eq!(every, own[..2]);
}
