//! What time says of our own records.

use super::*;

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
