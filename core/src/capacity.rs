//! What is known of EC2's capacity: pools that are out of it and until when they are left alone, and node groups whose
//! instances launch and never join. One record for the cluster, changed by pure functions.
//!
//! Expiry is compared by whoever reads: nothing has to be deleted in time.

mod group;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::CapacityKind;
use crate::name::NodeGroupName;
use crate::plan::{Candidate, Recipe};

pub use group::{Admission, PROBE_WAIT_MS, PROTECT_AFTER};

/// How long a pool is left alone after EC2 first had not enough there, where the site says nothing (Karpenter came to the
/// same after trying 45 seconds and a minute).
pub const FIRST_REST_MS: u64 = 3 * 60_000;

/// The longest that a pool is left alone, however often EC2 had not enough: capacity comes back within the hour.
pub const LONGEST_REST_MS: u64 = 30 * 60_000;

/// A pool not tried for so long after its rest starts anew with the first rest.
const FORGET_MS: u64 = 60 * 60_000;

/// Most closures kept; the oldest go first. 60 bytes each stay far below an item's 400 KB, and a site names 300 pools
/// a node group.
const MAX_CLOSURES: usize = 3_000;

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// What is left alone, by [`Scope`].
    #[serde(default)]
    closed: BTreeMap<String, Closure>,
    /// Node groups whose last instances did not join.
    #[serde(default)]
    groups: BTreeMap<NodeGroupName, group::Failing>,
}

/// How long something is left alone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closure {
    /// Until when, Unix milliseconds.
    pub until_ms: u64,
    /// How often in a row.
    pub times: u32,
    /// AWS's code.
    pub code: String,
}

/// How far a shortage reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// One instance type in one zone.
    Pool,
    /// One instance type in every zone, such as a quota of vCPUs.
    Type,
    /// One subnet, which has no addresses left.
    Subnet,
    /// A capacity kind altogether.
    Kind,
}

/// What a shortage closes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope<'a> {
    /// How it is bought.
    pub capacity: CapacityKind,
    /// How far it reaches.
    pub reach: Reach,
    /// Where it was met.
    pub candidate: &'a Candidate,
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.capacity.as_str();
        let Candidate {
            instance_type,
            subnet_id,
            zone,
        } = self.candidate;
        match self.reach {
            Reach::Pool => write!(f, "{kind} {instance_type} {zone}"),
            Reach::Type => write!(f, "{kind} {instance_type}"),
            // Addresses are the same for whatever is bought.
            Reach::Subnet => f.write_str(subnet_id),
            Reach::Kind => f.write_str(kind),
        }
    }
}

/// One (capacity kind, instance type, zone): where an instance was launched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pool {
    /// How it was bought.
    pub capacity: CapacityKind,
    /// Such as `c7i.large`.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
}

const REACHES: [Reach; 4] = [Reach::Pool, Reach::Type, Reach::Subnet, Reach::Kind];

impl Capacity {
    /// Leaves alone what a shortage reaches: for `first_rest_ms` at first, twice as long each time that it is met again
    /// right after its rest, at most half an hour. What rests already stays as it is: the answers of calls made side by
    /// side count once.
    pub fn close(&mut self, scope: &Scope<'_>, code: &str, first_rest_ms: u64, now_ms: u64) {
        let key = scope.to_string();
        let times = match self.closed.get(&key) {
            Some(closure) if now_ms < closure.until_ms => return,
            Some(closure) if now_ms < closure.until_ms + FORGET_MS => closure.times + 1,
            _ => 1,
        };
        let rest_ms = (first_rest_ms << (times - 1).min(10)).min(LONGEST_REST_MS);
        let closure = Closure {
            until_ms: now_ms + rest_ms,
            times,
            code: code.to_owned(),
        };
        self.closed.insert(key, closure);
        self.closed
            .retain(|_, closure| now_ms < closure.until_ms + FORGET_MS);
        while self.closed.len() > MAX_CLOSURES {
            let oldest = self
                .closed
                .iter()
                .min_by_key(|(_, closure)| closure.until_ms);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            self.closed.remove(&key);
        }
    }

    /// Leaves a pool alone that EC2 takes instances back from, as [`Self::close`] does.
    pub fn close_pool(&mut self, pool: &Pool, code: &str, first_rest_ms: u64, now_ms: u64) {
        let candidate = Candidate {
            instance_type: pool.instance_type.clone(),
            subnet_id: String::new(),
            zone: pool.zone.clone(),
        };
        let scope = Scope {
            capacity: pool.capacity,
            reach: Reach::Pool,
            candidate: &candidate,
        };
        self.close(&scope, code, first_rest_ms, now_ms);
    }

    /// EC2 launched there: what was said of it is over.
    pub fn open(&mut self, capacity: CapacityKind, candidate: &Candidate) {
        for reach in REACHES {
            let scope = Scope {
                capacity,
                reach,
                candidate,
            };
            self.closed.remove(&scope.to_string());
        }
    }

    /// Why a pool is left alone now, and until when; none if it may be tried. Where several things are closed it is the
    /// one that lasts longest.
    #[must_use]
    pub fn closed(
        &self,
        capacity: CapacityKind,
        candidate: &Candidate,
        now_ms: u64,
    ) -> Option<&Closure> {
        let closure = |reach| {
            let scope = Scope {
                capacity,
                reach,
                candidate,
            };
            self.closed.get(&scope.to_string())
        };
        let closures = REACHES.into_iter().filter_map(closure);
        closures
            .filter(|closure| now_ms < closure.until_ms)
            .max_by_key(|closure| closure.until_ms)
    }

    /// When the first pool of `recipes` may be tried again; none if one may be tried now.
    #[must_use]
    pub fn rests_until_ms(&self, recipes: &[Recipe], now_ms: u64) -> Option<u64> {
        let pools = recipes.iter().flat_map(|recipe| {
            let of = |candidate| (recipe.capacity, candidate);
            recipe.candidates.iter().map(of)
        });
        let until_ms = |(capacity, candidate)| {
            self.closed(capacity, candidate, now_ms)
                .map_or(0, |closure| closure.until_ms)
        };
        pools.map(until_ms).min().filter(|until_ms| *until_ms > 0)
    }

    /// In words, why nothing of `recipes` may be tried now; none if something may.
    #[must_use]
    pub fn resting(&self, recipes: &[Recipe], now_ms: u64) -> Option<String> {
        let until_ms = self.rests_until_ms(recipes, now_ms)?;
        let mut codes = Vec::new();
        for recipe in recipes {
            for candidate in &recipe.candidates {
                let closure = self.closed(recipe.capacity, candidate, now_ms)?;
                let code = format!("{}: {}", recipe.capacity.as_str(), closure.code);
                if !codes.contains(&code) {
                    codes.push(code);
                }
            }
        }
        let seconds = until_ms.saturating_sub(now_ms).div_ceil(1000);
        Some(format!(
            "{}: EC2 had none a moment ago and is asked again in {seconds} s",
            codes.join("; ")
        ))
    }

    /// How many things are left alone now.
    #[must_use]
    pub fn resting_count(&self, now_ms: u64) -> usize {
        let resting = |closure: &&Closure| now_ms < closure.until_ms;
        self.closed.values().filter(resting).count()
    }
}
