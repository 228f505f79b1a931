//! What the attempts for a chunk have brought so far, and what that means for the next one.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::capacity::Pool;
use spillway_core::config::CapacityKind;
use spillway_core::name::InstanceId;

use crate::fault::{Fault, FaultKind};
use crate::ports::InstanceSeen;
use crate::record::{AttemptRecord, LaunchAnswer};

/// What the attempts so far have brought.
#[derive(Debug)]
pub(super) struct History {
    /// All that was ever launched for the chunk.
    pub instances: BTreeSet<InstanceId>,
    /// By which capacity kind each.
    kinds: BTreeMap<InstanceId, CapacityKind>,
    /// Those that were asked for when EC2 had said already that it had not enough of something.
    second: BTreeSet<InstanceId>,
    /// Why not more: capacity kind and code, and EC2's words for it.
    shortages: Vec<(String, String)>,
    /// Number of the next attempt.
    pub next_attempt: u32,
    /// The first round that may bring more.
    pub next_round: usize,
    /// EC2 refused a call for good: no other will fare better.
    pub refused: bool,
    /// EC2 had not enough of something.
    is_short: bool,
    /// The last attempt was throttled: wait before the next.
    pub throttled: bool,
}

impl Default for History {
    /// Nothing was tried yet.
    fn default() -> Self {
        Self {
            instances: BTreeSet::new(),
            kinds: BTreeMap::new(),
            second: BTreeSet::new(),
            shortages: Vec::new(),
            next_attempt: 1,
            next_round: 0,
            refused: false,
            is_short: false,
            throttled: false,
        }
    }
}

impl History {
    /// Takes in an answered attempt. A round is over when EC2 had less than it was asked for, and did not just ask for
    /// patience.
    pub fn take(&mut self, record: &AttemptRecord) {
        let Some(answer) = &record.answer else { return };
        let LaunchAnswer {
            instances,
            shortages,
            ..
        } = answer;
        self.instances.extend(instances.iter().cloned());
        let kind = record.call.recipe.capacity;
        let of_kind = instances.iter().map(|id| (id.clone(), kind));
        self.kinds.extend(of_kind);
        if self.is_short {
            self.second.extend(instances.iter().cloned());
        }
        let capacity = kind.as_str();
        for Fault { code, message, .. } in shortages.iter().map(|shortage| &shortage.fault) {
            let code = format!("{capacity}: {code}");
            if !self.shortages.iter().any(|(known, _)| *known == code) {
                self.shortages.push((code, message.clone()));
            }
        }
        let is_passing = |fault: &Fault| fault.is_passing();
        let is_final = |fault: &Fault| {
            matches!(
                fault.kind,
                FaultKind::Denied | FaultKind::Invalid | FaultKind::NotFound | FaultKind::Conflict
            )
        };
        let mut faults = shortages.iter().map(|shortage| &shortage.fault);
        let is_complete = instances.len() >= record.call.count as usize;
        self.throttled = !is_complete && faults.clone().any(is_passing);
        let is_over = !is_complete && !self.throttled;
        self.is_short |= is_over || faults.clone().any(|fault| !fault.is_passing());
        self.next_round = record.round as usize + usize::from(is_over);
        // One pool that cannot be used at all must not end the search in the others.
        self.refused = instances.is_empty() && !shortages.is_empty() && faults.all(is_final);
        self.next_attempt += 1;
    }

    /// In AWS's words, the codes first: what was tried in vain. None if everything came that was asked for.
    pub fn shortages(&self) -> Option<String> {
        if self.shortages.is_empty() {
            return None;
        }
        let codes: Vec<&str> = self
            .shortages
            .iter()
            .map(|(code, _)| code.as_str())
            .collect();
        let words: Vec<&str> = self
            .shortages
            .iter()
            .map(|(_, words)| words.as_str())
            .filter(|words| !words.is_empty())
            .collect();
        Some(format!("{}: {}", codes.join("; "), words.join("; ")))
    }

    /// By what capacity kind an instance was launched, if that is not what its node was to have first: it is of another
    /// kind than `first`, or of what was left when EC2 had not enough.
    pub fn fallback(&self, id: &InstanceId, first: CapacityKind) -> Option<CapacityKind> {
        let kind = *self.kinds.get(id)?;
        (kind != first || self.second.contains(id)).then_some(kind)
    }

    /// Where an instance was launched; none if no attempt's answer names it.
    pub fn pool(&self, seen: &InstanceSeen) -> Option<Pool> {
        Some(Pool {
            capacity: *self.kinds.get(&seen.instance_id)?,
            instance_type: seen.instance_type.clone(),
            zone: seen.zone.clone(),
        })
    }
}
