//! What the table keeps besides pairings: instances, requests, attempts, the heartbeat.
//!
//! Each record is one item. Instance items have a life of their own: re-pairing a node never forgets one. Those that the
//! operator's commands read too are in `spillway_core::record`.

use serde::{Deserialize, Serialize};
use spillway_core::name::InstanceId;
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Candidate, LaunchCall};

pub use spillway_core::record::{
    HeartbeatRecord, HeldBy, InstanceRecord, NodeStatesRecord, Origin, RequestRecord,
};

use crate::fault::Fault;

/// A record and the version it was read at; 0 for one that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub record: T,
    /// Grows by one with each write; a write names the one it saw.
    pub version: u64,
}

/// Which call to EC2: the n-th attempt for one chunk of one launch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The launch.
    pub launch: LaunchKey,
    /// Index of the chunk in the plan.
    pub chunk: u32,
    /// 1-based.
    pub attempt: u32,
}

/// A call to EC2, written down before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The exact call; a redelivery repeats it word for word or not at all.
    pub call: LaunchCall,
    /// Which of the chunk's rounds, 0-based.
    pub round: u32,
    /// What EC2 answered, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<LaunchAnswer>,
}

/// What came of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchAnswer {
    /// What was launched; the count of what is missing comes from here.
    pub instances: Vec<InstanceId>,
    /// Where, as far as EC2 says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launched_in: Vec<Candidate>,
    /// Why not more. The count of what is missing never comes from here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
}

/// Why a call launched fewer instances than it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// What EC2 said.
    pub fault: Fault,
    /// Of which candidate; absent where it spoke of none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
}
