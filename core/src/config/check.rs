//! What a schema cannot say: limits, names that must be unique or known, things that must go together.
//! All that is wrong is noted; from a file without errors comes the [`Site`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::PathBuf;

use super::error::{Path, Problem};
use super::file::{NodeGroupFile, PartitionFile, SiteFile, SubnetFile};
use super::policy::{Limits, NodeGroup, NodeGroups, POLICY_VERSION, Policy, Subnet};
use super::{ClientConfig, Site};
use crate::name::{NodeName, PartitionName, Region};

/// Most nodes: Slurm's largest cluster (slurm.conf, `MaxNodeCount`: 65536).
pub const MAX_NODES: u32 = 65_536;
/// Slurm's own limits make less than this useless: an instance needs about as long to boot.
pub const MIN_RESUME_TIMEOUT_SECONDS: u32 = 30;
/// The resume queue keeps a message for an hour; a later resume would be lost without a word.
pub const MAX_RESUME_TIMEOUT_SECONDS: u32 = 3_600;
/// What the way home takes when a node is failed: table stream, updates queue, agent, scontrol. Our
/// reason must be with Slurm before its own `ResumeTimeout`.
pub const JOIN_MARGIN_SECONDS: u32 = 15;
/// Shorter join times would fail every node.
pub const MIN_JOIN_TIMEOUT_SECONDS: u32 = 10;
/// slurmctld is asked for all nodes' states at most this often.
pub const MIN_POLL_INTERVAL_SECONDS: u32 = 30;
/// Less often, and the sweep works on states that are long gone.
pub const MAX_POLL_INTERVAL_SECONDS: u32 = 3_600;
/// Instance types times subnets in one `CreateFleet`: the published limit on launch template overrides
/// (300, EC2 Fleet quotas). Instant fleets have none, but refuse calls that are too big.
pub const MAX_POOLS: usize = 300;
/// EC2 allows 50 tags a resource; 15 are kept for Spillway's own.
pub const MAX_SITE_TAGS: usize = 35;
/// EC2: tag keys, in characters.
pub const MAX_TAG_KEY_LENGTH: usize = 128;
/// EC2: tag values, in characters.
pub const MAX_TAG_VALUE_LENGTH: usize = 256;
/// Linux: `sun_path` has 108 bytes, the last one zero.
pub const MAX_SOCKET_PATH_LENGTH: usize = 107;
/// `DynamoDB` items have at most 400 KB; the rest is for keys and what `config push` adds.
pub const MAX_POLICY_BYTES: usize = 350_000;

/// Checks the whole file.
pub(super) fn check(file: SiteFile) -> Result<Site, Vec<Problem>> {
    let mut check = Check {
        problems: Vec::new(),
    };
    check.urls(&file);
    check.paths(&file);
    check.slurm(&file);
    let root = Path::default();
    let limits = root.key("limits");
    check.within(
        &limits.key("max_nodes"),
        file.limits.max_nodes,
        1,
        MAX_NODES,
    );
    check.within(
        &limits.key("launches_per_hour"),
        file.limits.launches_per_hour,
        1,
        u32::MAX,
    );
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

/// The partitions of each node group, by its name.
type PartitionsByGroup = BTreeMap<String, Vec<PartitionName>>;

/// Puts the checked file together.
fn site(file: SiteFile, partitions: &PartitionsByGroup) -> Result<Site, Vec<Problem>> {
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
        cpus: group.cpus,
        memory_mb: group.memory_mb,
        gres: group.gres,
        tags: group.tags,
    };
    let whole = |problem: String| vec![Problem::new(&Path::default().key("node_group"), problem)];
    let groups = NodeGroups::new(file.node_group.into_iter().map(group).collect());
    let policy = Policy {
        version: POLICY_VERSION,
        cluster: file.cluster.clone(),
        region: file.region.clone(),
        resume_timeout_seconds,
        suspend_timeout_seconds: file.slurm.suspend_timeout_seconds,
        limits: Limits {
            max_nodes: file.limits.max_nodes,
            launches_per_hour: file.limits.launches_per_hour,
        },
        node_groups: groups.map_err(|error| whole(error.to_string()))?,
    };
    let bytes = policy.to_json().len();
    if bytes > MAX_POLICY_BYTES {
        return Err(whole(format!(
            "the policy has {bytes} bytes: the table takes {MAX_POLICY_BYTES}"
        )));
    }
    let client = ClientConfig {
        cluster: file.cluster,
        region: file.region,
        queues: file.queues,
        aws: file.aws,
        spool_directory: file.client.spool_directory,
        socket: file.client.socket,
        jobs_file: file.client.jobs_file,
        log_level: file.client.log_level,
        slurm: file.slurm,
    };
    Ok(Site { client, policy })
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

    fn urls(&mut self, file: &SiteFile) {
        let root = Path::default();
        let (queues, aws) = (root.key("queues"), root.key("aws"));
        let names = ["resume", "suspend", "reports", "updates"];
        let urls = [
            &file.queues.resume,
            &file.queues.suspend,
            &file.queues.reports,
            &file.queues.updates,
        ];
        for (name, url) in names.iter().zip(urls) {
            self.url(&queues.key(name), url);
        }
        self.unique(&urls, |index| queues.key(names[index]));
        for (name, url) in [
            ("endpoint_url", &file.aws.endpoint_url),
            ("proxy", &file.aws.proxy),
        ] {
            if let Some(url) = url {
                self.url(&aws.key(name), url);
            }
        }
        let table = &file.aws.table;
        let is_name = table
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        if !is_name || !(3..=255).contains(&table.len()) {
            let problem = format!("{table:?} is no name of a DynamoDB table");
            self.note(
                &aws.key("table"),
                problem,
                "write 3 to 255 of A-Z, a-z, 0-9, _, . and -",
            );
        }
    }

    fn url(&mut self, path: &Path, url: &str) {
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        let host = rest
            .and_then(|rest| rest.split('/').next())
            .unwrap_or_default();
        if host.is_empty() || !url.chars().all(|c| c.is_ascii_graphic()) {
            self.note(
                path,
                format!("{url:?} is not a URL"),
                "write it whole, as in https://host/path",
            );
        }
    }

    fn paths(&mut self, file: &SiteFile) {
        let root = Path::default();
        let (client, aws) = (root.key("client"), root.key("aws"));
        let set = |path: &Option<PathBuf>| path.clone().unwrap_or_else(|| "/".into());
        for (path, value) in [
            (client.key("spool_directory"), &file.client.spool_directory),
            (client.key("socket"), &file.client.socket),
            (client.key("jobs_file"), &file.client.jobs_file),
            (
                aws.key("credentials_file"),
                &set(&file.aws.credentials_file),
            ),
            (aws.key("ca_bundle"), &set(&file.aws.ca_bundle)),
            (
                root.key("slurm").key("bin_directory"),
                &file.slurm.bin_directory,
            ),
        ] {
            if !value.is_absolute() {
                let problem = format!("{} is not an absolute path", value.display());
                self.note(
                    &path,
                    problem,
                    "slurmctld calls us from a directory of its own: start with /",
                );
            }
        }
        let length = file.client.socket.as_os_str().len();
        if length > MAX_SOCKET_PATH_LENGTH {
            let problem = format!(
                "the path has {length} bytes: Linux takes {MAX_SOCKET_PATH_LENGTH} for a socket"
            );
            self.note(
                &client.key("socket"),
                problem,
                "choose a shorter one, such as /run/spillway/agent.sock",
            );
        }
    }

    fn slurm(&mut self, file: &SiteFile) {
        let slurm = Path::default().key("slurm");
        let (resume, suspend) = (
            file.slurm.resume_timeout_seconds,
            file.slurm.suspend_timeout_seconds,
        );
        let (min, max) = (MIN_RESUME_TIMEOUT_SECONDS, MAX_RESUME_TIMEOUT_SECONDS);
        self.within(&slurm.key("resume_timeout_seconds"), resume, min, max);
        self.within(&slurm.key("suspend_timeout_seconds"), suspend, 1, max);
        let poll = file.slurm.poll_interval_seconds;
        let (min, max) = (MIN_POLL_INTERVAL_SECONDS, MAX_POLL_INTERVAL_SECONDS);
        self.within(&slurm.key("poll_interval_seconds"), poll, min, max);
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
            let path = root.index(index).key("node_groups");
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

    fn group(
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
