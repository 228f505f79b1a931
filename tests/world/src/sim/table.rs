//! The state table in memory. Writes are conditional as the adapter's are (`functions/aws/src/dynamo`).

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{InstanceWrite, PairingWrite, Table};
use spillway_control::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, HeldBy, InstanceRecord, LaunchAnswer,
    NodeStatesRecord, Origin, RequestRecord, Stored,
};
use spillway_control::shared::Shared;
use spillway_core::config::Policy;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{LaunchKey, Pairing, PairingState};
use spillway_core::plan::InstanceState;

use super::names::{Call, Trouble};
use super::port::{Port, fault};
use super::setting::Setting;
use super::store::Store;
use super::words;
use super::world::World;

/// What the table holds.
#[derive(Debug)]
pub(crate) struct Records {
    pub policy: Policy,
    pub pairings: Store<NodeName, Pairing>,
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// Items in state paired, by node.
    pub paired: BTreeMap<NodeName, BTreeSet<InstanceId>>,
    /// Records that many write, by kind and name.
    shared: Store<(&'static str, String), Arc<dyn Any + Send + Sync>>,
    pub requests: Store<LaunchKey, RequestRecord>,
    attempts: Store<AttemptKey, AttemptRecord>,
    heartbeat: Option<HeartbeatRecord>,
    pub node_states: Option<NodeStatesRecord>,
}

impl Records {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            policy: setting.policy.clone(),
            pairings: Store::default(),
            instances: BTreeMap::new(),
            paired: BTreeMap::new(),
            shared: Store::default(),
            requests: Store::default(),
            attempts: Store::default(),
            heartbeat: None,
            node_states: None,
        }
    }

    /// A record that many write.
    pub(crate) fn shared<S: Shared>(&self, name: &str) -> Stored<S> {
        let stored = self.shared.get(&(S::KIND, name.to_owned()));
        stored.map_or_else(
            || Stored {
                record: S::default(),
                version: 0,
            },
            |Stored { record, version }| Stored {
                record: record
                    .downcast_ref::<S>()
                    .expect("a kind has one type")
                    .clone(),
                version: *version,
            },
        )
    }

    pub(crate) fn pairing(&self, node: &NodeName) -> Stored<Pairing> {
        let new = || Stored {
            record: Pairing::new(node.clone()),
            version: 0,
        };
        self.pairings.get(node).cloned().unwrap_or_else(new)
    }

    pub(crate) fn instance_state(&self, id: &InstanceId) -> Option<InstanceState> {
        self.instances.get(id).map(|record| record.state)
    }

    /// Whether the write of an instance may be made.
    fn allows(&self, write: &InstanceWrite) -> bool {
        match write {
            InstanceWrite::Pair { instance_id, .. } => matches!(
                self.instance_state(instance_id),
                None | Some(InstanceState::Paired)
            ),
            // One that is terminated stays so; the node is written without it.
            InstanceWrite::Release(_) => true,
            InstanceWrite::Admit(instance_id) => self.instances.contains_key(instance_id),
        }
    }

    fn write_instance(&mut self, pairing: &Pairing, write: &InstanceWrite) {
        match write {
            InstanceWrite::Pair {
                instance_id,
                address,
                deadline_ms,
                origin,
                pool,
            } => {
                let item = self.item(instance_id, InstanceState::Paired);
                item.state = InstanceState::Paired;
                item.node = Some(pairing.node.clone());
                item.generation = Some(pairing.generation);
                item.address = Some(*address);
                item.deadline_ms = Some(*deadline_ms);
                item.origin = origin.clone().or(item.origin.take());
                item.pool = pool.clone().or(item.pool.take());
                let paired = self.paired.entry(pairing.node.clone()).or_default();
                paired.insert(instance_id.clone());
            }
            InstanceWrite::Release(instance_id) => self.release(instance_id),
            InstanceWrite::Admit(instance_id) => {
                if let Some(item) = self.instances.get_mut(instance_id) {
                    item.acknowledged_generation = Some(pairing.generation);
                }
            }
        }
    }

    fn release(&mut self, id: &InstanceId) {
        let item = self.item(id, InstanceState::Released);
        if item.state != InstanceState::Terminated {
            item.state = InstanceState::Released;
        }
        if let Some(node) = item.node.clone()
            && let Some(paired) = self.paired.get_mut(&node)
        {
            paired.remove(id);
        }
    }

    fn item(&mut self, id: &InstanceId, state: InstanceState) -> &mut InstanceRecord {
        let new = || InstanceRecord {
            instance_id: id.clone(),
            state,
            node: None,
            generation: None,
            acknowledged_generation: None,
            address: None,
            deadline_ms: None,
            origin: None,
            held: None,
            pool: None,
            unknown_since_ms: None,
        };
        self.instances.entry(id.clone()).or_insert_with(new)
    }
}

impl World {
    fn write_pairing(&mut self, write: &PairingWrite) -> bool {
        let node = &write.pairing.node;
        let old = self.records.pairing(node);
        let allowed = write
            .instance
            .as_ref()
            .is_none_or(|instance| self.records.allows(instance));
        if !allowed || old.version != write.expected_version {
            return false;
        }
        self.records.pairings.put(node, &write.pairing, old.version);
        if let Some(instance) = &write.instance {
            self.records.write_instance(&write.pairing, instance);
        }
        self.tell(|| {
            let instance = write.instance.as_ref();
            format!("   {}", words::pairing(&write.pairing, instance))
        });
        self.record_change(&old.record, &write.pairing);
        self.watch_pairing(&old.record, &write.pairing);
        if let Some(InstanceWrite::Pair { instance_id, .. }) = &write.instance {
            self.watch_owner(instance_id, node);
        }
        true
    }

    fn release_unpaired(&mut self, ids: &[InstanceId], origin: &Origin) {
        for id in ids {
            let state = self.records.instance_state(id);
            if matches!(state, None | Some(InstanceState::Released)) {
                self.records.release(id);
                let item = self.records.item(id, InstanceState::Released);
                item.origin.get_or_insert_with(|| origin.clone());
                self.tell(|| format!("   {id} is released: no node took it"));
            }
        }
    }

    fn mark_terminated(&mut self, ids: &[InstanceId]) -> Vec<InstanceId> {
        let mut marked = Vec::new();
        for id in ids {
            if let Some(item) = self.records.instances.get_mut(id)
                && item.state == InstanceState::Released
            {
                item.state = InstanceState::Terminated;
                marked.push(id.clone());
            }
        }
        marked
    }

    /// What an index shows, which may lag.
    fn indexed(&mut self, which: fn(&Pairing) -> bool, lagging: bool) -> Vec<NodeName> {
        let pairings = self.records.pairings.iter();
        let found = pairings.filter(|(_, pairing)| which(pairing));
        let mut found: Vec<NodeName> = found.map(|(node, _)| node.clone()).collect();
        if lagging {
            found.retain(|_| self.rng.bool());
        }
        found
    }

    fn release_orphan(&mut self, id: &InstanceId, seen: Option<&InstanceRecord>) -> bool {
        let known = |record: &InstanceRecord| (record.state, record.generation);
        if self.records.instances.get(id).map(known) != seen.map(known) {
            return false;
        }
        self.records.release(id);
        let item = self.records.item(id, InstanceState::Released);
        item.state = InstanceState::Released;
        item.unknown_since_ms = None;
        self.tell(|| format!("   {id} is released: nobody owns it"));
        true
    }
}

impl Table for Port {
    async fn policy(&self) -> Result<Option<Policy>, Fault> {
        let effect = |world: &mut World, _| Some(world.records.policy.clone());
        self.call(Call::Policy, effect).await
    }

    async fn pairings(&self, nodes: &[NodeName]) -> Result<Vec<Stored<Pairing>>, Fault> {
        let effect = |world: &mut World, _| {
            let of = |node| world.records.pairing(node);
            nodes.iter().map(of).collect()
        };
        self.call(Call::Pairings, effect).await
    }

    async fn write_pairings(&self, writes: &[PairingWrite]) -> Result<Vec<bool>, Fault> {
        let mut first: Option<Vec<bool>> = None;
        // DynamoDB knows a transaction that the SDK repeats by its ClientRequestToken.
        let effect = |world: &mut World, _| {
            let write = || {
                writes
                    .iter()
                    .map(|write| world.write_pairing(write))
                    .collect()
            };
            first.get_or_insert_with(write).clone()
        };
        self.call(Call::WritePairings, effect).await
    }

    async fn nodes_with_update_due(&self) -> Result<Vec<NodeName>, Fault> {
        let is_due = |pairing: &Pairing| pairing.update_due.is_some();
        self.index(Call::NodesWithUpdateDue, is_due).await
    }

    async fn active_nodes(&self) -> Result<Vec<NodeName>, Fault> {
        let is_active = |pairing: &Pairing| pairing.state != PairingState::Free;
        self.index(Call::ActiveNodes, is_active).await
    }

    async fn every_node(&self) -> Result<Vec<NodeName>, Fault> {
        let effect = |world: &mut World, _| world.indexed(|_| true, false);
        self.call(Call::EveryNode, effect).await
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<InstanceRecord>, Fault> {
        let effect = |world: &mut World, _| {
            let distinct: BTreeSet<&InstanceId> = ids.iter().collect();
            let found = distinct
                .into_iter()
                .filter_map(|id| world.records.instances.get(id));
            found.cloned().collect()
        };
        self.call(Call::Instances, effect).await
    }

    async fn release_unpaired(&self, ids: &[InstanceId], origin: &Origin) -> Result<(), Fault> {
        let effect = |world: &mut World, _| world.release_unpaired(ids, origin);
        self.call(Call::ReleaseUnpaired, effect).await
    }

    async fn release_orphan(
        &self,
        id: &InstanceId,
        seen: Option<&InstanceRecord>,
    ) -> Result<bool, Fault> {
        // Repeated, it finds its own mark and counts as not made.
        let effect = |world: &mut World, _| world.release_orphan(id, seen);
        self.call(Call::ReleaseOrphan, effect).await
    }

    async fn hold(&self, ids: &[InstanceId], held: Option<HeldBy>) -> Result<(), Fault> {
        let effect = |world: &mut World, _| {
            for id in ids {
                world.records.item(id, InstanceState::Released).held = held;
            }
        };
        self.call(Call::Hold, effect).await
    }

    async fn note_unknown(&self, ids: &[InstanceId], now_ms: u64) -> Result<(), Fault> {
        let effect = |world: &mut World, _| {
            for id in ids {
                if let Some(item) = world.records.instances.get_mut(id)
                    && item.state == InstanceState::Released
                {
                    item.unknown_since_ms.get_or_insert(now_ms);
                }
            }
        };
        self.call(Call::NoteUnknown, effect).await
    }

    async fn mark_terminated(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, Fault> {
        // Repeated, each is found marked and counts as not marked by this call.
        let effect = |world: &mut World, _| world.mark_terminated(ids);
        self.call(Call::MarkTerminated, effect).await
    }

    async fn shared<S: Shared>(&self, name: &str) -> Result<Stored<S>, Fault> {
        let (read, _) = Call::of_shared(S::KIND);
        self.call(read, |world: &mut World, _| world.records.shared(name))
            .await
    }

    async fn put_shared<S: Shared>(
        &self,
        name: &str,
        record: &S,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        let (_, write) = Call::of_shared(S::KIND);
        let key = (S::KIND, name.to_owned());
        let record: Arc<dyn Any + Send + Sync> = Arc::new(record.clone());
        let store = |world: &mut World| world.records.shared.put(&key, &record, expected_version);
        let version = |world: &World| world.records.shared.version(&key);
        self.put(write, expected_version, store, version).await
    }

    async fn request(&self, key: &LaunchKey) -> Result<Option<Stored<RequestRecord>>, Fault> {
        let effect = |world: &mut World, _| world.records.requests.get(key).cloned();
        self.call(Call::Request, effect).await
    }

    async fn put_request(
        &self,
        key: &LaunchKey,
        record: &RequestRecord,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        let store = |world: &mut World| {
            let written = world.records.requests.put(key, record, expected_version);
            if written && record.done {
                world.tell(|| format!("   launch {} part {} is done", key.request_id, key.part));
                world.watch_done(key, record);
            }
            written
        };
        let version = |world: &World| world.records.requests.version(key);
        self.put(Call::PutRequest, expected_version, store, version)
            .await
    }

    async fn attempt(&self, key: &AttemptKey) -> Result<Option<AttemptRecord>, Fault> {
        let effect = |world: &mut World, _| {
            let stored = world.records.attempts.get(key);
            stored.map(|stored| stored.record.clone())
        };
        self.call(Call::Attempt, effect).await
    }

    async fn put_attempt(&self, key: &AttemptKey, record: &AttemptRecord) -> Result<bool, Fault> {
        let store = |world: &mut World| world.records.attempts.put(key, record, 0);
        let version = |world: &World| world.records.attempts.version(key);
        self.put(Call::PutAttempt, 0, store, version).await
    }

    async fn answer_attempt(&self, key: &AttemptKey, answer: &LaunchAnswer) -> Result<(), Fault> {
        let call = Call::AnswerAttempt;
        let effect = |world: &mut World, _| {
            let there = world.records.attempts.get(key).cloned();
            let Stored {
                mut record,
                version,
            } = there.ok_or_else(|| fault(call, FaultKind::Invalid, "NoSuchAttempt"))?;
            record.answer = Some(answer.clone());
            world.records.attempts.put(key, &record, version);
            Ok(())
        };
        self.call(call, effect).await?
    }

    async fn heartbeat(&self) -> Result<Option<HeartbeatRecord>, Fault> {
        let effect = |world: &mut World, _| world.records.heartbeat.clone();
        self.call(Call::Heartbeat, effect).await
    }

    async fn put_heartbeat(&self, record: &HeartbeatRecord) -> Result<(), Fault> {
        let effect = |world: &mut World, _| {
            let there = &mut world.records.heartbeat;
            if there
                .as_ref()
                .is_none_or(|there| there.received_ms < record.received_ms)
            {
                *there = Some(record.clone());
            }
        };
        self.call(Call::PutHeartbeat, effect).await
    }

    async fn node_states(&self) -> Result<Option<NodeStatesRecord>, Fault> {
        let effect = |world: &mut World, _| world.records.node_states.clone();
        self.call(Call::NodeStates, effect).await
    }

    async fn put_node_states(&self, record: &NodeStatesRecord) -> Result<(), Fault> {
        let effect = |world: &mut World, _| {
            let there = &mut world.records.node_states;
            if there
                .as_ref()
                .is_none_or(|there| there.observed_ms < record.observed_ms)
            {
                *there = Some(record.clone());
            }
        };
        self.call(Call::PutNodeStates, effect).await
    }
}

impl Port {
    async fn index(&self, call: Call, which: fn(&Pairing) -> bool) -> Result<Vec<NodeName>, Fault> {
        let way = self.way(call);
        self.there(call, way).await?;
        let lagging = way.trouble == Some(Trouble::Lagging);
        let found = self.shared.lock().indexed(which, lagging);
        self.back(call, way).await?;
        Ok(found)
    }

    /// A conditional write. Repeated by the SDK, what this very call wrote counts as written, unless it was
    /// overwritten meanwhile.
    async fn put(
        &self,
        call: Call,
        expected_version: u64,
        mut store: impl FnMut(&mut World) -> bool + Send,
        version: impl Fn(&World) -> u64 + Send + Sync,
    ) -> Result<bool, Fault> {
        let mut written = false;
        let effect = |world: &mut World, again| {
            written = if again {
                written && version(world) == expected_version + 1
            } else {
                store(world)
            };
            written
        };
        self.call(call, effect).await
    }
}
