//! What slurmctld says: nodes that it holds otherwise than we do, and nodes that it does not get out of a state.

use std::net::IpAddr;

use super::{Finding, FindingKind, Heal, Mark, SlurmNode, SlurmReport, Sweep};
use crate::name::NodeName;
use crate::node_state::NodeState;
use crate::pairing::{Pairing, PairingState};

/// Clocks of two programs on the head node are one clock; a request is stamped after slurmctld has changed the node.
const STAMP_MARGIN_MS: u64 = 1_000;

/// What a reason says of a node that slurmctld holds down.
pub const HELD_DOWN: &str = "slurmctld holds the node down";
/// What it says where the node is not as slurm.conf has it.
pub const REGISTRATION_REFUSED: &str = "slurmctld refuses the node's registration";
/// What it says where something else runs slurmd under the node's name.
pub const REGISTERED_AS_IT: &str = "registered as this node";

impl<'a> Sweep<'a> {
    /// slurmctld's word on a node, where it was given after the node's last request was stamped.
    fn news_of(&self, pairing: &Pairing) -> Option<&'a SlurmNode> {
        let slurm = self.fresh_slurm()?;
        let node = slurm.nodes.get(&pairing.node)?;
        let stamped_ms = pairing.generation.at_ms();
        let is_later = slurm.observed_ms > stamped_ms + STAMP_MARGIN_MS;
        let is_same = node
            .generation
            .is_none_or(|generation| generation == pairing.generation.get());
        (is_later && is_same).then_some(node)
    }

    fn fresh_slurm(&self) -> Option<&'a SlurmReport> {
        let slurm = self.snapshot.slurm.as_ref()?;
        let age_ms = self.snapshot.now_ms.saturating_sub(slurm.observed_ms);
        (age_ms < super::SLURM_REPORT_STALE_MS).then_some(slurm)
    }

    /// What slurmctld says of a node that has an instance, or waits for one.
    pub(super) fn of_slurm(&mut self, pairing: &Pairing) -> Option<Finding> {
        let node = self.news_of(pairing)?;
        let (state, name) = (node.state(), &pairing.node);
        let confirm_ms = self.confirm_ms();
        if pairing.state == PairingState::Free {
            return None;
        }
        if state.is_at_rest() {
            let lasts = self
                .marks
                .has_lasted(Mark::Unwanted(name.clone()), confirm_ms);
            let reason = format!("Slurm holds {name} powered down");
            let heal = lasts.then_some(Heal::LetGo {
                generation: pairing.generation,
            });
            return Some(Finding::of(FindingKind::Unwanted, pairing, reason, heal));
        }
        let instance = pairing.instance()?;
        if let Some(leaving) = pairing.leaving()
            && leaving.until_ms.is_none()
            && state.has("DRAIN")
            && !state.has_job()
        {
            let reason = format!("{}; {instance} is replaced", leaving.reason);
            let heal = Some(Heal::Fail);
            return Some(Finding::of(FindingKind::Drained, pairing, reason, heal));
        }
        if let Some(how) = complaint(state)
            && !node.is_set_by_hand
        {
            let lasts = self.marks.has_lasted(Mark::Down(name.clone()), confirm_ms);
            let why = node.reason.as_deref().unwrap_or("no reason given");
            let reason = format!("spillway: {how} ({why}); {instance} is replaced");
            let heal = lasts.then_some(Heal::Fail);
            return Some(Finding::of(FindingKind::Down, pairing, reason, heal));
        }
        self.stranger(pairing, node, confirm_ms)
    }

    /// Whether something else than its instance has registered for it.
    fn stranger(
        &mut self,
        pairing: &Pairing,
        node: &SlurmNode,
        confirm_ms: u64,
    ) -> Option<Finding> {
        let PairingState::Ready {
            instance, address, ..
        } = &pairing.state
        else {
            return None;
        };
        if node.state().is_let_go() || node.state().is_coming() {
            return None;
        }
        // A name says nothing: it may be resolved to anything.
        let registered: IpAddr = node.address.as_deref()?.parse().ok()?;
        if registered == *address {
            return None;
        }
        let mark = Mark::Stranger(pairing.node.clone());
        let lasts = self.marks.has_lasted(mark, confirm_ms);
        let reason = format!(
            "spillway: {registered} {REGISTERED_AS_IT}, its instance {instance} is at {address}"
        );
        let heal = lasts.then_some(Heal::Fail);
        Some(Finding::of(FindingKind::Stranger, pairing, reason, heal))
    }

    /// Nodes that nothing serves and that slurmctld does not get out of their state.
    pub(super) fn slurm_nodes(&mut self) {
        let Some(slurm) = self.fresh_slurm() else {
            return;
        };
        for (name, node) in &slurm.nodes {
            let pairing = self.snapshot.pairings.get(name);
            let is_busy = pairing.is_some_and(|pairing| {
                pairing.state != PairingState::Free || pairing.update_due.is_some()
            });
            if is_busy || node.is_set_by_hand {
                continue;
            }
            let found = self.wedged(name, node);
            self.findings.extend(found);
        }
    }

    /// `node` has no instance, and nothing is on its way.
    fn wedged(&mut self, name: &NodeName, node: &SlurmNode) -> Option<Finding> {
        let state = node.state();
        // At rest and well, only its state is told.
        let generation = node.generation?;
        if state.has_job() || state.is_coming() {
            return None;
        }
        let least_ms = if state.has("POWERING_DOWN") || state.has("POWER_DOWN") {
            // Slurm ends that by itself.
            2 * self.snapshot.suspend_timeout_ms + self.confirm_ms()
        } else if state.has("POWERED_DOWN") && !state.is_unusable() {
            return None;
        } else {
            self.confirm_ms()
        };
        let lasts = self.marks.has_lasted(Mark::Wedged(name.clone()), least_ms);
        let why = node.reason.as_deref().unwrap_or("no reason given");
        let reason = format!(
            "spillway: nothing serves this node and it was {} ({why})",
            state.0
        );
        Some(Finding {
            what: FindingKind::Wedged,
            node: Some(name.clone()),
            instance: None,
            reason,
            heal: lasts.then_some(Heal::Recover { generation }),
        })
    }
}

/// What slurmctld has against a node that is up, so that no job can be given to it.
fn complaint(state: NodeState<'_>) -> Option<&'static str> {
    if state.is_let_go() {
        None
    } else if state.has("DOWN") {
        Some(HELD_DOWN)
    } else if state.has("INVALID_REG") && !state.has_job() {
        Some(REGISTRATION_REFUSED)
    } else {
        None
    }
}
