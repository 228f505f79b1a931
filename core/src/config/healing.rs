//! What is done about instances that are about to go, and what the sweep may do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::Signal;

/// How long before an instance's end its jobs are queued again where the site says nothing: a spot notice gives two
/// minutes, and requeueing takes slurmctld and the epilogue some seconds.
pub const DEFAULT_REQUEUE_BEFORE_SECONDS: u32 = 30;
/// Less leaves the head node no time to be told.
pub const MIN_REQUEUE_BEFORE_SECONDS: u32 = 5;
/// Beyond a spot notice's two minutes there is no warning to be early in.
pub const MAX_REQUEUE_BEFORE_SECONDS: u32 = 120;

/// What is done with the nodes of a partition when their instances are about to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticePolicy {
    /// EC2 takes the instance: a spot interruption, or the end of a reservation or capacity block.
    pub interruption: NoticeAction,
    /// EC2 recommends to leave a spot instance that it may take soon.
    pub rebalance: NoticeAction,
    /// AWS announces work on the instance's host, or EC2's status checks fail.
    pub maintenance: NoticeAction,
    /// How long before the end jobs are queued again.
    pub requeue_before_seconds: u32,
    /// Sent to the jobs on the node when the notice comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
    /// Another node of the group is powered up at once, from another pool.
    #[serde(default)]
    pub replace: bool,
}

impl Default for NoticePolicy {
    fn default() -> Self {
        Self {
            interruption: NoticeAction::Requeue,
            rebalance: NoticeAction::Ignore,
            maintenance: NoticeAction::Drain,
            requeue_before_seconds: DEFAULT_REQUEUE_BEFORE_SECONDS,
            signal: None,
            replace: false,
        }
    }
}

/// What is done with a node whose instance is about to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeAction {
    /// Nothing, until it is gone.
    Ignore,
    /// No new job starts there; those that run may end.
    Drain,
    /// Drained, and shortly before the end its batch jobs are queued again.
    Requeue,
}

/// The share of instances that one sweep may let go where the site says nothing.
pub const DEFAULT_SWEEP_MAX_PERCENT: u32 = 20;
/// As many a sweep may let go whatever their share: in a small cluster one lost instance is a large share.
pub const DEFAULT_SWEEP_MAX_INSTANCES: u32 = 10;
/// How old an instance must be before it is an orphan if nobody owns it, where the site says nothing: as long as two
/// invocations of `launch` may take.
pub const DEFAULT_SWEEP_GRACE_SECONDS: u32 = 120;
/// Less leaves a launch no time to pair what it has launched.
pub const MIN_SWEEP_GRACE_SECONDS: u32 = 5;
/// An hour: more is a bill.
pub const MAX_SWEEP_GRACE_SECONDS: u32 = 3_600;
/// How long a silent head node leaves everything as it is where the site says nothing.
pub const DEFAULT_HEAD_NODE_AWAY_MINUTES: u32 = 60;
/// Less than a reboot of the head node takes is no absence.
pub const MIN_HEAD_NODE_AWAY_MINUTES: u32 = 5;
/// A week.
pub const MAX_HEAD_NODE_AWAY_MINUTES: u32 = 7 * 24 * 60;

/// What the sweep may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPolicy {
    /// One that would let go more instances than this share, in percent, and more than `max_instances`, lets none go.
    pub max_percent: u32,
    /// See `max_percent`.
    pub max_instances: u32,
    /// How old an instance must be before it is an orphan if nobody owns it, in seconds.
    pub grace_seconds: u32,
    /// What becomes of burst nodes when the head node is silent.
    pub head_node_away: HeadNodeAway,
    /// From when on it counts as silent, in minutes.
    pub head_node_away_minutes: u32,
}

impl Default for SweepPolicy {
    fn default() -> Self {
        Self {
            max_percent: DEFAULT_SWEEP_MAX_PERCENT,
            max_instances: DEFAULT_SWEEP_MAX_INSTANCES,
            grace_seconds: DEFAULT_SWEEP_GRACE_SECONDS,
            head_node_away: HeadNodeAway::Keep,
            head_node_away_minutes: DEFAULT_HEAD_NODE_AWAY_MINUTES,
        }
    }
}

/// What becomes of burst nodes when the head node is silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HeadNodeAway {
    /// They run on.
    #[default]
    Keep,
    /// Those that ran no job when slurmctld was last heard of are terminated.
    Drain,
    /// They are terminated.
    Terminate,
}
