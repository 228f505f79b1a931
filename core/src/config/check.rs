//! What a schema cannot say: limits, names that must be unique or known, things that must go together.
//! All that is wrong is noted; from a file without errors comes the [`Site`].

mod client;
mod group;
mod healing;
mod limits;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;

use super::error::{Path, Problem};
use super::file::{NodeGroupFile, PartitionFile, SiteFile, SubnetFile};
use super::limits::OwnerLimits;
use super::policy::{NodeGroup, NodeGroups, POLICY_VERSION, PartitionPolicy, Policy, Subnet};
use super::{ClientConfig, Site};
use crate::name::{NodeName, PartitionName};

pub use client::{
    MAX_POLL_INTERVAL_SECONDS, MAX_RESUME_TIMEOUT_SECONDS, MAX_SOCKET_PATH_LENGTH,
    MAX_TRUSTED_KEYS, MIN_POLL_INTERVAL_SECONDS, MIN_RESUME_TIMEOUT_SECONDS,
};
pub use group::{
    MAX_POOLS, MAX_SITE_TAGS, MAX_TAG_KEY_LENGTH, MAX_TAG_VALUE_LENGTH, MIN_JOIN_TIMEOUT_SECONDS,
};

/// Most nodes: Slurm's largest cluster (slurm.conf, `MaxNodeCount`: 65536).
pub const MAX_NODES: u32 = 65_536;
/// The times of a node's launches are kept in its item: one a minute is more than any node needs.
pub const MAX_LAUNCHES_PER_HOUR_PER_NODE: u32 = 60;
/// What the way home takes when a node is failed: table stream, updates queue, agent, scontrol. Our
/// reason must be with Slurm before its own `ResumeTimeout`.
pub const JOIN_MARGIN_SECONDS: u32 = 15;
/// `DynamoDB` items have at most 400 KB; the rest is for keys and what `config push` adds.
pub const MAX_POLICY_BYTES: usize = 350_000;

/// Checks the whole file.
pub(super) fn check(file: SiteFile) -> Result<Site, Vec<Problem>> {
    let mut check = Check {
        problems: Vec::new(),
    };
    check.urls(&file);
    check.paths(&file);
    check.callback(&file);
    check.slurm(&file);
    let root = Path::default();
    check.limits(&file.limits, &root.key("limits"));
    check.sweep(&file.sweep, &root.key("sweep"));
    let partitions = check.partitions(&file.partition, &file.node_group);
    check.node_names(&file.node_group);
    for (index, group) in file.node_group.iter().enumerate() {
        let path = root.key("node_group").index(index);
        check.group(
            group,
            &path,
            &file.region,
            file.slurm.resume_timeout_seconds,
        );
        if !partitions.contains_key(group.name.as_str()) {
            let problem = format!("node group {} is in no partition", group.name);
            check.note(
                &path.key("name"),
                problem,
                "name it in the node_groups of a [[partition]]",
            );
        }
    }
    if check.problems.is_empty() {
        site(file, &partitions)
    } else {
        Err(check.problems)
    }
}

/// Checks what the head node needs and leaves the rest as it is.
pub(super) fn check_client(file: SiteFile) -> Result<ClientConfig, Vec<Problem>> {
    let mut check = Check {
        problems: Vec::new(),
    };
    check.urls(&file);
    check.paths(&file);
    check.callback(&file);
    check.slurm(&file);
    if check.problems.is_empty() {
        Ok(client(file))
    } else {
        Err(check.problems)
    }
}

fn client(file: SiteFile) -> ClientConfig {
    ClientConfig {
        cluster: file.cluster,
        region: file.region,
        queues: file.queues,
        aws: file.aws,
        spool_directory: file.client.spool_directory,
        socket: file.client.socket,
        jobs_file: file.client.jobs_file,
        log_level: file.client.log_level,
        callback: file.callback,
        slurm: file.slurm,
    }
}

/// The partitions of each node group, by its name.
type PartitionsByGroup = BTreeMap<String, Vec<PartitionName>>;

/// Puts the checked file together.
fn site(mut file: SiteFile, partitions: &PartitionsByGroup) -> Result<Site, Vec<Problem>> {
    let resume_timeout_seconds = file.slurm.resume_timeout_seconds;
    let group = |group: NodeGroupFile| NodeGroup {
        partitions: partitions
            .get(group.name.as_str())
            .cloned()
            .unwrap_or_default(),
        max_nodes: group
            .max_nodes
            .unwrap_or_else(|| u32::try_from(group.nodes.len()).unwrap_or(MAX_NODES)),
        join_timeout_seconds: group
            .join_timeout_seconds
            .unwrap_or(resume_timeout_seconds - JOIN_MARGIN_SECONDS),
        name: group.name,
        nodes: group.nodes,
        launch_template_id: group.launch_template.id,
        launch_template_version: group.launch_template.version.0,
        instance_types: group.instance_types,
        subnets: group
            .subnets
            .into_iter()
            .map(|SubnetFile { id, zone }| Subnet {
                subnet_id: id,
                zone,
            })
            .collect(),
        capacity: group.capacity,
        on_demand_allocation: group.on_demand_allocation,
        max_on_demand_cents_per_hour: group.max_on_demand_cents_per_hour,
        one_zone: group.one_zone,
        cpus: group.cpus,
        memory_mb: group.memory_mb,
        gres: group.gres,
        tags: group.tags,
    };
    let whole = |problem: String| vec![Problem::new(&Path::default().key("node_group"), problem)];
    let partition = |file: PartitionFile| {
        let policy = PartitionPolicy {
            strategy: file.strategy,
            notices: healing::notices(&file.notices),
            limits: partition_limits(&file),
        };
        (file.name, policy)
    };
    let partitions = std::mem::take(&mut file.partition)
        .into_iter()
        .map(partition);
    let node_groups = std::mem::take(&mut file.node_group);
    let groups = NodeGroups::new(node_groups.into_iter().map(group).collect());
    let policy = Policy {
        version: POLICY_VERSION,
        cluster: file.cluster.clone(),
        region: file.region.clone(),
        resume_timeout_seconds,
        suspend_timeout_seconds: file.slurm.suspend_timeout_seconds,
        limits: limits::limits(std::mem::take(&mut file.limits)),
        sweep: healing::sweep(&file.sweep),
        partitions: partitions.collect(),
        node_groups: groups.map_err(|error| whole(error.to_string()))?,
    };
    let bytes = policy.to_json().len();
    if bytes > MAX_POLICY_BYTES {
        return Err(whole(format!(
            "the policy has {bytes} bytes: the table takes {MAX_POLICY_BYTES}"
        )));
    }
    let client = client(file);
    Ok(Site { client, policy })
}

fn partition_limits(file: &PartitionFile) -> OwnerLimits {
    OwnerLimits {
        max_nodes: file.max_nodes,
        max_vcpus: file.max_vcpus,
    }
}

/// What is wrong so far.
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn note(&mut self, path: &Path, problem: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(path, problem).hint(hint));
    }

    fn within(&mut self, path: &Path, number: u32, min: u32, max: u32) {
        if !(min..=max).contains(&number) {
            let hint = format!("write a number from {min} to {max}");
            self.note(path, format!("{number} is out of bounds"), hint);
        }
    }

    fn not_empty<T>(&mut self, path: &Path, list: &[T], what: &str) {
        if list.is_empty() {
            self.note(
                path,
                "the list is empty",
                format!("write at least one {what}"),
            );
        }
    }

    /// Notes each element of a list that was there before.
    fn unique<T: Eq + Display>(&mut self, list: &[T], path_of: impl Fn(usize) -> Path) {
        for (index, element) in list.iter().enumerate() {
            if list[..index].contains(element) {
                self.note(
                    &path_of(index),
                    format!("{element} is there twice"),
                    "remove one, or give it its own name",
                );
            }
        }
    }

    /// Partitions have their own names and known groups.
    fn partitions(
        &mut self,
        partitions: &[PartitionFile],
        groups: &[NodeGroupFile],
    ) -> PartitionsByGroup {
        let root = Path::default().key("partition");
        self.not_empty(&root, partitions, "[[partition]]");
        let names: Vec<_> = partitions.iter().map(|partition| &partition.name).collect();
        self.unique(&names, |index| root.index(index).key("name"));
        let mut by_group = PartitionsByGroup::new();
        for (index, partition) in partitions.iter().enumerate() {
            let path = root.index(index);
            self.partition_limits(partition_limits(partition), &path);
            self.notices(&partition.notices, &path.key("notices"));
            let path = path.key("node_groups");
            self.not_empty(&path, &partition.node_groups, "node group");
            self.unique(&partition.node_groups, |index| path.index(index));
            for (index, name) in partition.node_groups.iter().enumerate() {
                if !groups.iter().any(|group| group.name == *name) {
                    let hint = super::read::known_words(
                        name.as_str(),
                        groups.iter().map(|group| group.name.as_str()),
                    );
                    self.note(
                        &path.index(index),
                        format!("there is no node group {name}"),
                        hint,
                    );
                }
                by_group
                    .entry(name.to_string())
                    .or_default()
                    .push(partition.name.clone());
            }
        }
        by_group
    }

    /// Groups have their own names, and each node is in one group, once.
    fn node_names(&mut self, groups: &[NodeGroupFile]) {
        let root = Path::default().key("node_group");
        self.not_empty(&root, groups, "[[node_group]]");
        let names: Vec<_> = groups.iter().map(|group| &group.name).collect();
        self.unique(&names, |index| root.index(index).key("name"));
        let mut group_of: HashMap<NodeName, usize> = HashMap::new();
        let mut count = 0;
        for (index, group) in groups.iter().enumerate() {
            let path = root.index(index).key("nodes");
            count += group.nodes.len();
            match group.nodes.node_names() {
                Err(error) => self.note(&path, error.to_string(), "name nodes as slurm.conf does"),
                Ok(_) if count > MAX_NODES as usize => {
                    let problem =
                        format!("with these there are {count} nodes: Slurm takes {MAX_NODES}");
                    return self.note(&path, problem, "leave some out");
                }
                Ok(nodes) => {
                    let taken = nodes.into_iter().find_map(|node| {
                        group_of
                            .insert(node.clone(), index)
                            .map(|other| (node, other))
                    });
                    if let Some((node, other)) = taken {
                        let problem = format!(
                            "node {node} is already in node group {}",
                            groups[other].name
                        );
                        self.note(
                            &path,
                            problem,
                            "a node belongs to one group, once: remove it here or there",
                        );
                    }
                }
            }
        }
    }
}
