//! The pairing state machine: its whole table as a committed snapshot, and what holds for any history.

mod histories;
mod life;
mod table;

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use spillway_core::envelope::JobNote;
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

fn second_choice(by: u64, id: u64) -> Event {
    let note = JobNote {
        jobs: Vec::new(),
        text: "spillway: cloud-1: launched 1 on-demand".to_owned(),
    };
    Event::Launched {
        launch: launch(by),
        instance: instance(id),
        address: address(1),
        note: Some(note),
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
        at("its launch brings the second choice", second_choice(5, 1)),
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
