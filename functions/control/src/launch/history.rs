//! What the attempts for a chunk have brought so far, and what that means for the next one.

use std::collections::BTreeSet;

use spillway_core::envelope::MAX_REASON_CHARS;
use spillway_core::name::InstanceId;

use crate::fault::{Fault, FaultKind};
use crate::record::AttemptRecord;

/// How many calls one chunk may take: its recipes, and repetitions of throttled ones.
const MAX_ATTEMPTS: u32 = 40;

/// What the attempts so far have brought.
pub(super) struct History {
    /// All that was ever launched for the chunk.
    pub instances: BTreeSet<InstanceId>,
    /// Why not more, by capacity kind and code.
    reasons: Vec<String>,
    /// Number of the next attempt.
    pub next_attempt: u32,
    /// Recipe of the next attempt; none if there is nothing left to try.
    pub next_recipe: Option<u32>,
    /// The last attempt was throttled: wait before the next.
    pub throttled: bool,
}

impl Default for History {
    /// Nothing was tried yet.
    fn default() -> Self {
        Self {
            instances: BTreeSet::new(),
            reasons: Vec::new(),
            next_attempt: 1,
            next_recipe: Some(0),
            throttled: false,
        }
    }
}

impl History {
    /// Takes in an answered attempt and decides which of the chunk's `recipes` comes next.
    pub fn take(&mut self, record: &AttemptRecord, recipes: usize) {
        let Some(answer) = &record.answer else { return };
        self.instances.extend(answer.instances.iter().cloned());
        let capacity = record.call.recipe.capacity.as_str();
        for Fault { code, message, .. } in &answer.faults {
            let reason = format!("{capacity}: {code}: {message}");
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
        let is_final = |fault: &Fault| {
            matches!(
                fault.kind,
                FaultKind::Denied | FaultKind::Invalid | FaultKind::NotFound | FaultKind::Conflict
            )
        };
        self.throttled = !answer.faults.is_empty() && answer.faults.iter().all(Fault::is_passing);
        let following = record.recipe + u32::from(!self.throttled);
        let exhausted = self.next_attempt >= MAX_ATTEMPTS || following as usize >= recipes;
        // One pool that cannot be used at all must not end the search in the others.
        let refused = answer.instances.is_empty()
            && !answer.faults.is_empty()
            && answer.faults.iter().all(is_final);
        self.next_recipe = (!exhausted && !refused).then_some(following);
        self.next_attempt += 1;
    }

    /// For Slurm's Reason: what was tried, in AWS's words.
    pub fn reason(&self) -> String {
        let text = if self.reasons.is_empty() {
            "spillway: EC2 launched fewer instances than asked for and gave no reason".to_owned()
        } else {
            format!("spillway: {}", self.reasons.join("; "))
        };
        text.chars().take(MAX_REASON_CHARS).collect()
    }
}
