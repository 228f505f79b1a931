//! The stories of nodes, jobs and requests, each as it is told.

mod let_go;
mod nodes;
mod others;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use spillway_core::name::{NodeGroupName, NodeName, RequestId};

use super::facts::{Attempt, Local, NodeFacts, NodeItem, Reported, SiteFacts, Swept, Waiting};
use crate::slurm::NodeRow;

/// 2026-01-01 01:00:00 in Berlin.
const BEGIN_MS: u64 = 1_767_225_600_000;
const INSTANCE: &str = "i-0123456789abcdef0";

#[test]
fn what_aws_says_in_utc_is_told_in_local_time() {
    let told = super::localized("é at 2026-01-01T00:12:00Z, 2026-01-01T0", &berlin());
    assert_eq!(told, "é at 2026-01-01 01:12:00, 2026-01-01T0");
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

/// So many seconds after the beginning, Unix milliseconds.
fn at(seconds: u64) -> u64 {
    BEGIN_MS + seconds * 1000
}

/// The stamp of a call at that time.
fn stamp(seconds: u64) -> u64 {
    at(seconds) * 1000
}

fn name(node: &str) -> NodeName {
    NodeName::new(node).unwrap()
}

/// A step of a node's history, for the request stamped at `stamped` seconds.
fn step(
    seconds: u64,
    stamped: u64,
    what: &str,
    instance: Option<&str>,
    reason: Option<&str>,
) -> Value {
    let mut step = json!({"at_ms": at(seconds), "generation": stamp(stamped), "what": what});
    if let Some(instance) = instance {
        step["instance"] = instance.into();
    }
    if let Some(reason) = reason {
        step["reason"] = reason.into();
    }
    step
}

/// A node that everything is known of and nothing has happened to, at `now` seconds.
fn quiet(now: u64) -> NodeFacts {
    let heartbeat = json!({
        "received_ms": at(now) - 12_000, "sent_ms": at(now) - 12_100, "slurm_version": "24.11.5", "spooled": 0,
    });
    NodeFacts {
        node: name("cloud-7"),
        node_group: Some(NodeGroupName::new("cpu").unwrap()),
        record: Ok(None),
        instance: Ok(None),
        request: Ok(None),
        attempts: Vec::new(),
        capacity: Ok(None),
        reported: Ok(Some(Reported {
            observed_ms: at(now) - 20_000,
            state: Some(("IDLE+CLOUD+POWERED_DOWN".to_owned(), None)),
        })),
        sweep: Ok(Some(Swept {
            at_ms: at(now) - 40_000,
            findings: Vec::new(),
        })),
        slurm: Ok(Some(row("IDLE+CLOUD+POWERED_DOWN", "cloud-7", None))),
        local: Ok(Some(Local::default())),
        site: SiteFacts {
            now_ms: at(now),
            heartbeat: Ok(Some(serde_json::from_value(heartbeat).unwrap())),
            dead_letters: Ok(Vec::new()),
        },
    }
}

fn row(state: &str, address: &str, reason: Option<&str>) -> NodeRow {
    let reason = reason.map_or_else(String::new, |reason| {
        format!(" Reason={reason} [slurm@1767225600]")
    });
    NodeRow::parse(&format!(
        "NodeName=cloud-7 NodeAddr={address} State={state} ThreadsPerCore=1{reason}"
    ))
    .unwrap()
}

/// The node's item with this history and what else it has.
fn item(state: &str, history: Vec<Value>, more: Value) -> NodeItem {
    let generation = history
        .last()
        .map_or(json!(1), |step| step["generation"].clone());
    let mut item = json!({
        "pk": "NODE#hpc#cloud-7", "kind": "node", "version": 7, "node": "cloud-7", "update_number": 3,
        "generation": generation, "state": state, "request_id": "r-1", "history": Value::Array(history),
    });
    let Value::Object(more) = more else {
        panic!("attributes")
    };
    item.as_object_mut().unwrap().extend(more);
    serde_json::from_value(item).unwrap()
}

/// Its instance's item.
fn instance(state: &str, more: Value) -> spillway_core::record::InstanceRecord {
    let mut item = json!({
        "instance_id": INSTANCE, "state": state, "node": "cloud-7", "address": "10.0.0.7",
        "pool": {"capacity": "on-demand", "instance_type": "c7i.large", "zone": "us-east-1a"},
    });
    let Value::Object(more) = more else {
        panic!("attributes")
    };
    item.as_object_mut().unwrap().extend(more);
    serde_json::from_value(item).unwrap()
}

fn recipe(capacity: &str) -> Value {
    let candidate = |zone: &str, subnet: &str| json!({"instance_type": "c7i.large", "subnet_id": subnet, "zone": zone});
    json!({
        "capacity": capacity, "launch_template_id": "lt-1", "launch_template_version": "1",
        "candidates": [candidate("us-east-1a", "subnet-1"), candidate("us-east-1b", "subnet-2")],
    })
}

/// The request for the node, stamped then, for alice's job.
fn request(stamped: u64, done: bool) -> spillway_core::record::RequestRecord {
    let chunk = json!({"node_group": "cpu", "nodes": "cloud-7", "tags": {}});
    let plan = json!({
        "chunks": [chunk], "recipes": {"cpu": [recipe("spot"), recipe("on-demand")]}, "refused": [],
    });
    let request = json!({
        "request": {
            "request_id": "r-1", "generation": stamp(stamped), "part": 1, "parts": 1, "deadline_ms": at(stamped + 540),
            "nodes": "cloud-7",
            "jobs": [{"job_id": "4711", "nodes_resume": "cloud-7", "user": "alice", "account": "physics"}],
        },
        "plan": plan, "lease_until_ms": 0, "done": done,
    });
    serde_json::from_value(request).unwrap()
}

/// A call for one instance: what came, or why nothing did.
fn attempt(capacity: &str, came: &[&str], why: Option<(&str, &str)>) -> Attempt {
    let shortages: Vec<Value> = why
        .iter()
        .map(|(code, message)| {
            json!({"fault": {
                "kind": {"unfulfillable": "pool"}, "service": "ec2", "operation": "CreateFleet", "code": code,
                "message": message,
            }})
        })
        .collect();
    let attempt = json!({
        "call": {"client_token": "t", "count": 1, "recipe": recipe(capacity), "tags": {}}, "round": 0,
        "answer": {"instances": came, "shortages": shortages},
    });
    serde_json::from_value(attempt).unwrap()
}

fn waiting(seconds: u64) -> Waiting {
    Waiting {
        request_id: RequestId::new("r-2").unwrap(),
        at_ms: at(seconds),
        resume: true,
        deadline_ms: Some(at(seconds + 540)),
    }
}
