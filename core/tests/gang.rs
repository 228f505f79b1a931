//! Gangs launched in parts: complete when all parts are there, in whatever order they come, and failed when one is not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use spillway_core::gang::{End, Gang, PART_WAIT_MS, Part, part_name};
use spillway_core::hostlist::Hostlist;
use spillway_core::name::{Generation, NodeName, RequestId};
use spillway_core::pairing::LaunchKey;

const NOW_MS: u64 = 1_700_000_000_000;

fn nodes(expression: &str) -> BTreeSet<NodeName> {
    if expression.is_empty() {
        return BTreeSet::new();
    }
    let list = Hostlist::parse(expression).expect("a hostlist");
    list.node_names().expect("node names").into_iter().collect()
}

fn generation(n: u64) -> Generation {
    Generation::new(n).expect("small numbers are generations")
}

/// The gang with the part `name` of `own` nodes, of a request stamped `stamp`, which awaits `awaited`.
fn with(
    before: Option<Gang>,
    name: &str,
    own: &str,
    awaited: &str,
    stamp: u64,
    now_ms: u64,
) -> Gang {
    Gang::with_part(
        before,
        name,
        nodes(own),
        nodes(awaited),
        generation(stamp),
        now_ms,
    )
}

fn failed(reason: &str) -> End {
    let reason = reason.to_owned();
    End::Failed { reason }
}

fn names(gang: &Gang) -> Vec<&str> {
    gang.parts.keys().map(String::as_str).collect()
}

#[test]
fn a_part_is_named_by_its_launch_and_chunk() {
    let request_id = RequestId::new("r-1").expect("a valid id");
    assert_eq!(
        part_name(
            &LaunchKey {
                request_id,
                part: 2
            },
            3
        ),
        "r-1/2/3"
    );
}

#[test]
fn the_first_part_opens_a_gang() {
    let gang = with(None, "a", "n[1-2]", "n[3-4]", 5, NOW_MS);
    let part = Part {
        nodes: nodes("n[1-2]"),
        is_ready: false,
    };
    let expected = Gang {
        opened: generation(5),
        awaited: nodes("n[3-4]"),
        parts: BTreeMap::from([("a".to_owned(), part)]),
        last_part_ms: NOW_MS,
        end: None,
    };
    assert_eq!(gang, expected);
}

#[test]
fn parts_of_one_request_and_awaited_nodes_belong_to_it() {
    let gang = with(None, "a", "n1", "n[3-4]", 5, NOW_MS);
    let gang = with(Some(gang), "b", "n2", "n[3-4]", 5, NOW_MS + 1);
    assert_eq!(
        (names(&gang), gang.last_part_ms),
        (vec!["a", "b"], NOW_MS + 1)
    );
    // Stamped earlier, though it came later.
    let gang = with(Some(gang), "c", "n3", "n[1-2,4]", 4, NOW_MS + 2);
    assert_eq!(
        (names(&gang), &gang.awaited),
        (vec!["a", "b", "c"], &nodes("n4"))
    );
    let gang = with(Some(gang), "d", "n4", "n[1-3]", 6, NOW_MS + 3);
    assert_eq!(
        (names(&gang), gang.awaited.len()),
        (vec!["a", "b", "c", "d"], 0)
    );
    assert_eq!((gang.opened, gang.end), (generation(5), None));
}

#[test]
fn a_part_that_comes_again_changes_nothing() {
    let mut gang = with(None, "a", "n1", "n2", 5, NOW_MS);
    gang.ready("a");
    assert_eq!(
        with(Some(gang.clone()), "a", "n1", "n2", 5, NOW_MS + 1),
        gang
    );
    gang.fail("why");
    assert_eq!(
        with(Some(gang.clone()), "a", "n1", "n2", 5, NOW_MS + 1),
        gang
    );
}

/// Slurm asks for the same nodes again, for others, or for some that are awaited and others.
#[test]
fn a_requeued_job_opens_a_new_gang() {
    for (own, stamp) in [
        ("n1", 5),
        ("n1", 9),
        ("n7", 9),
        ("n[2,7]", 9),
        ("n[1-2]", 9),
        ("n[1,3]", 5),
    ] {
        let mut first = with(None, "a", "n1", "n2", 5, NOW_MS);
        first.ready("a");
        let gang = with(Some(first), "b", own, "n8", stamp, NOW_MS + 1);
        assert_eq!(
            gang,
            with(None, "b", own, "n8", stamp, NOW_MS + 1),
            "{own} of {stamp}"
        );
    }
}

#[test]
fn an_ended_gang_takes_no_part() {
    let mut complete = with(None, "a", "n1", "", 5, NOW_MS);
    complete.ready("a");
    assert_eq!(complete.end, Some(End::Complete));
    let mut failed = with(None, "a", "n1", "n2", 5, NOW_MS);
    failed.fail("why");
    for before in [complete, failed] {
        for (own, stamp) in [("n2", 5), ("n2", 6)] {
            let gang = with(Some(before.clone()), "b", own, "", stamp, NOW_MS + 1);
            assert_eq!(gang, with(None, "b", own, "", stamp, NOW_MS + 1));
        }
    }
}

#[test]
fn it_is_complete_when_all_parts_are_ready_and_nothing_is_awaited() {
    let mut gang = with(None, "a", "n1", "n2", 5, NOW_MS);
    gang.ready("a");
    assert_eq!(gang.end, None, "n2 is awaited");
    let mut gang = with(Some(gang), "b", "n2", "", 6, NOW_MS);
    gang.ready("a");
    gang.ready("unheard of");
    assert_eq!(gang.end, None, "b is not ready");
    gang.ready("b");
    assert_eq!(gang.end, Some(End::Complete));
    gang.fail("too late");
    gang.look(NOW_MS + 10 * PART_WAIT_MS);
    assert_eq!(gang.end, Some(End::Complete), "what is complete stays so");
}

#[test]
fn a_failed_gang_stays_failed_for_the_first_reason() {
    let mut gang = with(None, "a", "n1", "", 5, NOW_MS);
    gang.fail("first");
    gang.fail("second");
    gang.ready("a");
    gang.look(NOW_MS + 10 * PART_WAIT_MS);
    assert_eq!(gang.end, Some(failed("first")));
}

#[test]
fn a_part_is_awaited_for_a_minute_after_the_last_one() {
    let mut gang = with(None, "a", "n1", "n[2-4]", 5, NOW_MS);
    gang.look(NOW_MS + 59_999);
    assert_eq!(gang.end, None);
    let mut gang = with(Some(gang), "b", "n2", "n[1,3-4]", 6, NOW_MS + 59_999);
    gang.look(NOW_MS + 60_000);
    gang.look(NOW_MS + 119_998);
    assert_eq!(gang.end, None, "the minute began anew");
    gang.look(NOW_MS + 119_999);
    let reason = "spillway: Slurm did not ask for 2 of the job's nodes within 60 s";
    assert_eq!(gang.end, Some(failed(reason)));
}

#[test]
fn parts_that_are_there_take_as_long_as_they_need() {
    let mut gang = with(None, "a", "n1", "", 5, NOW_MS);
    gang.look(NOW_MS + 60 * PART_WAIT_MS);
    assert_eq!(gang.end, None);
}

/// What may happen next to one part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unheard,
    Here,
    Ready,
}

proptest! {
    /// A job's nodes in up to three requests of up to three chunks: its parts come and become ready in any order, some
    /// of them told twice, but no chunk is launched before all chunks of its request were entered.
    #[test]
    fn in_any_order_it_is_complete_when_the_last_part_is(
        sizes in prop::collection::vec(1_usize..4, 1..4),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0_u64..3_000), 20),
    ) {
        let parts: Vec<(usize, String)> = sizes.iter().enumerate().flat_map(|(request, chunks)| {
            (0..*chunks).map(move |chunk| (request, format!("n{request}{chunk}")))
        }).collect();
        let mut stages = vec![Stage::Unheard; parts.len()];
        let mut gang = None;
        let mut now_ms = NOW_MS;
        for (pick, is_told_twice, later_ms) in picks {
            now_ms += later_ms;
            let is_entered = |request| parts.iter().zip(&stages).all(|((of, _), stage)| *of != request || *stage != Stage::Unheard);
            let due: Vec<usize> = (0..parts.len()).filter(|part| match stages[*part] {
                Stage::Unheard => true,
                Stage::Here => is_entered(parts[*part].0),
                Stage::Ready => false,
            }).collect();
            if due.is_empty() {
                break;
            }
            let index = *pick.get(&due);
            let (request, node) = &parts[index];
            for _ in 0..=u8::from(is_told_twice) {
                match stages[index] {
                    Stage::Unheard => {
                        let others = parts.iter().filter(|(of, _)| of != request).map(|(_, node)| node.as_str());
                        let others: Vec<&str> = others.collect();
                        let stamp = 1 + *request as u64;
                        gang = Some(with(gang.take(), node, node, &others.join(","), stamp, now_ms));
                    }
                    _ => gang.as_mut().expect("a gang").ready(node),
                }
            }
            stages[index] = if stages[index] == Stage::Unheard { Stage::Here } else { Stage::Ready };
            let gang = gang.as_mut().expect("a gang");
            gang.look(now_ms);
            let is_complete = stages.iter().all(|stage| *stage == Stage::Ready);
            prop_assert_eq!(&gang.end, &is_complete.then_some(End::Complete));
            prop_assert_eq!(gang.parts.len(), stages.iter().filter(|stage| **stage != Stage::Unheard).count());
            let text = serde_json::to_string(&gang).expect("a record is JSON");
            prop_assert_eq!(&serde_json::from_str::<Gang>(&text).expect("and reads back"), &*gang);
        }
    }
}
