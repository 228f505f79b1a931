//! What EC2 shows of instances.

use spillway_core::config::{NoticeAction, NoticePolicy};
use spillway_core::name::Signal;

use super::*;

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
    assert_eq!(taken_up, SweepPlan::default());
}

/// `docs/healing.md` promises it: with a sweep a minute, whenever the first one comes, and where EC2 shows the instance late.
#[test]
fn an_orphan_lives_for_two_to_five_minutes() {
    const MINUTE_MS: u64 = 60_000;
    for first_after_ms in (0..MINUTE_MS).step_by(1_000) {
        for shown_after_ms in [0, 30_000] {
            let (snapshot, states) = healthy();
            let snapshot = with(snapshot, &states);
            let orphan = SeenInstance {
                launched_ms: NOW_MS,
                launch: None,
                ..seen(7)
            };
            let mut last = SweepPlan::default();
            let after_ms = (0..10).map(|number| first_after_ms + number * MINUTE_MS);
            let ended_after_ms = after_ms.into_iter().find(|after_ms| {
                let mut shown = snapshot.clone();
                if *after_ms >= shown_after_ms {
                    shown.instances.insert(instance(7), orphan.clone());
                }
                last = again(&shown, &last, *after_ms);
                let mut findings = last.findings.iter();
                findings.any(|finding| finding.heal == Some(Heal::End))
            });
            let lived_ms = ended_after_ms.expect("it is ended");
            assert!(
                (2 * MINUTE_MS..=5 * MINUTE_MS).contains(&lived_ms),
                "{lived_ms} ms"
            );
        }
    }
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
    let mut waited_for = going_on.clone();
    let waits = Event::Resume {
        generation: generation(70),
        launch: launch(7),
        deadline_ms: NOW_MS + LATE_MS,
        launches_per_hour: 12,
    };
    let waits = accepted(&Pairing::new(node(70)), &waits);
    waited_for.pairings.insert(node(70), waits);
    assert_eq!(
        plan(&waited_for),
        SweepPlan::default(),
        "a later request's node waits for it"
    );
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
    let drain = Heal::Drain {
        signal: None,
        replace: false,
    };
    confirmed(&impaired, FindingKind::Impaired, &drain, CONFIRM_MS);
    let with_policy = |maintenance| {
        let mut impaired = impaired.clone();
        let signal = Some(Signal::new("USR1").expect("a signal"));
        let policy = NoticePolicy {
            maintenance,
            signal,
            replace: true,
            ..NoticePolicy::default()
        };
        impaired.notices.insert(node(2), policy);
        impaired
    };
    let drain = Heal::Drain {
        signal: Some(Signal::new("USR1").expect("a signal")),
        replace: true,
    };
    let warned = with_policy(NoticeAction::Drain);
    confirmed(&warned, FindingKind::Impaired, &drain, CONFIRM_MS);
    let ignored = with_policy(NoticeAction::Ignore);
    assert_eq!(plan(&ignored), SweepPlan::default());
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
