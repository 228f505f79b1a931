//! Protected mode: ten instances in a row that do not join close their group but for a probe, and one that joins opens it.

use spillway_core::capacity::{Admission, Capacity, PROBE_WAIT_MS, PROTECT_AFTER};
use spillway_core::name::NodeGroupName;

use super::{MINUTE_MS, NOW_MS};

fn group(name: &str) -> NodeGroupName {
    NodeGroupName::new(name).expect("a name")
}

const REASON: &str = "spillway: i-1 did not join in time";

#[test]
fn ten_in_a_row_that_do_not_join_protect_their_group() {
    let (cpu, gpu) = (group("cpu"), group("gpu"));
    let mut capacity = Capacity::default();
    assert!(!capacity.any_failing());
    for number in 1..PROTECT_AFTER {
        assert!(!capacity.did_not_join(&cpu, 1, REASON, NOW_MS));
        assert_eq!(
            capacity.admit(&cpu, NOW_MS),
            Admission::Open,
            "after {number}"
        );
    }
    assert!(capacity.any_failing() && capacity.is_failing(&cpu) && !capacity.is_failing(&gpu));
    assert!(
        capacity.did_not_join(&cpu, 1, REASON, NOW_MS),
        "it is this one"
    );
    assert!(
        !capacity.did_not_join(&cpu, 1, REASON, NOW_MS),
        "it was before"
    );
    let reason = "spillway: node group cpu is protected: its last 11 instances did not join: i-1 did not join in time";
    let protected = Admission::Protected {
        until_ms: NOW_MS + PROBE_WAIT_MS,
        reason: reason.to_owned(),
    };
    assert_eq!(capacity.admit(&cpu, NOW_MS), protected);
    assert_eq!(capacity.admit(&gpu, NOW_MS), Admission::Open);
    assert_eq!(capacity.resting_count(NOW_MS), 0, "it is no pool");
}

#[test]
fn many_at_once_protect_too_and_never_overflow() {
    let cpu = group("cpu");
    let mut capacity = Capacity::default();
    assert!(!capacity.did_not_join(&cpu, PROTECT_AFTER - 1, REASON, NOW_MS));
    assert_eq!(capacity.protected_count(), 0);
    assert!(capacity.did_not_join(&cpu, u32::MAX, REASON, NOW_MS));
    assert!(!capacity.did_not_join(&cpu, u32::MAX, REASON, NOW_MS));
    assert_eq!(capacity.protected_count(), 1);
    assert!(capacity.did_not_join(&group("gpu"), PROTECT_AFTER, REASON, NOW_MS));
    assert_eq!(capacity.protected_count(), 2);
    assert!(capacity.joined(&cpu));
    assert_eq!(capacity.protected_count(), 1);
}

#[test]
fn one_that_joins_in_between_begins_the_row_anew() {
    let cpu = group("cpu");
    let mut capacity = Capacity::default();
    assert!(!capacity.joined(&cpu), "it was not failing");
    capacity.did_not_join(&cpu, PROTECT_AFTER - 1, REASON, NOW_MS);
    assert!(capacity.joined(&cpu));
    assert!(!capacity.any_failing() && !capacity.is_failing(&cpu));
    capacity.did_not_join(&cpu, PROTECT_AFTER - 1, REASON, NOW_MS);
    assert_eq!(capacity.admit(&cpu, NOW_MS), Admission::Open);
}

#[test]
fn a_protected_group_is_probed_now_and_then_until_one_joins() {
    assert_eq!(PROBE_WAIT_MS, 10 * MINUTE_MS);
    let cpu = group("cpu");
    let mut capacity = Capacity::default();
    capacity.did_not_join(&cpu, PROTECT_AFTER, REASON, NOW_MS);
    let mut kind = |now_ms| match capacity.admit(&cpu, now_ms) {
        Admission::Open => ("open", 0),
        Admission::Probe { until_ms, .. } => ("probe", until_ms),
        Admission::Protected { until_ms, .. } => ("protected", until_ms),
    };
    let first_ms = NOW_MS + PROBE_WAIT_MS;
    assert_eq!(kind(first_ms - 1), ("protected", first_ms));
    assert_eq!(kind(first_ms), ("probe", first_ms + PROBE_WAIT_MS));
    assert_eq!(
        kind(first_ms),
        ("protected", first_ms + PROBE_WAIT_MS),
        "one at a time"
    );
    let second_ms = first_ms + PROBE_WAIT_MS + 5;
    assert_eq!(kind(second_ms), ("probe", second_ms + PROBE_WAIT_MS));
    // The probe did not join either; the next waits as long from then on.
    let failed_ms = second_ms + PROBE_WAIT_MS - 1_000;
    assert!(!capacity.did_not_join(&cpu, 1, "spillway: no munge key", failed_ms));
    let reason =
        "spillway: node group cpu is protected: its last 11 instances did not join: no munge key";
    let protected = Admission::Protected {
        until_ms: failed_ms + PROBE_WAIT_MS,
        reason: reason.to_owned(),
    };
    assert_eq!(capacity.admit(&cpu, failed_ms), protected);
    // The clock of who tells of it may lag; a probe is never brought forward by that.
    capacity.did_not_join(&cpu, 1, "spillway: no munge key", failed_ms - MINUTE_MS);
    assert!(
        matches!(capacity.admit(&cpu, failed_ms), Admission::Protected { until_ms, .. } if until_ms == failed_ms + PROBE_WAIT_MS)
    );
    assert!(capacity.joined(&cpu));
    assert_eq!(capacity.admit(&cpu, failed_ms), Admission::Open);
}
