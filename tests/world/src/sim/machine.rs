//! Instances from inside: they boot, find their own item, wait for their address to be acknowledged, start slurmd and
//! report, or say why not and shut down (`client/src/node/join.rs`).

use std::collections::BTreeMap;

use spillway_control::sender::Sender;
use spillway_core::message::{NodeFailed, NodeReady, ReportBody};
use spillway_core::name::{Generation, InstanceId};
use spillway_core::plan::InstanceState;

use super::names::{Call, Trouble};
use super::world::{Due, World};

/// It gives up by itself so long before the node's deadline.
const REPORT_AHEAD_MS: u64 = 5_000;
/// How long it waits to be paired at all.
const UNPAIRED_MS: u64 = 600_000;

#[derive(Debug)]
struct Machine {
    booted_ms: u64,
    trouble: Option<Trouble>,
    /// Generation that slurmd was started for, and when.
    slurmd: Option<(Generation, u64)>,
    /// It has nothing to do any more.
    rests: bool,
}

/// The instances that run.
#[derive(Debug, Default)]
pub(crate) struct Machines {
    machines: BTreeMap<String, Machine>,
}

impl Machines {
    pub(crate) fn are_settled(&self) -> bool {
        self.machines.values().all(|machine| machine.rests)
    }

    pub(crate) fn stop(&mut self, id: &str) {
        self.machines.remove(id);
    }
}

impl World {
    /// EC2 has started an instance.
    pub(crate) fn boots(&mut self, id: String) {
        let trouble = self.strike(Call::Boot, false);
        let mut after_ms = self.rng.u64(2_000..=60_000);
        if trouble == Some(Trouble::Slow) {
            after_ms += self.rng.u64(60_000..=400_000);
        }
        let machine = Machine {
            booted_ms: self.now_ms,
            trouble,
            slurmd: None,
            rests: trouble == Some(Trouble::Never),
        };
        self.machines.machines.insert(id.clone(), machine);
        if trouble != Some(Trouble::Never) {
            self.after(after_ms, Due::Machine(id));
        }
    }

    /// An instance looks at its item and goes on.
    pub(crate) fn machine_looks(&mut self, id: String) {
        let (Some(machine), Ok(instance)) =
            (self.machines.machines.get_mut(&id), InstanceId::new(&id))
        else {
            return;
        };
        let after_ms = self.rng.u64(800..=5_000);
        let Some(item) = self.records.instances.get(&instance) else {
            if self.now_ms > machine.booted_ms + UNPAIRED_MS {
                self.cannot_join(&instance, "no node was assigned to this instance");
            } else {
                self.after(after_ms, Due::Machine(id));
            }
            return;
        };
        let (Some(node), Some(generation)) = (item.node.clone(), item.generation) else {
            return self.shuts_down(&id);
        };
        if item.state != InstanceState::Paired {
            return self.shuts_down(&id);
        }
        if machine.trouble == Some(Trouble::Fails) {
            return self.cannot_join(&instance, "munge does not answer");
        }
        if item
            .deadline_ms
            .is_some_and(|at_ms| self.now_ms + REPORT_AHEAD_MS >= at_ms)
        {
            return self.cannot_join(&instance, "the time is up");
        }
        match machine.slurmd {
            Some((own, booted_ms)) if own == generation => {
                let node_index = self.slurm.index(&node);
                if node_index.is_some_and(|node| self.register(node, &id, booted_ms)) {
                    self.rests(&id);
                    let ready = NodeReady {
                        instance_id: instance.clone(),
                        node,
                        generation,
                    };
                    let sender = Sender::Instance(instance);
                    return self.send_report(ReportBody::Ready(ready), sender, 0);
                }
            }
            _ if item.acknowledged_generation == Some(generation) => {
                machine.slurmd = Some((generation, self.now_ms));
                self.tell(|| format!("   {id} starts slurmd for {node} at {generation}"));
            }
            _ => {}
        }
        self.after(after_ms, Due::Machine(id));
    }

    fn rests(&mut self, id: &str) {
        if let Some(machine) = self.machines.machines.get_mut(id) {
            machine.rests = true;
        }
    }

    fn cannot_join(&mut self, instance: &InstanceId, reason: &str) {
        let failed = NodeFailed {
            instance_id: instance.clone(),
            node: None,
            reason: reason.to_owned(),
        };
        self.tell(|| format!("   {instance} cannot join: {reason}"));
        self.send_report(
            ReportBody::Failed(failed),
            Sender::Instance(instance.clone()),
            0,
        );
        self.shuts_down(instance.as_str());
    }

    fn shuts_down(&mut self, id: &str) {
        self.cloud.ec2.shut_down_from_inside(self.now_ms, id);
        self.cloud_moved(None);
    }
}
