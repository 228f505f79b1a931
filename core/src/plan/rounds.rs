//! The order of the calls for one chunk.
//!
//! Every recipe but the last is asked for all that is missing, and what comes is kept. The last one is asked for whole
//! gangs where their strategy is all-or-nothing: first for all of them together, then, if EC2 has not enough for that,
//! for one after the other; then for the rest. Nodes that must be in one zone are asked for candidate by candidate.

use std::collections::BTreeSet;

use super::{Candidate, Chunk, MAX_CHUNK_NODES, Recipe, Units, units};
use crate::capacity::Capacity;
use crate::name::NodeName;

/// One call that may be made for a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// Index of the recipe.
    pub recipe: usize,
    /// Index of its only candidate; none for all of them.
    pub candidate: Option<usize>,
    /// For which nodes.
    pub scope: RoundScope,
}

/// Which nodes a round is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundScope {
    /// All.
    All,
    /// Those of all-or-nothing gangs, all together.
    Gangs,
    /// Those of one all-or-nothing gang, by its place in the chunk.
    Gang(usize),
    /// Those of no all-or-nothing gang.
    Rest,
}

/// The next call for a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Index of the round.
    pub round: usize,
    /// Which of the chunk's recipes.
    pub recipe: usize,
    /// With the candidates that may be tried now.
    pub candidates: Vec<Candidate>,
    /// How many instances.
    pub count: u32,
    /// Fewer than this are not launched at all.
    pub at_least: u32,
}

/// The rounds of a chunk, in order.
#[must_use]
pub fn rounds(chunk: &Chunk, recipes: &[Recipe]) -> Vec<Round> {
    rounds_of(chunk, recipes, &units(chunk))
}

fn rounds_of(chunk: &Chunk, recipes: &[Recipe], units: &Units) -> Vec<Round> {
    let gangs: Vec<usize> = (0..)
        .zip(units.as_slice())
        .filter(|(_, unit)| unit.is_strict)
        .map(|(index, _)| index)
        .collect();
    let only_gangs = gangs.len() == units.as_slice().len();
    let mut rounds = Vec::new();
    for (recipe, of) in recipes.iter().enumerate() {
        let round = |scope| Round {
            recipe,
            candidate: None,
            scope,
        };
        let is_last = recipe + 1 == recipes.len();
        if chunk.one_zone && !gangs.is_empty() {
            rounds.extend((0..of.candidates.len()).map(|candidate| Round {
                recipe,
                candidate: Some(candidate),
                scope: RoundScope::Gangs,
            }));
        } else if !is_last || gangs.is_empty() {
            rounds.push(round(RoundScope::All));
        } else {
            if gangs.len() > 1 {
                rounds.push(round(RoundScope::Gangs));
            }
            rounds.extend(gangs.iter().map(|gang| round(RoundScope::Gang(*gang))));
            if !only_gangs {
                rounds.push(round(RoundScope::Rest));
            }
        }
    }
    rounds
}

/// What is tried next, from the round `from` on: `wanted` are the chunk's nodes that still wait for an instance, `spare`
/// how many instances there are for them. Rounds that have nothing to ask for, and pools that rest, are passed over.
#[must_use]
pub fn next_attempt(
    chunk: &Chunk,
    recipes: &[Recipe],
    from: usize,
    wanted: &BTreeSet<NodeName>,
    spare: usize,
    capacity: &Capacity,
    now_ms: u64,
) -> Option<Attempt> {
    let units = units(chunk);
    let rounds = rounds_of(chunk, recipes, &units);
    let rounds = rounds.into_iter().enumerate().skip(from);
    for (index, round) in rounds {
        let count = missing(&units, round.scope, wanted, spare);
        if count == 0 {
            continue;
        }
        let recipe = &recipes[round.recipe];
        let is_open = |candidate: &&Candidate| {
            let closed = capacity.closed(recipe.capacity, candidate, now_ms);
            closed.is_none()
        };
        let candidates: Vec<Candidate> = match round.candidate {
            Some(only) => recipe.candidates.get(only..=only).unwrap_or_default(),
            None => &recipe.candidates,
        }
        .iter()
        .filter(is_open)
        .cloned()
        .collect();
        if candidates.is_empty() {
            continue;
        }
        let is_strict = !matches!(round.scope, RoundScope::All | RoundScope::Rest);
        let at_least = if is_strict && can_hold(&candidates, count) {
            count
        } else {
            1
        };
        let to_u32 = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        return Some(Attempt {
            round: index,
            recipe: round.recipe,
            candidates,
            count: to_u32(count),
            at_least: to_u32(at_least),
        });
    }
    None
}

/// Whether EC2 can be held to all or nothing: RunInstances can, and a fleet of one type or in one zone (CreateFleet,
/// `MinTargetCapacity`, at most 1,000). What it cannot be held to is launched, counted and given back.
fn can_hold(candidates: &[Candidate], count: usize) -> bool {
    let first = &candidates[0];
    let one_type = candidates
        .iter()
        .all(|other| other.instance_type == first.instance_type);
    let one_zone = candidates.iter().all(|other| other.zone == first.zone);
    (one_type || one_zone) && count <= MAX_CHUNK_NODES
}

/// How many instances the nodes in `scope` still need when `spare` are there and are shared in the order of the request.
fn missing(units: &Units, scope: RoundScope, wanted: &BTreeSet<NodeName>, spare: usize) -> usize {
    let served: BTreeSet<NodeName> = units.share(wanted, spare).into_iter().collect();
    let left = spare - served.len();
    let is_meant = |index: usize, is_strict: bool| match scope {
        RoundScope::All => true,
        RoundScope::Gangs => is_strict,
        RoundScope::Gang(gang) => index == gang,
        RoundScope::Rest => !is_strict,
    };
    let meant = (0..)
        .zip(units.as_slice())
        .filter(|(index, unit)| is_meant(*index, unit.is_strict))
        .flat_map(|(_, unit)| &unit.nodes);
    let open: BTreeSet<&NodeName> = meant
        .filter(|node| wanted.contains(*node) && !served.contains(*node))
        .collect();
    open.len().saturating_sub(left)
}
