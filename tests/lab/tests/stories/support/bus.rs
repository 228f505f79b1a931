//! The site's end of the stack's event bus: a rule, and a queue behind it.

use serde_json::{Value, json};
use spillway_lab::emulator::{ACCOUNT, REGION};
use spillway_lab::lab::Lab;

const QUEUE: &str = "site";

/// A rule of the site's that puts what matches `pattern` on a queue of the site's. Answers its address.
pub async fn subscribe(lab: &Lab, pattern: &Value) -> String {
    let root = lab.cloud.emulator.root();
    let name = json!({"QueueName": QUEUE});
    let made = root.json("sqs", "AmazonSQS.CreateQueue", &name);
    let made = made.await.expect("SQS answers");
    let bus = lab.output("EventBusName").expect("the stack has a bus");
    let rule = json!({"Name": "site", "EventBusName": bus, "EventPattern": pattern.to_string()});
    let arn = format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{QUEUE}");
    let targets = json!({
        "Rule": "site", "EventBusName": bus, "Targets": [{"Id": "queue", "Arn": arn}],
    });
    for (operation, body) in [("PutRule", rule), ("PutTargets", targets)] {
        let target = format!("AWSEvents.{operation}");
        let answer = root.json("events", &target, &body);
        answer.await.expect("EventBridge answers");
    }
    made["QueueUrl"]
        .as_str()
        .expect("a queue has a URL")
        .to_owned()
}

/// The events that have come since.
pub async fn received(lab: &Lab, queue: &str) -> Vec<Value> {
    let root = lab.cloud.emulator.root();
    let mut events = Vec::new();
    loop {
        let ask = json!({"QueueUrl": queue, "MaxNumberOfMessages": 10});
        let answer = root.json("sqs", "AmazonSQS.ReceiveMessage", &ask).await;
        let answer = answer.expect("SQS answers");
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() {
            return events;
        }
        for message in messages {
            let delete = json!({"QueueUrl": queue, "ReceiptHandle": message["ReceiptHandle"]});
            let deleted = root.json("sqs", "AmazonSQS.DeleteMessage", &delete).await;
            deleted.expect("SQS answers");
            let body = message["Body"].as_str().expect("a message has a body");
            events.push(serde_json::from_str(body).expect("an event is JSON"));
        }
    }
}
