//! What the stack publishes for the site: one event for each step of a node's history, and one for each thing that a sweep
//! heals without such a step. A change of an item of the table is all that an event is made of, so a change that is seen
//! twice, or late, makes the same events again, with the same ids.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Policy;
use crate::name::{
    ClusterName, Generation, InstanceId, NodeGroupName, NodeName, PartitionName, RequestId,
};
use crate::pairing::{Step, StepKind};
use crate::sweep::{Finding, FindingKind, Heal, SweepReport};

/// `source` of every event.
pub const SOURCE: &str = "spillway";

/// Version of the details. A field that is added does not change it.
pub const DETAIL_VERSION: u32 = 1;

/// `detail-type` of an event: what a site's rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DetailType {
    /// A node came nearer to its jobs, or was let go.
    NodeStateChange,
    /// A node did not come, or its instance went.
    NodeFailure,
    /// A node has an instance, but not of the capacity kind that its node group names first.
    Fallback,
    /// What was wrong with a node was put right without anybody's asking.
    Healing,
    /// A sweep sets out to put something right that is no step of a node's.
    SweepHealing,
}

impl DetailType {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NodeStateChange,
        Self::NodeFailure,
        Self::Fallback,
        Self::Healing,
        Self::SweepHealing,
    ];

    /// As EventBridge has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeStateChange => "Spillway Node State Change",
            Self::NodeFailure => "Spillway Node Failure",
            Self::Fallback => "Spillway Fallback",
            Self::Healing => "Spillway Healing",
            Self::SweepHealing => "Spillway Sweep Healing",
        }
    }

    fn of(step: &Step) -> Self {
        match step.what {
            // The only reason that a launch gives is why it was not the first choice.
            StepKind::Launched if step.reason.is_some() => Self::Fallback,
            StepKind::Resumed
            | StepKind::Launched
            | StepKind::Told
            | StepKind::NotTaken
            | StepKind::Joined
            | StepKind::Leaving
            | StepKind::Suspended => Self::NodeStateChange,
            StepKind::Refused | StepKind::NotLaunched | StepKind::Failed | StepKind::Gone => {
                Self::NodeFailure
            }
            StepKind::Requeued | StepKind::Unwanted | StepKind::Recovered => Self::Healing,
        }
    }
}

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It has no instance, and none is wanted.
    Free,
    /// A launch is to bring an instance.
    Requested,
    /// It has an instance, which has yet to join.
    Launched,
    /// slurmctld has taken its registration.
    Ready,
}

/// `detail` of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Detail {
    /// Of a step of a node's history.
    Step(StepDetail),
    /// Of a sweep.
    Sweep(SweepDetail),
}

impl Detail {
    /// The same for the same event, however often it is published. EventBridge's own id is not.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Step(step) => &step.id,
            Self::Sweep(sweep) => &sweep.id,
        }
    }

    /// When it happened, Unix milliseconds.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Step(step) => step.at_ms,
            Self::Sweep(sweep) => sweep.at_ms,
        }
    }
}

/// `detail` of what happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepDetail {
    /// [`DETAIL_VERSION`].
    pub version: u32,
    /// The same for the same step, however often its event is published. EventBridge's own id is not.
    pub id: String,
    /// `ClusterName` of slurm.conf.
    pub cluster: ClusterName,
    /// The Slurm node.
    pub node: NodeName,
    /// Its node group; absent where the policy does not name the node, or cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_group: Option<NodeGroupName>,
    /// The Slurm partitions of its node group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<PartitionName>,
    /// The node's generation after the step.
    pub generation: Generation,
    /// The resume request last accepted for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The instance that the step was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// What happened.
    pub what: StepKind,
    /// Where the node stood before the change of its record that the step came with; absent for the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NodeState>,
    /// Where it stood after that.
    pub to: NodeState,
    /// Why, in the words that slurmctld or the job was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// `detail` of what a sweep heals that is no step of a node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SweepDetail {
    /// [`DETAIL_VERSION`].
    pub version: u32,
    /// The same for the same finding of the same sweep, however often its event is published.
    pub id: String,
    /// `ClusterName` of slurm.conf.
    pub cluster: ClusterName,
    /// What was found.
    pub what: FindingKind,
    /// Of which node, if of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Of which instance, if of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Of which resume request, if of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What was wrong, in the words of the sweep's log.
    pub reason: String,
    /// When the sweep looked, Unix milliseconds.
    pub at_ms: u64,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteEvent {
    /// What kind.
    pub detail_type: DetailType,
    /// What it says.
    pub detail: Detail,
}

/// A node's item as far as events are made of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NodeImage {
    /// The node.
    pub node: NodeName,
    /// Where it stands.
    pub state: NodeState,
    /// The resume request last accepted for it.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// What happened to it, the last at the end.
    #[serde(default)]
    pub history: Vec<Step>,
}

/// A change of an item of which events are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a node's.
    Node(NodeChange),
    /// The last sweep's report is another.
    Sweep(SweepChange),
}

impl Change {
    /// The events of what came with it, in order.
    #[must_use]
    pub fn events(&self, cluster: &ClusterName, policy: Option<&Policy>) -> Vec<SiteEvent> {
        match self {
            Self::Node(change) => change.events(cluster, policy),
            Self::Sweep(change) => change.events(cluster),
        }
    }
}

/// A change of a node's item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChange {
    /// The item before it; none if there was none.
    pub before: Option<NodeImage>,
    /// The item after it.
    pub after: NodeImage,
}

impl NodeChange {
    fn events(&self, cluster: &ClusterName, policy: Option<&Policy>) -> Vec<SiteEvent> {
        let known: &[Step] = self.before.as_ref().map_or(&[], |image| &image.history);
        let group = policy.and_then(|policy| policy.group_of(&self.after.node));
        let event = |step: &Step| SiteEvent {
            detail_type: DetailType::of(step),
            detail: Detail::Step(StepDetail {
                version: DETAIL_VERSION,
                id: self.id(cluster, step),
                cluster: cluster.clone(),
                node: self.after.node.clone(),
                node_group: group.map(|group| group.name.clone()),
                partitions: group.map_or_else(Vec::new, |group| group.partitions.clone()),
                generation: step.generation,
                request_id: self.after.request_id.clone(),
                instance_id: step.instance.clone(),
                what: step.what,
                from: self.before.as_ref().map(|image| image.state),
                to: self.after.state,
                reason: step.reason.clone(),
                at_ms: step.at_ms,
            }),
        };
        let new = self
            .after
            .history
            .iter()
            .filter(|step| !known.contains(step));
        new.map(event).collect()
    }

    fn id(&self, cluster: &ClusterName, step: &Step) -> String {
        let node = &self.after.node;
        let what = step.what.as_str();
        format!("{cluster}/{node}/{}/{}/{what}", step.generation, step.at_ms)
    }
}

/// A change of the last sweep's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepChange {
    /// The report of the sweep before; none if there is none that can be read.
    pub before: Option<SweepReport>,
    /// The report of this one.
    pub after: SweepReport,
}

impl SweepChange {
    /// What happens to nodes is their steps' to tell; what the sweep before set out to heal is no news.
    fn events(&self, cluster: &ClusterName) -> Vec<SiteEvent> {
        let at_ms = self.after.at_ms;
        let known: &[Finding] = self.before.as_ref().map_or(&[], |report| &report.findings);
        let known: Vec<_> = known.iter().filter_map(healed).collect();
        let event = |(index, finding): (usize, &Finding)| {
            let subject = healed(finding).filter(|subject| !known.contains(subject))?;
            Some(SiteEvent {
                detail_type: DetailType::SweepHealing,
                detail: Detail::Sweep(SweepDetail {
                    version: DETAIL_VERSION,
                    id: format!("{cluster}/sweep/{at_ms}/{index}"),
                    cluster: cluster.clone(),
                    what: subject.what,
                    node: subject.node.cloned(),
                    instance_id: subject.instance.cloned(),
                    request_id: subject.request.cloned(),
                    reason: finding.reason.clone(),
                    at_ms,
                }),
            })
        };
        let findings = self.after.findings.iter().enumerate();
        findings.filter_map(event).collect()
    }
}

/// What a sweep heals that is no step of a node's.
#[derive(Debug, PartialEq, Eq)]
struct Subject<'a> {
    what: FindingKind,
    node: Option<&'a NodeName>,
    instance: Option<&'a InstanceId>,
    request: Option<&'a RequestId>,
}

fn healed(finding: &Finding) -> Option<Subject<'_>> {
    let request = match finding.heal.as_ref()? {
        Heal::GoOn { launch } => Some(&launch.request_id),
        Heal::End | Heal::EndAgain | Heal::TellAgain { .. } => None,
        Heal::Fail
        | Heal::Drain { .. }
        | Heal::LetGo { .. }
        | Heal::Recover { .. }
        | Heal::Expire { .. } => return None,
    };
    Some(Subject {
        what: finding.what,
        node: finding.node.as_ref(),
        instance: finding.instance.as_ref(),
        request,
    })
}
