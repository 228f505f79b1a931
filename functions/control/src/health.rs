//! Whether the instances of a node group join: a group whose instances do not is protected from launching more
//! (`spillway_core::capacity`).

use std::collections::BTreeMap;

use spillway_core::capacity::{Capacity, PROTECT_AFTER};
use spillway_core::name::{InstanceId, NodeGroupName};
use spillway_core::pairing::{DueAction, Transition, Verdict};
use tracing::{error, info};

use crate::fault::Fault;
use crate::pairings::Applied;
use crate::ports::{Clock, Control, Queues, Table};
use crate::shared::{ONLY, change};
use crate::tally::{self, Tally};

/// An instance joined: its group is well.
pub(crate) async fn joined<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    instance_id: &InstanceId,
) -> Result<(), Fault> {
    let known = control.table.shared::<Capacity>(ONLY).await?.record;
    if !known.any_failing() {
        return Ok(());
    }
    for group in groups(control, std::slice::from_ref(instance_id))
        .await?
        .keys()
    {
        let was_failing = change(control, ONLY, |capacity: &mut Capacity, _| {
            capacity.joined(group)
        });
        if was_failing.await? {
            info!(node_group = %group, "an instance joined; the group launches as ever");
        }
    }
    Ok(())
}

/// Counts the instances that these events let go before they joined.
pub(crate) async fn did_not_join<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    applied: &[Applied],
    tally: &mut Tally,
) -> Result<(), Fault> {
    let accepted = applied
        .iter()
        .map(|applied| &applied.transition)
        .filter(|transition| transition.verdict == Verdict::Accepted);
    let lost: Vec<InstanceId> = accepted
        .clone()
        .filter_map(|transition| transition.release.clone())
        .collect();
    let Some(reason) = accepted.filter_map(reason).next_back() else {
        return Ok(());
    };
    for (group, count) in groups(control, &lost).await? {
        self::lost(control, &group, count, reason, tally).await?;
    }
    Ok(())
}

/// `count` instances of a group ended, or were let go, before they joined.
pub(crate) async fn lost<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    group: &NodeGroupName,
    count: u32,
    reason: &str,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let is_new = change(control, ONLY, |capacity: &mut Capacity, now_ms| {
        capacity.did_not_join(group, count, reason, now_ms)
    });
    if is_new.await? {
        error!(node_group = %group, reason, "the last {PROTECT_AFTER} instances did not join; the group is protected");
        tally.add(tally::GROUPS_PROTECTED, 1);
    }
    Ok(())
}

fn reason(transition: &Transition) -> Option<&str> {
    match &transition.next.update_due.as_ref()?.action {
        DueAction::Fail { reason, .. } => Some(reason),
        _ => None,
    }
}

/// The node groups of instances, and how many are of each.
async fn groups<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ids: &[InstanceId],
) -> Result<BTreeMap<NodeGroupName, u32>, Fault> {
    let mut groups = BTreeMap::new();
    if ids.is_empty() {
        return Ok(groups);
    }
    for origin in control
        .table
        .instances(ids)
        .await?
        .into_iter()
        .filter_map(|record| record.origin)
    {
        *groups.entry(origin.node_group).or_default() += 1;
    }
    Ok(groups)
}
