//! Instances that EC2 does not know when they are to be ended, on a real table and a real queue: right after a launch
//! that is no proof that they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use spillway_aws::{DynamoTable, SqsQueues};
use spillway_contract::Place;
use spillway_contract::clock::At;
use spillway_control::caps::reserve;
use spillway_control::fault::Fault;
use spillway_control::ports::{Control, Ec2, InstanceSeen, Table, Terminated};
use spillway_control::record::{LaunchAnswer, Origin};
use spillway_control::shared::ONLY;
use spillway_control::terminate::terminate;
use spillway_core::config::Site;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{Message, ReleaseInstances, ResumeRequest, SuspendQueueBody};
use spillway_core::name::{ClusterName, Generation, InstanceId, NodeGroupName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{InstanceState, LaunchCall, UNKNOWN_GRACE_MS};
use spillway_core::usage::Usage;

const SITE: &str = include_str!("../../../infra/examples/spillway.toml");
const NOW_MS: u64 = 1_790_000_000_000;

/// EC2 that knows some instances and notes which it ends.
#[derive(Debug, Default)]
struct Cloud {
    known: Mutex<BTreeSet<InstanceId>>,
    ended: Mutex<Vec<InstanceId>>,
}

impl Cloud {
    fn shows(&self, number: u32) {
        self.known.lock().unwrap().insert(instance(number));
    }

    fn ended(&self) -> Vec<InstanceId> {
        self.ended.lock().unwrap().clone()
    }
}

impl Ec2 for Cloud {
    async fn terminate(&self, ids: &[InstanceId]) -> Terminated {
        let known = self.known.lock().unwrap();
        let (done, unknown): (Vec<_>, Vec<_>) =
            ids.iter().cloned().partition(|id| known.contains(id));
        self.ended.lock().unwrap().extend(done.iter().cloned());
        Terminated {
            done,
            unknown,
            fault: None,
        }
    }

    async fn launch(&self, _: &LaunchCall, _: u64) -> Result<LaunchAnswer, Fault> {
        unreachable!("nothing is launched")
    }

    async fn find(&self, _: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        unreachable!("nothing is looked for")
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        Ok(Vec::new())
    }

    async fn console(&self, _id: &InstanceId) -> Result<String, Fault> {
        Ok(String::new())
    }

    async fn find_in_reservation(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        unreachable!("nothing is looked for")
    }

    async fn tag(&self, _: &[InstanceId], _: &BTreeMap<String, String>) -> Result<(), Fault> {
        unreachable!("nothing is tagged")
    }
}

struct Here {
    place: Place,
    ec2: Cloud,
}

impl Here {
    /// A launch of three nodes has brought the instances 1 to 3, which were all let go.
    async fn start() -> Self {
        let own = Self {
            place: Place::start().await,
            ec2: Cloud::default(),
        };
        let control = own.at(NOW_MS);
        let nodes = Hostlist::parse("cloud[001-003]").unwrap();
        let origin = origin();
        let request = ResumeRequest {
            request_id: origin.launch.request_id.clone(),
            generation: Generation::new(NOW_MS * 1000).unwrap(),
            part: 1,
            parts: 1,
            deadline_ms: NOW_MS + 600_000,
            nodes: "cloud[001-003]".to_owned(),
            jobs: Vec::new(),
        };
        let policy = Site::parse(SITE, "spillway.toml").unwrap().policy;
        let nodes = nodes.node_names().unwrap();
        reserve(
            &control,
            &own.ec2,
            &origin.launch,
            &request,
            &nodes,
            &policy,
        )
        .await
        .unwrap();
        let ids = [1, 2, 3].map(instance);
        control.table.release_unpaired(&ids, &origin).await.unwrap();
        assert_eq!(own.held().await, 3);
        own
    }

    fn at(&self, now_ms: u64) -> Control<DynamoTable, SqsQueues, At> {
        Control {
            cluster: ClusterName::new("lab").unwrap(),
            table: self.place.table.clone(),
            queues: self.place.queues.clone(),
            clock: At(now_ms),
        }
    }

    async fn deliver(&self, body: SuspendQueueBody, now_ms: u64) {
        let control = self.at(now_ms);
        terminate(&control, &self.ec2, body, now_ms).await.unwrap();
    }

    /// Takes the timers off the suspend queue that come within 8 s; none comes before its 5 s are over.
    async fn timers(&self) -> Vec<SuspendQueueBody> {
        let url = self.place.urls.suspend.as_ref().unwrap();
        let sqs = &self.place.sqs;
        let own = ClusterName::new("lab").unwrap();
        let begun = Instant::now();
        let mut bodies = Vec::new();
        while begun.elapsed() < Duration::from_secs(8) {
            let ask = sqs.receive_message().queue_url(url);
            let answer = ask.max_number_of_messages(10).send().await.unwrap();
            for message in answer.messages.unwrap_or_default() {
                assert!(begun.elapsed() > Duration::from_secs(4), "at once");
                let delete = sqs.delete_message().queue_url(url);
                let delete = delete.receipt_handle(message.receipt_handle.unwrap());
                delete.send().await.unwrap();
                bodies.push(Message::parse(&message.body.unwrap(), &own).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bodies
    }

    async fn held(&self) -> u32 {
        let usage = self.place.table.shared::<Usage>(ONLY).await;
        usage.unwrap().record.nodes()
    }

    async fn state(&self, number: u32) -> InstanceState {
        let records = self.place.table.instances(&[instance(number)]).await;
        records.unwrap()[0].state
    }
}

fn instance(number: u32) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).unwrap()
}

fn origin() -> Origin {
    Origin {
        launch: LaunchKey {
            request_id: RequestId::new("request-1").unwrap(),
            part: 1,
        },
        owner: "burst/unknown/unknown".parse().unwrap(),
        node_group: NodeGroupName::new("cpu").unwrap(),
    }
}

fn release<const N: usize>(numbers: [u32; N]) -> SuspendQueueBody {
    SuspendQueueBody::Release(ReleaseInstances {
        instance_ids: numbers.map(instance).to_vec(),
    })
}

#[tokio::test]
async fn what_ec2_does_not_show_yet_counts_until_it_is_ended() {
    let site = Here::start().await;
    site.ec2.shows(1);
    site.deliver(release([1, 2, 3]), NOW_MS).await;
    // What EC2 knows does not wait for what it does not.
    assert_eq!(site.ec2.ended(), [instance(1)]);
    assert_eq!(site.state(1).await, InstanceState::Terminated);
    for number in [2, 3] {
        assert_eq!(site.state(number).await, InstanceState::Released);
    }
    assert_eq!(site.held().await, 2);
    assert_eq!(site.timers().await, [release([2, 3])]);

    // Delivered twice, and EC2 shows one of them.
    site.ec2.shows(2);
    for _ in 0..2 {
        site.deliver(release([2, 3]), NOW_MS + 5_000).await;
    }
    assert_eq!(site.ec2.ended(), [instance(1), instance(2)]);
    assert_eq!(site.held().await, 1);
    assert_eq!(site.timers().await, [release([3]), release([3])]);

    // As long as it takes: the first timer ends it, the other finds nothing to do.
    site.ec2.shows(3);
    for _ in 0..2 {
        site.deliver(release([3]), NOW_MS + 10_000).await;
    }
    assert_eq!(site.ec2.ended(), [1, 2, 3].map(instance));
    assert_eq!(site.state(3).await, InstanceState::Terminated);
    assert_eq!(site.held().await, 0);
    assert_eq!(site.timers().await, []);
    site.place.cloud.stop().await;
}

/// Whoever has the head node's credentials may send what the timers send, as often as they like: when an instance is
/// gone is known from its item.
#[tokio::test]
async fn no_message_shortens_the_grace_period_and_what_is_gone_is_given_back_once() {
    let site = Here::start().await;
    let ends_ms = NOW_MS + UNKNOWN_GRACE_MS;
    for now_ms in [NOW_MS, NOW_MS, NOW_MS + 60_000, ends_ms - 1] {
        site.deliver(release([1, 2]), now_ms).await;
        assert_eq!(site.held().await, 3);
        assert_eq!(site.state(1).await, InstanceState::Released);
    }
    for _ in 0..2 {
        site.deliver(release([1, 2]), ends_ms).await;
        assert_eq!(site.held().await, 1);
        assert_eq!(site.state(1).await, InstanceState::Terminated);
    }
    // It begins for each when EC2 was first asked for it.
    site.deliver(release([3]), ends_ms).await;
    assert_eq!(site.held().await, 1);
    assert_eq!(site.state(3).await, InstanceState::Released);
    assert_eq!(site.ec2.ended(), []);
    site.place.cloud.stop().await;
}
