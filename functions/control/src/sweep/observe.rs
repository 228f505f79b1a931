//! What a sweep sees: EC2 first, then the table, then what slurmctld said last. In that order an instance that is paired
//! meanwhile is seen as paired, never as an orphan.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join;
use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_core::config::{NoticePolicy, Policy};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{LaunchKey, Pairing, PairingState};
use spillway_core::sweep::{
    HeadNode, KnownInstance, Life, SeenInstance, SeenRequest, SlurmReport, Snapshot, unowned,
};
use spillway_core::tag;

use crate::fault::Fault;
use crate::ports::{Clock, Control, Ec2, InstanceSeen, Queues, Table};
use crate::record::{HeldBy, InstanceRecord, RequestRecord, Stored};

/// How many request records are read at a time.
const READS_AT_ONCE: usize = 16;

/// A snapshot, and what acting on it needs besides.
pub(super) struct Seen {
    pub snapshot: Snapshot,
    /// The items behind `snapshot.records`.
    pub items: BTreeMap<InstanceId, InstanceRecord>,
    /// When slurmctld was last asked, however long ago.
    pub slurm_observed_ms: Option<u64>,
}

/// Reads all that a sweep decides from.
pub(super) async fn observe<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    whole: bool,
) -> Result<Seen, Fault> {
    let of_cluster = BTreeMap::from([(tag::CLUSTER.to_owned(), control.cluster.to_string())]);
    let (shown, impaired) = try_join(ec2.find(&of_cluster), ec2.impaired()).await?;
    let now_ms = control.clock.now_ms();
    let instances = instances(&shown, &impaired);
    let table = &control.table;
    let ids: Vec<InstanceId> = instances.keys().cloned().collect();
    let mut items = by_id(table.instances(&ids).await?);
    hold(control, &instances, &mut items).await?;
    let states = table.node_states().await?;
    let slurm = states
        .as_ref()
        .map(|states| SlurmReport::read(states.observed_ms, &states.states));
    let names = names(control, &items, slurm.as_ref(), whole).await?;
    let pairings = pairings(control, &names).await?;
    let missing: Vec<InstanceId> = pairings
        .values()
        .filter_map(Pairing::instance)
        .filter(|id| !items.contains_key(*id))
        .cloned()
        .collect();
    items.extend(by_id(table.instances(&missing).await?));
    let policy = table.policy().await?;
    let heartbeat = table.heartbeat().await?;
    let mut snapshot = Snapshot {
        now_ms,
        notices: notices(policy.as_ref(), &instances, &pairings),
        records: items
            .iter()
            .map(|(id, item)| (id.clone(), known(item)))
            .collect(),
        instances,
        pairings,
        requests: BTreeMap::new(),
        slurm,
        head_node: HeadNode {
            heard_ms: heartbeat.as_ref().map(|heard| heard.received_ms),
            oldest_spooled_ms: heartbeat.and_then(|heard| heard.oldest_spooled_ms),
        },
        suspend_timeout_ms: policy
            .as_ref()
            .map_or(0, |policy| u64::from(policy.suspend_timeout_seconds) * 1000),
        policy: policy.map(|policy| policy.sweep).unwrap_or_default(),
    };
    snapshot.requests = requests(control, &snapshot).await?;
    Ok(Seen {
        snapshot,
        items,
        slurm_observed_ms: states.map(|states| states.observed_ms),
    })
}

fn instances(
    shown: &[InstanceSeen],
    impaired: &[InstanceId],
) -> BTreeMap<InstanceId, SeenInstance> {
    let impaired: BTreeSet<&InstanceId> = impaired.iter().collect();
    let seen = |instance: &InstanceSeen| SeenInstance {
        life: match instance.state.as_str() {
            "pending" | "running" => Life::Alive,
            "stopping" | "stopped" => Life::Stopped,
            _ => Life::Ended,
        },
        launched_ms: instance.launched_ms,
        is_held: instance.is_held,
        is_impaired: impaired.contains(&instance.instance_id),
        launch: instance.origin.as_ref().map(|origin| origin.launch.clone()),
    };
    shown
        .iter()
        .map(|instance| (instance.instance_id.clone(), seen(instance)))
        .collect()
}

fn by_id(records: Vec<InstanceRecord>) -> BTreeMap<InstanceId, InstanceRecord> {
    records
        .into_iter()
        .map(|record| (record.instance_id.clone(), record))
        .collect()
}

fn known(item: &InstanceRecord) -> KnownInstance {
    KnownInstance {
        state: item.state,
        node: item.node.clone(),
        is_held: item.held.is_some(),
    }
}

/// A hold that was set or taken away in the EC2 console is written down, for those who do not ask EC2.
async fn hold<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    instances: &BTreeMap<InstanceId, SeenInstance>,
    items: &mut BTreeMap<InstanceId, InstanceRecord>,
) -> Result<(), Fault> {
    let held_by = |id: &InstanceId| items.get(id).and_then(|item| item.held);
    let (mut set, mut taken_away) = (Vec::new(), Vec::new());
    for (id, seen) in instances {
        match (seen.is_held, held_by(id)) {
            (true, None) if seen.life != Life::Ended => set.push(id.clone()),
            (false, Some(HeldBy::Tag)) => taken_away.push(id.clone()),
            _ => {}
        }
    }
    let changes = [(set, Some(HeldBy::Tag)), (taken_away, None)];
    for (ids, held) in changes.iter().filter(|(ids, _)| !ids.is_empty()) {
        control.table.hold(ids, *held).await?;
        items.extend(by_id(control.table.instances(ids).await?));
    }
    Ok(())
}

/// The nodes that something may be going on with.
async fn names<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    items: &BTreeMap<InstanceId, InstanceRecord>,
    slurm: Option<&SlurmReport>,
    whole: bool,
) -> Result<BTreeSet<NodeName>, Fault> {
    let table = &control.table;
    let listed = if whole {
        table.every_node().await?
    } else {
        let (mut active, due) =
            try_join(table.active_nodes(), table.nodes_with_update_due()).await?;
        active.extend(due);
        active
    };
    let mut names: BTreeSet<NodeName> = listed.into_iter().collect();
    // The index may lag: what instances and slurmctld name is looked at as well.
    names.extend(items.values().filter_map(|item| item.node.clone()));
    let noticed = slurm.into_iter().flat_map(|slurm| &slurm.nodes);
    names.extend(
        noticed
            .filter(|(_, node)| node.generation.is_some())
            .map(|(name, _)| name.clone()),
    );
    Ok(names)
}

async fn pairings<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    names: &BTreeSet<NodeName>,
) -> Result<BTreeMap<NodeName, Pairing>, Fault> {
    let names: Vec<NodeName> = names.iter().cloned().collect();
    let stored = control.table.pairings(&names).await?;
    let known = stored.into_iter().filter(|stored| stored.version > 0);
    Ok(known
        .map(|Stored { record, .. }| (record.node.clone(), record))
        .collect())
}

/// What the site does with the nodes whose instances fail EC2's status checks.
fn notices(
    policy: Option<&Policy>,
    instances: &BTreeMap<InstanceId, SeenInstance>,
    pairings: &BTreeMap<NodeName, Pairing>,
) -> BTreeMap<NodeName, NoticePolicy> {
    let is_impaired = |id: &InstanceId| instances.get(id).is_some_and(|seen| seen.is_impaired);
    let impaired = pairings
        .values()
        .filter(|pairing| pairing.instance().is_some_and(is_impaired));
    let of = |policy: &Policy| {
        let named =
            impaired.map(|pairing| (pairing.node.clone(), policy.notices_of(&pairing.node)));
        named.collect()
    };
    policy.map(of).unwrap_or_default()
}

/// The launches that nodes wait for, and those that instances without a node came from.
async fn requests<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    snapshot: &Snapshot,
) -> Result<BTreeMap<LaunchKey, SeenRequest>, Fault> {
    let waited_for = snapshot
        .pairings
        .values()
        .filter_map(|pairing| match &pairing.state {
            PairingState::Requested { launch, .. } => Some(launch.clone()),
            _ => None,
        });
    let came_from = unowned(snapshot).filter_map(|(_, seen)| seen.launch.clone());
    let keys: BTreeSet<LaunchKey> = waited_for.chain(came_from).collect();
    let reads: Vec<_> = keys
        .into_iter()
        .map(async |key| Ok((key.clone(), control.table.request(&key).await?)))
        .collect();
    let read: Vec<(LaunchKey, Option<Stored<RequestRecord>>)> = stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await?;
    let seen = |record: RequestRecord| SeenRequest {
        is_done: record.done,
        lease_until_ms: record.lease_until_ms,
        deadline_ms: record.request.deadline_ms,
    };
    Ok(read
        .into_iter()
        .filter_map(|(key, stored)| Some((key, seen(stored?.record))))
        .collect())
}
