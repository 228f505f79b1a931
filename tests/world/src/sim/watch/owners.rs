//! For whom instances are held: no partition, account or user runs more than its caps allow, each instance is held for
//! whose job its node was launched for, and the record never holds less for anyone than runs.

use std::collections::BTreeMap;

use spillway_control::record::Origin;
use spillway_control::shared::ONLY;
use spillway_core::config::OwnerLimits;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::usage::{Owner, Usage};

use super::CAPS;
use crate::sim::world::World;

impl World {
    /// An instance was given a node.
    pub(crate) fn watch_owner(&mut self, id: &InstanceId, node: &NodeName) {
        let origin = self
            .records
            .instances
            .get(id)
            .and_then(|item| item.origin.clone());
        let Some(Origin {
            launch,
            node_group,
            owner,
        }) = origin
        else {
            return self.violate(
                CAPS,
                vec![id.to_string()],
                format!("{id} is held for nobody"),
            );
        };
        let Some(stored) = self.records.requests.get(&launch) else {
            return;
        };
        let holds = stored.record.plan.clone().unwrap_or_default().holds;
        let jobs = holds.jobs(&stored.record.request);
        let meant = holds.owners(&jobs, &node_group, [node.clone()]);
        if meant.get(node) != Some(&owner) {
            let what = format!("{id} is held for {owner}, its node for {meant:?}");
            self.violate(CAPS, vec![id.to_string(), node.to_string()], what);
        }
        self.watch_owners_caps(id);
    }

    fn watch_owners_caps(&mut self, id: &InstanceId) {
        let limits = &self.setting.policy.limits;
        let mut most: Vec<(String, OwnerLimits)> = Vec::new();
        let mut run: BTreeMap<String, u32> = BTreeMap::new();
        for (owner, count) in self.running() {
            let partition = owner.partition.as_ref();
            let own = partition.and_then(|name| self.setting.policy.partitions.get(name));
            for (holder, caps) in [
                (format!("user {}", owner.user), limits.per_user),
                (format!("account {}", owner.account), limits.per_account),
                (
                    format!("partition {partition:?}"),
                    own.map(|own| own.limits).unwrap_or_default(),
                ),
            ] {
                *run.entry(holder.clone()).or_default() += count;
                most.push((holder, caps));
            }
        }
        let is_over = |(holder, caps): &&(String, OwnerLimits)| {
            caps.max_nodes.is_some_and(|most| run[holder] > most)
                || caps
                    .max_vcpus
                    .is_some_and(|most| run[holder] * super::super::setting::CPUS > most)
        };
        if let Some((holder, caps)) = most.iter().find(is_over) {
            let what = format!("{} nodes of {holder}, allowed {caps:?}", run[holder]);
            self.violate(CAPS, vec![id.to_string()], what);
        }
    }

    /// How many instances run for each owner, as their items say.
    fn running(&self) -> BTreeMap<Owner, u32> {
        let mut running = BTreeMap::new();
        for id in self.cloud.live.keys() {
            let item = InstanceId::new(id.clone()).ok();
            let item = item.and_then(|id| self.records.instances.get(&id));
            if let Some(origin) = item.and_then(|item| item.origin.as_ref()) {
                *running.entry(origin.owner.clone()).or_default() += 1;
            }
        }
        running
    }

    /// Nothing moves any more.
    pub(super) fn watch_end_of_owners(&mut self) {
        let usage = self.records.shared::<Usage>(ONLY).record;
        for (owner, count) in self.running() {
            let held = usage.nodes_for(|other| *other == owner);
            if held < count {
                let what = format!("{count} instances of {owner} run and {held} are counted");
                self.violate(CAPS, Vec::new(), what);
            }
        }
    }
}
