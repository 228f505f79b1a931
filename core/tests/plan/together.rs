//! Which nodes are launched together, and for which jobs: jobs and strategies, node groups, chunks and requests.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use spillway_core::config::{Policy, Strategy as OnShortage};
use spillway_core::hostlist;
use spillway_core::message::RequestJob;
use spillway_core::name::NodeName;
use spillway_core::plan::{ChunkJob, LaunchPlan, plan_launch};

use super::{job, job_id, large_policy, names, plan_by, policy, policy_with, request, set};

/// The chunks of a plan, a line each, with their jobs beneath.
fn text(plan: &LaunchPlan) -> String {
    let mut text = String::new();
    for chunk in &plan.chunks {
        let zone = if chunk.one_zone { ", one zone" } else { "" };
        writeln!(text, "  {} of {}{zone}", chunk.nodes, chunk.node_group).expect("a string");
        for ChunkJob {
            job_id,
            nodes,
            strategy,
            spans,
        } in &chunk.jobs
        {
            let spans = if *spans {
                ", with others elsewhere"
            } else {
                ""
            };
            writeln!(text, "    job {job_id}: {nodes}, {strategy:?}{spans}").expect("a string");
        }
    }
    for refused in &plan.refused {
        writeln!(text, "  {} refused: {}", refused.nodes, refused.reason).expect("a string");
    }
    text
}

/// A job whose other nodes are there already or come with another request.
fn job_of(id: &str, nodes: &str, all: &str, partition: &str) -> RequestJob {
    RequestJob {
        nodes_alloc: Some(all.to_owned()),
        partition: Some(partition.to_owned()),
        ..job(id, nodes)
    }
}

type Case = (&'static str, Policy, &'static str, Vec<RequestJob>);

fn in_one_zone() -> Policy {
    policy_with(&[(
        "cost-center = \"4711\" }",
        "cost-center = \"4711\" }\none_zone = true",
    )])
}

fn greedy() -> Policy {
    policy_with(&[(
        "name = \"burst\"",
        "name = \"burst\"\nstrategy = \"greedy\"",
    )])
}

/// On partition `gpu`.
fn best_effort() -> Policy {
    policy_with(&[(
        "name = \"gpu\"\nnode_groups",
        "name = \"gpu\"\nstrategy = \"best-effort\"\nnode_groups",
    )])
}

/// Jobs side by side, and jobs alone.
fn simple_cases() -> Vec<Case> {
    let apart = || vec![job("1", "cloud[001-002]"), job("2", "cloud[003-005]")];
    vec![
        ("nodes of no job", policy(), "cloud[001-003],gpu1", vec![]),
        (
            "jobs, and nodes of no job behind them",
            policy(),
            "cloud[001-006]",
            apart(),
        ),
        ("jobs that do not mind", greedy(), "cloud[001-005]", apart()),
        (
            "jobs in one zone are launched apart",
            in_one_zone(),
            "cloud[001-006]",
            apart(),
        ),
        (
            "a job of one node",
            policy(),
            "cloud001",
            vec![job("1", "cloud001")],
        ),
        (
            "a job of one node in one zone is launched with the nodes of no job",
            in_one_zone(),
            "cloud[001-002]",
            vec![job("1", "cloud001")],
        ),
        (
            "the last node of a job whose others are there",
            policy(),
            "cloud003",
            vec![job_of("1", "cloud003", "cloud[001-003]", "burst")],
        ),
        (
            "a job of which nothing can be read but this node",
            policy(),
            "cloud003",
            vec![job_of("1", "cloud003", "cloud[001-", "burst")],
        ),
    ]
}

/// Partitions, node groups, shared nodes, and what does not fit together.
fn mixed_cases() -> Vec<Case> {
    vec![
        (
            "the partition of the job counts, not that of its nodes",
            best_effort(),
            "cloud[001-002],gpu[1-2]",
            vec![
                job_of("1", "cloud[001-002]", "cloud[001-002]", "gpu"),
                job_of("2", "gpu[1-2]", "gpu[1-2]", "burst"),
            ],
        ),
        (
            "the partition of its nodes where the job's is not told or not known",
            best_effort(),
            "cloud[001-002],gpu[1-4]",
            vec![
                job("1", "cloud[001-002]"),
                job("2", "gpu[1-2]"),
                job_of("3", "gpu[3-4]", "gpu[3-4]", "elsewhere"),
            ],
        ),
        (
            "a job that needs nodes of two groups",
            policy(),
            "cloud[001-002],gpu[1-2]",
            vec![job("1", "cloud[001-002],gpu1")],
        ),
        (
            "nodes of several jobs are launched once",
            policy(),
            "cloud[001-003]",
            vec![job("1", "cloud[001-002]"), job("2", "cloud[002-003]")],
        ),
        (
            "nodes of several jobs in one zone are brought by the first",
            in_one_zone(),
            "cloud[001-003]",
            vec![
                job("1", "cloud[001-002]"),
                job("2", "cloud[002-003]"),
                job("3", "cloud[001-002]"),
            ],
        ),
        (
            "nodes that nobody knows",
            policy(),
            "cloud001,stranger[1-2]",
            vec![job("1", "cloud001,stranger1")],
        ),
        (
            "what a job names and the request does not",
            policy(),
            "cloud001",
            vec![
                job("1", "cloud[001-002]"),
                job("2", "cloud003"),
                job("3", "cloud["),
            ],
        ),
    ]
}

fn large_cases() -> Vec<Case> {
    let three = || {
        vec![
            job("1", "cloud[0001-0600]"),
            job("2", "cloud[0601-1000]"),
            job("3", "cloud[1001-1002]"),
        ]
    };
    vec![
        (
            "nodes of no job",
            large_policy("greedy"),
            "cloud[0001-2001]",
            vec![],
        ),
        (
            "nodes of no job fill up what jobs leave",
            large_policy("greedy"),
            "cloud[0001-1001]",
            vec![job("1", "cloud[0001-0999]")],
        ),
        (
            "jobs that fit together, and one more",
            large_policy("greedy"),
            "cloud[0001-1002]",
            three(),
        ),
        (
            "jobs that do not fit together",
            large_policy("all-or-nothing"),
            "cloud[0001-1200]",
            vec![job("1", "cloud[0001-0600]"), job("2", "cloud[0601-1200]")],
        ),
        (
            "a gang as large as a chunk",
            large_policy("greedy"),
            "cloud[0001-1000]",
            vec![job("1", "cloud[0001-1000]")],
        ),
        (
            "a gang larger than a chunk",
            large_policy("greedy"),
            "cloud[0001-2003]",
            vec![job("1", "cloud[0001-2001]"), job("2", "cloud[2002-2003]")],
        ),
        (
            "a job of best effort larger than a chunk",
            large_policy("best-effort"),
            "cloud[0001-2503]",
            vec![
                job("1", "cloud[0001-0500]"),
                job("2", "cloud[0501-2500]"),
                job("3", "cloud[2501-2502]"),
            ],
        ),
        (
            "a shared node that another chunk launches",
            large_policy("all-or-nothing"),
            "cloud[0001-1200]",
            vec![
                job("1", "cloud[0001-0800]"),
                job("2", "cloud[0800-1200]"),
                job("3", "cloud[0001-0002]"),
            ],
        ),
    ]
}

#[test]
fn what_is_launched_together() {
    let mut table = String::new();
    for (name, policy, nodes, jobs) in [simple_cases(), mixed_cases(), large_cases()].concat() {
        writeln!(table, "{name}\n{}", text(&plan_by(&policy, nodes, jobs))).expect("a string");
    }
    insta::assert_snapshot!("launched_together", table);
}

/// The request brings two of the job's four nodes; another one brings the rest, which is known from the table.
#[test]
fn a_gang_of_several_requests_waits_for_the_others() {
    let of = |strategy: &str, spanning: &[&str]| {
        let policy = large_policy(strategy);
        let jobs = vec![
            job_of("1", "cloud[0001-0002]", "cloud[0001-0004]", "burst"),
            job("2", "cloud[0005-0006]"),
        ];
        let spanning = spanning.iter().map(|id| job_id(id)).collect();
        let nodes = "cloud[0001-0002,0005-0006]";
        let plan = plan_launch(&request(nodes, jobs), &names(nodes), &policy, &spanning);
        let parts: Vec<(String, u32, String)> = plan
            .gang_parts()
            .map(|part| (part.job_id.to_string(), part.chunk, part.nodes.to_owned()))
            .collect();
        (plan.chunks.len(), parts)
    };
    let part = ("1".to_owned(), 0, "cloud[0001-0002]".to_owned());
    assert_eq!(of("all-or-nothing", &["1"]), (2, vec![part.clone()]));
    assert_eq!(of("greedy", &["1"]), (2, vec![part]));
    assert_eq!(
        of("best-effort", &["1"]),
        (1, vec![]),
        "it takes what comes"
    );
    assert_eq!(of("greedy", &[]), (1, vec![]), "the others are there");
}

#[test]
fn the_parts_of_a_gang_are_told_by_their_chunks() {
    let jobs = vec![job("1", "cloud[0001-0002]"), job("2", "cloud[0003-1500]")];
    let plan = plan_by(&large_policy("greedy"), "cloud[0001-1500]", jobs);
    let parts: Vec<(&str, u32, &str)> = plan
        .gang_parts()
        .map(|part| (part.job_id.as_str(), part.chunk, part.nodes))
        .collect();
    assert_eq!(
        parts,
        [("2", 0, "cloud[0003-1002]"), ("2", 1, "cloud[1003-1500]")]
    );
}

/// Jobs of the example's nodes that share some of them.
fn any_jobs() -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    let nodes = prop::collection::vec(any::<prop::sample::Index>(), 1..8);
    prop::collection::vec(nodes, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever jobs share which nodes: each node is launched once, and a gang that waits for no other chunk brings
    /// each of its nodes itself or shares it with a job before it.
    #[test]
    fn gangs_are_launched_whole(
        jobs in any_jobs(),
        one_zone in any::<bool>(),
        strategy in prop::sample::select(vec!["all-or-nothing", "greedy", "best-effort"]),
    ) {
        let zone = format!("cost-center = \"4711\" }}\none_zone = {one_zone}");
        let burst = format!("name = \"burst\"\nstrategy = \"{strategy}\"");
        let policy = policy_with(&[("cost-center = \"4711\" }", &zone), ("name = \"burst\"", &burst)]);
        let known = names("cloud[001-020],gpu[1-4]");
        let jobs: Vec<BTreeSet<NodeName>> = jobs
            .into_iter()
            .map(|nodes| nodes.iter().map(|index| index.get(&known).clone()).collect())
            .collect();
        let requested = (1..).zip(&jobs).map(|(id, nodes): (usize, _)| {
            job(&id.to_string(), &hostlist::fold(nodes))
        });
        let plan = plan_by(&policy, "cloud[001-020],gpu[1-4]", requested.collect());
        let mut planned: Vec<NodeName> = plan.chunks.iter().flat_map(|chunk| names(&chunk.nodes)).collect();
        planned.sort();
        prop_assert_eq!(planned, known);
        for chunk in &plan.chunks {
            let members: BTreeSet<NodeName> = set(&chunk.nodes);
            prop_assert!(!members.is_empty());
            for part in &chunk.jobs {
                let of_part: BTreeSet<NodeName> = set(&part.nodes);
                prop_assert!(!of_part.is_empty() && of_part.is_subset(&members));
                let index: usize = part.job_id.as_str().parse().expect("a number");
                let job = &jobs[index - 1];
                prop_assert!(of_part.is_subset(job));
                let is_gang = part.strategy != OnShortage::BestEffort;
                prop_assert!(!is_gang || job.len() > 1);
                prop_assert!(is_gang || !part.spans);
                if is_gang && !part.spans {
                    let before: BTreeSet<&NodeName> = jobs[..index - 1].iter().flatten().collect();
                    prop_assert!(job.iter().all(|node| of_part.contains(node) || before.contains(node)));
                }
            }
        }
    }
}
