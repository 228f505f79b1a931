//! EC2's token buckets: what is granted never goes over what they can hold, and who waits gets it.

use proptest::prelude::*;
use spillway_core::budget::{Bucket, Budget, Grant, Wanted};
use spillway_core::config::Limits;

const NOW_MS: u64 = 1_700_000_000_000;

fn limits(at_once: u32, per_second: u32) -> Limits {
    Limits {
        ec2_instances_at_once: at_once,
        ec2_instances_per_second: per_second,
        ..Limits::default()
    }
}

fn fleet(instances: u32, at_least: u32) -> Wanted {
    Wanted {
        call: Bucket::CreateFleet,
        instances,
        at_least,
    }
}

fn single(instances: u32) -> Wanted {
    Wanted {
        call: Bucket::RunInstances,
        instances,
        at_least: 1,
    }
}

fn now(instances: u32) -> Grant {
    Grant::Now { instances }
}

fn later(wait_ms: u64) -> Grant {
    Grant::Later { wait_ms }
}

#[test]
fn instances_are_granted_as_the_bucket_holds_them() {
    let limits = Limits::default();
    let mut budget = Budget::default();
    let mut take = |wanted, later_ms| budget.take(wanted, &limits, NOW_MS + later_ms);
    assert_eq!(take(fleet(600, 1), 0), now(600));
    assert_eq!(take(fleet(600, 1), 0), now(400), "what is left of 1,000");
    assert_eq!(take(fleet(600, 1), 0), later(500), "2 a second");
    assert_eq!(take(fleet(600, 100), 0), later(50_000));
    assert_eq!(take(fleet(600, 100), 49_999), later(1));
    assert_eq!(take(fleet(600, 100), 50_000), now(100));
    assert_eq!(
        take(fleet(600, 1), 50_250),
        later(250),
        "half of one is there"
    );
    assert_eq!(
        take(fleet(600, 1), 3_600_000),
        now(600),
        "it never holds more than 1,000"
    );
    assert_eq!(take(fleet(600, 1), 3_600_000), now(400));
}

#[test]
fn calls_are_granted_as_their_buckets_hold_them() {
    let limits = limits(1_000_000, 1_000);
    let mut budget = Budget::default();
    let mut granted = |wanted: Wanted, later_ms| {
        for calls in 0..100 {
            match budget.take(wanted, &limits, NOW_MS + later_ms) {
                Grant::Now { instances } => assert_eq!(instances, 1),
                Grant::Later { wait_ms } => return (calls, wait_ms),
            }
        }
        panic!("no bucket of calls is so large");
    };
    assert_eq!(granted(single(1), 0), (5, 500));
    assert_eq!(
        granted(fleet(1, 1), 0),
        (50, 200),
        "each kind of call has its own"
    );
    assert_eq!(granted(single(1), 999), (1, 1));
    assert_eq!(granted(fleet(1, 1), 999), (4, 1));
    assert_eq!(granted(single(1), 60_000), (5, 500));
    assert_eq!(granted(fleet(1, 1), 60_000), (50, 200));
}

#[test]
fn nothing_is_taken_by_who_must_wait() {
    let limits = limits(10, 1);
    let mut budget = Budget::default();
    assert_eq!(budget.take(fleet(8, 8), &limits, NOW_MS), now(8));
    for _ in 0..60 {
        assert_eq!(budget.take(fleet(8, 8), &limits, NOW_MS), later(6_000));
    }
    assert_eq!(budget.take(fleet(8, 2), &limits, NOW_MS), now(2));
    // Five calls of RunInstances; the sixth finds none, and takes no instance.
    let mut budget = Budget::default();
    for _ in 0..5 {
        assert_eq!(budget.take(single(1), &limits, NOW_MS), now(1));
    }
    assert_eq!(budget.take(single(5), &limits, NOW_MS), later(500));
    assert_eq!(budget.take(fleet(9, 1), &limits, NOW_MS), now(5));
}

/// A gang of more than the bucket ever holds launches with what a full one holds.
#[test]
fn more_than_a_full_bucket_is_not_waited_for() {
    let limits = limits(100, 10);
    let mut budget = Budget::default();
    assert_eq!(budget.take(fleet(500, 500), &limits, NOW_MS), now(100));
    assert_eq!(budget.take(fleet(500, 500), &limits, NOW_MS), later(10_000));
    assert_eq!(
        budget.take(fleet(0, 0), &limits, NOW_MS),
        later(100),
        "a call for none is worth one"
    );
}

#[test]
fn what_was_not_launched_is_put_back() {
    let limits = limits(100, 1);
    let mut budget = Budget::default();
    assert_eq!(budget.take(fleet(90, 1), &limits, NOW_MS), now(90));
    budget.put_back(30, &limits, NOW_MS);
    assert_eq!(budget.take(fleet(90, 1), &limits, NOW_MS), now(40));
    budget.put_back(1_000, &limits, NOW_MS);
    assert_eq!(
        budget.take(fleet(1_000, 1), &limits, NOW_MS),
        now(100),
        "no more than it holds"
    );
}

#[test]
fn ec2_knows_better_when_a_bucket_is_empty() {
    let limits = Limits::default();
    let mut budget = Budget::default();
    budget.found_empty(Bucket::RunInstances, NOW_MS);
    assert_eq!(budget.take(single(10), &limits, NOW_MS), later(500));
    assert_eq!(
        budget.take(fleet(10, 1), &limits, NOW_MS),
        later(500),
        "instances are one bucket for both"
    );
    assert_eq!(budget.take(single(10), &limits, NOW_MS + 500), now(1));
    let mut budget = Budget::default();
    budget.found_empty(Bucket::CreateFleet, NOW_MS);
    assert_eq!(budget.take(fleet(1, 1), &limits, NOW_MS + 100), later(400));
    assert_eq!(
        budget.take(single(1), &limits, NOW_MS + 500),
        now(1),
        "the other calls were not refused"
    );
    assert_eq!(budget.take(single(1), &limits, NOW_MS + 1_000), now(1));
}

/// A Lambda whose clock lags finds what the others left, and gives nobody tokens twice.
#[test]
fn a_clock_that_lags_refills_nothing() {
    let limits = limits(10, 1);
    let mut budget = Budget::default();
    assert_eq!(budget.take(fleet(8, 1), &limits, NOW_MS), now(8));
    assert_eq!(budget.take(fleet(8, 1), &limits, NOW_MS - 3_000), now(2));
    assert_eq!(budget.take(fleet(8, 1), &limits, NOW_MS), later(1_000));
    budget.put_back(1, &limits, NOW_MS - 3_000);
    assert_eq!(budget.take(fleet(8, 1), &limits, NOW_MS), now(1));
    // EC2's refusal is told by one that lags: what the others had counted on since is gone too.
    assert_eq!(budget.take(fleet(8, 1), &limits, NOW_MS + 5_000), now(5));
    budget.found_empty(Bucket::CreateFleet, NOW_MS);
    assert_eq!(
        budget.take(fleet(8, 1), &limits, NOW_MS + 5_000),
        later(1_000)
    );
}

/// The site's limits may be lowered while tokens are out, and a stored one may say what no check would pass.
#[test]
fn limits_may_change() {
    let mut budget = Budget::default();
    assert_eq!(
        budget.take(fleet(10, 1), &limits(1_000, 2), NOW_MS),
        now(10)
    );
    assert_eq!(
        budget.take(fleet(1_000, 1), &limits(50, 2), NOW_MS),
        now(50)
    );
    assert_eq!(
        budget.take(fleet(10, 1), &limits(50, 0), NOW_MS + 60_000),
        later(1_000)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Take { wanted: Wanted, came: u32 },
    FoundEmpty,
}

fn step() -> impl Strategy<Value = Step> {
    let take = (any::<bool>(), 0_u32..60, 0_u32..60, 0_u32..60).prop_map(
        |(is_fleet, instances, at_least, came)| {
            let call = if is_fleet {
                Bucket::CreateFleet
            } else {
                Bucket::RunInstances
            };
            Step::Take {
                wanted: Wanted {
                    call,
                    instances,
                    at_least,
                },
                came,
            }
        },
    );
    prop_oneof![9 => take, 1 => Just(Step::FoundEmpty)]
}

/// A bucket that counts its tokens in thousandths.
struct Reference {
    milli: u64,
    most: u64,
    per_second: u64,
}

impl Reference {
    fn new(most: u64, per_second: u64) -> Self {
        Self {
            milli: most * 1_000,
            most,
            per_second,
        }
    }

    fn pass(&mut self, ms: u64) {
        self.milli = (self.milli + ms * self.per_second).min(self.most * 1_000);
    }

    fn wait_ms(&self, tokens: u64) -> u64 {
        let is_there = |ms: &u64| self.milli + ms * self.per_second >= tokens * 1_000;
        (0..=tokens * 1_000)
            .find(is_there)
            .expect("one a second at least")
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Granted is what the buckets hold, and who waits as long as told to is granted something.
    #[test]
    fn as_the_reference_counts(
        at_once in 1_u32..50,
        per_second in 1_u32..5,
        steps in prop::collection::vec((step(), 0_u64..4_000), 1..60),
    ) {
        let limits = limits(at_once, per_second);
        let mut budget = Budget::default();
        let mut fleets = Reference::new(50, 5);
        let mut singles = Reference::new(5, 2);
        let mut instances = Reference::new(u64::from(at_once), u64::from(per_second));
        let mut now_ms = NOW_MS;
        for (step, later_ms) in steps {
            now_ms += later_ms;
            for bucket in [&mut fleets, &mut singles, &mut instances] {
                bucket.pass(later_ms);
            }
            let Step::Take { wanted, came } = step else {
                budget.found_empty(Bucket::CreateFleet, now_ms);
                (fleets.milli, instances.milli) = (0, 0);
                continue;
            };
            let calls = match wanted.call {
                Bucket::CreateFleet => &mut fleets,
                _ => &mut singles,
            };
            let worth = u64::from(wanted.at_least.min(at_once).max(1));
            let wait_ms = calls.wait_ms(1).max(instances.wait_ms(worth));
            let grant = budget.take(wanted, &limits, now_ms);
            if wait_ms > 0 {
                prop_assert_eq!(grant, later(wait_ms));
                let again = budget.clone().take(wanted, &limits, now_ms + wait_ms);
                prop_assert!(matches!(again, Grant::Now { .. }), "it starves: {:?}", again);
                continue;
            }
            let granted = u64::from(wanted.instances).min(instances.milli / 1_000);
            prop_assert_eq!(grant, now(u32::try_from(granted).expect("a few")));
            calls.milli -= 1_000;
            let over = granted.saturating_sub(u64::from(came));
            budget.put_back(u32::try_from(over).expect("a few"), &limits, now_ms);
            instances.milli -= (granted - over) * 1_000;
            let text = serde_json::to_string(&budget).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Budget>(&text).expect("and reads back"), &budget);
        }
    }

    /// Over any span of time no more is granted than a full bucket and what flows in meanwhile; clocks may lag.
    #[test]
    fn no_span_of_time_sees_more_than_the_bucket_and_what_flows_in(
        at_once in 1_u32..50,
        per_second in 1_u32..5,
        steps in prop::collection::vec((0_u32..60, 0_u64..6_000, 0_u64..1_000), 1..60),
    ) {
        let limits = limits(at_once, per_second);
        let mut budget = Budget::default();
        let mut true_ms = NOW_MS;
        let mut grants: Vec<(u64, u64)> = Vec::new();
        for (instances, later_ms, lag_ms) in steps {
            true_ms += later_ms;
            if let Grant::Now { instances } = budget.take(fleet(instances, 1), &limits, true_ms - lag_ms) {
                grants.push((true_ms, u64::from(instances)));
            }
        }
        for (index, (from_ms, _)) in grants.iter().enumerate() {
            let mut granted = 0;
            for (until_ms, instances) in &grants[index..] {
                granted += instances;
                // A clock that lagged at the beginning of the span makes it up to a second longer.
                let flows_in = (until_ms - from_ms + 1_000) * u64::from(per_second) / 1_000;
                prop_assert!(granted <= u64::from(at_once) + flows_in);
            }
        }
    }
}
