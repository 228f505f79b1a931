//! Fails in Slurm the nodes of resumes that could not be sent in time, so that their jobs are requeued
//! with a reason and before Slurm's own ResumeTimeout.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::name::NodeName;
use tracing::{info, warn};

use super::ledger::LedgerError;
use super::{Agent, by_name};
use crate::nodes;
use crate::slurm::{SlurmError, UPDATE_BATCH};
use crate::spool::Header;

/// Between two tries while slurmctld does not answer.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Works for as long as the agent lives.
pub async fn run(agent: Arc<Agent>) -> Result<(), LedgerError> {
    loop {
        let unfailed = agent.ledger().unfailed();
        for request in unfailed {
            if let Err(error) = fail(&agent, &request).await? {
                warn!(request_id = %request.request_id, nodes = %request.nodes, "cannot fail expired nodes yet: {error}");
            }
        }
        let _ = tokio::time::timeout(RETRY_INTERVAL, agent.expired.notified()).await;
    }
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
                nodes = spillway_core::hostlist::fold(batch),
                "failed in Slurm: {reason}",
            ),
        }
    }
    agent.ledger().failed(request.generation, &names)?;
    Ok(Ok(()))
}
