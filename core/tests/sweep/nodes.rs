//! What slurmctld shows of nodes.

use super::*;

#[test]
fn an_instance_whose_node_slurm_holds_powered_down_is_let_go() {
    let (snapshot, mut states) = healthy();
    states[1] = at_rest(2);
    let snapshot = with(snapshot, &states);
    let heal = Heal::LetGo {
        generation: generation(2),
    };
    confirmed(&snapshot, FindingKind::Unwanted, &heal, CONFIRM_MS);
    // slurmctld was asked before the node's request was stamped: old news.
    let mut old = snapshot.clone();
    old.slurm.as_mut().unwrap().observed_ms = STAMPED_MS;
    old.now_ms = STAMPED_MS + 1_000;
    assert_eq!(plan(&old).findings, Vec::new());
    // It is wanted again.
    for state in [
        "IDLE+CLOUD+POWER_UP+POWERED_DOWN",
        "ALLOCATED+CLOUD+POWERED_DOWN",
    ] {
        states[1] = in_state(state, 2);
        assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());
    }
}

#[test]
fn a_stranger_and_a_node_that_slurm_holds_down_are_replaced_but_not_what_an_administrator_holds() {
    let (snapshot, mut states) = healthy();
    states[1].addresses = vec!["10.0.0.99".to_owned()];
    let stranger = with(snapshot.clone(), &states);
    confirmed(&stranger, FindingKind::Stranger, &Heal::Fail, CONFIRM_MS);
    for is_none in ["c2", ""] {
        states[1].addresses = vec![is_none.to_owned()];
        assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());
    }
    // slurmctld speaks of another request than our record: nothing is known.
    states[1].addresses = vec!["10.0.0.99".to_owned()];
    states[1].generations = vec![generation(2).get() + 1];
    assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());

    states[1] = in_state("DOWN*+CLOUD+NOT_RESPONDING", 2);
    states[1].reason = Some("Not responding".to_owned());
    let down = with(snapshot.clone(), &states);
    confirmed(&down, FindingKind::Down, &Heal::Fail, CONFIRM_MS);
    states[1].set_by_hand = true;
    let by_hand = with(snapshot, &states);
    let first = plan(&by_hand);
    assert_eq!(first.findings, Vec::new());
    assert_eq!(again(&by_hand, &first, 60_000).findings, Vec::new());
}

#[test]
fn a_node_whose_registration_slurm_refuses_is_replaced_once_its_jobs_are_gone() {
    let (snapshot, mut states) = healthy();
    states[1] = in_state("IDLE+CLOUD+DRAIN+INVALID_REG", 2);
    states[1].reason = Some("Low RealMemory (reported:1)".to_owned());
    let refused = with(snapshot.clone(), &states);
    confirmed(&refused, FindingKind::Down, &Heal::Fail, CONFIRM_MS);
    for on_its_way in [
        "MIXED+CLOUD+DRAIN+INVALID_REG",
        "IDLE+CLOUD+COMPLETING+DRAIN+INVALID_REG",
        "IDLE+CLOUD+DRAIN+INVALID_REG+POWERING_DOWN",
    ] {
        states[1] = in_state(on_its_way, 2);
        assert_eq!(plan(&with(snapshot.clone(), &states)), SweepPlan::default());
    }
}

#[test]
fn a_wedged_node_recovers() {
    let (snapshot, mut states) = healthy();
    let heal = Heal::Recover {
        generation: generation(9).get(),
    };
    for state in [
        "DOWN+CLOUD+POWERED_DOWN",
        "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
        "IDLE+CLOUD+POWERED_DOWN+NOT_RESPONDING",
        "IDLE+CLOUD+DRAIN+POWERED_DOWN",
        "IDLE+CLOUD+DRAIN+INVALID_REG",
        "DOWN+CLOUD+NOT_RESPONDING",
        "IDLE+CLOUD",
    ] {
        states[4] = in_state(state, 9);
        let wedged = with(snapshot.clone(), &states);
        confirmed(&wedged, FindingKind::Wedged, &heal, CONFIRM_MS);
        states[4].set_by_hand = true;
        assert_eq!(plan(&with(snapshot.clone(), &states)).findings, Vec::new());
    }
    // Slurm ends a power-down by itself, as a rule.
    states[4] = in_state("IDLE+CLOUD+POWERING_DOWN", 9);
    let leaving = with(snapshot.clone(), &states);
    confirmed(
        &leaving,
        FindingKind::Wedged,
        &heal,
        2 * 60_000 + CONFIRM_MS,
    );
    for fine in [
        "IDLE+CLOUD+POWERED_DOWN",
        "MIXED+CLOUD",
        "DOWN+CLOUD+COMPLETING",
        "IDLE+CLOUD+NOT_RESPONDING+POWERING_UP",
    ] {
        states[4] = in_state(fine, 9);
        assert_eq!(
            plan(&with(snapshot.clone(), &states)),
            SweepPlan::default(),
            "{fine}"
        );
    }
}
