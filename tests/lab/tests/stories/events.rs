//! The site subscribes to the stack's own bus, and sees what happens to a node: each step once.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use spillway_lab::lab::Lab;
use spillway_lab::site::{NODE_GROUP, PARTITION};

use crate::support::bus::{received, subscribe};
use crate::support::{
    Story, alive, arm, denied, fired, job_is, metric, pause, powered_down, submit,
};

const JOB_SECONDS: u64 = 120;
const NODE: &str = "cloud-0";

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_site_s_sees_each_step_of_a_node_once() {
    let lab = Story::begin("events_of_a_node", |_| {}).await;
    let of_the_node = json!({"source": ["spillway"], "detail": {"node": [NODE]}});
    let queue = subscribe(&lab, &of_the_node).await;
    let mut events = Vec::new();

    let job = submit(&lab, NODE, 0).await;
    job_is(&lab, &job, "COMPLETED", JOB_SECONDS).await;
    let instance = alive(&lab).remove(0);
    powered_down(&lab, NODE).await;
    until_seen(&lab, &queue, &mut events, "suspended").await;
    let steps: Vec<[Value; 4]> = events.iter().map(step).collect();
    let change = "Spillway Node State Change";
    let expected = [
        ["resumed", "free", "requested"],
        ["launched", "requested", "launched"],
        ["told", "launched", "launched"],
        ["joined", "launched", "ready"],
        ["suspended", "ready", "free"],
    ];
    let mut expected = expected.map(|[what, from, to]| [change, what, from, to].map(Value::from));
    // The very first record of a node has none before it.
    expected[0][2] = Value::Null;
    assert_eq!(steps, expected);
    for event in &events {
        let detail = &event["detail"];
        assert_eq!(event["source"], "spillway");
        assert_eq!(detail["cluster"], lab.spec.cluster.as_str());
        assert_eq!(detail["node_group"], NODE_GROUP);
        assert_eq!(detail["partitions"], json!([PARTITION]));
        let of_instance = detail["what"] != "resumed";
        let expected = of_instance.then(|| instance.clone());
        assert_eq!(detail["instance_id"], json!(expected), "{event:#}");
    }

    let refused = arm(
        &lab,
        "ec2",
        Some("CreateFleet"),
        "lab-launch",
        Some(1),
        denied(),
    );
    submit(&lab, NODE, 0).await;
    fired(&lab, &refused, 1).await;
    until_seen(&lab, &queue, &mut events, "not-launched").await;
    let failure = events
        .iter()
        .find(|event| event["detail"]["what"] == "not-launched");
    let failure = failure.expect("it was seen");
    assert_eq!(failure["detail-type"], "Spillway Node Failure");
    let reason = failure["detail"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("UnauthorizedOperation"), "{failure:#}");

    // Whatever else comes of it: no step twice.
    pause(5).await;
    events.extend(received(&lab, &queue).await);
    let ids = events.iter().map(|event| event["detail"]["id"].as_str());
    let ids: BTreeSet<&str> = ids.map(|id| id.expect("an id")).collect();
    assert_eq!(ids.len(), events.len(), "{events:#?}");
    assert!(metric(&lab, "publish", "EventsPublished").await >= events.len());
    let all = ["--partition=cloud"];
    lab.head.run("scancel", &all).await.expect("scancel");
    lab.end().await;
}

/// Detail type, what, from and to.
fn step(event: &Value) -> [Value; 4] {
    let detail = &event["detail"];
    [
        &event["detail-type"],
        &detail["what"],
        &detail["from"],
        &detail["to"],
    ]
    .map(Value::clone)
}

/// Adds what has come to `events`, in the order in which it happened, until this step is among it.
async fn until_seen(lab: &Lab, queue: &str, events: &mut Vec<Value>, what: &str) {
    for _ in 0..300 {
        events.extend(received(lab, queue).await);
        events.sort_by_key(|event| event["detail"]["at_ms"].as_u64());
        if events.iter().any(|event| event["detail"]["what"] == what) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("nothing was said of {what}: {events:#?}");
}
