//! The loop over a batch of the table's changes for what is published of them.

use aws_lambda_events::dynamodb::{Event, EventRecord};
use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use serde_dynamo::{AttributeValue, Item};
use spillway_control::fault::Fault;
use spillway_control::ports::Clock;
use spillway_control::publish::Published;
use spillway_control::shared::Shared;
use spillway_control::tally::{RECORDS_FAILED, Tally};
use spillway_core::site_event::{Change, NodeChange, NodeImage, SweepChange};
use spillway_core::sweep::{LAST_REPORT, SweepReport};
use tracing::{Instrument, error, info_span};

use crate::batch::{Invocation, caught};
use crate::clock::SystemClock;
use crate::metrics;

/// Hands the changes of a batch that are news to `work`, all together. From the first one on that it could not
/// publish the batch is delivered again; the mapping bounds how often. A change that cannot be read is logged and passed
/// over: it would hold up those behind it.
pub async fn handle(
    invocation: &Invocation<'_>,
    event: Event,
    work: impl AsyncFn(Vec<Change>) -> Result<Published, Fault>,
) -> DynamoDbEventResponse {
    let (mut changes, mut places) = (Vec::new(), Vec::new());
    let mut unreadable = 0;
    for record in event.records {
        let place = record.change.sequence_number.clone();
        match read(record) {
            Ok(Some(change)) => {
                changes.push(change);
                places.push(place);
            }
            Ok(None) => {}
            Err(problem) => {
                unreadable += 1;
                error!(
                    sequence_number = place,
                    problem, "a change of the table cannot be read; passed over"
                );
            }
        }
    }
    let span = info_span!("changes", invocation = invocation.request_id);
    let (mut tally, failed) = match caught(work(changes)).instrument(span).await {
        Ok(Ok(Published { tally, failed })) => {
            let failed = failed.map(|(place, fault)| (place, fault.to_string()));
            (tally, failed)
        }
        Ok(Err(fault)) => (Tally::default(), Some((0, fault.to_string()))),
        Err(panic) => (Tally::default(), Some((0, panic))),
    };
    if unreadable > 0 {
        tally.add(RECORDS_FAILED, unreadable);
    }
    let mut response = DynamoDbEventResponse::default();
    if let Some((place, reason)) = failed {
        let first = places.get(place).cloned().flatten();
        error!(
            reason,
            sequence_number = first,
            "failed; the changes will be delivered again"
        );
        tally.add(RECORDS_FAILED, 1);
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = first;
        response.batch_item_failures.push(failure);
    }
    metrics::publish(invocation, &tally, SystemClock.now_ms());
    response
}

/// The change, unless the item was deleted or is a sweep's report that only its asker looks at.
fn read(record: EventRecord) -> Result<Option<Change>, String> {
    let (old, new) = (record.change.old_image, record.change.new_image);
    if new.is_empty() {
        return Ok(None);
    }
    if text(&new, "kind") == Some(<Option<SweepReport>>::KIND) {
        let is_last = text(&new, "pk").and_then(|key| key.rsplit('#').next()) == Some(LAST_REPORT);
        if !is_last {
            return Ok(None);
        }
        // What the sweep before found is only compared with.
        let before = report(&old).unwrap_or_default();
        let after = report(&new)?.filter(|report| !report.dry_run);
        return Ok(after.map(|after| Change::Sweep(SweepChange { before, after })));
    }
    let before = (!old.is_empty()).then(|| image(old)).transpose()?;
    let after = image(new)?;
    Ok(Some(Change::Node(NodeChange { before, after })))
}

fn report(item: &Item) -> Result<Option<SweepReport>, String> {
    let record = text(item, "record").ok_or("it has no record")?;
    serde_json::from_str(record).map_err(|error| error.to_string())
}

fn text<'a>(item: &'a Item, attribute: &str) -> Option<&'a str> {
    match item.get(attribute)? {
        AttributeValue::S(text) => Some(text),
        _ => None,
    }
}

fn image(item: Item) -> Result<NodeImage, String> {
    serde_dynamo::from_item(item).map_err(|error| error.to_string())
}
