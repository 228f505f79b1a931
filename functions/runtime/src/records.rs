//! The loop over a batch of messages: each is read alone, carried out alone, and fails alone.

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use futures::stream::{self, StreamExt};
use serde::de::DeserializeOwned;
use spillway_control::fault::Fault;
use spillway_control::launch::LaunchError;
use spillway_control::ports::Clock;
use spillway_control::report::ReportError;
use spillway_control::tally::{RECORDS_FAILED, RECORDS_QUARANTINED, Tally};
use spillway_control::terminate::TerminateError;
use spillway_core::message::Message;
use spillway_core::name::ClusterName;
use tracing::{Instrument, error, info_span, warn};

use crate::batch::{Invocation, caught};
use crate::clock::SystemClock;
use crate::metrics;

/// How many records of a batch are carried out at a time: their calls overlap, and one slow record does not
/// use up the others' time.
const RECORDS_AT_ONCE: usize = 5;

/// How much of a reason is kept: what a message got wrong may be repeated in it, and that can be all of it.
const MAX_REASON_CHARS: usize = 500;

/// Why a record was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// It stays wrong however often it is delivered: it is set aside with this reason.
    Lasting(String),
    /// It may succeed later: it is delivered again.
    Passing(String),
}

/// What became of a record.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Done(Tally),
    Quarantined,
    /// To be delivered again.
    Failed,
}

/// What SQS says of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// When it took the message, Unix milliseconds, by AWS's clock.
    pub at_ms: u64,
    /// The unique id of the credentials that sent it: `AIDA…` of a user, `AROA…:session` of a session of a role.
    pub sender_id: String,
}

/// Carries out each message of a batch. `work` is given a body and what SQS says of it; `quarantine` a raw
/// body and the reason it is set aside. Answers which messages are to be delivered again; never fails.
pub async fn handle<T: DeserializeOwned>(
    invocation: &Invocation<'_>,
    event: SqsEvent,
    quarantine: impl AsyncFn(&str, &str) -> Result<(), Fault>,
    work: impl AsyncFn(T, Sent) -> Result<Tally, Failure>,
) -> SqsBatchResponse {
    let (quarantine, work) = (&quarantine, &work);
    let outcomes: Vec<(String, Outcome)> = stream::iter(event.records)
        .map(async |record| {
            let id = record.message_id.clone().unwrap_or_default();
            let span = info_span!(
                "message",
                invocation = invocation.request_id,
                message_id = id
            );
            let outcome = carry_out(invocation, &record, quarantine, work)
                .instrument(span)
                .await;
            (id, outcome)
        })
        .buffer_unordered(RECORDS_AT_ONCE)
        .collect()
        .await;
    let (tally, response) = settle(outcomes);
    metrics::publish(invocation, &tally, SystemClock.now_ms());
    response
}

/// What was done in all, and which messages are to be delivered again.
pub(crate) fn settle(outcomes: Vec<(String, Outcome)>) -> (Tally, SqsBatchResponse) {
    let mut tally = Tally::default();
    let mut response = SqsBatchResponse::default();
    for (id, outcome) in outcomes {
        match outcome {
            Outcome::Done(done) => tally.merge(&done),
            Outcome::Quarantined => tally.add(RECORDS_QUARANTINED, 1),
            Outcome::Failed => {
                tally.add(RECORDS_FAILED, 1);
                response.add_failure(id);
            }
        }
    }
    (tally, response)
}

async fn carry_out<T: DeserializeOwned>(
    invocation: &Invocation<'_>,
    record: &SqsMessage,
    quarantine: &impl AsyncFn(&str, &str) -> Result<(), Fault>,
    work: &impl AsyncFn(T, Sent) -> Result<Tally, Failure>,
) -> Outcome {
    if !invocation.has_time() {
        warn!("left for another invocation: this one's time is running out");
        return Outcome::Failed;
    }
    let reason = match read(record, invocation.cluster) {
        Err(reason) => reason,
        Ok((body, sent)) => match caught(work(body, sent)).await {
            Ok(Ok(tally)) => return Outcome::Done(tally),
            Ok(Err(Failure::Lasting(reason))) => reason,
            Ok(Err(Failure::Passing(reason))) => {
                error!(reason, "failed; the message will be delivered again");
                return Outcome::Failed;
            }
            Err(panic) => {
                error!(panic, "panicked; the message will be delivered again");
                return Outcome::Failed;
            }
        },
    };
    set_aside(quarantine, record, &reason).await
}

/// Puts a message that stays wrong into the dead-letter queue.
pub(crate) async fn set_aside(
    quarantine: &impl AsyncFn(&str, &str) -> Result<(), Fault>,
    record: &SqsMessage,
    reason: &str,
) -> Outcome {
    match quarantine(record.body.as_deref().unwrap_or_default(), reason).await {
        Ok(()) => {
            error!(reason, "message set aside in the dead-letter queue");
            Outcome::Quarantined
        }
        Err(fault) => {
            error!(reason, %fault, "message could not be set aside; it will be delivered again");
            Outcome::Failed
        }
    }
}

/// The body, and what SQS says of it.
fn read<T: DeserializeOwned>(record: &SqsMessage, own: &ClusterName) -> Result<(T, Sent), String> {
    let attribute = |name| record.attributes.get(name);
    let at_ms = attribute("SentTimestamp").and_then(|text| text.parse().ok());
    let sent = Sent {
        at_ms: at_ms.ok_or("the record has no SentTimestamp")?,
        sender_id: attribute("SenderId")
            .ok_or("the record has no SenderId")?
            .clone(),
    };
    let text = record.body.as_deref().ok_or("the record has no body")?;
    let body = Message::parse(text, own).map_err(|error| chain(&error))?;
    Ok((body, sent))
}

/// An error with its causes, of bounded length.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text.chars().take(MAX_REASON_CHARS).collect()
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Passing(chain(&fault))
    }
}

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        match &error {
            LaunchError::Names(_) | LaunchError::FromTheFuture(_) => Self::Lasting(chain(&error)),
            LaunchError::Fault(_) => Self::Passing(chain(&error)),
        }
    }
}

impl From<TerminateError> for Failure {
    fn from(error: TerminateError) -> Self {
        match &error {
            TerminateError::Names(_) | TerminateError::FromTheFuture(_) => {
                Self::Lasting(chain(&error))
            }
            TerminateError::Fault(_) => Self::Passing(chain(&error)),
        }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match &error {
            ReportError::Names(_) | ReportError::Sender(_) => Self::Lasting(chain(&error)),
            ReportError::Fault(_) => Self::Passing(chain(&error)),
        }
    }
}
