//! `spillway.toml` as it is written. These types are the JSON Schema, and their comments its
//! descriptions; what a schema cannot say is checked in `check`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::client::{AwsAccess, CallbackSettings, LogLevel, Queues, SlurmSettings};
use super::healing::{HeadNodeAway, NoticeAction};
use super::policy::{CapacityKind, OnDemandAllocation, Strategy};
use crate::hostlist::Hostlist;
use crate::name::{
    ClusterName, InstanceType, LaunchTemplateId, NodeGroupName, PartitionName, Region, Signal,
    SubnetId, Zone,
};

/// A site: one Slurm cluster that bursts into one AWS region.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "spillway.toml")]
pub(super) struct SiteFile {
    /// `ClusterName` of slurm.conf.
    pub cluster: ClusterName,
    /// The AWS region of everything.
    pub region: Region,
    /// The queues' URLs, as the deployed stack prints them.
    pub queues: Queues,
    /// How AWS is reached, and as whom.
    pub aws: AwsAccess,
    /// Where the client keeps its files, and how much it logs.
    #[serde(default)]
    pub client: ClientFile,
    /// Which updates for slurmctld are believed, and by which roads they come.
    #[serde(default)]
    pub callback: CallbackSettings,
    /// What slurm.conf says, and how Slurm is called.
    pub slurm: SlurmSettings,
    /// Caps on the cluster, its users and its accounts.
    pub limits: LimitsFile,
    /// What the sweep may do, which looks every minute for what went wrong.
    #[serde(default)]
    pub sweep: SweepFile,
    /// The Slurm partitions that have burst nodes.
    #[schemars(length(min = 1))]
    pub partition: Vec<PartitionFile>,
    /// The node groups: nodes with one launch recipe.
    #[schemars(length(min = 1))]
    pub node_group: Vec<NodeGroupFile>,
}

/// Where the client keeps its files, and how much it logs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClientFile {
    /// Directory of the spool and of the last stamp. With two head nodes it lies on Slurm's
    /// `StateSaveLocation`, which both see.
    pub spool_directory: PathBuf,
    /// The socket on which the programs wake the agent.
    pub socket: PathBuf,
    /// The file in which the agent keeps what is known of each job.
    pub jobs_file: PathBuf,
    /// How much is logged.
    pub log_level: LogLevel,
}

impl Default for ClientFile {
    fn default() -> Self {
        Self {
            spool_directory: "/var/spool/spillway".into(),
            socket: "/run/spillway/agent.sock".into(),
            jobs_file: "/run/spillway/jobs".into(),
            log_level: LogLevel::default(),
        }
    }
}

/// Caps: on the whole cluster, and on what is held for the jobs of one user or account.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsFile {
    /// Most nodes that run, or are on their way, at once.
    #[schemars(range(min = 1, max = 65536))]
    pub max_nodes: u32,
    /// Most vCPUs that run, or are on their way, at once: nodes by the `cpus` of their groups. No limit of its own if
    /// left out.
    #[schemars(range(min = 1))]
    pub max_vcpus: Option<u32>,
    /// Most instances launched within an hour.
    #[schemars(range(min = 1))]
    pub launches_per_hour: u32,
    /// How often one node is launched within an hour at most; 12 if left out.
    #[schemars(range(min = 1, max = 60))]
    pub launches_per_hour_per_node: Option<u32>,
    /// How many instances EC2 lets the account launch at once: its RunInstances bucket of instances; 1000 if left out.
    #[schemars(range(min = 1))]
    pub ec2_instances_at_once: Option<u32>,
    /// By how many instances a second that bucket is refilled; 2 if left out.
    #[schemars(range(min = 1))]
    pub ec2_instances_per_second: Option<u32>,
    /// How long a pool is left alone after EC2 first had not enough there, in seconds, 10 to 1800; 180 if left out. It
    /// doubles each time, up to half an hour.
    #[schemars(range(min = 10, max = 1800))]
    pub capacity_rest_seconds: Option<u32>,
    /// Most nodes that run, or are on their way, for the jobs of one user. No limit of its own if left out.
    #[schemars(range(min = 1, max = 65536))]
    pub max_nodes_per_user: Option<u32>,
    /// Most vCPUs for the jobs of one user. No limit of its own if left out.
    #[schemars(range(min = 1))]
    pub max_vcpus_per_user: Option<u32>,
    /// Most nodes that run, or are on their way, for the jobs of one account. No limit of its own if left out.
    #[schemars(range(min = 1, max = 65536))]
    pub max_nodes_per_account: Option<u32>,
    /// Most vCPUs for the jobs of one account. No limit of its own if left out.
    #[schemars(range(min = 1))]
    pub max_vcpus_per_account: Option<u32>,
    /// Users for whom something else holds, by name.
    #[serde(default)]
    pub user: BTreeMap<String, OwnerLimitsFile>,
    /// Accounts for which something else holds, by name.
    #[serde(default)]
    pub account: BTreeMap<String, OwnerLimitsFile>,
}

/// What holds for one user or account, in place of what holds for each.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnerLimitsFile {
    /// Most nodes that run, or are on their way, for its jobs; 0 for none.
    #[schemars(range(max = 65536))]
    pub max_nodes: Option<u32>,
    /// Most vCPUs for its jobs; 0 for none.
    pub max_vcpus: Option<u32>,
}

/// A Slurm partition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PartitionFile {
    /// `PartitionName` of slurm.conf.
    pub name: PartitionName,
    /// The node groups whose nodes are in it.
    #[schemars(length(min = 1))]
    pub node_groups: Vec<NodeGroupName>,
    /// What a job of several nodes gets when EC2 has not enough.
    #[serde(default)]
    pub strategy: Strategy,
    /// What is done when an instance is about to go.
    #[serde(default)]
    pub notices: NoticesFile,
    /// Most nodes that run, or are on their way, for the jobs of this partition. No limit of its own if left out.
    #[schemars(range(min = 1, max = 65536))]
    pub max_nodes: Option<u32>,
    /// Most vCPUs for the jobs of this partition. No limit of its own if left out.
    #[schemars(range(min = 1))]
    pub max_vcpus: Option<u32>,
}

/// What is done with the partition's nodes when their instances are about to go.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoticesFile {
    /// EC2 takes the instance: a spot interruption, or the end of a reservation or capacity block. `requeue` if left out.
    pub interruption: Option<NoticeAction>,
    /// EC2 recommends to leave a spot instance that it may take soon. `ignore` if left out.
    pub rebalance: Option<NoticeAction>,
    /// AWS announces work on the instance's host, or its status checks fail. `drain` if left out.
    pub maintenance: Option<NoticeAction>,
    /// How many seconds before the end jobs are queued again, 5 to 120; 30 if left out.
    #[schemars(range(min = 5, max = 120))]
    pub requeue_before_seconds: Option<u32>,
    /// Sent to the jobs on the node when the notice comes, such as `USR1`. None if left out.
    pub signal: Option<Signal>,
    /// Another node of the group is powered up at once, from another pool.
    #[serde(default)]
    pub replace: bool,
}

/// What the sweep may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SweepFile {
    /// A sweep that would let go more instances than this share, in percent, and more than `max_instances`, lets none go
    /// and raises an alarm. 20 if left out.
    #[schemars(range(min = 1, max = 100))]
    pub max_percent: Option<u32>,
    /// As many a sweep may let go whatever their share; 10 if left out.
    #[schemars(range(max = 65536))]
    pub max_instances: Option<u32>,
    /// How old an instance must be before it is an orphan if nobody owns it, in seconds, 5 to 3600; 120 if left out.
    #[schemars(range(min = 5, max = 3600))]
    pub grace_seconds: Option<u32>,
    /// What becomes of burst nodes when the head node is silent: `keep` if left out.
    #[serde(default)]
    pub head_node_away: HeadNodeAway,
    /// From when on it counts as silent, in minutes, 5 to 10080; 60 if left out.
    #[schemars(range(min = 5, max = 10080))]
    pub head_node_away_minutes: Option<u32>,
}

/// Nodes with one launch recipe.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeGroupFile {
    /// The group's own name.
    pub name: NodeGroupName,
    /// The nodes, as in slurm.conf, such as `cloud[001-128]`.
    pub nodes: Hostlist,
    /// The EC2 launch template, pinned to one version.
    pub launch_template: LaunchTemplateFile,
    /// Candidate instance types, the preferred one first.
    #[schemars(length(min = 1))]
    pub instance_types: Vec<InstanceType>,
    /// Subnets, one a zone, the preferred one first.
    #[schemars(length(min = 1))]
    pub subnets: Vec<SubnetFile>,
    /// Capacity kinds in the order in which they are tried.
    #[schemars(length(min = 1))]
    pub capacity: Vec<CapacityKind>,
    /// How EC2 chooses among on-demand candidates.
    #[serde(default)]
    pub on_demand_allocation: OnDemandAllocation,
    /// The most that on-demand instances may cost, in US cents an hour and node: EC2 launches no more for a call than so
    /// much for each of its nodes together. No limit of its own if left out.
    #[schemars(range(min = 1))]
    pub max_on_demand_cents_per_hour: Option<u32>,
    /// The nodes of a job are of one type in one zone, as a cluster placement group and EFA need it.
    #[serde(default)]
    pub one_zone: bool,
    /// Most nodes of this group that run, or are on their way, at once. All of them if left out.
    #[schemars(range(min = 1, max = 65536))]
    pub max_nodes: Option<u32>,
    /// `CPUs` of the nodes in slurm.conf.
    #[schemars(range(min = 1))]
    pub cpus: u32,
    /// `RealMemory` of the nodes in slurm.conf, in MB.
    #[schemars(range(min = 1))]
    pub memory_mb: u64,
    /// `Gres` of the nodes in slurm.conf, such as `gpu:a10g:1`.
    pub gres: Option<String>,
    /// How long a node may take from Slurm's call to having joined. At most `resume_timeout_seconds` less 15,
    /// which is what is used if it is left out. The request's own deadline counts where it is sooner:
    /// `resume_timeout_seconds` less a tenth of it, or less 10 if that is more.
    #[schemars(range(min = 10))]
    pub join_timeout_seconds: Option<u32>,
    /// The site's own tags for instances and volumes.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// An EC2 launch template in one version.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LaunchTemplateFile {
    /// Its id.
    pub id: LaunchTemplateId,
    /// Its version, a number.
    pub version: LaunchTemplateVersion,
}

/// A subnet.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SubnetFile {
    /// Its id.
    pub id: SubnetId,
    /// The zone it is in, by name.
    pub zone: Zone,
}

/// A launch template's version: a number from 1, and nothing that changes under us.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaunchTemplateVersion(pub u32);

impl<'de> Deserialize<'de> for LaunchTemplateVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = LaunchTemplateVersion;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version number from 1, without quotes")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                let invalid = || E::invalid_value(de::Unexpected::Signed(number), &self);
                u32::try_from(number)
                    .ok()
                    .filter(|&n| n > 0)
                    .map(LaunchTemplateVersion)
                    .ok_or_else(invalid)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text.starts_with('$') {
                    return Err(E::custom(format_args!(
                        "{text} is not a fixed version: it changes when somebody edits the template, and a repeated \
                         launch would no longer be the same call; write the number of the version you tested"
                    )));
                }
                Err(E::invalid_type(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for LaunchTemplateVersion {
    fn schema_name() -> Cow<'static, str> {
        "LaunchTemplateVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "description": "a version number; $Latest and $Default are refused, they change under us",
            "minimum": 1,
            "maximum": u32::MAX,
        })
    }
}
