//! What holds for any history.

use super::*;

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
