//! The caps: what launches hold of them is one record in the table, read, changed by `spillway_core::usage`, and written
//! under the version read (docs/decisions/0006).

use std::collections::BTreeMap;

use spillway_core::config::Policy;
use spillway_core::message::ResumeRequest;
use spillway_core::name::{InstanceId, NodeGroupName, NodeName};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Chunk, LaunchPlan};
use spillway_core::tag;
use spillway_core::usage::{LaunchId, Live, Owner, Reservation, Usage};
use tracing::{info, warn};

use crate::fault::Fault;
use crate::names::{NamesError, distinct};
use crate::ports::{Clock, Control, Ec2, InstanceSeen, Queues, Table};
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
    let seen: Vec<InstanceSeen> = seen.into_iter().filter(|seen| !seen.is_ended()).collect();
    let owners = owners_of_ambiguous(control, &seen).await?;
    let (reservation, freed) = change(control, ONLY, |usage: &mut Usage, now_ms| {
        let freed = usage.compare(live(&seen, &owners), now_ms);
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

/// What EC2 shows, and for whom each is held as far as that was looked up.
fn live<'a>(
    seen: &'a [InstanceSeen],
    owners: &'a BTreeMap<InstanceId, Owner>,
) -> impl Iterator<Item = Live<'a>> {
    let live = |seen: &'a InstanceSeen| {
        let origin = seen.origin.as_ref()?;
        Some(Live {
            launch: &origin.launch,
            node_group: &origin.node_group,
            owner: owners.get(&seen.instance_id),
        })
    };
    seen.iter().filter_map(live)
}

/// Tags do not say for whom an instance is held, but its item does. It is read where several owners' instances came of
/// one launch and not all of them are left: few.
async fn owners_of_ambiguous<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    seen: &[InstanceSeen],
) -> Result<BTreeMap<InstanceId, Owner>, Fault> {
    let usage: Usage = control.table.shared(ONLY).await?.record;
    let unknown = BTreeMap::new();
    let ambiguous = usage.ambiguous(live(seen, &unknown), control.clock.now_ms());
    let is_ambiguous = |seen: &&InstanceSeen| {
        let key = |origin: &Origin| (LaunchId::from(&origin.launch), origin.node_group.clone());
        seen.origin
            .as_ref()
            .map(key)
            .is_some_and(|key| ambiguous.contains(&key))
    };
    let ids: Vec<InstanceId> = seen
        .iter()
        .filter(is_ambiguous)
        .map(|seen| seen.instance_id.clone())
        .collect();
    if ids.is_empty() {
        return Ok(unknown);
    }
    let records = control.table.instances(&ids).await?.into_iter();
    let of = |record: InstanceRecord| Some((record.instance_id, record.origin?.owner));
    Ok(records.filter_map(of).collect())
}

/// For whom the nodes of each chunk are held.
pub(crate) fn owners(
    request: &ResumeRequest,
    plan: &LaunchPlan,
) -> Result<Vec<BTreeMap<NodeName, Owner>>, NamesError> {
    let jobs = plan.holds.jobs(request);
    let of = |chunk: &Chunk| {
        let nodes = distinct(&chunk.nodes)?;
        Ok(plan.holds.owners(&jobs, &chunk.node_group, nodes))
    };
    plan.chunks.iter().map(of).collect()
}

/// How often each owner is there.
pub(crate) fn count<'a>(owners: impl IntoIterator<Item = &'a Owner>) -> BTreeMap<&'a Owner, u32> {
    let mut counts = BTreeMap::new();
    for owner in owners {
        *counts.entry(owner).or_default() += 1;
    }
    counts
}

/// How many of `launched` each owner of a chunk has, in the owners' order. Names of users are long, and there may be as
/// many as nodes.
pub(crate) fn by_owner(
    chunk: &BTreeMap<NodeName, Owner>,
    launched: &BTreeMap<&Owner, u32>,
) -> Vec<u32> {
    let owners = count(chunk.values()).into_keys();
    let of = |owner| launched.get(owner).copied().unwrap_or(0);
    owners.map(of).collect()
}

/// Gives back what a launch that is over was granted and did not launch. `owners`: for whom the nodes of each chunk are
/// held; `launched`: how many instances it launched in all, for each chunk of its plan, as [`by_owner`] counts.
pub(crate) async fn settle<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    launch: &LaunchKey,
    plan: &LaunchPlan,
    owners: &[BTreeMap<NodeName, Owner>],
    launched: &BTreeMap<u32, Vec<u32>>,
) -> Result<(), Fault> {
    let mut sums: BTreeMap<(&NodeGroupName, &Owner), (u32, u32)> = BTreeMap::new();
    for ((index, chunk), owners) in (0..).zip(&plan.chunks).zip(owners) {
        let mut launched = launched.get(&index).into_iter().flatten();
        for (owner, planned) in count(owners.values()) {
            let sum = sums.entry((&chunk.node_group, owner)).or_default();
            sum.0 += planned;
            sum.1 += launched.next().copied().unwrap_or(0);
        }
    }
    sums.retain(|_, (planned, launched)| planned != launched);
    if sums.is_empty() {
        return Ok(());
    }
    change(control, ONLY, |usage: &mut Usage, _| {
        for ((group, owner), (planned, launched)) in &sums {
            usage.settle(launch, group, owner, *planned, *launched);
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
            usage.end(&origin.launch, &origin.node_group, &origin.owner, *count);
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
