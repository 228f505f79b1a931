//! The transitions of what no request of Slurm's asks for: an instance is about to go, is gone, is not wanted, or a node is
//! wedged without one.

use super::{DueAction, Event, Leaving, Pairing, PairingState, Transition};
use crate::name::{Generation, InstanceId};

/// Ends that lie closer together are the same one, told by the event and by the instance: the event's time is when it was
/// made, the instance's when it will be taken.
const SAME_END_MS: u64 = 5_000;
/// A wedged node is told to recover once in so long: twice the age that slurmctld's states usually have. Some need two
/// steps (docs/slurm-states.md).
pub const RECOVER_AGAIN_MS: u64 = 60_000;

impl Pairing {
    /// A node that has not joined yet has nothing to lose: it fails at once.
    pub(super) fn on_leaving(&self, event: &Event, now_ms: u64) -> Transition {
        let Event::Leaving {
            instance,
            reason,
            until_ms,
            signal,
            replace,
        } = event
        else {
            return self.stale();
        };
        match &self.state {
            PairingState::Launched { instance: own, .. } if own == instance => {
                self.failed(reason, now_ms)
            }
            PairingState::Ready {
                instance: own,
                address,
                leaving,
            } if own == instance => {
                // Told before: only a nearer end is news.
                let end_ms = |until_ms: Option<u64>| until_ms.unwrap_or(u64::MAX);
                if let Some(known) = leaving
                    && end_ms(*until_ms).saturating_add(SAME_END_MS) >= end_ms(known.until_ms)
                {
                    return self.repeated();
                }
                let mut next = self.clone();
                next.state = PairingState::Ready {
                    instance: own.clone(),
                    address: *address,
                    leaving: Some(Leaving {
                        reason: reason.clone(),
                        until_ms: *until_ms,
                        requeued: leaving.as_ref().is_some_and(|known| known.requeued),
                    }),
                };
                // What queues its jobs again drains it as well.
                if self.is_requeue_due() {
                    return self.accepted(next);
                }
                let action = DueAction::Drain {
                    reason: reason.clone(),
                    signal: signal.clone(),
                    // One replacement, however often the end comes nearer.
                    replace: *replace && (leaving.is_none() || self.is_replacement_due()),
                };
                next.fall_due(action, None, now_ms);
                self.accepted(next)
            }
            _ => self.stale(),
        }
    }

    fn is_replacement_due(&self) -> bool {
        let due = self.update_due.as_ref();
        due.is_some_and(|due| matches!(due.action, DueAction::Drain { replace: true, .. }))
    }

    fn is_requeue_due(&self) -> bool {
        let due = self.update_due.as_ref();
        due.is_some_and(|due| matches!(due.action, DueAction::Requeue { .. }))
    }

    pub(super) fn on_requeue(&self, instance: &InstanceId, now_ms: u64) -> Transition {
        let mut next = self.clone();
        let reason = match &mut next.state {
            PairingState::Ready {
                instance: own,
                leaving: Some(leaving),
                ..
            } if own == instance => {
                if leaving.requeued {
                    return self.repeated();
                }
                leaving.requeued = true;
                leaving.reason.clone()
            }
            _ => return self.stale(),
        };
        next.fall_due(DueAction::Requeue { reason }, None, now_ms);
        self.accepted(next)
    }

    pub(super) fn on_gone(&self, instance: &InstanceId, reason: &str, now_ms: u64) -> Transition {
        if self.instance() != Some(instance) {
            return self.stale();
        }
        let known = self.leaving().map(|leaving| leaving.reason.as_str());
        self.failed(known.unwrap_or(reason), now_ms)
    }

    /// Slurm has said its last word on this generation: nothing is left to tell it.
    pub(super) fn on_unwanted(&self, generation: Generation) -> Transition {
        if generation != self.generation || self.state == PairingState::Free {
            return self.stale();
        }
        let mut next = Self {
            update_due: None,
            ..self.clone()
        };
        next.let_go();
        self.accepted(next)
    }

    /// The head node's stamp counts where it is newer: our record may have been lost, or its request.
    pub(super) fn on_wedged(
        &self,
        generation: Generation,
        reason: &str,
        now_ms: u64,
    ) -> Transition {
        let is_recent = |at_ms: u64| now_ms < at_ms.saturating_add(RECOVER_AGAIN_MS);
        if generation < self.generation
            || self.state != PairingState::Free
            || self.update_due.is_some()
            || self.recovered_ms.is_some_and(is_recent)
        {
            return self.stale();
        }
        let mut next = Self {
            generation: generation.max(Generation::FIRST),
            recovered_ms: Some(now_ms),
            ..self.clone()
        };
        let reason = reason.to_owned();
        next.fall_due(DueAction::Recover { reason }, None, now_ms);
        self.accepted(next)
    }
}
