//! The whole table: what each event makes of each state, as a committed snapshot.

use std::fmt::Write as _;

use super::*;

/// One line: the verdict, the state after, what follows, and what is remembered.
fn line(before: &Pairing, transition: &Transition) -> String {
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
    if next.history != before.history {
        let step = next.history.last().expect("a step was added");
        write!(text, "; {}", step.what.as_str()).expect("writing to a string");
        if let Some(instance) = &step.instance {
            write!(text, " …{}", tail(instance)).expect("writing to a string");
        }
        if let Some(reason) = &step.reason {
            write!(text, " {reason:?}").expect("writing to a string");
        }
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
            writeln!(
                text,
                "  {name:<48} {}",
                line(&pairing, &pairing.on(&event, now_ms))
            )
            .expect("writing to a string");
        }
        text.push('\n');
    }
    insta::assert_snapshot!("pairing", text);
}
