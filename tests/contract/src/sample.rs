//! Nodes, instances and records to test with.

use std::net::IpAddr;

use spillway_control::ports::{InstanceWrite, PairingWrite};
use spillway_control::record::Origin;
use spillway_core::capacity::Pool;
use spillway_core::config::CapacityKind;
use spillway_core::name::{Generation, InstanceId, NodeGroupName, NodeName, RequestId};
use spillway_core::pairing::{Event, LaunchKey, Pairing, Transition, Verdict};
use spillway_core::usage::Owner;

/// The time of what is written, Unix milliseconds.
pub const NOW_MS: u64 = 1_790_000_000_000;
/// By when nodes must have joined, Unix milliseconds.
pub const DEADLINE_MS: u64 = NOW_MS + 600_000;

/// A node.
#[must_use]
pub fn node(number: u32) -> NodeName {
    NodeName::new(format!("burst-{number}")).expect("a name")
}

/// The instance that serves the node of the same number.
#[must_use]
pub fn instance(number: u32) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).expect("an id")
}

/// Its address.
#[must_use]
pub fn address(number: u32) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

/// Later than all of lower numbers.
#[must_use]
pub fn generation(number: u64) -> Generation {
    Generation::new(NOW_MS * 1000 + number).expect("a generation")
}

/// The launch of all these nodes.
#[must_use]
pub fn launch_key() -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new("request-1").expect("an id"),
        part: 1,
    }
}

/// What its instances come from.
#[must_use]
pub fn origin() -> Origin {
    Origin {
        launch: launch_key(),
        node_group: NodeGroupName::new("cpu").expect("a name"),
        owner: Owner::default(),
    }
}

/// Where they were launched.
#[must_use]
pub fn pool() -> Pool {
    Pool {
        capacity: CapacityKind::Spot,
        instance_type: "c7i.large".to_owned(),
        zone: "eu-central-1a".to_owned(),
    }
}

/// The pairing after an event that it must accept.
///
/// # Panics
///
/// Where it does not.
#[must_use]
pub fn accepted(transition: Transition) -> Pairing {
    assert_eq!(transition.verdict, Verdict::Accepted);
    transition.next
}

/// A node that was asked for.
#[must_use]
pub fn requested(number: u32) -> Pairing {
    let event = Event::Resume {
        generation: generation(1),
        launch: launch_key(),
        deadline_ms: DEADLINE_MS,
        launches_per_hour: 12,
    };
    accepted(Pairing::new(node(number)).on(&event, NOW_MS))
}

/// A node that was given its instance: slurmctld is to be told.
#[must_use]
pub fn launched(number: u32) -> Pairing {
    let event = Event::Launched {
        launch: launch_key(),
        instance: instance(number),
        address: address(number),
        note: None,
    };
    accepted(requested(number).on(&event, NOW_MS))
}

/// A node whose address slurmctld knows.
#[must_use]
pub fn acknowledged(number: u32) -> Pairing {
    let event = Event::Acknowledged {
        generation: generation(1),
        number: 1,
    };
    accepted(launched(number).on(&event, NOW_MS))
}

/// Writes that a node was asked for.
#[must_use]
pub fn request(number: u32, expected_version: u64) -> PairingWrite {
    PairingWrite {
        pairing: requested(number),
        expected_version,
        instance: None,
    }
}

/// Gives a node its instance.
#[must_use]
pub fn pair(number: u32, expected_version: u64) -> PairingWrite {
    let pair = InstanceWrite::Pair {
        instance_id: instance(number),
        address: address(number),
        deadline_ms: DEADLINE_MS,
        origin: Some(origin()),
        pool: Some(pool()),
    };
    PairingWrite {
        pairing: launched(number),
        expected_version,
        instance: Some(pair),
    }
}

/// Writes that slurmctld knows the address.
#[must_use]
pub fn admit(number: u32, expected_version: u64) -> PairingWrite {
    PairingWrite {
        pairing: acknowledged(number),
        expected_version,
        instance: Some(InstanceWrite::Admit(instance(number))),
    }
}

/// Frees a node, and lets go of its instance.
#[must_use]
pub fn free(number: u32, expected_version: u64) -> PairingWrite {
    let event = Event::Suspend {
        generation: generation(2),
    };
    PairingWrite {
        pairing: accepted(launched(number).on(&event, NOW_MS)),
        expected_version,
        instance: Some(InstanceWrite::Release(instance(number))),
    }
}
