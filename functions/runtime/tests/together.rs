//! Batches that are carried out together: what cannot be read is set aside, what cannot be carried out fails alone.

use std::cell::RefCell;

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::tally::{INSTANCES_GONE, Tally};
use spillway_core::name::ClusterName;
use spillway_runtime::{Invocation, handle_together};

/// What came of a batch.
#[derive(Debug, Default, PartialEq)]
struct Came {
    /// Each call of the use-case.
    calls: Vec<Vec<u32>>,
    set_aside: Vec<(String, String)>,
    again: Vec<String>,
}

fn fault() -> Fault {
    Fault {
        kind: FaultKind::Transient,
        service: "dynamodb".into(),
        operation: "BatchGetItem".into(),
        code: "ServiceUnavailable".into(),
        message: String::new(),
    }
}

fn event(bodies: &[&str]) -> SqsEvent {
    let mut event = SqsEvent::default();
    for (index, body) in bodies.iter().enumerate() {
        let mut record = SqsMessage::default();
        record.message_id = Some(format!("m{index}"));
        record.body = Some((*body).to_owned());
        event.records.push(record);
    }
    event
}

/// Messages are numbers; the use-case fails where 13 is among them, and panics at 14.
async fn run(bodies: &[&str], ends_ms: u64) -> Came {
    let cluster = ClusterName::new("lab").unwrap();
    let invocation = Invocation {
        function: "test",
        cluster: &cluster,
        request_id: "r-1",
        ends_ms,
    };
    let came = RefCell::new(Came::default());
    let quarantine = async |body: &str, reason: &str| {
        let letter = (body.to_owned(), reason.to_owned());
        came.borrow_mut().set_aside.push(letter);
        Ok(())
    };
    let work = async |batch: Vec<u32>| {
        came.borrow_mut().calls.push(batch.clone());
        assert!(!batch.contains(&14), "fourteen");
        if batch.contains(&13) {
            return Err(fault());
        }
        let mut tally = Tally::default();
        tally.add(INSTANCES_GONE, batch.len());
        Ok(tally)
    };
    let read = |text: &str| text.parse::<u32>();
    let response = handle_together(&invocation, event(bodies), quarantine, read, work).await;
    let failures = response.batch_item_failures.into_iter();
    let again = failures.map(|failure| failure.item_identifier).collect();
    Came {
        again,
        ..came.into_inner()
    }
}

#[tokio::test]
async fn a_batch_is_carried_out_as_a_whole() {
    let came = run(&["1", "2", "3"], u64::MAX).await;
    assert_eq!(came.calls, [[1, 2, 3]]);
    assert_eq!((came.set_aside, came.again), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_with_its_reason() {
    let came = run(&["1", "two", "3"], u64::MAX).await;
    assert_eq!(came.calls, [[1, 3]]);
    let reason = "invalid digit found in string".to_owned();
    assert_eq!(came.set_aside, [("two".to_owned(), reason)]);
    assert!(came.again.is_empty());
    let came = run(&["two"], u64::MAX).await;
    assert!(came.calls.is_empty(), "there is nothing to do");
}

#[tokio::test]
async fn what_fails_or_panics_fails_alone() {
    let came = run(&["1", "13", "3", "14"], u64::MAX).await;
    let alone = [vec![1, 13, 3, 14], vec![1], vec![13], vec![3], vec![14]];
    assert_eq!(came.calls, alone);
    assert_eq!(came.again, ["m1", "m3"]);
    assert!(came.set_aside.is_empty());
    // One that was alone is not tried twice.
    assert_eq!(run(&["13"], u64::MAX).await.calls, [[13]]);
}

#[tokio::test]
async fn without_time_the_rest_is_left_for_another_invocation() {
    let came = run(&["1", "13"], 0).await;
    assert_eq!(came.calls, [[1, 13]]);
    assert_eq!(came.again, ["m0", "m1"]);
}
