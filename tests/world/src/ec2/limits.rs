//! AWS's default API token buckets (EC2 developer guide, "Request throttling for the Amazon EC2 API"): each
//! API action has a bucket of requests; `RunInstances` and `TerminateInstances` have one of instances too.
//! A call that finds too few tokens is refused with `RequestLimitExceeded` and takes none.

use std::collections::BTreeMap;

use super::Ec2;
use super::error::{Ec2Error, Ec2Result};

/// Size and refill a second of one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    size: u64,
    refill_per_second: u64,
}

const fn rate(size: u64, refill_per_second: u64) -> Rate {
    Rate {
        size,
        refill_per_second,
    }
}

const RUN_REQUESTS: Rate = rate(5, 2);
const TERMINATE_REQUESTS: Rate = rate(100, 5);
const TAG_REQUESTS: Rate = rate(100, 10);
const MUTATING: Rate = rate(50, 5);
const DESCRIBE: Rate = rate(100, 20);
/// `DescribeInstances` and the like, called with neither ids, filters nor paging.
const DESCRIBE_PLAIN: Rate = rate(50, 10);
const RUN_INSTANCES: Rate = rate(1000, 2);
const TERMINATE_INSTANCES: Rate = rate(1000, 20);

/// The bucket of launched instances, shared by `RunInstances` and fleets. That fleets draw on it is not
/// documented; it is the careful reading.
const LAUNCHED: &str = "RunInstances/instances";
const TERMINATED: &str = "TerminateInstances/instances";

/// Thousandths of a token, so that refilling by the millisecond is exact.
const MILLI: u64 = 1000;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli_tokens: u64,
    at_ms: u64,
}

/// The buckets of the account. A bucket that was never used is full.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    buckets: BTreeMap<String, Bucket>,
}

impl Limits {
    fn available(&mut self, name: &str, rate: Rate, now_ms: u64) -> u64 {
        let full = rate.size * MILLI;
        let bucket = self.buckets.entry(name.to_owned()).or_insert(Bucket {
            milli_tokens: full,
            at_ms: now_ms,
        });
        let refilled = now_ms.saturating_sub(bucket.at_ms) * rate.refill_per_second;
        bucket.milli_tokens = full.min(bucket.milli_tokens.saturating_add(refilled));
        bucket.at_ms = bucket.at_ms.max(now_ms);
        bucket.milli_tokens / MILLI
    }

    fn take(&mut self, name: &str, rate: Rate, tokens: u64, now_ms: u64) -> Ec2Result<()> {
        if self.available(name, rate, now_ms) < tokens {
            return Err(Ec2Error::throttled());
        }
        if let Some(bucket) = self.buckets.get_mut(name) {
            bucket.milli_tokens -= tokens * MILLI;
        }
        Ok(())
    }
}

impl Ec2 {
    /// Begins a call that changes something: lets time pass up to it and takes its request token.
    pub(super) fn begin(&mut self, action: &str, now_ms: u64) -> Ec2Result<()> {
        let rate = match action {
            "RunInstances" => RUN_REQUESTS,
            "TerminateInstances" => TERMINATE_REQUESTS,
            "CreateTags" | "DeleteTags" => TAG_REQUESTS,
            _ => MUTATING,
        };
        self.begin_at(action, rate, now_ms)
    }

    /// Begins a call that only reads. `plain` says that it has neither ids, filters nor paging.
    pub(super) fn begin_describe(
        &mut self,
        action: &str,
        now_ms: u64,
        plain: bool,
    ) -> Ec2Result<()> {
        if plain {
            self.begin_at(&format!("{action}/plain"), DESCRIBE_PLAIN, now_ms)
        } else {
            self.begin_at(action, DESCRIBE, now_ms)
        }
    }

    fn begin_at(&mut self, bucket: &str, rate: Rate, now_ms: u64) -> Ec2Result<()> {
        self.advance(now_ms);
        if self.settings.throttling {
            self.limits.take(bucket, rate, 1, now_ms)?;
        }
        Ok(())
    }

    /// How many instances the launch bucket still lets through.
    pub(super) fn launch_tokens(&mut self, now_ms: u64) -> u32 {
        if !self.settings.throttling {
            return u32::MAX;
        }
        let tokens = self.limits.available(LAUNCHED, RUN_INSTANCES, now_ms);
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    /// Leaves so many tokens in the bucket of launched instances, as if others in the account had launched the rest.
    /// A fleet that wants more is throttled in the middle. Of use while throttling is on.
    pub fn leave_launch_tokens(&mut self, now_ms: u64, left: u32) {
        let bucket = Bucket {
            milli_tokens: u64::from(left).min(RUN_INSTANCES.size) * MILLI,
            at_ms: now_ms,
        };
        self.limits.buckets.insert(LAUNCHED.to_owned(), bucket);
    }

    /// Takes tokens for all of `count` or refuses. That a launch which would do with fewer is refused too is the
    /// careful reading.
    pub(super) fn take_launch_tokens(&mut self, count: u32, now_ms: u64) -> Ec2Result<()> {
        if !self.settings.throttling {
            return Ok(());
        }
        self.limits
            .take(LAUNCHED, RUN_INSTANCES, u64::from(count), now_ms)
    }

    pub(super) fn take_terminate_tokens(&mut self, count: usize, now_ms: u64) -> Ec2Result<()> {
        if !self.settings.throttling {
            return Ok(());
        }
        self.limits
            .take(TERMINATED, TERMINATE_INSTANCES, count as u64, now_ms)
    }
}
