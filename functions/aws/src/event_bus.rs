//! The stack's event bus in EventBridge.

use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};
use spillway_control::fault::Fault;
use spillway_control::ports::EventBus;
use spillway_core::site_event::{SOURCE, SiteEvent};

use crate::classify;
use crate::sdk::{EventBridgeClient, SdkConfig};

const SERVICE: &str = "events";
const PUT_EVENTS: &str = "PutEvents";

/// The most entries of one call (EventBridge API reference, `PutEvents`).
const MAX_ENTRIES: usize = 10;
/// The most bytes of one call's entries (EventBridge user guide, on the size of an entry of `PutEvents`): an event
/// that is larger than that is refused, one that makes a call larger goes with the next one.
const MAX_CALL_BYTES: usize = 256 * 1024;
/// What counts of an entry's time.
const TIME_BYTES: usize = 14;

/// One event bus.
#[derive(Debug, Clone)]
pub struct EventBridgeBus {
    client: EventBridgeClient,
    name: String,
}

impl EventBridgeBus {
    /// A client; make one per process.
    #[must_use]
    pub fn client(config: &SdkConfig) -> EventBridgeClient {
        EventBridgeClient::new(config)
    }

    /// The bus of this name.
    #[must_use]
    pub fn new(client: EventBridgeClient, name: String) -> Self {
        Self { client, name }
    }

    /// One call. One that fails is taken to have published nothing; one that succeeds says of each entry whether it was taken.
    async fn put(&self, entries: Vec<PutEventsRequestEntry>) -> Vec<Result<(), Fault>> {
        let count = entries.len();
        let call = self.client.put_events().set_entries(Some(entries));
        let answers = match call.send().await {
            Ok(answer) => answer.entries.unwrap_or_default(),
            Err(error) => {
                let fault = classify::fault(SERVICE, PUT_EVENTS, &error);
                return vec![Err(fault); count];
            }
        };
        let mut outcomes: Vec<_> = answers.iter().map(outcome).collect();
        // What is not spoken of was not taken.
        outcomes.resize(count, Err(refusal("NoAnswer", "the answer lacks an entry")));
        outcomes
    }
}

impl EventBus for EventBridgeBus {
    async fn publish(&self, events: &[SiteEvent]) -> Vec<Result<(), Fault>> {
        let mut outcomes = Vec::with_capacity(events.len());
        let (mut call, mut call_bytes) = (Vec::new(), 0);
        for event in events {
            let detail = serde_json::to_string(&event.detail)
                .expect("a detail holds only strings, numbers and lists");
            let bytes = entry_bytes(event, &detail);
            if call.len() == MAX_ENTRIES || call_bytes + bytes > MAX_CALL_BYTES && !call.is_empty()
            {
                outcomes.extend(self.put(std::mem::take(&mut call)).await);
                call_bytes = 0;
            }
            call.push(entry(&self.name, event, detail));
            call_bytes += bytes;
        }
        if !call.is_empty() {
            outcomes.extend(self.put(call).await);
        }
        outcomes
    }
}

fn entry(bus: &str, event: &SiteEvent, detail: String) -> PutEventsRequestEntry {
    let at_ms = i64::try_from(event.detail.at_ms()).unwrap_or(i64::MAX);
    PutEventsRequestEntry::builder()
        .event_bus_name(bus)
        .source(SOURCE)
        .detail_type(event.detail_type.as_str())
        .detail(detail)
        .time(DateTime::from_millis(at_ms))
        .build()
}

fn entry_bytes(event: &SiteEvent, detail: &str) -> usize {
    TIME_BYTES + SOURCE.len() + event.detail_type.as_str().len() + detail.len()
}

fn outcome(entry: &PutEventsResultEntry) -> Result<(), Fault> {
    match &entry.error_code {
        None => Ok(()),
        Some(code) => Err(refusal(
            code,
            entry.error_message.as_deref().unwrap_or_default(),
        )),
    }
}

fn refusal(code: &str, message: &str) -> Fault {
    Fault {
        kind: classify::kind_of(code, None),
        service: SERVICE.into(),
        operation: PUT_EVENTS.into(),
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use spillway_core::name::{ClusterName, Generation, NodeName};
    use spillway_core::pairing::{Step, StepKind};
    use spillway_core::site_event::{Change, NodeChange, NodeImage, NodeState};

    use super::*;

    /// The emulator gives every event the present time.
    #[test]
    fn an_event_has_the_time_at_which_it_happened() {
        let step = Step {
            at_ms: 1_790_000_000_100,
            generation: Generation::new(7).unwrap(),
            what: StepKind::Joined,
            instance: None,
            reason: None,
        };
        let after = NodeImage {
            node: NodeName::new("burst-1").unwrap(),
            state: NodeState::Ready,
            request_id: None,
            history: vec![step],
        };
        let change = Change::Node(NodeChange {
            before: None,
            after,
        });
        let events = change.events(&ClusterName::new("lab").unwrap(), None);
        let entry = entry("lab-events", &events[0], "{}".to_owned());
        assert_eq!(entry.time, Some(DateTime::from_millis(1_790_000_000_100)));
        assert_eq!(entry.event_bus_name(), Some("lab-events"));
        assert_eq!(entry.source(), Some("spillway"));
        assert_eq!(entry.detail_type(), Some("Spillway Node State Change"));
    }
}
