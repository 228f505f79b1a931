//! The caps as the control plane keeps them, on a real table: launches that reserve at once, and a record that holds more
//! than EC2 runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spillway_aws::{DynamoTable, SqsQueues};
use spillway_contract::Place;
use spillway_control::caps::reserve;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{Clock, Control, Ec2, InstanceSeen, Table, Terminated};
use spillway_control::record::{LaunchAnswer, Origin};
use spillway_control::shared::ONLY;
use spillway_core::config::{Policy, Site};
use spillway_core::hostlist::Hostlist;
use spillway_core::message::ResumeRequest;
use spillway_core::name::{
    ClusterName, Generation, InstanceId, NodeGroupName, NodeName, RequestId,
};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::LaunchCall;
use spillway_core::usage::{Owner, Usage};

const SITE: &str = include_str!("../../../infra/examples/spillway.toml");
const NOW_MS: u64 = 1_790_000_000_000;
const MINUTE_MS: u64 = 60_000;
const MAX_NODES: u32 = 30;

/// A clock that a test sets, and whose waits take their time.
#[derive(Debug, Clone)]
struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
    }

    fn fresh_id(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        format!("id-{}", NEXT.fetch_add(1, Ordering::SeqCst))
    }
}

/// EC2 with these instances; it may refuse to answer. It launches nothing: reserving asks for nothing else.
#[derive(Debug, Default)]
struct Cloud {
    instances: Vec<InstanceSeen>,
    refuses: bool,
    asked: AtomicUsize,
}

impl Ec2 for Cloud {
    async fn launch(&self, _: &LaunchCall, _: u64) -> Result<LaunchAnswer, Fault> {
        unreachable!("reserving launches nothing")
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        assert_eq!(tags["spillway:cluster"], "lab");
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.refuses {
            return Err(Fault {
                kind: FaultKind::Throttled,
                service: "ec2".into(),
                operation: "DescribeInstances".into(),
                code: "RequestLimitExceeded".to_owned(),
                message: String::new(),
            });
        }
        Ok(self.instances.clone())
    }

    async fn terminate(&self, _: &[InstanceId]) -> Terminated {
        unreachable!("reserving ends nothing")
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
        unreachable!("reserving tags nothing")
    }
}

struct Kept {
    control: Control<DynamoTable, SqsQueues, TestClock>,
    policy: Policy,
}

impl Kept {
    fn at(place: &Place) -> Self {
        let text = SITE.replace("max_nodes = 300\n", &format!("max_nodes = {MAX_NODES}\n"));
        let control = Control {
            cluster: ClusterName::new("lab").unwrap(),
            table: place.table.clone(),
            queues: place.queues.clone(),
            clock: TestClock(Arc::new(AtomicU64::new(NOW_MS))),
        };
        Self {
            control,
            policy: Site::parse(&text, "spillway.toml").unwrap().policy,
        }
    }

    /// How many of the nodes a launch is granted.
    async fn reserve(&self, ec2: &Cloud, number: usize, nodes: &str) -> usize {
        let nodes: Vec<NodeName> = Hostlist::parse(nodes).unwrap().node_names().unwrap();
        let launch = launch(number);
        let request = ResumeRequest {
            request_id: launch.request_id.clone(),
            generation: Generation::new(NOW_MS * 1000).unwrap(),
            part: 1,
            parts: 1,
            deadline_ms: NOW_MS + 600_000,
            nodes: String::new(),
            jobs: Vec::new(),
        };
        let reserved = reserve(&self.control, ec2, &launch, &request, &nodes, &self.policy);
        reserved.await.unwrap().granted.len()
    }

    async fn held(&self) -> u32 {
        self.control
            .table
            .shared::<Usage>(ONLY)
            .await
            .unwrap()
            .record
            .nodes()
    }

    fn pass(&self, ms: u64) {
        self.control.clock.0.fetch_add(ms, Ordering::SeqCst);
    }
}

fn launch(number: usize) -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new(format!("request-{number}")).unwrap(),
        part: 1,
    }
}

fn instance(number: usize, state: &str) -> InstanceSeen {
    InstanceSeen {
        instance_id: InstanceId::new(format!("i-{number:017x}")).unwrap(),
        state: state.to_owned(),
        state_reason: None,
        address: None,
        instance_type: "c7i.8xlarge".to_owned(),
        zone: "eu-central-1a".to_owned(),
        launched_ms: 0,
        is_held: false,
        origin: Some(Origin {
            launch: launch(1),
            owner: Owner::default(),
            node_group: NodeGroupName::new("cpu").unwrap(),
        }),
    }
}

/// Twice as many as the caps take, all at once, each delivered twice.
#[tokio::test(flavor = "multi_thread")]
async fn launches_that_reserve_at_once_get_what_there_is_and_no_more() {
    let place = Place::start().await;
    let site = Arc::new(Kept::at(&place));
    for _ in 0..2 {
        let launches: Vec<_> = (0..12)
            .map(|number| {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    let nodes = format!("cloud[{:03}-{:03}]", 5 * number + 1, 5 * number + 5);
                    site.reserve(&Cloud::default(), number, &nodes).await
                })
            })
            .collect();
        for launch in launches {
            launch.await.unwrap();
        }
        assert_eq!(site.held().await, MAX_NODES);
    }
    place.cloud.stop().await;
}

#[tokio::test]
async fn what_the_record_holds_too_much_is_corrected_by_what_ec2_runs() {
    let place = Place::start().await;
    let site = Kept::at(&place);
    let mut ec2 = Cloud {
        instances: vec![
            instance(1, "running"),
            instance(2, "stopping"),
            instance(3, "shutting-down"),
            instance(4, "terminated"),
        ],
        ..Cloud::default()
    };
    assert_eq!(site.reserve(&ec2, 1, "cloud[001-030]").await, 30);
    assert_eq!(ec2.asked.load(Ordering::SeqCst), 0, "nothing was refused");
    // A young launch is believed, whatever EC2 shows.
    site.pass(10 * MINUTE_MS);
    assert_eq!(site.reserve(&ec2, 2, "cloud[031-040]").await, 0);
    assert_eq!(ec2.asked.load(Ordering::SeqCst), 1);
    // An hour and a half later its instances are known; but not from an EC2 that does not answer.
    site.pass(80 * MINUTE_MS);
    ec2.refuses = true;
    assert_eq!(site.reserve(&ec2, 2, "cloud[031-040]").await, 0);
    ec2.refuses = false;
    assert_eq!(site.reserve(&ec2, 2, "cloud[031-070]").await, 28);
    assert_eq!(
        site.held().await,
        MAX_NODES,
        "two of the first launch, 28 of the second"
    );
    assert_eq!(ec2.asked.load(Ordering::SeqCst), 3);
    assert_eq!(site.reserve(&ec2, 3, "cloud071").await, 0);
    assert_eq!(ec2.asked.load(Ordering::SeqCst), 3, "once a minute");
    place.cloud.stop().await;
}
