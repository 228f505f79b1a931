//! Protected mode: a node group whose instances launch and never join burns money until somebody looks. It stops
//! launching but for a probe now and then, and is open again when one joins.

use serde::{Deserialize, Serialize};

use super::Capacity;
use crate::name::NodeGroupName;

/// How many instances in a row may fail to join before their group stops launching.
pub const PROTECT_AFTER: u32 = 10;

/// How long a protected group waits before it tries a probe, and after a probe before the next.
pub const PROBE_WAIT_MS: u64 = 10 * 60_000;

/// A group whose last instances did not join.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failing {
    /// How many in a row.
    instances: u32,
    /// What the last of them said, or was said of it.
    reason: String,
    /// When a probe may be launched, Unix milliseconds. Counts only for a protected group.
    probe_at_ms: u64,
}

/// Whether a node group may launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Open,
    /// One job's nodes, to see whether they join; the others not.
    Probe {
        /// When the next probe may be launched, Unix milliseconds.
        until_ms: u64,
        /// For the others' Reason.
        reason: String,
    },
    /// Not now.
    Protected {
        /// When a probe may be launched, Unix milliseconds.
        until_ms: u64,
        /// For Slurm's Reason.
        reason: String,
    },
}

impl Capacity {
    /// An instance of the group joined. Answers whether the group was failing.
    pub fn joined(&mut self, group: &NodeGroupName) -> bool {
        self.groups.remove(group).is_some()
    }

    /// Whether instances of any group failed to join since the last one of it that did.
    #[must_use]
    pub fn any_failing(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Whether any instance of the group failed to join since the last one that did.
    #[must_use]
    pub fn is_failing(&self, group: &NodeGroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// How many groups are protected.
    #[must_use]
    pub fn protected_count(&self) -> usize {
        let is_protected = |failing: &&Failing| failing.instances >= PROTECT_AFTER;
        self.groups.values().filter(is_protected).count()
    }

    /// `count` instances of the group launched and did not join. Answers whether it is they that make the group
    /// protected.
    pub fn did_not_join(
        &mut self,
        group: &NodeGroupName,
        count: u32,
        reason: &str,
        now_ms: u64,
    ) -> bool {
        let failing = self.groups.entry(group.clone()).or_default();
        let before = failing.instances;
        failing.instances = before.saturating_add(count);
        reason.clone_into(&mut failing.reason);
        if failing.instances >= PROTECT_AFTER {
            failing.probe_at_ms = failing.probe_at_ms.max(now_ms + PROBE_WAIT_MS);
        }
        before < PROTECT_AFTER && failing.instances >= PROTECT_AFTER
    }

    /// Whether the group may launch now. A probe that is granted is the only one for [`PROBE_WAIT_MS`].
    pub fn admit(&mut self, group: &NodeGroupName, now_ms: u64) -> Admission {
        let Some(failing) = self
            .groups
            .get_mut(group)
            .filter(|failing| failing.instances >= PROTECT_AFTER)
        else {
            return Admission::Open;
        };
        let is_probe = now_ms >= failing.probe_at_ms;
        if is_probe {
            failing.probe_at_ms = now_ms + PROBE_WAIT_MS;
        }
        let until_ms = failing.probe_at_ms;
        let words = failing.reason.trim_start_matches("spillway:").trim_start();
        let reason = format!(
            "spillway: node group {group} is protected: its last {} instances did not join: {words}",
            failing.instances
        );
        if is_probe {
            Admission::Probe { until_ms, reason }
        } else {
            Admission::Protected { until_ms, reason }
        }
    }
}
