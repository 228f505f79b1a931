//! Which jobs were sent a signal of late: once for a run of a job, though several of its nodes are about to go and
//! each is told of by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use spillway_core::envelope::ENVELOPE_LIFE_MS;
use spillway_core::name::JobId;

/// For how long a run of a job is not sent a second signal: the notices of its other nodes come within it, and later
/// ones are news. An envelope lives as long.
const ONCE_MS: u64 = ENVELOPE_LIFE_MS;

/// By job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signals(BTreeMap<String, Sent>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Sent {
    /// When the job's run began, Unix seconds: one that was queued again runs anew.
    start_seconds: u64,
    /// Unix milliseconds.
    at_ms: u64,
}

impl Sent {
    fn counts(self, now_ms: u64) -> bool {
        now_ms < self.at_ms.saturating_add(ONCE_MS)
    }
}

impl Signals {
    /// Takes note of a signal to this run of a job; false if it had one of late.
    pub fn is_first(&mut self, job: &JobId, start_seconds: u64, now_ms: u64) -> bool {
        self.0.retain(|_, sent| sent.counts(now_ms));
        let at_ms = now_ms;
        let sent = Sent {
            start_seconds,
            at_ms,
        };
        let before = self.0.insert(job.to_string(), sent);
        let Some(before) = before.filter(|before| before.start_seconds == start_seconds) else {
            return true;
        };
        // It does not count for longer because it was asked for again.
        self.0.insert(job.to_string(), before);
        false
    }

    /// Takes in what another process has noted.
    pub fn take_in(&mut self, theirs: Self, now_ms: u64) {
        for (job, sent) in theirs.0 {
            let ours = self.0.get(&job).map_or(0, |ours| ours.at_ms);
            if sent.counts(now_ms) && sent.at_ms > ours {
                self.0.insert(job, sent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_signal_for_a_run() {
        let mut signals = Signals::default();
        for (job, start_seconds, now_ms, first) in [
            ("7", 100, 0, true),
            ("7", 100, 1, false),
            ("8", 100, 1, true),
            // Queued again and started.
            ("7", 160, 2, true),
            ("7", 160, ONCE_MS + 1, false),
            ("7", 160, ONCE_MS + 2, true),
        ] {
            let job = JobId::new(job).unwrap();
            let said = signals.is_first(&job, start_seconds, now_ms);
            assert_eq!(said, first, "{job} {start_seconds} {now_ms}");
        }
    }

    #[test]
    fn what_another_process_has_sent_counts() {
        let job = JobId::new("7").unwrap();
        let (mut one, mut other) = (Signals::default(), Signals::default());
        assert!(one.is_first(&job, 100, 5));
        other.take_in(one.clone(), 6);
        assert!(!other.is_first(&job, 100, 6));
        one.take_in(other, ONCE_MS + 6);
        assert!(one.is_first(&job, 100, ONCE_MS + 6));
    }
}
