//! What comes back: acknowledgements, signs of life, nodes that joined or cannot, and the timers that look
//! whether something is late.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::envelope::reason;
use spillway_core::message::{
    Acknowledge, Heartbeat, JoinDeadline, NodeFailed, NodeReady, NodeStates, RefusalReason,
    ReportBody, RequeueJobs, Resend, UpdateOutcome,
};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::notice::Warning;
use spillway_core::pairing::{Event, Pairing, Verdict};
use tracing::{info, warn};

use crate::command;
use crate::fault::Fault;
use crate::health;
use crate::names::{MAX_NAMES, NamesError, distinct};
use crate::notice::{set_timer, warned};
use crate::pairings::{Applied, apply, ask_termination, released};
use crate::ports::{Clock, CommandOutcomes, Control, MAX_DELAY_SECONDS, Queues, Table};
use crate::record::{HeartbeatRecord, NodeStatesRecord};
use crate::sender::{Sender, SenderError};
use crate::tally::{self, Tally};

/// How often an update is told again: for an hour. By then its node's deadline has
/// long passed, and an agent that comes back says hello.
const MAX_RESENDS: u32 = 120;

/// A join timer that comes later than this has waited in a long queue, and so may the ready report of its node:
/// it goes once more to the end, behind every report that was sent before. SQS delivers a delayed message within
/// a second or two of its time.
const LATE_TIMER_MS: u64 = 5_000;

/// Why a report was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The message is wrong and stays wrong.
    #[error("report names no valid nodes")]
    Names(#[from] NamesError),
    /// It is not its sender's to say.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// A call failed; the message is to be delivered again.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Takes in one message of the reports queue. `sent_ms` is when SQS took it, `sender` whom SQS says it is from.
pub async fn report<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    outcomes: &impl CommandOutcomes,
    body: ReportBody,
    sent_ms: u64,
    sender: &Sender,
) -> Result<Tally, ReportError> {
    sender.may_say(&body)?;
    match body {
        ReportBody::Acknowledge(acknowledge) => acknowledged(control, acknowledge).await,
        ReportBody::Heartbeat(heartbeat) => heard(control, heartbeat, sent_ms).await,
        ReportBody::NodeStates(states) => observed(control, states).await,
        ReportBody::Ready(ready) => joined(control, ready).await,
        ReportBody::Failed(failed) => cannot_join(control, failed).await,
        ReportBody::Notice(told) => Ok(warned(control, [Warning::of_node(&told)].into()).await?),
        ReportBody::Requeue(timer) => requeue(control, timer).await,
        ReportBody::Resend(resend) => resend_due(control, resend).await,
        ReportBody::Command(sent) => Ok(command::look(outcomes, &sent).await?),
        ReportBody::JoinDeadline(deadline) => deadline_passed(control, deadline).await,
    }
}

async fn acknowledged<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    acknowledge: Acknowledge,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let mut names = 0;
    for result in acknowledge.results {
        let (generation, number) = (result.generation, result.number);
        let event = match &result.outcome {
            UpdateOutcome::Applied => Event::Acknowledged { generation, number },
            UpdateOutcome::Stale { reason } => {
                info!(nodes = result.nodes, %generation, reason, "the agent found an update overtaken");
                tally.add(tally::UPDATES_STALE, 1);
                Event::Dismissed { generation, number }
            }
            UpdateOutcome::Refused { reason } => {
                warn!(nodes = result.nodes, %generation, reason, "slurmctld refused an update");
                tally.add(tally::UPDATES_REFUSED, 1);
                Event::Dismissed { generation, number }
            }
        };
        let nodes = distinct(&result.nodes)?;
        names += nodes.len();
        if names > MAX_NAMES {
            return Err(NamesError::TooMany { names }.into());
        }
        let applied = apply(
            control,
            nodes
                .into_iter()
                .map(|node| (node, event.clone()))
                .collect(),
        )
        .await?;
        tally.add(tally::UPDATES_ACKNOWLEDGED, accepted(&applied).len());
    }
    info!(
        envelope_id = acknowledge.envelope_id,
        "envelope acknowledged"
    );
    Ok(tally)
}

async fn heard<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    heartbeat: Heartbeat,
    sent_ms: u64,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let record = HeartbeatRecord {
        received_ms: sent_ms,
        sent_ms: heartbeat.sent_ms,
        slurm_version: heartbeat.slurm_version,
        spooled: heartbeat.spooled,
        oldest_spooled_ms: heartbeat.oldest_spooled_ms,
    };
    control.table.put_heartbeat(&record).await?;
    // Ages stay far below 2^52 milliseconds.
    #[expect(clippy::cast_precision_loss)]
    tally.set(
        tally::HEARTBEAT_AGE_SECONDS,
        control.clock.now_ms().saturating_sub(sent_ms) as f64 / 1000.0,
    );
    tally.merge(&trouble(
        heartbeat.clock_skew_ms,
        &heartbeat.refused_envelopes,
    ));
    if heartbeat.hello {
        let due: BTreeSet<NodeName> = control
            .table
            .nodes_with_update_due()
            .await?
            .into_iter()
            .collect();
        info!(
            nodes = due.len(),
            "the agent says hello; it is told what is due now"
        );
        ask_again(control, due, None).await?;
    }
    Ok(tally)
}

/// What a heartbeat says of the head node's clock and of envelopes that it refused.
fn trouble(clock_skew_ms: Option<i64>, refused: &BTreeMap<RefusalReason, u64>) -> Tally {
    let mut tally = Tally::default();
    if let Some(skew_ms) = clock_skew_ms {
        // A clock is off by far less than 2^52 milliseconds.
        #[expect(clippy::cast_precision_loss)]
        tally.set(
            tally::CLOCK_SKEW_SECONDS,
            skew_ms.unsigned_abs() as f64 / 1000.0,
        );
    }
    for (reason, count) in refused {
        warn!(%reason, count, "the head node refused envelopes");
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        tally.add(tally::ENVELOPES_REFUSED, count);
    }
    tally
}

async fn observed<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    states: NodeStates,
) -> Result<Tally, ReportError> {
    let record = NodeStatesRecord {
        observed_ms: states.observed_ms,
        states: states.states,
    };
    control.table.put_node_states(&record).await?;
    Ok(Tally::default())
}

async fn joined<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ready: NodeReady,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let event = Event::Ready {
        instance: ready.instance_id.clone(),
        generation: ready.generation,
    };
    let applied = apply(control, vec![(ready.node.clone(), event)]).await?;
    let (node, instance_id, generation) = (&ready.node, &ready.instance_id, ready.generation);
    match accepted(&applied).as_slice() {
        [] => info!(%node, %instance_id, %generation, "ready report changes nothing"),
        ready => {
            tally.add(tally::NODES_READY, ready.len());
            info!(%node, %instance_id, %generation, "{node} has joined");
            health::joined(control, instance_id).await?;
        }
    }
    see_through(control, &applied, Some(ready.instance_id)).await?;
    Ok(tally)
}

async fn cannot_join<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    failed: NodeFailed,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let instance = failed.instance_id;
    // The instance's own item tells the node; what the report says of it is not needed.
    let record = control
        .table
        .instances(std::slice::from_ref(&instance))
        .await?
        .pop();
    let Some(node) = record.and_then(|record| record.node) else {
        warn!(instance_id = %instance, reason = failed.reason, "an instance that serves no node reports failure");
        return Ok(tally);
    };
    let reason = reason(&failed.reason);
    warn!(%node, instance_id = %instance, reason, "{node} cannot join");
    let event = Event::Failed {
        instance: instance.clone(),
        reason,
    };
    let applied = apply(control, vec![(node, event)]).await?;
    tally.add(tally::NODES_FAILED, accepted(&applied).len());
    health::did_not_join(control, &applied, &mut tally).await?;
    see_through(control, &applied, Some(instance)).await?;
    Ok(tally)
}

/// The timer of a notice: what still runs on the instance is queued again before EC2 takes it.
async fn requeue<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    timer: RequeueJobs,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    if timer.at_ms > control.clock.now_ms() {
        let nodes = std::slice::from_ref(&timer.node);
        let stored = control.table.pairings(nodes).await?;
        let is_due = |pairing: &Pairing| {
            let leaves = pairing.leaving().is_some_and(|leaving| !leaving.requeued);
            leaves && pairing.instance() == Some(&timer.instance_id)
        };
        if stored.iter().any(|stored| is_due(&stored.record)) {
            set_timer(control, timer).await?;
        }
        return Ok(tally);
    }
    let event = Event::Requeue {
        instance: timer.instance_id,
    };
    let applied = apply(control, vec![(timer.node, event)]).await?;
    tally.add(tally::NODES_REQUEUED, accepted(&applied).len());
    Ok(tally)
}

async fn resend_due<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    resend: Resend,
) -> Result<Tally, ReportError> {
    let names: Vec<NodeName> = distinct(&resend.nodes)?.into_iter().collect();
    let stored = control.table.pairings(&names).await?;
    let unanswered = stored.into_iter().map(|s| s.record).filter(|pairing| {
        let due = pairing.update_due.as_ref();
        due.is_some_and(|due| due.attempt == resend.attempt)
    });
    let unanswered: Vec<NodeName> = unanswered.map(|pairing| pairing.node).collect();
    let mut tally = Tally::default();
    if unanswered.is_empty() {
        return Ok(tally);
    }
    tally.add(tally::UPDATES_UNACKNOWLEDGED, unanswered.len());
    if resend.attempt >= MAX_RESENDS {
        warn!(
            nodes = unanswered.len(),
            attempts = resend.attempt,
            "updates were never acknowledged; given up"
        );
        return Ok(tally);
    }
    ask_again(control, unanswered, Some(resend.attempt)).await?;
    Ok(tally)
}

/// Has `callback` tell Slurm again what is due for `nodes`: the change of the attempt wakes it.
async fn ask_again<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    nodes: impl IntoIterator<Item = NodeName>,
    attempt: Option<u32>,
) -> Result<(), Fault> {
    let event = Event::Unanswered { attempt };
    let events = nodes.into_iter().map(|node| (node, event.clone()));
    apply(control, events.collect()).await.map(drop)
}

async fn deadline_passed<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    timer: JoinDeadline,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let now_ms = control.clock.now_ms();
    let left_ms = timer.deadline_ms.saturating_sub(now_ms);
    if now_ms > timer.deadline_ms.saturating_add(LATE_TIMER_MS) && !timer.put_back {
        warn!(generation = %timer.generation, nodes = timer.nodes, "the join timer is late; reports that wait go first");
        let timer = JoinDeadline {
            put_back: true,
            ..timer
        };
        control
            .queues
            .send_report(ReportBody::JoinDeadline(timer), 0)
            .await?;
        return Ok(tally);
    }
    if left_ms > 0 {
        let delay_seconds = left_ms.div_ceil(1000).min(MAX_DELAY_SECONDS);
        control
            .queues
            .send_report(ReportBody::JoinDeadline(timer), delay_seconds)
            .await?;
        return Ok(tally);
    }
    let event = Event::Deadline {
        generation: timer.generation,
    };
    let nodes = distinct(&timer.nodes)?;
    let applied = apply(
        control,
        nodes
            .into_iter()
            .map(|node| (node, event.clone()))
            .collect(),
    )
    .await?;
    let late = accepted(&applied);
    if !late.is_empty() {
        warn!(generation = %timer.generation, nodes = ?late, "{} nodes did not join in time", late.len());
    }
    tally.add(tally::NODES_FAILED, late.len());
    health::did_not_join(control, &applied, &mut tally).await?;
    see_through(control, &applied, None).await?;
    Ok(tally)
}

pub(crate) fn accepted(applied: &[Applied]) -> Vec<&NodeName> {
    applied
        .iter()
        .filter(|a| a.transition.verdict == Verdict::Accepted)
        .map(|a| &a.node)
        .collect()
}

/// Has what was let go terminated; the sender too, should it be an instance that nothing needs any more.
pub(crate) async fn see_through<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    applied: &[Applied],
    sender: Option<InstanceId>,
) -> Result<(), Fault> {
    let mut ids = released(applied);
    ids.extend(sender);
    ask_termination(control, ids).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_whatever_their_reason_and_the_skew_either_way() {
        let refused = [(RefusalReason::Forged, 2), (RefusalReason::Replayed, 1)];
        let told = trouble(Some(-1_500), &refused.into_iter().collect());
        let told: Vec<_> = told.iter().collect();
        assert_eq!(
            told,
            [
                (tally::CLOCK_SKEW_SECONDS, 1.5),
                (tally::ENVELOPES_REFUSED, 3.0)
            ]
        );
        assert_eq!(trouble(None, &BTreeMap::new()), Tally::default());
    }
}
