//! The road of the updates queue: receives envelopes and sees each through. A crash between any two steps
//! repeats from the first, and what was done before is recognised: what slurmctld has by its own word or by
//! the memory, an envelope by its id.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::envelope::Envelope;
use spillway_core::message::{RefusalReason, UpdateOutcome, UpdateResult};
use tracing::{debug, warn};

use super::Agent;
use crate::aws::clock::MAX_CLOCK_SKEW;
use crate::aws::sqs::Received;
use crate::callback::{
    AcknowledgeError, Answer, Arrival, Fate, LedgerError, Outcome, ReceiveError, Refusal,
};
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::slurm::SlurmError;

/// The pause after a failed receive, and between two questions to a slurmctld that does not answer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long to wait for `spillway apply`: as long as it may run. What is not dealt with comes again.
const TURN_PATIENCE: Duration = Duration::from_secs(30);
/// How often the configuration is looked at while it leaves this road out.
const ROADS_INTERVAL: Duration = Duration::from_secs(5);

/// Works for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) -> Result<(), LedgerError> {
    let mut pause = PAUSE_MIN;
    loop {
        if !agent.receiver.settings().roads.has_queue() {
            tokio::time::sleep(ROADS_INTERVAL).await;
            continue;
        }
        match agent.receiver.sqs.receive().await {
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
    let copies: Vec<(Arrival, &str)> = received
        .iter()
        .map(|message| {
            let message_id = message.message_id.clone();
            (Arrival::Queue { message_id }, message.body.as_str())
        })
        .collect();
    let outcomes = agent.receiver.receive(&copies, TURN_PATIENCE).await;
    let mut done = Vec::new();
    let mut away = None;
    for (message, outcome) in received.iter().zip(outcomes) {
        let message_id = &message.message_id;
        let is_done = match outcome {
            Outcome::Answered(answer) => answered(agent, message_id, &answer).await,
            Outcome::Refused(refusal) => refused(agent, message_id, &refusal).await,
            Outcome::Failed(ReceiveError::Slurm(error)) => {
                away = Some(error);
                false
            }
            Outcome::Failed(error) => {
                warn!(message_id, "envelope is left on the queue: {error}");
                false
            }
        };
        if is_done {
            done.push(message.receipt.as_str());
        }
    }
    // All at once and last: what is to be thrown away keeps nothing waiting.
    if let Err(error) = agent.receiver.sqs.delete(&done).await {
        // They come again and are recognised.
        warn!("cannot delete {} messages: {error}", done.len());
    }
    away.map_or(Ok(()), Err)
}

/// True if the message is done with.
async fn answered(agent: &Agent, message_id: &str, answer: &Answer) -> bool {
    let envelope_id = &answer.envelope_id;
    if answer.replayed && agent.refused.count(RefusalReason::Replayed, message_id) {
        let reason = RefusalReason::Replayed;
        warn!(message_id, envelope_id, %reason, "envelope was dealt with when another message brought it");
    } else if answer.repeated {
        debug!(message_id, envelope_id, "envelope was dealt with before");
    }
    match agent.receiver.acknowledge(answer).await {
        Ok(()) => true,
        Err(AcknowledgeError::Sqs(error)) => {
            warn!(
                message_id,
                envelope_id, "envelope is left on the queue: {error}"
            );
            false
        }
        Err(AcknowledgeError::Ledger(error)) => {
            warn!(
                message_id,
                envelope_id, "envelope will be acknowledged again: {error}"
            );
            true
        }
    }
}

/// True if the message is done with.
async fn refused(agent: &Agent, message_id: &str, refusal: &Refusal) -> bool {
    if agent.refused.count(refusal.reason, message_id) {
        let Refusal { reason, words, .. } = refusal;
        let fate = match refusal.fate {
            Fate::Delete => "deleted",
            Fate::Leave => "left on the queue",
        };
        warn!(message_id, %reason, "message is {fate}: {words}");
    }
    match (&refusal.expired, refusal.fate) {
        (Some(envelope), _) => see_off(agent, message_id, envelope).await,
        (None, Fate::Delete) => true,
        (None, Fate::Leave) => false,
    }
}

/// An envelope that expired by our clock alone is answered: no later one would fare better, and it is the clock
/// that must be set. One that is too old by the clock of AWS as well came late; an answer would settle an
/// update that is still due, and comes in a newer envelope. True if the message is done with.
async fn see_off(agent: &Agent, message_id: &str, envelope: &Envelope) -> bool {
    let now_ms = now_ms();
    let aws_ms = agent.receiver.sqs.clock().now_ms();
    let Some(ahead_seconds) = ahead_seconds(envelope, now_ms, aws_ms) else {
        return true;
    };
    let reason = format!("expired: the head node's clock is {ahead_seconds} s ahead");
    let answer = Answer {
        envelope_id: envelope.envelope_id.clone(),
        results: all_stale(envelope, &reason),
        acknowledged: false,
        repeated: false,
        replayed: false,
    };
    match agent.receiver.acknowledge(&answer).await {
        Ok(()) => true,
        Err(error) => {
            warn!(message_id, "envelope is left on the queue: {error}");
            false
        }
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

async fn wait_for_slurmctld(agent: &Agent) {
    let mut pause = PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        if agent.receiver.slurm.cloud_nodes().await.is_ok() {
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
            note: None,
            action: UpdateAction::Fail {
                reason: "no capacity".to_owned(),
                cool_off: None,
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
