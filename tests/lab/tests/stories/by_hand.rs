//! Requests made by hand, and sent with the head node's own credentials.

use std::process::Stdio;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use spillway_lab::lab::Lab;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::now_ms;

/// A resume request of no job, as a message.
pub fn resume(nodes: &str, deadline_ms: u64) -> Value {
    let stamp = stamp();
    json!({"version": 1, "cluster": "lab", "body": {
        "kind": "resume", "request_id": format!("by-hand-{stamp}"), "generation": stamp,
        "part": 1, "parts": 1, "deadline_ms": deadline_ms, "nodes": nodes,
    }})
}

/// A suspend request, as a message.
pub fn suspend(nodes: &str) -> Value {
    let stamp = stamp();
    json!({"version": 1, "cluster": "lab", "body": {
        "kind": "suspend", "request_id": format!("by-hand-{stamp}"), "generation": stamp,
        "part": 1, "parts": 1, "cause": "suspend", "nodes": nodes,
    }})
}

/// Microseconds since 1970, each later than the one before.
fn stamp() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let now = now_ms() * 1000;
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
        Some(now.max(last + 1))
    });
    now.max(last.expect("always a next one") + 1)
}

/// Sends each line of its input, a queue's URL and a body.
const SENDER: &str = "
import json, sys, boto3
sqs = boto3.client('sqs')
for line in sys.stdin:
    url, body = json.loads(line)
    sqs.send_message(QueueUrl=url, MessageBody=body)
";

/// Puts messages on the stack's queues with the head node's own credentials.
pub async fn send(lab: &Lab, messages: &[(&str, Value)]) {
    let mut input = String::new();
    for (queue, message) in messages {
        let url = lab.output(queue).expect("the stack has the queue");
        input += &json!([url, message.to_string()]).to_string();
        input.push('\n');
    }
    let mut environment = lab.operator_environment();
    environment.retain(|key, _| !key.contains("ACCESS_KEY"));
    let mut sender = Command::new(lab.venv.join("bin/python"))
        .args(["-c", SENDER])
        .env_clear()
        .envs(environment)
        .env("AWS_SHARED_CREDENTIALS_FILE", lab.head_credentials())
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("Python starts");
    let mut stdin = sender.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).await.expect("it reads");
    drop(stdin);
    let status = sender.wait().await.expect("it ends");
    assert!(status.success(), "the queues take what the head node sends");
}
