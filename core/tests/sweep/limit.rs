//! How much one sweep may take away, and what holds whatever is seen.

use super::*;

/// 40 nodes of which so many have something in Slurm that would let their instances go.
fn trouble(count: usize) -> Snapshot {
    let (mut snapshot, mut states) = healthy();
    for n in 5..=44 {
        snapshot.instances.insert(instance(n), seen(n));
        snapshot
            .records
            .insert(instance(n), known(InstanceState::Paired, n));
        snapshot.pairings.insert(node(n), ready(n));
        let state = if n < 5 + count {
            at_rest(n)
        } else {
            in_state("MIXED+CLOUD", n)
        };
        states.retain(|group| group.nodes != state.nodes);
        states.push(state);
    }
    with(snapshot, &states)
}

#[test]
fn a_sweep_lets_go_so_many_and_no_more() {
    let healed = |count| {
        let snapshot = trouble(count);
        let later = again(&snapshot, &plan(&snapshot), CONFIRM_MS);
        let heals = later.findings.iter().filter(|found| found.heal.is_some());
        (heals.count(), later.findings.len(), later.stopped)
    };
    // 44 instances: 20 % are eight, and ten may go in any case.
    assert_eq!(healed(10), (10, 10, None));
    let (heals, found, stopped) = healed(11);
    assert_eq!((heals, found), (0, 11));
    let stopped = stopped.unwrap();
    assert!(
        stopped.starts_with("11 of 44 instances would be let go"),
        "{stopped}"
    );
    // What EC2 has taken is told whatever its share.
    let mut snapshot = trouble(0);
    for n in 1..=44 {
        snapshot.instances.get_mut(&instance(n)).unwrap().life = Life::Ended;
    }
    let plan = plan(&snapshot);
    assert_eq!((plan.findings.len(), plan.stopped), (44, None));
}

fn any_life() -> impl Strategy<Value = Option<Life>> {
    prop::option::weighted(
        0.9,
        prop_oneof![5 => Just(Life::Alive), 1 => Just(Life::Stopped), 1 => Just(Life::Ended)],
    )
}

fn any_state() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "ALLOCATED+CLOUD",
        "IDLE+CLOUD",
        "IDLE+CLOUD+POWERED_DOWN",
        "IDLE+CLOUD+POWERING_DOWN",
        "DOWN+CLOUD+POWERED_DOWN",
        "DOWN+CLOUD+NOT_RESPONDING",
        "IDLE+CLOUD+NOT_RESPONDING+POWERING_UP",
        "ALLOCATED+CLOUD+DRAIN",
    ])
}

proptest! {
    /// Whatever is seen: the first sweep takes nothing away but what EC2 has taken; a node is healed by one step; a node
    /// with a job whose instance is well is never touched; and what is carried out is not found again.
    #[test]
    fn any_world(nodes in prop::collection::vec((any_life(), any_state(), 0_usize..4, any::<bool>()), 1..12)) {
        let (mut snapshot, mut states) = healthy();
        snapshot.policy.max_instances = 1_000;
        for (n, (life, state, stand, is_held)) in (20..).zip(&nodes) {
            let pairing = [requested(n), launched(n), ready(n), Pairing::new(node(n))][*stand].clone();
            let owns = pairing.instance().is_some();
            if let Some(life) = life {
                snapshot.instances.insert(instance(n), SeenInstance { life: *life, is_held: *is_held, ..seen(n) });
            }
            if owns {
                snapshot.records.insert(instance(n), known(InstanceState::Paired, n));
            }
            snapshot.pairings.insert(node(n), pairing);
            states.push(in_state(state, n));
        }
        let snapshot = with(snapshot, &states);
        let first = plan(&snapshot);
        for finding in &first.findings {
            if let Some(heal) = &finding.heal {
                prop_assert!(!heal.takes_away(finding.what), "{:?}", finding);
            }
        }
        let later = again(&snapshot, &first, 400_000);
        let mut healed: Vec<&NodeName> = later
            .findings
            .iter()
            .filter(|found| found.heal.is_some() && !matches!(found.heal, Some(Heal::End | Heal::EndAgain)))
            .filter_map(|found| found.node.as_ref())
            .collect();
        let count = healed.len();
        healed.sort();
        healed.dedup();
        prop_assert_eq!(healed.len(), count, "a node is healed once");
        for finding in later.findings.iter().filter(|found| found.heal.is_some()) {
            let Some(n) = finding.node.as_ref().and_then(|node| node.as_str()[1..].parse::<usize>().ok()) else {
                continue;
            };
            prop_assert!(n >= 20, "a healthy node is touched: {:?}", finding);
            let (life, state, stand, _) = &nodes[n - 20];
            let is_well = *life == Some(Life::Alive) && *stand == 2 && state.starts_with("ALLOCATED");
            prop_assert!(!is_well, "a node with a job is touched: {:?}", finding);
        }
        for finding in &later.findings {
            let held = finding.instance.as_ref().and_then(|id| snapshot.instances.get(id)).is_some_and(|seen| seen.is_held);
            prop_assert!(!held || !matches!(finding.heal, Some(Heal::End | Heal::EndAgain)));
        }
    }

    /// Marks are stored as they are.
    #[test]
    fn marks_read_back(count in 0_usize..30) {
        let mut snapshot = trouble(count);
        snapshot.instances.remove(&instance(3));
        let marks = plan(&snapshot).marks;
        prop_assert_eq!(Vec::from(marks.clone()).len(), count + 1);
        let text = serde_json::to_string(&marks).expect("marks are JSON");
        prop_assert_eq!(serde_json::from_str::<Marks>(&text).expect("and read back"), marks);
    }
}
