//! The use-cases of a site in a calm world, driven one by one.

use spillway_control::fault::Fault;
use spillway_control::launch::{Budget, launch};
use spillway_control::ports::{Clock, CommandOutcome, CommandOutcomes, Control, Ec2, Table};
use spillway_control::report::report;
use spillway_control::sender::Sender;
use spillway_control::tally::{GROUPS_PROTECTED, Tally};
use spillway_core::message::{
    Message, NodeReady, ReportBody, RequestJob, ResumeQueueBody, ResumeRequest,
};
use spillway_core::name::{Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{DueAction, Pairing};
use spillway_world::sim::{Inbox, Port};

const INVOCATION_MS: u64 = 60_000;

/// The job of these nodes that Slurm asks for in this call, and of all of them.
pub fn job(resumed: &str, all: &str) -> RequestJob {
    let job = serde_json::json!({"job_id": "7", "nodes_resume": resumed, "nodes_alloc": all});
    serde_json::from_value(job).expect("a job")
}

/// Nobody asks SSM here.
struct NoCommands;

impl CommandOutcomes for NoCommands {
    async fn outcome(&self, _: &str, _: &str) -> Result<CommandOutcome, Fault> {
        unreachable!("no command was sent")
    }
}

/// A site whose Slurm asks as a test says.
pub struct Site {
    pub port: Port,
    pub control: Control<Port, Port, Port>,
    /// The nodes of a group, none of them with a job.
    pub nodes: Vec<NodeName>,
    requests: u64,
}

impl Site {
    pub fn new(port: Port) -> Self {
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
    pub async fn resume(&mut self, ec2: &impl Ec2, nodes: &str) -> usize {
        self.resume_for(ec2, nodes, Vec::new()).await
    }

    pub async fn resume_for(
        &mut self,
        ec2: &impl Ec2,
        nodes: &str,
        jobs: Vec<RequestJob>,
    ) -> usize {
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
        let tally = self.carry_out(ec2, ResumeQueueBody::Resume(request)).await;
        let protected = tally.iter().find(|(name, _)| *name == GROUPS_PROTECTED);
        usize::from(protected.is_some())
    }

    async fn carry_out(&self, ec2: &impl Ec2, body: ResumeQueueBody) -> Tally {
        let now_ms = self.port.now_ms();
        let budget = Budget {
            ends_ms: now_ms + INVOCATION_MS,
        };
        let tally = launch(&self.control, ec2, body, now_ms, budget).await;
        tally.expect("carried out")
    }

    /// The timers fire that are due within so long.
    pub async fn timers_fire(&self, ec2: &impl Ec2, within_ms: u64) {
        let until_ms = self.port.now_ms() + within_ms;
        while self.port.now_ms() < until_ms {
            self.port.sleep_ms(1_000).await;
            for timer in self.port.receive(Inbox::Resume) {
                let body = Message::parse(&timer.text, &self.control.cluster);
                self.carry_out(ec2, body.expect("our own")).await;
                self.port.delete(Inbox::Resume, timer.id);
            }
        }
    }

    pub async fn pairing(&self, node: &NodeName) -> Pairing {
        let stored = self
            .control
            .table
            .pairings(std::slice::from_ref(node))
            .await;
        stored.expect("read").remove(0).record
    }

    /// Why Slurm is told that a node fails, and until when its group rests.
    pub async fn failed(&self, node: &NodeName) -> (String, Option<u64>) {
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
    pub async fn joins(&self, node: &NodeName) {
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

    /// The instance of each of these nodes, and what their jobs are told of it.
    pub async fn instances(&self, nodes: &[NodeName]) -> Vec<(Option<InstanceId>, Option<String>)> {
        let mut instances = Vec::new();
        for node in nodes {
            let pairing = self.pairing(node).await;
            let told = pairing.history.last().and_then(|step| step.reason.clone());
            instances.push((pairing.instance().cloned(), told));
        }
        instances
    }

    pub fn launched(&self) -> usize {
        self.port.with_ec2(|ec2| ec2.instances().count())
    }
}
