//! The caps: what launches hold of them is one record in the table, read, changed by `spillway_core::usage`, and written
//! under the version read (docs/decisions/0006).

use std::collections::BTreeMap;

use spillway_core::config::Policy;
use spillway_core::message::ResumeRequest;
use spillway_core::name::NodeName;
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::LaunchPlan;
use spillway_core::tag;
use spillway_core::usage::{Reservation, Usage};
use tracing::{info, warn};

use crate::fault::Fault;
use crate::launch::LaunchError;
use crate::names::distinct;
use crate::ports::{Clock, Control, Ec2, Queues, Table};
use crate::record::{InstanceRecord, Origin};
use crate::shared::{ONLY, change};

/// Reserves what the caps leave for a launch. Where something would be refused, the record is first compared with EC2:
/// whoever ended an instance may have died before it could give it back.
pub async fn reserve<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    launch: &LaunchKey,
    request: &ResumeRequest,
    nodes: &[NodeName],
    policy: &Policy,
) -> Result<Reservation, Fault> {
    if nodes.is_empty() {
        return Ok(Reservation::default());
    }
    let (reservation, may_compare) = change(control, ONLY, |usage: &mut Usage, now_ms| {
        let may_compare = usage.may_compare(now_ms);
        let reservation = usage.reserve(launch, request, nodes, policy, now_ms);
        (reservation, may_compare)
    })
    .await?;
    if reservation.refused.is_empty() || !may_compare {
        return Ok(reservation);
    }
    let ours = BTreeMap::from([(tag::CLUSTER.to_owned(), control.cluster.to_string())]);
    let seen = match ec2.find(&ours).await {
        Ok(seen) => seen,
        Err(fault) => {
            warn!(%fault, "the caps could not be compared with EC2; what the record says stands");
            return Ok(reservation);
        }
    };
    let holders: Vec<&Origin> = seen
        .iter()
        .filter(|instance| !instance.is_ended())
        .filter_map(|instance| instance.origin.as_ref())
        .collect();
    let (reservation, freed) = change(control, ONLY, |usage: &mut Usage, now_ms| {
        let live = holders.iter().map(|held| (&held.launch, &held.node_group));
        let freed = usage.compare(live, now_ms);
        let reservation = usage.reserve(launch, request, nodes, policy, now_ms);
        (reservation, freed)
    })
    .await?;
    if freed > 0 {
        warn!(
            nodes = freed,
            "the caps held nodes whose instances are long gone"
        );
    }
    Ok(reservation)
}

/// Gives back what a launch that is over was granted and did not launch. `launched` is how many instances it launched
/// in all, for each chunk of its plan.
pub(crate) async fn settle<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    launch: &LaunchKey,
    plan: &LaunchPlan,
    launched: &BTreeMap<u32, u32>,
) -> Result<(), LaunchError> {
    let mut by_group = BTreeMap::new();
    for (index, chunk) in (0..).zip(&plan.chunks) {
        let sums: &mut (usize, u32) = by_group.entry(&chunk.node_group).or_default();
        sums.0 += distinct(&chunk.nodes)?.len();
        sums.1 += launched.get(&index).copied().unwrap_or(0);
    }
    by_group.retain(|_, (planned, launched)| *planned != *launched as usize);
    if by_group.is_empty() {
        return Ok(());
    }
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    change(control, ONLY, |usage: &mut Usage, _| {
        for (group, (planned, launched)) in &by_group {
            usage.settle(launch, group, count(*planned), *launched);
        }
    })
    .await?;
    info!(request_id = %launch.request_id, "what was not launched is given back to the caps");
    Ok(())
}

/// Gives back instances that were marked terminated just now, by this call's caller and nobody else: each counts once.
pub(crate) async fn ended<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    records: &[&InstanceRecord],
) -> Result<(), Fault> {
    let mut by_origin: BTreeMap<&Origin, u32> = BTreeMap::new();
    for origin in records.iter().filter_map(|record| record.origin.as_ref()) {
        *by_origin.entry(origin).or_default() += 1;
    }
    if by_origin.is_empty() {
        return Ok(());
    }
    change(control, ONLY, |usage: &mut Usage, _| {
        for (origin, count) in &by_origin {
            usage.end(&origin.launch, &origin.node_group, *count);
        }
    })
    .await
}

/// How many of `count` nodes that the policy does not name may be told so.
pub(crate) async fn tell_unknown<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    count: usize,
) -> Result<usize, Fault> {
    change(control, ONLY, |usage: &mut Usage, now_ms| {
        usage.tell_unknown(count, now_ms)
    })
    .await
}
