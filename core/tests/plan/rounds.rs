//! The order in which EC2 is asked for a chunk, and what each call asks for.

use std::fmt::Write as _;

use spillway_core::capacity::{Capacity, Reach, Scope};
use spillway_core::config::CapacityKind::{OnDemand, Spot};
use spillway_core::config::Strategy::{AllOrNothing, BestEffort, Greedy};
use spillway_core::plan::{Attempt, Chunk, Recipe, next_attempt, rounds};

use super::{NOW_MS, candidate, chunk, recipe, set};

/// Two types in two zones: a fleet of all of them cannot be held to all or nothing.
const FOUR: [(&str, &str); 4] = [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")];
const ONE_TYPE: [(&str, &str); 2] = [("x", "a"), ("x", "b")];
const ONE_ZONE: [(&str, &str); 2] = [("x", "a"), ("y", "a")];

fn chunks() -> Vec<(&'static str, Chunk)> {
    let gangs = [("n[1-3]", AllOrNothing), ("n[4-5]", AllOrNothing)];
    let mixed = [gangs[0], ("n[4-5]", Greedy), ("n6", BestEffort)];
    let several = [("n6", BestEffort), gangs[0], gangs[1]];
    vec![
        ("nodes of no job", chunk("n[1-3]", &[], false)),
        (
            "jobs that do not mind",
            chunk(
                "n[1-5]",
                &[("n[1-3]", Greedy), ("n[4-5]", BestEffort)],
                false,
            ),
        ),
        ("one gang", chunk("n[1-3]", &gangs[..1], false)),
        ("two gangs", chunk("n[1-5]", &gangs, false)),
        ("a gang and others", chunk("n[1-6]", &mixed, false)),
        (
            "others and two gangs, and nodes of no job",
            chunk("n[1-7]", &several, false),
        ),
        ("one zone: a gang", chunk("n[1-3]", &gangs[..1], true)),
        (
            "one zone: a greedy gang",
            chunk("n[4-5]", &mixed[1..2], true),
        ),
        (
            "one zone: nodes of no gang",
            chunk("n[6-7]", &mixed[2..], true),
        ),
    ]
}

#[test]
fn rounds_in_order() {
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &ONE_TYPE)];
    let mut table = String::new();
    for (name, chunk) in chunks() {
        writeln!(table, "{name}").expect("a string");
        for round in rounds(&chunk, &recipes) {
            let kind = recipes[round.recipe].capacity.as_str();
            let of = round
                .candidate
                .map(|index| format!(", candidate {index} alone"));
            writeln!(
                table,
                "  {kind}: {:?}{}",
                round.scope,
                of.unwrap_or_default()
            )
            .expect("a string");
        }
    }
    insta::assert_snapshot!("rounds", table);
}

fn first(chunk: &Chunk, recipes: &[Recipe], wanted: &str, spare: usize) -> Option<Attempt> {
    let capacity = Capacity::default();
    next_attempt(chunk, recipes, 0, &set(wanted), spare, &capacity, NOW_MS)
}

/// What the calls ask for if EC2 has nothing at all.
fn asked(chunk: &Chunk, recipes: &[Recipe], wanted: &str, spare: usize) -> Vec<(u32, u32)> {
    let capacity = Capacity::default();
    let mut asked = Vec::new();
    let mut from = 0;
    while let Some(attempt) =
        next_attempt(chunk, recipes, from, &set(wanted), spare, &capacity, NOW_MS)
    {
        asked.push((attempt.count, attempt.at_least));
        from = attempt.round + 1;
    }
    asked
}

#[test]
fn each_round_asks_for_what_its_nodes_miss() {
    let jobs = [
        ("n6", BestEffort),
        ("n[1-3]", AllOrNothing),
        ("n[4-5]", AllOrNothing),
    ];
    let chunk = chunk("n[1-7]", &jobs, false);
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &ONE_TYPE)];
    let asked = |wanted, spare| asked(&chunk, &recipes, wanted, spare);
    let all = "n[1-7]";
    assert_eq!(asked(all, 0), [(7, 1), (5, 5), (3, 3), (2, 2), (2, 1)]);
    // One serves n6.
    assert_eq!(asked(all, 1), [(6, 1), (5, 5), (3, 3), (2, 2), (1, 1)]);
    // The second serves n7, though the first gang was before it: it has not enough.
    assert_eq!(asked(all, 2), [(5, 1), (5, 5), (3, 3), (2, 2)]);
    // The third and fourth serve the first gang, with one that is asked for, if the spare ones are not for n7.
    assert_eq!(asked(all, 4), [(3, 1), (2, 2), (2, 2), (1, 1)]);
    assert_eq!(asked("n[2-3,7]", 0), [(3, 1), (2, 2), (2, 2), (1, 1)]);
    assert_eq!(asked("n7", 0), [(1, 1), (1, 1)]);
    assert_eq!(asked("n7", 1), []);
    assert_eq!(asked("", 0), []);
}

#[test]
fn what_incomplete_gangs_leave_is_not_asked_for_again() {
    let jobs = [("n[1-3]", AllOrNothing), ("n[4-7]", AllOrNothing)];
    let chunk = chunk("n[1-7]", &jobs, false);
    let recipes = [recipe(OnDemand, &ONE_TYPE)];
    // Two instances wait for a gang to be whole: one more makes the first so, two the second, five both.
    assert_eq!(
        asked(&chunk, &recipes, "n[1-7]", 2),
        [(5, 5), (1, 1), (2, 2)]
    );
}

/// RunInstances is one candidate; a fleet must be of one type or in one zone (CreateFleet, `MinTargetCapacity`).
#[test]
fn ec2_is_held_to_all_or_nothing_where_it_can_be() {
    let gang = chunk("n[1-3]", &[("n[1-3]", AllOrNothing)], false);
    let at_least = |candidates| {
        first(&gang, &[recipe(OnDemand, candidates)], "n[1-3]", 0).map(|a| (a.count, a.at_least))
    };
    assert_eq!(at_least(&FOUR[..1]), Some((3, 3)));
    assert_eq!(at_least(&ONE_TYPE), Some((3, 3)));
    assert_eq!(at_least(&ONE_ZONE), Some((3, 3)));
    assert_eq!(at_least(&FOUR), Some((3, 1)));
    assert_eq!(at_least(&[]), None);
    for strategy in [Greedy, BestEffort] {
        let job = chunk("n[1-3]", &[("n[1-3]", strategy)], false);
        let attempt = first(&job, &[recipe(OnDemand, &ONE_TYPE)], "n[1-3]", 0).expect("an attempt");
        assert_eq!((attempt.count, attempt.at_least), (3, 1), "{strategy:?}");
    }
    // Before the last recipe what comes is kept.
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &ONE_TYPE)];
    assert_eq!(asked(&gang, &recipes, "n[1-3]", 0), [(3, 1), (3, 3)]);
}

/// `MinTargetCapacity` goes to 1,000; a chunk of more was never planned, but a stored one might say so.
#[test]
fn ec2_is_held_to_a_thousand_at_most() {
    let of = |nodes| {
        let gang = chunk(nodes, &[(nodes, AllOrNothing)], false);
        let attempt = first(&gang, &[recipe(OnDemand, &ONE_TYPE)], nodes, 0).expect("an attempt");
        (attempt.count, attempt.at_least)
    };
    assert_eq!(of("n[1-1000]"), (1000, 1000));
    assert_eq!(of("n[1-1001]"), (1001, 1));
}

#[test]
fn in_one_zone_candidates_are_asked_one_after_the_other() {
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &FOUR)];
    let gang = chunk("n[1-3]", &[("n[1-3]", AllOrNothing)], true);
    let capacity = Capacity::default();
    let mut from = 0;
    let mut tried = Vec::new();
    while let Some(attempt) =
        next_attempt(&gang, &recipes, from, &set("n[1-3]"), 0, &capacity, NOW_MS)
    {
        assert_eq!((attempt.count, attempt.at_least), (3, 3));
        assert_eq!(attempt.candidates.len(), 1);
        tried.push((attempt.recipe, attempt.candidates[0].clone()));
        from = attempt.round + 1;
    }
    let spot = recipes[0]
        .candidates
        .iter()
        .map(|candidate| (0, candidate.clone()));
    let on_demand = recipes[1]
        .candidates
        .iter()
        .map(|candidate| (1, candidate.clone()));
    assert_eq!(tried, spot.chain(on_demand).collect::<Vec<_>>());
}

/// Pools that rest are left out of a call, and a round that is left with none is passed over.
#[test]
fn pools_that_rest_are_not_asked() {
    let jobs = chunk("n[1-2]", &[("n[1-2]", AllOrNothing)], false);
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &FOUR)];
    let mut capacity = Capacity::default();
    let mut close = |kind, reach, (instance_type, zone)| {
        let candidate = candidate(instance_type, zone);
        let scope = Scope {
            capacity: kind,
            reach,
            candidate: &candidate,
        };
        capacity.close(
            &scope,
            "InsufficientInstanceCapacity",
            spillway_core::capacity::FIRST_REST_MS,
            NOW_MS,
        );
        let next = next_attempt(&jobs, &recipes, 0, &set("n[1-2]"), 0, &capacity, NOW_MS)?;
        let pools = next
            .candidates
            .iter()
            .map(|c| format!("{}{}", c.instance_type, c.zone));
        Some((
            next.recipe,
            pools.collect::<Vec<_>>().join(" "),
            next.at_least,
        ))
    };
    assert_eq!(
        close(Spot, Reach::Pool, ("x", "a")),
        Some((0, "xb".to_owned(), 1))
    );
    assert_eq!(
        close(Spot, Reach::Pool, ("x", "b")),
        Some((1, "xa xb ya yb".to_owned(), 1))
    );
    assert_eq!(
        close(OnDemand, Reach::Pool, ("y", "b")),
        Some((1, "xa xb ya".to_owned(), 1))
    );
    // What is left is of one type, so that EC2 can be held to all or nothing.
    assert_eq!(
        close(OnDemand, Reach::Type, ("y", "a")),
        Some((1, "xa xb".to_owned(), 2))
    );
    assert_eq!(
        close(OnDemand, Reach::Subnet, ("x", "a")),
        Some((1, "xb".to_owned(), 2))
    );
    assert_eq!(close(OnDemand, Reach::Kind, ("x", "a")), None);
    let rested = NOW_MS + spillway_core::capacity::FIRST_REST_MS;
    let again = next_attempt(&jobs, &recipes, 0, &set("n[1-2]"), 0, &capacity, rested);
    assert_eq!(again.expect("all may be asked again").candidates.len(), 2);
}

#[test]
fn rounds_that_are_over_are_not_repeated() {
    let chunk = chunk("n[1-3]", &[("n[1-2]", AllOrNothing)], false);
    let recipes = [recipe(Spot, &ONE_TYPE), recipe(OnDemand, &ONE_TYPE)];
    let next = |from| {
        let attempt = next_attempt(
            &chunk,
            &recipes,
            from,
            &set("n[1-3]"),
            0,
            &Capacity::default(),
            NOW_MS,
        )?;
        Some((attempt.round, attempt.recipe, attempt.count))
    };
    assert_eq!(next(0), Some((0, 0, 3)));
    assert_eq!(next(1), Some((1, 1, 2)));
    assert_eq!(next(2), Some((2, 1, 1)));
    assert_eq!(next(3), None);
    assert_eq!(next(99), None);
}
