//! What is done about instances that are about to go, and what the sweep may do: bounds and defaults.

use super::{Check, MAX_NODES};
use crate::config::error::Path;
use crate::config::file::{NoticesFile, SweepFile};
use crate::config::healing::{
    DEFAULT_HEAD_NODE_AWAY_MINUTES, DEFAULT_SWEEP_GRACE_SECONDS, DEFAULT_SWEEP_MAX_INSTANCES,
    DEFAULT_SWEEP_MAX_PERCENT, MAX_HEAD_NODE_AWAY_MINUTES, MAX_REQUEUE_BEFORE_SECONDS,
    MAX_SWEEP_GRACE_SECONDS, MIN_HEAD_NODE_AWAY_MINUTES, MIN_REQUEUE_BEFORE_SECONDS,
    MIN_SWEEP_GRACE_SECONDS, NoticePolicy, SweepPolicy,
};

impl Check {
    pub fn notices(&mut self, file: &NoticesFile, path: &Path) {
        if let Some(seconds) = file.requeue_before_seconds {
            let path = path.key("requeue_before_seconds");
            let (least, most) = (MIN_REQUEUE_BEFORE_SECONDS, MAX_REQUEUE_BEFORE_SECONDS);
            self.within(&path, seconds, least, most);
        }
    }

    pub fn sweep(&mut self, file: &SweepFile, path: &Path) {
        let (least, most) = (MIN_HEAD_NODE_AWAY_MINUTES, MAX_HEAD_NODE_AWAY_MINUTES);
        for (key, number, least, most) in [
            ("max_percent", file.max_percent, 1, 100),
            ("max_instances", file.max_instances, 0, MAX_NODES),
            (
                "grace_seconds",
                file.grace_seconds,
                MIN_SWEEP_GRACE_SECONDS,
                MAX_SWEEP_GRACE_SECONDS,
            ),
            (
                "head_node_away_minutes",
                file.head_node_away_minutes,
                least,
                most,
            ),
        ] {
            if let Some(number) = number {
                self.within(&path.key(key), number, least, most);
            }
        }
    }
}

pub fn notices(file: &NoticesFile) -> NoticePolicy {
    let default = NoticePolicy::default();
    NoticePolicy {
        interruption: file.interruption.unwrap_or(default.interruption),
        rebalance: file.rebalance.unwrap_or(default.rebalance),
        maintenance: file.maintenance.unwrap_or(default.maintenance),
        requeue_before_seconds: file
            .requeue_before_seconds
            .unwrap_or(default.requeue_before_seconds),
        signal: file.signal.clone(),
        replace: file.replace,
    }
}

pub fn sweep(file: &SweepFile) -> SweepPolicy {
    SweepPolicy {
        max_percent: file.max_percent.unwrap_or(DEFAULT_SWEEP_MAX_PERCENT),
        max_instances: file.max_instances.unwrap_or(DEFAULT_SWEEP_MAX_INSTANCES),
        grace_seconds: file.grace_seconds.unwrap_or(DEFAULT_SWEEP_GRACE_SECONDS),
        head_node_away: file.head_node_away,
        head_node_away_minutes: file
            .head_node_away_minutes
            .unwrap_or(DEFAULT_HEAD_NODE_AWAY_MINUTES),
    }
}
