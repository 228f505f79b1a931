//! What the ports promise, kept by the adapters on the emulator, with calls refused, answers lost and
//! changed on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_sdk_dynamodb::types::AttributeValue;
use spillway_contract::Place;
use spillway_control::fault::FaultKind;
use spillway_control::ports::{InstanceWrite, PairingWrite, Queues, Table};
use spillway_control::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, LaunchAnswer, NodeStatesRecord, Origin,
    RequestRecord,
};
use spillway_control::shared::ONLY;
use spillway_core::config::{CapacityKind, OnDemandAllocation};
use spillway_core::message::{
    ContinueLaunch, Message, NodesInState, ResumeQueueBody, ResumeRequest,
};
use spillway_core::name::{
    ClusterName, Generation, InstanceId, NodeGroupName, NodeName, RequestId,
};
use spillway_core::pairing::{Event, LaunchKey, Pairing, Transition, Verdict};
use spillway_core::plan::{InstanceState, LaunchCall, Recipe};
use spillway_core::usage::Usage;
use spillway_lab::faults::{Action, Fault};

const NOW_MS: u64 = 1_790_000_000_000;
const DEADLINE_MS: u64 = NOW_MS + 600_000;

fn node(number: u32) -> NodeName {
    NodeName::new(format!("burst-{number}")).unwrap()
}

fn instance(number: u32) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).unwrap()
}

fn address(number: u32) -> IpAddr {
    IpAddr::from([10, 0, 16, u8::try_from(number % 250).unwrap()])
}

fn generation(number: u64) -> Generation {
    Generation::new(NOW_MS * 1000 + number).unwrap()
}

fn launch_key() -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new("request-1").unwrap(),
        part: 1,
    }
}

fn origin() -> Origin {
    Origin {
        launch: launch_key(),
        node_group: NodeGroupName::new("cpu").unwrap(),
        owner: "burst/physics/alice".parse().unwrap(),
    }
}

fn accepted(transition: Transition) -> Pairing {
    assert_eq!(transition.verdict, Verdict::Accepted);
    transition.next
}

fn requested(number: u32) -> Pairing {
    let event = Event::Resume {
        generation: generation(1),
        launch: launch_key(),
        deadline_ms: DEADLINE_MS,
        launches_per_hour: 12,
    };
    accepted(Pairing::new(node(number)).on(&event, NOW_MS))
}

fn launched(number: u32) -> Pairing {
    let event = Event::Launched {
        launch: launch_key(),
        instance: instance(number),
        address: address(number),
        note: None,
    };
    accepted(requested(number).on(&event, NOW_MS))
}

fn pair(number: u32, expected_version: u64) -> PairingWrite {
    let pair = InstanceWrite::Pair {
        instance_id: instance(number),
        address: address(number),
        deadline_ms: DEADLINE_MS,
        origin: Some(origin()),
    };
    PairingWrite {
        pairing: launched(number),
        expected_version,
        instance: Some(pair),
    }
}

fn free(number: u32, expected_version: u64, instance: InstanceWrite) -> PairingWrite {
    let pairing = accepted(launched(number).on(
        &Event::Suspend {
            generation: generation(2),
        },
        NOW_MS,
    ));
    PairingWrite {
        pairing,
        expected_version,
        instance: Some(instance),
    }
}

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
async fn pairings_are_written_each_alone_under_their_versions() {
    let place = Place::start().await;
    let table = &place.table;
    let nodes: Vec<NodeName> = (1..=120).map(node).collect();
    let unknown = table.pairings(&nodes).await.unwrap();
    assert!(unknown.iter().all(|stored| stored.version == 0));
    assert_eq!(unknown[7].record, Pairing::new(node(8)));

    let requests: Vec<PairingWrite> = (1..=120)
        .map(|n| PairingWrite {
            pairing: requested(n),
            expected_version: 0,
            instance: None,
        })
        .collect();
    assert_eq!(
        table.write_pairings(&requests).await.unwrap(),
        vec![true; 120]
    );
    // One in ten has moved on; the others of its transaction are written nevertheless.
    let pairs: Vec<PairingWrite> = (1..=120).map(|n| pair(n, u64::from(n % 10 != 0))).collect();
    let expected: Vec<bool> = (1..=120).map(|n| n % 10 != 0).collect();
    assert_eq!(table.write_pairings(&pairs).await.unwrap(), expected);

    let stored = table.pairings(&nodes).await.unwrap();
    assert_eq!((stored[0].version, &stored[0].record), (2, &launched(1)));
    assert_eq!((stored[9].version, &stored[9].record), (1, &requested(10)));
    let mut due = table.nodes_with_update_due().await.unwrap();
    due.sort();
    let mut expected: Vec<NodeName> = (1..=120).filter(|n| n % 10 != 0).map(node).collect();
    expected.sort();
    assert_eq!(due, expected);

    let records = table.instances(&[instance(1), instance(10)]).await.unwrap();
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!(
        (record.state, record.node.clone()),
        (InstanceState::Paired, Some(node(1)))
    );
    assert_eq!(
        (record.generation, record.acknowledged_generation),
        (Some(generation(1)), None)
    );
    assert_eq!(
        (record.address, record.deadline_ms),
        (Some(address(1)), Some(DEADLINE_MS))
    );
    place.cloud.stop().await;
}

#[tokio::test]
async fn items_look_as_burst_nodes_and_people_read_them() {
    let place = Place::start().await;
    assert_eq!(
        place.table.write_pairings(&[pair(1, 0)]).await.unwrap(),
        [true]
    );
    let admitted = accepted(launched(1).on(
        &Event::Acknowledged {
            generation: generation(1),
            number: 1,
        },
        NOW_MS,
    ));
    let admit = PairingWrite {
        pairing: admitted,
        expected_version: 1,
        instance: Some(InstanceWrite::Admit(instance(1))),
    };
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
        (instance(1).as_str(), "10.0.16.1")
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

    assert_eq!(place.table.write_pairings(&[admit]).await.unwrap(), [true]);
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
async fn an_instance_is_released_once_and_terminated_once_and_never_paired_again() {
    let place = Place::start().await;
    let table = &place.table;
    let state = async |number: u32| table.instances(&[instance(number)]).await.unwrap()[0].state;
    assert_eq!(table.write_pairings(&[pair(1, 0)]).await.unwrap(), [true]);
    // Paired: neither given back as spare nor closed.
    table
        .release_unpaired(&[instance(1), instance(2)], &origin())
        .await
        .unwrap();
    // For whom it is held was said, and is not said again.
    let other = Origin {
        owner: "burst/physics/bob".parse().unwrap(),
        ..origin()
    };
    table
        .release_unpaired(&[instance(2)], &other)
        .await
        .unwrap();
    let records = table.instances(&[instance(2)]).await.unwrap();
    assert_eq!(records[0].origin, Some(origin()));
    assert_eq!(table.mark_terminated(&[instance(1)]).await.unwrap(), []);
    assert_eq!(
        (state(1).await, state(2).await),
        (InstanceState::Paired, InstanceState::Released)
    );
    let release = free(1, 1, InstanceWrite::Release(instance(1)));
    assert_eq!(table.write_pairings(&[release]).await.unwrap(), [true]);
    assert_eq!(state(1).await, InstanceState::Released);
    // Released or terminated: no pairing takes it.
    assert_eq!(table.write_pairings(&[pair(1, 2)]).await.unwrap(), [false]);
    let both = [instance(1), instance(2)];
    // The first note stays.
    for now_ms in [NOW_MS, NOW_MS + 5_000] {
        table.note_unknown(&both[..1], now_ms).await.unwrap();
    }
    let noted = async |number: u32| {
        let records = table.instances(&[instance(number)]).await.unwrap();
        records[0].unknown_since_ms
    };
    assert_eq!((noted(1).await, noted(2).await), (Some(NOW_MS), None));
    let mut marked = table.mark_terminated(&both).await.unwrap();
    marked.sort();
    assert_eq!(marked, both);
    assert_eq!(
        table.mark_terminated(&both).await.unwrap(),
        [],
        "each is answered once"
    );
    let records = table.instances(&both).await.unwrap();
    assert!(
        records.iter().all(|record| record.origin == Some(origin())),
        "{records:?}"
    );
    assert_eq!(table.write_pairings(&[pair(1, 2)]).await.unwrap(), [false]);
    // Nothing is noted of what is terminated, and no item is made.
    let ended_and_stranger = [instance(2), instance(3)];
    table
        .note_unknown(&ended_and_stranger, NOW_MS)
        .await
        .unwrap();
    assert_eq!(noted(2).await, None);
    assert!(table.instances(&[instance(3)]).await.unwrap().is_empty());
    // Letting go of what is terminated leaves it so, and the node is written.
    let release = free(1, 2, InstanceWrite::Release(instance(1)));
    assert_eq!(table.write_pairings(&[release]).await.unwrap(), [true]);
    assert_eq!(
        (state(1).await, state(2).await),
        (InstanceState::Terminated, InstanceState::Terminated)
    );
    assert_eq!(table.pairings(&[node(1)]).await.unwrap()[0].version, 3);
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
async fn an_attempt_is_written_once_and_answered() {
    let place = Place::start().await;
    let key = AttemptKey {
        launch: launch_key(),
        chunk: 0,
        attempt: 1,
    };
    let recipe = Recipe {
        capacity: CapacityKind::OnDemand,
        launch_template_id: "lt-0123456789abcdef0".to_owned(),
        launch_template_version: "1".to_owned(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        candidates: Vec::new(),
    };
    let call = LaunchCall {
        client_token: "token".to_owned(),
        count: 2,
        at_least: 1,
        recipe,
        tags: [].into(),
    };
    let mut record = AttemptRecord {
        call,
        round: 0,
        answer: None,
    };
    let answer = LaunchAnswer {
        instances: vec![instance(1)],
        ..LaunchAnswer::default()
    };
    let missing = place.table.answer_attempt(&key, &answer).await.unwrap_err();
    assert_eq!(missing.code, "NoSuchAttempt");
    assert!(place.table.put_attempt(&key, &record).await.unwrap());
    assert!(!place.table.put_attempt(&key, &record).await.unwrap());
    assert_eq!(
        place.table.attempt(&key).await.unwrap(),
        Some(record.clone())
    );
    place.table.answer_attempt(&key, &answer).await.unwrap();
    record.answer = Some(answer);
    assert_eq!(place.table.attempt(&key).await.unwrap(), Some(record));
    place.cloud.stop().await;
}

#[tokio::test]
async fn an_older_sign_of_life_or_observation_changes_nothing() {
    let place = Place::start().await;
    let heard = |received_ms| HeartbeatRecord {
        received_ms,
        sent_ms: received_ms,
        slurm_version: None,
        spooled: 0,
    };
    place.table.put_heartbeat(&heard(2_000)).await.unwrap();
    place.table.put_heartbeat(&heard(1_000)).await.unwrap();
    assert_eq!(place.table.heartbeat().await.unwrap(), Some(heard(2_000)));
    let states = |observed_ms, nodes: String| NodeStatesRecord {
        observed_ms,
        states: vec![NodesInState {
            state: "IDLE".to_owned(),
            nodes,
        }],
    };
    place
        .table
        .put_node_states(&states(2_000, "burst-1".to_owned()))
        .await
        .unwrap();
    place
        .table
        .put_node_states(&states(1_000, "burst-2".to_owned()))
        .await
        .unwrap();
    let fault = place
        .table
        .put_node_states(&states(3_000, "x".repeat(400_000)))
        .await
        .unwrap_err();
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
async fn messages_arrive_and_wrong_ones_are_set_aside_with_their_reason() {
    let place = Place::start().await;
    let timer = ContinueLaunch {
        request_id: RequestId::new("request-1").unwrap(),
        part: 1,
        attempt: 2,
    };
    place
        .queues
        .send_resume(ResumeQueueBody::Continue(timer.clone()), 0)
        .await
        .unwrap();
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
    let messages = receive(&place.urls.resume).await;
    let own = ClusterName::new("lab").unwrap();
    let body: ResumeQueueBody = Message::parse(messages[0].body().unwrap(), &own).unwrap();
    assert_eq!(body, ResumeQueueBody::Continue(timer));

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
