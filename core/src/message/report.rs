//! What comes back, on the reports queue: from the agent, from burst nodes, and our own timers.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{Generation, InstanceId, NodeName};

/// What the reports queue carries, for `report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ReportBody {
    /// The agent: what became of an envelope's updates.
    Acknowledge(Acknowledge),
    /// The agent lives.
    Heartbeat(Heartbeat),
    /// The agent: what slurmctld says of the cloud nodes.
    NodeStates(NodeStates),
    /// A burst node: slurmctld has taken its registration.
    Ready(NodeReady),
    /// A burst node: it cannot join.
    Failed(NodeFailed),
    /// A burst node: EC2 says that it takes the instance away.
    Notice(NodeNotice),
    /// Timer: the jobs of an instance that is about to go are to be queued again.
    Requeue(RequeueJobs),
    /// Timer: send again what is still unacknowledged.
    Resend(Resend),
    /// Timer: look what became of a command.
    Command(CommandSent),
    /// Timer: fail what has not joined.
    JoinDeadline(JoinDeadline),
}

/// What became of the updates of one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledge {
    /// [`crate::envelope::Envelope::envelope_id`].
    pub envelope_id: String,
    /// One per update, or finer where nodes of one update fared differently.
    pub results: Vec<UpdateResult>,
}

/// What became of one update, for some of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateResult {
    /// Hostlist.
    pub nodes: String,
    /// [`crate::envelope::Update::generation`].
    pub generation: Generation,
    /// [`crate::envelope::Update::number`].
    pub number: u64,
    /// What happened.
    pub outcome: UpdateOutcome,
}

/// How an update ended at the head node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum UpdateOutcome {
    /// scontrol took it, or it was already so.
    Applied,
    /// It does not answer the last request stamped for the node, or Slurm's state no longer fits.
    Stale {
        /// What stood against it.
        reason: String,
    },
    /// scontrol refused it.
    Refused {
        /// scontrol's own words.
        reason: String,
    },
}

/// Sent every [`HEARTBEAT_SECONDS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The agent's clock, Unix milliseconds.
    pub sent_ms: u64,
    /// First after a start or after the network came back: asks for all that is due now.
    pub hello: bool,
    /// As `scontrol --version` says; absent while slurmctld does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_version: Option<String>,
    /// Requests in the spool not yet sent.
    pub spooled: u64,
    /// By how much the agent's clock is ahead of that of AWS (behind, if negative); absent before AWS's
    /// first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// When Slurm called for the oldest of them, Unix milliseconds; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_spooled_ms: Option<u64>,
    /// How many envelopes were refused since the last heartbeat, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused_envelopes: BTreeMap<RefusalReason, u64>,
}

/// Why the head node did not take an envelope.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// The signature is not that of the key it names.
    Forged,
    /// It is no envelope, or none that can be read.
    Malformed,
    /// Sealed with a key that is not trusted, or no longer.
    UnknownKey,
    /// For another cluster.
    OtherCluster,
    /// It came after its end.
    Expired,
    /// It was issued in the future.
    NotYetValid,
    /// It came by the same road before, in another message.
    Replayed,
}

impl RefusalReason {
    /// As in messages and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown-key",
            Self::OtherCluster => "other-cluster",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Replayed => "replayed",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often the agent reports that it lives.
pub const HEARTBEAT_SECONDS: u64 = 30;

/// An agent not heard of for this long is away: three heartbeats missed.
pub const HEARTBEAT_STALE_MS: u64 = 100_000;

/// What slurmctld says of the cloud nodes, all of them, folded by state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStates {
    /// When slurmctld was asked, Unix milliseconds.
    pub observed_ms: u64,
    /// State as scontrol prints it (`IDLE+CLOUD+POWERED_DOWN`) and the nodes in it as a hostlist.
    pub states: Vec<NodesInState>,
}

/// The most nodes of which one report says more than their state, so that its record stays below DynamoDB's 400 KB: 32
/// bytes a node. Of those beyond it only the state is known, and the sweep leaves them alone.
pub const MAX_DETAILED_NODES: usize = 8_000;

/// Nodes that share a state and a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodesInState {
    /// `+`-joined flags.
    pub state: String,
    /// Hostlist.
    pub nodes: String,
    /// `Reason=`, without who set it and when; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether somebody set it down or drained it, by the reason: it is neither one of slurmctld's nor one of ours.
    #[serde(default)]
    pub set_by_hand: bool,
    /// `NodeAddr` of each, in the hostlist's order; empty for nodes at rest, powered down and well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// The last request that was stamped for each here, in the same order; 0 for none. Empty for nodes at rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub generations: Vec<u64>,
}

/// A burst node has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReady {
    /// The sender.
    pub instance_id: InstanceId,
    /// The node it serves.
    pub node: NodeName,
    /// The generation it joined for.
    pub generation: Generation,
}

/// A burst node cannot join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeFailed {
    /// The sender.
    pub instance_id: InstanceId,
    /// The node it serves, where it got to know that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What failed, in words for Slurm's Reason.
    pub reason: String,
}

/// What instance metadata says on a burst node of its own end: the second road of a spot notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeNotice {
    /// The sender.
    pub instance_id: InstanceId,
    /// `terminate`, `stop`, `hibernate`, or `rebalance` for the recommendation.
    pub action: String,
    /// When, Unix milliseconds; absent for a recommendation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequeueJobs {
    /// The instance that is about to go.
    pub instance_id: InstanceId,
    /// The node that it served when it was noticed.
    pub node: NodeName,
    /// When, Unix milliseconds. Later than a delayed message reaches (900 s) means: renew.
    pub at_ms: u64,
}

/// How long an update may go unacknowledged before it is told again.
pub const RESEND_SECONDS: u64 = 30;

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resend {
    /// Hostlist of the nodes whose update was sent.
    pub nodes: String,
    /// How often it had gone unanswered by then: the timer is about this attempt and no later one.
    pub attempt: u32,
}

/// Timer on the reports queue: by now an SSM command has ended, one way or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandSent {
    /// SSM's id of the command.
    pub command_id: String,
    /// The managed nodes it was sent to.
    pub head_nodes: Vec<String>,
}

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinDeadline {
    /// Hostlist of the nodes to look at.
    pub nodes: String,
    /// Only those still at this generation are meant.
    pub generation: Generation,
    /// When, Unix milliseconds. Later than a delayed message reaches (900 s) means: renew.
    pub deadline_ms: u64,
    /// It came late before, and has been put behind the reports that waited with it.
    #[serde(default)]
    pub put_back: bool,
}
