//! Records of the table that the operator's commands read as well: instances, requests, what the agent said last.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::capacity::Pool;
use crate::message::{NodesInState, ResumeRequest};
use crate::name::{Generation, InstanceId, NodeGroupName, NodeName};
use crate::pairing::LaunchKey;
use crate::plan::{InstanceState, LaunchPlan};
use crate::usage::Owner;

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
    /// Its tag in EC2 ([`crate::tag::HOLD`]): while it bears it.
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
