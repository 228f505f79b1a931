//! Says that the agent lives and what slurmctld says of the cloud nodes, and keeps the jobs file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_core::message::{HEARTBEAT_SECONDS, Heartbeat, NodeStates, ReportBody};
use spillway_core::name::{Generation, NodeName};
use tracing::{debug, info, warn};

use super::Agent;
use super::node_states::node_states;
use crate::callback::refused;
use crate::clock::now_ms;
use crate::files::{self, Keep};
use crate::jobs_file;
use crate::slurm::SlurmError;

/// slurmctld may spend at most this share of its time on our questions: one that answers slowly is
/// loaded, and is asked less often.
const SLOWNESS_FACTOR: u32 = 10;

/// Reports a heartbeat for as long as the agent lives: in time, and as soon as the network is back.
pub async fn heartbeats(agent: Arc<Agent>) {
    let mut version = None;
    loop {
        if version.is_none() {
            version = agent.receiver.slurm.version().await.ok();
        }
        let hello = agent.connection.is_hello_due();
        match refused::take_notes(&agent.config.spool_directory) {
            Ok(notes) => agent.refused.add(&notes),
            Err(error) => warn!("what `spillway apply` has refused is not counted: {error}"),
        }
        let refused = agent.refused.take();
        let unsent = agent.ledger().unsent();
        let heartbeat = Heartbeat {
            sent_ms: now_ms(),
            hello,
            slurm_version: version.clone(),
            spooled: unsent.len() as u64,
            // It is stamped when Slurm calls.
            oldest_spooled_ms: unsent.first().map(|oldest| oldest.generation.at_ms()),
            clock_skew_ms: agent
                .receiver
                .sqs
                .clock()
                .ahead_ms()
                .map(|ahead_ms| -ahead_ms),
            refused_envelopes: refused.clone(),
        };
        match agent
            .receiver
            .report(ReportBody::Heartbeat(heartbeat))
            .await
        {
            Ok(()) if hello => {
                agent.connection.greeted();
                info!("said hello");
            }
            Ok(()) => debug!("heartbeat"),
            Err(error) => {
                agent.connection.lost();
                agent.refused.add(&refused);
                warn!("cannot report: {error}");
            }
        }
        let next = Duration::from_secs(HEARTBEAT_SECONDS);
        let _ = tokio::time::timeout(next, agent.connection.back()).await;
    }
}

/// Asks slurmctld for nodes and jobs for as long as the agent lives.
pub async fn observations(agent: Arc<Agent>) {
    let interval = Duration::from_secs(agent.config.slurm.poll_interval_seconds.into());
    let mut reachable = true;
    loop {
        let start = Instant::now();
        match observe(&agent).await {
            Ok(()) => {
                if !reachable {
                    info!("slurmctld answers again");
                }
                reachable = true;
            }
            Err(error) => {
                if reachable {
                    warn!("cannot observe slurmctld: {error}");
                }
                reachable = false;
            }
        }
        let pause = interval.max(start.elapsed() * SLOWNESS_FACTOR);
        tokio::time::sleep(pause.saturating_sub(start.elapsed())).await;
    }
}

async fn observe(agent: &Agent) -> Result<(), SlurmError> {
    let observed_ms = now_ms();
    let generations = generations(agent);
    let rows = agent.receiver.slurm.cloud_nodes().await?;
    let states = NodeStates {
        observed_ms,
        states: node_states(rows, &generations),
    };
    if let Err(error) = agent.receiver.report(ReportBody::NodeStates(states)).await {
        agent.connection.lost();
        warn!("cannot report node states: {error}");
    }
    let jobs = agent.receiver.slurm.waiting_jobs().await?;
    let lines: Vec<&str> = jobs
        .lines()
        .filter(|line| jobs_file::partitions(line).any(|name| agent.partitions.contains(name)))
        .collect();
    let path = &agent.config.jobs_file;
    if let Err(error) = files::replace(path, lines.join("\n").as_bytes(), Keep::WhileItLasts) {
        warn!("requests will not name users and accounts: {error}");
    }
    Ok(())
}

/// The last request stamped for each node.
fn generations(agent: &Agent) -> HashMap<NodeName, Generation> {
    let mut ledger = agent.ledger();
    if let Err(error) = ledger.look() {
        warn!("node states are told with what was requested before: {error}");
    }
    ledger.memory().generations()
}

/// The partitions that have burst nodes.
pub fn partitions(site: &spillway_core::config::Site) -> HashSet<String> {
    let groups = site.policy.node_groups.iter();
    groups
        .flat_map(|group| &group.partitions)
        .map(ToString::to_string)
        .collect()
}
