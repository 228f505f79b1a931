//! What time says of our own records: deadlines, updates, launches, the spool, the head node.

use std::collections::BTreeMap;

use super::{Finding, FindingKind, Heal, LATE_MS, Sweep};
use crate::config::HeadNodeAway;
use crate::message::RESEND_SECONDS;
use crate::pairing::{LaunchKey, Pairing, PairingState};

/// A launch that nobody has worked on for so long is woken.
const STALLED_MS: u64 = 60_000;
/// A request that waits so long at the head node is stuck: the agent sends within a second.
const SPOOL_STUCK_MS: u64 = 120_000;

impl Sweep<'_> {
    /// Deadlines whose timer was lost, and updates that no timer tells again.
    pub(super) fn of_time(&mut self, pairing: &Pairing) -> Option<Finding> {
        let now_ms = self.snapshot.now_ms;
        if let PairingState::Requested { deadline_ms, .. }
        | PairingState::Launched { deadline_ms, .. } = &pairing.state
            && now_ms >= deadline_ms + LATE_MS
        {
            let reason = format!("{} has not joined by its deadline", pairing.node);
            let heal = Heal::Expire {
                generation: pairing.generation,
            };
            return Some(Finding::of(FindingKind::Late, pairing, reason, Some(heal)));
        }
        let due = pairing.update_due.as_ref()?;
        let age_ms = now_ms.saturating_sub(due.since_ms);
        // Each attempt has its timer; one that is two timers late has none.
        let expected_ms = (u64::from(due.attempt) + 2) * RESEND_SECONDS * 1000 + LATE_MS;
        (age_ms >= expected_ms).then(|| {
            let seconds = age_ms / 1000;
            let reason = format!(
                "Slurm has not acknowledged an update of {} for {seconds} s",
                pairing.node
            );
            let heal = Heal::TellAgain {
                attempt: due.attempt,
            };
            Finding::of(FindingKind::Untold, pairing, reason, Some(heal))
        })
    }

    /// Launches that nodes wait for and nobody works on.
    pub(super) fn launches(&mut self) {
        let mut waited_for: BTreeMap<&LaunchKey, &Pairing> = BTreeMap::new();
        for pairing in self.snapshot.pairings.values() {
            if let PairingState::Requested { launch, .. } = &pairing.state {
                waited_for.entry(launch).or_insert(pairing);
            }
        }
        for (launch, pairing) in waited_for {
            let request = self.snapshot.requests.get(launch);
            let is_stalled = request.is_some_and(|request| {
                !request.is_done && self.snapshot.now_ms >= request.lease_until_ms + STALLED_MS
            });
            if !is_stalled {
                continue;
            }
            let reason = format!("nobody works on request {}", launch.request_id);
            let heal = Some(Heal::GoOn {
                launch: launch.clone(),
            });
            let found = Finding::of(FindingKind::Stalled, pairing, reason, heal);
            self.findings.push(found);
        }
    }

    pub(super) fn spool(&mut self) {
        let Some(oldest_ms) = self.snapshot.head_node.oldest_spooled_ms else {
            return;
        };
        let age_ms = self.snapshot.now_ms.saturating_sub(oldest_ms);
        if age_ms >= SPOOL_STUCK_MS {
            let seconds = age_ms / 1000;
            self.findings.push(Finding {
                what: FindingKind::SpoolStuck,
                node: None,
                instance: None,
                reason: format!("a request has waited in the head node's spool for {seconds} s"),
                heal: None,
            });
        }
    }

    /// What the site wants when the head node is silent. None if it was never heard of: a site may have no agent.
    pub(super) fn of_head_node(&mut self, pairing: &Pairing) -> Option<Finding> {
        let policy = &self.snapshot.policy;
        let heard_ms = self.snapshot.head_node.heard_ms?;
        let silent_ms = self.snapshot.now_ms.saturating_sub(heard_ms);
        if silent_ms < u64::from(policy.head_node_away_minutes) * 60_000 {
            return None;
        }
        pairing.instance()?;
        let ran_a_job = || {
            // Old as it is, it is the last that is known.
            let slurm = self.snapshot.slurm.as_ref();
            let node = slurm.and_then(|slurm| slurm.nodes.get(&pairing.node));
            node.is_none_or(|node| node.state().has_job())
        };
        let goes = match policy.head_node_away {
            HeadNodeAway::Keep => false,
            HeadNodeAway::Drain => !ran_a_job(),
            HeadNodeAway::Terminate => true,
        };
        goes.then(|| {
            let minutes = silent_ms / 60_000;
            let reason = format!("spillway: the head node has been silent for {minutes} minutes");
            Finding::of(
                FindingKind::HeadNodeSilent,
                pairing,
                reason,
                Some(Heal::Fail),
            )
        })
    }
}
