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

use crate::fault::{Fault, FaultKind};
use crate::launch::LaunchError;
use crate::names::distinct;
use crate::ports::{Clock, Control, Ec2, Queues, Table};
use crate::record::{InstanceRecord, Origin, Stored};

/// How often the record is read again because another writer was quicker. At most 15 Lambdas with 5 messages each write
/// it, and of those that meet, one gets through every time.
const MAX_CONFLICTS: u32 = 24;

/// The longest wait after a first conflict; it doubles with each, up to sixteen times that. A write takes some 5 ms.
const CONFLICT_WAIT_MS: u64 = 10;
const MAX_DOUBLINGS: u32 = 4;

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
    let (reservation, may_compare) = change(control, |usage, now_ms| {
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
    let (reservation, freed) = change(control, |usage, now_ms| {
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
    launched: &[usize],
) -> Result<(), LaunchError> {
    let mut by_group = BTreeMap::new();
    for (chunk, launched) in plan.chunks.iter().zip(launched) {
        let sums: &mut (usize, usize) = by_group.entry(&chunk.node_group).or_default();
        sums.0 += distinct(&chunk.nodes)?.len();
        sums.1 += launched;
    }
    by_group.retain(|_, (planned, launched)| planned != launched);
    if by_group.is_empty() {
        return Ok(());
    }
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    change(control, |usage, _| {
        for (group, (planned, launched)) in &by_group {
            usage.settle(launch, group, count(*planned), count(*launched));
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
    change(control, |usage, _| {
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
    change(control, |usage, now_ms| usage.tell_unknown(count, now_ms)).await
}

/// Reads the record, changes it and writes it, again where another writer was quicker. What is not changed is not
/// written.
async fn change<T: Table, Q: Queues, C: Clock, R>(
    control: &Control<T, Q, C>,
    change: impl Fn(&mut Usage, u64) -> R,
) -> Result<R, Fault> {
    for round in 0..MAX_CONFLICTS {
        let Stored { record, version } = control.table.usage().await?;
        let mut usage = record.clone();
        let result = change(&mut usage, control.clock.now_ms());
        if usage == record || control.table.put_usage(&usage, version).await? {
            return Ok(result);
        }
        control.clock.sleep_ms(wait_ms(&control.clock, round)).await;
    }
    Err(Fault {
        kind: FaultKind::Transient,
        service: "dynamodb".into(),
        operation: "PutItem".into(),
        code: "UsageContended".to_owned(),
        message: format!(
            "the record of the caps changed {MAX_CONFLICTS} times while it was written"
        ),
    })
}

/// Half of the wait is by chance, so that writers that met once do not meet again.
fn wait_ms(clock: &impl Clock, round: u32) -> u64 {
    let most_ms = CONFLICT_WAIT_MS << round.min(MAX_DOUBLINGS);
    let chance = clock.fresh_id().bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    most_ms / 2 + chance % (most_ms / 2 + 1)
}
