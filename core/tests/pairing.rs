//! The pairing state machine: its whole table as a committed snapshot, and what holds for any history.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use spillway_core::name::{Generation, InstanceId, NodeName, RequestId, Signal};
use spillway_core::pairing::{
    DueAction, Event, LaunchKey, MAX_HISTORY, Pairing, PairingState, RECOVER_AGAIN_MS, StepKind,
    Transition, Verdict,
};

const NOW_MS: u64 = 1_000_000;
const DEADLINE_MS: u64 = NOW_MS + 60_000;

fn generation(n: u64) -> Generation {
    Generation::new(n).expect("small numbers are generations")
}

fn launch(n: u64) -> LaunchKey {
    let request_id = RequestId::new(format!("request-{n}")).expect("a valid id");
    LaunchKey {
        request_id,
        part: 1,
    }
}

fn instance(n: u64) -> InstanceId {
    InstanceId::new(format!("i-{n:017x}")).expect("a valid id")
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

fn resume(n: u64) -> Event {
    Event::Resume {
        generation: generation(n),
        launch: launch(n),
        deadline_ms: DEADLINE_MS,
        launches_per_hour: 60,
    }
}

fn resume_of_one_launch_an_hour(n: u64) -> Event {
    Event::Resume {
        generation: generation(n),
        launch: launch(n),
        deadline_ms: DEADLINE_MS,
        launches_per_hour: 1,
    }
}

fn launched(by: u64, id: u64) -> Event {
    Event::Launched {
        launch: launch(by),
        instance: instance(id),
        address: address(1),
        note: None,
    }
}

fn not_launched(by: u64, reason: &str) -> Event {
    Event::NotLaunched {
        launch: launch(by),
        reason: reason.to_owned(),
        cool_off: None,
        note: None,
    }
}

/// The record after each of `events` was accepted.
fn after(events: &[Event]) -> Pairing {
    let start = Pairing::new(NodeName::new("cloud-1").expect("a valid name"));
    events.iter().fold(start, |pairing, event| {
        let transition = pairing.on(event, NOW_MS);
        assert_eq!(
            transition.verdict,
            Verdict::Accepted,
            "{event:?} on {pairing:?}"
        );
        transition.next
    })
}

/// Each state a node can be in, reached as it is in life. Generation 5 is the one last accepted.
fn states() -> Vec<(&'static str, Pairing)> {
    let requested = resume(5);
    let not_launched = not_launched(5, "no capacity");
    let acknowledged = Event::Acknowledged {
        generation: generation(5),
        number: 1,
    };
    let ready = Event::Ready {
        instance: instance(1),
        generation: generation(5),
    };
    vec![
        ("never asked for", after(&[])),
        ("requested", after(std::slice::from_ref(&requested))),
        ("launched", after(&[requested.clone(), launched(5, 1)])),
        (
            "launched, address known",
            after(&[requested.clone(), launched(5, 1), acknowledged.clone()]),
        ),
        (
            "ready",
            after(&[
                requested.clone(),
                launched(5, 1),
                acknowledged.clone(),
                ready.clone(),
            ]),
        ),
        (
            "ready, about to go in an hour",
            after(&[
                requested.clone(),
                launched(5, 1),
                acknowledged,
                ready,
                leaving(1, Some(NOW_MS + 3_600_000)),
            ]),
        ),
        ("failed, untold", after(&[requested, not_launched])),
        (
            "suspended",
            after(&[
                resume(4),
                launched(4, 1),
                Event::Suspend {
                    generation: generation(5),
                },
            ]),
        ),
    ]
}

/// What Slurm asks.
fn requests() -> Vec<(&'static str, Event, u64)> {
    let g = generation;
    let at = |name, event| (name, event, NOW_MS);
    vec![
        at("an older resume", resume(3)),
        at("the same resume", resume(5)),
        at("a newer resume", resume(9)),
        ("a newer resume, too late", resume(9), DEADLINE_MS),
        at(
            "a newer resume, the second within the hour",
            resume_of_one_launch_an_hour(9),
        ),
        at("an older suspend", Event::Suspend { generation: g(3) }),
        at("the same suspend", Event::Suspend { generation: g(5) }),
        at("a newer suspend", Event::Suspend { generation: g(9) }),
    ]
}

/// What comes back: from the launch, the instance, the timer, the agent.
fn answers() -> Vec<(&'static str, Event, u64)> {
    let g = generation;
    let reason = || "why".to_owned();
    let at = |name, event| (name, event, NOW_MS);
    let unanswered = |name, attempt| at(name, Event::Unanswered { attempt });
    vec![
        at("its launch brings an instance", launched(5, 1)),
        at("its launch brings another instance", launched(5, 2)),
        at("an older launch brings an instance", launched(3, 2)),
        at("its launch gives up", not_launched(5, &reason())),
        at("an older launch gives up", not_launched(3, &reason())),
        at(
            "its instance is ready",
            Event::Ready {
                instance: instance(1),
                generation: g(5),
            },
        ),
        at(
            "its instance is ready for an older generation",
            Event::Ready {
                instance: instance(1),
                generation: g(3),
            },
        ),
        at(
            "another instance is ready",
            Event::Ready {
                instance: instance(2),
                generation: g(5),
            },
        ),
        at(
            "its instance cannot join",
            Event::Failed {
                instance: instance(1),
                reason: reason(),
            },
        ),
        at(
            "another instance cannot join",
            Event::Failed {
                instance: instance(2),
                reason: reason(),
            },
        ),
        at(
            "the deadline's timer, early",
            Event::Deadline { generation: g(5) },
        ),
        (
            "the deadline",
            Event::Deadline { generation: g(5) },
            DEADLINE_MS,
        ),
        (
            "an older request's deadline",
            Event::Deadline { generation: g(3) },
            DEADLINE_MS,
        ),
        at(
            "its update is acknowledged",
            Event::Acknowledged {
                generation: g(5),
                number: 1,
            },
        ),
        at(
            "an older update is acknowledged",
            Event::Acknowledged {
                generation: g(3),
                number: 1,
            },
        ),
        unanswered("the resend timer of the first attempt", Some(0)),
        unanswered("the resend timer of another attempt", Some(7)),
        unanswered("the agent says hello", None),
        at(
            "its update is dismissed",
            Event::Dismissed {
                generation: g(5),
                number: 1,
            },
        ),
    ]
}

fn leaving(id: u64, until_ms: Option<u64>) -> Event {
    Event::Leaving {
        instance: instance(id),
        reason: "spot".to_owned(),
        until_ms,
        signal: Signal::new("USR1").ok(),
        replace: true,
    }
}

fn wedged(n: u64) -> Event {
    Event::Wedged {
        generation: generation(n),
        reason: "wedged".to_owned(),
    }
}

/// What EC2 gives notice of, and what the sweep finds.
fn findings() -> Vec<(&'static str, Event, u64)> {
    let at = |name, event| (name, event, NOW_MS);
    let gone = |id| Event::Gone {
        instance: instance(id),
        reason: "gone".to_owned(),
    };
    let requeue = |id| Event::Requeue {
        instance: instance(id),
    };
    let unwanted = |n| Event::Unwanted {
        generation: generation(n),
    };
    vec![
        at(
            "its instance is to go in a minute",
            leaving(1, Some(NOW_MS + 60_000)),
        ),
        at(
            "its instance is to go in an hour",
            leaving(1, Some(NOW_MS + 3_600_000)),
        ),
        at("its instance is to go some time", leaving(1, None)),
        at("another instance is to go", leaving(2, None)),
        at("its jobs are to be requeued", requeue(1)),
        at("another instance's jobs are to be requeued", requeue(2)),
        at("its instance is gone", gone(1)),
        at("another instance is gone", gone(2)),
        at("Slurm holds it powered down", unwanted(5)),
        at("Slurm held it powered down before", unwanted(3)),
        at("it is wedged", wedged(5)),
        at("it is wedged since a request unheard of", wedged(9)),
        at("it was wedged before", wedged(3)),
    ]
}

/// One line: the verdict, the state after, and what follows.
fn line(transition: &Transition) -> String {
    let Transition {
        verdict,
        next,
        launch,
        release,
        regenerate,
        admit,
    } = transition;
    if *verdict == Verdict::Stale && release.is_none() {
        return "stale".to_owned();
    }
    let mut text = format!("{verdict:?}").to_lowercase();
    let state = match &next.state {
        PairingState::Free => "free".to_owned(),
        PairingState::Requested { launch, .. } => format!("requested of {}", launch.request_id),
        PairingState::Launched { instance, .. } => format!("launched …{}", tail(instance)),
        PairingState::Ready { instance, .. } => format!("ready …{}", tail(instance)),
    };
    write!(text, " → {state}, generation {}", next.generation).expect("writing to a string");
    match next.update_due.as_ref().map(|due| &due.action) {
        Some(DueAction::Address { .. }) => text.push_str(", tell Slurm the address"),
        Some(DueAction::Fail { reason, .. }) => {
            write!(text, ", tell Slurm {reason:?}").expect("writing to a string");
        }
        Some(DueAction::Drain {
            reason,
            signal,
            replace,
        }) => {
            let signal = signal.as_ref().map_or("none", |signal| signal.as_str());
            write!(
                text,
                ", drain {reason:?}, signal {signal}, replace {replace}"
            )
            .expect("writing to a string");
        }
        Some(DueAction::Requeue { reason }) => {
            write!(text, ", requeue {reason:?}").expect("writing to a string");
        }
        Some(DueAction::Recover { reason }) => {
            write!(text, ", recover {reason:?}").expect("writing to a string");
        }
        None => {}
    }
    if let Some(due) = next.update_due.as_ref().filter(|due| due.attempt > 0) {
        write!(text, ", attempt {}", due.attempt).expect("writing to a string");
    }
    if *launch {
        text.push_str(", LAUNCH");
    }
    let effects = [
        ("TERMINATE", release),
        ("instance takes the generation", regenerate),
        ("slurmd may start", admit),
    ];
    for (effect, instance) in effects
        .into_iter()
        .filter_map(|(e, i)| Some((e, i.as_ref()?)))
    {
        write!(text, ", {effect} …{}", tail(instance)).expect("writing to a string");
    }
    text
}

fn tail(instance: &InstanceId) -> &str {
    instance
        .as_str()
        .trim_start_matches("i-")
        .trim_start_matches('0')
}

#[test]
fn table() {
    let mut text = String::new();
    for (state, pairing) in states() {
        writeln!(text, "{state}").expect("writing to a string");
        for (name, event, now_ms) in requests().into_iter().chain(answers()).chain(findings()) {
            writeln!(text, "  {name:<48} {}", line(&pairing.on(&event, now_ms)))
                .expect("writing to a string");
        }
        text.push('\n');
    }
    insta::assert_snapshot!("pairing", text);
}

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

fn any_event() -> impl Strategy<Value = Event> {
    let id = || 1_u64..5;
    let reason = || Just("why".to_owned());
    prop_oneof![
        4 => (1_u64..40).prop_map(resume),
        3 => (1_u64..40).prop_map(|n| Event::Suspend { generation: generation(n) }),
        6 => (1_u64..40, id()).prop_map(|(by, id)| launched(by, id)),
        1 => (1_u64..40, reason()).prop_map(|(n, reason)| not_launched(n, &reason)),
        3 => (id(), 1_u64..40).prop_map(|(id, n)| Event::Ready { instance: instance(id), generation: generation(n) }),
        1 => (id(), reason()).prop_map(|(id, reason)| Event::Failed { instance: instance(id), reason }),
        1 => (1_u64..40).prop_map(|n| Event::Deadline { generation: generation(n) }),
        3 => (1_u64..40, 0_u64..6).prop_map(|(n, number)| Event::Acknowledged { generation: generation(n), number }),
        2 => (id(), prop::option::of(0_u64..200_000)).prop_map(|(id, ms)| leaving(id, ms.map(|ms| NOW_MS + ms))),
        1 => id().prop_map(|id| Event::Requeue { instance: instance(id) }),
        1 => (id(), reason()).prop_map(|(id, reason)| Event::Gone { instance: instance(id), reason }),
        1 => (1_u64..40).prop_map(|n| Event::Unwanted { generation: generation(n) }),
        1 => (1_u64..40).prop_map(wedged),
        1 => prop::option::of(0_u32..4).prop_map(|attempt| Event::Unanswered { attempt }),
        1 => (1_u64..40, 0_u64..6).prop_map(|(n, number)| Event::Dismissed { generation: generation(n), number }),
    ]
}

/// Events that follow the node's own story: half of them are made to fit the record.
fn fitting(event: Event, pairing: &Pairing) -> Event {
    match (event, &pairing.state) {
        (
            Event::Launched {
                instance, address, ..
            },
            PairingState::Requested { launch, .. },
        ) => Event::Launched {
            launch: launch.clone(),
            instance,
            address,
            note: None,
        },
        (Event::Ready { .. }, PairingState::Launched { instance, .. }) => Event::Ready {
            instance: instance.clone(),
            generation: pairing.generation,
        },
        (
            Event::Leaving {
                reason,
                until_ms,
                signal,
                replace,
                ..
            },
            PairingState::Ready { instance, .. },
        ) => Event::Leaving {
            instance: instance.clone(),
            reason,
            until_ms,
            signal,
            replace,
        },
        (Event::Requeue { .. }, PairingState::Ready { instance, .. }) => Event::Requeue {
            instance: instance.clone(),
        },
        (Event::Unwanted { .. }, _) => Event::Unwanted {
            generation: pairing.generation,
        },
        (Event::Wedged { reason, .. }, _) => Event::Wedged {
            generation: pairing.generation,
            reason,
        },
        (Event::Acknowledged { number, .. }, _) => {
            let number = pairing.update_due.as_ref().map_or(number, |due| due.number);
            Event::Acknowledged {
                generation: pairing.generation,
                number,
            }
        }
        (event, _) => event,
    }
}

proptest! {
    /// Whatever comes in whatever order: generations and update numbers only grow, the same event twice
    /// changes nothing more, and an instance leaves a pairing only by being released.
    #[test]
    fn any_history(steps in prop::collection::vec((any_event(), any::<bool>(), 0_u64..2 * 60_000), 1..80)) {
        let mut pairing = after(&[]);
        for (event, fits, later_ms) in steps {
            let event = if fits { fitting(event, &pairing) } else { event };
            let now_ms = NOW_MS + later_ms;
            let transition = pairing.on(&event, now_ms);
            let next = &transition.next;
            prop_assert!(next.generation >= pairing.generation);
            prop_assert!(next.update_number >= pairing.update_number);
            if transition.verdict != Verdict::Accepted {
                prop_assert_eq!(next, &pairing);
            }
            match (pairing.instance(), next.instance()) {
                (Some(old), new) if new != Some(old) => {
                    prop_assert_eq!(transition.release.as_ref(), Some(old));
                    prop_assert_eq!(next.released.as_ref(), Some(old));
                }
                _ if transition.verdict == Verdict::Accepted => prop_assert_eq!(&transition.release, &None),
                _ => {}
            }
            if transition.launch {
                prop_assert!(next.instance().is_none());
            }
            let twice = next.on(&event, now_ms);
            // Each hello asks anew, by intent.
            if matches!(event, Event::Unanswered { attempt: None }) {
                prop_assert_eq!(next.instance(), twice.next.instance());
                pairing = transition.next;
                continue;
            }
            prop_assert_ne!(twice.verdict, Verdict::Accepted, "{:?} twice on {:?}", event, pairing);
            prop_assert_eq!(&twice.next, next);
            pairing = transition.next;
        }
    }

    /// A stored record reads back as it was.
    #[test]
    fn serde_round_trip(steps in prop::collection::vec(any_event(), 1..40)) {
        let mut pairing = after(&[resume(1)]);
        for event in steps {
            pairing = pairing.on(&fitting(event, &pairing), NOW_MS).next;
            let text = serde_json::to_string(&pairing).expect("a record is JSON");
            prop_assert_eq!(serde_json::from_str::<Pairing>(&text).expect("and reads back"), pairing.clone());
        }
    }
}
