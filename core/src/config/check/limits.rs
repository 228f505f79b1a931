//! The caps: bounds of each, and the names for which something else holds.

use std::collections::BTreeMap;

use super::{Check, MAX_LAUNCHES_PER_HOUR_PER_NODE, MAX_NODES};
use crate::config::error::Path;
use crate::config::file::{LimitsFile, OwnerLimitsFile};
use crate::config::limits::{
    DEFAULT_CAPACITY_REST_SECONDS, DEFAULT_EC2_INSTANCES_AT_ONCE, DEFAULT_EC2_INSTANCES_PER_SECOND,
    DEFAULT_LAUNCHES_PER_HOUR_PER_NODE, Limits, MAX_CAPACITY_REST_SECONDS,
    MIN_CAPACITY_REST_SECONDS, OwnerLimits,
};
use crate::name::OwnerName;

impl Check {
    pub fn limits(&mut self, limits: &LimitsFile, path: &Path) {
        let most = u32::MAX;
        for (key, number, max) in [
            ("max_nodes", Some(limits.max_nodes), MAX_NODES),
            ("max_vcpus", limits.max_vcpus, most),
            ("launches_per_hour", Some(limits.launches_per_hour), most),
            ("ec2_instances_at_once", limits.ec2_instances_at_once, most),
            (
                "ec2_instances_per_second",
                limits.ec2_instances_per_second,
                most,
            ),
            (
                "launches_per_hour_per_node",
                limits.launches_per_hour_per_node,
                MAX_LAUNCHES_PER_HOUR_PER_NODE,
            ),
            ("max_nodes_per_user", limits.max_nodes_per_user, MAX_NODES),
            ("max_vcpus_per_user", limits.max_vcpus_per_user, most),
            (
                "max_nodes_per_account",
                limits.max_nodes_per_account,
                MAX_NODES,
            ),
            ("max_vcpus_per_account", limits.max_vcpus_per_account, most),
        ] {
            if let Some(number) = number {
                self.within(&path.key(key), number, 1, max);
            }
        }
        if let Some(seconds) = limits.capacity_rest_seconds {
            let path = path.key("capacity_rest_seconds");
            let (least, most) = (MIN_CAPACITY_REST_SECONDS, MAX_CAPACITY_REST_SECONDS);
            self.within(&path, seconds, least, most);
        }
        self.owners(&limits.user, &path.key("user"));
        self.owners(&limits.account, &path.key("account"));
    }

    /// What holds for one partition.
    pub fn partition_limits(&mut self, limits: OwnerLimits, path: &Path) {
        for (key, number, max) in [
            ("max_nodes", limits.max_nodes, MAX_NODES),
            ("max_vcpus", limits.max_vcpus, u32::MAX),
        ] {
            if let Some(number) = number {
                self.within(&path.key(key), number, 1, max);
            }
        }
    }

    fn owners(&mut self, owners: &BTreeMap<String, OwnerLimitsFile>, path: &Path) {
        for (name, limits) in owners {
            let path = path.key(name);
            let known = OwnerName::new(name);
            if known.as_str() != name {
                let hint = format!("write {:?}, as this name is counted", known.as_str());
                self.note(&path, "no jobs are counted under this name", hint);
            }
            if limits.max_nodes.is_none() && limits.max_vcpus.is_none() {
                self.note(
                    &path,
                    "nothing is written for it",
                    "write max_nodes or max_vcpus, or leave it out",
                );
            }
            if let Some(number) = limits.max_nodes {
                self.within(&path.key("max_nodes"), number, 0, MAX_NODES);
            }
        }
    }
}

/// The limits of a checked file.
pub fn limits(file: LimitsFile) -> Limits {
    Limits {
        max_nodes: file.max_nodes,
        max_vcpus: file.max_vcpus,
        launches_per_hour: file.launches_per_hour,
        launches_per_hour_per_node: file
            .launches_per_hour_per_node
            .unwrap_or(DEFAULT_LAUNCHES_PER_HOUR_PER_NODE),
        ec2_instances_at_once: file
            .ec2_instances_at_once
            .unwrap_or(DEFAULT_EC2_INSTANCES_AT_ONCE),
        ec2_instances_per_second: file
            .ec2_instances_per_second
            .unwrap_or(DEFAULT_EC2_INSTANCES_PER_SECOND),
        capacity_rest_seconds: file
            .capacity_rest_seconds
            .unwrap_or(DEFAULT_CAPACITY_REST_SECONDS),
        per_user: OwnerLimits {
            max_nodes: file.max_nodes_per_user,
            max_vcpus: file.max_vcpus_per_user,
        },
        per_account: OwnerLimits {
            max_nodes: file.max_nodes_per_account,
            max_vcpus: file.max_vcpus_per_account,
        },
        users: owners(file.user),
        accounts: owners(file.account),
    }
}

fn owners(file: BTreeMap<String, OwnerLimitsFile>) -> BTreeMap<OwnerName, OwnerLimits> {
    let own = |(name, own): (String, OwnerLimitsFile)| {
        let limits = OwnerLimits {
            max_nodes: own.max_nodes,
            max_vcpus: own.max_vcpus,
        };
        (OwnerName::from(name), limits)
    };
    file.into_iter().map(own).collect()
}
