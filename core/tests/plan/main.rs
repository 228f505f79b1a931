//! The planner: what is launched together and for whom (`together`), by which calls (`launch`), in which order EC2 is asked (`rounds`), which nodes
//! get what came (`share`), how all of that ends whatever EC2 grants (`carried_out`), and what is terminated
//! (`terminate`).

mod carried_out;
mod launch;
mod rounds;
mod share;
mod terminate;
mod together;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::Strategy as _;
use spillway_core::config::{CapacityKind, OnDemandAllocation, Policy, Site, Strategy};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{RequestJob, ResumeRequest};
use spillway_core::name::{Generation, JobId, NodeGroupName, NodeName, RequestId};
use spillway_core::plan::{Candidate, Chunk, ChunkJob, LaunchPlan, Recipe, plan_launch};

const SITE: &str = include_str!("../../../infra/examples/spillway.toml");
const NOW_MS: u64 = 1_700_000_000_000;

/// The example's policy with other text at some places.
fn policy_with(changes: &[(&str, &str)]) -> Policy {
    let text = changes.iter().fold(SITE.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "the example does not say {old}");
        text.replace(old, new)
    });
    Site::parse(&text, "spillway.toml")
        .expect("the site is valid")
        .policy
}

/// The example's policy: 256 nodes `cloud` of group `cpu`, 16 nodes `gpu` of group `gpu`.
fn policy() -> Policy {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| policy_with(&[]));
    POLICY.clone()
}

/// The same with 4,000 nodes `cloud`, and a strategy for the jobs on them.
fn large_policy(strategy: &str) -> Policy {
    policy_with(&[
        ("cloud[001-256]", "cloud[0001-4000]"),
        ("max_nodes = 300", "max_nodes = 5000"),
        ("max_nodes = 200", "max_nodes = 4000"),
        (
            "name = \"burst\"",
            &format!("name = \"burst\"\nstrategy = \"{strategy}\""),
        ),
    ])
}

fn request(nodes: &str, jobs: Vec<RequestJob>) -> ResumeRequest {
    ResumeRequest {
        request_id: RequestId::new("r-1").expect("a valid id"),
        generation: Generation::new(1_700_000_000_000_000).expect("a valid stamp"),
        part: 1,
        parts: 1,
        deadline_ms: NOW_MS + 600_000,
        nodes: nodes.to_owned(),
        jobs,
    }
}

fn job(id: &str, nodes: &str) -> RequestJob {
    RequestJob {
        job_id: job_id(id),
        nodes_resume: nodes.to_owned(),
        nodes_alloc: None,
        partition: None,
        features: None,
        user: Some("ada".to_owned()),
        account: Some("physics & co".to_owned()),
    }
}

fn job_id(id: &str) -> JobId {
    JobId::new(id).expect("a valid id")
}

/// Node names of a hostlist, or none.
fn names(expression: &str) -> Vec<NodeName> {
    if expression.is_empty() {
        return Vec::new();
    }
    Hostlist::parse(expression)
        .expect("a hostlist")
        .node_names()
        .expect("node names")
}

fn set(expression: &str) -> BTreeSet<NodeName> {
    names(expression).into_iter().collect()
}

/// The plan for all of `nodes`, by `policy`, where no job waits for other requests.
fn plan_by(policy: &Policy, nodes: &str, jobs: Vec<RequestJob>) -> LaunchPlan {
    plan_launch(
        &request(nodes, jobs),
        &names(nodes),
        policy,
        &BTreeSet::new(),
    )
}

/// A chunk as the planner makes it: its nodes, and the jobs on them.
fn chunk(nodes: &str, jobs: &[(&str, Strategy)], one_zone: bool) -> Chunk {
    let job = |(index, (nodes, strategy)): (usize, &(&str, Strategy))| ChunkJob {
        job_id: job_id(&(index + 1).to_string()),
        nodes: (*nodes).to_owned(),
        strategy: *strategy,
        spans: false,
    };
    Chunk {
        node_group: NodeGroupName::new("cpu").expect("a name"),
        nodes: nodes.to_owned(),
        jobs: jobs.iter().enumerate().map(job).collect(),
        one_zone,
        tags: std::collections::BTreeMap::new(),
    }
}

fn candidate(instance_type: &str, zone: &str) -> Candidate {
    Candidate {
        instance_type: instance_type.to_owned(),
        subnet_id: format!("subnet-{zone}"),
        zone: zone.to_owned(),
    }
}

fn recipe(capacity: CapacityKind, candidates: &[(&str, &str)]) -> Recipe {
    let candidates = candidates.iter();
    Recipe {
        capacity,
        launch_template_id: "lt-1".to_owned(),
        launch_template_version: "1".to_owned(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        candidates: candidates
            .map(|(instance_type, zone)| candidate(instance_type, zone))
            .collect(),
    }
}

/// Chunks of up to 27 nodes, as the planner makes them: jobs of up to 6 nodes side by side, and nodes of no job behind
/// them. In one zone a gang is alone.
fn any_chunk() -> impl proptest::strategy::Strategy<Value = Chunk> {
    let strategy = proptest::sample::select(vec![
        Strategy::AllOrNothing,
        Strategy::Greedy,
        Strategy::BestEffort,
    ]);
    let jobs = proptest::collection::vec((1_u32..7, strategy), 0..5);
    (jobs, 0_u32..4, proptest::bool::ANY).prop_map(|(mut jobs, mut others, one_zone)| {
        let is_gang = |job: &(u32, Strategy)| job.0 > 1 && job.1 != Strategy::BestEffort;
        if one_zone && let Some(gang) = jobs.iter().find(|job| is_gang(job)) {
            (jobs, others) = (vec![*gang], 0);
        }
        let mut next = 0;
        let mut take = |count: u32| {
            let nodes = (next..next + count).map(|number| format!("n{number:02}"));
            next += count;
            hostlist::fold(nodes)
        };
        let own = |job: &(u32, Strategy)| {
            if is_gang(job) {
                job.1
            } else {
                Strategy::BestEffort
            }
        };
        let jobs: Vec<(String, Strategy)> =
            jobs.iter().map(|job| (take(job.0), own(job))).collect();
        let others = take(others);
        let jobs: Vec<(&str, Strategy)> = jobs.iter().map(|(n, s)| (n.as_str(), *s)).collect();
        let lists = jobs.iter().map(|(nodes, _)| *nodes);
        let all: Vec<NodeName> = lists.chain([others.as_str()]).flat_map(names).collect();
        chunk(&hostlist::fold(&all), &jobs, one_zone)
    })
}
