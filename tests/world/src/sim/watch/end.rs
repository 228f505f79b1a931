//! The invariants at the end, when nothing moves any more.

use spillway_control::shared::ONLY;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::usage::Usage;

use super::{CAPS, QUEUES, RUNS, TOLD};
use crate::sim::slurm::Power;
use crate::sim::world::World;

impl World {
    /// Nothing moves any more.
    pub(crate) fn watch_end(&mut self) {
        let dead = self.queues.iter().flat_map(|queue| &queue.dead);
        if let Some(message) = dead.into_iter().find(|message| !message.poison) {
            let what = format!(
                "a good message is in the dead-letter queue: {:?}",
                message.body
            );
            self.violate(QUEUES, Vec::new(), what);
        }
        let unfinished = self
            .records
            .requests
            .iter()
            .find(|(_, record)| !record.done);
        if let Some((key, record)) = unfinished {
            let what = format!(
                "launch {} of {} was never finished",
                key.request_id, record.request.nodes
            );
            self.violate(QUEUES, Vec::new(), what);
        }
        self.watch_end_of_instances();
        self.watch_end_of_owners();
        self.watch_end_of_nodes();
    }

    fn watch_end_of_instances(&mut self) {
        let live: Vec<InstanceId> = {
            let ids = self.cloud.live.keys();
            ids.filter_map(|id| InstanceId::new(id).ok()).collect()
        };
        for id in &live {
            let wanted = self.is_wanted(id);
            if wanted.is_none() || !self.is_paired(id) {
                let what = format!(
                    "{id} runs, and Slurm does not hold it up (item {:?})",
                    self.records.instances.get(id)
                );
                let node = self
                    .records
                    .instances
                    .get(id)
                    .and_then(|item| item.node.clone());
                let about = node.iter().map(ToString::to_string).chain([id.to_string()]);
                self.violate(RUNS, about.collect(), what);
            }
        }
        let held = self.records.shared::<Usage>(ONLY).record.nodes();
        if (held as usize) < live.len() {
            let what = format!("{} instances run and {held} are counted", live.len());
            self.violate(CAPS, Vec::new(), what);
        }
    }

    /// An update whose change the stream lost stays untold until a sweep or an agent's hello finds it: that, and what
    /// Slurm does not know because of it, is no violation while there is no sweep. Nor is an instance's end of which
    /// every event was lost.
    fn watch_end_of_nodes(&mut self) {
        let nodes: Vec<NodeName> = self
            .slurm
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .collect();
        for (index, name) in nodes.iter().enumerate() {
            let pairing = self.records.pairing(name).record;
            let due = pairing.update_due.as_ref();
            let lost = due.is_some_and(|due| {
                self.stream
                    .lost
                    .contains(&(name.clone(), due.number, due.attempt))
            });
            if lost {
                continue;
            }
            if due.is_some() {
                let what = format!("Slurm was never told of {name}: {due:?}");
                self.violate(TOLD, vec![name.to_string()], what);
            }
            let node = &self.slurm.nodes[index];
            let runs = |id: &String| self.cloud.live.contains_key(id);
            let untold = |id: &String| self.cloud.ended_untold.contains(id);
            if node.power == Power::Up
                && !node.instance.as_ref().is_some_and(runs)
                && !node.instance.as_ref().is_some_and(untold)
            {
                let what = format!(
                    "Slurm holds {name} up, and {:?} does not run",
                    node.instance
                );
                self.violate(TOLD, vec![name.to_string()], what);
            }
        }
    }
}
