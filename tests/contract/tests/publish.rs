//! What `publish` makes of a bus that does not take everything.

use std::collections::BTreeMap;

use spillway_contract::suites::events::change;
use spillway_control::publish::publish;
use spillway_control::tally::{EVENTS_PUBLISHED, Tally};
use spillway_core::name::ClusterName;
use spillway_core::site_event::{Change, Detail, NodeChange};
use spillway_world::sim::{Port, calm};
use spillway_world::site_bus::MemoryBus;

fn cluster() -> ClusterName {
    ClusterName::new("sim").unwrap()
}

fn changes(count: u32) -> Vec<Change> {
    (0..count).map(|number| change(number, number)).collect()
}

fn published(count: usize) -> Tally {
    let mut tally = Tally::default();
    tally.add(EVENTS_PUBLISHED, count);
    tally
}

/// How often each node's event was taken.
fn taken(bus: &MemoryBus) -> BTreeMap<String, usize> {
    let mut taken = BTreeMap::new();
    for event in bus.taken() {
        let Detail::Step(detail) = event.detail else {
            panic!("no sweep is in these changes: {event:?}");
        };
        *taken.entry(detail.node.to_string()).or_default() += 1;
    }
    taken
}

#[test]
fn what_the_bus_does_not_take_is_offered_again_and_nothing_else() {
    calm(|port: Port| async move {
        let bus = MemoryBus::default();
        // Of three the second is refused twice.
        bus.expect([true, false, true, false]);
        let done = publish(&cluster(), &port, &bus, &port, &changes(3))
            .await
            .unwrap();
        assert_eq!(done.failed, None);
        assert_eq!(done.tally, published(3));
        assert_eq!(
            taken(&bus),
            [0, 1, 2].map(|n| (format!("burst-{n}"), 1)).into()
        );
    });
}

#[test]
fn the_first_change_that_the_bus_never_takes_is_named() {
    calm(|port: Port| async move {
        let bus = MemoryBus::default();
        bus.expect([true, false, true, false, false, false, false, false]);
        let done = publish(&cluster(), &port, &bus, &port, &changes(4))
            .await
            .unwrap();
        let (place, fault) = done.failed.expect("one was not taken");
        assert_eq!((place, fault.code.as_str()), (1, "ThrottlingException"));
        assert_eq!(done.tally, published(2));
        assert_eq!(
            taken(&bus),
            [0, 2].map(|n| (format!("burst-{n}"), 1)).into()
        );
    });
}

/// As when the agent acknowledges, or an update is told again.
#[test]
fn a_change_without_a_step_asks_for_nothing() {
    calm(|port: Port| async move {
        let bus = MemoryBus::default();
        let Change::Node(NodeChange { after, .. }) = change(1, 1) else {
            panic!("it is a node's");
        };
        let change = Change::Node(NodeChange {
            before: Some(after.clone()),
            after,
        });
        let done = publish(&cluster(), &port, &bus, &port, &[change])
            .await
            .unwrap();
        assert_eq!((done.failed, done.tally), (None, Tally::default()));
        assert!(bus.taken().is_empty());
    });
}
