//! Any history of reserving, ending and settling, beside a reference.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spillway_core::name::{NodeGroupName, NodeName};
use spillway_core::usage::Usage;

use super::{NOW_MS, group, launch, names, policy, request};

#[derive(Debug, Clone)]
enum Step {
    Reserve {
        launch: usize,
        nodes: Vec<prop::sample::Index>,
        jobs: usize,
    },
    End {
        launch: usize,
    },
    Settle {
        launch: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let nodes = prop::collection::vec(any::<prop::sample::Index>(), 1..40);
    prop_oneof![
        3 => (0_usize..20, nodes, 0_usize..4).prop_map(|(launch, nodes, jobs)| Step::Reserve { launch, nodes, jobs }),
        3 => (0_usize..20).prop_map(|launch| Step::End { launch }),
        1 => (0_usize..20).prop_map(|launch| Step::Settle { launch }),
    ]
}

proptest! {
    /// The reference: for each launch what it was granted and how many of its instances have ended. A launch brings
    /// all it was granted but, if it settles short, one.
    #[test]
    fn the_caps_hold_for_any_history(steps in prop::collection::vec(step(), 1..60)) {
        let policy = policy("max_nodes = 30\nmax_vcpus = 1000\nlaunches_per_hour = 120\n");
        let known = names("cloud[001-256],gpu[1-16]");
        let mut usage = Usage::default();
        let mut live: BTreeMap<(usize, NodeGroupName), (u32, u32, bool)> = BTreeMap::new();
        let mut launched = 0;
        for step in steps {
            match step {
                Step::Reserve { launch: number, .. } if live.keys().any(|(l, _)| *l == number) => {}
                Step::Reserve { launch: number, nodes, jobs } => {
                    let mut nodes: Vec<NodeName> = nodes.iter().map(|i| i.get(&known).clone()).collect();
                    nodes.sort();
                    nodes.dedup();
                    let lists: Vec<String> = nodes.chunks(3).take(jobs).map(spillway_core::hostlist::fold).collect();
                    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
                    let reservation = usage.reserve(&launch(number), &request(&lists), &nodes, &policy, NOW_MS);
                    let refused: usize = reservation.refused.iter().map(|r| names(&r.nodes).len()).sum();
                    prop_assert_eq!(reservation.granted.len() + refused, nodes.len());
                    launched += reservation.granted.len();
                    for node in &reservation.granted {
                        let group = policy.group_of(node).expect("a known node").name.clone();
                        live.entry((number, group)).or_default().0 += 1;
                    }
                }
                Step::End { launch: number } => {
                    for ((_, group), (granted, ended, _)) in live.iter_mut().filter(|((l, _), _)| *l == number) {
                        if ended < granted {
                            *ended += 1;
                            usage.end(&launch(number), group, 1);
                        }
                    }
                }
                Step::Settle { launch: number } => {
                    for ((_, group), (granted, ended, settled)) in live.iter_mut().filter(|((l, _), _)| *l == number) {
                        if !*settled && ended < granted {
                            usage.settle(&launch(number), group, *granted, *granted - 1);
                            *granted -= 1;
                            launched -= 1;
                        }
                        *settled = true;
                    }
                }
            }
            let runs = |of: &dyn Fn(&NodeGroupName) -> bool| -> u32 {
                live.iter().filter(|((_, g), _)| of(g)).map(|(_, (granted, ended, _))| granted - ended).sum()
            };
            let (cpu, gpu) = (runs(&|g| g.as_str() == "cpu"), runs(&|g| g.as_str() == "gpu"));
            prop_assert_eq!((usage.nodes_of(&group("cpu")), usage.nodes_of(&group("gpu"))), (cpu, gpu));
            prop_assert!(cpu + gpu <= 30);
            prop_assert!(usage.vcpus() <= 1000);
            prop_assert!(launched <= 120);
            let text = serde_json::to_string(&usage).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Usage>(&text).expect("and reads back"), &usage);
        }
    }
}
