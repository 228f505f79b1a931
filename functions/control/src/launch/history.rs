//! What the attempts for a chunk have brought so far, and what that means for the next one.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::capacity::Pool;
use spillway_core::config::CapacityKind;
use spillway_core::name::InstanceId;

use crate::fault::{Fault, FaultKind};
use crate::ports::InstanceSeen;
use crate::record::{AttemptRecord, LaunchAnswer};

/// Why EC2 launched fewer than it was asked for.
#[derive(Debug)]
struct Shortage {
    kind: CapacityKind,
    code: String,
    /// EC2's.
    words: String,
}

/// What the attempts so far have brought.
#[derive(Debug)]
pub(super) struct History {
    /// All that was ever launched for the chunk.
    pub instances: BTreeSet<InstanceId>,
    /// By which capacity kind each.
    kinds: BTreeMap<InstanceId, CapacityKind>,
    /// The capacity kinds that EC2 was asked for.
    asked: BTreeSet<CapacityKind>,
    /// Why not more.
    shortages: Vec<Shortage>,
    /// Number of the next attempt.
    pub next_attempt: u32,
    /// The first round that may bring more.
    pub next_round: usize,
    /// EC2 refused a call for good: no other will fare better.
    pub refused: bool,
    /// The last attempt was throttled: wait before the next.
    pub throttled: bool,
}

impl Default for History {
    /// Nothing was tried yet.
    fn default() -> Self {
        Self {
            instances: BTreeSet::new(),
            kinds: BTreeMap::new(),
            asked: BTreeSet::new(),
            shortages: Vec::new(),
            next_attempt: 1,
            next_round: 0,
            refused: false,
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
        self.asked.insert(kind);
        for Fault { code, message, .. } in shortages.iter().map(|shortage| &shortage.fault) {
            let is_it = |known: &Shortage| (known.kind, &known.code) == (kind, code);
            if !self.shortages.iter().any(is_it) {
                self.shortages.push(Shortage {
                    kind,
                    code: code.clone(),
                    words: message.clone(),
                });
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
        self.next_round = record.round as usize + usize::from(is_over);
        // One pool that cannot be used at all must not end the search in the others.
        self.refused = instances.is_empty() && !shortages.is_empty() && faults.all(is_final);
        self.next_attempt += 1;
    }

    /// In AWS's words, the codes first: what was tried in vain. None if everything came that was asked for.
    pub fn shortages(&self) -> Option<String> {
        words(self.shortages.iter())
    }

    /// The same, of one capacity kind alone.
    pub fn shortages_of(&self, kind: CapacityKind) -> Option<String> {
        words(self.shortages.iter().filter(|known| known.kind == kind))
    }

    /// Whether EC2 was asked for instances of this kind at all.
    pub fn has_asked(&self, kind: CapacityKind) -> bool {
        self.asked.contains(&kind)
    }

    /// By what capacity kind an instance was launched; none if no attempt's answer names it.
    pub fn kind(&self, id: &InstanceId) -> Option<CapacityKind> {
        self.kinds.get(id).copied()
    }

    /// Where an instance was launched; none if no attempt's answer names it.
    pub fn pool(&self, seen: &InstanceSeen) -> Option<Pool> {
        Some(Pool {
            capacity: self.kind(&seen.instance_id)?,
            instance_type: seen.instance_type.clone(),
            zone: seen.zone.clone(),
        })
    }
}

fn words<'a>(shortages: impl Iterator<Item = &'a Shortage>) -> Option<String> {
    let (mut codes, mut words) = (Vec::new(), Vec::new());
    for shortage in shortages {
        codes.push(format!("{}: {}", shortage.kind.as_str(), shortage.code));
        words.push(shortage.words.as_str());
    }
    words.retain(|words| !words.is_empty());
    (!codes.is_empty()).then(|| format!("{}: {}", codes.join("; "), words.join("; ")))
}
