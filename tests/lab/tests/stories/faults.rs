//! What AWS does to the functions: they are killed around any call, EC2 is away, messages are broken. Nothing is lost,
//! launched twice or left running. And what all of it costs: calls of EC2 and items written.

pub mod broken;
mod cost;
mod killed;
mod unavailable;
mod untold;

use serde_json::Value;
use spillway_lab::journal::Call;
use spillway_lab::lab::Lab;

/// Instances that stay pending for longer than any story: no machine is booted for them.
const FOR_EVER_MS: u64 = 3_600_000;

/// The calls that functions made since `since_ms`, in the order in which they were made.
fn calls(lab: &Lab, function: &str, since_ms: u64) -> Vec<Call> {
    let all = lab.cloud.proxy.journal().calls().expect("the journal");
    let is_ours = |call: &Call| call.principal.starts_with(function) && call.at_ms >= since_ms;
    let mut calls: Vec<Call> = all.into_iter().filter(is_ours).collect();
    calls.sort_by_key(|call| call.at_ms);
    calls
}

/// How many messages lie in the dead-letter queues.
async fn dead_letters(lab: &Lab) -> u64 {
    let mut count = 0;
    for queue in [
        "Resume", "Suspend", "Reports", "Updates", "Notices", "Sweep",
    ] {
        count += messages(lab, &format!("{queue}DeadLetterQueueUrl")).await;
    }
    count
}

/// How many messages lie in a queue, by its output.
async fn messages(lab: &Lab, queue: &str) -> u64 {
    let url = lab.output(queue).expect("the stack has the queue");
    let attributes = lab.cloud.emulator.root().queue_attributes(url).await;
    let attributes: Value = attributes.expect("SQS answers");
    let messages = attributes["ApproximateNumberOfMessages"].as_str();
    messages
        .and_then(|count| count.parse().ok())
        .expect("a number")
}
