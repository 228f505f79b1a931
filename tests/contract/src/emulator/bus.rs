//! An event bus of the emulator's, with a rule that puts everything on a queue.

use serde_json::{Value, json};
use spillway_aws::EventBridgeBus;
use spillway_control::fault::Fault;
use spillway_control::ports::EventBus;
use spillway_core::site_event::{SOURCE, SiteEvent};
use spillway_lab::emulator::{ACCOUNT, REGION};

use crate::suites::events::{Received, Subscriber};
use crate::{Place, create_queue};

const NAME: &str = "lab-events";
/// The emulator hands an event to a queue within a moment.
const QUIET_SECONDS: i32 = 2;

/// See the module's text.
#[derive(Debug)]
pub struct EmulatedBus {
    /// The adapter under test.
    pub bus: EventBridgeBus,
    sqs: aws_sdk_sqs::Client,
    queue_url: String,
}

impl EmulatedBus {
    /// Makes bus, rule and queue.
    pub async fn start(place: &Place) -> Self {
        let root = place.cloud.emulator.root();
        let ask = async |operation: &str, body: Value| {
            let target = format!("AWSEvents.{operation}");
            let answer = root.json("events", &target, &body);
            answer.await.expect("EventBridge answers")
        };
        let queue_url = create_queue(&place.sqs, "lab-site").await;
        let queue = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:lab-site");
        let pattern = json!({"source": [SOURCE]}).to_string();
        let rule = json!({"Name": "everything", "EventBusName": NAME, "EventPattern": pattern});
        let targets = json!([{"Id": "queue", "Arn": queue}]);
        let targets = json!({"Rule": "everything", "EventBusName": NAME, "Targets": targets});
        ask("CreateEventBus", json!({"Name": NAME})).await;
        ask("PutRule", rule).await;
        ask("PutTargets", targets).await;
        let client = EventBridgeBus::client(&place.config);
        Self {
            bus: EventBridgeBus::new(client, NAME.to_owned()),
            sqs: place.sqs.clone(),
            queue_url,
        }
    }
}

impl EventBus for EmulatedBus {
    async fn publish(&self, events: &[SiteEvent]) -> Vec<Result<(), Fault>> {
        self.bus.publish(events).await
    }
}

impl Subscriber for EmulatedBus {
    async fn received(&self) -> Vec<Received> {
        let mut received = Vec::new();
        loop {
            let call = self.sqs.receive_message().queue_url(&self.queue_url);
            let call = call
                .max_number_of_messages(10)
                .wait_time_seconds(QUIET_SECONDS);
            let answer = call.send().await.expect("the queue answers");
            let messages = answer.messages.unwrap_or_default();
            if messages.is_empty() {
                return received;
            }
            for message in messages {
                let delete = self.sqs.delete_message().queue_url(&self.queue_url);
                let handle = message.receipt_handle.expect("a handle");
                let delete = delete.receipt_handle(handle).send().await;
                delete.expect("the message is deleted");
                received.push(read(&message.body.expect("a body")));
            }
        }
    }
}

fn read(body: &str) -> Received {
    let event: Value = serde_json::from_str(body).expect("an event is JSON");
    let text = |name: &str| event[name].as_str().expect("a field").to_owned();
    Received {
        source: text("source"),
        detail_type: text("detail-type"),
        detail: event["detail"].clone(),
    }
}
