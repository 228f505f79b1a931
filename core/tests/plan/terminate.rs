//! The planner of terminations: what was released is ended, each once, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::name::InstanceId;
use spillway_core::plan::{InstanceState, MAX_TERMINATE_IDS, plan_terminate};

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

proptest! {
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
