//! The pairing state machine: which instance serves which node, as one pure function.
//!
//! [`Pairing::on`] (in `transition`) takes what happened and answers what the record becomes and what must be done. It never
//! looks at a clock; `now_ms` comes with the event. `snapshots/pairing` holds its whole table.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::envelope::JobNote;
use crate::name::{Generation, InstanceId, NodeGroupName, NodeName, RequestId, Signal};

mod history;
mod parting;
mod transition;

pub use history::{MAX_HISTORY, Step, StepKind};
pub use parting::RECOVER_AGAIN_MS;
pub use transition::{EXPIRED_REASON, NOT_LAUNCHED_IN_TIME_REASON};

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
    /// When launches were asked for it, within the last hour, Unix milliseconds. Those that brought nothing are not
    /// among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launches_ms: Vec<u64>,
    /// The instance last let go, so that a repeated message can see its termination through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<InstanceId>,
    /// When slurmctld was last told to get it out of a wedged state, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_ms: Option<u64>,
    /// What happened to it, the last at the end: at most [`MAX_HISTORY`] steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Step>,
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
        /// Its instance is about to go.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leaving: Option<Leaving>,
    },
}

/// Why an instance that serves a node is about to go, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// For `Reason=`.
    pub reason: String,
    /// When EC2 takes it, Unix milliseconds; absent where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Its jobs were queued again: once, however many timers say so.
    #[serde(default)]
    pub requeued: bool,
}

/// What slurmctld is to be told of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueUpdate {
    /// Orders updates of the node.
    pub number: u64,
    /// Since when it is due, Unix milliseconds.
    pub since_ms: u64,
    /// How often it went unanswered. Each attempt is told of anew, and a resend timer counts only for the attempt it
    /// was set for: so timers never multiply.
    #[serde(default)]
    pub attempt: u32,
    /// What.
    pub action: DueAction,
    /// What the jobs that wait for the node are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<JobNote>,
}

/// The content of an update of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        /// Its node group has no capacity until then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cool_off: Option<DueCoolOff>,
    },
    /// No new job starts on it.
    Drain {
        /// For `Reason=`.
        reason: String,
        /// Sent to the jobs that run on it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<Signal>,
        /// Another node of its group is to be powered up at once.
        #[serde(default)]
        replace: bool,
    },
    /// Its batch jobs are queued again while they still can be.
    Requeue {
        /// For the jobs.
        reason: String,
    },
    /// It is wedged in a state that Slurm does not get it out of.
    Recover {
        /// For `Reason=`.
        reason: String,
    },
}

/// A node group that is not to be tried for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DueCoolOff {
    /// Which.
    pub node_group: NodeGroupName,
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
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
        /// How often the node may be launched within an hour.
        launches_per_hour: u32,
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
        /// What the node's jobs are told of how it was launched.
        note: Option<JobNote>,
    },
    /// A launch gave up on the node.
    NotLaunched {
        /// Which launch.
        launch: LaunchKey,
        /// For `Reason=`.
        reason: String,
        /// The node's group is not to be tried for a while.
        cool_off: Option<DueCoolOff>,
        /// What the node's jobs are told.
        note: Option<JobNote>,
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
    /// EC2 or the site wants the instance gone soon.
    Leaving {
        /// Which.
        instance: InstanceId,
        /// For `Reason=`.
        reason: String,
        /// When EC2 takes it, Unix milliseconds; absent where nobody says.
        until_ms: Option<u64>,
        /// Sent to the jobs that run on it.
        signal: Option<Signal>,
        /// Another node of its group is to be powered up at once.
        replace: bool,
    },
    /// The instance goes within moments: its jobs are to be queued again.
    Requeue {
        /// Which.
        instance: InstanceId,
    },
    /// The instance serves no more: EC2 ended it, or it is none that Slurm may use.
    Gone {
        /// Which.
        instance: InstanceId,
        /// For `Reason=`, unless it was known before that it goes.
        reason: String,
    },
    /// slurmctld holds the node powered down, and an instance runs for it.
    Unwanted {
        /// The node's last request at the head node.
        generation: Generation,
    },
    /// slurmctld holds the node in a state that it does not get out of by itself, and no instance serves it.
    Wedged {
        /// The node's last request at the head node.
        generation: Generation,
        /// For `Reason=`.
        reason: String,
    },
    /// The agent has applied an update.
    Acknowledged {
        /// The update's generation.
        generation: Generation,
        /// The update's number.
        number: u64,
    },
    /// Nobody has acknowledged the update that is due: it is to be told again.
    Unanswered {
        /// The attempt that a resend timer was set for; absent where the agent asks for all that is due.
        attempt: Option<u32>,
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
            launches_ms: Vec::new(),
            released: None,
            recovered_ms: None,
            history: Vec::new(),
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

    /// Why its instance is about to go.
    #[must_use]
    pub fn leaving(&self) -> Option<&Leaving> {
        match &self.state {
            PairingState::Ready { leaving, .. } => leaving.as_ref(),
            _ => None,
        }
    }
}
