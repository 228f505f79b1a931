//! What Slurm asks for, on the resume and the suspend queue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{Generation, InstanceId, JobId, RequestId};

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
    /// At most [`crate::plan::MAX_TERMINATE_IDS`].
    pub instance_ids: Vec<InstanceId>,
}
