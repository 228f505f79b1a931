//! What comes back, on the reports queue: from the agent, from burst nodes, and our own timers.

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
    /// Timer: send again what is still unacknowledged.
    Resend(Resend),
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

/// Nodes that share a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodesInState {
    /// `+`-joined flags.
    pub state: String,
    /// Hostlist.
    pub nodes: String,
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

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resend {
    /// Hostlist of the nodes whose update was sent.
    pub nodes: String,
    /// How often it was sent again before.
    pub attempt: u32,
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
}
