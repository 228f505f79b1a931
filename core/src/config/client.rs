//! The head node's own settings.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::envelope::PublicKey;
use crate::name::{ClusterName, Region};

/// What the client reads from `spillway.toml`; it never leaves the head node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// The Slurm cluster.
    pub cluster: ClusterName,
    /// Where queues and table are.
    pub region: Region,
    /// The queues' URLs.
    pub queues: Queues,
    /// How AWS is reached.
    pub aws: AwsAccess,
    /// Directory of the spool and of the last stamp. With two head nodes it lies on Slurm's
    /// `StateSaveLocation`, which both see.
    pub spool_directory: PathBuf,
    /// The socket on which the programs wake the agent.
    pub socket: PathBuf,
    /// The file in which the agent keeps what is known of each job.
    pub jobs_file: PathBuf,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Which updates are believed, and how they come.
    pub callback: CallbackSettings,
    /// How Slurm is called.
    pub slurm: SlurmSettings,
}

/// The URLs of the queues that the client sends to and receives from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Queues {
    /// Resume requests go here.
    #[schemars(url)]
    pub resume: String,
    /// Suspend requests go here.
    #[schemars(url)]
    pub suspend: String,
    /// Acknowledgements, heartbeats and node states go here.
    #[schemars(url)]
    pub reports: String,
    /// Updates for slurmctld come from here.
    #[schemars(url)]
    pub updates: String,
}

/// How AWS is reached, and as whom. Without `credentials_file` and `profile` the SDK's default chain
/// applies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsAccess {
    /// The DynamoDB table; the commands of the operator and the nodes use it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{3,255}$"))]
    pub table: String,
    /// A credentials file in the AWS format, readable by SlurmUser only.
    pub credentials_file: Option<PathBuf>,
    /// The profile in that file, or in the default one.
    pub profile: Option<String>,
    /// One endpoint for all services instead of AWS's own.
    #[schemars(url)]
    pub endpoint_url: Option<String>,
    /// An HTTP proxy for every call to AWS.
    #[schemars(url)]
    pub proxy: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// How much is logged, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// Something went wrong and was handled.
    Warn,
    /// Each change of state.
    #[default]
    Info,
    /// Each node as well.
    Debug,
    /// Each step.
    Trace,
}

impl LogLevel {
    /// The word that `tracing` filters take.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Which updates for slurmctld are believed, and by which roads they come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallbackSettings {
    /// The public keys whose envelopes are believed, as `spillway keys create` prints them: one, or two while
    /// one replaces the other. Without any, no update is applied.
    #[schemars(length(max = 2))]
    pub trusted_keys: Vec<PublicKey>,
    /// The roads by which updates come; the stack's `UpdateRoads` must include them.
    pub roads: UpdateRoads,
}

/// What is wrong while no key is trusted, and what to do.
pub const NO_TRUSTED_KEYS: &str = "trusted_keys in [callback] is empty: no update from AWS is applied, and nodes that are \
     resumed do not come up; add the line that `spillway keys create` prints (`spillway keys list` shows the keys)";

/// The roads by which updates come to the head node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateRoads {
    /// By the updates queue and by SSM, whichever is faster.
    #[default]
    Both,
    /// By the updates queue alone.
    Queue,
    /// By SSM Run Command alone: the agent does not ask the updates queue.
    Ssm,
}

impl UpdateRoads {
    /// Whether the agent takes updates from the queue.
    #[must_use]
    pub fn has_queue(self) -> bool {
        self != Self::Ssm
    }

    /// Whether `spillway apply` takes updates from SSM.
    #[must_use]
    pub fn has_ssm(self) -> bool {
        self != Self::Queue
    }
}

/// How Slurm is called, and what its own configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlurmSettings {
    /// The directory that holds `scontrol`, `sinfo` and `squeue`.
    #[serde(default = "default_bin_directory")]
    pub bin_directory: PathBuf,
    /// `ResumeTimeout` of slurm.conf (of the burst partitions, if set there).
    pub resume_timeout_seconds: u32,
    /// `SuspendTimeout` of slurm.conf (of the burst partitions, if set there).
    pub suspend_timeout_seconds: u32,
    /// How often the agent asks slurmctld for the nodes' states; at least 30.
    #[serde(default = "default_poll_interval_seconds")]
    #[schemars(range(min = 30, max = 3600))]
    pub poll_interval_seconds: u32,
}

fn default_bin_directory() -> PathBuf {
    "/usr/bin".into()
}

fn default_poll_interval_seconds() -> u32 {
    30
}
