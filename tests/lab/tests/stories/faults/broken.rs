//! One message of ten is broken. The other nine are served in the same invocation.

use serde_json::{Value, json};

use super::{FOR_EVER_MS, dead_letters};
use crate::by_hand::resume;
use crate::support::functions::{enable, mapping};
use crate::support::{Story, alive, launched_ever, log_lines, now_ms, take_message, until};

/// What no reader of messages can read: it breaks off.
pub const BROKEN: &str = r#"{"version":1,"cluster":"lab","body":{"kind":"resume","#;

#[tokio::test(flavor = "multi_thread")]
async fn one_broken_message_of_ten_is_set_aside_and_nine_are_served() {
    let lab = Story::begin("one_broken_message_of_ten", |spec| spec.nodes = 9).await;
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = FOR_EVER_MS);
    let mapping = mapping(&lab, "launch").await;
    enable(&lab, &mapping, false).await;
    let resumes = (0..9).map(|node| {
        let message = resume(&format!("cloud-{node}"), now_ms() + 100_000);
        message.to_string()
    });
    let mut bodies: Vec<String> = resumes.collect();
    bodies.insert(4, BROKEN.to_owned());
    let entries = bodies.iter().enumerate();
    let entries = entries.map(|(id, body)| json!({"Id": id.to_string(), "MessageBody": body}));
    let url = lab.output("ResumeQueueUrl").expect("the stack has a queue");
    let batch = json!({"QueueUrl": url, "Entries": entries.collect::<Vec<Value>>()});
    let root = lab.cloud.emulator.root();
    let sent = root.json("sqs", "AmazonSQS.SendMessageBatch", &batch).await;
    let sent = sent.expect("SQS answers");
    assert_eq!(sent["Successful"].as_array().map(Vec::len), Some(10));
    enable(&lab, &mapping, true).await;

    let set_aside = take_message(&lab, "ResumeDeadLetterQueueUrl").await;
    assert_eq!(set_aside["Body"], BROKEN);
    let reason = &set_aside["MessageAttributes"]["Reason"]["StringValue"];
    let reason = reason.as_str().expect("a reason");
    assert!(reason.contains("EOF while parsing"), "{reason}");
    until("nine are served", 60, async || {
        (alive(&lab).len() == 9).then_some(())
    })
    .await;
    until("the invocation has told its figures", 30, async || {
        let lines = log_lines(&lab, "launch").await;
        let is_told = |line: &Value| line["RecordsQuarantined"] == 1.0;
        let own = lines.into_iter().find(is_told)?;
        assert_eq!(own["NodesResumed"], 9.0, "all ten in one batch: {own}");
        Some(())
    })
    .await;
    assert_eq!(launched_ever(&lab), 9);
    assert_eq!(dead_letters(&lab).await, 0, "one was there, and taken");
    lab.end().await;
}
