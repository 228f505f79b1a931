//! Instances that EC2 launches and ends before they can serve, as where it may not use the key of a volume: they are not
//! launched again and again, their nodes are told why, and after ten of them the group is protected until a probe joins.

use std::collections::BTreeMap;

use spillway_control::fault::Fault;
use spillway_control::launch::{Budget, launch};
use spillway_control::ports::{
    Clock, CommandOutcome, CommandOutcomes, Control, Ec2, InstanceSeen, Table, Terminated,
};
use spillway_control::record::LaunchAnswer;
use spillway_control::report::report;
use spillway_control::sender::Sender;
use spillway_control::shared::ONLY;
use spillway_control::tally::GROUPS_PROTECTED;
use spillway_core::capacity::{Capacity, PROBE_WAIT_MS};
use spillway_core::hostlist;
use spillway_core::message::{NodeReady, ReportBody, RequestJob, ResumeQueueBody, ResumeRequest};
use spillway_core::name::{Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{DueAction, Pairing};
use spillway_core::plan::LaunchCall;
use spillway_world::sim::{Port, calm};

const WHY: &str = "Client.InternalError: Client error on launch";
const INVOCATION_MS: u64 = 60_000;

/// Ends so many of the instances of a launch as soon as it has launched them.
struct Stillborn(Port, usize);

impl Ec2 for Stillborn {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        self.0.launch(call, limit_ms).await
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        let found = self.0.find(tags).await?.into_iter();
        let mut found: Vec<InstanceSeen> = found.collect();
        for seen in found.iter_mut().take(self.1) {
            "terminated".clone_into(&mut seen.state);
            seen.state_reason = Some(WHY.to_owned());
            seen.address = None;
        }
        Ok(found)
    }

    async fn find_in_reservation(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn terminate(&self, _: &[InstanceId]) -> Terminated {
        unreachable!("a launch ends nothing")
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn console(&self, _: &InstanceId) -> Result<String, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn tag(&self, _: &[InstanceId], _: &BTreeMap<String, String>) -> Result<(), Fault> {
        unreachable!("nothing is there to be named")
    }
}

/// Nobody asks SSM here.
struct NoCommands;

impl CommandOutcomes for NoCommands {
    async fn outcome(&self, _: &str, _: &str) -> Result<CommandOutcome, Fault> {
        unreachable!("no command was sent")
    }
}

struct Site {
    port: Port,
    control: Control<Port, Port, Port>,
    /// The nodes of a group, none of them with a job.
    nodes: Vec<NodeName>,
    requests: u64,
}

impl Site {
    fn new(port: Port) -> Self {
        let policy = port.pushed_policy();
        let group = policy.node_groups.iter().next().expect("a group");
        Self {
            nodes: group.nodes.node_names().expect("names"),
            control: Control {
                cluster: policy.cluster.clone(),
                table: port.clone(),
                queues: port.clone(),
                clock: port.clone(),
            },
            port,
            requests: 0,
        }
    }

    /// Slurm asks for nodes. Answers how many groups that has protected.
    async fn resume(&mut self, ec2: &impl Ec2, nodes: &str) -> usize {
        self.resume_for(ec2, nodes, Vec::new()).await
    }

    async fn resume_for(&mut self, ec2: &impl Ec2, nodes: &str, jobs: Vec<RequestJob>) -> usize {
        // EC2's buckets fill again.
        self.port.sleep_ms(5_000).await;
        let now_ms = self.port.now_ms();
        self.requests += 1;
        let request = ResumeRequest {
            request_id: RequestId::new(format!("request-{}", self.requests)).expect("an id"),
            generation: Generation::new(now_ms * 1000).expect("a generation"),
            part: 1,
            parts: 1,
            deadline_ms: now_ms + 300_000,
            nodes: nodes.to_owned(),
            jobs,
        };
        let budget = Budget {
            ends_ms: now_ms + INVOCATION_MS,
        };
        let body = ResumeQueueBody::Resume(request);
        let tally = launch(&self.control, ec2, body, now_ms, budget).await;
        let tally = tally.expect("carried out");
        let protected = tally.iter().find(|(name, _)| *name == GROUPS_PROTECTED);
        usize::from(protected.is_some())
    }

    async fn pairing(&self, node: &NodeName) -> Pairing {
        let stored = self
            .control
            .table
            .pairings(std::slice::from_ref(node))
            .await;
        stored.expect("read").remove(0).record
    }

    /// Why Slurm is told that a node fails, and until when its group rests.
    async fn failed(&self, node: &NodeName) -> (String, Option<u64>) {
        let pairing = self.pairing(node).await;
        let due = pairing.update_due.as_ref();
        match due.map(|due| &due.action) {
            Some(DueAction::Fail { reason, cool_off }) => {
                (reason.clone(), cool_off.as_ref().map(|rest| rest.until_ms))
            }
            _ => panic!("{pairing:?}"),
        }
    }

    /// A node that was launched reports that it has joined.
    async fn joins(&self, node: &NodeName) {
        let pairing = self.pairing(node).await;
        let instance_id = pairing.instance().expect("an instance").clone();
        let ready = ReportBody::Ready(NodeReady {
            node: node.clone(),
            instance_id: instance_id.clone(),
            generation: pairing.generation,
        });
        let sender = Sender::Instance(instance_id);
        let now_ms = self.port.now_ms();
        let told = report(&self.control, &NoCommands, ready, now_ms, &sender).await;
        told.expect("taken in");
    }

    fn launched(&self) -> usize {
        self.port.with_ec2(|ec2| ec2.instances().count())
    }
}

#[test]
fn instances_that_end_at_once_are_launched_once_and_protect_their_group() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let (nodes, ended) = (site.nodes.clone(), Stillborn(port.clone(), usize::MAX));
        let mut protected = 0;
        for (count, node) in (1..=10).zip(nodes.iter().cycle()) {
            protected += site.resume(&ended, node.as_str()).await;
            let (reason, rests_until_ms) = site.failed(node).await;
            assert!(reason.ends_with(WHY), "{reason}");
            assert_eq!(rests_until_ms, None);
            assert_eq!(site.launched(), count);
        }
        assert_eq!(protected, 1, "with the tenth");
        let capacity = port.shared::<Capacity>(ONLY).await.expect("read").record;
        assert_eq!(capacity.protected_count(), 1);

        // It launches nothing more until a probe is due, and says so.
        let both = format!("{},{}", nodes[0], nodes[1]);
        site.resume(&port, &both).await;
        assert_eq!(site.launched(), 10);
        let (reason, rests_until_ms) = site.failed(&nodes[0]).await;
        let words = "is protected: its last 10 instances did not join";
        assert!(reason.contains(words) && reason.ends_with(WHY), "{reason}");
        let left_ms = rests_until_ms.expect("a rest") - port.now_ms();
        assert!((1..=PROBE_WAIT_MS).contains(&left_ms), "{left_ms}");

        // The probe is one node, and opens the group when it has joined.
        port.sleep_ms(left_ms).await;
        site.resume(&port, &both).await;
        assert_eq!(site.launched(), 11);
        let (reason, _) = site.failed(&nodes[1]).await;
        assert!(reason.contains(words), "{reason}");
        site.joins(&nodes[0]).await;
        let capacity = port.shared::<Capacity>(ONLY).await.expect("read").record;
        assert_eq!(capacity.protected_count(), 0);
        site.resume(&port, nodes[1].as_str()).await;
        assert_eq!(site.launched(), 12);
    });
}

#[test]
fn a_gang_that_loses_one_instance_fails_whole_and_is_no_reason_to_protect_its_group() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let nodes = hostlist::fold(&site.nodes);
        let job = serde_json::json!({"job_id": "7", "nodes_resume": nodes});
        let job: RequestJob = serde_json::from_value(job).expect("a job");
        assert!(site.nodes.len() > 10);
        let protected = site
            .resume_for(&Stillborn(port.clone(), 1), &nodes, vec![job])
            .await;
        assert_eq!(protected, 0);
        assert_eq!(site.launched(), site.nodes.len());
        for node in &site.nodes {
            let (reason, _) = site.failed(node).await;
            assert!(reason.ends_with(WHY), "{reason}");
        }
    });
}
