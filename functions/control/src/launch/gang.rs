//! Gangs whose nodes are launched apart: each chunk says when its part is there, and is told when all are.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::gang::{End, Gang, MAX_AWAITED_NODES, part_name};
use spillway_core::message::ResumeRequest;
use spillway_core::name::{JobId, NodeName};
use spillway_core::pairing::{LaunchKey, PairingState};
use spillway_core::plan::{Chunk, ChunkJob, LaunchPlan};
use spillway_core::{config::Policy, hostlist::Hostlist};
use tracing::info;

use super::LaunchError;
use crate::names::distinct;
use crate::ports::{Clock, Control, Queues, Table};
use crate::shared::change;

/// Whether a chunk's nodes may be paired.
pub(super) enum Gathered {
    /// They may.
    Here,
    /// Others of their gang are not there yet.
    Waiting,
    /// The gang will not be whole.
    Failed {
        /// For Slurm's Reason.
        reason: String,
    },
}

/// The nodes that a request's jobs wait for in other requests: those of a job, named by the policy, that this request
/// does not resume and that have no instance.
pub(super) async fn awaited<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    request: &ResumeRequest,
    policy: &Policy,
) -> Result<BTreeMap<JobId, BTreeSet<NodeName>>, LaunchError> {
    let mut awaited = BTreeMap::new();
    for job in &request.jobs {
        let Some(all) = job
            .nodes_alloc
            .as_deref()
            .and_then(|all| Hostlist::parse(all).ok())
        else {
            continue;
        };
        let (Ok(all), Ok(here)) = (all.node_names(), distinct(&job.nodes_resume)) else {
            continue;
        };
        let others: Vec<NodeName> = all
            .into_iter()
            .filter(|node| !here.contains(node) && policy.group_of(node).is_some())
            .take(MAX_AWAITED_NODES)
            .collect();
        let missing = without_instance(control, others).await?;
        if !missing.is_empty() {
            awaited.insert(job.job_id.clone(), missing);
        }
    }
    Ok(awaited)
}

async fn without_instance<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    nodes: Vec<NodeName>,
) -> Result<BTreeSet<NodeName>, LaunchError> {
    if nodes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let stored = control.table.pairings(&nodes).await?.into_iter();
    let missing = stored.filter(|stored| {
        matches!(
            stored.record.state,
            PairingState::Free | PairingState::Requested { .. }
        )
    });
    Ok(missing.map(|stored| stored.record.node).collect())
}

/// Enters the parts of a plan that belong to gangs launched apart.
pub(super) async fn enter<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    launch: &LaunchKey,
    request: &ResumeRequest,
    plan: &LaunchPlan,
    awaited: &BTreeMap<JobId, BTreeSet<NodeName>>,
) -> Result<(), LaunchError> {
    for part in plan.gang_parts() {
        let name = part_name(launch, part.chunk);
        let nodes = distinct(part.nodes)?;
        let missing = awaited.get(part.job_id).cloned().unwrap_or_default();
        let generation = request.generation;
        info!(job_id = %part.job_id, part = name, awaited = missing.len(), "a gang is launched in parts");
        change(
            control,
            part.job_id.as_str(),
            |gang: &mut Option<Gang>, now_ms| {
                let (nodes, missing) = (nodes.clone(), missing.clone());
                let before = gang.take();
                *gang = Some(Gang::with_part(
                    before, &name, nodes, missing, generation, now_ms,
                ));
            },
        )
        .await?;
    }
    Ok(())
}

/// Says whether a chunk's part of a gang is ready, and asks whether all are. A chunk of no such gang waits for nobody.
pub(super) async fn gather<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    chunk: &Chunk,
    part: &str,
    is_ready: bool,
) -> Result<Gathered, LaunchError> {
    let Some(job) = spanning(chunk) else {
        return Ok(Gathered::Here);
    };
    let name = job.job_id.as_str();
    let gang = control.table.shared::<Option<Gang>>(name).await?.record;
    // Awaited nodes that got an instance another way are there.
    let awaited = gang.map(|gang| gang.awaited).unwrap_or_default();
    let missing = without_instance(control, awaited.into_iter().collect()).await?;
    let end = change(control, name, |gang: &mut Option<Gang>, now_ms| {
        let gang = gang.as_mut().filter(|gang| gang.parts.contains_key(part))?;
        gang.awaited.retain(|node| missing.contains(node));
        if is_ready {
            gang.ready(part);
        }
        gang.look(now_ms);
        Some(gang.end.clone())
    })
    .await?;
    Ok(match end {
        // The job was requeued and has another gang by now; who still waits is served.
        None | Some(Some(End::Complete)) => Gathered::Here,
        Some(None) => Gathered::Waiting,
        Some(Some(End::Failed { reason })) => Gathered::Failed { reason },
    })
}

/// Tells the other parts of a gang that this one does not come.
pub(super) async fn fail<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    chunk: &Chunk,
    reason: &str,
) -> Result<(), LaunchError> {
    let Some(job) = spanning(chunk) else {
        return Ok(());
    };
    change(
        control,
        job.job_id.as_str(),
        |gang: &mut Option<Gang>, _| {
            if let Some(gang) = gang {
                gang.fail(reason);
            }
        },
    )
    .await?;
    Ok(())
}

fn spanning(chunk: &Chunk) -> Option<&ChunkJob> {
    chunk.jobs.iter().find(|job| job.spans)
}
