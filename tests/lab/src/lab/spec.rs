//! What a lab is made of.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::deploy::FUNCTIONS;
use crate::install::SlurmRelease;
use crate::site;

/// The head node as a managed node of SSM.
pub const HEAD_NODE_ID: &str = "mi-0123456789abcdef0";

/// The second head node, where there is one.
pub const BACKUP_HEAD_NODE_ID: &str = "mi-0123456789abcdef1";

/// The head node of [`LabSpec::neighbour`].
const NEIGHBOUR_HEAD_NODE_ID: &str = "mi-0fedcba9876543210";

/// The image of the lab's instances.
pub(super) const IMAGE_ID: &str = "ami-0123456789abcdef0";

/// The image of the instances of [`LabSpec::neighbour`].
const NEIGHBOUR_IMAGE_ID: &str = "ami-0fedcba9876543210";

/// What can be said of a lab before it starts.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Where journal, certificates, logs and the emulator's state go; made if absent.
    pub state: PathBuf,
    /// The directory with the built binaries.
    pub binaries: PathBuf,
    /// `ClusterName`.
    pub cluster: String,
    /// How many CLOUD nodes.
    pub nodes: u32,
    /// Slurm's ResumeTimeout.
    pub resume_timeout_seconds: u32,
    /// Idle seconds until Slurm suspends a node.
    pub suspend_time_seconds: u32,
    /// Slurm's SuspendTimeout.
    pub suspend_timeout_seconds: u32,
    /// Time-out of the Lambdas. Short here, so that a test need not wait long for a redelivery.
    pub function_timeout_seconds: u32,
    /// Visibility time-out of the queues.
    pub queue_visibility_seconds: u32,
    /// How many zones the node group may use; with one zone and one type the launch is RunInstances.
    pub zones: usize,
    /// Candidate instance types of the node group.
    pub instance_types: Vec<String>,
    /// Capacity kinds in order.
    pub capacity: Vec<String>,
    /// `UpdateRoads`: how updates reach the head node.
    pub update_roads: String,
    /// `SweepSchedule`: whether there is a sweep every minute. A test asks for its sweeps itself.
    pub sweeps: bool,
    /// `max_nodes` of the cluster's limits.
    pub max_nodes: u32,
    /// Which Slurm runs on the head node and on the instances.
    pub slurm: SlurmRelease,
    /// More lines of slurm.conf.
    pub slurm_lines: Vec<String>,
    /// The image of the instances.
    pub image_id: String,
    /// The head node as a managed node of SSM; with two, there is a second head node, slurmctld's backup.
    pub head_node_ids: Vec<String>,
    /// What the names of the site's IAM users begin with.
    pub user_prefix: String,
}

impl LabSpec {
    /// A lab of 8 nodes whose times suit a person who watches, with its state below `state`.
    pub fn new(state: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            state: state.to_owned(),
            binaries: binaries()?,
            cluster: "lab".to_owned(),
            nodes: 8,
            resume_timeout_seconds: 120,
            suspend_time_seconds: 20,
            suspend_timeout_seconds: 10,
            function_timeout_seconds: 20,
            queue_visibility_seconds: 25,
            zones: 2,
            instance_types: site::INSTANCE_TYPES.map(str::to_owned).to_vec(),
            capacity: vec!["on-demand".to_owned()],
            update_roads: "both".to_owned(),
            sweeps: true,
            max_nodes: 64,
            slurm: SlurmRelease::default(),
            slurm_lines: Vec::new(),
            image_id: IMAGE_ID.to_owned(),
            head_node_ids: vec![HEAD_NODE_ID.to_owned()],
            user_prefix: String::new(),
        })
    }

    /// The same for another cluster in the same region: with an image, a head node and users of its own.
    #[must_use]
    pub fn neighbour(&self, cluster: &str) -> Self {
        Self {
            state: self.state.join(cluster),
            cluster: cluster.to_owned(),
            image_id: NEIGHBOUR_IMAGE_ID.to_owned(),
            head_node_ids: vec![NEIGHBOUR_HEAD_NODE_ID.to_owned()],
            user_prefix: format!("{cluster}-"),
            ..self.clone()
        }
    }

    pub(super) fn node_list(&self) -> String {
        format!("cloud-[0-{}]", self.nodes - 1)
    }
}

/// Where `cargo build` put the binaries: beside the program that asks, or above a test's `deps`.
pub fn binaries() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let mut directory = own.parent().context("this program has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("`deps` has no parent")?;
    }
    for name in ["spillway"].into_iter().chain(FUNCTIONS) {
        if !directory.join(name).exists() {
            bail!("no {name} in {}: run `make build`", directory.display());
        }
    }
    Ok(directory.to_owned())
}
