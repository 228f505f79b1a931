//! Planning the end of instances: which of those that were let go EC2 is asked to terminate, in which calls, and why
//! the others are left alone. What lets an instance go is decided by the pairing state machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::InstanceId;

/// The most instances one call ends, and one message names. EC2 takes 1,000 ids in TerminateInstances; batches of
/// half of it, since one bad id fails its batch.
pub const MAX_TERMINATE_IDS: usize = 500;

/// How long EC2 must know nothing of an instance before it is taken for gone. EC2's guide has eventual consistency
/// waited for up to five minutes. Too long costs a place under the caps for so long; too short leaves an instance
/// running that nothing counts.
pub const UNKNOWN_GRACE_MS: u64 = 5 * 60 * 1000;

/// EC2 shows an instance within seconds as a rule; so the first wait is short and each is as long as all before it.
/// The longest one keeps the end of the grace period from being overslept by much. That makes nine timers in a row:
/// Lambda takes sixteen for a loop, and stops it.
const FIRST_WAIT_MS: u64 = 5_000;
const LONGEST_WAIT_MS: u64 = 60_000;

/// The life of an instance with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It serves a node.
    Paired,
    /// It serves none and is to be terminated.
    Released,
    /// EC2 has taken the termination, or has long known no such instance.
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

/// What is made of instances that were to be ended and that EC2 does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownPlan {
    /// EC2 has known nothing of these for so long that there is nothing to end.
    pub gone: Vec<InstanceId>,
    /// EC2 may not show these yet: they are to be ended again.
    pub waiting: Vec<InstanceId>,
    /// After this long.
    pub wait_seconds: u64,
}

/// Judges instances that EC2 does not know: right after a launch "not found" is not gone. `since_ms`: since when EC2
/// has known nothing of each, Unix milliseconds; now, where it is found out just now.
#[must_use]
pub fn plan_unknown(since_ms: &BTreeMap<InstanceId, u64>, now_ms: u64) -> UnknownPlan {
    let mut plan = UnknownPlan::default();
    let mut wait_ms = LONGEST_WAIT_MS;
    for (id, since_ms) in since_ms {
        let unknown_ms = now_ms.saturating_sub(*since_ms);
        if unknown_ms >= UNKNOWN_GRACE_MS {
            plan.gone.push(id.clone());
        } else {
            wait_ms = wait_ms.min(unknown_ms.max(FIRST_WAIT_MS));
            plan.waiting.push(id.clone());
        }
    }
    if !plan.waiting.is_empty() {
        plan.wait_seconds = wait_ms.div_ceil(1000);
    }
    plan
}
