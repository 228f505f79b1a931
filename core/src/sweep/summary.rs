//! What a sweep tells whoever asked for it.

use serde::{Deserialize, Serialize};

use super::Finding;

/// The name of the last report of all.
pub const LAST_REPORT: &str = "last";

/// How many findings a report lists: a report is one item of the table, and a person reads it.
pub const MAX_LISTED: usize = 500;

/// What a sweep saw and set out to do, for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepReport {
    /// When it looked, Unix milliseconds.
    pub at_ms: u64,
    /// Nothing was done.
    pub dry_run: bool,
    /// How many instances EC2 showed.
    pub instances: usize,
    /// How many nodes something goes on with.
    pub nodes: usize,
    /// How old slurmctld's states were; absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_age_ms: Option<u64>,
    /// The first [`MAX_LISTED`].
    pub findings: Vec<Finding>,
    /// How many there were.
    pub found: usize,
    /// Why nothing was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}
