//! The caps of the policy: on the cluster, and on what is held for a partition, an account or a user.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::OwnerName;

/// How often one node is launched within an hour where the site says nothing: every five minutes, which is as often
/// as a node can boot, run a short job, idle and be suspended. More is a loop or an abuse.
pub const DEFAULT_LAUNCHES_PER_HOUR_PER_NODE: u32 = 12;

/// Caps on the whole cluster, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most nodes that run, or are on their way, at once.
    pub max_nodes: u32,
    /// Most vCPUs that run, or are on their way, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u32>,
    /// Most instances launched within an hour.
    pub launches_per_hour: u32,
    /// How often one node is launched within an hour at most.
    #[serde(default = "default_launches_per_hour_per_node")]
    pub launches_per_hour_per_node: u32,
    /// The account's bucket of instances for launches: how many it holds.
    #[serde(default = "default_ec2_instances_at_once")]
    pub ec2_instances_at_once: u32,
    /// How many instances a second are put into that bucket.
    #[serde(default = "default_ec2_instances_per_second")]
    pub ec2_instances_per_second: u32,
    /// How long a pool is left alone after EC2 first had not enough there.
    #[serde(default = "default_capacity_rest_seconds")]
    pub capacity_rest_seconds: u32,
    /// What each user may hold.
    #[serde(default, skip_serializing_if = "OwnerLimits::is_none")]
    pub per_user: OwnerLimits,
    /// What each account may hold.
    #[serde(default, skip_serializing_if = "OwnerLimits::is_none")]
    pub per_account: OwnerLimits,
    /// What users may hold for whom the site says something else than for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<OwnerName, OwnerLimits>,
    /// The same for accounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub accounts: BTreeMap<OwnerName, OwnerLimits>,
}

/// Caps on what is held for one partition, account or user. No limit of its own where one is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerLimits {
    /// Most nodes that run, or are on their way, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_nodes: Option<u32>,
    /// Most vCPUs that run, or are on their way, at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u32>,
}

impl OwnerLimits {
    /// These, and `others` where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            max_nodes: self.max_nodes.or(others.max_nodes),
            max_vcpus: self.max_vcpus.or(others.max_vcpus),
        }
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Limits {
    /// No caps but EC2's: for work that was granted under a policy that is gone.
    fn default() -> Self {
        Self {
            max_nodes: u32::MAX,
            max_vcpus: None,
            launches_per_hour: u32::MAX,
            launches_per_hour_per_node: DEFAULT_LAUNCHES_PER_HOUR_PER_NODE,
            ec2_instances_at_once: DEFAULT_EC2_INSTANCES_AT_ONCE,
            ec2_instances_per_second: DEFAULT_EC2_INSTANCES_PER_SECOND,
            capacity_rest_seconds: DEFAULT_CAPACITY_REST_SECONDS,
            per_user: OwnerLimits::default(),
            per_account: OwnerLimits::default(),
            users: BTreeMap::new(),
            accounts: BTreeMap::new(),
        }
    }
}

/// EC2's default bucket of instances for RunInstances (EC2 API, request throttling): it holds 1,000.
pub const DEFAULT_EC2_INSTANCES_AT_ONCE: u32 = 1_000;
/// And is refilled by 2 a second. Both can be raised by AWS on request.
pub const DEFAULT_EC2_INSTANCES_PER_SECOND: u32 = 2;

/// How long a pool rests where the site says nothing: shorter asks EC2 in vain, longer misses capacity that is back.
pub const DEFAULT_CAPACITY_REST_SECONDS: u32 = 180;
/// Shorter is no rest: a job whose nodes fail is not tried again for two minutes by Slurm anyway.
pub const MIN_CAPACITY_REST_SECONDS: u32 = 10;
/// As long as a pool rests at most, however often EC2 had not enough.
pub const MAX_CAPACITY_REST_SECONDS: u32 = 1_800;

fn default_ec2_instances_at_once() -> u32 {
    DEFAULT_EC2_INSTANCES_AT_ONCE
}

fn default_capacity_rest_seconds() -> u32 {
    DEFAULT_CAPACITY_REST_SECONDS
}

fn default_ec2_instances_per_second() -> u32 {
    DEFAULT_EC2_INSTANCES_PER_SECOND
}

fn default_launches_per_hour_per_node() -> u32 {
    DEFAULT_LAUNCHES_PER_HOUR_PER_NODE
}
