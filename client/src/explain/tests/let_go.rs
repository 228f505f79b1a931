//! Nodes that Slurm, the sweep or a launch has let go.

use serde_json::json;
use spillway_core::sweep::{Finding, FindingKind, Heal};

use super::nodes::{NO_ON_DEMAND, life, told};
use super::*;

/// Its instance was there for an hour and is gone, for this reason.
fn gone(reason: &str) -> (bool, String) {
    let mut history = life(None);
    history.extend([
        step(3600, 0, "gone", Some(INSTANCE), Some(reason)),
        step(3602, 0, "told", None, None),
    ]);
    let more = json!({"released_instance_id": INSTANCE});
    let facts = NodeFacts {
        record: Ok(Some(item("free", history, more))),
        instance: Ok(Some(instance("terminated", json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("on-demand", &[INSTANCE], None)],
        ..quiet(3700)
    };
    told(&facts)
}

#[test]
fn one_whose_registration_slurmctld_refuses() {
    let (well, text) = gone(
        "spillway: slurmctld refuses the node's registration (Low RealMemory (reported:3800 < 100.00% of configured:8000)); \
         i-0123456789abcdef0 is replaced",
    );
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_a_stranger_registered_as() {
    let (well, text) = gone(
        "spillway: 10.0.9.9 registered as this node, its instance i-0123456789abcdef0 is at 10.0.0.7",
    );
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_slurmctld_held_down() {
    let (well, text) = gone(
        "spillway: slurmctld holds the node down (Not responding); i-0123456789abcdef0 is replaced",
    );
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_whose_instance_was_terminated_behind_our_back() {
    let (well, text) = gone("spillway: EC2 has ended i-0123456789abcdef0: it is terminated");
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_powers_down_for_ever() {
    let mut history = life(None);
    history.push(step(900, 900, "suspended", Some(INSTANCE), None));
    let mut facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        slurm: Ok(Some(row("IDLE+CLOUD+POWERING_DOWN", "10.0.0.7", None))),
        ..quiet(1500)
    };
    let mut with = |heal| {
        facts.sweep.as_mut().unwrap().as_mut().unwrap().findings = vec![Finding {
            what: FindingKind::Wedged,
            node: Some(name("cloud-7")),
            instance: None,
            reason: "spillway: nothing serves this node and it was IDLE+CLOUD+POWERING_DOWN (no reason given)".to_owned(),
            heal,
        }];
        told(&facts)
    };
    assert!(with(None).0, "it may be on its way");
    let (well, text) = with(Some(Heal::Recover { generation: 900 }));
    assert!(!well);
    insta::assert_snapshot!(text);
}

/// Its gang was one node short.
#[test]
fn one_whose_gang_did_not_come_whole() {
    let reason = "spillway: on-demand: InsufficientInstanceCapacity: We currently do not have sufficient c7i.large capacity in \
                  the Availability Zone you requested.";
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(9, 0, "not-launched", None, Some(reason)),
        step(11, 0, "told", None, None),
    ];
    let facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("on-demand", &[INSTANCE], Some(NO_ON_DEMAND))],
        ..quiet(60)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_whose_gang_slurm_asked_for_in_part() {
    let reason = "spillway: Slurm did not ask for 3 of the job's nodes within 60 s";
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(65, 0, "not-launched", None, Some(reason)),
        step(67, 0, "told", None, None),
    ];
    let facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        request: Ok(Some(request(0, true))),
        ..quiet(90)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}
