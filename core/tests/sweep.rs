//! The sweep's planner: a healthy cluster is left alone; each thing that can be wrong is found, marked, and healed when a
//! later sweep finds it again; and never more at once than the site allows.

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

#[test]
fn an_instance_that_nobody_owns_is_ended_when_it_is_old_and_was_found_before() {
    let (mut snapshot, states) = healthy();
    snapshot.instances.insert(instance(7), seen(7));
    let snapshot = with(snapshot, &states);
    confirmed(&snapshot, FindingKind::Orphan, &Heal::End, CONFIRM_MS);

    let young = SeenInstance {
        launched_ms: NOW_MS - 30_000,
        ..seen(7)
    };
    let mut snapshot = snapshot;
    snapshot.instances.insert(instance(7), young);
    let first = plan(&snapshot);
    let later = again(&snapshot, &first, 80_000);
    assert_eq!(only(&later).heal, None, "not two minutes old");
    let later = again(&snapshot, &later, 90_000);
    assert_eq!(only(&later).heal, Some(Heal::End));
    // Somebody takes it up: it is unmarked.
    let (healthy, states) = healthy();
    let taken_up = again(&with(healthy, &states), &first, 60_000);
    assert!(taken_up.marks.is_empty() && taken_up.findings.is_empty());
}

#[test]
fn an_instance_is_no_orphan_while_its_launch_goes_on_or_somebody_holds_it() {
    let (mut snapshot, states) = healthy();
    snapshot.instances.insert(instance(7), seen(7));
    let request = SeenRequest {
        is_done: false,
        lease_until_ms: NOW_MS,
        deadline_ms: NOW_MS,
    };
    let snapshot = with(snapshot, &states);
    let mut going_on = snapshot.clone();
    going_on.requests.insert(launch(7), request.clone());
    assert_eq!(plan(&going_on), SweepPlan::default());
    going_on.now_ms += LATE_MS;
    going_on.slurm.as_mut().unwrap().observed_ms += LATE_MS;
    assert_eq!(only(&plan(&going_on)).what, FindingKind::Orphan);
    going_on.now_ms -= LATE_MS;
    going_on.requests.insert(
        launch(7),
        SeenRequest {
            is_done: true,
            ..request
        },
    );
    assert_eq!(only(&plan(&going_on)).what, FindingKind::Orphan);

    for by_tag in [true, false] {
        let mut held = snapshot.clone();
        let record = KnownInstance {
            is_held: !by_tag,
            ..known(InstanceState::Released, 7)
        };
        held.records.insert(instance(7), record);
        let seen = SeenInstance {
            is_held: by_tag,
            ..seen(7)
        };
        held.instances.insert(instance(7), seen);
        let first = plan(&held);
        let later = again(&held, &first, 3_600_000);
        for plan in [first, later] {
            assert_eq!(
                (only(&plan).what, &only(&plan).heal),
                (FindingKind::Held, &None)
            );
        }
    }
}

#[test]
fn what_was_let_go_and_still_runs_is_ended_again() {
    let (mut snapshot, states) = healthy();
    snapshot.instances.insert(instance(7), seen(7));
    let mut snapshot = with(snapshot, &states);
    let released = known(InstanceState::Released, 7);
    snapshot.records.insert(instance(7), released);
    confirmed(
        &snapshot,
        FindingKind::StillRuns,
        &Heal::EndAgain,
        CONFIRM_MS,
    );
    let terminated = known(InstanceState::Terminated, 7);
    snapshot.records.insert(instance(7), terminated);
    confirmed(&snapshot, FindingKind::StillRuns, &Heal::End, 300_000);
    snapshot.instances.get_mut(&instance(7)).unwrap().life = Life::Ended;
    assert_eq!(plan(&snapshot), SweepPlan::default());
}

#[test]
fn a_node_fails_when_ec2_has_ended_or_stopped_its_instance() {
    for life in [Life::Ended, Life::Stopped] {
        let (mut snapshot, states) = healthy();
        snapshot.instances.get_mut(&instance(2)).unwrap().life = life;
        let plan = plan(&with(snapshot, &states));
        let found = only(&plan);
        assert_eq!(
            (found.what, &found.heal),
            (FindingKind::InstanceGone, &Some(Heal::Fail))
        );
        assert_eq!(found.node, Some(node(2)));
    }
    let (mut snapshot, states) = healthy();
    snapshot.instances.remove(&instance(2));
    let snapshot = with(snapshot, &states);
    confirmed(
        &snapshot,
        FindingKind::InstanceUnknown,
        &Heal::Fail,
        300_000,
    );
}

#[test]
fn a_node_whose_instance_fails_its_checks_drains_and_is_replaced_when_it_is_free() {
    let (mut snapshot, mut states) = healthy();
    snapshot
        .instances
        .get_mut(&instance(2))
        .unwrap()
        .is_impaired = true;
    let impaired = with(snapshot.clone(), &states);
    confirmed(&impaired, FindingKind::Impaired, &Heal::Drain, CONFIRM_MS);
    let leaving = Event::Leaving {
        instance: instance(2),
        reason: "spillway: checks".to_owned(),
        until_ms: None,
        signal: None,
        replace: false,
    };
    let told = Event::Acknowledged {
        generation: generation(2),
        number: 2,
    };
    let draining = accepted(&accepted(&ready(2), &leaving), &told);
    snapshot.pairings.insert(node(2), draining);
    states[1].state = "ALLOCATED+CLOUD+DRAIN".to_owned();
    assert_eq!(
        plan(&with(snapshot.clone(), &states)),
        SweepPlan::default(),
        "its job may end"
    );
    states[1].state = "IDLE+CLOUD+DRAIN".to_owned();
    let plan = plan(&with(snapshot, &states));
    let found = only(&plan);
    assert_eq!(
        (found.what, &found.heal),
        (FindingKind::Drained, &Some(Heal::Fail))
    );
}

#[test]
fn an_instance_whose_node_slurm_holds_powered_down_is_let_go() {
    let (snapshot, mut states) = healthy();
    states[1] = at_rest(2);
    let snapshot = with(snapshot, &states);
    let heal = Heal::LetGo {
        generation: generation(2),
    };
    confirmed(&snapshot, FindingKind::Unwanted, &heal, CONFIRM_MS);
    // slurmctld was asked before the node's request was stamped: old news.
    let mut old = snapshot.clone();
    old.slurm.as_mut().unwrap().observed_ms = STAMPED_MS;
    old.now_ms = STAMPED_MS + 1_000;
    assert_eq!(plan(&old).findings, Vec::new());
    // It is wanted again.
    for state in [
        "IDLE+CLOUD+POWER_UP+POWERED_DOWN",
        "ALLOCATED+CLOUD+POWERED_DOWN",
    ] {
        states[1] = in_state(state, 2);
        assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());
    }
}

#[test]
fn a_stranger_and_a_node_that_slurm_holds_down_are_replaced_but_not_what_an_administrator_holds() {
    let (snapshot, mut states) = healthy();
    states[1].addresses = vec!["10.0.0.99".to_owned()];
    let stranger = with(snapshot.clone(), &states);
    confirmed(&stranger, FindingKind::Stranger, &Heal::Fail, CONFIRM_MS);
    for is_none in ["c2", ""] {
        states[1].addresses = vec![is_none.to_owned()];
        assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());
    }
    // slurmctld speaks of another request than our record: nothing is known.
    states[1].addresses = vec!["10.0.0.99".to_owned()];
    states[1].generations = vec![generation(2).get() + 1];
    assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());

    states[1] = in_state("DOWN*+CLOUD+NOT_RESPONDING", 2);
    states[1].reason = Some("Not responding".to_owned());
    let down = with(snapshot.clone(), &states);
    confirmed(&down, FindingKind::Down, &Heal::Fail, CONFIRM_MS);
    states[1].set_by_hand = true;
    let by_hand = with(snapshot, &states);
    let first = plan(&by_hand);
    assert_eq!(first.findings, Vec::new());
    assert_eq!(again(&by_hand, &first, 60_000).findings, Vec::new());
}

#[test]
fn a_wedged_node_recovers() {
    let (snapshot, mut states) = healthy();
    let heal = Heal::Recover {
        generation: generation(9).get(),
    };
    for state in [
        "DOWN+CLOUD+POWERED_DOWN",
        "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
        "IDLE+CLOUD+POWERED_DOWN+NOT_RESPONDING",
        "IDLE+CLOUD+DRAIN+POWERED_DOWN",
        "IDLE+CLOUD+DRAIN+INVALID_REG",
        "DOWN+CLOUD+NOT_RESPONDING",
        "IDLE+CLOUD",
    ] {
        states[4] = in_state(state, 9);
        let wedged = with(snapshot.clone(), &states);
        confirmed(&wedged, FindingKind::Wedged, &heal, CONFIRM_MS);
        states[4].set_by_hand = true;
        assert_eq!(plan(&with(snapshot.clone(), &states)).findings, Vec::new());
    }
    // Slurm ends a power-down by itself, as a rule.
    states[4] = in_state("IDLE+CLOUD+POWERING_DOWN", 9);
    let leaving = with(snapshot.clone(), &states);
    confirmed(
        &leaving,
        FindingKind::Wedged,
        &heal,
        2 * 60_000 + CONFIRM_MS,
    );
    for fine in [
        "IDLE+CLOUD+POWERED_DOWN",
        "MIXED+CLOUD",
        "DOWN+CLOUD+COMPLETING",
        "IDLE+CLOUD+NOT_RESPONDING+POWERING_UP",
    ] {
        states[4] = in_state(fine, 9);
        assert_eq!(
            plan(&with(snapshot.clone(), &states)),
            SweepPlan::default(),
            "{fine}"
        );
    }
}

#[test]
fn what_no_timer_looks_after_any_more_is_looked_after() {
    let (mut snapshot, states) = healthy();
    snapshot.pairings.insert(node(7), requested(7));
    let mut late = with(snapshot.clone(), &states);
    late.now_ms = NOW_MS + 60_000 + LATE_MS - 1;
    late.slurm = None;
    assert_eq!(plan(&late).findings, Vec::new());
    late.now_ms += 1;
    let heal = Heal::Expire {
        generation: generation(7),
    };
    let found = plan(&late);
    assert_eq!(
        (only(&found).what, &only(&found).heal),
        (FindingKind::Late, &Some(heal))
    );

    // The update of a launch was never acknowledged, and its timers are gone.
    let untold = Event::Launched {
        launch: launch(7),
        instance: instance(7),
        address: address(7),
        note: None,
    };
    let untold = accepted(&requested(7), &untold);
    let mut snapshot = with(snapshot, &states);
    snapshot.pairings.insert(node(7), untold.clone());
    snapshot.instances.insert(instance(7), seen(7));
    let found = plan(&snapshot);
    assert_eq!(
        (only(&found).what, &only(&found).heal),
        (FindingKind::Untold, &Some(Heal::TellAgain { attempt: 0 }))
    );
    let told_again = untold.on(&Event::Unanswered { attempt: None }, NOW_MS).next;
    let mut due = told_again.update_due.clone().unwrap();
    due.since_ms = NOW_MS - 119_000;
    let patient = Pairing {
        update_due: Some(due),
        ..told_again
    };
    snapshot.pairings.insert(node(7), patient);
    assert_eq!(
        plan(&snapshot).findings,
        Vec::new(),
        "its timer is not late yet"
    );
}

#[test]
fn a_launch_that_nobody_works_on_is_woken_once() {
    let (mut snapshot, states) = healthy();
    let request = SeenRequest {
        is_done: false,
        lease_until_ms: NOW_MS - 60_000,
        deadline_ms: NOW_MS + 60_000,
    };
    let of_one_launch = |n: usize| {
        let resume = Event::Resume {
            generation: generation(n),
            launch: launch(7),
            deadline_ms: NOW_MS + 60_000,
            launches_per_hour: 12,
        };
        accepted(&Pairing::new(node(n)), &resume)
    };
    snapshot
        .pairings
        .extend([7, 8].map(|n| (node(n), of_one_launch(n))));
    snapshot.requests.insert(launch(7), request.clone());
    let snapshot = with(snapshot, &states);
    let found = plan(&snapshot);
    let heal = Heal::GoOn { launch: launch(7) };
    assert_eq!(
        (only(&found).what, &only(&found).heal),
        (FindingKind::Stalled, &Some(heal))
    );
    for at_work in [
        SeenRequest {
            lease_until_ms: NOW_MS - 59_999,
            ..request.clone()
        },
        SeenRequest {
            is_done: true,
            ..request
        },
    ] {
        let mut snapshot = snapshot.clone();
        snapshot.requests.insert(launch(7), at_work);
        assert_eq!(plan(&snapshot).findings, Vec::new());
    }
}

#[test]
fn when_the_head_node_is_silent_the_site_decides() {
    let (snapshot, mut states) = healthy();
    states[1] = in_state("IDLE+CLOUD", 2);
    let mut silent = with(snapshot, &states);
    silent.slurm.as_mut().unwrap().observed_ms = NOW_MS - 3_700_000;
    silent.head_node.heard_ms = Some(NOW_MS - 3_600_000);
    let failed = |away, silent: &Snapshot| -> Vec<NodeName> {
        let mut silent = silent.clone();
        silent.policy.head_node_away = away;
        silent.policy.head_node_away_minutes = 60;
        let plan = plan(&silent);
        assert!(plan.findings.iter().all(|finding| {
            finding.what == FindingKind::HeadNodeSilent && finding.heal == Some(Heal::Fail)
        }));
        plan.findings
            .into_iter()
            .filter_map(|finding| finding.node)
            .collect()
    };
    assert_eq!(failed(HeadNodeAway::Keep, &silent), Vec::<NodeName>::new());
    assert_eq!(failed(HeadNodeAway::Drain, &silent), [node(2)]);
    let all = (1..=4).map(node).collect::<Vec<_>>();
    assert_eq!(failed(HeadNodeAway::Terminate, &silent), all);
    silent.head_node.heard_ms = Some(NOW_MS - 3_599_999);
    assert_eq!(
        failed(HeadNodeAway::Terminate, &silent),
        Vec::<NodeName>::new()
    );
    // A site without an agent was never heard of.
    silent.head_node.heard_ms = None;
    assert_eq!(
        failed(HeadNodeAway::Terminate, &silent),
        Vec::<NodeName>::new()
    );
}

#[test]
fn requests_that_wait_at_the_head_node_are_told() {
    let (mut snapshot, states) = healthy();
    snapshot.head_node.oldest_spooled_ms = Some(NOW_MS - 119_999);
    assert_eq!(plan(&with(snapshot.clone(), &states)).findings, Vec::new());
    snapshot.head_node.oldest_spooled_ms = Some(NOW_MS - 120_000);
    let found = plan(&with(snapshot, &states));
    assert_eq!(
        (only(&found).what, &only(&found).heal),
        (FindingKind::SpoolStuck, &None)
    );
}

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
        prop_assert_eq!(marks.len(), count + 1);
        let text = serde_json::to_string(&marks).expect("marks are JSON");
        prop_assert_eq!(serde_json::from_str::<Marks>(&text).expect("and read back"), marks);
    }
}
