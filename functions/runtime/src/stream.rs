//! The loop over a batch of the table's changes: which nodes have an update to be told, or to be told again.

use std::collections::BTreeSet;

use aws_lambda_events::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use serde::Deserialize;
use spillway_control::fault::Fault;
use spillway_control::ports::Clock;
use spillway_control::tally::{RECORDS_FAILED, Tally};
use spillway_core::name::NodeName;
use tracing::{Instrument, error, info_span};

use crate::batch::{Invocation, caught};
use crate::clock::SystemClock;
use crate::metrics;

/// What of a node's item matters here.
#[derive(Debug, Deserialize)]
struct Image {
    node: Option<NodeName>,
    update_due: Option<Due>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Due {
    number: u64,
    #[serde(default)]
    attempt: u32,
}

/// Hands the nodes of a batch whose update is newly due to `work`, all together. Where that fails, the batch
/// is delivered again from the first such change on; the mapping bounds how often. A change that cannot be
/// read is logged and passed over: it would hold up the nodes behind it.
pub async fn handle(
    invocation: &Invocation<'_>,
    event: Event,
    work: impl AsyncFn(BTreeSet<NodeName>) -> Result<Tally, Fault>,
) -> DynamoDbEventResponse {
    let mut first = None;
    let mut nodes = BTreeSet::new();
    for record in event.records {
        let sequence_number = record.change.sequence_number.clone();
        match newly_due(record) {
            Ok(Some(node)) => {
                first = first.or(sequence_number);
                nodes.insert(node);
            }
            Ok(None) => {}
            Err(problem) => error!(
                sequence_number,
                problem, "a change of the table cannot be read; passed over"
            ),
        }
    }
    let mut response = DynamoDbEventResponse::default();
    if nodes.is_empty() {
        return response;
    }
    let span = info_span!("changes", invocation = invocation.request_id);
    let reason = match caught(work(nodes)).instrument(span).await {
        Ok(Ok(tally)) => {
            metrics::publish(invocation, &tally, SystemClock.now_ms());
            return response;
        }
        Ok(Err(fault)) => fault.to_string(),
        Err(panic) => panic,
    };
    error!(
        reason,
        sequence_number = first,
        "failed; the changes will be delivered again"
    );
    let mut tally = Tally::default();
    tally.add(RECORDS_FAILED, 1);
    metrics::publish(invocation, &tally, SystemClock.now_ms());
    let mut failure = DynamoDbBatchItemFailure::default();
    failure.item_identifier = first;
    response.batch_item_failures.push(failure);
    response
}

/// The node, if the change made an update due that was not due before, or due again.
fn newly_due(record: EventRecord) -> Result<Option<NodeName>, String> {
    if record.change.new_image.is_empty() {
        return Ok(None);
    }
    let new: Image =
        serde_dynamo::from_item(record.change.new_image).map_err(|error| error.to_string())?;
    let old: Option<Image> = if record.change.old_image.is_empty() {
        None
    } else {
        Some(serde_dynamo::from_item(record.change.old_image).map_err(|error| error.to_string())?)
    };
    let (Some(node), Some(due)) = (new.node, new.update_due) else {
        return Ok(None);
    };
    let before = old.and_then(|old| old.update_due);
    Ok((before != Some(due)).then_some(node))
}
