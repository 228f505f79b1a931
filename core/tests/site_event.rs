//! What is published of a node: one event a step, the same whatever way its changes come.

use std::collections::BTreeSet;

use proptest::prelude::*;
use spillway_core::name::{ClusterName, Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{Event, LaunchKey, Pairing, PairingState, Step, StepKind, Verdict};
use spillway_core::site_event::{
    Change, Detail, DetailType, NodeChange, NodeImage, NodeState, SiteEvent, StepDetail,
    SweepChange,
};
use spillway_core::sweep::{Finding, FindingKind, Heal, SweepReport};

const HOUR_MS: u64 = 3_600_000;
const LAUNCHES_PER_HOUR: u32 = 1_000;

fn cluster() -> ClusterName {
    ClusterName::new("lab").unwrap()
}

fn node() -> NodeName {
    NodeName::new("cloud-0").unwrap()
}

fn instance(number: u8) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).unwrap()
}

fn generation(number: u64) -> Generation {
    Generation::new(number).unwrap()
}

fn launch(number: u64) -> LaunchKey {
    let request_id = RequestId::new(format!("request-{number}")).unwrap();
    LaunchKey {
        request_id,
        part: 1,
    }
}

fn image(pairing: &Pairing) -> NodeImage {
    NodeImage {
        node: pairing.node.clone(),
        state: match pairing.state {
            PairingState::Free => NodeState::Free,
            PairingState::Requested { .. } => NodeState::Requested,
            PairingState::Launched { .. } => NodeState::Launched,
            PairingState::Ready { .. } => NodeState::Ready,
        },
        request_id: pairing.request_id.clone(),
        history: pairing.history.clone(),
    }
}

/// What may happen to a node, some of it out of place.
fn event() -> impl Strategy<Value = Event> {
    let (generations, instances) = (1..9_u64, 0..3_u8);
    prop_oneof![
        3 => generations.clone().prop_map(|number| Event::Resume {
            generation: generation(number),
            launch: launch(number),
            deadline_ms: HOUR_MS,
            launches_per_hour: LAUNCHES_PER_HOUR,
        }),
        2 => generations.clone().prop_map(|number| Event::Suspend { generation: generation(number) }),
        4 => (generations.clone(), instances.clone()).prop_map(|(number, which)| Event::Launched {
            launch: launch(number),
            instance: instance(which),
            address: [10, 0, 0, which].into(),
            note: None,
        }),
        2 => (generations, 1..9_u64).prop_map(|(number, update)| Event::Acknowledged {
            generation: generation(number),
            number: update,
        }),
        2 => instances.clone().prop_map(|which| Event::Failed {
            instance: instance(which),
            reason: "it failed".to_owned(),
        }),
        2 => instances.prop_map(|which| Event::Gone {
            instance: instance(which),
            reason: "it went".to_owned(),
        }),
    ]
}

/// The changes of the node's item, one an accepted event; the steps in order.
fn life(events: &[Event]) -> (Vec<NodeChange>, Vec<Step>) {
    let mut pairing = Pairing::new(node());
    let (mut changes, mut steps) = (Vec::new(), Vec::new());
    for (at_ms, event) in (1..).zip(events) {
        let transition = pairing.on(event, at_ms);
        if transition.verdict != Verdict::Accepted {
            continue;
        }
        changes.push(NodeChange {
            before: (!changes.is_empty()).then(|| image(&pairing)),
            after: image(&transition.next),
        });
        pairing = transition.next;
        steps.extend(pairing.history.last().cloned());
    }
    (changes, steps)
}

/// What is published of a change.
fn published(change: &NodeChange) -> Vec<(DetailType, StepDetail)> {
    let events = Change::Node(change.clone()).events(&cluster(), None);
    let of_step = |event: SiteEvent| match event.detail {
        Detail::Step(step) => (event.detail_type, step),
        Detail::Sweep(sweep) => panic!("no sweep was told of: {sweep:?}"),
    };
    events.into_iter().map(of_step).collect()
}

fn ids<'a>(changes: impl IntoIterator<Item = &'a NodeChange>) -> Vec<String> {
    let events = changes.into_iter().flat_map(published);
    events.map(|(_, detail)| detail.id).collect()
}

proptest! {
    /// Also where the history is full and loses its oldest steps.
    #[test]
    fn each_step_is_published_once(events in prop::collection::vec(event(), 0..60)) {
        let (changes, steps) = life(&events);
        let all = ids(&changes);
        prop_assert_eq!(all.len(), steps.len());
        let distinct: BTreeSet<&String> = all.iter().collect();
        prop_assert_eq!(distinct.len(), steps.len());
        for ((_, detail), step) in changes.iter().flat_map(published).zip(&steps) {
            prop_assert_eq!(detail.what, step.what);
            prop_assert_eq!(&detail.reason, &step.reason);
            prop_assert_eq!(&detail.instance_id, &step.instance);
        }
    }

    #[test]
    fn changes_seen_twice_and_in_another_order_make_the_same_events(
        events in prop::collection::vec(event(), 0..60),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        order in any::<u64>(),
    ) {
        let (changes, _) = life(&events);
        let expected: BTreeSet<String> = ids(&changes).into_iter().collect();
        let mut seen: Vec<&NodeChange> = changes.iter().collect();
        if !changes.is_empty() {
            seen.extend(again.iter().map(|index| index.get(&changes)));
        }
        // Any order will do: one that follows from a number.
        seen.sort_by_key(|change| {
            let at_ms = change.after.history.last().map_or(0, |step| step.at_ms);
            at_ms.wrapping_mul(order | 1)
        });
        let got: BTreeSet<String> = ids(seen).into_iter().collect();
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn each_kind_of_step_has_its_detail_type() {
    use StepKind::{
        Failed, Gone, Joined, Launched, Leaving, NotLaunched, NotTaken, Recovered, Refused,
        Requeued, Resumed, Suspended, Told, Unwanted,
    };
    let type_of = |what: StepKind, reason: Option<&str>| {
        let step = Step {
            at_ms: 7,
            generation: generation(1),
            what,
            instance: None,
            reason: reason.map(str::to_owned),
        };
        let after = NodeImage {
            history: vec![step],
            ..image(&Pairing::new(node()))
        };
        let change = NodeChange {
            before: None,
            after,
        };
        let [(detail_type, detail)] = &published(&change)[..] else {
            panic!("one step is one event");
        };
        assert_eq!(
            detail.id,
            format!(
                "lab/cloud-0/1/7/{}",
                serde_json::to_value(what).unwrap().as_str().unwrap()
            )
        );
        *detail_type
    };
    for what in [Resumed, Launched, Told, NotTaken, Joined, Suspended] {
        assert_eq!(type_of(what, None), DetailType::NodeStateChange, "{what:?}");
    }
    assert_eq!(type_of(Leaving, Some("soon")), DetailType::NodeStateChange);
    for what in [Refused, NotLaunched, Failed, Gone] {
        assert_eq!(
            type_of(what, Some("why")),
            DetailType::NodeFailure,
            "{what:?}"
        );
    }
    assert_eq!(
        type_of(Launched, Some("spot was exhausted")),
        DetailType::Fallback
    );
    for what in [Requeued, Unwanted, Recovered] {
        assert_eq!(type_of(what, Some("why")), DetailType::Healing, "{what:?}");
    }
}

fn finding(what: FindingKind, heal: Option<Heal>) -> Finding {
    let of_node = !matches!(what, FindingKind::Orphan | FindingKind::Held);
    Finding {
        what,
        node: of_node.then(node),
        instance: (what == FindingKind::Orphan).then(|| instance(7)),
        reason: format!("{what:?}"),
        heal,
    }
}

fn report(at_ms: u64, findings: Vec<Finding>) -> SweepReport {
    SweepReport {
        at_ms,
        dry_run: false,
        instances: 1,
        nodes: 1,
        slurm_age_ms: None,
        found: findings.len(),
        findings,
        stopped: None,
    }
}

/// What heals a node is a step of the node's, and published as that. What the sweep before set out to heal is no news.
#[test]
fn a_sweep_tells_of_what_is_no_step_of_a_node() {
    let launch = launch(3);
    let go_on = Heal::GoOn {
        launch: launch.clone(),
    };
    let orphan = || finding(FindingKind::Orphan, Some(Heal::End));
    let first = report(
        90,
        vec![
            orphan(),
            finding(FindingKind::InstanceGone, Some(Heal::Fail)),
            finding(FindingKind::Held, None),
            finding(FindingKind::Untold, Some(Heal::TellAgain { attempt: 2 })),
        ],
    );
    let second = report(
        150,
        vec![
            finding(FindingKind::Untold, Some(Heal::TellAgain { attempt: 3 })),
            finding(FindingKind::Stalled, Some(go_on)),
            orphan(),
        ],
    );
    let said = |before: Option<&SweepReport>, after: &SweepReport| {
        let change = Change::Sweep(SweepChange {
            before: before.cloned(),
            after: after.clone(),
        });
        let events = change.events(&cluster(), None).into_iter();
        let details = events.map(|event| {
            assert_eq!(event.detail_type, DetailType::SweepHealing);
            serde_json::to_value(&event.detail).unwrap()
        });
        serde_json::Value::Array(details.collect())
    };
    let of_first = serde_json::json!([
        {"version": 1, "id": "lab/sweep/90/0", "cluster": "lab", "what": "orphan", "instance_id": instance(7),
         "reason": "Orphan", "at_ms": 90},
        {"version": 1, "id": "lab/sweep/90/3", "cluster": "lab", "what": "untold", "node": "cloud-0",
         "reason": "Untold", "at_ms": 90},
    ]);
    assert_eq!(said(None, &first), of_first);
    let of_second = serde_json::json!([
        {"version": 1, "id": "lab/sweep/150/1", "cluster": "lab", "what": "stalled", "node": "cloud-0",
         "request_id": launch.request_id, "reason": "Stalled", "at_ms": 150},
    ]);
    assert_eq!(said(Some(&first), &second), of_second);
}
