//! What the table keeps besides pairings: instances, requests, attempts, the heartbeat.
//!
//! Each record is one item. Instance items have a life of their own: re-pairing a node never forgets one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spillway_core::capacity::Pool;
use spillway_core::message::{NodesInState, ResumeRequest};
use spillway_core::name::{Generation, InstanceId, NodeGroupName, NodeName};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Candidate, InstanceState, LaunchCall, LaunchPlan};
use spillway_core::usage::Owner;

use crate::fault::Fault;

/// A record and the version it was read at; 0 for one that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub record: T,
    /// Grows by one with each write; a write names the one it saw.
    pub version: u64,
}

/// Which launch an instance came from, which of its node groups, and for whom it is held: what counts it against the
/// caps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The launch.
    pub launch: LaunchKey,
    /// The node group.
    pub node_group: NodeGroupName,
    /// For whom it is held: said once, when its item is made, and never changed.
    #[serde(default)]
    pub owner: Owner,
}

/// One instance. Its key in the table is its ARN, so that the instance may read this item and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// EC2's id.
    pub instance_id: InstanceId,
    /// Where it stands.
    pub state: InstanceState,
    /// The node it serves or last served; absent if it never served one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The node's generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The generation for which slurmctld has acknowledged the address; slurmd starts when it is ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_generation: Option<Generation>,
    /// Its private address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// When the node must have joined, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// It is protected from being ended by us.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBy>,
    /// Where it was launched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Pool>,
    /// When EC2 was first asked to terminate it and knew no such instance, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since_ms: Option<u64>,
}

/// What protects an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// Its tag in EC2 ([`spillway_core::tag::HOLD`]): while it bears it.
    Tag,
    /// `spillway hold`: until `spillway release`.
    Operator,
}

/// A part of a resume request and what is planned for it. Kept longer than any queue keeps its messages,
/// so that no redelivery or redrive finds it forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The message as it came.
    pub request: ResumeRequest,
    /// Absent until the nodes are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<LaunchPlan>,
    /// Until when the worker that last took it may be at it, Unix milliseconds.
    pub lease_until_ms: u64,
    /// Everything was done that could be.
    pub done: bool,
    /// Chunks with nothing left to do, and how many instances were launched for each, by owner in the owners' order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub launched: BTreeMap<u32, Vec<u32>>,
}

/// Which call to EC2: the n-th attempt for one chunk of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The launch.
    pub launch: LaunchKey,
    /// Index of the chunk in the plan.
    pub chunk: u32,
    /// 1-based.
    pub attempt: u32,
}

/// A call to EC2, written down before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The exact call; a redelivery repeats it word for word or not at all.
    pub call: LaunchCall,
    /// Which of the chunk's rounds, 0-based.
    pub round: u32,
    /// What EC2 answered, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<LaunchAnswer>,
}

/// What came of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAnswer {
    /// What was launched; the count of what is missing comes from here.
    pub instances: Vec<InstanceId>,
    /// Where, as far as EC2 says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launched_in: Vec<Candidate>,
    /// Why not more. The count of what is missing never comes from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
}

/// Why a call launched fewer instances than it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// What EC2 said.
    pub fault: Fault,
    /// Of which candidate; absent where it spoke of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
}

/// The agent's last sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRecord {
    /// When SQS took it, Unix milliseconds, by AWS's clock.
    pub received_ms: u64,
    /// When the agent says it sent it.
    pub sent_ms: u64,
    /// slurmctld's version, when it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_version: Option<String>,
    /// Requests still in the spool.
    pub spooled: u64,
    /// When Slurm called for the oldest of them, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_spooled_ms: Option<u64>,
}

/// slurmctld's node states as last reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatesRecord {
    /// When slurmctld was asked.
    pub observed_ms: u64,
    /// By state.
    pub states: Vec<NodesInState>,
}
