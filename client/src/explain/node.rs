//! The account of a node.

use super::facts::NodeFacts;
use super::{Account, cause, known, timeline};

/// From what was gathered to the answer.
pub fn account(facts: &NodeFacts) -> Account {
    let verdict = cause::of_node(facts);
    let (known, unread) = known::of_node(facts);
    Account {
        well: verdict.well,
        summary: format!("{} {}", facts.node, verdict.what),
        advice: verdict.advice,
        happened: timeline::of_node(facts),
        known,
        unread,
    }
}
