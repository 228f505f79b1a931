//! Planning a launch (and, in `terminate`, the end of instances): from the nodes of a request and the site's policy to
//! the exact calls to EC2.
//!
//! A plan leaves nothing to choose to its execution. It is stored before anything is launched, so a policy pushed
//! between two deliveries of a request changes nothing for it. `launch` makes it, `rounds` puts its calls in order,
//! `share` gives what came to jobs, `call` is one call.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{CapacityKind, OnDemandAllocation, Strategy};
use crate::name::{JobId, NodeGroupName};
use crate::pairing::DueCoolOff;
use crate::usage::Holds;

mod call;
mod launch;
mod rounds;
mod share;
mod terminate;

pub use call::{CallPlace, LaunchCall};
pub use launch::{GangPart, plan_launch, refuse_without_policy};
pub use rounds::{Attempt, Round, RoundScope, next_attempt, rounds};
pub use share::{Units, units};
pub use terminate::{
    InstanceState, MAX_TERMINATE_IDS, TerminatePlan, UNKNOWN_GRACE_MS, UnknownPlan, plan_terminate,
    plan_unknown,
};

/// The most nodes that are launched together: EC2's bucket for launched instances holds 1,000 (EC2 API, request
/// throttling), and CreateFleet's `MinTargetCapacity` goes no further.
pub const MAX_CHUNK_NODES: usize = 1_000;

/// What is to be launched for one part of a resume request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Each is launched for itself.
    pub chunks: Vec<Chunk>,
    /// The ways to launch a node group, tried in order, each for what the ones before left missing. Kept once
    /// for all chunks of a group: the plan must fit into one item of the table.
    pub recipes: BTreeMap<NodeGroupName, Vec<Recipe>>,
    /// Nodes for which nothing is launched, and why.
    pub refused: Vec<Refused>,
    /// What tells for whom the other nodes are held against the caps.
    #[serde(default)]
    pub holds: Holds,
}

/// Nodes that are not launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Hostlist.
    pub nodes: String,
    /// For Slurm's Reason.
    pub reason: String,
    /// Their node group is not to be tried for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cool_off: Option<DueCoolOff>,
}

/// Nodes of one node group that are launched together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Their node group.
    pub node_group: NodeGroupName,
    /// Hostlist.
    pub nodes: String,
    /// The jobs that the nodes are for, in the order of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<ChunkJob>,
    /// The nodes of each job are of one type in one zone.
    #[serde(default)]
    pub one_zone: bool,
    /// Tags of every instance of the chunk.
    pub tags: BTreeMap<String, String>,
}

/// One job's nodes in a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkJob {
    /// The job.
    pub job_id: JobId,
    /// Hostlist.
    pub nodes: String,
    /// Best effort for a job of one node.
    #[serde(default)]
    pub strategy: Strategy,
    /// Other nodes of the job are in other chunks or other requests: its instances wait until all are there.
    #[serde(default)]
    pub spans: bool,
}

/// One way to launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What kind of capacity.
    pub capacity: CapacityKind,
    /// Launch template.
    pub launch_template_id: String,
    /// A number: `$Latest` would make a repeated call another call.
    pub launch_template_version: String,
    /// How EC2 chooses among on-demand candidates.
    #[serde(default)]
    pub on_demand_allocation: OnDemandAllocation,
    /// The most that on-demand instances may cost, in US cents an hour and node, over all instances of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_on_demand_cents_per_hour: Option<u32>,
    /// Instance types by subnets, in order of preference.
    pub candidates: Vec<Candidate>,
}

/// Where an instance may be launched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// Such as `c7i.large`.
    pub instance_type: String,
    /// Subnet.
    pub subnet_id: String,
    /// The subnet's availability zone.
    pub zone: String,
}
