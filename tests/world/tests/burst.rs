//! A burst larger than EC2's bucket of instances: 1,000 are there at once, and two more each second.

use spillway_world::sim::burst;

const NODES: usize = 2_000;
/// (2,000 - 1,000) / 2 a second.
const BUCKETS_ALLOW_MS: u64 = 500_000;

fn check(one_job: bool) {
    let burst = burst(NODES, one_job);
    println!("{burst:?}");
    assert!(burst.violations.is_empty(), "{:#?}", burst.violations);
    assert_eq!(
        burst.instances, NODES,
        "each node has one instance, launched once"
    );
    assert_eq!(burst.dead_letters, 0);
    assert!(
        burst.last_launch_ms <= BUCKETS_ALLOW_MS * 11 / 10,
        "{} ms",
        burst.last_launch_ms
    );
    assert!(burst.throttled * 20 <= burst.calls, "{burst:?}");
}

#[test]
fn two_thousand_one_node_jobs_spend_the_buckets_well() {
    check(false);
}

#[test]
fn a_job_of_two_thousand_nodes_spends_the_buckets_well() {
    check(true);
}
