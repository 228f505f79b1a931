//! What wakes the sweep.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the sweep queue carries, for `sweep`: the schedule's message every minute, and the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SweepQueueBody {
    /// Compare, and heal.
    Sweep(SweepOrder),
}

/// How to sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SweepOrder {
    /// The report is kept under this name, for whoever asked; absent for the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_id: Option<String>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Look at every item of the table, not only at active nodes.
    #[serde(default)]
    pub whole: bool,
}

/// Longest name of a report.
pub const MAX_REPORT_ID_CHARS: usize = 64;
