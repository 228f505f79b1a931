//! Pools that EC2 has nothing in: for how long they rest, what rests with them, and what opens them again.

use proptest::prelude::*;
use spillway_core::capacity::{Capacity, FIRST_REST_MS, LONGEST_REST_MS, Pool, Reach, Scope};
use spillway_core::config::CapacityKind::{self, OnDemand, Reserved, Spot};
use spillway_core::config::OnDemandAllocation;
use spillway_core::plan::{Candidate, Recipe};

use super::{MINUTE_MS, NOW_MS};

/// 3,000 closures in one record.
const MAX_CLOSURES: u32 = 3_000;

fn candidate(instance_type: &str, zone: &str) -> Candidate {
    Candidate {
        instance_type: instance_type.to_owned(),
        subnet_id: format!("subnet-{zone}"),
        zone: zone.to_owned(),
    }
}

fn recipe(capacity: CapacityKind, candidates: &[Candidate]) -> Recipe {
    Recipe {
        capacity,
        launch_template_id: "lt-1".to_owned(),
        launch_template_version: "1".to_owned(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        candidates: candidates.to_vec(),
    }
}

fn close(
    capacity: &mut Capacity,
    kind: CapacityKind,
    reach: Reach,
    candidate: &Candidate,
    now_ms: u64,
) {
    let scope = Scope {
        capacity: kind,
        reach,
        candidate,
    };
    capacity.close(
        &scope,
        "InsufficientInstanceCapacity",
        FIRST_REST_MS,
        now_ms,
    );
}

/// For how many minutes the pool rests from `now_ms` on.
fn rests(capacity: &Capacity, candidate: &Candidate, now_ms: u64) -> Option<u64> {
    let closure = capacity.closed(Spot, candidate, now_ms)?;
    Some((closure.until_ms - now_ms) / MINUTE_MS)
}

#[test]
fn each_shortage_in_a_row_rests_twice_as_long_up_to_half_an_hour() {
    let pool = candidate("x", "a");
    let mut capacity = Capacity::default();
    let mut now_ms = NOW_MS;
    let mut minutes = Vec::new();
    // As many in a row as nobody sees.
    for round in 0..40 {
        close(&mut capacity, Spot, Reach::Pool, &pool, now_ms);
        let closure = capacity.closed(Spot, &pool, now_ms).expect("it rests");
        assert_eq!(
            (closure.times, closure.code.as_str()),
            (round + 1, "InsufficientInstanceCapacity")
        );
        let until_ms = closure.until_ms;
        minutes.push((until_ms - now_ms) / MINUTE_MS);
        assert!(capacity.closed(Spot, &pool, until_ms - 1).is_some());
        assert!(
            capacity.closed(Spot, &pool, until_ms).is_none(),
            "its rest is over"
        );
        now_ms = until_ms;
    }
    assert_eq!(minutes[..6], [3, 6, 12, 24, 30, 30]);
    assert!(minutes[6..].iter().all(|minutes| *minutes == 30));
    assert_eq!(
        (FIRST_REST_MS, LONGEST_REST_MS),
        (3 * MINUTE_MS, 30 * MINUTE_MS)
    );
}

/// Whatever subnet it is in: EC2 says of an instance only its type and zone.
#[test]
fn a_pool_that_instances_are_taken_back_from_rests_and_no_other() {
    let (taken, other) = (candidate("c7i.large", "a"), candidate("c7i.large", "b"));
    let mut capacity = Capacity::default();
    let pool = Pool {
        capacity: Spot,
        instance_type: taken.instance_type.clone(),
        zone: taken.zone.clone(),
    };
    capacity.close_pool(&pool, "SpotInterruption", FIRST_REST_MS, NOW_MS);
    assert_eq!(rests(&capacity, &taken, NOW_MS), Some(3));
    assert_eq!(rests(&capacity, &other, NOW_MS), None);
    assert_eq!(capacity.closed(OnDemand, &taken, NOW_MS), None);
}

#[test]
fn answers_of_calls_made_side_by_side_count_once() {
    let pool = candidate("x", "a");
    let mut capacity = Capacity::default();
    for later_ms in [0, 1, 500, FIRST_REST_MS - 1] {
        close(&mut capacity, Spot, Reach::Pool, &pool, NOW_MS + later_ms);
        assert_eq!(rests(&capacity, &pool, NOW_MS), Some(3));
    }
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool,
        NOW_MS + FIRST_REST_MS,
    );
    assert_eq!(rests(&capacity, &pool, NOW_MS + FIRST_REST_MS), Some(6));
}

#[test]
fn a_pool_that_launched_starts_anew() {
    let pool = candidate("x", "a");
    let mut capacity = Capacity::default();
    close(&mut capacity, Spot, Reach::Pool, &pool, NOW_MS);
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool,
        NOW_MS + FIRST_REST_MS,
    );
    capacity.open(Spot, &pool);
    assert_eq!(rests(&capacity, &pool, NOW_MS + FIRST_REST_MS), None);
    assert_eq!(capacity, Capacity::default(), "nothing of it is kept");
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool,
        NOW_MS + FIRST_REST_MS,
    );
    assert_eq!(rests(&capacity, &pool, NOW_MS + FIRST_REST_MS), Some(3));
}

#[test]
fn a_pool_not_tried_for_an_hour_after_its_rest_starts_anew() {
    let pool = candidate("x", "a");
    let again_after = |minutes: u64| {
        let mut capacity = Capacity::default();
        close(&mut capacity, Spot, Reach::Pool, &pool, NOW_MS);
        let now_ms = NOW_MS + minutes * MINUTE_MS;
        close(&mut capacity, Spot, Reach::Pool, &pool, now_ms);
        rests(&capacity, &pool, now_ms)
    };
    assert_eq!(again_after(62), Some(6));
    assert_eq!(again_after(63), Some(3));
}

/// Which of six pools, three of each kind, a shortage closes.
#[test]
fn a_shortage_reaches_as_far_as_it_says() {
    let pools = [
        (Spot, candidate("x", "a")),
        (Spot, candidate("x", "b")),
        (Spot, candidate("y", "a")),
        (OnDemand, candidate("x", "a")),
        (OnDemand, candidate("x", "b")),
        (OnDemand, candidate("y", "a")),
    ];
    let met = candidate("x", "a");
    let expected = [
        (Reach::Pool, [true, false, false, false, false, false]),
        (Reach::Type, [true, true, false, false, false, false]),
        (Reach::Subnet, [true, false, true, true, false, true]),
        (Reach::Kind, [true, true, true, false, false, false]),
    ];
    for (reach, closed) in expected {
        let mut capacity = Capacity::default();
        close(&mut capacity, Spot, reach, &met, NOW_MS);
        let found = pools
            .each_ref()
            .map(|(kind, pool)| capacity.closed(*kind, pool, NOW_MS).is_some());
        assert_eq!(found, closed, "{reach:?}");
        assert_eq!(capacity.resting_count(NOW_MS), 1);
        capacity.open(Spot, &met);
        assert_eq!(
            capacity,
            Capacity::default(),
            "{reach:?}: a launch there opens it"
        );
    }
}

#[test]
fn of_several_things_the_one_that_lasts_longest_counts() {
    let pool = candidate("x", "a");
    for longest in [Reach::Pool, Reach::Kind] {
        let mut capacity = Capacity::default();
        for reach in [Reach::Pool, Reach::Type, Reach::Subnet, Reach::Kind] {
            close(&mut capacity, Spot, reach, &pool, NOW_MS);
        }
        close(&mut capacity, Spot, longest, &pool, NOW_MS + FIRST_REST_MS);
        assert_eq!(
            rests(&capacity, &pool, NOW_MS + FIRST_REST_MS),
            Some(6),
            "{longest:?}"
        );
        assert_eq!(capacity.resting_count(NOW_MS), 4);
        assert_eq!(
            capacity.resting_count(NOW_MS + FIRST_REST_MS),
            1,
            "what rested counts no more"
        );
    }
}

#[test]
fn when_a_group_may_be_tried_again_and_why_not_before() {
    let (a, b) = (candidate("x", "a"), candidate("x", "b"));
    let recipes = [
        recipe(Reserved, std::slice::from_ref(&a)),
        recipe(OnDemand, &[a.clone(), b.clone()]),
    ];
    let mut capacity = Capacity::default();
    let asks = |capacity: &Capacity, now_ms| {
        (
            capacity.rests_until_ms(&recipes, now_ms),
            capacity.resting(&recipes, now_ms),
        )
    };
    assert_eq!(asks(&capacity, NOW_MS), (None, None), "nothing rests");
    let scope = |kind, candidate| Scope {
        capacity: kind,
        reach: Reach::Pool,
        candidate,
    };
    capacity.close(
        &scope(Reserved, &a),
        "ReservationCapacityExceeded",
        FIRST_REST_MS,
        NOW_MS,
    );
    capacity.close(
        &scope(OnDemand, &a),
        "InsufficientInstanceCapacity",
        FIRST_REST_MS,
        NOW_MS + 1_500,
    );
    assert_eq!(
        asks(&capacity, NOW_MS + 1_500),
        (None, None),
        "one may be tried"
    );
    capacity.close(
        &scope(OnDemand, &b),
        "InsufficientInstanceCapacity",
        FIRST_REST_MS,
        NOW_MS + 2_500,
    );
    let words = |seconds| {
        format!(
            "reserved: ReservationCapacityExceeded; on-demand: InsufficientInstanceCapacity: EC2 had none a moment \
             ago and is asked again in {seconds} s"
        )
    };
    let until_ms = NOW_MS + FIRST_REST_MS;
    assert_eq!(
        asks(&capacity, NOW_MS + 2_500),
        (Some(until_ms), Some(words(178)))
    );
    assert_eq!(
        asks(&capacity, until_ms - 1),
        (Some(until_ms), Some(words(1)))
    );
    assert_eq!(
        asks(&capacity, until_ms),
        (None, None),
        "the first of them is over"
    );
    assert_eq!(capacity.rests_until_ms(&[], NOW_MS), None);
}

#[test]
fn what_is_long_over_is_forgotten_and_so_is_the_oldest_of_too_many() {
    let mut capacity = Capacity::default();
    let kept = |capacity: &Capacity| {
        let text = serde_json::to_value(capacity).expect("a record is JSON");
        text["closed"].as_object().expect("closures").len()
    };
    let pool = |number: u32| candidate(&format!("x{number}"), "a");
    close(&mut capacity, Spot, Reach::Pool, &pool(0), NOW_MS);
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool(1),
        NOW_MS + 62 * MINUTE_MS,
    );
    assert_eq!(kept(&capacity), 2);
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool(2),
        NOW_MS + 63 * MINUTE_MS,
    );
    assert_eq!(kept(&capacity), 2, "the first is over for an hour");

    let mut capacity = Capacity::default();
    for number in 0..MAX_CLOSURES {
        close(
            &mut capacity,
            Spot,
            Reach::Pool,
            &pool(number),
            NOW_MS + u64::from(number),
        );
    }
    assert_eq!(kept(&capacity), MAX_CLOSURES as usize);
    let text = serde_json::to_string(&capacity).expect("a record is JSON");
    assert!(
        text.len() < 400_000,
        "{} bytes do not fit into an item",
        text.len()
    );
    let now_ms = NOW_MS + u64::from(MAX_CLOSURES);
    close(
        &mut capacity,
        Spot,
        Reach::Pool,
        &pool(MAX_CLOSURES),
        now_ms,
    );
    assert_eq!(kept(&capacity), MAX_CLOSURES as usize);
    assert_eq!(
        capacity.closed(Spot, &pool(0), now_ms),
        None,
        "the oldest went"
    );
    assert!(capacity.closed(Spot, &pool(1), now_ms).is_some());
    assert!(capacity.closed(Spot, &pool(MAX_CLOSURES), now_ms).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The reference keeps for one pool how often in a row and until when; and any record reads back as it was.
    #[test]
    fn any_history_of_a_pool(steps in prop::collection::vec((0_u64..100 * MINUTE_MS, any::<bool>(), 0_u8..6), 1..40)) {
        let (pool, other) = (candidate("x", "a"), candidate("y", "b"));
        let mut capacity = Capacity::default();
        let (mut now_ms, mut times, mut until_ms) = (NOW_MS, 0_u32, 0);
        for (later_ms, is_short, what) in steps {
            now_ms += if is_short { later_ms / 30 } else { later_ms };
            match what {
                0 => {
                    capacity.open(Spot, &pool);
                    (times, until_ms) = (0, 0);
                }
                1 => close(&mut capacity, Spot, Reach::Pool, &other, now_ms),
                _ => {
                    close(&mut capacity, Spot, Reach::Pool, &pool, now_ms);
                    if now_ms >= until_ms {
                        times = if now_ms < until_ms + 60 * MINUTE_MS { times + 1 } else { 1 };
                        until_ms = now_ms + [3, 6, 12, 24, 30][(times as usize - 1).min(4)] * MINUTE_MS;
                    }
                }
            }
            let expected = (now_ms < until_ms).then_some((until_ms, times));
            let found = capacity.closed(Spot, &pool, now_ms).map(|closure| (closure.until_ms, closure.times));
            prop_assert_eq!(found, expected);
            let text = serde_json::to_string(&capacity).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Capacity>(&text).expect("and reads back"), &capacity);
        }
    }
}
