//! Suspend: nodes are let go and their instances terminated. "No instance" is success.

use std::collections::BTreeSet;

use spillway_core::hostlist;
use spillway_core::message::{SuspendQueueBody, SuspendRequest};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{Event, Verdict};
use tracing::info;

use crate::fault::Fault;
use crate::names::{NamesError, distinct};
use crate::pairings::{apply, released, still_released};
use crate::ports::{Clock, Control, Ec2, Queues, Table, Terminated};
use crate::stamp::{FromTheFuture, check_stamp};
use crate::tally::{self, Tally};

/// EC2 takes 1,000 ids in one TerminateInstances; batches of half of it, since one bad id fails its batch.
const MAX_TERMINATE_IDS: usize = 500;

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
    let due = still_released(control, ids).await?;
    let mut first_fault = None;
    for ids in due.chunks(MAX_TERMINATE_IDS) {
        // One instance that cannot be ended must not keep the others running.
        let Terminated { done, fault } = ec2.terminate(ids).await;
        control.table.mark_terminated(&done).await?;
        tally.add(tally::INSTANCES_TERMINATED, done.len());
        info!(instances = ?done, "terminated {} instances", done.len());
        first_fault = first_fault.or(fault);
    }
    first_fault.map_or(Ok(tally), |fault| Err(fault.into()))
}

async fn suspend<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    request: &SuspendRequest,
    tally: &mut Tally,
) -> Result<BTreeSet<InstanceId>, TerminateError> {
    let nodes = distinct(&request.nodes)?;
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
