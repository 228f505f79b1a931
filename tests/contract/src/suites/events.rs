//! What the stack's event bus promises.

use std::collections::BTreeMap;

use serde_json::Value;
use spillway_control::ports::EventBus;
use spillway_core::name::{ClusterName, NodeName};
use spillway_core::pairing::{Step, StepKind};
use spillway_core::site_event::{Change, NodeChange, NodeImage, NodeState, SOURCE, SiteEvent};

use super::promises;
use crate::sample::{NOW_MS, generation, instance};

/// More than EventBridge takes in two calls.
const MANY: u32 = 23;

/// An event as a subscriber has it. Its `time` is left out: the emulator gives it the present one, whatever was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// `source`.
    pub source: String,
    /// `detail-type`.
    pub detail_type: String,
    /// `detail`.
    pub detail: Value,
}

/// Somebody who subscribes to everything.
pub trait Subscriber {
    /// What has come since this was last asked, in any order.
    fn received(&self) -> impl Future<Output = Vec<Received>>;
}

/// All of it.
pub async fn suite<B: EventBus + Subscriber>(bus: &B) {
    promises!(nothing_is_made_of_nothing, what_is_published_arrives_as_it_was_said => bus);
}

/// No event is no call and no answer.
pub async fn nothing_is_made_of_nothing<B: EventBus + Subscriber>(bus: &B) {
    assert!(bus.publish(&[]).await.is_empty());
    assert!(bus.received().await.is_empty());
}

/// However many, each arrives once.
pub async fn what_is_published_arrives_as_it_was_said<B: EventBus + Subscriber>(bus: &B) {
    let events = events(MANY);
    let answers = bus.publish(&events).await;
    assert_eq!(answers.len(), events.len());
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let by_id = |received: Vec<Received>| -> BTreeMap<String, Vec<Received>> {
        let mut by_id: BTreeMap<String, Vec<Received>> = BTreeMap::new();
        for one in received {
            let id = one.detail["id"].as_str().expect("an id").to_owned();
            by_id.entry(id).or_default().push(one);
        }
        by_id
    };
    let expected = events.iter().map(received).collect();
    assert_eq!(by_id(bus.received().await), by_id(expected));
}

/// So many events, of a node each.
#[must_use]
pub fn events(count: u32) -> Vec<SiteEvent> {
    let cluster = ClusterName::new("lab").expect("a name");
    let changes = (0..count).map(|number| change(number, number));
    changes
        .flat_map(|change| change.events(&cluster, None))
        .collect()
}

/// A change of the record of node `number` that brings one step, and makes it as the `at`th moment.
#[must_use]
pub fn change(number: u32, at: u32) -> Change {
    let image = |history: Vec<Step>, state| NodeImage {
        node: NodeName::new(format!("burst-{number}")).expect("a name"),
        state,
        request_id: None,
        history,
    };
    let step = Step {
        at_ms: NOW_MS + u64::from(at),
        generation: generation(7),
        what: StepKind::Failed,
        instance: Some(instance(number)),
        reason: Some("spillway: \"it\" failed, ä".to_owned()),
    };
    Change::Node(NodeChange {
        before: Some(image(Vec::new(), NodeState::Launched)),
        after: image(vec![step], NodeState::Free),
    })
}

/// What a subscriber has of an event.
#[must_use]
pub fn received(event: &SiteEvent) -> Received {
    Received {
        source: SOURCE.to_owned(),
        detail_type: event.detail_type.as_str().to_owned(),
        detail: serde_json::to_value(&event.detail).expect("a detail is JSON"),
    }
}
