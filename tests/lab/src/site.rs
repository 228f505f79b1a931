//! The site's side of a lab: credentials of its own for the head node, and `spillway.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::unistd::{User, chown};
use spillway_core::envelope::PublicKey;

use crate::emulator::root::Credentials;
use crate::head::{HeadNode, SLURM_USER};
use crate::network::Network;

/// The node group of every lab.
pub const NODE_GROUP: &str = "burst";

/// The partition of every lab.
pub const PARTITION: &str = "cloud";

/// Instance types of the node group; the nodes in slurm.conf are no larger.
pub const INSTANCE_TYPES: [&str; 2] = ["c7i.large", "m7i.large"];

/// What the site's configuration is made of.
#[derive(Debug)]
pub struct Site<'a> {
    /// `ClusterName`.
    pub cluster: &'a str,
    /// Hostlist of the nodes.
    pub nodes: &'a str,
    /// `CPUs` of each.
    pub cpus: u32,
    /// `RealMemory` of each, in MiB.
    pub memory_mib: u32,
    /// Slurm's ResumeTimeout.
    pub resume_timeout_seconds: u32,
    /// Slurm's SuspendTimeout.
    pub suspend_timeout_seconds: u32,
    /// Candidate instance types.
    pub instance_types: &'a [&'a str],
    /// How many of the lab's subnets (one a zone) the node group uses.
    pub zones: usize,
    /// Capacity kinds in order.
    pub capacity: &'a [&'a str],
    /// `max_nodes` of the cluster's limits.
    pub max_nodes: u32,
    /// The roads by which updates come: `both`, `queue` or `ssm`.
    pub update_roads: &'a str,
    /// The public keys whose envelopes are believed.
    pub trusted_keys: &'a [PublicKey],
    /// The lab's endpoint.
    pub endpoint_url: &'a str,
    /// The stack's outputs.
    pub outputs: &'a BTreeMap<String, String>,
}

impl Site<'_> {
    /// The text of `spillway.toml`.
    #[must_use]
    pub fn to_toml(&self, head: &HeadNode, network: &Network) -> String {
        let output = |name: &str| self.outputs.get(name).cloned().unwrap_or_default();
        let directory = head.directory().display();
        let keys: Vec<String> = self.trusted_keys.iter().map(ToString::to_string).collect();
        let mut text = format!(
            r#"cluster = "{cluster}"
region = "us-east-1"

[queues]
resume = "{resume}"
suspend = "{suspend}"
reports = "{reports}"
updates = "{updates}"

[aws]
table = "{table}"
credentials_file = "{directory}/etc/credentials"
endpoint_url = "{endpoint}"
ca_bundle = "{directory}/etc/bundle.pem"

[client]
spool_directory = "{spool}"
socket = "{directory}/run/agent.sock"
jobs_file = "{directory}/run/jobs"

[callback]
trusted_keys = {trusted_keys:?}
roads = "{roads}"

[slurm]
resume_timeout_seconds = {resume_timeout}
suspend_timeout_seconds = {suspend_timeout}

[limits]
max_nodes = {max_nodes}
launches_per_hour = {launches_per_hour}

[[partition]]
name = "{PARTITION}"
node_groups = ["{NODE_GROUP}"]

[[node_group]]
name = "{NODE_GROUP}"
nodes = "{nodes}"
launch_template = {{ id = "{template}", version = {version} }}
instance_types = {types:?}
capacity = {capacity:?}
cpus = {cpus}
memory_mb = {memory}
"#,
            cluster = self.cluster,
            spool = head.spool_directory().display(),
            trusted_keys = keys,
            roads = self.update_roads,
            max_nodes = self.max_nodes,
            launches_per_hour = self.max_nodes.max(1000),
            resume = output("ResumeQueueUrl"),
            suspend = output("SuspendQueueUrl"),
            reports = output("ReportsQueueUrl"),
            updates = output("UpdatesQueueUrl"),
            table = output("TableName"),
            endpoint = self.endpoint_url,
            resume_timeout = self.resume_timeout_seconds,
            suspend_timeout = self.suspend_timeout_seconds,
            nodes = self.nodes,
            template = output("LaunchTemplateId"),
            version = output("LaunchTemplateVersion"),
            types = self.instance_types,
            capacity = self.capacity,
            cpus = self.cpus,
            memory = self.memory_mib,
        );
        let subnets: Vec<String> = network
            .subnets()
            .into_iter()
            .take(self.zones)
            .map(|s| {
                format!(
                    r#"{{ id = "{}", zone = "{}" }}"#,
                    s.subnet_id, s.availability_zone
                )
            })
            .collect();
        writeln!(text, "subnets = [{}]", subnets.join(", ")).expect("writing to a string");
        text
    }
}

/// Writes a credentials file in the AWS format that `user` alone may read.
pub fn write_credentials(
    path: &Path,
    credentials: &Credentials,
    user: Option<&str>,
) -> io::Result<()> {
    let mut text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        credentials.access_key_id, credentials.secret_access_key
    );
    if let Some(token) = &credentials.session_token {
        writeln!(text, "aws_session_token = {token}").map_err(io::Error::other)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o400))?;
    give(path, user)
}

/// Makes `user` the owner of a file.
pub fn give(path: &Path, user: Option<&str>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let user = User::from_name(user)?
        .ok_or_else(|| io::Error::other(format!("there is no user {user}")))?;
    Ok(chown(path, Some(user.uid), Some(user.gid))?)
}

/// Puts the site's configuration beside slurm.conf, with what it names: credentials, bundle, spool. Answers
/// the configuration's path.
pub fn install(
    head: &HeadNode,
    toml: &str,
    bundle: &Path,
    credentials: &Credentials,
) -> io::Result<PathBuf> {
    let etc = head.directory().join("etc");
    let user = Some(SLURM_USER);
    fs::copy(bundle, etc.join("bundle.pem"))?;
    write_credentials(&etc.join("credentials"), credentials, user)?;
    let spool = head.spool_directory();
    fs::create_dir_all(&spool)?;
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o700))?;
    give(&spool, user)?;
    let path = etc.join("spillway.toml");
    fs::write(&path, toml)?;
    Ok(path)
}
