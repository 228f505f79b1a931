//! What travels on the queues: versioned messages, their bounds, and how a reader takes them apart.
//!
//! Every body is `{"version":1,"cluster":"…","body":{"kind":"…",…}}`. A reader takes unknown fields and
//! older versions, refuses newer ones, and refuses another cluster's message.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::{ClusterName, Generation, InstanceId, JobId, NodeName, RequestId};

/// The version this build writes, and the newest it reads.
pub const MESSAGE_VERSION: u32 = 1;

/// The largest body a client sends. SQS takes 1 MiB; a quarter of it leaves room for attributes, keeps a
/// Lambda batch of ten below its 6 MB and a request record below DynamoDB's 400 KB.
pub const MAX_REQUEST_BYTES: usize = 200_000;

/// The largest body a reader looks at: SQS's own limit of 1 MiB.
pub const MAX_BODY_BYTES: usize = 1_048_576;

/// The largest envelope of updates. SSM documents carry at most 64 KB with parameters; base64 and the
/// signature must fit too, and one road must carry what the other does.
pub const MAX_ENVELOPE_BYTES: usize = 24_000;

/// How long an envelope may be applied after it was issued.
pub const ENVELOPE_LIFE_MS: u64 = 10 * 60 * 1000;

/// The longest reason we put into Slurm's `Reason=`; longer text is cut. scontrol and sinfo stay readable.
pub const MAX_REASON_CHARS: usize = 240;

/// The outermost shape of every message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message<T> {
    /// The writer's [`MESSAGE_VERSION`].
    pub version: u32,
    /// The cluster whose control plane this is for.
    pub cluster: ClusterName,
    /// What is said.
    pub body: T,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// More bytes than SQS itself would carry.
    #[error("message of {bytes} bytes is over the limit of {MAX_BODY_BYTES}")]
    TooLarge {
        /// Length of the body.
        bytes: usize,
    },
    /// Not JSON, or not of the expected shape.
    #[error("message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer Spillway.
    #[error(
        "message has version {found}, this build reads up to {MESSAGE_VERSION}: update this side first"
    )]
    Newer {
        /// The version in the message.
        found: u32,
    },
    /// For another control plane.
    #[error("message is for cluster {found:?}, this is {own:?}")]
    OtherCluster {
        /// The cluster in the message.
        found: String,
        /// Ours.
        own: String,
    },
}

impl<T: Serialize> Message<T> {
    /// A message of this build's version.
    pub fn new(cluster: ClusterName, body: T) -> Self {
        Self {
            version: MESSAGE_VERSION,
            cluster,
            body,
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages hold only strings, numbers and lists")
    }
}

impl<T: DeserializeOwned> Message<T> {
    /// Reads one body, for `own` cluster only.
    pub fn parse(text: &str, own: &ClusterName) -> Result<T, MessageError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            cluster: String,
        }
        if text.len() > MAX_BODY_BYTES {
            return Err(MessageError::TooLarge { bytes: text.len() });
        }
        let head: Head = serde_json::from_str(text)?;
        if head.version > MESSAGE_VERSION {
            return Err(MessageError::Newer {
                found: head.version,
            });
        }
        if head.cluster != own.as_str() {
            return Err(MessageError::OtherCluster {
                found: head.cluster,
                own: own.to_string(),
            });
        }
        Ok(serde_json::from_str::<Self>(text)?.body)
    }
}

/// What the resume queue carries, for `launch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ResumeQueueBody {
    /// Slurm wants nodes.
    Resume(ResumeRequest),
    /// Timer: go on with a launch that had to wait.
    Continue(ContinueLaunch),
}

/// Slurm's call of ResumeProgram, or a part of it that fits into one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResumeRequest {
    /// One per call of ResumeProgram; all parts share it.
    pub request_id: RequestId,
    /// Stamped when Slurm called; all parts share it.
    pub generation: Generation,
    /// 1-based.
    pub part: u32,
    /// How many parts the call was split into.
    pub parts: u32,
    /// When the node must have joined, Unix milliseconds: before Slurm's own ResumeTimeout.
    pub deadline_ms: u64,
    /// Hostlist of the nodes of this part.
    pub nodes: String,
    /// The jobs the nodes are for. Empty after `scontrol power up`.
    #[serde(default)]
    pub jobs: Vec<RequestJob>,
}

/// One job of SLURM_RESUME_FILE, with what the agent knew of it besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RequestJob {
    /// Slurm's job id.
    pub job_id: JobId,
    /// Hostlist: the job's nodes that this call resumes.
    pub nodes_resume: String,
    /// Hostlist: all nodes of the job (since 23.02).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_alloc: Option<String>,
    /// Since 23.02, else from the jobs file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The job's constraint expression (since 23.02), else from the jobs file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// From the jobs file; absent for a job the agent had not yet seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// From the jobs file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// Timer on the resume queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContinueLaunch {
    /// Which request.
    pub request_id: RequestId,
    /// Which part of it.
    pub part: u32,
    /// How often this work was put off: a re-sent message starts with a fresh receive count, so the bound
    /// on tries travels in the body.
    pub attempt: u32,
}

/// What the suspend queue carries, for `terminate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SuspendQueueBody {
    /// Slurm no longer wants nodes.
    Suspend(SuspendRequest),
    /// Our own control plane let go of instances; their items say so.
    Release(ReleaseInstances),
}

/// Slurm's call of SuspendProgram or ResumeFailProgram, or the agent's undoing of a resume it could not
/// send in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuspendRequest {
    /// One per call.
    pub request_id: RequestId,
    /// Stamped when Slurm called.
    pub generation: Generation,
    /// 1-based.
    pub part: u32,
    /// How many parts the call was split into.
    pub parts: u32,
    /// Why the nodes are let go.
    pub cause: SuspendCause,
    /// Hostlist.
    pub nodes: String,
}

/// Which hook asked for a suspend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SuspendCause {
    /// SuspendProgram: idle, or powered down by an administrator.
    Suspend,
    /// ResumeFailProgram: Slurm's ResumeTimeout passed. SuspendProgram is not called then.
    ResumeFail,
    /// The agent could not send the resume before its deadline.
    Expired,
}

/// Wakes `terminate` for instances whose items are marked released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseInstances {
    /// At most [`MAX_RELEASE_IDS`].
    pub instance_ids: Vec<InstanceId>,
}

/// EC2 takes 1,000 ids in TerminateInstances; half of it keeps the answer and a retry small.
pub const MAX_RELEASE_IDS: usize = 500;

/// What the reports queue carries, for `report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ReportBody {
    /// The agent: what became of an envelope's updates.
    Acknowledge(Acknowledge),
    /// The agent lives.
    Heartbeat(Heartbeat),
    /// The agent: what slurmctld says of the cloud nodes.
    NodeStates(NodeStates),
    /// A burst node: slurmctld has taken its registration.
    Ready(NodeReady),
    /// A burst node: it cannot join.
    Failed(NodeFailed),
    /// Timer: send again what is still unacknowledged.
    Resend(Resend),
    /// Timer: fail what has not joined.
    JoinDeadline(JoinDeadline),
}

/// What became of the updates of one envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledge {
    /// [`Envelope::envelope_id`].
    pub envelope_id: String,
    /// One per update, or finer where nodes of one update fared differently.
    pub results: Vec<UpdateResult>,
}

/// What became of one update, for some of its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateResult {
    /// Hostlist.
    pub nodes: String,
    /// [`Update::generation`].
    pub generation: Generation,
    /// [`Update::number`].
    pub number: u64,
    /// What happened.
    pub outcome: UpdateOutcome,
}

/// How an update ended at the head node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum UpdateOutcome {
    /// scontrol took it, or it was already so.
    Applied,
    /// It does not answer the last request stamped for the node, or Slurm's state no longer fits.
    Stale {
        /// What stood against it.
        reason: String,
    },
    /// scontrol refused it.
    Refused {
        /// scontrol's own words.
        reason: String,
    },
}

/// Sent every [`HEARTBEAT_SECONDS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The agent's clock, Unix milliseconds.
    pub sent_ms: u64,
    /// First after a start or after the network came back: asks for all that is due now.
    pub hello: bool,
    /// As `scontrol --version` says; absent while slurmctld does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_version: Option<String>,
    /// Requests in the spool not yet sent.
    pub spooled: u64,
}

/// How often the agent reports that it lives.
pub const HEARTBEAT_SECONDS: u64 = 30;

/// An agent not heard of for this long is away: three heartbeats missed.
pub const HEARTBEAT_STALE_MS: u64 = 100_000;

/// What slurmctld says of the cloud nodes, all of them, folded by state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStates {
    /// When slurmctld was asked, Unix milliseconds.
    pub observed_ms: u64,
    /// State as scontrol prints it (`IDLE+CLOUD+POWERED_DOWN`) and the nodes in it as a hostlist.
    pub states: Vec<NodesInState>,
}

/// Nodes that share a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodesInState {
    /// `+`-joined flags.
    pub state: String,
    /// Hostlist.
    pub nodes: String,
}

/// A burst node has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeReady {
    /// The sender.
    pub instance_id: InstanceId,
    /// The node it serves.
    pub node: NodeName,
    /// The generation it joined for.
    pub generation: Generation,
}

/// A burst node cannot join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeFailed {
    /// The sender.
    pub instance_id: InstanceId,
    /// The node it serves, where it got to know that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// What failed, in words for Slurm's Reason.
    pub reason: String,
}

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resend {
    /// Hostlist of the nodes whose update was sent.
    pub nodes: String,
    /// How often it was sent again before.
    pub attempt: u32,
}

/// Timer on the reports queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JoinDeadline {
    /// Hostlist of the nodes to look at.
    pub nodes: String,
    /// Only those still at this generation are meant.
    pub generation: Generation,
    /// When, Unix milliseconds. Later than a delayed message reaches (900 s) means: renew.
    pub deadline_ms: u64,
}

/// What the updates queue carries, for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Random; an envelope is accepted once.
    pub envelope_id: String,
    /// Unix milliseconds.
    pub issued_ms: u64,
    /// Not applied after this, Unix milliseconds.
    pub expires_ms: u64,
    /// What to tell slurmctld.
    pub updates: Vec<Update>,
}

/// One thing to tell slurmctld about some nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// Hostlist.
    pub nodes: String,
    /// The generation that this answers: applied only if it is the last one stamped for the node.
    pub generation: Generation,
    /// Orders updates of one node within a generation.
    pub number: u64,
    /// The resume request that this answers, so that logs can be followed from Slurm's call to scontrol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// What to do.
    pub action: UpdateAction,
}

/// What slurmctld is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum UpdateAction {
    /// NodeAddr of each node, in the order of the hostlist.
    Address {
        /// As many as the hostlist has nodes.
        addresses: Vec<IpAddr>,
    },
    /// The node will not come: down with our reason, then powered down by force, so that its jobs are
    /// requeued at once and not at ResumeTimeout.
    Fail {
        /// For `Reason=`, at most [`MAX_REASON_CHARS`].
        reason: String,
    },
}
