//! EC2's token buckets, as one account's Lambdas share them: who wants to call takes tokens first, so that a large
//! burst spends them evenly and is not refused by the hundred.
//!
//! The numbers are EC2's defaults (EC2 API, "Request throttling"). Others in the account spend from the same buckets:
//! when EC2 refuses all the same, the bucket is known to be empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Limits;

/// What is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bucket {
    /// Calls of CreateFleet, a mutating call like any other.
    CreateFleet,
    /// Calls of RunInstances.
    RunInstances,
    /// Instances launched, by either.
    Instances,
}

/// How much a bucket holds and by how much it is refilled a second.
struct Size {
    most: u64,
    per_second: u64,
}

impl Bucket {
    fn size(self, limits: &Limits) -> Size {
        match self {
            Self::CreateFleet => Size {
                most: 50,
                per_second: 5,
            },
            Self::RunInstances => Size {
                most: 5,
                per_second: 2,
            },
            Self::Instances => Size {
                most: u64::from(limits.ec2_instances_at_once),
                per_second: u64::from(limits.ec2_instances_per_second),
            },
        }
    }
}

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Those that are not full.
    #[serde(default)]
    buckets: BTreeMap<Bucket, Level>,
}

/// How full a bucket was when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Level {
    /// Thousandths of tokens.
    milli: u64,
    /// Unix milliseconds.
    at_ms: u64,
}

/// A launch that wants to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// [`Bucket::CreateFleet`] or [`Bucket::RunInstances`].
    pub call: Bucket,
    /// How many instances.
    pub instances: u32,
    /// The fewest that are worth a call now; fewer wait for the bucket.
    pub at_least: u32,
}

/// What a launch may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// One call for so many instances, at most as many as wanted.
    Now {
        /// How many.
        instances: u32,
    },
    /// Nothing before so many milliseconds.
    Later {
        /// How many milliseconds.
        wait_ms: u64,
    },
}

impl Budget {
    /// Takes what a launch needs, if the buckets hold it.
    pub fn take(&mut self, wanted: Wanted, limits: &Limits, now_ms: u64) -> Grant {
        let most = Bucket::Instances.size(limits).most;
        // More than the bucket ever holds is never there: what it holds has to do.
        let at_least = u64::from(wanted.at_least).min(most).max(1);
        let call_ms = self.wait_ms(wanted.call, 1, limits, now_ms);
        let instances_ms = self.wait_ms(Bucket::Instances, at_least, limits, now_ms);
        let wait_ms = call_ms.max(instances_ms);
        if wait_ms > 0 {
            return Grant::Later { wait_ms };
        }
        let held = self.held_milli(Bucket::Instances, limits, now_ms) / 1000;
        let instances = u64::from(wanted.instances).min(held);
        self.spend(wanted.call, 1, limits, now_ms);
        self.spend(Bucket::Instances, instances, limits, now_ms);
        Grant::Now {
            instances: u32::try_from(instances).unwrap_or(u32::MAX),
        }
    }

    /// EC2 refused a call as asked too fast, so the buckets are emptier than thought.
    pub fn found_empty(&mut self, call: Bucket, now_ms: u64) {
        for bucket in [call, Bucket::Instances] {
            self.set(bucket, 0, now_ms);
        }
    }

    /// Puts back what a call did not launch: EC2 takes tokens for instances that it launches.
    pub fn put_back(&mut self, instances: u32, limits: &Limits, now_ms: u64) {
        let most = Bucket::Instances.size(limits).most * 1000;
        let held = self.held_milli(Bucket::Instances, limits, now_ms);
        let milli = (held + u64::from(instances) * 1000).min(most);
        self.set(Bucket::Instances, milli, now_ms);
    }

    fn held_milli(&self, bucket: Bucket, limits: &Limits, now_ms: u64) -> u64 {
        let Size { most, per_second } = bucket.size(limits);
        let Some(level) = self.buckets.get(&bucket) else {
            return most * 1000;
        };
        // One token a second is one thousandth a millisecond.
        let refilled = now_ms
            .saturating_sub(level.at_ms)
            .saturating_mul(per_second);
        level.milli.saturating_add(refilled).min(most * 1000)
    }

    fn wait_ms(&self, bucket: Bucket, tokens: u64, limits: &Limits, now_ms: u64) -> u64 {
        let held = self.held_milli(bucket, limits, now_ms);
        let missing = (tokens * 1000).saturating_sub(held);
        missing.div_ceil(bucket.size(limits).per_second.max(1))
    }

    fn spend(&mut self, bucket: Bucket, tokens: u64, limits: &Limits, now_ms: u64) {
        let held = self.held_milli(bucket, limits, now_ms);
        self.set(bucket, held.saturating_sub(tokens * 1000), now_ms);
    }

    /// Clocks of Lambdas differ a little: time never goes back, or tokens would be counted twice.
    fn set(&mut self, bucket: Bucket, milli: u64, now_ms: u64) {
        let at_ms = self
            .buckets
            .get(&bucket)
            .map_or(now_ms, |level| level.at_ms.max(now_ms));
        self.buckets.insert(bucket, Level { milli, at_ms });
    }
}
