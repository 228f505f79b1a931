//! The planner of terminations: what was released is ended, each once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::name::InstanceId;
use spillway_core::plan::{
    InstanceState, MAX_TERMINATE_IDS, UNKNOWN_GRACE_MS, UnknownPlan, plan_terminate, plan_unknown,
};

fn instance(number: u32) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).unwrap()
}

#[test]
fn only_what_was_released_is_ended() {
    let states = BTreeMap::from([
        (instance(1), InstanceState::Paired),
        (instance(2), InstanceState::Released),
        (instance(3), InstanceState::Terminated),
        (instance(4), InstanceState::Released),
    ]);
    let asked = BTreeSet::from([1, 2, 3, 5].map(instance));
    let plan = plan_terminate(&asked, &states);
    assert_eq!(plan.batches, [[instance(2)]]);
    let left = BTreeMap::from([
        (instance(1), Some(InstanceState::Paired)),
        (instance(3), Some(InstanceState::Terminated)),
        (instance(5), None),
    ]);
    assert_eq!(plan.left, left);
}

#[test]
fn what_ec2_does_not_know_is_gone_only_after_the_grace_period() {
    let since = BTreeMap::from([(instance(1), 1_000), (instance(2), 40_000)]);
    let judged = |now_ms| plan_unknown(&since, now_ms);
    let expected = UnknownPlan {
        gone: vec![instance(1)],
        waiting: vec![instance(2)],
        wait_seconds: 60,
    };
    assert_eq!(judged(1_000 + UNKNOWN_GRACE_MS), expected);
    let before = judged(UNKNOWN_GRACE_MS);
    assert_eq!((before.gone.len(), before.waiting.len()), (0, 2));
    assert!(plan_unknown(&BTreeMap::new(), 0) == UnknownPlan::default());
}

proptest! {
    /// Timer after timer, until EC2 shows the instance or it is taken for gone: never gone before the grace period,
    /// never much later, and with fewer timers in a row than Lambda takes for a loop.
    #[test]
    fn what_ec2_does_not_know_is_asked_for_until_it_is_seen_or_gone(
        begun_ms in 0_u64..2_000_000_000_000,
        seen_after_ms in 0_u64..2 * UNKNOWN_GRACE_MS,
        late_ms in 0_u64..2_000,
    ) {
        let since = BTreeMap::from([(instance(1), begun_ms)]);
        let mut now_ms = begun_ms;
        for timers in 0.. {
            prop_assert!(timers < 14, "{timers} timers");
            if now_ms >= begun_ms + seen_after_ms {
                // It is ended, soon after EC2 shows it.
                let late_by_ms = now_ms - begun_ms - seen_after_ms;
                prop_assert!(late_by_ms <= seen_after_ms.clamp(5_000, 60_000) + 1_000 + late_ms);
                break;
            }
            let plan = plan_unknown(&since, now_ms);
            if plan.waiting.is_empty() {
                prop_assert_eq!(plan.gone, [instance(1)]);
                prop_assert!((UNKNOWN_GRACE_MS..UNKNOWN_GRACE_MS + 65_000).contains(&(now_ms - begun_ms)));
                break;
            }
            prop_assert_eq!(&plan.waiting, &[instance(1)]);
            prop_assert!(plan.gone.is_empty() && plan.wait_seconds >= 5);
            now_ms += plan.wait_seconds * 1000 + late_ms;
        }
    }

    /// Each is gone or waited for, and the youngest says for how long.
    #[test]
    fn each_unknown_one_is_judged_for_itself(ages_ms in prop::collection::vec(0_u64..2 * UNKNOWN_GRACE_MS, 1..40)) {
        let now_ms = 3 * UNKNOWN_GRACE_MS;
        let since: BTreeMap<_, _> =
            (0_u32..).map(instance).zip(ages_ms.iter().map(|age_ms| now_ms - age_ms)).collect();
        let plan = plan_unknown(&since, now_ms);
        let is_gone = |id: &InstanceId| now_ms - since[id] >= UNKNOWN_GRACE_MS;
        prop_assert!(plan.gone.iter().all(is_gone));
        prop_assert!(!plan.waiting.iter().any(is_gone));
        prop_assert_eq!(plan.gone.len() + plan.waiting.len(), since.len());
        let youngest_ms = ages_ms.iter().min().copied().unwrap_or(0);
        let wait_seconds = if plan.waiting.is_empty() { 0 } else { youngest_ms.clamp(5_000, 60_000).div_ceil(1000) };
        prop_assert_eq!(plan.wait_seconds, wait_seconds);
    }

    /// Every instance asked for is in one batch or is left; and once the plan is carried out, nothing is left to do.
    #[test]
    fn a_plan_is_whole_and_is_planned_once(released in 0_u32..1_600, others in 0_u32..40) {
        let mut states: BTreeMap<_, _> =
            (0..released).map(|n| (instance(n), InstanceState::Released)).collect();
        states.extend((released..released + others).map(|n| (instance(n), InstanceState::Paired)));
        let asked: BTreeSet<_> = states.keys().cloned().collect();
        let plan = plan_terminate(&asked, &states);
        prop_assert!(plan.batches.iter().all(|b| (1..=MAX_TERMINATE_IDS).contains(&b.len())));
        let mut seen: Vec<_> = plan.batches.concat();
        prop_assert_eq!(seen.len(), released as usize);
        for id in &seen {
            states.insert(id.clone(), InstanceState::Terminated);
        }
        seen.extend(plan.left.into_keys());
        seen.sort();
        prop_assert_eq!(seen, asked.iter().cloned().collect::<Vec<_>>());
        prop_assert!(plan_terminate(&asked, &states).batches.is_empty());
    }
}
