//! What happened to a node, kept in its record: for `spillway explain`, for the events that a site subscribes to, and for
//! whoever looks at the item in the console.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DueAction, Event, Pairing, PairingState};
use crate::name::{Generation, InstanceId};

/// How many steps are kept: two undisturbed lives of a node. With reasons of usual length they make an item 2 KB larger.
pub const MAX_HISTORY: usize = 12;

/// One thing that happened to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// The node's generation after it.
    pub generation: Generation,
    /// What.
    pub what: StepKind,
    /// The instance that it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Why, in the words that slurmctld or the job was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened to a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Slurm asked for it.
    Resumed,
    /// Slurm asked for it, and the policy or the hour refused.
    Refused,
    /// An instance was launched for it.
    Launched,
    /// No instance could be launched.
    NotLaunched,
    /// slurmctld took what it was told.
    Told,
    /// slurmctld did not take it, or something newer had come.
    NotTaken,
    /// slurmctld took its registration.
    Joined,
    /// It did not join.
    Failed,
    /// Its instance is about to go.
    Leaving,
    /// Its jobs are queued again.
    Requeued,
    /// Its instance went, or could serve no more.
    Gone,
    /// Slurm let it go.
    Suspended,
    /// Slurm holds it powered down; its instance was let go.
    Unwanted,
    /// It was wedged and is got out of that.
    Recovered,
}

impl StepKind {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Refused => "refused",
            Self::Launched => "launched",
            Self::NotLaunched => "not-launched",
            Self::Told => "told",
            Self::NotTaken => "not-taken",
            Self::Joined => "joined",
            Self::Failed => "failed",
            Self::Leaving => "leaving",
            Self::Requeued => "requeued",
            Self::Gone => "gone",
            Self::Suspended => "suspended",
            Self::Unwanted => "unwanted",
            Self::Recovered => "recovered",
        }
    }
}

impl Pairing {
    /// Adds what an accepted event was to the history. `before`: the record that the event met.
    pub(super) fn remember(&mut self, event: &Event, before: &Self, now_ms: u64) {
        let Some(what) = self.kind_of(event, before) else {
            return;
        };
        let reason = match event {
            Event::Launched { note, .. } => note.as_ref().map(|note| note.text.clone()),
            _ => self.reason_due().map(str::to_owned),
        };
        let instance = self.instance().or(before.instance()).cloned();
        let excess = (self.history.len() + 1).saturating_sub(MAX_HISTORY);
        self.history.drain(..excess);
        self.history.push(Step {
            at_ms: now_ms,
            generation: self.generation,
            what,
            instance,
            reason,
        });
    }

    fn kind_of(&self, event: &Event, before: &Self) -> Option<StepKind> {
        let is_free = self.state == PairingState::Free;
        Some(match event {
            Event::Resume { .. } if is_free => StepKind::Refused,
            Event::Resume { .. } => StepKind::Resumed,
            Event::Suspend { .. } => StepKind::Suspended,
            Event::Launched { .. } => StepKind::Launched,
            Event::NotLaunched { .. } => StepKind::NotLaunched,
            Event::Ready { .. } => StepKind::Joined,
            Event::Deadline { .. } if before.instance().is_none() => StepKind::NotLaunched,
            Event::Failed { .. } | Event::Deadline { .. } => StepKind::Failed,
            Event::Leaving { .. } if is_free => StepKind::Gone,
            Event::Leaving { .. } => StepKind::Leaving,
            Event::Requeue { .. } => StepKind::Requeued,
            Event::Gone { .. } => StepKind::Gone,
            Event::Unwanted { .. } => StepKind::Unwanted,
            Event::Wedged { .. } => StepKind::Recovered,
            Event::Acknowledged { .. } => StepKind::Told,
            Event::Dismissed { .. } => StepKind::NotTaken,
            // Told again: nothing new.
            Event::Unanswered { .. } => return None,
        })
    }

    fn reason_due(&self) -> Option<&str> {
        match &self.update_due.as_ref()?.action {
            DueAction::Address { .. } => None,
            DueAction::Fail { reason, .. }
            | DueAction::Drain { reason, .. }
            | DueAction::Requeue { reason }
            | DueAction::Recover { reason } => Some(reason),
        }
    }
}
