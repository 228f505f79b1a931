//! Receives envelopes and sees each through: apply, acknowledge, note, delete. A crash between any two of
//! these repeats from the first, and what was done before is recognised: what slurmctld has by its own
//! word or by the memory, an envelope by its id. A malformed message is never deleted here: the queue
//! moves it to its dead-letter queue, where a person finds it.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::envelope::Envelope;
use spillway_core::message::{Acknowledge, Message, ReportBody, UpdateOutcome, UpdateResult};
use tracing::{debug, warn};

use super::apply::{ApplyError, apply};
use super::ledger::LedgerError;
use super::{Agent, by_name};
use crate::aws::clock::MAX_CLOCK_SKEW;
use crate::aws::sqs::{Received, SqsError};
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::slurm::SlurmError;

/// The pause after a failed receive, and between two questions to a slurmctld that does not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Why a message stays on the queue.
#[derive(Debug, thiserror::Error)]
enum UpdatesError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Sqs(#[from] SqsError),
}

/// Works for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) -> Result<(), LedgerError> {
    let mut pause = PAUSE_MIN;
    loop {
        match agent.sqs.receive().await {
            Ok(received) => {
                agent.connection.works();
                if received.is_empty() {
                    pause = PAUSE_MIN;
                    continue;
                }
                crash::point(CrashPoint::Receive);
                if let Err(error) = handle(&agent, &received).await {
                    warn!("slurmctld cannot be told: {error}");
                    // Receiving on would only spend the messages' receive counts.
                    wait_for_slurmctld(&agent).await;
                }
                pause = PAUSE_MIN;
            }
            Err(error) => {
                agent.connection.lost();
                warn!(
                    pause_ms = pause.as_millis(),
                    "cannot receive updates: {error}"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

async fn handle(agent: &Agent, received: &[Received]) -> Result<(), SlurmError> {
    let mut rows = None;
    for message in received {
        let Some(envelope) = open(agent, message) else {
            continue;
        };
        if agent.ledger().memory().has_seen(&envelope.envelope_id) {
            debug!(
                envelope_id = envelope.envelope_id,
                "envelope was dealt with before"
            );
            delete(agent, message).await;
            continue;
        }
        if envelope.expires_ms <= now_ms() {
            see_off(agent, message, &envelope).await;
            continue;
        }
        // Once for all envelopes that came together, and after they came.
        let rows = match &rows {
            Some(rows) => rows,
            None => rows.insert(by_name(agent.slurm.cloud_nodes().await?)),
        };
        match see_through(agent, &envelope, rows).await {
            Ok(()) => delete(agent, message).await,
            Err(UpdatesError::Apply(ApplyError::Slurm(error))) => return Err(error),
            Err(error) => warn!(
                envelope_id = envelope.envelope_id,
                message_id = message.message_id,
                "envelope is left on the queue: {error}"
            ),
        }
    }
    Ok(())
}

fn open(agent: &Agent, message: &Received) -> Option<Envelope> {
    Message::<Envelope>::parse(&message.body, &agent.config.cluster)
        .inspect_err(|error| {
            let message_id = &message.message_id;
            warn!(
                message_id,
                "message is left for the dead-letter queue: {error}"
            );
        })
        .ok()
}

async fn see_through(
    agent: &Agent,
    envelope: &Envelope,
    rows: &std::collections::HashMap<spillway_core::name::NodeName, crate::slurm::NodeRow>,
) -> Result<(), UpdatesError> {
    let results = apply(agent, envelope, rows).await?;
    acknowledge(agent, envelope, results).await?;
    crash::point(CrashPoint::Acknowledge);
    let mut ledger = agent.ledger();
    ledger
        .memory()
        .seen(&envelope.envelope_id, envelope.expires_ms, now_ms());
    Ok(ledger.memory().save().map_err(LedgerError::from)?)
}

/// Deletes an envelope that has expired. One that did so by our clock alone is answered first: no later one
/// would fare better, and it is the clock that must be set. One that is too old by the clock of AWS as well
/// came late; an answer would settle an update that is still due, and comes in a newer envelope.
async fn see_off(agent: &Agent, message: &Received, envelope: &Envelope) {
    let now_ms = now_ms();
    let envelope_id = &envelope.envelope_id;
    let age_seconds = now_ms.saturating_sub(envelope.issued_ms) / 1000;
    let Some(ahead_seconds) = ahead_seconds(envelope, now_ms, agent.sqs.clock().now_ms()) else {
        warn!(
            envelope_id,
            age_seconds, "envelope has expired; what is due comes in a newer one"
        );
        return delete(agent, message).await;
    };
    let reason = format!("expired: the head node's clock is {ahead_seconds} s ahead");
    warn!(envelope_id, age_seconds, "envelope has {reason}");
    match acknowledge(agent, envelope, all_stale(envelope, &reason)).await {
        Ok(()) => delete(agent, message).await,
        Err(error) => warn!(envelope_id, "envelope is left on the queue: {error}"),
    }
}

/// By how much our clock is ahead of that of AWS, if an expired envelope has not expired by the latter; none
/// for a difference that measuring alone may make.
fn ahead_seconds(envelope: &Envelope, now_ms: u64, aws_ms: u64) -> Option<u64> {
    let ahead_seconds = now_ms.saturating_sub(aws_ms) / 1000;
    let is_ahead = ahead_seconds > MAX_CLOCK_SKEW.as_secs();
    (is_ahead && aws_ms < envelope.expires_ms).then_some(ahead_seconds)
}

fn all_stale(envelope: &Envelope, reason: &str) -> Vec<UpdateResult> {
    let updates = envelope.updates.iter();
    updates
        .map(|update| UpdateResult {
            nodes: update.nodes.clone(),
            generation: update.generation,
            number: update.number,
            outcome: UpdateOutcome::Stale {
                reason: reason.to_owned(),
            },
        })
        .collect()
}

async fn acknowledge(
    agent: &Agent,
    envelope: &Envelope,
    results: Vec<UpdateResult>,
) -> Result<(), SqsError> {
    let report = ReportBody::Acknowledge(Acknowledge {
        envelope_id: envelope.envelope_id.clone(),
        results,
    });
    agent.report(report).await
}

/// A message that is not deleted comes again and is recognised by its envelope.
async fn delete(agent: &Agent, message: &Received) {
    if let Err(error) = agent.sqs.delete(&message.receipt).await {
        warn!(
            message_id = message.message_id,
            "cannot delete a message: {error}"
        );
    }
}

async fn wait_for_slurmctld(agent: &Agent) {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        if agent.slurm.cloud_nodes().await.is_ok() {
            return;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use spillway_core::envelope::{Update, UpdateAction};
    use spillway_core::name::Generation;

    use super::*;

    #[test]
    fn an_expired_envelope_blames_the_clock_only_if_it_is_the_clock() {
        let update = |nodes: &str, number| Update {
            nodes: nodes.to_owned(),
            generation: Generation::new(7).unwrap(),
            number,
            request_id: None,
            action: UpdateAction::Fail {
                reason: "no capacity".to_owned(),
            },
        };
        let envelope = Envelope {
            envelope_id: "one".to_owned(),
            issued_ms: 0,
            expires_ms: 600_000,
            updates: vec![update("cloud[1-2]", 1), update("cloud3", 2)],
        };
        assert_eq!(ahead_seconds(&envelope, 700_000, 700_000), None);
        assert_eq!(ahead_seconds(&envelope, 700_000, 600_000), None);
        assert_eq!(ahead_seconds(&envelope, 600_200, 599_700), None);
        assert_eq!(ahead_seconds(&envelope, 700_000, 10_000), Some(690));
        let results = all_stale(&envelope, "expired");
        let told: Vec<_> = results
            .iter()
            .map(|r| (r.nodes.as_str(), r.number))
            .collect();
        assert_eq!(told, [("cloud[1-2]", 1), ("cloud3", 2)]);
        assert!(results.iter().all(|result| matches!(
            &result.outcome,
            UpdateOutcome::Stale { reason } if reason == "expired"
        )));
    }
}
