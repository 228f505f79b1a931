//! What was gathered, as it was found. Records of the table that only the functions write are read tolerantly: attributes
//! that an explanation does not need are left out here.

use std::collections::BTreeMap;

use serde::Deserialize;
use spillway_core::capacity::Capacity;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::RequestJob;
use spillway_core::name::{Generation, InstanceId, JobId, NodeGroupName, NodeName, RequestId};
use spillway_core::pairing::{DueUpdate, LaunchKey, Leaving, Step};
use spillway_core::plan::LaunchCall;
use spillway_core::record::{HeartbeatRecord, InstanceRecord, NodeStatesRecord, RequestRecord};
use spillway_core::sweep::{Finding, SweepReport};

use crate::slurm::{JobView, NodeRow};

/// What a source said: something, that there is nothing, or in words why it could not be asked.
pub type Read<T> = Result<Option<T>, String>;

/// What can be known of a node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Which.
    pub node: NodeName,
    /// Its node group in this machine's configuration.
    pub node_group: Option<NodeGroupName>,
    /// Our record of it.
    pub record: Read<NodeItem>,
    /// Its instance, or the one that it had last.
    pub instance: Read<InstanceRecord>,
    /// The part of the last resume request that names it.
    pub request: Read<RequestRecord>,
    /// The calls to EC2 that were made for it.
    pub attempts: Vec<Attempt>,
    /// What EC2 has run out of.
    pub capacity: Read<Capacity>,
    /// What the agent said of slurmctld's state of it.
    pub reported: Read<Reported>,
    /// What the last sweep found of it.
    pub sweep: Read<Swept>,
    /// What slurmctld says now.
    pub slurm: Read<NodeRow>,
    /// What the head node's own files say.
    pub local: Read<Local>,
    /// What does not hang on the node.
    pub site: SiteFacts,
}

/// What is the same for every node.
#[derive(Debug, Clone)]
pub struct SiteFacts {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The agent's last sign of life.
    pub heartbeat: Read<HeartbeatRecord>,
    /// Dead-letter queues that hold something, with how much.
    pub dead_letters: Result<Vec<(String, u64)>, String>,
}

/// A node's item.
#[derive(Debug, Clone, Deserialize)]
pub struct NodeItem {
    /// That of the last request accepted for it.
    pub generation: Generation,
    /// Where it stands.
    pub state: NodeStanding,
    /// The resume request last accepted.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// The request that its instance comes from.
    #[serde(default)]
    pub launch_request_id: Option<RequestId>,
    /// Its part.
    #[serde(default)]
    pub launch_part: Option<u32>,
    /// The instance that serves it.
    #[serde(default)]
    pub instance_id: Option<InstanceId>,
    /// When it must have joined, Unix milliseconds.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// The instance last let go.
    #[serde(default)]
    pub released_instance_id: Option<InstanceId>,
    /// Its instance is about to go.
    #[serde(default)]
    pub leaving: Option<Leaving>,
    /// What happened to it.
    #[serde(default)]
    pub history: Vec<Step>,
    /// What slurmctld has yet to acknowledge.
    #[serde(default)]
    pub update_due: Option<DueUpdate>,
}

/// Where a node stands with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeStanding {
    /// No instance, and none wanted.
    Free,
    /// A launch is to bring an instance.
    Requested,
    /// An instance is there and has yet to join.
    Launched,
    /// It has joined.
    Ready,
}

impl NodeItem {
    /// The launch that its instance comes from, where the item says so.
    pub fn launch(&self) -> Option<LaunchKey> {
        let (request_id, part) = (self.launch_request_id.clone()?, self.launch_part?);
        Some(LaunchKey { request_id, part })
    }

    /// The last step that changed something for the node, and not only what slurmctld was told.
    pub fn last_step(&self) -> Option<&Step> {
        use spillway_core::pairing::StepKind::{NotTaken, Requeued, Told};
        let is_change = |step: &&Step| !matches!(step.what, Told | NotTaken | Requeued);
        self.history.iter().rev().find(is_change)
    }
}

/// A call to EC2 and what came of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// The call.
    pub call: LaunchCall,
    /// None while it is not known.
    #[serde(default)]
    pub answer: Option<Answer>,
}

/// What EC2 answered.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// What was launched.
    pub instances: Vec<InstanceId>,
    /// Why not more.
    #[serde(default)]
    pub shortages: Vec<Shortage>,
}

/// Why a call launched less.
#[derive(Debug, Clone, Deserialize)]
pub struct Shortage {
    /// What EC2 said.
    pub fault: Fault,
}

/// In AWS's words.
#[derive(Debug, Clone, Deserialize)]
pub struct Fault {
    /// Its code.
    pub code: String,
    /// Its words.
    pub message: String,
}

/// slurmctld's state of a node as the agent last reported it.
#[derive(Debug, Clone)]
pub struct Reported {
    /// When slurmctld was asked, Unix milliseconds.
    pub observed_ms: u64,
    /// Its state and reason; none if slurmctld did not show the node.
    pub state: Option<(String, Option<String>)>,
}

impl Reported {
    /// Of this node.
    pub fn of(record: &NodeStatesRecord, node: &NodeName) -> Self {
        let mut groups = record.states.iter();
        let own = groups.find(|group| names(&group.nodes, node));
        Self {
            observed_ms: record.observed_ms,
            state: own.map(|group| (group.state.clone(), group.reason.clone())),
        }
    }
}

/// What the last sweep found.
#[derive(Debug, Clone)]
pub struct Swept {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Of this node.
    pub findings: Vec<Finding>,
}

impl Swept {
    /// Of this node.
    pub fn of(report: &SweepReport, node: &NodeName) -> Self {
        let findings = report.findings.iter();
        let own = findings.filter(|finding| finding.node.as_ref() == Some(node));
        Self {
            at_ms: report.at_ms,
            findings: own.cloned().collect(),
        }
    }
}

/// What the head node's own files say of a node.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// The last request stamped for it here, and whether that was a resume.
    pub stamped: Option<(Generation, bool)>,
    /// Requests for it that are not sent, oldest first.
    pub waiting: Vec<Waiting>,
}

/// A request in the spool.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Which.
    pub request_id: RequestId,
    /// When Slurm called, Unix milliseconds.
    pub at_ms: u64,
    /// A resume; else a suspend.
    pub resume: bool,
    /// When its nodes must have joined, Unix milliseconds.
    pub deadline_ms: Option<u64>,
}

/// What can be known of a request.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// Which.
    pub request_id: RequestId,
    /// Its parts as far as they are recorded; or why they cannot be read.
    pub parts: Result<Vec<Part>, String>,
    /// The request as it waits in the spool here.
    pub local: Read<Waiting>,
    /// How its nodes stand now, those that were looked at.
    pub nodes: BTreeMap<NodeStanding, Vec<NodeName>>,
    /// What does not hang on it.
    pub site: SiteFacts,
}

/// One part of a request.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its record.
    pub record: RequestRecord,
    /// The calls to EC2 that were made for it.
    pub attempts: Vec<Attempt>,
}

/// What can be known of a job.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// Which.
    pub job: JobId,
    /// What slurmctld says of it.
    pub slurm: Read<JobView>,
    /// Its nodes, the first of them.
    pub nodes: Vec<NodeFacts>,
    /// How many were not looked at.
    pub left_out: usize,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// Whether a hostlist names a node.
pub fn names(hostlist: &str, node: &NodeName) -> bool {
    Hostlist::parse(hostlist).is_ok_and(|list| list.iter().any(|name| name == node.as_str()))
}

/// The jobs of a request that wait for this node.
pub fn jobs_of<'a>(request: &'a RequestRecord, node: &NodeName) -> Vec<&'a RequestJob> {
    let jobs = request.request.jobs.iter();
    jobs.filter(|job| names(&job.nodes_resume, node)).collect()
}
