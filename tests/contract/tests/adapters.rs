//! The adapters on the emulator, with calls refused, answers lost and changed on the way, and what only DynamoDB and SQS
//! are: what items look like, and how much they take.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use spillway_contract::Place;
use spillway_contract::emulator::EmulatedBus;
use spillway_contract::sample::{
    DEADLINE_MS, NOW_MS, admit, generation, instance, launch_key, launched, node, pair,
};
use spillway_contract::suites::events;
use spillway_control::fault::FaultKind;
use spillway_control::ports::{EventBus, Table};
use spillway_control::record::{NodeStatesRecord, RequestRecord};
use spillway_control::shared::ONLY;
use spillway_core::message::{NodesInState, ResumeRequest};
use spillway_core::name::RequestId;
use spillway_core::site_event::Detail;
use spillway_core::usage::Usage;
use spillway_lab::faults::{Action, Fault};

fn fault(service: &str, operation: &str, action: Action) -> Fault {
    Fault {
        id: None,
        service: service.to_owned(),
        operation: Some(operation.to_owned()),
        principal: None,
        body_contains: None,
        times: Some(1),
        action,
    }
}

fn arm(place: &Place, fault: Fault) -> String {
    place.cloud.proxy.faults().arm(fault).unwrap()
}

fn fired(place: &Place, id: &str) -> u64 {
    place.cloud.proxy.faults().fired(id)
}

#[tokio::test]
async fn items_look_as_burst_nodes_and_people_read_them() {
    let place = Place::start().await;
    assert_eq!(
        place.table.write_pairings(&[pair(1, 0)]).await.unwrap(),
        [true]
    );
    let read = async |key: String| {
        let call = place
            .dynamo
            .get_item()
            .table_name("lab-state")
            .key("pk", AttributeValue::S(key));
        call.send().await.unwrap().item.unwrap()
    };
    let item = read("NODE#lab#burst-1".to_owned()).await;
    let text = |name: &str| item[name].as_s().unwrap().as_str();
    assert_eq!(
        (text("kind"), text("node"), text("state")),
        ("node", "burst-1", "launched")
    );
    assert_eq!(
        (text("instance_id"), text("address")),
        (instance(1).as_str(), "10.0.0.1")
    );
    assert_eq!(
        item["generation"].as_n().unwrap(),
        &generation(1).to_string()
    );
    assert_eq!(
        item["update_due"].as_m().unwrap()["number"].as_n().unwrap(),
        "1"
    );
    assert!(text("due_shard").starts_with("DUE#lab#"));

    assert_eq!(
        place.table.write_pairings(&[admit(1, 1)]).await.unwrap(),
        [true]
    );
    let item = read("NODE#lab#burst-1".to_owned()).await;
    assert!(
        !item.contains_key("update_due")
            && !item.contains_key("due_shard")
            && !item.contains_key("due_at_ms")
    );
    let item = read(format!(
        "arn:aws:ec2:us-east-1:000000000000:instance/{}",
        instance(1)
    ))
    .await;
    let text = |name: &str| item[name].as_s().unwrap().as_str();
    assert_eq!(
        (text("kind"), text("state"), text("node")),
        ("instance", "paired", "burst-1")
    );
    assert_eq!(
        item["acknowledged_generation"].as_n().unwrap(),
        &generation(1).to_string()
    );
    assert_eq!(
        item["deadline_ms"].as_n().unwrap(),
        &DEADLINE_MS.to_string()
    );
    place.cloud.stop().await;
}

#[tokio::test]
async fn conflicts_and_lost_answers_and_half_read_batches_are_seen_through() {
    let place = Place::start().await;
    let table = &place.table;
    assert_eq!(table.write_pairings(&[pair(1, 0)]).await.unwrap(), [true]);
    // A conflict says nothing of the version: the write is tried again, and only then found to be late.
    let replace = Action::Replace {
        from: "ConditionalCheckFailed".into(),
        to: "TransactionConflict".into(),
    };
    let conflict = arm(&place, fault("dynamodb", "TransactWriteItems", replace));
    assert_eq!(
        table
            .write_pairings(&[pair(1, 0), pair(2, 0)])
            .await
            .unwrap(),
        [false, true]
    );
    assert_eq!(fired(&place, &conflict), 1);
    // Done, but the answer is lost: the SDK repeats the call, and it is not done twice.
    let lost = arm(
        &place,
        fault("dynamodb", "TransactWriteItems", Action::LoseAnswer {}),
    );
    assert_eq!(table.write_pairings(&[pair(3, 0)]).await.unwrap(), [true]);
    assert_eq!(fired(&place, &lost), 1);
    // DynamoDB may answer a part of a batch.
    let left = r#"{"Responses":{},"UnprocessedKeys":{"lab-state":{"ConsistentRead":true,"Keys":[{"pk":{"S":"NODE#lab#burst-3"}}]}}}"#;
    let replace = Action::Replace {
        from: r"(?s)\A.*\z".into(),
        to: left.into(),
    };
    let half = arm(&place, fault("dynamodb", "BatchGetItem", replace));
    assert_eq!(
        table.pairings(&[node(3)]).await.unwrap()[0].record,
        launched(3)
    );
    assert_eq!(fired(&place, &half), 1);
    place.cloud.stop().await;
}

#[tokio::test]
async fn a_call_refused_is_a_fault_of_its_class() {
    let place = Place::start().await;
    for (code, status, kind) in [
        ("AccessDeniedException", 400, FaultKind::Denied),
        ("ResourceNotFoundException", 400, FaultKind::NotFound),
        ("ValidationException", 400, FaultKind::Invalid),
    ] {
        let refuse = Action::Refuse {
            status,
            code: code.to_owned(),
            message: "no".to_owned(),
        };
        arm(&place, fault("dynamodb", "GetItem", refuse));
        let fault = place.table.heartbeat().await.unwrap_err();
        assert_eq!(
            (fault.kind, fault.code.as_str(), &*fault.operation),
            (kind, code, "GetItem")
        );
    }
    // Throttled twice, the SDK's third try succeeds.
    let refuse = Action::Refuse {
        status: 400,
        code: "ThrottlingException".into(),
        message: String::new(),
    };
    let throttled = arm(
        &place,
        Fault {
            times: Some(2),
            ..fault("dynamodb", "GetItem", refuse)
        },
    );
    assert_eq!(place.table.heartbeat().await.unwrap(), None);
    assert_eq!(fired(&place, &throttled), 2);
    place.cloud.stop().await;
}

fn request_record() -> RequestRecord {
    let request = ResumeRequest {
        request_id: RequestId::new("request-1").unwrap(),
        generation: generation(1),
        part: 1,
        parts: 1,
        deadline_ms: DEADLINE_MS,
        nodes: "burst-[1-2]".to_owned(),
        jobs: Vec::new(),
    };
    RequestRecord {
        request,
        plan: None,
        lease_until_ms: NOW_MS,
        done: false,
        launched: BTreeMap::new(),
    }
}

#[tokio::test]
async fn a_request_has_one_writer_a_version_also_when_its_answer_is_lost() {
    let place = Place::start().await;
    let (table, key, record) = (&place.table, launch_key(), request_record());
    assert_eq!(table.request(&key).await.unwrap(), None);
    let lost = arm(&place, fault("dynamodb", "PutItem", Action::LoseAnswer {}));
    assert!(
        table.put_request(&key, &record, 0).await.unwrap(),
        "its own write is not another's"
    );
    assert_eq!(fired(&place, &lost), 1);
    assert!(!table.put_request(&key, &record, 0).await.unwrap());
    let done = RequestRecord {
        done: true,
        ..record
    };
    assert!(table.put_request(&key, &done, 1).await.unwrap());
    assert!(!table.put_request(&key, &done, 1).await.unwrap());
    let stored = table.request(&key).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.record), (2, done));
    place.cloud.stop().await;
}

#[tokio::test]
async fn what_launches_hold_has_one_writer_a_version_also_when_its_answer_is_lost() {
    let place = Place::start().await;
    let table = &place.table;
    let (mut mine, mut others) = (Usage::default(), Usage::default());
    assert_eq!(table.shared::<Usage>(ONLY).await.unwrap().record, mine);
    mine.tell_unknown(5, NOW_MS);
    others.tell_unknown(7, NOW_MS);
    let lost = arm(&place, fault("dynamodb", "PutItem", Action::LoseAnswer {}));
    assert!(
        table.put_shared(ONLY, &mine, 0).await.unwrap(),
        "its own write is not another's"
    );
    assert_eq!(fired(&place, &lost), 1);
    assert!(!table.put_shared(ONLY, &others, 0).await.unwrap());
    assert!(table.put_shared(ONLY, &others, 1).await.unwrap());
    assert!(!table.put_shared(ONLY, &mine, 1).await.unwrap());
    let stored = table.shared::<Usage>(ONLY).await.unwrap();
    assert_eq!((stored.version, stored.record), (2, others));
    place.cloud.stop().await;
}

#[tokio::test]
async fn a_record_larger_than_an_item_changes_nothing() {
    let place = Place::start().await;
    let states = |observed_ms, nodes: String| NodeStatesRecord {
        observed_ms,
        states: vec![NodesInState {
            state: "IDLE".to_owned(),
            nodes,
            reason: None,
            set_by_hand: false,
            addresses: Vec::new(),
            generations: Vec::new(),
        }],
    };
    let small = states(2_000, "burst-1".to_owned());
    place.table.put_node_states(&small).await.unwrap();
    let large = states(3_000, "x".repeat(400_000));
    let fault = place.table.put_node_states(&large).await.unwrap_err();
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::Invalid, "RecordTooLarge")
    );
    let item = place
        .dynamo
        .get_item()
        .table_name("lab-state")
        .key("pk", AttributeValue::S("STATES#lab".into()));
    let item = item.send().await.unwrap().item.unwrap();
    assert_eq!(item["observed_ms"].as_n().unwrap(), "2000");
    place.cloud.stop().await;
}

#[tokio::test]
async fn wrong_messages_are_set_aside_with_their_reason() {
    let place = Place::start().await;
    let receive = async |url: &Option<String>| {
        let call = place
            .sqs
            .receive_message()
            .queue_url(url.as_deref().unwrap())
            .message_attribute_names("All");
        call.wait_time_seconds(2)
            .send()
            .await
            .unwrap()
            .messages
            .unwrap_or_default()
    };
    let largest = "ä".repeat(spillway_core::message::MAX_BODY_BYTES / 2);
    for body in ["{\"version\":", "", largest.as_str()] {
        place
            .queues
            .quarantine(body, "message is malformed:\nEOF")
            .await
            .unwrap();
        let messages = receive(&place.urls.dead_letter).await;
        let [message] = messages.as_slice() else {
            panic!("{} messages", messages.len())
        };
        let kept = message.body().unwrap();
        assert!(kept == "(empty)" || (body.starts_with(kept) && body.len() - kept.len() < 1_000));
        let reason = message.message_attributes().unwrap()["Reason"]
            .string_value()
            .unwrap();
        assert_eq!(reason, "message is malformed: EOF");
        let handle = message.receipt_handle().unwrap();
        let url = place.urls.dead_letter.as_deref().unwrap();
        place
            .sqs
            .delete_message()
            .queue_url(url)
            .receipt_handle(handle)
            .send()
            .await
            .unwrap();
    }
    place.cloud.stop().await;
}

/// EventBridge answers 200 to a call of which it took nothing.
#[tokio::test]
async fn of_each_event_is_said_whether_the_bus_took_it() {
    let place = Place::start().await;
    let bus = EmulatedBus::start(&place).await;
    let events = events::events(12);
    let first = Action::Replace {
        from: r#""Entries": ?\[\{"EventId": ?"[^"]*"\}"#.to_owned(),
        to: r#""Entries":[{"ErrorCode":"ThrottlingException","ErrorMessage":"slowly"}"#.to_owned(),
    };
    let id = arm(&place, fault("events", "PutEvents", first));
    let answers = bus.publish(&events).await;
    assert_eq!(fired(&place, &id), 1);
    let refused: Vec<usize> = (0..answers.len())
        .filter(|at| answers[*at].is_err())
        .collect();
    assert_eq!((answers.len(), refused), (12, vec![0]));
    let refusal = answers[0].as_ref().unwrap_err();
    assert_eq!(refusal.kind, FaultKind::Throttled, "{refusal}");
    assert_eq!(refusal.message, "slowly");

    // The first call takes ten, the second two.
    let denied = Action::Refuse {
        status: 400,
        code: "AccessDeniedException".to_owned(),
        message: "by a test".to_owned(),
    };
    arm(&place, fault("events", "PutEvents", denied));
    let answers = bus.publish(&events).await;
    let kinds = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(|f| f.kind));
    let (denied, taken): (Vec<_>, Vec<_>) = kinds.partition(Option::is_some);
    assert_eq!(denied, [Some(FaultKind::Denied); 10]);
    assert_eq!(taken, [None; 2]);
    place.cloud.stop().await;
}

/// EventBridge refuses a call whose entries are more than 256 KB together.
#[tokio::test]
async fn large_events_go_in_calls_of_their_own() {
    let place = Place::start().await;
    let bus = EmulatedBus::start(&place).await;
    let mut events = events::events(3);
    for event in &mut events {
        let Detail::Step(detail) = &mut event.detail else {
            panic!("they are of nodes");
        };
        detail.reason = Some("x".repeat(100 * 1024));
    }
    let answers = bus.publish(&events).await;
    assert!(answers.len() == 3 && answers.iter().all(Result::is_ok));
    let calls = place.cloud.proxy.journal().calls().unwrap();
    let calls = calls.iter().filter(|call| call.operation == "PutEvents");
    assert_eq!(calls.count(), 2);
    place.cloud.stop().await;
}
