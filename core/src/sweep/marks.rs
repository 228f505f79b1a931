//! What earlier sweeps found and did not heal yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::{InstanceId, NodeName};

/// The most marks that are kept: 60 bytes each, in one item of the table. What does not fit is found again.
pub const MAX_MARKS: usize = 4_000;

/// Something that a sweep found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Nobody owns it.
    Orphan(InstanceId),
    /// It was let go and runs.
    StillRuns(InstanceId),
    /// EC2 does not show it.
    Unknown(InstanceId),
    /// A status check fails.
    Impaired(InstanceId),
    /// Slurm holds it powered down, and its instance runs.
    Unwanted(NodeName),
    /// Its address in Slurm is not its instance's.
    Stranger(NodeName),
    /// Slurm holds it down.
    Down(NodeName),
    /// Slurm does not get it out of its state.
    Wedged(NodeName),
}

/// Since when each was found, Unix milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(Mark, u64)>", into = "Vec<(Mark, u64)>")]
pub struct Marks(BTreeMap<Mark, u64>);

impl Marks {
    /// Since when, if it was found.
    #[must_use]
    pub fn since_ms(&self, mark: &Mark) -> Option<u64> {
        self.0.get(mark).copied()
    }
}

impl From<Vec<(Mark, u64)>> for Marks {
    fn from(marks: Vec<(Mark, u64)>) -> Self {
        Self(marks.into_iter().collect())
    }
}

impl From<Marks> for Vec<(Mark, u64)> {
    fn from(marks: Marks) -> Self {
        marks.0.into_iter().collect()
    }
}

/// The marks of a sweep while it is planned: what it does not find again is forgotten.
pub(super) struct Marking<'a> {
    earlier: &'a Marks,
    now_ms: u64,
    found: BTreeMap<Mark, u64>,
}

impl<'a> Marking<'a> {
    pub(super) fn new(earlier: &'a Marks, now_ms: u64) -> Self {
        Self {
            earlier,
            now_ms,
            found: BTreeMap::new(),
        }
    }

    /// Marks a finding, and answers whether an earlier sweep found it at least so long ago.
    pub(super) fn has_lasted(&mut self, mark: Mark, least_ms: u64) -> bool {
        let since_ms = self.earlier.since_ms(&mark);
        if self.found.len() < MAX_MARKS {
            self.found.insert(
                mark,
                since_ms.map_or(self.now_ms, |since| since.min(self.now_ms)),
            );
        }
        since_ms.is_some_and(|since_ms| self.now_ms.saturating_sub(since_ms) >= least_ms.max(1))
    }

    pub(super) fn into_marks(self) -> Marks {
        Marks(self.found)
    }
}
