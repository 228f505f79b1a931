//! Messages that come late, twice, and in another order.

use serde_json::{Value, json};
use spillway_lab::lab::Lab;

use crate::faults::broken::BROKEN;
use crate::support::put;

/// Takes what is on a queue and puts it back, the last first, each twice; how many messages. What a node has sent only it
/// can send: that is merely delivered late, and so is what is no message.
pub async fn repeat(lab: &Lab, queue: &str) -> usize {
    let url = lab.output(queue).expect("the queue").to_owned();
    let root = lab.cloud.emulator.root();
    let sqs = async |operation: &str, body: Value| {
        let operation = format!("AmazonSQS.{operation}");
        let answer = root.json("sqs", &operation, &body).await;
        answer.expect("SQS answers")
    };
    let ask = json!({
        "QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "AttributeNames": ["SenderId"],
    });
    let mut answer = sqs("ReceiveMessage", ask).await;
    let messages = answer["Messages"].take();
    let mut repeated = 0;
    for message in messages.as_array().into_iter().flatten().rev() {
        let receipt = &message["ReceiptHandle"];
        let sender = message["Attributes"]["SenderId"].as_str();
        let is_a_nodes = sender.is_none_or(|sender| sender.contains(":i-"));
        if is_a_nodes || message["Body"] == BROKEN {
            let back = json!({"QueueUrl": url, "ReceiptHandle": receipt, "VisibilityTimeout": 0});
            sqs("ChangeMessageVisibility", back).await;
            continue;
        }
        let body = message["Body"].as_str().expect("a body");
        for _ in 0..2 {
            put(lab, queue, body).await;
        }
        let delete = json!({"QueueUrl": url, "ReceiptHandle": receipt});
        sqs("DeleteMessage", delete).await;
        repeated += 1;
    }
    repeated
}
