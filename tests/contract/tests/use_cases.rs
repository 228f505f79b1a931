//! The use-cases on the real adapters and the emulator, in the moments between two of their steps: a call refused
//! there, or a message that comes later than another.

use std::net::IpAddr;

use spillway_aws::{DynamoTable, SqsQueues};
use spillway_contract::Place;
use spillway_contract::clock::At;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::pairings::apply;
use spillway_control::ports::{CommandOutcome, CommandOutcomes, Control, Table};
use spillway_control::report::{self, ReportError};
use spillway_control::sender::Sender;
use spillway_control::tally::Tally;
use spillway_core::message::{
    JoinDeadline, Message, NodeFailed, NodeReady, ReleaseInstances, ReportBody, SuspendQueueBody,
};
use spillway_core::name::{ClusterName, Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{DueAction, Event, LaunchKey, PairingState};
use spillway_core::plan::InstanceState;
use spillway_lab::faults::{self, Action};

const NOW_MS: u64 = 1_790_000_000_000;
const DEADLINE_MS: u64 = NOW_MS + 600_000;

/// No command was sent.
#[derive(Debug)]
struct NoCommands;

impl CommandOutcomes for NoCommands {
    async fn outcome(&self, command_id: &str, _head_node: &str) -> Result<CommandOutcome, Fault> {
        Err(Fault {
            kind: FaultKind::NotFound,
            service: "ssm".into(),
            operation: "GetCommandInvocation".into(),
            code: "InvocationDoesNotExist".to_owned(),
            message: command_id.to_owned(),
        })
    }
}

/// Takes in a report, from whoever may send it.
async fn report(control: &Here, body: ReportBody, sent_ms: u64) -> Result<Tally, ReportError> {
    let sender = match &body {
        ReportBody::Ready(_) | ReportBody::Failed(_) => Sender::Instance(instance()),
        _ => Sender::Other,
    };
    report::report(control, &NoCommands, body, sent_ms, &sender).await
}

type Here = Control<DynamoTable, SqsQueues, At>;

fn at(place: &Place, now_ms: u64) -> Here {
    Control {
        cluster: ClusterName::new("lab").unwrap(),
        table: place.table.clone(),
        queues: place.queues.clone(),
        clock: At(now_ms),
    }
}

fn node() -> NodeName {
    NodeName::new("burst-1").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::new("i-0123456789abcdef0").unwrap()
}

fn generation() -> Generation {
    Generation::new(NOW_MS * 1000).unwrap()
}

/// The node has an instance that has yet to join.
async fn launched(control: &Here) {
    let launch = LaunchKey {
        request_id: RequestId::new("request-1").unwrap(),
        part: 1,
    };
    let resume = Event::Resume {
        generation: generation(),
        launch: launch.clone(),
        deadline_ms: DEADLINE_MS,
        launches_per_hour: 12,
    };
    let launched = Event::Launched {
        launch,
        instance: instance(),
        address: IpAddr::from([10, 0, 16, 5]),
        note: None,
    };
    for event in [resume, launched] {
        apply(control, vec![(node(), event)]).await.unwrap();
    }
}

fn timer(put_back: bool) -> ReportBody {
    ReportBody::JoinDeadline(JoinDeadline {
        nodes: "burst-1".to_owned(),
        generation: generation(),
        deadline_ms: DEADLINE_MS,
        put_back,
    })
}

fn ready() -> ReportBody {
    ReportBody::Ready(NodeReady {
        instance_id: instance(),
        node: node(),
        generation: generation(),
    })
}

fn failed() -> ReportBody {
    ReportBody::Failed(NodeFailed {
        instance_id: instance(),
        node: Some(node()),
        reason: "munged does not start".to_owned(),
    })
}

async fn state(control: &Here) -> PairingState {
    let stored = control.table.pairings(&[node()]).await.unwrap();
    stored[0].record.state.clone()
}

async fn instance_state(control: &Here) -> InstanceState {
    control.table.instances(&[instance()]).await.unwrap()[0].state
}

/// The body of the one message that waits on a queue, or none; it is taken off.
async fn only_message(place: &Place, queue_url: Option<&String>) -> Option<String> {
    let url = queue_url.expect("the place has the queue");
    let answer = place
        .sqs
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(10)
        .send()
        .await
        .unwrap();
    let mut messages = answer.messages.unwrap_or_default();
    assert!(messages.len() <= 1, "{messages:?}");
    let message = messages.pop()?;
    place
        .sqs
        .delete_message()
        .queue_url(url)
        .receipt_handle(message.receipt_handle.unwrap())
        .send()
        .await
        .unwrap();
    message.body
}

#[tokio::test]
async fn a_late_join_timer_lets_the_reports_go_first_that_wait_with_it() {
    let place = Place::start().await;
    launched(&at(&place, NOW_MS)).await;
    let late = at(&place, DEADLINE_MS + 30_000);

    report(&late, timer(false), DEADLINE_MS).await.unwrap();
    assert!(matches!(state(&late).await, PairingState::Launched { .. }));
    let body = only_message(&place, place.urls.reports.as_ref()).await;
    let again = Message::<ReportBody>::parse(&body.expect("the timer"), &late.cluster).unwrap();
    assert_eq!(again, timer(true));

    report(&late, ready(), DEADLINE_MS - 1_000).await.unwrap();
    report(&late, again, DEADLINE_MS).await.unwrap();
    assert!(matches!(state(&late).await, PairingState::Ready { .. }));
    assert_eq!(instance_state(&late).await, InstanceState::Paired);
    place.cloud.stop().await;
}

#[tokio::test]
async fn a_join_timer_in_time_or_put_back_before_fails_the_node() {
    for (now_ms, put_back) in [(DEADLINE_MS + 1_000, false), (DEADLINE_MS + 30_000, true)] {
        let place = Place::start().await;
        launched(&at(&place, NOW_MS)).await;
        let control = at(&place, now_ms);
        report(&control, timer(put_back), DEADLINE_MS)
            .await
            .unwrap();
        assert_eq!(state(&control).await, PairingState::Free);
        let stored = control.table.pairings(&[node()]).await.unwrap();
        let due = stored[0].record.update_due.as_ref().expect("Slurm is told");
        assert!(
            matches!(&due.action, DueAction::Fail { reason, .. } if reason.contains("did not join in time")),
            "{due:?}"
        );
        assert!(
            only_message(&place, place.urls.reports.as_ref())
                .await
                .is_none()
        );
        place.cloud.stop().await;
    }
}

/// The worker dies, or is refused, between the write that lets an instance go and the message that has it
/// terminated: its own message comes again and sees it through.
#[tokio::test]
async fn an_instance_let_go_is_asked_for_again_after_a_refusal() {
    for body in [failed(), timer(true)] {
        let place = Place::start().await;
        launched(&at(&place, NOW_MS)).await;
        let control = at(&place, DEADLINE_MS + 1_000);
        let refusal = place
            .cloud
            .proxy
            .faults()
            .arm(faults::Fault {
                id: None,
                service: "sqs".to_owned(),
                operation: Some("SendMessage".to_owned()),
                principal: None,
                body_contains: Some("release".to_owned()),
                times: None,
                action: Action::Refuse {
                    status: 403,
                    code: "AccessDenied".to_owned(),
                    message: "by a test".to_owned(),
                },
            })
            .unwrap();
        let error = report(&control, body.clone(), DEADLINE_MS).await;
        assert!(error.is_err(), "{error:?}");
        assert_eq!(instance_state(&control).await, InstanceState::Released);
        assert!(
            only_message(&place, place.urls.suspend.as_ref())
                .await
                .is_none()
        );

        assert!(place.cloud.proxy.faults().disarm(&refusal));
        report(&control, body, DEADLINE_MS).await.unwrap();
        let sent = only_message(&place, place.urls.suspend.as_ref()).await;
        let sent = sent.expect("the termination is asked for");
        let asked = Message::<SuspendQueueBody>::parse(&sent, &control.cluster).unwrap();
        let release = ReleaseInstances {
            instance_ids: vec![instance()],
        };
        assert_eq!(asked, SuspendQueueBody::Release(release));
        place.cloud.stop().await;
    }
}
