//! Putting events to pairings: read, ask the state machine, write under the version read, again where
//! another writer was quicker. And seeing through the termination of instances that were let go.

use std::collections::BTreeSet;

use spillway_core::capacity::Pool;
use spillway_core::message::{ReleaseInstances, SuspendQueueBody};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{Event, PairingState, Transition, Verdict};
use spillway_core::plan::{TerminatePlan, plan_terminate};

use crate::fault::{Fault, FaultKind};
use crate::ports::{Clock, Control, InstanceWrite, PairingWrite, Queues, Table};
use crate::record::{InstanceRecord, Origin};

/// How often a pairing is read again because another writer was quicker. A node has at most a handful of
/// writers at a time (a launch, a suspend, a report, a timer); more means that something is broken.
const MAX_CONFLICTS: usize = 8;

/// An event that was put to a node's pairing, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Whose.
    pub node: NodeName,
    /// The last of the event's transitions.
    pub transition: Transition,
    /// Whether slurmctld had taken its registration before.
    pub was_ready: bool,
}

/// Puts an event to each pairing named and stores what changes. A node named twice is an error of the
/// caller's; callers take their names from a set.
pub async fn apply<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    events: Vec<(NodeName, Event)>,
) -> Result<Vec<Applied>, Fault> {
    apply_of(control, events, |_| Source::default()).await
}

/// Where the instance comes from that an event brings a node.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// See [`InstanceRecord::origin`].
    pub origin: Option<Origin>,
    /// See [`InstanceRecord::pool`].
    pub pool: Option<Pool>,
}

/// [`apply`], for events that bring nodes instances from these sources.
pub async fn apply_of<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    events: Vec<(NodeName, Event)>,
    source: impl Fn(&NodeName) -> Source + Sync,
) -> Result<Vec<Applied>, Fault> {
    let mut applied = Vec::with_capacity(events.len());
    let mut open = events;
    for _ in 0..MAX_CONFLICTS {
        if open.is_empty() {
            return Ok(applied);
        }
        open = apply_once(control, open, &source, &mut applied).await?;
    }
    if open.is_empty() {
        return Ok(applied);
    }
    Err(Fault {
        kind: FaultKind::Transient,
        service: "dynamodb".into(),
        operation: "TransactWriteItems".into(),
        code: "PairingContended".to_owned(),
        message: format!(
            "{} pairings changed {MAX_CONFLICTS} times while they were written",
            open.len()
        ),
    })
}

/// One round; answers the events whose pairing has moved on meanwhile.
async fn apply_once<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    events: Vec<(NodeName, Event)>,
    source: &(impl Fn(&NodeName) -> Source + Sync),
    applied: &mut Vec<Applied>,
) -> Result<Vec<(NodeName, Event)>, Fault> {
    let names: Vec<NodeName> = events.iter().map(|(node, _)| node.clone()).collect();
    let now_ms = control.clock.now_ms();
    let mut writes = Vec::new();
    let mut pending = Vec::new();
    for ((node, event), stored) in events
        .into_iter()
        .zip(control.table.pairings(&names).await?)
    {
        let transition = stored.record.on(&event, now_ms);
        let was_ready = matches!(stored.record.state, PairingState::Ready { .. });
        if transition.verdict == Verdict::Accepted {
            writes.push(PairingWrite {
                pairing: transition.next.clone(),
                expected_version: stored.version,
                instance: instance_write(&transition, source),
            });
            pending.push((node, event, transition, was_ready));
        } else {
            applied.push(Applied {
                node,
                transition,
                was_ready,
            });
        }
    }
    let mut again = Vec::new();
    let written = if writes.is_empty() {
        Vec::new()
    } else {
        control.table.write_pairings(&writes).await?
    };
    for ((node, event, transition, was_ready), written) in pending.into_iter().zip(written) {
        if written {
            applied.push(Applied {
                node,
                transition,
                was_ready,
            });
        } else {
            again.push((node, event));
        }
    }
    Ok(again)
}

/// What becomes of an instance together with an accepted transition: at most one thing.
fn instance_write(
    transition: &Transition,
    source: impl Fn(&NodeName) -> Source,
) -> Option<InstanceWrite> {
    if let Some(instance_id) = &transition.release {
        return Some(InstanceWrite::Release(instance_id.clone()));
    }
    if let Some(instance_id) = &transition.admit {
        return Some(InstanceWrite::Admit(instance_id.clone()));
    }
    let instance_id = transition.regenerate.clone()?;
    let Source { origin, pool } = source(&transition.next.node);
    match &transition.next.state {
        PairingState::Launched {
            address,
            deadline_ms,
            ..
        } => Some(InstanceWrite::Pair {
            instance_id,
            address: *address,
            deadline_ms: *deadline_ms,
            origin,
            pool,
        }),
        _ => None,
    }
}

/// The instances that these events let go, and those that the same nodes let go last: whoever did that may have
/// died before it asked for their termination, and this event may be its message, delivered again.
#[must_use]
pub fn released(applied: &[Applied]) -> BTreeSet<InstanceId> {
    let of = |applied: &Applied| {
        let Transition { next, release, .. } = &applied.transition;
        [release.clone(), next.released.clone()]
    };
    applied.iter().flat_map(of).flatten().collect()
}

/// Those of `nodes` that the table knows.
pub async fn known<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    nodes: Vec<NodeName>,
) -> Result<Vec<NodeName>, Fault> {
    if nodes.is_empty() {
        return Ok(nodes);
    }
    let stored = control.table.pairings(&nodes).await?;
    let known = stored.into_iter().filter(|stored| stored.version > 0);
    Ok(known.map(|stored| stored.record.node).collect())
}

/// Asks `terminate` to end those of `ids` whose items say released.
pub async fn ask_termination<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ids: BTreeSet<InstanceId>,
) -> Result<(), Fault> {
    let (plan, _) = plan_termination(control, ids).await?;
    for instance_ids in plan.batches {
        let body = ReleaseInstances { instance_ids };
        control
            .queues
            .send_suspend(SuspendQueueBody::Release(body), 0)
            .await?;
    }
    Ok(())
}

/// Which of `ids` are to be ended, by their items; and the items.
pub async fn plan_termination<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ids: BTreeSet<InstanceId>,
) -> Result<(TerminatePlan, Vec<InstanceRecord>), Fault> {
    if ids.is_empty() {
        return Ok((TerminatePlan::default(), Vec::new()));
    }
    let asked: Vec<InstanceId> = ids.iter().cloned().collect();
    let records = control.table.instances(&asked).await?;
    let states = records
        .iter()
        .filter(|record| record.held.is_none())
        .map(|record| (record.instance_id.clone(), record.state))
        .collect();
    Ok((plan_terminate(&ids, &states), records))
}
