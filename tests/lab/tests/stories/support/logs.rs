//! What the functions have logged, and counted.

use serde_json::{Value, json};
use spillway_lab::lab::Lab;

/// What the metric lines of a function add up to.
pub async fn metric(lab: &Lab, function: &str, name: &str) -> usize {
    let lines = log_lines(lab, function).await;
    let events = lines.iter().filter(|line| line["_aws"].is_object());
    // A count: EMF has it as a float.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = |event: &Value| event[name].as_f64().unwrap_or_default() as usize;
    events.map(count).sum()
}

/// What a function has logged: its lines of JSON.
pub async fn log_lines(lab: &Lab, function: &str) -> Vec<Value> {
    let group = format!("/aws/lambda/{}-{function}", lab.spec.cluster);
    let body = json!({"logGroupName": group});
    let root = lab.cloud.emulator.root();
    let answer = root
        .json("logs", "Logs_20140328.FilterLogEvents", &body)
        .await
        .expect("the logs answer");
    let events = answer["events"].as_array().into_iter().flatten();
    let texts = events.filter_map(|event| event["message"].as_str());
    texts
        .flat_map(str::lines)
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}
