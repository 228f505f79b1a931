//! Planning the end of instances: which of those that were let go EC2 is asked to terminate, in which calls, and why
//! the others are left alone. What lets an instance go is decided by the pairing state machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::InstanceId;

/// The most instances one call ends, and one message names. EC2 takes 1,000 ids in TerminateInstances; batches of
/// half of it, since one bad id fails its batch.
pub const MAX_TERMINATE_IDS: usize = 500;

/// The life of an instance with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It serves a node.
    Paired,
    /// It serves none and is to be terminated.
    Released,
    /// EC2 has taken the termination.
    Terminated,
}

/// Which instances are ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminatePlan {
    /// Each is one call, of at most [`MAX_TERMINATE_IDS`].
    pub batches: Vec<Vec<InstanceId>>,
    /// These are not ended: they serve a node again, or are ended already, or were never ours (none).
    pub left: BTreeMap<InstanceId, Option<InstanceState>>,
}

/// Plans the end of those of `asked` that were released, and of no other: a message that comes late or again must
/// not end what serves a node. `states`: what the records say.
#[must_use]
pub fn plan_terminate(
    asked: &BTreeSet<InstanceId>,
    states: &BTreeMap<InstanceId, InstanceState>,
) -> TerminatePlan {
    let mut due = Vec::new();
    let mut left = BTreeMap::new();
    for id in asked {
        match states.get(id) {
            Some(InstanceState::Released) => due.push(id.clone()),
            other => {
                left.insert(id.clone(), other.copied());
            }
        }
    }
    TerminatePlan {
        batches: due.chunks(MAX_TERMINATE_IDS).map(<[_]>::to_vec).collect(),
        left,
    }
}
