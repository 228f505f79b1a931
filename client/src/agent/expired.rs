//! Gives up resumes that could not be sent in time: each becomes a suspend of its nodes, which are then
//! failed in Slurm, so that their jobs are requeued with a reason and before Slurm's own ResumeTimeout.
//! Apart from the sender: a call to SQS that gets no answer must not make Slurm wait for ours.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::SuspendCause;
use spillway_core::name::NodeName;
use tracing::{debug, error, info, warn};

use super::ledger::LedgerError;
use super::{Agent, by_name};
use crate::clock::now_ms;
use crate::hook;
use crate::nodes;
use crate::slurm::{SlurmError, UPDATE_BATCH};
use crate::spool::Header;

/// How often deadlines are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two tries while slurmctld does not answer, or while the disk is full.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Works for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) {
    loop {
        let pause = match pass(&agent).await {
            Ok(Ok(())) => LOOK_INTERVAL,
            Ok(Err(away)) => {
                warn!("cannot fail expired nodes yet: {away}");
                RETRY_INTERVAL
            }
            Err(error) => {
                error!("the spool cannot be used: {error}");
                RETRY_INTERVAL
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whether a request may not be sent any more.
pub fn is_late(request: &Header) -> bool {
    request
        .deadline_ms
        .is_some_and(|deadline_ms| deadline_ms <= now_ms())
}

async fn pass(agent: &Agent) -> Result<Result<(), SlurmError>, LedgerError> {
    // The sender may be waiting for SQS, and so not be looking.
    agent.ledger().look()?;
    let unsent = agent.ledger().unsent();
    for request in unsent.iter().filter(|request| is_late(request)) {
        give_up(agent, request)?;
    }
    let unfailed = agent.ledger().unfailed();
    for request in unfailed {
        if let Err(away) = fail(agent, &request).await? {
            return Ok(Err(away));
        }
    }
    Ok(Ok(()))
}

/// Suspends a resume's nodes (an attempt may have reached SQS without an answer) and has them failed: those
/// of which nothing newer was asked, and whose request was not answered after all.
fn give_up(agent: &Agent, request: &Header) -> Result<(), LedgerError> {
    let mut ledger = agent.ledger();
    let names = request.node_names().unwrap_or_default();
    let mut names: Vec<NodeName> = names
        .into_iter()
        .filter(|node| ledger.is_unanswered_resume(node, request.generation))
        .collect();
    nodes::sort(&mut names);
    names.dedup();
    if names.is_empty() {
        debug!(request_id = %request.request_id, "resume expired; all its nodes were answered, asked for again or let go");
        return ledger.drop_request(request.generation);
    }
    let cause = agent
        .send_trouble()
        .as_ref()
        .map_or_else(String::new, |error| format!(": {error}"));
    let reason = format!("spillway: the resume request could not be sent in time{cause}");
    let nodes = hostlist::fold(&names);
    warn!(request_id = %request.request_id, generation = %request.generation, nodes, "{reason}");
    let nodes = Hostlist::parse(&nodes).expect("a fold of node names is a hostlist");
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
    agent.wake.notify_one();
    Ok(())
}

async fn fail(agent: &Agent, request: &Header) -> Result<Result<(), SlurmError>, LedgerError> {
    let rows = match agent.slurm.cloud_nodes().await {
        Ok(rows) => by_name(rows),
        Err(error) => return Ok(Err(error)),
    };
    agent.ledger().look()?;
    let mut names = request.node_names().unwrap_or_default();
    nodes::sort(&mut names);
    let doomed: Vec<&NodeName> = {
        let ledger = agent.ledger();
        let fits = |node: &&NodeName| {
            ledger.is_to_be_failed(node, request.generation)
                && rows.get(node.as_str()).is_some_and(|row| !row.is_let_go())
        };
        names.iter().filter(fits).collect()
    };
    let reason = request.fail.as_deref().unwrap_or_default();
    for batch in doomed.chunks(UPDATE_BATCH) {
        match agent.slurm.fail(batch, reason).await {
            Err(error @ SlurmError::Away { .. }) => return Ok(Err(error)),
            Err(error @ SlurmError::Refused { .. }) => {
                warn!(request_id = %request.request_id, "{error}");
            }
            Ok(()) => info!(
                request_id = %request.request_id,
                nodes = hostlist::fold(batch),
                "failed in Slurm: {reason}",
            ),
        }
    }
    agent.ledger().failed(request.generation, &names)?;
    Ok(Ok(()))
}
