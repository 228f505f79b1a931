//! The loop over a batch of messages that are carried out together, for what they share is read once.

use std::error::Error;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use spillway_control::fault::Fault;
use spillway_control::ports::Clock;
use spillway_control::tally::Tally;
use tracing::{Instrument, error, info_span};

use crate::batch::{Invocation, caught};
use crate::clock::SystemClock;
use crate::metrics;
use crate::records::{Outcome, chain, set_aside, settle};

/// Carries out a batch. `read` takes a body, `work` all that could be read; what could not is set aside. Where `work`
/// fails, each message is carried out alone, so that one that cannot be fails alone. Answers which messages are to be
/// delivered again; never fails.
pub async fn handle<T: Clone, E: Error>(
    invocation: &Invocation<'_>,
    event: SqsEvent,
    quarantine: impl AsyncFn(&str, &str) -> Result<(), Fault>,
    read: impl Fn(&str) -> Result<T, E>,
    work: impl AsyncFn(Vec<T>) -> Result<Tally, Fault>,
) -> SqsBatchResponse {
    let span = info_span!("batch", invocation = invocation.request_id);
    let outcomes = async {
        let mut outcomes = Vec::new();
        let mut open = Vec::new();
        for record in event.records {
            match read(record.body.as_deref().unwrap_or_default()) {
                Ok(body) => open.push((id(&record), body)),
                Err(error) => {
                    let outcome = set_aside(&quarantine, &record, &chain(&error)).await;
                    outcomes.push((id(&record), outcome));
                }
            }
        }
        outcomes.extend(carry_out(invocation, open, &work).await);
        outcomes
    };
    let outcomes = outcomes.instrument(span).await;
    let (tally, response) = settle(outcomes);
    metrics::publish(invocation, &tally, SystemClock.now_ms());
    response
}

async fn carry_out<T: Clone>(
    invocation: &Invocation<'_>,
    open: Vec<(String, T)>,
    work: &impl AsyncFn(Vec<T>) -> Result<Tally, Fault>,
) -> Vec<(String, Outcome)> {
    if open.is_empty() {
        return Vec::new();
    }
    let whole = open.iter().map(|(_, body)| body.clone()).collect();
    if let Some(tally) = succeeds(work, whole).await {
        let mut tally = Some(tally);
        let done = |(id, _)| (id, Outcome::Done(tally.take().unwrap_or_default()));
        return open.into_iter().map(done).collect();
    }
    let is_alone = open.len() == 1;
    let mut outcomes = Vec::with_capacity(open.len());
    for (id, body) in open {
        let outcome = if is_alone || !invocation.has_time() {
            None
        } else {
            succeeds(work, vec![body]).await
        };
        outcomes.push((id, outcome.map_or(Outcome::Failed, Outcome::Done)));
    }
    outcomes
}

/// None if it failed, or panicked.
async fn succeeds<T>(
    work: &impl AsyncFn(Vec<T>) -> Result<Tally, Fault>,
    batch: Vec<T>,
) -> Option<Tally> {
    let messages = batch.len();
    let reason = match caught(work(batch)).await {
        Ok(Ok(tally)) => return Some(tally),
        Ok(Err(fault)) => fault.to_string(),
        Err(panic) => panic,
    };
    error!(reason, messages, "failed");
    None
}

fn id(record: &SqsMessage) -> String {
    record.message_id.clone().unwrap_or_default()
}
