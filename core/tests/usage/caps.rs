//! Which nodes the caps let launch, and what the others are told.

use spillway_core::usage::Usage;

use super::{NOW_MS, granted, launch, names, policy, refused, request, reserve};

#[test]
fn each_cap_refuses_what_is_over_it_and_says_so() {
    let cases = [
        (
            "max_nodes = 3\nlaunches_per_hour = 600\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 3 nodes (limits.max_nodes)",
        ),
        (
            "max_nodes = 300\nmax_vcpus = 100\nlaunches_per_hour = 600\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 100 vCPUs (limits.max_vcpus)",
        ),
        (
            "max_nodes = 300\nlaunches_per_hour = 3\n",
            "cloud[001-003]",
            "spillway: over the site's limit of 3 launches an hour (limits.launches_per_hour)",
        ),
    ];
    for (limits, fits, reason) in cases {
        let mut usage = Usage::default();
        let reservation = reserve(&mut usage, 1, "cloud[001-005]", &policy(limits));
        assert_eq!(granted(&reservation), fits);
        assert_eq!(refused(&reservation), [("cloud[004-005]", reason)]);
        assert_eq!((usage.nodes(), usage.vcpus()), (3, 96));
    }
    // The group's own cap is 200 of its 256 nodes.
    let policy = policy("max_nodes = 300\nlaunches_per_hour = 600\nmax_vcpus = 1000000\n");
    let mut usage = Usage::default();
    let reservation = reserve(&mut usage, 1, "cloud[001-256],gpu[1-2]", &policy);
    let reason =
        "spillway: over the site's limit of 200 nodes of node group cpu (node_group.max_nodes)";
    assert_eq!(granted(&reservation), "cloud[001-200],gpu[1-2]");
    assert_eq!(refused(&reservation), [("cloud[201-256]", reason)]);
}

#[test]
fn a_job_that_does_not_fit_as_a_whole_takes_nothing_from_those_that_do() {
    let policy = policy("max_nodes = 4\nlaunches_per_hour = 600\n");
    let mut usage = Usage::default();
    let jobs = request(&["cloud[001-005]", "cloud[005-006]", "cloud007"]);
    let nodes = names("cloud[001-009]");
    let reservation = usage.reserve(&launch(1), &jobs, &nodes, &policy, NOW_MS);
    // cloud005 is refused with the first job, and comes with the second; cloud008 is of no job.
    assert_eq!(granted(&reservation), "cloud[005-008]");
    let reason = "spillway: over the site's limit of 4 nodes (limits.max_nodes)";
    assert_eq!(refused(&reservation), [("cloud[001-004,009]", reason)]);
}

#[test]
fn a_launch_that_reserves_again_is_counted_once() {
    let policy = policy("max_nodes = 8\nlaunches_per_hour = 8\n");
    let mut usage = Usage::default();
    for nodes in ["cloud[001-008]", "cloud[001-005]", "cloud[001-008]"] {
        assert_eq!(granted(&reserve(&mut usage, 1, nodes, &policy)), nodes);
    }
    assert_eq!((usage.nodes(), usage.launched_within_hour(NOW_MS)), (8, 8));
    assert_eq!(granted(&reserve(&mut usage, 2, "cloud009", &policy)), "");
    let unknown = reserve(&mut usage, 3, "stranger", &policy);
    assert_eq!(
        granted(&unknown),
        "stranger",
        "the planner tells what is wrong with it"
    );
    assert_eq!(usage.nodes(), 8);
}

#[test]
fn a_job_counts_with_all_of_its_vcpus() {
    let policy = policy("max_nodes = 300\nmax_vcpus = 96\nlaunches_per_hour = 600\n");
    let of = |nodes: &str| {
        let mut usage = Usage::default();
        let jobs = request(&[nodes]);
        granted(&usage.reserve(&launch(1), &jobs, &names(nodes), &policy, NOW_MS))
    };
    assert_eq!(of("cloud[001-003]"), "cloud[001-003]");
    assert_eq!(of("cloud[001-004]"), "", "128 vCPUs");
    assert_eq!(of("cloud001,gpu[1-5]"), "", "112 vCPUs");
}
