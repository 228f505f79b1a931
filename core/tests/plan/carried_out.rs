//! A chunk's attempts to their end, whatever EC2 grants of each: it ends, nobody is served in part, nothing is asked
//! for twice, and whoever was not served had been asked for everywhere.

use std::collections::BTreeSet;

use proptest::prelude::*;
use spillway_core::capacity::{Capacity, Reach, Scope};
use spillway_core::config::CapacityKind::{OnDemand, Spot};
use spillway_core::hostlist;
use spillway_core::name::NodeName;
use spillway_core::plan::{Attempt, Candidate, Chunk, Recipe, next_attempt, rounds, units};

use super::{NOW_MS, any_chunk, candidate, recipe, set};

/// EC2, as an attempt sees it: how many it has.
type Grants = Vec<u32>;

/// What came of a chunk.
struct Outcome {
    attempts: Vec<(Attempt, u32)>,
    instances: usize,
    served: BTreeSet<NodeName>,
}

/// Goes on as `launch` does: a round is over when EC2 had less than it was asked for. EC2 launches nothing where it has
/// less than it is held to.
fn carry_out(
    chunk: &Chunk,
    recipes: &[Recipe],
    wanted: &BTreeSet<NodeName>,
    capacity: &Capacity,
    grants: &Grants,
) -> Result<Outcome, TestCaseError> {
    let (mut attempts, mut instances, mut from) = (Vec::new(), 0, 0);
    // Each attempt ends a round or brings an instance that is wanted.
    let most = rounds(chunk, recipes).len() + wanted.len();
    while let Some(attempt) =
        next_attempt(chunk, recipes, from, wanted, instances, capacity, NOW_MS)
    {
        prop_assert!(attempts.len() < most, "it does not end");
        prop_assert!(
            attempt.count > 0 && attempt.at_least > 0 && attempt.at_least <= attempt.count
        );
        prop_assert!(
            instances + attempt.count as usize <= wanted.len(),
            "more than is missing"
        );
        prop_assert!(attempt.round >= from, "back to a round that was over");
        let has = grants
            .get(attempts.len())
            .copied()
            .unwrap_or(0)
            .min(attempt.count);
        let came = if has < attempt.at_least { 0 } else { has };
        instances += came as usize;
        from = attempt.round + usize::from(came < attempt.count);
        attempts.push((attempt, came));
    }
    let served = units(chunk).share(wanted, instances).into_iter().collect();
    Ok(Outcome {
        attempts,
        instances,
        served,
    })
}

fn any_candidates() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let pool = prop::sample::select(vec![("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]);
    prop::collection::vec(pool, 1..4)
}

fn any_recipes() -> impl Strategy<Value = Vec<Recipe>> {
    let kinds = prop::sample::select(vec![vec![OnDemand], vec![Spot, OnDemand]]);
    (kinds, any_candidates(), any_candidates()).prop_map(|(kinds, first, second)| {
        kinds
            .into_iter()
            .zip([first, second])
            .map(|(kind, pools)| recipe(kind, &pools))
            .collect()
    })
}

fn any_grants() -> impl Strategy<Value = Grants> {
    prop::collection::vec(prop_oneof![Just(0_u32), 0_u32..30], 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn whatever_ec2_grants_it_ends_and_all_are_served_or_were_asked_for(
        chunk in any_chunk(), recipes in any_recipes(), grants in any_grants(),
    ) {
        let wanted = set(&chunk.nodes);
        let nothing_rests = Capacity::default();
        let Outcome { attempts, instances, served } = carry_out(&chunk, &recipes, &wanted, &nothing_rests, &grants)?;
        prop_assert!(served.len() <= instances);
        // Whoever is not served was asked for: all of the chunk's nodes that had nothing before the first answer that
        // fell short, and after it none that still misses something is left out of the last recipe.
        let failed: BTreeSet<NodeName> = wanted.difference(&served).cloned().collect();
        if !failed.is_empty() {
            let last = recipes.len() - 1;
            prop_assert!(attempts.iter().any(|(attempt, came)| attempt.recipe == last && *came < attempt.count));
        }
        // What came is enough for nobody else.
        let left = instances - served.len();
        prop_assert!(units(&chunk).share(&failed, left).is_empty());
        // Once carried out, there is nothing left to plan: neither for those that were served, nor for all with what
        // came.
        prop_assert_eq!(next_attempt(&chunk, &recipes, 0, &BTreeSet::new(), left, &nothing_rests, NOW_MS), None);
        if failed.is_empty() {
            prop_assert_eq!(next_attempt(&chunk, &recipes, 0, &wanted, instances, &nothing_rests, NOW_MS), None);
        }
    }

    /// EC2 has all that it is asked for.
    #[test]
    fn with_capacity_all_are_served_by_one_call(chunk in any_chunk(), recipes in any_recipes()) {
        let wanted = set(&chunk.nodes);
        let plenty = vec![u32::MAX; 40];
        let outcome = carry_out(&chunk, &recipes, &wanted, &Capacity::default(), &plenty)?;
        prop_assert_eq!(&outcome.served, &wanted);
        prop_assert_eq!(outcome.instances, wanted.len());
        if recipes.len() > 1 && !chunk.one_zone {
            prop_assert!(outcome.attempts.len() <= 1);
        }
    }

    /// EC2 has all in one pool alone, and nothing in the others: all of it is found unless that pool rests.
    #[test]
    fn a_pool_that_rests_is_not_asked(
        chunk in any_chunk(), recipes in any_recipes(), rests in prop::collection::btree_set(0_usize..4, 0..4), grants in any_grants(),
    ) {
        let pools = [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")];
        let mut capacity = Capacity::default();
        let rests: Vec<Candidate> = rests.into_iter().map(|pool| candidate(pools[pool].0, pools[pool].1)).collect();
        for candidate in &rests {
            let scope = Scope { capacity: OnDemand, reach: Reach::Pool, candidate };
            capacity.close(&scope, "InsufficientInstanceCapacity", spillway_core::capacity::FIRST_REST_MS, NOW_MS);
        }
        let wanted = set(&chunk.nodes);
        let Outcome { attempts, .. } = carry_out(&chunk, &recipes, &wanted, &capacity, &grants)?;
        for (attempt, _) in &attempts {
            let recipe = &recipes[attempt.recipe];
            prop_assert!(!attempt.candidates.is_empty());
            for candidate in &attempt.candidates {
                prop_assert!(recipe.candidates.contains(candidate));
                prop_assert!(recipe.capacity == Spot || !rests.contains(candidate));
            }
        }
    }

    /// With instances without end all nodes of a chunk are served, its jobs' first.
    #[test]
    fn the_units_of_a_chunk_are_all_of_its_nodes(chunk in any_chunk()) {
        let shared = units(&chunk).share(&set(&chunk.nodes), usize::MAX);
        prop_assert_eq!(hostlist::fold(&shared), chunk.nodes);
    }
}
