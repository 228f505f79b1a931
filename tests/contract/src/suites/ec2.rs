//! What EC2 promises, as far as a launch hangs on it.

use std::collections::{BTreeMap, BTreeSet};

use spillway_control::fault::FaultKind;
use spillway_control::ports::{Clock, Ec2, InstanceSeen};
use spillway_control::record::LaunchAnswer;
use spillway_core::config::{CapacityKind, OnDemandAllocation};
use spillway_core::name::{InstanceId, NodeGroupName, RequestId};
use spillway_core::plan::{Candidate, LaunchCall, Recipe};
use spillway_core::tag;
use spillway_world::ec2::{CapacityKind as Kind, Ec2 as Model, Pool, Settings, TokenReplay};

use super::promises;
use crate::sample::instance;

/// Far more than any call here needs.
const LIMIT_MS: u64 = 15_000;
/// How long EC2 does not show what is new, where a promise is about that.
const HIDDEN_MS: u64 = 2_000;

const TYPES: [&str; 2] = ["c7i.large", "m7i.large"];
const PLACES: [(&str, &str); 2] = [("subnet-a", "us-east-1a"), ("subnet-b", "us-east-1b")];

/// The model behind it: how much capacity there is, and how it takes what AWS does not document.
pub trait Behind {
    /// Works on it.
    fn with<R>(&self, act: impl FnOnce(&mut Model) -> R) -> R;
}

/// All of it, on the EC2 of a calm world ([`spillway_world::sim::calm_ec2`]).
pub async fn suite<W: Ec2 + Behind + Clock>(world: &W) {
    world.with(|ec2| ec2.settings = settings());
    promises!(
        all_are_launched_and_found_by_their_tags,
        a_shortage_names_its_candidate,
        what_is_there_is_launched_of_a_single_candidate,
        fewer_than_enough_are_not_launched_at_all,
        a_token_is_one_launch_however_its_repetition_is_answered,
        another_call_under_a_token_is_a_conflict,
        what_is_terminated_is_found_and_is_terminated_once_more,
        what_ec2_does_not_know_is_told_apart,
        what_ec2_does_not_show_yet_is_unknown,
        tags_are_set_and_found,
        what_fails_its_status_checks_is_found,
        a_console_can_be_read,
        those_of_a_reservation_are_found_by_their_tags_too,
        more_than_a_page_is_found => world
    );
}

fn settings() -> Settings {
    Settings {
        pending_ms: 200,
        shutting_down_ms: 200,
        throttling: false,
        ..Settings::default()
    }
}

fn candidates(types: usize, places: usize) -> Vec<Candidate> {
    let of_type = |name: &'static str| {
        PLACES[..places]
            .iter()
            .map(move |(subnet, zone)| Candidate {
                instance_type: name.to_owned(),
                subnet_id: (*subnet).to_owned(),
                zone: (*zone).to_owned(),
            })
    };
    TYPES[..types].iter().copied().flat_map(of_type).collect()
}

/// `token` is the launch's request too.
fn call(token: &str, count: u32, candidates: Vec<Candidate>) -> LaunchCall {
    let recipe = Recipe {
        capacity: CapacityKind::OnDemand,
        launch_template_id: "lt-1".to_owned(),
        launch_template_version: "1".to_owned(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        candidates,
    };
    LaunchCall {
        client_token: token.to_owned(),
        count,
        at_least: 1,
        recipe,
        tags: tags([
            (tag::CLUSTER, "lab"),
            (tag::NODE_GROUP, "a"),
            (tag::REQUEST, token),
            (tag::PART, "1"),
            (tag::CHUNK, "0"),
            (tag::ATTEMPT, "1"),
        ]),
    }
}

fn tags<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

async fn launch<W: Ec2>(world: &W, call: &LaunchCall) -> LaunchAnswer {
    let answer = world.launch(call, LIMIT_MS).await;
    answer.expect("EC2 launches")
}

async fn found<W: Ec2>(world: &W, tags: &BTreeMap<String, String>) -> Vec<InstanceSeen> {
    let mut found = world.find(tags).await.expect("EC2 looks");
    found.sort_by(|one, other| one.instance_id.cmp(&other.instance_id));
    found
}

fn ids(seen: &[InstanceSeen]) -> Vec<InstanceId> {
    seen.iter().map(|seen| seen.instance_id.clone()).collect()
}

fn sorted(ids: &[InstanceId]) -> Vec<InstanceId> {
    let distinct: BTreeSet<InstanceId> = ids.iter().cloned().collect();
    distinct.into_iter().collect()
}

/// EC2 has room for so many of each candidate, for as many as there are numbers, and for none of the others.
fn limit<W: Behind>(world: &W, room: &[u32]) {
    for (index, candidate) in candidates(2, 2).into_iter().enumerate() {
        set_free(
            world,
            candidate,
            Some(room.get(index).copied().unwrap_or(0)),
        );
    }
}

fn lift<W: Behind>(world: &W) {
    for candidate in candidates(2, 2) {
        set_free(world, candidate, None);
    }
}

fn set_free<W: Behind>(world: &W, candidate: Candidate, free: Option<u32>) {
    let pool = Pool {
        kind: Kind::OnDemand,
        instance_type: candidate.instance_type,
        availability_zone: candidate.zone,
    };
    world.with(|ec2| ec2.set_free_capacity(pool, free));
}

async fn all_are_launched_and_found_by_their_tags<W: Ec2 + Behind>(world: &W) {
    for (token, candidates) in [
        ("all-of-one-candidate", candidates(1, 1)),
        ("all-of-four-candidates", candidates(2, 2)),
    ] {
        let call = call(token, 3, candidates);
        let answer = launch(world, &call).await;
        assert_eq!(sorted(&answer.instances).len(), 3);
        assert_eq!(answer.shortages, []);
        assert_eq!(answer.launched_in, call.recipe.candidates[..1]);
        let seen = found(world, &call.tags).await;
        assert_eq!(ids(&seen), sorted(&answer.instances));
        for seen in &seen {
            assert!(seen.is_alive() && seen.address.is_some(), "{seen:?}");
            let place = (seen.instance_type.as_str(), seen.zone.as_str());
            assert_eq!(place, (TYPES[0], PLACES[0].1));
            let origin = seen.origin.clone().expect("an origin");
            assert_eq!(
                origin.launch.request_id,
                RequestId::new(token).expect("an id")
            );
            assert_eq!(origin.launch.part, 1);
            assert_eq!(origin.node_group, NodeGroupName::new("a").expect("a name"));
        }
    }
    // All of the tags, not one of them.
    let mut tags = call("all-of-one-candidate", 3, Vec::new()).tags;
    tags.insert(tag::CHUNK.to_owned(), "7".to_owned());
    assert_eq!(found(world, &tags).await, []);
}

async fn a_shortage_names_its_candidate<W: Ec2 + Behind>(world: &W) {
    limit(world, &[1, 0, 1]);
    let call = call("a-shortage-of-four", 5, candidates(2, 2));
    let answer = launch(world, &call).await;
    assert_eq!(answer.instances.len(), 2);
    let of = |index: usize| call.recipe.candidates[index].clone();
    let launched_in: BTreeSet<Candidate> = answer.launched_in.into_iter().collect();
    assert_eq!(launched_in, BTreeSet::from([of(0), of(2)]));
    let mut named = Vec::new();
    for shortage in answer.shortages {
        let kind = shortage.fault.kind;
        assert!(matches!(kind, FaultKind::Unfulfillable(_)), "{kind}");
        named.push(shortage.candidate.expect("a candidate"));
    }
    named.sort();
    let mut all = call.recipe.candidates.clone();
    all.sort();
    assert_eq!(named, all, "each is short, and is named once");
    assert_eq!(found(world, &call.tags).await.len(), 2);
    lift(world);
}

async fn what_is_there_is_launched_of_a_single_candidate<W: Ec2 + Behind>(world: &W) {
    limit(world, &[2]);
    let call = call("two-of-a-single-one", 5, candidates(1, 1));
    let answer = launch(world, &call).await;
    assert_eq!(answer.instances.len(), 2);
    assert_eq!(found(world, &call.tags).await.len(), 2);
    lift(world);
}

async fn fewer_than_enough_are_not_launched_at_all<W: Ec2 + Behind>(world: &W) {
    limit(world, &[2, 2]);
    for (token, candidates) in [
        ("not-enough-in-one-place", candidates(1, 1)),
        ("not-enough-in-one-zone", candidates(2, 1)),
        ("not-enough-of-one-type", candidates(1, 2)),
    ] {
        let call = LaunchCall {
            at_least: 5,
            ..call(token, 5, candidates)
        };
        match world.launch(&call, LIMIT_MS).await {
            Ok(answer) => {
                assert_eq!(answer.instances, [], "{token}");
                let kinds = answer.shortages.iter().map(|shortage| shortage.fault.kind);
                let kinds: Vec<FaultKind> = kinds.collect();
                let is_short = |kind: &FaultKind| matches!(kind, FaultKind::Unfulfillable(_));
                assert!(!kinds.is_empty() && kinds.iter().all(is_short), "{kinds:?}");
            }
            Err(fault) => {
                assert!(matches!(fault.kind, FaultKind::Unfulfillable(_)), "{fault}");
            }
        }
        assert_eq!(found(world, &call.tags).await, [], "{token}");
    }
    lift(world);
}

async fn a_token_is_one_launch_however_its_repetition_is_answered<W: Ec2 + Behind>(world: &W) {
    for (number, token_replay) in [
        TokenReplay::FirstAnswer,
        TokenReplay::FleetWithoutInstances,
        TokenReplay::Mismatch,
    ]
    .into_iter()
    .enumerate()
    {
        world.with(|ec2| ec2.settings.token_replay = token_replay);
        for places in [1, 2] {
            let token = format!("a-token-{number}-{places}");
            let call = call(&token, 2, candidates(1, places));
            let first = sorted(&launch(world, &call).await.instances);
            match (token_replay, world.launch(&call, LIMIT_MS).await) {
                (TokenReplay::Mismatch, Err(fault)) => {
                    assert_eq!(fault.kind, FaultKind::Conflict);
                }
                (TokenReplay::FleetWithoutInstances, Ok(again)) if places > 1 => {
                    assert_eq!(again, LaunchAnswer::default());
                }
                (_, again) => {
                    let again = again.expect("the first answer once more");
                    assert_eq!(sorted(&again.instances), first);
                }
            }
            assert_eq!(ids(&found(world, &call.tags).await), first);
        }
    }
    world.with(|ec2| ec2.settings = settings());
}

async fn another_call_under_a_token_is_a_conflict<W: Ec2>(world: &W) {
    for places in [1, 2] {
        let token = format!("another-call-{places}");
        let first = call(&token, 2, candidates(1, places));
        launch(world, &first).await;
        let other = LaunchCall {
            count: 3,
            ..first.clone()
        };
        let fault = world.launch(&other, LIMIT_MS).await;
        let fault = fault.expect_err("the token is another call's");
        assert_eq!(fault.kind, FaultKind::Conflict, "{fault}");
        assert_eq!(found(world, &first.tags).await.len(), 2);
    }
}

async fn what_is_terminated_is_found_and_is_terminated_once_more<W: Ec2 + Clock>(world: &W) {
    let call = call("to-be-terminated", 3, candidates(1, 1));
    let all = sorted(&launch(world, &call).await.instances);
    for wait_ms in [0, 1_000] {
        world.sleep_ms(wait_ms).await;
        let terminated = world.terminate(&all[..2]).await;
        assert_eq!(sorted(&terminated.done), all[..2]);
        assert_eq!((terminated.unknown, terminated.fault), (Vec::new(), None));
    }
    let seen = found(world, &call.tags).await;
    assert_eq!(ids(&seen), all);
    assert!(seen[..2].iter().all(InstanceSeen::is_ended), "{seen:?}");
    assert_eq!(seen[0].state, "terminated");
    let why = seen[0].state_reason.as_deref();
    let words = "Client.UserInitiatedShutdown: User initiated shutdown";
    assert_eq!(why, Some(words));
    assert_eq!(seen[2].state_reason, None);
    assert!(seen[2].is_alive(), "{seen:?}");
    let nothing = world.terminate(&[]).await;
    assert_eq!((nothing.done, nothing.fault), (Vec::new(), None));
}

async fn what_ec2_does_not_know_is_told_apart<W: Ec2>(world: &W) {
    let call = call("some-are-unknown", 3, candidates(1, 1));
    let known = sorted(&launch(world, &call).await.instances);
    let strangers = [901, 902].map(instance);
    let asked = [&known[..1], &strangers[..1], &known[1..], &strangers[1..]].concat();
    let terminated = world.terminate(&asked).await;
    assert_eq!(sorted(&terminated.done), known);
    assert_eq!(sorted(&terminated.unknown), strangers);
    assert_eq!(terminated.fault, None);
    let seen = found(world, &call.tags).await;
    assert!(seen.iter().all(InstanceSeen::is_ended), "{seen:?}");
}

async fn what_ec2_does_not_show_yet_is_unknown<W: Ec2 + Behind + Clock>(world: &W) {
    world.with(|ec2| ec2.settings.visibility_delay_ms = HIDDEN_MS);
    let call = call("not-shown-yet", 2, candidates(1, 1));
    let new = sorted(&launch(world, &call).await.instances);
    assert_eq!(found(world, &call.tags).await, []);
    let terminated = world.terminate(&new).await;
    assert_eq!((terminated.done, terminated.fault), (Vec::new(), None));
    assert_eq!(sorted(&terminated.unknown), new);
    world.sleep_ms(HIDDEN_MS + 500).await;
    let seen = found(world, &call.tags).await;
    assert_eq!(ids(&seen), new);
    assert!(seen.iter().all(InstanceSeen::is_alive), "{seen:?}");
    let terminated = world.terminate(&new).await;
    assert_eq!(sorted(&terminated.done), new);
    world.with(|ec2| ec2.settings = settings());
}

async fn tags_are_set_and_found<W: Ec2>(world: &W) {
    let call = call("to-be-tagged", 2, candidates(1, 1));
    let all = sorted(&launch(world, &call).await.instances);
    let name = tags([(tag::NAME, "burst-1"), (tag::CHUNK, "1")]);
    world.tag(&all[..1], &name).await.expect("EC2 tags");
    assert_eq!(ids(&found(world, &name).await), all[..1]);
    assert_eq!(ids(&found(world, &call.tags).await), all[1..]);
    let stranger = world.tag(&[instance(901)], &name).await;
    let fault = stranger.expect_err("there is no such instance");
    assert_eq!(fault.kind, FaultKind::NotFound, "{fault}");
}

async fn what_fails_its_status_checks_is_found<W: Ec2 + Behind + Clock>(world: &W) {
    let call = call("impaired", 2, candidates(1, 1));
    let all = sorted(&launch(world, &call).await.instances);
    world.with(|ec2| {
        ec2.settings.status_checks_ms = 0;
        ec2.set_impaired(all[1].as_str(), true);
    });
    // Only what runs is checked.
    world.sleep_ms(500).await;
    let impaired = async || world.impaired().await.expect("an answer");
    assert_eq!(sorted(&impaired().await), all[1..]);
    world.with(|ec2| ec2.set_impaired(all[1].as_str(), false));
    assert_eq!(impaired().await, []);
    world.with(|ec2| ec2.settings = settings());
}

async fn a_console_can_be_read<W: Ec2 + Behind>(world: &W) {
    let call = call("console", 1, candidates(1, 1));
    let all = launch(world, &call).await.instances;
    let console = async || world.console(&all[0]).await;
    assert_eq!(console().await.expect("an answer"), "");
    let text = "booting\nslurmd: error: münge\n";
    world.with(|ec2| ec2.append_console(all[0].as_str(), text));
    assert_eq!(console().await.expect("an answer"), text);
    let stranger = world.console(&instance(901)).await;
    let fault = stranger.expect_err("there is no such instance");
    assert_eq!(fault.kind, FaultKind::NotFound, "{fault}");
}

async fn those_of_a_reservation_are_found_by_their_tags_too<W: Ec2 + Behind>(world: &W) {
    const RESERVATION: &str = "cr-00000000000000001";
    let ours = launch(world, &call("reserved", 2, candidates(1, 1))).await;
    let theirs = launch(world, &call("theirs", 1, candidates(1, 1))).await;
    let [inside, _outside] = ours.instances.as_slice() else {
        panic!("{ours:?}")
    };
    world.with(|ec2| {
        for id in [inside, &theirs.instances[0]] {
            ec2.place_in_reservation(id.as_str(), RESERVATION);
        }
    });
    let tags = tags([(tag::REQUEST, "reserved")]);
    let found = world.find_in_reservation(RESERVATION, &tags).await;
    let found = found.expect("EC2 looks");
    assert_eq!(ids(&found), std::slice::from_ref(inside));
    let none = world
        .find_in_reservation("cr-00000000000000002", &tags)
        .await;
    assert_eq!(none, Ok(Vec::new()));
}

async fn more_than_a_page_is_found<W: Ec2 + Behind>(world: &W) {
    /// DescribeInstances shows 1,000 at a time.
    const EACH: u32 = 600;
    let mut all = Vec::new();
    for token in ["a-page-and-more-1", "a-page-and-more-2"] {
        let mut call = call(token, EACH, candidates(1, 1));
        call.tags.insert(tag::JOB.to_owned(), "4711".to_owned());
        all.extend(launch(world, &call).await.instances);
    }
    let seen = found(world, &tags([(tag::JOB, "4711")])).await;
    assert_eq!(seen.len(), 1_200);
    assert_eq!(ids(&seen), sorted(&all));
}
