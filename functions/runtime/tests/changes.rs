//! Batches of the table's changes as Lambda gets them (`events/callback`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aws_lambda_events::dynamodb::Event;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::tally::Tally;
use spillway_core::name::{ClusterName, NodeName};
use spillway_runtime::{Invocation, handle_changes};

fn event(path: &str) -> Event {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../events/callback")
        .join(path);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The nodes that were handed on, and the sequence numbers from which changes are delivered again.
async fn run(
    path: &str,
    result: impl Fn() -> Result<Tally, Fault>,
) -> (Vec<String>, Vec<Option<String>>) {
    let cluster = ClusterName::new("lab").unwrap();
    let invocation = Invocation {
        function: "callback",
        cluster: &cluster,
        request_id: "r-1",
        ends_ms: u64::MAX,
    };
    let nodes = RefCell::new(Vec::new());
    let work = async |due: BTreeSet<NodeName>| {
        nodes
            .borrow_mut()
            .extend(due.iter().map(ToString::to_string));
        result()
    };
    let response = handle_changes(&invocation, event(path), work).await;
    let again = response
        .batch_item_failures
        .into_iter()
        .map(|failure| failure.item_identifier);
    (nodes.into_inner(), again.collect())
}

fn throttled() -> Result<Tally, Fault> {
    Err(Fault {
        kind: FaultKind::Throttled,
        service: "sqs".into(),
        operation: "SendMessage".into(),
        code: "RequestThrottled".into(),
        message: String::new(),
    })
}

#[tokio::test]
async fn nodes_whose_update_fell_due_are_handed_on_together() {
    let (nodes, again) = run("launched.json", || Ok(Tally::default())).await;
    assert_eq!(nodes, ["burst-1", "burst-2"]);
    assert!(again.is_empty());
}

#[tokio::test]
async fn an_update_settled_or_unchanged_wakes_nobody() {
    let (nodes, again) = run("acknowledged.json", throttled).await;
    assert!(nodes.is_empty() && again.is_empty());
}

/// `report` raised the attempt: the update is to be told again.
#[tokio::test]
async fn an_update_that_went_unanswered_is_handed_on_again() {
    let (nodes, again) = run("unanswered.json", || Ok(Tally::default())).await;
    assert_eq!(nodes, ["burst-1"]);
    assert!(again.is_empty());
}

#[tokio::test]
async fn a_failure_has_the_changes_from_the_first_due_one_on_delivered_again() {
    for result in [throttled, || panic!("a bug")] {
        let (_, again) = run("launched.json", result).await;
        assert_eq!(again, [Some("4421584500000000017450439002".to_owned())]);
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_read_does_not_hold_up_the_next() {
    let (nodes, again) = run("one-broken-of-two.json", || Ok(Tally::default())).await;
    assert_eq!(nodes, ["gpu-1"]);
    assert!(again.is_empty());
}
