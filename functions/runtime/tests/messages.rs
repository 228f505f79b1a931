//! Batches of messages as Lambda gets them (`events/`): what is carried out, set aside, delivered again.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use serde::de::DeserializeOwned;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::sender::Sender;
use spillway_control::tally::Tally;
use spillway_core::message::{ReportBody, ResumeQueueBody, SuspendCause, SuspendQueueBody};
use spillway_core::name::ClusterName;
use spillway_runtime::{Failure, Invocation, Sent, handle_messages};

fn event(path: &str) -> SqsEvent {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../events")
        .join(path);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn message_id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// What came of a batch.
struct Batch<T> {
    done: Vec<(T, Sent)>,
    set_aside: Vec<(String, String)>,
    again: Vec<String>,
}

/// Runs a batch with a use-case that takes note of what it is given and then does as `result` says.
async fn run<T: DeserializeOwned + Clone>(
    event: SqsEvent,
    ends_ms: u64,
    can_set_aside: bool,
    result: impl Fn(&T) -> Result<Tally, Failure>,
) -> Batch<T> {
    let cluster = ClusterName::new("lab").unwrap();
    let invocation = Invocation {
        function: "test",
        cluster: &cluster,
        request_id: "r-1",
        ends_ms,
    };
    let (done, set_aside) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let quarantine = async |body: &str, reason: &str| {
        if !can_set_aside {
            return Err(Fault {
                kind: FaultKind::Denied,
                service: "sqs".into(),
                operation: "SendMessage".into(),
                code: "AccessDenied".into(),
                message: String::new(),
            });
        }
        set_aside
            .borrow_mut()
            .push((body.to_owned(), reason.to_owned()));
        Ok(())
    };
    let work = async |body: T, sent: Sent| {
        done.borrow_mut().push((body.clone(), sent));
        result(&body)
    };
    let SqsBatchResponse {
        batch_item_failures,
        ..
    } = handle_messages(&invocation, event, quarantine, work).await;
    let again = batch_item_failures
        .into_iter()
        .map(|failure| failure.item_identifier)
        .collect();
    Batch {
        done: done.into_inner(),
        set_aside: set_aside.into_inner(),
        again,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a use-case that succeeds")]
fn fine<T>(_: &T) -> Result<Tally, Failure> {
    Ok(Tally::default())
}

const LONG: u64 = u64::MAX;

#[tokio::test]
async fn a_resume_and_its_timer_reach_launch_with_the_moment_they_were_sent() {
    let batch = run(
        event("launch/resume.json"),
        LONG,
        true,
        fine::<ResumeQueueBody>,
    )
    .await;
    let [(ResumeQueueBody::Resume(request), sent)] = batch.done.as_slice() else {
        panic!("{:?}", batch.done)
    };
    let by_the_head_node = Sent {
        at_ms: 1_790_000_000_250,
        sender_id: "AIDAEXAMPLEHEADNODE12".to_owned(),
    };
    assert_eq!(*sent, by_the_head_node);
    assert_eq!(
        (request.nodes.as_str(), request.jobs.len()),
        ("burst-[1-2],gpu-1", 2)
    );
    let batch = run(
        event("launch/continue.json"),
        LONG,
        true,
        fine::<ResumeQueueBody>,
    )
    .await;
    let [(ResumeQueueBody::Continue(timer), _)] = batch.done.as_slice() else {
        panic!("{:?}", batch.done)
    };
    assert_eq!(timer.attempt, 3);
}

#[tokio::test]
async fn a_malformed_message_and_another_clusters_are_set_aside_and_harm_no_other() {
    let batch = run(
        event("launch/one-malformed-of-four.json"),
        LONG,
        true,
        fine::<ResumeQueueBody>,
    )
    .await;
    assert_eq!(batch.done.len(), 2);
    assert_eq!(batch.again, [""; 0]);
    let [malformed, other] = batch.set_aside.as_slice() else {
        panic!("{:?}", batch.set_aside)
    };
    assert!(
        malformed.0.ends_with(r#""kind":"resume","#),
        "the body is kept word for word: {}",
        malformed.0
    );
    assert!(
        malformed.1.starts_with("message is malformed: EOF"),
        "{}",
        malformed.1
    );
    assert_eq!(other.1, r#"message is for cluster "other", this is "lab""#);
}

#[tokio::test]
async fn what_cannot_be_set_aside_is_delivered_again() {
    let batch = run(
        event("launch/one-malformed-of-four.json"),
        LONG,
        false,
        fine::<ResumeQueueBody>,
    )
    .await;
    let mut again = batch.again;
    again.sort();
    assert_eq!(again, [message_id(2), message_id(3)]);
}

#[tokio::test]
async fn a_lasting_failure_is_set_aside_a_passing_one_and_a_panic_are_delivered_again() {
    let fails = |body: &ReportBody| match body {
        ReportBody::Acknowledge(_) => Err(Failure::Lasting("names no nodes".to_owned())),
        ReportBody::Heartbeat(_) => Err(Failure::Passing("throttled".to_owned())),
        _ => panic!("a bug"),
    };
    let batch = run(event("report/agent.json"), LONG, true, fails).await;
    assert_eq!(batch.set_aside.len(), 1);
    assert_eq!(batch.set_aside[0].1, "names no nodes");
    let mut again = batch.again;
    again.sort();
    assert_eq!(again, [message_id(2), message_id(3)]);
}

#[tokio::test]
async fn nothing_is_begun_when_time_runs_out() {
    let batch = run(event("report/agent.json"), 0, true, fine::<ReportBody>).await;
    assert_eq!(
        (batch.done.len(), batch.set_aside.len(), batch.again.len()),
        (0, 0, 3)
    );
}

#[tokio::test]
async fn what_slurm_suspends_and_what_we_release_reach_terminate() {
    let batch = run(
        event("terminate/suspend.json"),
        LONG,
        true,
        fine::<SuspendQueueBody>,
    )
    .await;
    let [(SuspendQueueBody::Suspend(request), _)] = batch.done.as_slice() else {
        panic!("{:?}", batch.done)
    };
    assert_eq!(request.cause, SuspendCause::Suspend);
    let batch = run(
        event("terminate/release.json"),
        LONG,
        true,
        fine::<SuspendQueueBody>,
    )
    .await;
    let [(SuspendQueueBody::Release(release), _)] = batch.done.as_slice() else {
        panic!("{:?}", batch.done)
    };
    assert_eq!(release.instance_ids.len(), 2);
}

#[tokio::test]
async fn agents_nodes_and_timers_are_understood_by_report() {
    for (path, kinds) in [
        (
            "report/agent.json",
            vec!["Acknowledge", "Heartbeat", "NodeStates"],
        ),
        ("report/nodes.json", vec!["Ready", "Failed"]),
        ("report/timers.json", vec!["Resend", "JoinDeadline"]),
    ] {
        let batch = run(event(path), LONG, true, fine::<ReportBody>).await;
        assert_eq!(batch.set_aside, [], "{path}");
        let shown: Vec<String> = batch
            .done
            .iter()
            .map(|(body, _)| format!("{body:?}"))
            .collect();
        assert_eq!(shown.len(), kinds.len(), "{path}");
        for (body, sent) in &batch.done {
            let sender = Sender::of(&sent.sender_id, "AROAEXAMPLEBURSTNODE1").unwrap();
            sender.may_say(body).unwrap();
        }
        for kind in kinds {
            assert!(
                shown.iter().any(|body| body.starts_with(kind)),
                "{path}: no {kind} in {shown:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_newer_clients_message_says_what_to_update() {
    let batch = run(
        event("report/from-a-newer-client.json"),
        LONG,
        true,
        fine::<ReportBody>,
    )
    .await;
    let [(_, reason)] = batch.set_aside.as_slice() else {
        panic!("{:?}", batch.set_aside)
    };
    assert_eq!(
        reason,
        "message has version 2, this build reads up to 1: update this side first"
    );
}
