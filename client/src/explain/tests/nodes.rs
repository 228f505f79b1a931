//! Nodes.

use serde_json::json;
use spillway_core::capacity::Capacity;
use spillway_core::sweep::{Finding, FindingKind};

use super::super::node::account;
use super::*;

const NO_SPOT: (&str, &str) = (
    "InsufficientInstanceCapacity",
    "There is no Spot capacity available that matches your request.",
);
pub(super) const NO_ON_DEMAND: (&str, &str) = (
    "InsufficientInstanceCapacity",
    "We currently do not have sufficient c7i.large capacity in the Availability Zone you requested.",
);

/// Asked for, launched, told, joined.
pub(super) fn life(note: Option<&str>) -> Vec<serde_json::Value> {
    vec![
        step(1, 0, "resumed", None, None),
        step(5, 0, "launched", Some(INSTANCE), note),
        step(7, 0, "told", Some(INSTANCE), None),
        step(85, 0, "joined", Some(INSTANCE), None),
    ]
}

fn running(now: u64, note: Option<&str>) -> NodeFacts {
    let more = json!({"instance_id": INSTANCE, "address": "10.0.0.7"});
    NodeFacts {
        record: Ok(Some(item("ready", life(note), more))),
        instance: Ok(Some(instance("paired", json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("on-demand", &[INSTANCE], None)],
        slurm: Ok(Some(row("ALLOCATED+CLOUD", "10.0.0.7", None))),
        ..quiet(now)
    }
}

pub(super) fn told(facts: &NodeFacts) -> (bool, String) {
    let account = account(facts);
    (account.well, account.render(&berlin()))
}

#[test]
fn one_that_runs_well() {
    let (well, text) = told(&running(600, None));
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_for_which_spot_was_exhausted() {
    let note = "spillway: cloud-7: launched 1 on-demand, for spot: InsufficientInstanceCapacity: There is no Spot capacity";
    let facts = NodeFacts {
        attempts: vec![
            attempt("spot", &[], Some(NO_SPOT)),
            attempt("on-demand", &[INSTANCE], None),
        ],
        ..running(600, Some(note))
    };
    let (well, text) = told(&facts);
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_for_which_everything_was_exhausted() {
    let reason = "spillway: spot: InsufficientInstanceCapacity; on-demand: InsufficientInstanceCapacity: There is no Spot \
                  capacity available that matches your request.";
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(9, 0, "not-launched", None, Some(reason)),
        step(11, 0, "told", None, None),
    ];
    let capacity = json!({"closed": {
        "spot c7i.large us-east-1a": {"until_ms": at(189), "times": 1, "code": "InsufficientInstanceCapacity"},
        "spot c7i.large us-east-1b": {"until_ms": at(189), "times": 1, "code": "InsufficientInstanceCapacity"},
        "on-demand c7i.large us-east-1a": {"until_ms": at(189), "times": 1, "code": "InsufficientInstanceCapacity"},
        "on-demand c7i.large us-east-1b": {"until_ms": at(189), "times": 1, "code": "InsufficientInstanceCapacity"},
    }});
    let capacity: Capacity = serde_json::from_value(capacity).unwrap();
    let facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![
            attempt("spot", &[], Some(NO_SPOT)),
            attempt("on-demand", &[], Some(NO_ON_DEMAND)),
        ],
        capacity: Ok(Some(capacity)),
        ..quiet(60)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_over_a_cap() {
    let reason = "spillway: over the site's limit of 4 nodes at once for the jobs of user alice (limits.max_nodes_per_user)";
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(2, 0, "not-launched", None, Some(reason)),
        step(4, 0, "told", None, None),
    ];
    let facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        request: Ok(Some(request(0, true))),
        ..quiet(60)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_did_not_join_in_time() {
    let reason = "spillway: i-0123456789abcdef0 did not join in time; its console ends: cloud-init: Failed to fetch \
                  munge-key: connect timeout";
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(5, 0, "launched", Some(INSTANCE), None),
        step(7, 0, "told", Some(INSTANCE), None),
        step(560, 0, "failed", Some(INSTANCE), Some(reason)),
        step(562, 0, "told", None, None),
    ];
    let facts = NodeFacts {
        record: Ok(Some(item(
            "free",
            history,
            json!({"released_instance_id": INSTANCE}),
        ))),
        instance: Ok(Some(instance("terminated", json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("on-demand", &[INSTANCE], None)],
        ..quiet(700)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_whose_spot_instance_was_taken() {
    let reason =
        "spillway: EC2 Spot Instance Interruption Warning: terminate at 2026-01-01T00:12:00Z";
    let mut history = life(None);
    history.extend([
        step(600, 0, "leaving", Some(INSTANCE), Some(reason)),
        step(602, 0, "told", Some(INSTANCE), None),
        step(690, 0, "requeued", Some(INSTANCE), Some(reason)),
        step(692, 0, "told", Some(INSTANCE), None),
        step(724, 0, "gone", Some(INSTANCE), Some(reason)),
        step(725, 0, "told", None, None),
    ]);
    let pool =
        json!({"pool": {"capacity": "spot", "instance_type": "c7i.large", "zone": "us-east-1b"}});
    let facts = NodeFacts {
        record: Ok(Some(item(
            "free",
            history,
            json!({"released_instance_id": INSTANCE}),
        ))),
        instance: Ok(Some(instance("terminated", pool))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("spot", &[INSTANCE], None)],
        ..quiet(900)
    };
    let (well, text) = told(&facts);
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_whose_instance_is_held() {
    let mut history = life(None);
    history.push(step(900, 900, "suspended", Some(INSTANCE), None));
    let facts = NodeFacts {
        record: Ok(Some(item(
            "free",
            history,
            json!({"released_instance_id": INSTANCE}),
        ))),
        instance: Ok(Some(instance("released", json!({"held": "operator"})))),
        request: Ok(Some(request(0, true))),
        ..quiet(1500)
    };
    let (well, text) = told(&facts);
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_was_wedged_and_recovered() {
    let reason = "spillway: nothing serves this node and it was DOWN+CLOUD+POWERED_DOWN (ResumeTimeout reached)";
    let history = vec![
        step(0, 0, "suspended", None, None),
        step(300, 0, "recovered", None, Some(reason)),
        step(303, 0, "told", None, None),
    ];
    let mut facts = NodeFacts {
        record: Ok(Some(item("free", history, json!({})))),
        ..quiet(400)
    };
    let (well, text) = told(&facts);
    assert!(well);
    insta::assert_snapshot!("one_that_was_wedged_and_recovered", text);

    facts.slurm = Ok(Some(row(
        "DOWN+CLOUD+POWERED_DOWN",
        "cloud-7",
        Some("ResumeTimeout reached"),
    )));
    facts.sweep.as_mut().unwrap().as_mut().unwrap().findings = vec![Finding {
        what: FindingKind::Wedged,
        node: Some(name("cloud-7")),
        instance: None,
        reason: reason.to_owned(),
        heal: None,
    }];
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!("one_that_is_wedged", text);
}

#[test]
fn one_that_slurmctld_is_not_told_of() {
    let history = vec![
        step(1, 0, "resumed", None, None),
        step(5, 0, "launched", Some(INSTANCE), None),
    ];
    let more = json!({
        "instance_id": INSTANCE, "address": "10.0.0.7", "launch_request_id": "r-1", "launch_part": 1,
        "deadline_ms": at(540),
        "update_due": {"number": 1, "since_ms": at(5), "attempt": 4, "action": {"action": "address", "address": "10.0.0.7"}},
    });
    let mut facts = NodeFacts {
        record: Ok(Some(item("launched", history, more))),
        instance: Ok(Some(instance("paired", json!({})))),
        request: Ok(Some(request(0, true))),
        attempts: vec![attempt("on-demand", &[INSTANCE], None)],
        slurm: Err("scontrol got no answer: Unable to contact slurm controller".to_owned()),
        ..quiet(300)
    };
    let heartbeat = json!({"received_ms": at(4), "sent_ms": at(4), "spooled": 0});
    facts.site.heartbeat = Ok(Some(serde_json::from_value(heartbeat).unwrap()));
    facts.site.dead_letters = Err("SQS refused: AccessDenied: not authorized".to_owned());
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_whose_request_waits_in_the_spool() {
    let mut facts = quiet(90);
    facts.slurm = Ok(Some(row(
        "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP",
        "cloud-7",
        None,
    )));
    facts.local = Ok(Some(Local {
        stamped: None,
        waiting: vec![waiting(20)],
    }));
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_nobody_knows() {
    let facts = NodeFacts {
        node_group: None,
        slurm: Ok(None),
        reported: Ok(None),
        ..quiet(0)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_was_never_asked_for() {
    let (well, text) = told(&quiet(0));
    assert!(well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_an_administrator_drained() {
    let facts = NodeFacts {
        slurm: Ok(Some(row(
            "IDLE+CLOUD+DRAIN",
            "10.0.0.7",
            Some("disk is slow"),
        ))),
        ..running(600, None)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn one_that_cannot_be_looked_up() {
    let why = || "table hpc: AccessDeniedException: not authorized".to_owned();
    let facts = NodeFacts {
        record: Err(why()),
        sweep: Err(why()),
        reported: Err(why()),
        capacity: Err(why()),
        local: Err("cannot list /var/spool/spillway/requests: Permission denied".to_owned()),
        ..quiet(0)
    };
    let (well, text) = told(&facts);
    assert!(!well);
    insta::assert_snapshot!(text);
}

#[test]
fn a_request_that_was_held_up_is_said_so() {
    let history = vec![step(50, 0, "resumed", None, None)];
    let more = json!({"launch_request_id": "r-1", "launch_part": 1, "deadline_ms": at(540)});
    let facts = NodeFacts {
        record: Ok(Some(item("requested", history, more))),
        request: Ok(Some(request(0, false))),
        ..quiet(55)
    };
    let account = account(&facts);
    let words: Vec<&str> = account
        .happened
        .iter()
        .map(|moment| moment.what.as_str())
        .collect();
    assert_eq!(
        words,
        [
            "Slurm asked for the node, for job 4711 of alice (request r-1).",
            "The request was taken up in AWS, 50 s after Slurm's call."
        ]
    );
    assert_eq!(account.happened[0].at_ms, at(0));
}
