//! The launch planner: every accepted node is planned once or refused with a reason, and the same question
//! has the same answer.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::message::RequestJob;
use spillway_core::name::{ClusterName, NodeName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{
    CallPlace, LaunchCall, LaunchPlan, MAX_CHUNK_NODES, Recipe, Refused, refuse_without_policy,
};
use spillway_core::tag;

use super::{job, names, plan_by, policy, policy_with};

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
    plan_by(&policy(), &list.join(","), jobs)
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

#[test]
fn without_a_policy_all_is_refused() {
    let plan = refuse_without_policy(&names("cloud[001-003]"));
    let refused = Refused {
        nodes: "cloud[001-003]".to_owned(),
        reason: "spillway: no policy was pushed (spillway config push)".to_owned(),
        cool_off: None,
    };
    assert_eq!(
        plan,
        LaunchPlan {
            refused: vec![refused],
            ..LaunchPlan::default()
        }
    );
    assert_eq!(refuse_without_policy(&[]), LaunchPlan::default());
}

/// Each kind of capacity in its order, each instance type in each zone, and what the group says of prices.
#[test]
fn recipes_are_the_groups() {
    let changes = [(
        "cost-center = \"4711\" }",
        "cost-center = \"4711\" }\nmax_on_demand_cents_per_hour = 250\non_demand_allocation = \"lowest-price\"",
    )];
    let plan = plan_by(&policy_with(&changes), "cloud001,gpu1", vec![]);
    insta::assert_json_snapshot!("recipes", plan.recipes);
    let watched: Vec<Vec<bool>> = plan
        .recipes
        .values()
        .map(|recipes| recipes.iter().map(Recipe::watches_price).collect())
        .collect();
    assert_eq!(watched, [[false, true], [false, false]], "cpu, gpu");
}

/// The chunk's tags, and those by which the instances of this call are told from all others'.
#[test]
fn a_call_bears_the_tags_it_is_found_by() {
    let mut plan = plan(&known()[..1], Vec::new());
    let chunk = plan.chunks.remove(0);
    let launch = LaunchKey {
        request_id: RequestId::new("r-1").expect("a valid id"),
        part: 2,
    };
    let place = CallPlace {
        launch: &launch,
        chunk: 3,
        attempt: 4,
    };
    let own = [
        (tag::REQUEST, "r-1"),
        (tag::PART, "2"),
        (tag::CHUNK, "3"),
        (tag::ATTEMPT, "4"),
    ];
    let own: BTreeMap<String, String> = own
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(place.tags(), own);
    let recipe = plan.recipes[&chunk.node_group][0].clone();
    let cluster = ClusterName::new("c1").expect("a valid name");
    let call = chunk.call(&cluster, &place, recipe, 5, 6);
    assert_eq!((call.count, call.at_least), (5, 6));
    let all: BTreeMap<String, String> = chunk.tags.into_iter().chain(own).collect();
    assert_eq!(call.tags, all);
}

/// RunInstances takes a single candidate and no price.
#[test]
fn one_candidate_without_a_price_needs_no_fleet() {
    let plan = plan_by(&policy(), "cloud001,gpu1", vec![]);
    let mut calls = plan.chunks.iter().map(|chunk| {
        let launch = LaunchKey {
            request_id: RequestId::new("r-1").expect("a valid id"),
            part: 1,
        };
        let place = CallPlace {
            launch: &launch,
            chunk: 0,
            attempt: 1,
        };
        let recipe = plan.recipes[&chunk.node_group][1].clone();
        let cluster = ClusterName::new("c1").expect("a valid name");
        chunk.call(&cluster, &place, recipe, 1, 1)
    });
    let (fleet, mut single) = (calls.next().expect("cpu"), calls.next().expect("gpu"));
    assert_eq!(fleet.only_candidate(), None);
    assert_eq!(single.only_candidate(), Some(&single.recipe.candidates[0]));
    single.recipe.max_on_demand_cents_per_hour = Some(250);
    assert_eq!(single.only_candidate(), None);
    let mut text: serde_json::Value = serde_json::to_value(&single).expect("a call is JSON");
    text.as_object_mut().expect("an object").remove("at_least");
    let old: LaunchCall = serde_json::from_value(text).expect("a call");
    assert_eq!(old.at_least, 1, "of a call stored before there was a least");
}
