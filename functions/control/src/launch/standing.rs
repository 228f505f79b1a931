//! How a chunk stands: which of its nodes wait, which instances there are for them; and pairing the two.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::capacity::Capacity;
use spillway_core::config::CapacityKind;
use spillway_core::envelope::JobNote;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{Event, PairingState};
use spillway_core::plan::Recipe;
use spillway_core::usage::Owner;

use super::LaunchError;
use super::chunk::Work;
use super::gang::Gathered;
use super::history::History;
use super::note;
use crate::health;
use crate::pairings::{Applied, Source, apply_of, ask_termination};
use crate::ports::{Clock, Ec2, InstanceSeen, Queues, Table};
use crate::record::InstanceRecord;
use crate::shared::ONLY;
use crate::tally::Tally;

/// How often addresses are looked for within one invocation before a timer takes over.
const ADDRESS_LOOKS: u32 = 5;

/// How long between two looks for addresses.
const ADDRESS_LOOK_MS: u64 = 500;

/// A chunk's nodes and instances as they stand.
#[derive(Debug)]
pub(super) struct Standing {
    /// Nodes that wait for an instance of this launch.
    pub wanted: BTreeSet<NodeName>,
    /// How many instances there are for them, with or without an address yet.
    pub spare: usize,
    /// How many more may be launched: a launch has no more instances than nodes, ever. Were those replaced that end before
    /// they serve (a key of a volume that EC2 may not use ends each at once), a launch could go on for an hour.
    pub launchable: usize,
    /// What EC2 showed of the chunk; none if there was no need to ask.
    pub seen: Option<Vec<InstanceSeen>>,
}

/// Instances that serve no node yet.
struct Free<'a> {
    /// With an address.
    ready: Vec<&'a InstanceSeen>,
    /// All but the dead.
    count: usize,
}

impl<'a> Free<'a> {
    /// An instance that EC2 does not show yet is not dead.
    fn of(unpaired: &BTreeSet<InstanceId>, seen: &'a [InstanceSeen]) -> Self {
        let ours = seen
            .iter()
            .filter(|instance| unpaired.contains(&instance.instance_id));
        let (alive, dead): (Vec<_>, Vec<_>) = ours.partition(|instance| instance.is_alive());
        Self {
            count: unpaired.len() - dead.len(),
            ready: alive
                .into_iter()
                .filter(|instance| instance.address.is_some())
                .collect(),
        }
    }
}

impl<T: Table, Q: Queues, C: Clock, E: Ec2> Work<'_, T, Q, C, E> {
    /// Pairs what has an address with nodes that wait, and answers how the chunk stands then.
    pub(super) async fn settle_in(
        &self,
        nodes: &BTreeSet<NodeName>,
        history: &History,
        tally: &mut Tally,
    ) -> Result<Standing, LaunchError> {
        let mut looks = 1;
        loop {
            let mut wanted = self.wanted(nodes).await?;
            let unpaired = self.unpaired(history).await?;
            let seen = if wanted.is_empty() || unpaired.is_empty() {
                None
            } else {
                Some(self.ec2.find(&self.tags()).await?)
            };
            let free = Free::of(&unpaired, seen.as_deref().unwrap_or_default());
            let paired = match self.gathered(&wanted, free.ready.len()).await? {
                Gathered::Here => self.pair(&wanted, &free, history).await?,
                Gathered::Waiting => BTreeSet::new(),
                Gathered::Failed { reason } => {
                    let nodes: Vec<NodeName> = wanted.iter().cloned().collect();
                    self.give_up(&nodes, &reason, None, tally).await?;
                    wanted.clear();
                    BTreeSet::new()
                }
            };
            wanted.retain(|node| !paired.contains(node));
            let no_address = free.count - free.ready.len();
            let is_last = looks == ADDRESS_LOOKS || !self.budget.lasts(&self.control.clock);
            if no_address == 0 || wanted.is_empty() || is_last {
                return Ok(Standing {
                    wanted,
                    spare: free.count - paired.len(),
                    launchable: nodes.len().saturating_sub(history.instances.len()),
                    seen,
                });
            }
            looks += 1;
            self.control.clock.sleep_ms(ADDRESS_LOOK_MS).await;
        }
    }

    /// Fails the nodes whose instances ended before they could serve. Answers whether there were any.
    pub(super) async fn fail_lost(
        &self,
        standing: &Standing,
        history: &History,
        tally: &mut Tally,
    ) -> Result<bool, LaunchError> {
        let may_come = standing.spare + standing.launchable;
        let served = self.units.share(&standing.wanted, may_come);
        let is_lost = |node: &&NodeName| !served.contains(node);
        let lost: Vec<NodeName> = standing.wanted.iter().filter(is_lost).cloned().collect();
        if lost.is_empty() {
            return Ok(false);
        }
        let seen = standing.seen.iter().flatten();
        let has_ended = |seen: &&InstanceSeen| {
            history.instances.contains(&seen.instance_id) && !seen.is_alive()
        };
        let ended: Vec<&InstanceSeen> = seen.filter(has_ended).collect();
        let mut reasons = ended.iter();
        let why = reasons.find_map(|seen| Some((&seen.instance_id, seen.state_reason.as_deref()?)));
        let reason = note::bounded(&why.map_or_else(
            || "spillway: its instance ended before it could serve".to_owned(),
            |(id, why)| format!("spillway: {id} ended before it could serve: {why}"),
        ));
        let group = &self.chunk.node_group;
        // One instance is enough for a gang to be lost as a whole.
        let count = ended.len().clamp(1, lost.len());
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        health::lost(self.control, group, count, &reason, tally).await?;
        self.give_up(&lost, &reason, None, tally).await?;
        Ok(true)
    }

    /// Pairs nodes with instances that are ready: each job's in turn, a gang's once all of them are. Answers the nodes.
    async fn pair(
        &self,
        wanted: &BTreeSet<NodeName>,
        free: &Free<'_>,
        history: &History,
    ) -> Result<BTreeSet<NodeName>, LaunchError> {
        if free.ready.is_empty() {
            return Ok(BTreeSet::new());
        }
        // Who will be served once all have their addresses; of them, who can be now.
        let meant = self.units.share(wanted, free.count).into_iter().collect();
        let now = self.units.share(&meant, free.ready.len());
        let instances: BTreeMap<&NodeName, &InstanceSeen> =
            now.iter().zip(free.ready.iter().copied()).collect();
        let notes = self.fallback_notes(&instances, history).await?;
        let events = instances.iter().filter_map(|(node, instance)| {
            let event = Event::Launched {
                launch: self.launch.clone(),
                instance: instance.instance_id.clone(),
                address: instance.address?,
                note: notes.get(*node).cloned(),
            };
            Some(((*node).clone(), event))
        });
        let source = |node: &NodeName| Source {
            origin: Some(self.origin(self.owner(node))),
            pool: instances.get(node).and_then(|seen| history.pool(seen)),
        };
        let applied = apply_of(self.control, events.collect(), source).await?;
        let over = applied.into_iter().filter_map(|applied| {
            let Applied {
                node, transition, ..
            } = applied;
            Some((transition.release?, self.owner(&node)))
        });
        let over: BTreeMap<InstanceId, &Owner> = over.collect();
        self.release(&over).await?;
        ask_termination(self.control, over.into_keys().collect()).await?;
        Ok(now.into_iter().collect())
    }

    /// What the jobs are told, by node, where the instance is not of the capacity kind that the group names first.
    async fn fallback_notes(
        &self,
        instances: &BTreeMap<&NodeName, &InstanceSeen>,
        history: &History,
    ) -> Result<BTreeMap<NodeName, JobNote>, LaunchError> {
        let Some(first) = self.recipes.first() else {
            return Ok(BTreeMap::new());
        };
        let other_kind = |(node, seen): (&&NodeName, &&InstanceSeen)| {
            let kind = history.kind(&seen.instance_id)?;
            (kind != first.capacity).then(|| ((*node).clone(), kind))
        };
        let kinds: BTreeMap<NodeName, CapacityKind> =
            instances.iter().filter_map(other_kind).collect();
        if kinds.is_empty() {
            return Ok(BTreeMap::new());
        }
        let why = match history.shortages_of(first.capacity) {
            Some(why) => why,
            None if history.has_asked(first.capacity) => note::NO_REASON.to_owned(),
            None => self.why_not_asked(first).await?,
        };
        let note = note::of_fallback(self.chunk, &kinds, &why);
        let nodes = kinds.into_keys();
        Ok(nodes
            .filter_map(|node| Some((node, note.clone()?)))
            .collect())
    }

    /// Why EC2 was not even asked by a recipe.
    async fn why_not_asked(&self, recipe: &Recipe) -> Result<String, LaunchError> {
        let capacity = self.control.table.shared::<Capacity>(ONLY).await?.record;
        let rests = capacity.resting(std::slice::from_ref(recipe), self.control.clock.now_ms());
        Ok(rests.unwrap_or_else(|| format!("{} had rested until now", recipe.capacity.as_str())))
    }

    /// Nodes that wait for an instance of this launch.
    async fn wanted(&self, nodes: &BTreeSet<NodeName>) -> Result<BTreeSet<NodeName>, LaunchError> {
        let nodes: Vec<NodeName> = nodes.iter().cloned().collect();
        let stored = self.control.table.pairings(&nodes).await?.into_iter();
        let waits = |state: &PairingState| matches!(state, PairingState::Requested { launch, .. } if launch == self.launch);
        let wanted = stored.filter(|stored| waits(&stored.record.state));
        Ok(wanted.map(|stored| stored.record.node).collect())
    }

    /// Nodes that have an instance of this launch, and which.
    pub(super) async fn paired(
        &self,
        nodes: &BTreeSet<NodeName>,
    ) -> Result<Vec<(NodeName, InstanceId)>, LaunchError> {
        let nodes: Vec<NodeName> = nodes.iter().cloned().collect();
        let stored = self.control.table.pairings(&nodes).await?.into_iter();
        let paired = stored.filter_map(|stored| match &stored.record.state {
            PairingState::Launched {
                launch, instance, ..
            } if launch == self.launch => Some((stored.record.node, instance.clone())),
            _ => None,
        });
        Ok(paired.collect())
    }

    async fn unpaired(&self, history: &History) -> Result<BTreeSet<InstanceId>, LaunchError> {
        let taken = self.taken(&history.instances).await?;
        let unpaired = history
            .instances
            .iter()
            .filter(|id| !taken.contains_key(*id));
        Ok(unpaired.cloned().collect())
    }

    /// Those of `ids` that serve a node, or did, and for whom they are held: an instance with an item was given a node
    /// once, or given back.
    pub(super) async fn taken(
        &self,
        ids: &BTreeSet<InstanceId>,
    ) -> Result<BTreeMap<InstanceId, Owner>, LaunchError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ids: Vec<InstanceId> = ids.iter().cloned().collect();
        let records = self.control.table.instances(&ids).await?.into_iter();
        let of = |record: InstanceRecord| {
            let owner = record.origin.map(|origin| origin.owner);
            (record.instance_id, owner.unwrap_or_default())
        };
        Ok(records.map(of).collect())
    }
}
