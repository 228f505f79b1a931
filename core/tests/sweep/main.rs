//! The sweep's planner: a healthy cluster is left alone; each thing that can be wrong is found, marked, and healed when a
//! later sweep finds it again; and never more at once than the site allows. Here are a healthy cluster and the looks at a plan.

mod instances;
mod limit;
mod nodes;
mod records;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use spillway_core::config::{HeadNodeAway, SweepPolicy};
use spillway_core::message::NodesInState;
use spillway_core::name::{Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{Event, LaunchKey, Pairing, Verdict};
use spillway_core::plan::InstanceState;
use spillway_core::sweep::{
    CONFIRM_MS, Finding, FindingKind, HeadNode, Heal, KnownInstance, LATE_MS, Life, Marks,
    SeenInstance, SeenRequest, SlurmReport, Snapshot, SweepPlan, plan_sweep,
};

const NOW_MS: u64 = 1_800_000_000_000;
const STAMPED_MS: u64 = NOW_MS - 600_000;

fn node(n: usize) -> NodeName {
    NodeName::new(format!("c{n}")).unwrap()
}

fn instance(n: usize) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).unwrap()
}

fn address(n: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(n).unwrap()))
}

fn generation(n: usize) -> Generation {
    Generation::new(STAMPED_MS * 1000 + n as u64).unwrap()
}

fn launch(n: usize) -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new(format!("r{n}")).unwrap(),
        part: 1,
    }
}

fn accepted(pairing: &Pairing, event: &Event) -> Pairing {
    let transition = pairing.on(event, STAMPED_MS);
    assert_eq!(transition.verdict, Verdict::Accepted, "{event:?}");
    transition.next
}

fn requested(n: usize) -> Pairing {
    let resume = Event::Resume {
        generation: generation(n),
        launch: launch(n),
        deadline_ms: NOW_MS + 60_000,
        launches_per_hour: 12,
    };
    accepted(&Pairing::new(node(n)), &resume)
}

fn launched(n: usize) -> Pairing {
    let launched = Event::Launched {
        launch: launch(n),
        instance: instance(n),
        address: address(n),
        note: None,
    };
    let told = Event::Acknowledged {
        generation: generation(n),
        number: 1,
    };
    accepted(&accepted(&requested(n), &launched), &told)
}

fn ready(n: usize) -> Pairing {
    let ready = Event::Ready {
        instance: instance(n),
        generation: generation(n),
    };
    accepted(&launched(n), &ready)
}

fn seen(n: usize) -> SeenInstance {
    SeenInstance {
        life: Life::Alive,
        launched_ms: STAMPED_MS,
        is_held: false,
        is_impaired: false,
        launch: Some(launch(n)),
    }
}

fn known(state: InstanceState, n: usize) -> KnownInstance {
    KnownInstance {
        state,
        node: Some(node(n)),
        is_held: false,
    }
}

fn in_state(state: &str, n: usize) -> NodesInState {
    NodesInState {
        state: state.to_owned(),
        nodes: node(n).to_string(),
        reason: None,
        set_by_hand: false,
        addresses: vec![address(n).to_string()],
        generations: vec![generation(n).get()],
    }
}

fn at_rest(n: usize) -> NodesInState {
    NodesInState {
        addresses: Vec::new(),
        generations: Vec::new(),
        ..in_state("IDLE+CLOUD+POWERED_DOWN", n)
    }
}

/// A cluster in which all is well: nodes 1 to 4 run jobs, node 9 rests.
fn healthy() -> (Snapshot, Vec<NodesInState>) {
    let running = 1..=4;
    let mut states: Vec<NodesInState> = running
        .clone()
        .map(|n| in_state("ALLOCATED+CLOUD", n))
        .collect();
    states.push(at_rest(9));
    let snapshot = Snapshot {
        now_ms: NOW_MS,
        instances: running.clone().map(|n| (instance(n), seen(n))).collect(),
        records: running
            .clone()
            .map(|n| (instance(n), known(InstanceState::Paired, n)))
            .collect(),
        pairings: running.map(|n| (node(n), ready(n))).collect(),
        requests: BTreeMap::new(),
        slurm: None,
        head_node: HeadNode {
            heard_ms: Some(NOW_MS - 10_000),
            oldest_spooled_ms: None,
        },
        policy: SweepPolicy::default(),
        notices: BTreeMap::new(),
        suspend_timeout_ms: 60_000,
    };
    (snapshot, states)
}

fn with(mut snapshot: Snapshot, states: &[NodesInState]) -> Snapshot {
    snapshot.slurm = Some(SlurmReport::read(snapshot.now_ms - 20_000, states));
    snapshot
}

fn plan(snapshot: &Snapshot) -> SweepPlan {
    plan_sweep(snapshot, &Marks::default())
}

/// The same world `later_ms` later, with what the first sweep marked.
fn again(snapshot: &Snapshot, first: &SweepPlan, later_ms: u64) -> SweepPlan {
    let mut later = snapshot.clone();
    later.now_ms += later_ms;
    later.head_node.heard_ms = later.head_node.heard_ms.map(|ms| ms + later_ms);
    if let Some(slurm) = &mut later.slurm {
        slurm.observed_ms += later_ms;
    }
    plan_sweep(&later, &first.marks)
}

fn only(plan: &SweepPlan) -> &Finding {
    assert_eq!(plan.findings.len(), 1, "{plan:#?}");
    &plan.findings[0]
}

/// A finding that is only marked at first, and healed once it has lasted.
fn confirmed(snapshot: &Snapshot, what: FindingKind, heal: &Heal, least_ms: u64) {
    let first = plan(snapshot);
    assert_eq!((only(&first).what, &only(&first).heal), (what, &None));
    let soon = again(snapshot, &first, least_ms - 1);
    assert_eq!(only(&soon).heal, None, "{what:?} too soon");
    let later = again(snapshot, &soon, least_ms);
    assert_eq!(only(&later).heal.as_ref(), Some(heal), "{what:?}");
}

#[test]
fn a_healthy_cluster_is_left_alone() {
    let (snapshot, states) = healthy();
    let plan = plan(&with(snapshot.clone(), &states));
    assert_eq!(plan, SweepPlan::default());
    // What slurmctld said long ago is not looked at.
    let mut stale = with(snapshot, &[in_state("DOWN+CLOUD", 1)]);
    stale.slurm.as_mut().unwrap().observed_ms = NOW_MS - 121_000;
    assert_eq!(plan_sweep(&stale, &Marks::default()), SweepPlan::default());
}
