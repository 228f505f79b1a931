//! The launch planner: every accepted node is planned once or refused with a reason, and the same question
//! has the same answer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::config::{Policy, Site};
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{RequestJob, ResumeRequest};
use spillway_core::name::{ClusterName, Generation, JobId, NodeName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{CallPlace, LaunchPlan, MAX_CHUNK_NODES, plan_launch};
use spillway_core::tag;

const SITE: &str = include_str!("../../infra/examples/spillway.toml");

fn policy() -> Policy {
    Site::parse(SITE, "spillway.toml")
        .expect("the example is valid")
        .policy
}

fn request(nodes: &str, jobs: Vec<RequestJob>) -> ResumeRequest {
    ResumeRequest {
        request_id: RequestId::new("r-1").expect("a valid id"),
        generation: Generation::new(1_700_000_000_000_000).expect("a valid stamp"),
        part: 1,
        parts: 1,
        deadline_ms: 1_700_000_600_000,
        nodes: nodes.to_owned(),
        jobs,
    }
}

fn job(id: &str, nodes: &str) -> RequestJob {
    RequestJob {
        job_id: JobId::new(id).expect("a valid id"),
        nodes_resume: nodes.to_owned(),
        nodes_alloc: None,
        partition: None,
        features: None,
        user: Some("ada".to_owned()),
        account: Some("physics & co".to_owned()),
    }
}

fn names(expression: &str) -> Vec<NodeName> {
    Hostlist::parse(expression)
        .expect("a hostlist")
        .node_names()
        .expect("node names")
}

/// All nodes of the example's policy, group by group.
fn known() -> Vec<NodeName> {
    policy()
        .node_groups
        .iter()
        .flat_map(|group| names(&group.nodes.to_string()))
        .collect()
}

fn plan(nodes: &[NodeName], jobs: Vec<RequestJob>) -> LaunchPlan {
    let list: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    plan_launch(
        &request(&list.join(","), jobs),
        nodes,
        &policy(),
        &BTreeSet::new(),
    )
}

proptest! {
    #[test]
    fn every_node_is_planned_or_refused_once(
        picked in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
        strangers in 0_u32..5,
    ) {
        let known = known();
        let mut nodes: Vec<NodeName> = picked.iter().map(|index| index.get(&known).clone()).collect();
        nodes.extend((0..strangers).map(|n| NodeName::new(format!("stranger-{n}")).expect("a name")));
        let plan = plan(&nodes, Vec::new());
        let planned: Vec<NodeName> = plan.chunks.iter().flat_map(|chunk| names(&chunk.nodes)).collect();
        let refused: Vec<NodeName> = plan.refused.iter().flat_map(|refused| names(&refused.nodes)).collect();
        prop_assert_eq!(refused.len(), strangers as usize);
        let all: BTreeSet<&NodeName> = planned.iter().chain(&refused).collect();
        prop_assert_eq!(all.len(), planned.len() + refused.len(), "a node was planned twice");
        prop_assert_eq!(all, nodes.iter().collect::<BTreeSet<_>>());
        let policy = policy();
        for chunk in &plan.chunks {
            let members = names(&chunk.nodes);
            prop_assert!(members.len() <= MAX_CHUNK_NODES);
            for node in &members {
                prop_assert_eq!(&policy.group_of(node).expect("a known node").name, &chunk.node_group);
            }
            prop_assert!(!plan.recipes[&chunk.node_group].is_empty());
        }
    }

    #[test]
    fn no_two_calls_share_a_token(
        places in prop::collection::hash_set(("[a-z0-9-]{1,64}", 1_u32..50, 0_u32..50, 1_u32..40), 2..50)
    ) {
        let mut plan = plan(&known()[..1], Vec::new());
        let chunk = plan.chunks.remove(0);
        let recipe = &plan.recipes[&chunk.node_group][0];
        let cluster = ClusterName::new("c1").expect("a valid name");
        let mut tokens = BTreeSet::new();
        for (request_id, part, index, attempt) in &places {
            let launch = LaunchKey { request_id: RequestId::new(request_id.clone()).expect("a valid id"), part: *part };
            let place = CallPlace { launch: &launch, chunk: *index, attempt: *attempt };
            let call = chunk.call(&cluster, &place, recipe.clone(), 1, 1);
            prop_assert!(call.client_token.len() <= 64 && call.client_token.is_ascii());
            prop_assert_eq!(&call.client_token, &chunk.call(&cluster, &place, recipe.clone(), 1, 1).client_token);
            for (key, value) in place.tags() {
                prop_assert_eq!(call.tags.get(&key), Some(&value), "the call bears the tags it is found by");
            }
            tokens.insert(call.client_token);
        }
        prop_assert_eq!(tokens.len(), places.len());
    }
}

#[test]
fn tags_of_the_job_only_where_all_nodes_serve_it() {
    let nodes = &known()[..2];
    let both = format!("{},{}", nodes[0], nodes[1]);
    let tags = |jobs| plan(nodes, jobs).chunks.remove(0).tags;
    let get = |tags: &BTreeMap<String, String>, key: &str| tags.get(key).cloned();

    let one = tags(vec![job("7", &both)]);
    assert_eq!(get(&one, tag::JOB).as_deref(), Some("7"));
    assert_eq!(get(&one, tag::USER).as_deref(), Some("ada"));
    assert_eq!(
        get(&one, tag::ACCOUNT).as_deref(),
        Some("physics _ co"),
        "what a tag may not hold is replaced"
    );
    let apart = tags(vec![
        job("7", nodes[0].as_str()),
        job("8", nodes[1].as_str()),
    ]);
    assert_eq!(get(&apart, tag::JOB), None);
    let shared = tags(vec![job("7", &both), job("8", nodes[1].as_str())]);
    assert_eq!(get(&shared, tag::JOB), None);
    assert_eq!(get(&tags(Vec::new()), tag::JOB), None, "nodes of no job");
    assert_eq!(get(&one, tag::NAME), None, "two nodes cannot share a name");
    let single = plan(&nodes[..1], Vec::new()).chunks.remove(0).tags;
    assert_eq!(get(&single, tag::NAME).as_deref(), Some(nodes[0].as_str()));
}

#[test]
fn a_call_stays_the_same_when_the_policy_changes() {
    let before = plan(&known()[..1], Vec::new());
    let stored = serde_json::to_string(&before).expect("a plan is JSON");
    let after: LaunchPlan = serde_json::from_str(&stored).expect("and reads back");
    assert_eq!(before, after);
}
