//! The one sender: requests go out in the order of their stamps, queue by queue. While a queue cannot be
//! reached its requests wait; a resume that has waited until its deadline becomes a suspend of its nodes,
//! which are then failed in Slurm.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::hostlist::Hostlist;
use spillway_core::message::SuspendCause;
use spillway_core::name::NodeName;
use tracing::{debug, info, warn};

use super::Agent;
use super::ledger::LedgerError;
use crate::aws::sqs::SqsError;
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::hook;
use crate::nodes;
use crate::spool::{Header, Target};

/// How often the spool is looked at without a wake: a wake may be lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The first pause after a failed attempt.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause. It is short because it is what a job waits when the network is back, and one
/// connection attempt every five seconds burdens nobody.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Sends for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) -> Result<(), LedgerError> {
    let mut backoff = BACKOFF_MIN;
    loop {
        let looked = agent.ledger().look();
        let trouble = match looked {
            Ok(()) => pass(&agent).await,
            Err(error) => Err(error),
        };
        let pause = match trouble {
            Ok(None) => {
                backoff = BACKOFF_MIN;
                LOOK_INTERVAL
            }
            Ok(Some(error)) => {
                warn!(pause_ms = backoff.as_millis(), "cannot send: {error}");
                let pause = backoff.min(until_next_deadline(&agent));
                backoff = (backoff * 2).min(BACKOFF_MAX);
                pause
            }
            Err(error) => {
                // The disk is full, say: nothing can be promised until it is not.
                tracing::error!("the spool cannot be used: {error}");
                BACKOFF_MAX
            }
        };
        // After a failure a wake does not shorten the pause, or each call of Slurm would cost one attempt.
        if backoff > BACKOFF_MIN {
            tokio::time::sleep(pause).await;
        } else {
            let _ = tokio::time::timeout(pause, agent.wake.notified()).await;
        }
    }
}

/// How long until a waiting resume is to be given up.
fn until_next_deadline(agent: &Agent) -> Duration {
    let unsent = agent.ledger().unsent();
    let next_ms = unsent
        .iter()
        .filter_map(|request| request.deadline_ms)
        .min();
    next_ms.map_or(Duration::MAX, |next_ms| {
        Duration::from_millis(next_ms.saturating_sub(now_ms()))
    })
}

/// Tries each queue until it fails once; the last failure.
async fn pass(agent: &Agent) -> Result<Option<SqsError>, LedgerError> {
    let mut failed: Vec<(Target, SqsError)> = Vec::new();
    let unsent = agent.ledger().unsent();
    for request in unsent {
        let trouble = failed
            .iter()
            .find(|(target, _)| *target == request.target)
            .map(|(_, error)| error.clone());
        if request
            .deadline_ms
            .is_some_and(|deadline_ms| deadline_ms <= now_ms())
        {
            expire(agent, &request, trouble.as_ref())?;
            continue;
        }
        if trouble.is_some() {
            continue;
        }
        match send(agent, &request).await? {
            Ok(()) => agent.connection.works(),
            Err(error) => {
                agent.connection.lost();
                failed.push((request.target, error));
            }
        }
    }
    let error = failed.pop().map(|(_, error)| error);
    agent.send_trouble().clone_from(&error);
    Ok(error)
}

async fn send(agent: &Agent, request: &Header) -> Result<Result<(), SqsError>, LedgerError> {
    let started_ms = now_ms();
    let parts = agent.ledger().parts(request.generation)?;
    for part in &parts {
        if let Err(error) = agent.sqs.send(request.target.into(), part).await {
            return Ok(Err(error));
        }
    }
    crash::point(CrashPoint::Send);
    agent.ledger().sent(request.generation)?;
    info!(
        request_id = %request.request_id,
        generation = %request.generation,
        nodes = %request.nodes,
        messages = parts.len(),
        since_call_ms = now_ms().saturating_sub(request.generation.at_ms()),
        duration_ms = now_ms().saturating_sub(started_ms),
        "sent",
    );
    Ok(Ok(()))
}

/// Gives a resume up: its nodes, where nothing newer was asked, are suspended (an attempt may have
/// reached SQS without an answer) and then failed.
fn expire(agent: &Agent, request: &Header, trouble: Option<&SqsError>) -> Result<(), LedgerError> {
    let mut ledger = agent.ledger();
    let names = request.node_names().unwrap_or_default();
    let mut names: Vec<NodeName> = names
        .into_iter()
        .filter(|node| ledger.is_last_resume(node, request.generation))
        .collect();
    nodes::sort(&mut names);
    names.dedup();
    if names.is_empty() {
        debug!(request_id = %request.request_id, "resume expired; all its nodes were asked for again or let go");
        return ledger.drop_request(request.generation);
    }
    let last = agent.send_trouble().clone();
    let cause = trouble
        .cloned()
        .or(last)
        .map_or_else(String::new, |error| format!(": {error}"));
    let reason = format!("spillway: the resume request could not be sent in time{cause}");
    warn!(request_id = %request.request_id, generation = %request.generation, nodes = %request.nodes, "{reason}");
    let nodes = Hostlist::parse(&spillway_core::hostlist::fold(&names))
        .expect("a fold of node names is a hostlist");
    ledger.put(|generation| {
        hook::suspend(
            &agent.config.cluster,
            hook::new_request_id(),
            generation,
            SuspendCause::Expired,
            nodes,
            &names,
            Some(reason),
        )
    })?;
    ledger.drop_request(request.generation)?;
    drop(ledger);
    agent.expired.notify_one();
    Ok(())
}
