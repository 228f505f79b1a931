//! Gives up resumes that could not be sent in time: each becomes a suspend of its nodes, which are then
//! failed in Slurm, so that their jobs are requeued with a reason and before Slurm's own ResumeTimeout.
//! Apart from the sender: a call to SQS that gets no answer must not make Slurm wait for ours.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::SuspendCause;
use spillway_core::name::{NodeName, RequestId};
use tracing::{debug, error, info, warn};

use super::Agent;
use crate::callback::LedgerError;
use crate::clock::now_ms;
use crate::hook;
use crate::nodes;
use crate::slurm::{Slurm, SlurmError, UPDATE_BATCH, by_name};
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
        let cause = agent
            .send_trouble()
            .get(&request.target)
            .map_or_else(String::new, |error| format!(": {error}"));
        let reason = format!("spillway: the resume request could not be sent in time{cause}");
        give_up(agent, request, reason)?;
        agent.ledger().drop_request(request.generation)?;
    }
    let unfailed = agent.ledger().unfailed();
    for request in unfailed {
        if let Err(away) = fail(agent, &request).await? {
            return Ok(Err(away));
        }
    }
    Ok(Ok(()))
}

/// Suspends a resume's nodes (an attempt may have reached SQS without an answer) and has them failed for this
/// reason: those of which nothing newer was asked, and whose request was not answered after all. What
/// becomes of the resume itself is the caller's.
pub fn give_up(agent: &Agent, request: &Header, reason: String) -> Result<(), LedgerError> {
    let mut ledger = agent.ledger();
    let names = request.node_names().unwrap_or_default();
    let mut names: Vec<NodeName> = names
        .into_iter()
        .filter(|node| ledger.is_unanswered_resume(node, request.generation))
        .collect();
    nodes::sort(&mut names);
    names.dedup();
    if names.is_empty() {
        debug!(request_id = %request.request_id, "all nodes of a resume not sent were answered, asked for again or let go");
        return Ok(());
    }
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
    agent.wake.notify_one();
    Ok(())
}

async fn fail(agent: &Agent, request: &Header) -> Result<Result<(), SlurmError>, LedgerError> {
    let rows = match agent.receiver.slurm.cloud_nodes().await {
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
        if let Err(away) =
            fail_batch(&agent.receiver.slurm, batch, reason, &request.request_id).await
        {
            return Ok(Err(away));
        }
    }
    agent.ledger().failed(request.generation, &names)?;
    Ok(Ok(()))
}

/// Fails a batch; if scontrol refuses it, each node by itself: one that Slurm knows no more must not keep the
/// jobs of the others waiting.
async fn fail_batch(
    slurm: &Slurm,
    batch: &[&NodeName],
    reason: &str,
    request_id: &RequestId,
) -> Result<(), SlurmError> {
    match slurm.fail(batch, reason).await {
        Ok(()) => {
            let nodes = hostlist::fold(batch);
            info!(%request_id, nodes, "failed in Slurm: {reason}");
            Ok(())
        }
        Err(error @ SlurmError::Refused { .. }) if batch.len() == 1 => {
            warn!(%request_id, node = %batch[0], "{error}");
            Ok(())
        }
        Err(SlurmError::Refused { .. }) => {
            for node in batch.chunks(1) {
                Box::pin(fail_batch(slurm, node, reason, request_id)).await?;
            }
            Ok(())
        }
        Err(away @ SlurmError::Away { .. }) => Err(away),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use spillway_core::config::SlurmSettings;

    use super::*;

    #[tokio::test]
    async fn one_node_that_is_refused_keeps_no_other_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let scontrol = directory.path().join("scontrol");
        // As scontrol does: all nodes of a call or none.
        let script = "#!/bin/sh\n\
            case $2 in *cloud2*) echo 'Invalid node name specified' >&2; exit 1;; esac\n\
            echo $2 >> ${0%/*}/told\n";
        fs::write(&scontrol, script).unwrap();
        fs::set_permissions(&scontrol, fs::Permissions::from_mode(0o700)).unwrap();
        let slurm = Slurm::new(&SlurmSettings {
            bin_directory: directory.path().to_owned(),
            resume_timeout_seconds: 60,
            suspend_timeout_seconds: 10,
            poll_interval_seconds: 30,
        });
        let names = ["cloud1", "cloud2", "cloud3"].map(|name| NodeName::new(name).unwrap());
        let batch: Vec<&NodeName> = names.iter().collect();
        fail_batch(&slurm, &batch, "late", &hook::new_request_id())
            .await
            .unwrap();
        let told = fs::read_to_string(directory.path().join("told")).unwrap();
        assert_eq!(told, "NodeName=cloud1\nNodeName=cloud3\n");
    }
}
