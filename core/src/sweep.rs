//! The sweep: what EC2, our records and Slurm say of a cluster, side by side, and what is to be healed. [`plan_sweep`] is
//! pure: it takes a [`Snapshot`] and the [`Marks`] of earlier sweeps and answers a [`SweepPlan`] that leaves nothing to
//! choose to its execution.
//!
//! What may be a moment's difference between two readings is only marked, and healed when a later sweep finds it again:
//! EC2 shows what is new late, a message may be on its way, Slurm's states are half a minute old.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{NoticePolicy, SweepPolicy};
use crate::name::{Generation, InstanceId, NodeName, Signal};
use crate::pairing::{LaunchKey, Pairing};
use crate::plan::InstanceState;

mod instances;
mod limit;
mod marks;
mod nodes;
mod records;
mod report;
mod summary;

pub use instances::unowned;
pub use marks::{Mark, Marks};
pub use nodes::{HELD_DOWN, REGISTERED_AS_IT, REGISTRATION_REFUSED};
pub use report::{SlurmNode, SlurmReport};
pub use summary::{LAST_REPORT, MAX_LISTED, SweepReport};

/// Slurm's node states older than this say nothing any more: three reports missed.
pub const SLURM_REPORT_STALE_MS: u64 = 120_000;
/// A finding is acted on if it was there this long ago already: sweeps come every minute, and two that were asked for by
/// hand within seconds confirm nothing.
pub const CONFIRM_MS: u64 = 45_000;
/// How long after a deadline its own timer may still be on its way.
pub const LATE_MS: u64 = 30_000;

/// All that a sweep sees.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// What EC2 shows with the cluster's tag, read before anything else.
    pub instances: BTreeMap<InstanceId, SeenInstance>,
    /// Our items of these, and of those that pairings name.
    pub records: BTreeMap<InstanceId, KnownInstance>,
    /// The nodes that something is going on with.
    pub pairings: BTreeMap<NodeName, Pairing>,
    /// The launches that pairings wait for and instances without a node came from.
    pub requests: BTreeMap<LaunchKey, SeenRequest>,
    /// slurmctld's states as last reported, however long ago; older than [`SLURM_REPORT_STALE_MS`] they count for nothing
    /// but whether a node ran a job when the head node fell silent.
    pub slurm: Option<SlurmReport>,
    /// What the agent said last.
    pub head_node: HeadNode,
    /// What the site lets the sweep do.
    pub policy: SweepPolicy,
    /// What the site does with nodes whose instances are about to go: of those whose instances fail EC2's status checks.
    pub notices: BTreeMap<NodeName, NoticePolicy>,
    /// `SuspendTimeout` of slurm.conf.
    pub suspend_timeout_ms: u64,
}

/// What EC2 shows of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenInstance {
    /// Where it stands.
    pub life: Life,
    /// When EC2 launched it, Unix milliseconds.
    pub launched_ms: u64,
    /// It bears the tag that protects it.
    pub is_held: bool,
    /// A status check of EC2's fails.
    pub is_impaired: bool,
    /// The launch that its tags name.
    pub launch: Option<LaunchKey>,
}

/// Where an instance stands in EC2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// `pending` or `running`.
    Alive,
    /// `stopping` or `stopped`: it serves nobody and still costs its disk.
    Stopped,
    /// `shutting-down` or `terminated`.
    Ended,
}

/// What our item says of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownInstance {
    /// Where it stands with us.
    pub state: InstanceState,
    /// The node it serves or served.
    pub node: Option<NodeName>,
    /// An operator protects it.
    pub is_held: bool,
}

/// What our record says of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// Everything was done that could be.
    pub is_done: bool,
    /// Until when the worker that last took it may be at it, Unix milliseconds.
    pub lease_until_ms: u64,
    /// When its nodes must have joined, Unix milliseconds.
    pub deadline_ms: u64,
}

/// What the agent said last of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadNode {
    /// When it was last heard of, Unix milliseconds; none if it never was.
    pub heard_ms: Option<u64>,
    /// When Slurm called for the oldest request that is not sent, Unix milliseconds.
    pub oldest_spooled_ms: Option<u64>,
}

/// What a sweep found, and what it does about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub what: FindingKind,
    /// Of which node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Of which instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// In words, for the log and for Slurm's Reason.
    pub reason: String,
    /// What is done; none where it is only marked, or where nothing can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal: Option<Heal>,
}

impl Finding {
    fn of(what: FindingKind, pairing: &Pairing, reason: String, heal: Option<Heal>) -> Self {
        Self {
            what,
            node: Some(pairing.node.clone()),
            instance: pairing.instance().cloned(),
            reason,
            heal,
        }
    }
}

/// What a sweep finds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An instance that no pairing owns.
    Orphan,
    /// An instance that was let go and still runs.
    StillRuns,
    /// An instance that is kept by a hold.
    Held,
    /// A node whose instance EC2 has ended or stopped.
    InstanceGone,
    /// A node whose instance EC2 does not know.
    InstanceUnknown,
    /// A node whose instance fails EC2's status checks.
    Impaired,
    /// A node that was drained and is free of jobs now.
    Drained,
    /// An instance that runs although Slurm holds its node powered down.
    Unwanted,
    /// A node that something else than its instance registered for.
    Stranger,
    /// A node that Slurm holds down, or whose registration it refuses, although its instance runs.
    Down,
    /// A node in a state that Slurm does not get it out of.
    Wedged,
    /// A node that has not joined by its deadline.
    Late,
    /// An update that nobody acknowledged and no timer looks after.
    Untold,
    /// A launch that nobody works on.
    Stalled,
    /// The head node is silent.
    HeadNodeSilent,
    /// Requests wait at the head node.
    SpoolStuck,
}

/// One thing that a sweep does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "heal", rename_all = "kebab-case")]
pub enum Heal {
    /// The instance is marked released and ended.
    End,
    /// It is released already; its end is asked for again.
    EndAgain,
    /// [`crate::pairing::Event::Gone`].
    Fail,
    /// [`crate::pairing::Event::Leaving`], as the site has it for maintenance.
    Drain {
        /// Sent to the jobs on the node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<Signal>,
        /// Another node is powered up at once.
        #[serde(default)]
        replace: bool,
    },
    /// [`crate::pairing::Event::Unwanted`] of this generation.
    LetGo {
        /// The node's last request.
        generation: Generation,
    },
    /// [`crate::pairing::Event::Wedged`] of this generation.
    Recover {
        /// The node's last request at the head node, as a number; 0 for none.
        generation: u64,
    },
    /// [`crate::pairing::Event::Deadline`] of this generation.
    Expire {
        /// The node's last request.
        generation: Generation,
    },
    /// [`crate::pairing::Event::Unanswered`] of this attempt.
    TellAgain {
        /// The attempt that went unanswered.
        attempt: u32,
    },
    /// The launch goes on.
    GoOn {
        /// Which.
        launch: LaunchKey,
    },
}

impl Heal {
    /// Whether it takes an instance away that may still be of use: what the site limits.
    #[must_use]
    pub fn takes_away(&self, what: FindingKind) -> bool {
        // What EC2 has taken is gone whatever we do, and a site that lets nodes go when the head node is silent means it.
        let by_itself = [
            FindingKind::InstanceGone,
            FindingKind::HeadNodeSilent,
            FindingKind::StillRuns,
            FindingKind::Drained,
        ];
        !by_itself.contains(&what) && matches!(self, Self::End | Self::Fail | Self::LetGo { .. })
    }
}

/// What a sweep does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepPlan {
    /// In the order in which they are healed.
    pub findings: Vec<Finding>,
    /// To be kept for the next sweep.
    pub marks: Marks,
    /// Why nothing is taken away this time.
    pub stopped: Option<String>,
}

/// Plans a sweep. Everything is looked at; what is healed leaves at most one step for a node or instance.
#[must_use]
pub fn plan_sweep(snapshot: &Snapshot, earlier: &Marks) -> SweepPlan {
    let mut sweep = Sweep {
        snapshot,
        marks: marks::Marking::new(earlier, snapshot.now_ms),
        findings: Vec::new(),
    };
    sweep.pairings();
    sweep.launches();
    sweep.unowned_instances();
    sweep.slurm_nodes();
    sweep.spool();
    let mut findings = sweep.findings;
    let stopped = limit::stop(&mut findings, snapshot);
    SweepPlan {
        findings,
        marks: sweep.marks.into_marks(),
        stopped,
    }
}

/// A sweep being planned.
struct Sweep<'a> {
    snapshot: &'a Snapshot,
    marks: marks::Marking<'a>,
    findings: Vec<Finding>,
}

impl Sweep<'_> {
    /// How long a finding must have lasted.
    fn confirm_ms(&self) -> u64 {
        CONFIRM_MS.min(self.grace_ms())
    }

    fn grace_ms(&self) -> u64 {
        u64::from(self.snapshot.policy.grace_seconds) * 1000
    }

    /// Of each node with something going on, the first thing that is wrong: the surest is looked for first.
    fn pairings(&mut self) {
        for pairing in self.snapshot.pairings.values() {
            let found = self
                .of_ec2(pairing)
                .or_else(|| self.of_time(pairing))
                .or_else(|| self.of_slurm(pairing))
                .or_else(|| self.of_head_node(pairing));
            self.findings.extend(found);
        }
    }
}
