//! The transitions of the pairing state machine.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::{
    DueAction, DueCoolOff, DueUpdate, Event, LaunchKey, Pairing, PairingState, Transition, Verdict,
};
use crate::envelope::JobNote;
use crate::name::{Generation, InstanceId};
use crate::usage::over_limit;

impl Pairing {
    /// What `event` makes of this record.
    #[must_use]
    pub fn on(&self, event: &Event, now_ms: u64) -> Transition {
        let mut transition = self.decide(event, now_ms);
        if transition.verdict == Verdict::Accepted {
            transition.next.remember(event, self, now_ms);
        }
        transition
    }

    fn decide(&self, event: &Event, now_ms: u64) -> Transition {
        match event {
            Event::Resume {
                generation,
                launch,
                deadline_ms,
                launches_per_hour,
            } => self.on_resume(
                *generation,
                launch,
                *deadline_ms,
                *launches_per_hour,
                now_ms,
            ),
            Event::Suspend { generation } => self.on_suspend(*generation),
            Event::Launched {
                launch,
                instance,
                address,
                note,
            } => self.on_launched(launch, instance, *address, note.as_ref(), now_ms),
            Event::NotLaunched {
                launch,
                reason,
                cool_off,
                note,
            } => self.on_not_launched(launch, reason, cool_off.as_ref(), note.as_ref(), now_ms),
            Event::Ready {
                instance,
                generation,
            } => self.on_ready(instance, *generation),
            Event::Failed { instance, reason } => match &self.state {
                PairingState::Launched { instance: own, .. } if own == instance => {
                    self.failed(reason, now_ms)
                }
                _ => self.stale(),
            },
            Event::Deadline { generation } => self.on_deadline(*generation, now_ms),
            Event::Leaving { .. } => self.on_leaving(event, now_ms),
            Event::Requeue { instance } => self.on_requeue(instance, now_ms),
            Event::Gone { instance, reason } => self.on_gone(instance, reason, now_ms),
            Event::Unwanted { generation } => self.on_unwanted(*generation),
            Event::Wedged { generation, reason } => self.on_wedged(*generation, reason, now_ms),
            Event::Acknowledged { generation, number } => {
                self.on_acknowledged(*generation, *number)
            }
            Event::Unanswered { attempt } => self.on_unanswered(*attempt),
            Event::Dismissed { generation, number } => Transition {
                admit: None,
                ..self.on_acknowledged(*generation, *number)
            },
        }
    }

    fn on_resume(
        &self,
        generation: Generation,
        launch: &LaunchKey,
        deadline_ms: u64,
        launches_per_hour: u32,
        now_ms: u64,
    ) -> Transition {
        // A request that made the node wait for it, and was overtaken before its plan was stored, must still
        // be planned: the newer one relies on it.
        let mine =
            matches!(&self.state, PairingState::Requested { launch: own, .. } if own == launch);
        match generation.cmp(&self.generation) {
            Ordering::Less => {
                return Transition {
                    launch: mine,
                    ..self.stale()
                };
            }
            Ordering::Equal => {
                return Transition {
                    launch: mine,
                    ..self.repeated()
                };
            }
            Ordering::Greater => {}
        }
        let mut next = Self {
            generation,
            request_id: Some(launch.request_id.clone()),
            update_due: None,
            ..self.clone()
        };
        if now_ms >= deadline_ms {
            return self.refused(next, EXPIRED_REASON.to_owned(), now_ms);
        }
        match &mut next.state {
            PairingState::Requested {
                deadline_ms: own, ..
            } => {
                *own = deadline_ms;
                self.accepted(next)
            }
            PairingState::Launched {
                deadline_ms: own,
                instance,
                address,
                ..
            } => {
                *own = deadline_ms;
                let (instance, address) = (instance.clone(), *address);
                next.fall_due(DueAction::Address { address }, None, now_ms);
                Transition {
                    regenerate: Some(instance),
                    ..self.accepted(next)
                }
            }
            PairingState::Free | PairingState::Ready { .. } => {
                next.launches_ms
                    .retain(|launched_ms| launched_ms + HOUR_MS > now_ms);
                if next.launches_ms.len() >= launches_per_hour as usize {
                    return self.refused(
                        next,
                        launched_too_often_reason(launches_per_hour),
                        now_ms,
                    );
                }
                next.launches_ms.push(now_ms);
                next.let_go();
                next.state = PairingState::Requested {
                    launch: launch.clone(),
                    deadline_ms,
                };
                Transition {
                    launch: true,
                    ..self.accepted(next)
                }
            }
        }
    }

    fn on_suspend(&self, generation: Generation) -> Transition {
        if generation < self.generation {
            return self.stale();
        }
        if generation == self.generation {
            return Transition {
                release: self.released.clone(),
                ..self.repeated()
            };
        }
        let mut next = Self {
            generation,
            update_due: None,
            ..self.clone()
        };
        next.let_go();
        self.accepted(next)
    }

    fn on_launched(
        &self,
        launch: &LaunchKey,
        instance: &InstanceId,
        address: IpAddr,
        note: Option<&JobNote>,
        now_ms: u64,
    ) -> Transition {
        match &self.state {
            PairingState::Requested {
                launch: own,
                deadline_ms,
            } if own == launch => {
                let mut next = self.clone();
                next.state = PairingState::Launched {
                    launch: launch.clone(),
                    deadline_ms: *deadline_ms,
                    instance: instance.clone(),
                    address,
                };
                next.fall_due(DueAction::Address { address }, note.cloned(), now_ms);
                Transition {
                    regenerate: Some(instance.clone()),
                    ..self.accepted(next)
                }
            }
            _ if self.instance() == Some(instance) => self.repeated(),
            _ => Transition {
                release: Some(instance.clone()),
                ..self.stale()
            },
        }
    }

    fn on_not_launched(
        &self,
        launch: &LaunchKey,
        reason: &str,
        cool_off: Option<&DueCoolOff>,
        note: Option<&JobNote>,
        now_ms: u64,
    ) -> Transition {
        match &self.state {
            PairingState::Requested { launch: own, .. } if own == launch => {
                let mut next = self.clone();
                next.launches_ms.pop();
                next.let_go();
                let action = DueAction::Fail {
                    reason: reason.to_owned(),
                    cool_off: cool_off.cloned(),
                };
                next.fall_due(action, note.cloned(), now_ms);
                self.accepted(next)
            }
            _ => self.stale(),
        }
    }

    fn on_ready(&self, instance: &InstanceId, generation: Generation) -> Transition {
        match &self.state {
            PairingState::Launched {
                instance: own,
                address,
                ..
            } if own == instance && generation == self.generation => {
                let state = PairingState::Ready {
                    instance: own.clone(),
                    address: *address,
                    leaving: None,
                };
                self.accepted(Self {
                    state,
                    ..self.clone()
                })
            }
            PairingState::Ready { instance: own, .. } if own == instance => self.repeated(),
            _ => self.stale(),
        }
    }

    fn on_deadline(&self, generation: Generation, now_ms: u64) -> Transition {
        let reason = match &self.state {
            PairingState::Requested { deadline_ms, .. } if now_ms >= *deadline_ms => {
                NOT_LAUNCHED_IN_TIME_REASON.to_owned()
            }
            PairingState::Launched {
                deadline_ms,
                instance,
                ..
            } if now_ms >= *deadline_ms => not_joined_reason(instance),
            _ => return self.stale(),
        };
        if generation == self.generation {
            self.failed(&reason, now_ms)
        } else {
            self.stale()
        }
    }

    fn on_acknowledged(&self, generation: Generation, number: u64) -> Transition {
        match &self.update_due {
            Some(due) if due.number == number && generation == self.generation => {
                let admit = match (&due.action, &self.state) {
                    (DueAction::Address { .. }, PairingState::Launched { instance, .. }) => {
                        Some(instance.clone())
                    }
                    _ => None,
                };
                Transition {
                    admit,
                    ..self.accepted(Self {
                        update_due: None,
                        ..self.clone()
                    })
                }
            }
            None if generation == self.generation && number <= self.update_number => {
                self.repeated()
            }
            _ => self.stale(),
        }
    }

    fn on_unanswered(&self, attempt: Option<u32>) -> Transition {
        let mut next = self.clone();
        match &mut next.update_due {
            Some(due) if attempt.is_none_or(|attempt| attempt == due.attempt) => {
                due.attempt = due.attempt.saturating_add(1);
                self.accepted(next)
            }
            _ => self.stale(),
        }
    }

    /// The node will not come: tell slurmctld, let the instance go.
    pub(super) fn failed(&self, reason: &str, now_ms: u64) -> Transition {
        self.refused(self.clone(), reason.to_owned(), now_ms)
    }

    /// A resume that is accepted, so that nothing older counts any more, and refused at once.
    fn refused(&self, mut next: Self, reason: String, now_ms: u64) -> Transition {
        next.let_go();
        let action = DueAction::Fail {
            reason,
            cool_off: None,
        };
        next.fall_due(action, None, now_ms);
        self.accepted(next)
    }

    pub(super) fn let_go(&mut self) {
        if let Some(instance) = self.instance().cloned() {
            self.released = Some(instance);
        }
        self.state = PairingState::Free;
    }

    pub(super) fn fall_due(&mut self, action: DueAction, note: Option<JobNote>, now_ms: u64) {
        self.update_number += 1;
        self.update_due = Some(DueUpdate {
            number: self.update_number,
            since_ms: now_ms,
            attempt: 0,
            action,
            note,
        });
    }

    /// The change to `next`; what served the node before and does not after is released.
    pub(super) fn accepted(&self, next: Self) -> Transition {
        let release = self
            .instance()
            .filter(|instance| next.instance() != Some(*instance))
            .cloned();
        Transition {
            verdict: Verdict::Accepted,
            next,
            launch: false,
            release,
            regenerate: None,
            admit: None,
        }
    }

    fn unchanged(&self, verdict: Verdict) -> Transition {
        Transition {
            verdict,
            next: self.clone(),
            launch: false,
            release: None,
            regenerate: None,
            admit: None,
        }
    }

    pub(super) fn repeated(&self) -> Transition {
        self.unchanged(Verdict::Repeated)
    }

    pub(super) fn stale(&self) -> Transition {
        self.unchanged(Verdict::Stale)
    }
}

/// Slurm's Reason when a resume request reached us after its deadline.
pub const EXPIRED_REASON: &str = "spillway: the resume request arrived after its deadline";
/// Slurm's Reason when no instance was there by the deadline.
pub const NOT_LAUNCHED_IN_TIME_REASON: &str = "spillway: no instance was launched in time";
const HOUR_MS: u64 = 3_600_000;

/// Slurm's Reason when a node was launched as often within the last hour as the site allows.
fn launched_too_often_reason(launches_per_hour: u32) -> String {
    over_limit(
        &format!("{launches_per_hour} launches of a node an hour"),
        "limits.launches_per_hour_per_node",
    )
}

/// Slurm's Reason when an instance never said why it did not join. EC2 shows the console of a terminated instance
/// for about an hour.
fn not_joined_reason(instance: &InstanceId) -> String {
    format!("spillway: {instance} did not join in time (see its console output)")
}
