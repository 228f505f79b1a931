//! The policy: what the site allows to be launched, for which nodes, and how. It is written by
//! `spillway config push` with the operator's credentials and read by the Lambdas; nothing that the
//! head node says can change it.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::healing::{NoticePolicy, SweepPolicy};
use super::limits::{Limits, OwnerLimits};
use crate::hostlist::Hostlist;
use crate::name::{
    ClusterName, InstanceType, LaunchTemplateId, NameError, NodeGroupName, NodeName, PartitionName,
    Region, SubnetId, Zone,
};

/// The version of the stored form that this build writes, and the newest it reads.
pub const POLICY_VERSION: u32 = 1;

/// What the Lambdas read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// [`POLICY_VERSION`] of the writer.
    pub version: u32,
    /// The Slurm cluster.
    pub cluster: ClusterName,
    /// The region that everything is in.
    pub region: Region,
    /// `ResumeTimeout` of slurm.conf.
    pub resume_timeout_seconds: u32,
    /// `SuspendTimeout` of slurm.conf.
    pub suspend_timeout_seconds: u32,
    /// The cluster's caps.
    pub limits: Limits,
    /// What the sweep may do.
    #[serde(default)]
    pub sweep: SweepPolicy,
    /// The partitions that have burst nodes, by name.
    #[serde(default)]
    pub partitions: BTreeMap<PartitionName, PartitionPolicy>,
    /// The node groups in the order of the file.
    pub node_groups: NodeGroups,
}

/// What holds for the jobs of one Slurm partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPolicy {
    /// What a job of several nodes gets when EC2 has not enough.
    #[serde(default)]
    pub strategy: Strategy,
    /// What is done when an instance is about to go.
    #[serde(default)]
    pub notices: NoticePolicy,
    /// What its jobs may hold together.
    #[serde(flatten)]
    pub limits: OwnerLimits,
}

/// What a job of several nodes gets when EC2 has not enough. Nodes of single-node jobs and of no job come one by one
/// whatever the strategy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// All of its nodes or none; EC2 is held to that where it can be, so that little is launched in vain.
    #[default]
    AllOrNothing,
    /// All of its nodes or none; the jobs of a request are launched together, in the fewest calls to EC2, and what
    /// comes is given to whole jobs.
    Greedy,
    /// Whatever comes.
    BestEffort,
}

/// How EC2 chooses among on-demand candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnDemandAllocation {
    /// In the order of the file.
    #[default]
    Prioritized,
    /// The cheapest first.
    LowestPrice,
}

/// Nodes with one launch recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeGroup {
    /// Unique in the policy.
    pub name: NodeGroupName,
    /// The Slurm partitions that the nodes are in; at least one.
    pub partitions: Vec<PartitionName>,
    /// The nodes.
    pub nodes: Hostlist,
    /// The EC2 launch template.
    pub launch_template_id: LaunchTemplateId,
    /// Its version: a number, because `$Latest` and `$Default` change under us. A redelivered message
    /// would make another call than the one recorded, and whoever may edit the template would decide
    /// what is launched.
    pub launch_template_version: u32,
    /// Candidate types, the preferred one first; at least one.
    pub instance_types: Vec<InstanceType>,
    /// One subnet a zone; at least one.
    pub subnets: Vec<Subnet>,
    /// Capacity kinds in the order in which they are tried; at least one.
    pub capacity: Vec<CapacityKind>,
    /// How EC2 chooses among on-demand candidates.
    #[serde(default)]
    pub on_demand_allocation: OnDemandAllocation,
    /// The most that on-demand instances may cost, in US cents an hour and node, over all instances of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_on_demand_cents_per_hour: Option<u32>,
    /// The nodes of a job are of one type in one zone, as a cluster placement group and EFA need it.
    #[serde(default)]
    pub one_zone: bool,
    /// Most nodes of this group that run, or are on their way, at once.
    pub max_nodes: u32,
    /// `CPUs` of the nodes in slurm.conf.
    pub cpus: u32,
    /// `RealMemory` of the nodes in slurm.conf.
    pub memory_mb: u64,
    /// `Gres` of the nodes in slurm.conf.
    pub gres: Option<String>,
    /// How long a node may take from Slurm's call to having joined; less than `ResumeTimeout`.
    pub join_timeout_seconds: u32,
    /// The site's own tags for instances and volumes.
    pub tags: BTreeMap<String, String>,
}

/// A subnet and the zone it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub subnet_id: SubnetId,
    /// Its zone's name.
    pub zone: Zone,
}

/// How EC2 capacity is bought.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityKind {
    /// Spare capacity that EC2 may take back.
    Spot,
    /// At the list price.
    OnDemand,
    /// A reservation or capacity block that the launch template names.
    Reserved,
}

impl CapacityKind {
    /// The word used in files, tags and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
            Self::Reserved => "reserved",
        }
    }
}

/// Why a policy is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not JSON, or not of the expected shape.
    #[error("the policy is malformed")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer Spillway.
    #[error(
        "the policy has version {found}, this build reads up to {POLICY_VERSION}: update this side first"
    )]
    Newer {
        /// The version in the policy.
        found: u32,
    },
    /// Two groups of one name.
    #[error("node group {group} is there twice: give each its own name")]
    DuplicateGroup {
        /// The name.
        group: NodeGroupName,
    },
    /// A node in two groups, or twice in one.
    #[error(
        "node {node} of node group {group} is already in node group {other}: a node has one group"
    )]
    SharedNode {
        /// The node.
        node: NodeName,
        /// The group first read.
        other: NodeGroupName,
        /// The group that names it again.
        group: NodeGroupName,
    },
    /// A hostlist that stands for something that is no node name.
    #[error("node group {group}: its nodes are not all node names")]
    NodeName {
        /// The group.
        group: NodeGroupName,
        /// What is wrong with the name.
        #[source]
        source: NameError,
    },
}

/// Node groups whose names and nodes are disjoint, with the way from a node to its group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<NodeGroup>", into = "Vec<NodeGroup>")]
pub struct NodeGroups {
    groups: Vec<NodeGroup>,
    position_by_node: HashMap<NodeName, usize>,
}

impl NodeGroups {
    /// Checks that names and nodes are disjoint, and indexes every node.
    pub fn new(groups: Vec<NodeGroup>) -> Result<Self, PolicyError> {
        let mut position_by_node =
            HashMap::with_capacity(groups.iter().map(|group| group.nodes.len()).sum());
        for (position, group) in groups.iter().enumerate() {
            if groups[..position]
                .iter()
                .any(|other| other.name == group.name)
            {
                return Err(PolicyError::DuplicateGroup {
                    group: group.name.clone(),
                });
            }
            let in_group = |source| PolicyError::NodeName {
                group: group.name.clone(),
                source,
            };
            for node in group.nodes.node_names().map_err(in_group)? {
                if let Some(other) = position_by_node.insert(node.clone(), position) {
                    let other = groups[other].name.clone();
                    return Err(PolicyError::SharedNode {
                        node,
                        other,
                        group: group.name.clone(),
                    });
                }
            }
        }
        Ok(Self {
            groups,
            position_by_node,
        })
    }

    /// The group that a node is in.
    #[must_use]
    pub fn of(&self, node: &NodeName) -> Option<&NodeGroup> {
        self.position_by_node
            .get(node)
            .map(|&position| &self.groups[position])
    }

    /// The group of a name.
    #[must_use]
    pub fn get(&self, name: &NodeGroupName) -> Option<&NodeGroup> {
        self.groups.iter().find(|group| group.name == *name)
    }

    /// The groups in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, NodeGroup> {
        self.groups.iter()
    }

    /// How many nodes all groups have together.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.position_by_node.len()
    }
}

impl<'a> IntoIterator for &'a NodeGroups {
    type Item = &'a NodeGroup;
    type IntoIter = std::slice::Iter<'a, NodeGroup>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl TryFrom<Vec<NodeGroup>> for NodeGroups {
    type Error = PolicyError;

    fn try_from(groups: Vec<NodeGroup>) -> Result<Self, PolicyError> {
        Self::new(groups)
    }
}

impl From<NodeGroups> for Vec<NodeGroup> {
    fn from(groups: NodeGroups) -> Self {
        groups.groups
    }
}

impl Policy {
    /// Reads a stored policy; refuses one of a newer version.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version: found } = serde_json::from_str(text)?;
        if found > POLICY_VERSION {
            return Err(PolicyError::Newer { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The stored form.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self)
            .expect("a policy holds only strings, numbers, lists and string maps")
    }

    /// What the jobs of a partition get; the default for one that the policy does not name.
    #[must_use]
    pub fn strategy_of(&self, partition: &PartitionName) -> Strategy {
        self.partitions
            .get(partition)
            .map(|partition| partition.strategy)
            .unwrap_or_default()
    }

    /// What is done when a node's instance is about to go: as the first partition of its group has it, or the default for a
    /// node that the policy does not name.
    #[must_use]
    pub fn notices_of(&self, node: &NodeName) -> NoticePolicy {
        let first = self
            .group_of(node)
            .and_then(|group| group.partitions.first());
        let partition = first.and_then(|name| self.partitions.get(name));
        partition
            .map(|partition| partition.notices.clone())
            .unwrap_or_default()
    }

    /// The group that a node is in; none if the policy does not know the node.
    #[must_use]
    pub fn group_of(&self, node: &NodeName) -> Option<&NodeGroup> {
        self.node_groups.of(node)
    }
}
