//! What slurmctld is told: updates of nodes, and the envelope they travel in; its seal and the keys.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{Generation, JobId, NodeGroupName, RequestId, Signal};

mod key;
mod seal;

pub use key::{KeyError, KeyId, PublicKey, SEED_BYTES, SigningKey};
pub use seal::{EnvelopeTooLarge, MAX_SEALED_BYTES, OpenError, open, seal};

/// The largest envelope of updates. SSM documents carry at most 64 KB with parameters; base64 and the
/// signature must fit too, and one road must carry what the other does.
pub const MAX_ENVELOPE_BYTES: usize = 24_000;

/// How long an envelope may be applied after it was issued.
pub const ENVELOPE_LIFE_MS: u64 = 10 * 60 * 1000;

/// The longest reason we put into Slurm's `Reason=`; longer text is cut. scontrol and sinfo stay readable.
pub const MAX_REASON_CHARS: usize = 240;

/// How every reason of ours begins, so that it is told from an administrator's and from Slurm's own.
pub const REASON_MARK: &str = "spillway: ";

/// A text as Slurm's `Reason=`: marked as ours, on one line, at most [`MAX_REASON_CHARS`].
#[must_use]
pub fn reason(text: &str) -> String {
    let mark = if text.starts_with(REASON_MARK) {
        ""
    } else {
        REASON_MARK
    };
    let line = mark.chars().chain(text.chars());
    let line = line.map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_REASON_CHARS).collect()
}

/// What the updates queue carries, for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Random; an envelope is accepted once.
    pub envelope_id: String,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Not applied after this, Unix milliseconds.
    pub expires_ms: u64,
    /// What to tell slurmctld.
    pub updates: Vec<Update>,
}

/// One thing to tell slurmctld about some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// Hostlist.
    pub nodes: String,
    /// The generation that this answers: applied only if it is the last one stamped for the node.
    pub generation: Generation,
    /// Orders updates of one node within a generation.
    pub number: u64,
    /// The resume request that this answers, so that logs can be followed from Slurm's call to scontrol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What to do.
    pub action: UpdateAction,
    /// What the jobs that wait for the nodes are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<JobNote>,
}

/// A remark for jobs, appended to their `AdminComment`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct JobNote {
    /// At most [`MAX_NOTE_JOBS`].
    pub jobs: Vec<JobId>,
    /// At most [`MAX_REASON_CHARS`].
    pub text: String,
}

/// How many jobs one update speaks to. The others find the reason at their nodes.
pub const MAX_NOTE_JOBS: usize = 100;

/// Nodes of an exhausted node group that are not to be offered again for a while.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct CoolOff {
    /// Which group.
    pub node_group: NodeGroupName,
    /// Hostlist of the whole group; only those that are powered down are kept back.
    pub nodes: String,
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
}

/// What slurmctld is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum UpdateAction {
    /// NodeAddr of each node, in the order of the hostlist.
    Address {
        /// As many as the hostlist has nodes.
        addresses: Vec<IpAddr>,
    },
    /// The node will not come: down with our reason, then powered down by force, so that its jobs are
    /// requeued at once and not at ResumeTimeout.
    Fail {
        /// For `Reason=`, at most [`MAX_REASON_CHARS`].
        reason: String,
        /// The node group has no capacity: its powered-down nodes rest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cool_off: Option<CoolOff>,
    },
    /// The node's instance is about to go: no new job starts there (`State=DRAIN`).
    Drain {
        /// For `Reason=`, at most [`MAX_REASON_CHARS`].
        reason: String,
        /// Sent to the jobs that run on the nodes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<Signal>,
        /// Hostlist: as many of these as drain, powered down and idle ones, are powered up at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replace_from: Option<String>,
    },
    /// The node goes within moments: the batch jobs that run on it are queued again, each once.
    Requeue {
        /// For the jobs' `AdminComment`, at most [`MAX_REASON_CHARS`].
        reason: String,
    },
    /// No instance serves the node, and it is in a state that slurmctld does not get it out of by itself. Applied also
    /// where the node's last request is a suspend, and only where no job holds the node.
    Recover {
        /// For `Reason=`, at most [`MAX_REASON_CHARS`].
        reason: String,
    },
}
