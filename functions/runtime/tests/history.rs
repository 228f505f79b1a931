//! Batches of the table's changes as `publish` gets them (`events/publish`).

use std::path::Path;

use aws_lambda_events::dynamodb::Event;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::publish::Published;
use spillway_control::tally::Tally;
use spillway_core::name::ClusterName;
use spillway_core::site_event::{Change, Detail};
use spillway_runtime::{Invocation, handle_history};

fn sample(name: &str) -> Event {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../events/publish")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn throttled() -> Fault {
    Fault {
        kind: FaultKind::Throttled,
        service: "events".into(),
        operation: "PutEvents".into(),
        code: "ThrottlingException".to_owned(),
        message: "slowly".to_owned(),
    }
}

/// What `work` was handed, as events, and from which change on the batch is delivered again.
async fn run(
    name: &str,
    answer: impl Fn() -> Result<Option<usize>, Fault>,
) -> (Vec<(String, &'static str)>, Vec<String>) {
    let cluster = ClusterName::new("lab").unwrap();
    let invocation = Invocation {
        function: "publish",
        cluster: &cluster,
        request_id: "of-a-test",
        ends_ms: u64::MAX,
    };
    let seen = std::sync::Mutex::new(Vec::new());
    let work = async |changes: Vec<Change>| {
        let events = changes
            .iter()
            .flat_map(|change| change.events(&cluster, None));
        let said = events.map(|event| {
            let what = match event.detail {
                Detail::Step(step) => format!("{} {}", step.node, step.what.as_str()),
                Detail::Sweep(found) => format!("{:?}: {}", found.what, found.reason),
            };
            (what, event.detail_type.as_str())
        });
        seen.lock().unwrap().extend(said);
        let failed = answer()?.map(|place| (place, throttled()));
        Ok(Published {
            tally: Tally::default(),
            failed,
        })
    };
    let response = handle_history(&invocation, sample(name), work).await;
    let again = response.batch_item_failures.into_iter();
    let again = again.map(|failure| failure.item_identifier.unwrap_or_default());
    let again = again.collect();
    (seen.into_inner().unwrap(), again)
}

fn said(what: &str, detail_type: &'static str) -> (String, &'static str) {
    (what.to_owned(), detail_type)
}

#[tokio::test]
async fn each_new_step_is_an_event() {
    let (events, again) = run("steps.json", || Ok(None)).await;
    let change = "Spillway Node State Change";
    let expected = [
        said("burst-1 resumed", change),
        said("burst-1 launched", change),
        said("burst-2 launched", "Spillway Fallback"),
    ];
    assert_eq!(events, expected);
    assert!(again.is_empty(), "{again:?}");
}

/// What the sweep before it set out to heal is no news, and a report for whoever asked is none at all.
#[tokio::test]
async fn what_the_last_sweep_heals_is_an_event() {
    let (events, again) = run("sweep.json", || Ok(None)).await;
    let orphan = "Orphan: nothing owns i-0123456789abcdef0";
    assert_eq!(events, [said(orphan, "Spillway Sweep Healing")]);
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test]
async fn the_batch_comes_again_from_the_change_that_was_not_published() {
    let (_, again) = run("steps.json", || Ok(Some(1))).await;
    assert_eq!(again, ["4421584500000000017450439102"]);
    let (_, again) = run("steps.json", || Err(throttled())).await;
    assert_eq!(again, ["4421584500000000017450439101"]);
    let (_, again) = run("steps.json", || panic!("by a test")).await;
    assert_eq!(again, ["4421584500000000017450439101"]);
}

/// A place counts the changes that could be read, and names them among all.
#[tokio::test]
async fn what_cannot_be_read_holds_up_nothing() {
    let (events, again) = run("one-unreadable-of-three.json", || Ok(Some(0))).await;
    assert_eq!(
        events,
        [said("burst-1 launched", "Spillway Node State Change")]
    );
    assert_eq!(again, ["4421584500000000017450439107"]);
}
