//! What a sweep does and the site is told, where something cannot be read (another release has written it) or sent.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use spillway_contract::clock::At;
use spillway_contract::suites::events::change;
use spillway_contract::{Place, TABLE};
use spillway_control::fault::Fault;
use spillway_control::launch::Budget;
use spillway_control::ports::{Control, Ec2, InstanceSeen, Table, Terminated};
use spillway_control::publish::publish;
use spillway_control::record::LaunchAnswer;
use spillway_control::sweep::{LAST_REPORT, SweepReport, sweep};
use spillway_control::tally::Tally;
use spillway_core::message::SweepOrder;
use spillway_core::name::{ClusterName, InstanceId};
use spillway_core::plan::{InstanceState, LaunchCall};
use spillway_core::site_event::Detail;
use spillway_core::sweep::Heal;
use spillway_lab::faults::{self, Action};
use spillway_world::site_bus::MemoryBus;

const NOW_MS: u64 = 1_790_000_000_000;
const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;
const UNREADABLE: &str = r#"{"of": "tomorrow"}"#;

/// An EC2 that shows one instance that nobody knows.
struct Orphan;

impl Ec2 for Orphan {
    async fn find(&self, _: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        Ok(vec![InstanceSeen {
            instance_id: orphan(),
            state: "running".to_owned(),
            state_reason: None,
            address: None,
            instance_type: "c7i.large".to_owned(),
            zone: "us-east-1a".to_owned(),
            launched_ms: NOW_MS - HOUR_MS,
            is_held: false,
            origin: None,
        }])
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        Ok(Vec::new())
    }

    async fn launch(&self, _: &LaunchCall, _: u64) -> Result<LaunchAnswer, Fault> {
        unreachable!("a sweep launches nothing")
    }

    async fn find_in_reservation(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        unreachable!("a sweep does not ask")
    }

    async fn terminate(&self, _: &[InstanceId]) -> Terminated {
        unreachable!("a sweep leaves that to `terminate`")
    }

    async fn console(&self, _: &InstanceId) -> Result<String, Fault> {
        unreachable!("no node is late")
    }

    async fn tag(&self, _: &[InstanceId], _: &BTreeMap<String, String>) -> Result<(), Fault> {
        unreachable!("a sweep names nothing")
    }
}

fn orphan() -> InstanceId {
    InstanceId::new("i-0123456789abcdef0").unwrap()
}

async fn swept(place: &Place, at_ms: u64) -> Result<Tally, Fault> {
    let control = Control {
        cluster: ClusterName::new("lab").unwrap(),
        table: place.table.clone(),
        queues: place.queues.clone(),
        clock: At(at_ms),
    };
    let budget = Budget {
        ends_ms: at_ms + MINUTE_MS,
    };
    sweep(&control, &Orphan, SweepOrder::default(), budget).await
}

async fn put(place: &Place, item: &[(&str, AttributeValue)]) {
    let mut put = place.dynamo.put_item().table_name(TABLE);
    for (name, value) in item {
        put = put.item(*name, value.clone());
    }
    put.send().await.expect("the item is put");
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

#[tokio::test]
async fn an_unreadable_report_keeps_no_sweep_from_its_work() {
    let place = Place::start().await;
    let report = [
        ("pk", text("SWEEP-REPORT#lab#last")),
        ("kind", text("sweep-report")),
        ("version", AttributeValue::N("7".to_owned())),
        ("record", text(UNREADABLE)),
    ];
    put(&place, &report).await;
    // Marked by the first, ended by the second.
    for at_ms in [NOW_MS, NOW_MS + 5 * MINUTE_MS] {
        swept(&place, at_ms).await.expect("it sweeps");
    }
    let items = place.table.instances(&[orphan()]).await.expect("an answer");
    assert_eq!(items[0].state, InstanceState::Released);
    place.cloud.stop().await;
}

/// `publish` tells the site by the report: what is healed must stand there first, for it is not found again.
#[tokio::test]
async fn a_sweep_that_breaks_off_has_said_what_it_set_out_to_heal() {
    let place = Place::start().await;
    swept(&place, NOW_MS).await.expect("it marks");
    let refused = faults::Fault {
        id: None,
        service: "sqs".to_owned(),
        operation: None,
        principal: None,
        body_contains: None,
        times: None,
        action: Action::Refuse {
            status: 403,
            code: "AccessDenied".to_owned(),
            message: "by a test".to_owned(),
        },
    };
    place
        .cloud
        .proxy
        .faults()
        .arm(refused)
        .expect("well formed");
    let broken_off = swept(&place, NOW_MS + 5 * MINUTE_MS).await;
    assert!(broken_off.is_err(), "{broken_off:?}");
    let last = place.table.shared::<Option<SweepReport>>(LAST_REPORT).await;
    let last = last.expect("an answer").record.expect("a report");
    let [finding] = &last.findings[..] else {
        panic!("{last:?}");
    };
    assert_eq!(finding.instance, Some(orphan()));
    assert_eq!(finding.heal, Some(Heal::End));
    place.cloud.stop().await;
}

#[tokio::test]
async fn with_an_unreadable_policy_events_lack_the_group_alone() {
    let place = Place::start().await;
    let policy = [("pk", text("POLICY#lab")), ("policy", text(UNREADABLE))];
    put(&place, &policy).await;
    let cluster = ClusterName::new("lab").unwrap();
    let bus = MemoryBus::default();
    let done = publish(&cluster, &place.table, &bus, &At(NOW_MS), &[change(1, 1)]).await;
    assert_eq!(done.expect("published").failed, None);
    let taken = bus.taken();
    let [event] = &taken[..] else {
        panic!("one step is one event: {taken:?}");
    };
    let Detail::Step(detail) = &event.detail else {
        panic!("it is of a node: {event:?}");
    };
    assert_eq!(detail.node_group, None);
    place.cloud.stop().await;
}
