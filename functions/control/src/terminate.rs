//! Suspend: nodes are let go and their instances terminated. "No instance" is success, but not right after a launch:
//! what EC2 does not know is asked for again until it is shown, or has been unknown for long.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::hostlist;
use spillway_core::message::{ReleaseInstances, SuspendQueueBody, SuspendRequest};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{Event, Verdict};
use spillway_core::plan::plan_unknown;
use tracing::{debug, info, warn};

use crate::caps;
use crate::fault::Fault;
use crate::names::{NamesError, distinct};
use crate::pairings::{apply, known, plan_termination, released};
use crate::ports::{Clock, Control, Ec2, Queues, Table, Terminated};
use crate::record::InstanceRecord;
use crate::stamp::{FromTheFuture, check_stamp};
use crate::tally::{self, Tally};

/// Why a suspend was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum TerminateError {
    /// The message is wrong and stays wrong.
    #[error("suspend request names no valid nodes")]
    Names(#[from] NamesError),
    /// The stamp lies further ahead than clocks may differ.
    #[error(transparent)]
    FromTheFuture(#[from] FromTheFuture),
    /// A call failed; the message is to be delivered again.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Carries out one message of the suspend queue. `sent_ms` is when SQS took it.
pub async fn terminate<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    body: SuspendQueueBody,
    sent_ms: u64,
) -> Result<Tally, TerminateError> {
    let mut tally = Tally::default();
    let ids = match body {
        SuspendQueueBody::Suspend(request) => {
            check_stamp(request.generation, sent_ms)?;
            suspend(control, &request, &mut tally).await?
        }
        SuspendQueueBody::Release(release) => release.instance_ids.into_iter().collect(),
    };
    let (plan, records) = plan_termination(control, ids).await?;
    if !plan.left.is_empty() {
        debug!(left = ?plan.left, "{} instances are not to be ended", plan.left.len());
    }
    let mut first_fault = None;
    for ids in plan.batches {
        // One instance that cannot be ended must not keep the others running.
        let Terminated {
            done,
            unknown,
            fault,
        } = ec2.terminate(&ids).await;
        ended(control, &records, &done).await?;
        tally.add(tally::INSTANCES_TERMINATED, done.len());
        info!(instances = ?done, "terminated {} instances", done.len());
        let gone = gone(control, &records, &unknown).await?;
        ended(control, &records, &gone).await?;
        first_fault = first_fault.or(fault);
    }
    first_fault.map_or(Ok(tally), |fault| Err(fault.into()))
}

/// Marked first, given back after: should this worker die between the two, the caps hold too much and are corrected
/// by EC2 later. The other way round they could hold too little.
async fn ended<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    records: &[InstanceRecord],
    ids: &[InstanceId],
) -> Result<(), Fault> {
    let marked = control.table.mark_terminated(ids).await?;
    let marked = records
        .iter()
        .filter(|record| marked.contains(&record.instance_id));
    caps::ended(control, &marked.collect::<Vec<_>>()).await
}

/// Those of `unknown` that are gone. EC2 may not show the others yet: the item of each says since when, so that no
/// message can say otherwise, and a timer has them ended again. Until then they count.
async fn gone<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    records: &[InstanceRecord],
    unknown: &[InstanceId],
) -> Result<Vec<InstanceId>, Fault> {
    let now_ms = control.clock.now_ms();
    let since_ms: BTreeMap<InstanceId, u64> = records
        .iter()
        .filter(|record| unknown.contains(&record.instance_id))
        .map(|record| {
            let since_ms = record.unknown_since_ms.unwrap_or(now_ms);
            (record.instance_id.clone(), since_ms)
        })
        .collect();
    let plan = plan_unknown(&since_ms, now_ms);
    if !plan.gone.is_empty() {
        warn!(instances = ?plan.gone, "EC2 has long known no such instances: counted as terminated");
    }
    if !plan.waiting.is_empty() {
        info!(instances = ?plan.waiting, "EC2 does not show them yet: asked again in {} s", plan.wait_seconds);
        control.table.note_unknown(&plan.waiting, now_ms).await?;
        let release = SuspendQueueBody::Release(ReleaseInstances {
            instance_ids: plan.waiting,
        });
        let queues = &control.queues;
        queues.send_suspend(release, plan.wait_seconds).await?;
    }
    Ok(plan.gone)
}

async fn suspend<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    request: &SuspendRequest,
    tally: &mut Tally,
) -> Result<BTreeSet<InstanceId>, TerminateError> {
    let nodes = of_ours(control, distinct(&request.nodes)?, tally).await?;
    let event = Event::Suspend {
        generation: request.generation,
    };
    let applied = apply(
        control,
        nodes
            .into_iter()
            .map(|node| (node, event.clone()))
            .collect(),
    )
    .await?;
    let by = |verdict| -> Vec<&NodeName> {
        applied
            .iter()
            .filter(|a| a.transition.verdict == verdict)
            .map(|a| &a.node)
            .collect()
    };
    let (accepted, stale) = (by(Verdict::Accepted), by(Verdict::Stale));
    tally.add(tally::NODES_SUSPENDED, accepted.len());
    tally.add(tally::NODES_STALE, stale.len());
    info!(
        request_id = %request.request_id,
        generation = %request.generation,
        accepted = hostlist::fold(&accepted),
        stale = hostlist::fold(&stale),
        "suspend: {} nodes let go, {} overtaken by a newer request",
        accepted.len(),
        stale.len(),
    );
    Ok(released(&applied))
}

/// Leaves out the nodes that neither the policy names nor the table knows: nothing serves them, and no items are made
/// for names that anyone may make up.
async fn of_ours<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    nodes: BTreeSet<NodeName>,
    tally: &mut Tally,
) -> Result<Vec<NodeName>, Fault> {
    let policy = control.table.policy().await?;
    let is_named = |node: &NodeName| {
        let group = policy.as_ref().and_then(|policy| policy.group_of(node));
        group.is_some()
    };
    let (mut ours, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(is_named);
    let strangers = others.len();
    let known = known(control, others).await?;
    let strangers = strangers - known.len();
    if strangers > 0 {
        warn!(
            nodes = strangers,
            "a suspend names nodes that neither the policy nor the table knows"
        );
        tally.add(tally::NODES_UNKNOWN, strangers);
    }
    ours.extend(known);
    Ok(ours)
}
