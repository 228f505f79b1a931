//! What the table does not show: events one after the other in a node's life.

use super::*;

/// Resumed and suspended again and again, a node is launched as often within an hour as the site allows, whether or
/// not its instances were ever paired; what brought no instance is not counted.
#[test]
fn a_node_is_launched_so_often_within_an_hour_and_no_more() {
    const MOST: u32 = 12;
    let resume = |n: u64| Event::Resume {
        generation: generation(n),
        launch: launch(n),
        deadline_ms: u64::MAX,
        launches_per_hour: MOST,
    };
    let mut pairing = after(&[]);
    let mut launches = Vec::new();
    for round in 0..400_u64 {
        let now_ms = NOW_MS + round * 30_000;
        let resumed = pairing.on(&resume(2 * round + 1), now_ms);
        assert_eq!(resumed.verdict, Verdict::Accepted);
        let told = resumed.next.update_due.as_ref().map(|due| &due.action);
        if resumed.launch {
            launches.push(now_ms);
            assert_eq!(told, None);
        } else {
            let reason = "spillway: over the site's limit of 12 launches of a node an hour \
                          (limits.launches_per_hour_per_node)";
            let fail = DueAction::Fail {
                reason: reason.to_owned(),
                cool_off: None,
            };
            assert_eq!(told, Some(&fail));
        }
        assert!(resumed.next.launches_ms.len() <= MOST as usize);
        let suspend = Event::Suspend {
            generation: generation(2 * round + 2),
        };
        pairing = resumed.next.on(&suspend, now_ms + 1).next;
    }
    assert!(
        launches.len() > 2 * MOST as usize,
        "an hour later it is launched again"
    );
    for window in launches.windows(MOST as usize + 1) {
        assert!(window[MOST as usize] - window[0] >= 3_600_000, "{window:?}");
    }

    let tried = after(&[resume(1), not_launched(1, "no capacity")]);
    assert_eq!(tried.launches_ms, Vec::<u64>::new());
}

#[test]
fn a_launch_counts_for_an_hour_to_the_millisecond() {
    const HOUR_MS: u64 = 3_600_000;
    let resume = |n: u64| Event::Resume {
        generation: generation(n),
        launch: launch(n),
        deadline_ms: u64::MAX,
        launches_per_hour: 1,
    };
    let suspend = Event::Suspend {
        generation: generation(2),
    };
    let suspended = after(&[resume(1), suspend]);
    assert!(!suspended.on(&resume(3), NOW_MS + HOUR_MS - 1).launch);
    assert!(suspended.on(&resume(3), NOW_MS + HOUR_MS).launch);
}

/// A newer resume waits for the launch of the older one, which must be planned even if it is told of again later. No
/// other is.
#[test]
fn a_launch_that_a_newer_resume_waits_for_is_planned_when_it_is_told_of_again() {
    let waits = after(&[resume(5), resume(9)]);
    for (event, verdict, launch) in [
        (resume(5), Verdict::Stale, true),
        (resume(4), Verdict::Stale, false),
        (resume(9), Verdict::Repeated, false),
    ] {
        let transition = waits.on(&event, NOW_MS);
        assert_eq!(
            (transition.verdict, transition.launch),
            (verdict, launch),
            "{event:?}"
        );
        assert_eq!(transition.next, waits);
    }
    let alone = after(&[resume(5)]).on(&resume(5), NOW_MS);
    assert_eq!((alone.verdict, alone.launch), (Verdict::Repeated, true));
}

/// Logs are followed by it from Slurm's call to scontrol.
#[test]
fn a_record_names_the_resume_it_last_accepted() {
    let joined = after(&[resume(3), launched(3, 1), resume(5)]);
    assert_eq!(joined.request_id, Some(launch(5).request_id));
    let overtaken = joined.on(&resume(4), NOW_MS).next;
    assert_eq!(overtaken.request_id, Some(launch(5).request_id));
}

/// What one power-down does not heal is tried again, but not all the time.
#[test]
fn a_wedged_node_is_recovered_once_in_a_while() {
    let told = after(&[wedged(5)]);
    let acknowledged = Event::Acknowledged {
        generation: generation(5),
        number: told.update_number,
    };
    let waiting = told.on(&acknowledged, NOW_MS).next;
    assert_eq!(waiting.update_due, None);
    let at = |ms| waiting.on(&wedged(5), NOW_MS + ms).verdict;
    assert_eq!(at(RECOVER_AGAIN_MS - 1), Verdict::Stale);
    assert_eq!(at(RECOVER_AGAIN_MS), Verdict::Accepted);
}

/// A record of generation 0 could not be read again.
#[test]
fn a_node_never_asked_for_that_is_wedged_gets_a_generation() {
    let event = Event::Wedged {
        generation: Generation::ZERO,
        reason: "wedged".to_owned(),
    };
    let told = after(&[event]);
    assert_eq!(told.generation, Generation::FIRST);
    assert!(told.on(&resume(2), NOW_MS).launch);
}

/// Timers come twice, and a nearer end may be told while the jobs are still to be queued again.
#[test]
fn jobs_of_an_instance_that_leaves_are_queued_again_once() {
    let ready = Event::Ready {
        instance: instance(1),
        generation: generation(5),
    };
    let requeue = Event::Requeue {
        instance: instance(1),
    };
    let end = |seconds: u64| leaving(1, Some(NOW_MS + seconds * 1000));
    let first = after(&[resume(5), launched(5, 1), ready, end(3600), requeue.clone()]);
    let nearer = first.on(&end(60), NOW_MS);
    assert_eq!(nearer.verdict, Verdict::Accepted);
    let due = |pairing: &Pairing| pairing.update_due.clone().map(|due| due.action);
    assert!(
        matches!(due(&nearer.next), Some(DueAction::Requeue { .. })),
        "the requeue is not lost: {:?}",
        nearer.next
    );
    let leaves_ms = nearer.next.leaving().and_then(|leaving| leaving.until_ms);
    assert_eq!(leaves_ms, Some(NOW_MS + 60_000));
    // The same end, said by the event and by the instance.
    let same = nearer.next.on(&end(57), NOW_MS);
    assert_eq!(same.verdict, Verdict::Repeated);
    let told = Event::Acknowledged {
        generation: generation(5),
        number: nearer.next.update_number,
    };
    let told = nearer.next.on(&told, NOW_MS).next;
    assert_eq!(told.on(&requeue, NOW_MS).verdict, Verdict::Repeated);
    // An end that is nearer yet is told, and the jobs stay queued.
    let drained = told.on(&end(10), NOW_MS).next;
    assert!(matches!(due(&drained), Some(DueAction::Drain { .. })));
    assert_eq!(drained.on(&requeue, NOW_MS).verdict, Verdict::Repeated);
}

/// The end comes nearer twice: another node is powered up with the first notice, and not again once Slurm has done it.
#[test]
fn an_instance_that_leaves_is_replaced_once() {
    let ready = Event::Ready {
        instance: instance(1),
        generation: generation(5),
    };
    let end = |seconds: u64, replaces: bool| match leaving(1, Some(NOW_MS + seconds * 1000)) {
        Event::Leaving {
            instance,
            reason,
            until_ms,
            signal,
            ..
        } => Event::Leaving {
            instance,
            reason,
            until_ms,
            signal,
            replace: replaces,
        },
        other => other,
    };
    let replaces = |pairing: &Pairing| match pairing.update_due.as_ref().map(|due| &due.action) {
        Some(DueAction::Drain { replace, .. }) => *replace,
        due => panic!("{due:?}"),
    };
    let joined = [resume(5), launched(5, 1), ready];
    let first = after(&joined).on(&end(3600, true), NOW_MS).next;
    assert!(replaces(&first));
    let nearer = first.on(&end(600, true), NOW_MS).next;
    assert!(replaces(&nearer), "Slurm was not told yet");
    let told = Event::Acknowledged {
        generation: generation(5),
        number: nearer.update_number,
    };
    let told = nearer.on(&told, NOW_MS).next;
    assert!(!replaces(&told.on(&end(60, true), NOW_MS).next));
    // Nor where the site wants none.
    let unwanted = after(&joined).on(&end(3600, false), NOW_MS).next;
    assert!(!replaces(&unwanted));
    assert!(!replaces(&unwanted.on(&end(60, true), NOW_MS).next));
}

#[test]
fn the_history_keeps_the_last_steps_with_their_reasons() {
    let ready = Event::Ready {
        instance: instance(1),
        generation: generation(5),
    };
    let gone = Event::Gone {
        instance: instance(1),
        reason: "terminated".to_owned(),
    };
    let life = after(&[resume(5), launched(5, 1), ready, leaving(1, None), gone]);
    let kinds: Vec<StepKind> = life.history.iter().map(|step| step.what).collect();
    assert_eq!(
        kinds,
        [
            StepKind::Resumed,
            StepKind::Launched,
            StepKind::Joined,
            StepKind::Leaving,
            StepKind::Gone
        ]
    );
    let last = life.history.last().expect("five steps");
    assert_eq!(last.instance, Some(instance(1)));
    // The notice said why before EC2 did.
    assert_eq!(last.reason.as_deref(), Some("spot"));

    let lives = (1..40).flat_map(|n| [resume(2 * n), not_launched(2 * n, "none")]);
    let long = after(&lives.collect::<Vec<_>>());
    assert_eq!(long.history.len(), MAX_HISTORY);
    assert_eq!(
        long.history.last().map(|step| step.what),
        Some(StepKind::NotLaunched)
    );
}
