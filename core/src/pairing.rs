//! The pairing state machine: which instance serves which node, as one pure function.
//!
//! [`Pairing::on`] takes what happened and answers what the record becomes and what must be done. It never
//! looks at a clock; `now_ms` comes with the event. `snapshots/pairing` holds its whole table.

use std::cmp::Ordering;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::{Generation, InstanceId, NodeName, RequestId};

/// Which launch an instance came from: one part of one request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LaunchKey {
    /// The request.
    pub request_id: RequestId,
    /// Its part, 1-based.
    pub part: u32,
}

/// Our record of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    /// The Slurm node.
    pub node: NodeName,
    /// That of the last request accepted for it; only a higher one is accepted.
    pub generation: Generation,
    /// The resume request last accepted, for the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// Where it stands.
    pub state: PairingState,
    /// Number of the last update; grows for ever.
    pub update_number: u64,
    /// What slurmctld has yet to acknowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_due: Option<DueUpdate>,
    /// The instance last let go, so that a repeated message can see its termination through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<InstanceId>,
}

/// Where a node stands with us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum PairingState {
    /// No instance, and none wanted.
    Free,
    /// A launch is to bring an instance.
    Requested {
        /// Which launch.
        launch: LaunchKey,
        /// When it must have joined, Unix milliseconds.
        deadline_ms: u64,
    },
    /// An instance is there and has yet to join.
    Launched {
        /// Which launch it came from.
        launch: LaunchKey,
        /// When it must have joined, Unix milliseconds.
        deadline_ms: u64,
        /// The instance.
        instance: InstanceId,
        /// Its private address.
        address: IpAddr,
    },
    /// slurmctld has taken the node's registration.
    Ready {
        /// The instance.
        instance: InstanceId,
        /// Its private address.
        address: IpAddr,
    },
}

/// What slurmctld is to be told of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueUpdate {
    /// Orders updates of the node.
    pub number: u64,
    /// Since when it is due, Unix milliseconds.
    pub since_ms: u64,
    /// What.
    pub action: DueAction,
}

/// The content of an update of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum DueAction {
    /// `NodeAddr=`.
    Address {
        /// The instance's private address.
        address: IpAddr,
    },
    /// The node will not come.
    Fail {
        /// For `Reason=`.
        reason: String,
    },
}

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Slurm called ResumeProgram.
    Resume {
        /// Its stamp.
        generation: Generation,
        /// The launch that would bring the instance.
        launch: LaunchKey,
        /// When the node must have joined.
        deadline_ms: u64,
    },
    /// Slurm called SuspendProgram or ResumeFailProgram.
    Suspend {
        /// Its stamp.
        generation: Generation,
    },
    /// A launch found an instance for the node.
    Launched {
        /// Which launch.
        launch: LaunchKey,
        /// The instance.
        instance: InstanceId,
        /// Its private address.
        address: IpAddr,
    },
    /// A launch gave up on the node.
    NotLaunched {
        /// Which launch.
        launch: LaunchKey,
        /// For `Reason=`.
        reason: String,
    },
    /// The instance reports that slurmctld took its registration.
    Ready {
        /// The sender.
        instance: InstanceId,
        /// The generation it joined for.
        generation: Generation,
    },
    /// The instance reports that it cannot join.
    Failed {
        /// The sender.
        instance: InstanceId,
        /// For `Reason=`.
        reason: String,
    },
    /// The join deadline's timer.
    Deadline {
        /// The generation it was set for.
        generation: Generation,
    },
    /// The agent has applied an update.
    Acknowledged {
        /// The update's generation.
        generation: Generation,
        /// The update's number.
        number: u64,
    },
    /// The agent or slurmctld would not take an update, and sending it again would change nothing.
    Dismissed {
        /// The update's generation.
        generation: Generation,
        /// The update's number.
        number: u64,
    },
}

/// What the event meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The record changes.
    Accepted,
    /// Seen before: nothing changes, and what follows from it may be done again.
    Repeated,
    /// Overtaken by something newer: nothing changes.
    Stale,
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// What the event meant.
    pub verdict: Verdict,
    /// The record after it; equal to the one before unless accepted.
    pub next: Pairing,
    /// The launch named in the event must bring an instance.
    pub launch: bool,
    /// This instance no longer serves the node and must be terminated.
    pub release: Option<InstanceId>,
    /// This instance's item takes the record's generation.
    pub regenerate: Option<InstanceId>,
    /// This instance may start slurmd: slurmctld knows its address.
    pub admit: Option<InstanceId>,
}

impl Pairing {
    /// A node never heard of.
    #[must_use]
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            generation: Generation::ZERO,
            request_id: None,
            state: PairingState::Free,
            update_number: 0,
            update_due: None,
            released: None,
        }
    }

    /// The instance that serves the node now.
    #[must_use]
    pub fn instance(&self) -> Option<&InstanceId> {
        match &self.state {
            PairingState::Free | PairingState::Requested { .. } => None,
            PairingState::Launched { instance, .. } | PairingState::Ready { instance, .. } => {
                Some(instance)
            }
        }
    }

    /// What `event` makes of this record.
    #[must_use]
    pub fn on(&self, event: &Event, now_ms: u64) -> Transition {
        match event {
            Event::Resume {
                generation,
                launch,
                deadline_ms,
            } => self.on_resume(*generation, launch, *deadline_ms, now_ms),
            Event::Suspend { generation } => self.on_suspend(*generation),
            Event::Launched {
                launch,
                instance,
                address,
            } => self.on_launched(launch, instance, *address, now_ms),
            Event::NotLaunched { launch, reason } => match &self.state {
                PairingState::Requested { launch: own, .. } if own == launch => {
                    self.failed(reason, now_ms)
                }
                _ => self.stale(),
            },
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
            Event::Acknowledged { generation, number } => {
                self.on_acknowledged(*generation, *number)
            }
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
            next.let_go();
            next.fall_due(
                DueAction::Fail {
                    reason: EXPIRED_REASON.to_owned(),
                },
                now_ms,
            );
            return self.accepted(next);
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
                next.fall_due(DueAction::Address { address }, now_ms);
                Transition {
                    regenerate: Some(instance),
                    ..self.accepted(next)
                }
            }
            PairingState::Free | PairingState::Ready { .. } => {
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
                next.fall_due(DueAction::Address { address }, now_ms);
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

    /// The node will not come: tell slurmctld, let the instance go.
    fn failed(&self, reason: &str, now_ms: u64) -> Transition {
        let mut next = self.clone();
        next.let_go();
        next.fall_due(
            DueAction::Fail {
                reason: reason.to_owned(),
            },
            now_ms,
        );
        self.accepted(next)
    }

    fn let_go(&mut self) {
        if let Some(instance) = self.instance().cloned() {
            self.released = Some(instance);
        }
        self.state = PairingState::Free;
    }

    fn fall_due(&mut self, action: DueAction, now_ms: u64) {
        self.update_number += 1;
        self.update_due = Some(DueUpdate {
            number: self.update_number,
            since_ms: now_ms,
            action,
        });
    }

    /// The change to `next`; what served the node before and does not after is released.
    fn accepted(&self, next: Self) -> Transition {
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

    fn repeated(&self) -> Transition {
        self.unchanged(Verdict::Repeated)
    }

    fn stale(&self) -> Transition {
        self.unchanged(Verdict::Stale)
    }
}

/// Slurm's Reason when a resume request reached us after its deadline.
pub const EXPIRED_REASON: &str = "spillway: the resume request arrived after its deadline";
/// Slurm's Reason when no instance was there by the deadline.
pub const NOT_LAUNCHED_IN_TIME_REASON: &str = "spillway: no instance was launched in time";
/// Slurm's Reason when an instance never said why it did not join. EC2 shows the console of a terminated instance
/// for about an hour.
fn not_joined_reason(instance: &InstanceId) -> String {
    format!("spillway: {instance} did not join in time (see its console output)")
}
