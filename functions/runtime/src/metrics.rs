//! One metric event an invocation, in CloudWatch's embedded metric format: a line on standard output that
//! CloudWatch Logs turns into metrics, with no call to make (CloudWatch user guide, "Embedded metric format
//! specification").

use serde_json::{Map, Value, json};
use spillway_control::tally::{OF_THE_CLUSTER, Tally};

use crate::batch::Invocation;

const NAMESPACE: &str = "Spillway";

/// Writes the metric event, if there is anything in it.
#[expect(
    clippy::print_stdout,
    reason = "standard output is the road to CloudWatch Logs"
)]
pub(crate) fn publish(invocation: &Invocation<'_>, tally: &Tally, now_ms: u64) {
    if let Some(event) = event(invocation, tally, now_ms) {
        println!("{event}");
    }
}

fn event(invocation: &Invocation<'_>, tally: &Tally, now_ms: u64) -> Option<Value> {
    let mut directives = Vec::new();
    let own = definitions(tally, |name| !OF_THE_CLUSTER.contains(&name));
    if !own.is_empty() {
        directives.push(json!({"Namespace": NAMESPACE, "Dimensions": [["Cluster", "Function"]], "Metrics": own}));
    }
    let shared = definitions(tally, |name| OF_THE_CLUSTER.contains(&name));
    if !shared.is_empty() {
        directives
            .push(json!({"Namespace": NAMESPACE, "Dimensions": [["Cluster"]], "Metrics": shared}));
    }
    if directives.is_empty() {
        return None;
    }
    let mut event = Map::new();
    event.insert(
        "_aws".to_owned(),
        json!({"Timestamp": now_ms, "CloudWatchMetrics": directives}),
    );
    event.insert("Cluster".to_owned(), invocation.cluster.as_str().into());
    event.insert("Function".to_owned(), invocation.function.into());
    event.insert("RequestId".to_owned(), invocation.request_id.into());
    event.extend(
        tally
            .iter()
            .map(|(name, value)| (name.to_owned(), value.into())),
    );
    Some(Value::Object(event))
}

fn definitions(tally: &Tally, which: impl Fn(&str) -> bool) -> Vec<Value> {
    tally
        .iter()
        .filter(|(name, _)| which(name))
        .map(|(name, _)| json!({"Name": name, "Unit": unit(name)}))
        .collect()
}

/// A metric that counts seconds says so in its name.
fn unit(name: &str) -> &'static str {
    if name.ends_with("Seconds") {
        "Seconds"
    } else {
        "Count"
    }
}

#[cfg(test)]
mod tests {
    use spillway_control::tally::{ENVELOPES_REFUSED, HEARTBEAT_AGE_SECONDS, NODES_READY};
    use spillway_core::name::ClusterName;

    use super::*;

    #[test]
    fn cluster_metrics_bear_the_cluster_alone() {
        let cluster = ClusterName::new("lab").unwrap();
        let invocation = Invocation {
            function: "report",
            cluster: &cluster,
            request_id: "r-1",
            ends_ms: 0,
        };
        let mut tally = Tally::default();
        assert_eq!(event(&invocation, &tally, 5), None);
        tally.add(NODES_READY, 2);
        tally.set(HEARTBEAT_AGE_SECONDS, 1.5);
        tally.add(ENVELOPES_REFUSED, 3);
        let expected = json!({
            "_aws": {"Timestamp": 5, "CloudWatchMetrics": [
                {"Namespace": "Spillway", "Dimensions": [["Cluster", "Function"]],
                 "Metrics": [{"Name": "NodesReady", "Unit": "Count"}]},
                {"Namespace": "Spillway", "Dimensions": [["Cluster"]],
                 "Metrics": [{"Name": "EnvelopesRefused", "Unit": "Count"},
                             {"Name": "HeartbeatAgeSeconds", "Unit": "Seconds"}]},
            ]},
            "Cluster": "lab", "Function": "report", "RequestId": "r-1",
            "EnvelopesRefused": 3.0, "HeartbeatAgeSeconds": 1.5, "NodesReady": 2.0,
        });
        assert_eq!(event(&invocation, &tally, 5), Some(expected));
    }
}
