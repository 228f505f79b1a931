//! One node group: its candidates, its caps and its tags.

use std::collections::BTreeMap;

use super::{Check, JOIN_MARGIN_SECONDS};
use crate::config::error::Path;
use crate::config::file::NodeGroupFile;
use crate::name::Region;

/// Less would fail every node: no instance boots faster.
pub const MIN_JOIN_TIMEOUT_SECONDS: u32 = 10;
/// Instance types times subnets in one `CreateFleet`: the published limit on launch template overrides
/// (300, EC2 Fleet quotas). Instant fleets have none, but refuse calls that are too big.
pub const MAX_POOLS: usize = 300;
/// EC2 allows 50 tags a resource; 15 are kept for Spillway's own.
pub const MAX_SITE_TAGS: usize = 35;
/// EC2: tag keys, in characters.
pub const MAX_TAG_KEY_LENGTH: usize = 128;
/// EC2: tag values, in characters.
pub const MAX_TAG_VALUE_LENGTH: usize = 256;

impl Check {
    pub fn group(
        &mut self,
        group: &NodeGroupFile,
        path: &Path,
        region: &Region,
        resume_timeout_seconds: u32,
    ) {
        let types = path.key("instance_types");
        self.not_empty(&types, &group.instance_types, "instance type");
        self.unique(&group.instance_types, |index| types.index(index));
        let capacity = path.key("capacity");
        self.not_empty(
            &capacity,
            &group.capacity,
            "of spot, on-demand and reserved",
        );
        let kinds: Vec<_> = group.capacity.iter().map(|kind| kind.as_str()).collect();
        self.unique(&kinds, |index| capacity.index(index));
        self.subnets(group, path, region);
        let pools = group.instance_types.len() * group.subnets.len();
        if pools > MAX_POOLS {
            let problem =
                format!("{pools} pairs of instance type and subnet: one launch takes {MAX_POOLS}");
            self.note(&types, problem, "name fewer types or subnets");
        }
        let count = u32::try_from(group.nodes.len()).unwrap_or(u32::MAX);
        if let Some(max_nodes) = group.max_nodes {
            self.within(&path.key("max_nodes"), max_nodes, 1, count);
        }
        if let Some(cents) = group.max_on_demand_cents_per_hour {
            self.within(
                &path.key("max_on_demand_cents_per_hour"),
                cents,
                1,
                u32::MAX,
            );
        }
        self.within(&path.key("cpus"), group.cpus, 1, u32::MAX);
        if group.memory_mb == 0 {
            self.note(
                &path.key("memory_mb"),
                "0 is out of bounds",
                "write RealMemory as in slurm.conf",
            );
        }
        let latest = resume_timeout_seconds.saturating_sub(JOIN_MARGIN_SECONDS);
        if let Some(timeout) = group
            .join_timeout_seconds
            .filter(|t| !(MIN_JOIN_TIMEOUT_SECONDS..=latest).contains(t))
        {
            let problem = format!("{timeout} is out of bounds");
            let hint = format!(
                "write a number from {MIN_JOIN_TIMEOUT_SECONDS} to {latest}: a node is failed with our reason \
                 {JOIN_MARGIN_SECONDS} s before slurm.resume_timeout_seconds at the latest"
            );
            self.note(&path.key("join_timeout_seconds"), problem, hint);
        }
        self.tags(&group.tags, &path.key("tags"));
    }

    fn subnets(&mut self, group: &NodeGroupFile, path: &Path, region: &Region) {
        let path = path.key("subnets");
        self.not_empty(
            &path,
            &group.subnets,
            "subnet, as in { id = \"subnet-…\", zone = \"…\" }",
        );
        for (index, subnet) in group.subnets.iter().enumerate() {
            let zone = path.index(index).key("zone");
            if let Some(other) = group.subnets[..index]
                .iter()
                .find(|other| other.zone == subnet.zone)
            {
                let problem = format!("zone {} has subnet {} already", subnet.zone, other.id);
                let hint = "CreateFleet takes one subnet a zone: remove one, or make a second node group for it";
                self.note(&zone, problem, hint);
            }
            if !subnet.zone.as_str().starts_with(region.as_str()) {
                let problem = format!("zone {} is not in region {region}", subnet.zone);
                self.note(
                    &zone,
                    problem,
                    format!("write a zone's name, such as {region}a"),
                );
            }
        }
    }

    fn tags(&mut self, tags: &BTreeMap<String, String>, path: &Path) {
        if tags.len() > MAX_SITE_TAGS {
            let hint =
                format!("EC2 takes 50, of which Spillway needs the rest: keep {MAX_SITE_TAGS}");
            self.note(path, format!("{} tags", tags.len()), hint);
        }
        for (key, value) in tags {
            let path = path.key(key);
            let lower = key.to_lowercase();
            if lower.starts_with("aws:") || lower.starts_with("spillway:") || key == "Name" {
                let hint = "aws: belongs to AWS; spillway: and Name are written by Spillway";
                self.note(
                    &path,
                    format!("the tag {key:?} is not the site's to set"),
                    hint,
                );
            }
            // Narrower than EC2's own rule: these keys are also allowed as names in instance metadata.
            let is_key = key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-=._:@".contains(c));
            if key.is_empty() || !is_key || key.chars().count() > MAX_TAG_KEY_LENGTH {
                let hint = format!(
                    "write 1 to {MAX_TAG_KEY_LENGTH} of A-Z, a-z, 0-9, +, -, =, ., _, : and @"
                );
                self.note(&path, "this is no key of a tag", hint);
            }
            let is_value = value
                .chars()
                .all(|c| c.is_alphanumeric() || " _.:/=+-@".contains(c));
            if !is_value || value.chars().count() > MAX_TAG_VALUE_LENGTH {
                let hint = format!(
                    "write at most {MAX_TAG_VALUE_LENGTH} letters, digits, spaces, _, ., :, /, =, +, - and @"
                );
                self.note(&path, "this is no value of a tag", hint);
            }
        }
    }
}
