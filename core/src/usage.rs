//! What the cluster's launches hold of its caps: one record for the whole cluster, changed by pure functions.
//!
//! A launch holds one node of a group's cap for each node it was let launch, until the instance is terminated or it
//! is known that none came. It is counted by launch, not by node: a node whose old instance is still being ended and
//! whose next one is on its way holds two, and so does the record.

mod reserve;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::NodeGroupName;
use crate::pairing::LaunchKey;

pub use reserve::{OVER_LIMIT, Reservation, over_limit};

/// Most launches that hold nodes at once. The record is one item of the table, at most 400 KB: with 38 bytes a launch
/// even 10,000 nodes launched one by one take 380 KB.
pub const MAX_LAUNCHES: usize = 10_000;

/// EC2 is asked for nothing more for a request that was stamped longer ago: its nodes have failed by then, since no
/// ResumeTimeout is longer than an hour.
pub const LAUNCH_LIFE_MS: u64 = 65 * MINUTE_MS;

/// How long a launch is believed to hold what the record says, whatever EC2 shows: for its life, with five minutes for
/// a stamp that lies ahead and ten for EC2 to show what it launched.
const BELIEVED_MINUTES: u64 = LAUNCH_LIFE_MS / MINUTE_MS + 15;

/// How many nodes that the policy does not name are told so within an hour. Each gets an item in the table for it; a
/// forged message names tens of thousands, a site that forgot `spillway config push` some hundreds.
pub const MAX_UNKNOWN_NODES_PER_HOUR: u32 = 256;

const MINUTE_MS: u64 = 60_000;
const HOUR_MINUTES: u64 = 60;

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// By node group.
    #[serde(default)]
    node_groups: BTreeMap<NodeGroupName, GroupUsage>,
    /// How many nodes were let launch, by the minute since 1970; those of the last hour.
    #[serde(default)]
    launched: BTreeMap<u64, u32>,
    /// How many nodes were told in which hour since 1970 that the policy does not name them.
    #[serde(default)]
    unknown: (u64, u32),
    /// The minute in which the record was last compared with EC2.
    #[serde(default)]
    compared_minute: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct GroupUsage {
    /// vCPUs of each node.
    cpus: u32,
    launches: BTreeMap<LaunchId, Held>,
}

/// What a launch holds, written as `[nodes, minute]` or `[nodes, minute, 1]`: there may be ten thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Held(
    /// Nodes.
    u32,
    /// Since which minute.
    u64,
    /// [`SETTLED`] and [`COMPARED`].
    #[serde(default, skip_serializing_if = "is_zero")]
    u8,
);

/// The nodes for which no instance came were given back.
const SETTLED: u8 = 1;
/// What EC2 shows was taken for what is held: an instance that ends later may have been gone already then, and is
/// not given back a second time. The next comparison sees it.
const COMPARED: u8 = 2;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A launch's name in the record: 120 bits of SHA-256, so that nobody can make two launches that share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchId(String);

impl From<&LaunchKey> for LaunchId {
    fn from(key: &LaunchKey) -> Self {
        let digest = Sha256::digest(format!("{}\n{}", key.request_id, key.part));
        Self(URL_SAFE_NO_PAD.encode(&digest[..15]))
    }
}

impl Usage {
    /// Nodes held, of all groups.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.node_groups.values().map(GroupUsage::nodes).sum()
    }

    /// vCPUs held.
    #[must_use]
    pub fn vcpus(&self) -> u64 {
        let of = |group: &GroupUsage| u64::from(group.cpus) * u64::from(group.nodes());
        self.node_groups.values().map(of).sum()
    }

    /// Nodes held of one group.
    #[must_use]
    pub fn nodes_of(&self, group: &NodeGroupName) -> u32 {
        self.node_groups.get(group).map_or(0, GroupUsage::nodes)
    }

    /// Nodes let launch within the last hour.
    #[must_use]
    pub fn launched_within_hour(&self, now_ms: u64) -> u32 {
        let since = (now_ms / MINUTE_MS).saturating_sub(HOUR_MINUTES);
        self.launched
            .range(since + 1..)
            .map(|(_, count)| *count)
            .sum()
    }

    /// `count` instances of a launch were terminated. To be called once for each of them.
    pub fn end(&mut self, launch: &LaunchKey, group: &NodeGroupName, count: u32) {
        if let Some(held) = self
            .held(launch, group)
            .filter(|held| held.2 & COMPARED == 0)
        {
            held.0 = held.0.saturating_sub(count);
        }
        self.drop_empty();
    }

    /// A launch is over: of `planned` nodes, `launched` instances were launched in all, also those that have ended
    /// since. What did not come is given back, once, to the caps and to the hour. Answers whether anything changed.
    pub fn settle(
        &mut self,
        launch: &LaunchKey,
        group: &NodeGroupName,
        planned: u32,
        launched: u32,
    ) -> bool {
        let Some(held) = self.held(launch, group).filter(|held| held.2 == 0) else {
            return false;
        };
        if planned == launched {
            return false;
        }
        held.2 |= SETTLED;
        held.0 = (held.0 + launched).saturating_sub(planned);
        let minute = held.1;
        if let Some(count) = self.launched.get_mut(&minute) {
            *count = (*count + launched).saturating_sub(planned);
        }
        self.drop_empty();
        true
    }

    /// Whether the record may be compared with EC2 again: asking for all instances of a cluster costs EC2's patience.
    #[must_use]
    pub fn may_compare(&self, now_ms: u64) -> bool {
        self.compared_minute != now_ms / MINUTE_MS
    }

    /// Corrects the record by what EC2 shows: `live` are the launches and groups of the instances that run or are
    /// pending, one for each. A launch whose life is over holds no more than that. Whoever ended an instance may have
    /// died before it could say so here. Answers how many nodes came free.
    pub fn compare<'a>(
        &mut self,
        live: impl IntoIterator<Item = (&'a LaunchKey, &'a NodeGroupName)>,
        now_ms: u64,
    ) -> u32 {
        let now = now_ms / MINUTE_MS;
        let mut seen: BTreeMap<(LaunchId, &NodeGroupName), u32> = BTreeMap::new();
        for (launch, group) in live {
            *seen.entry((LaunchId::from(launch), group)).or_default() += 1;
        }
        let before = self.nodes();
        for (name, group) in &mut self.node_groups {
            for (launch, held) in &mut group.launches {
                if held.1 + BELIEVED_MINUTES <= now {
                    let live = seen.get(&(launch.clone(), name)).copied().unwrap_or(0);
                    if live < held.0 {
                        held.0 = live;
                        held.2 |= COMPARED;
                    }
                }
            }
        }
        self.compared_minute = now;
        self.drop_empty();
        before - self.nodes()
    }

    /// How many of `count` nodes that the policy does not name may be told so; they are counted as told.
    pub fn tell_unknown(&mut self, count: usize, now_ms: u64) -> usize {
        let hour = now_ms / MINUTE_MS / HOUR_MINUTES;
        if self.unknown.0 != hour {
            self.unknown = (hour, 0);
        }
        let left = MAX_UNKNOWN_NODES_PER_HOUR.saturating_sub(self.unknown.1);
        let told = u32::try_from(count).unwrap_or(u32::MAX).min(left);
        self.unknown.1 += told;
        told as usize
    }

    fn held(&mut self, launch: &LaunchKey, group: &NodeGroupName) -> Option<&mut Held> {
        let group = self.node_groups.get_mut(group)?;
        group.launches.get_mut(&LaunchId::from(launch))
    }

    fn drop_empty(&mut self) {
        for group in self.node_groups.values_mut() {
            group.launches.retain(|_, held| held.0 > 0);
        }
        self.node_groups
            .retain(|_, group| !group.launches.is_empty());
    }
}

impl GroupUsage {
    fn nodes(&self) -> u32 {
        self.launches.values().map(|held| held.0).sum()
    }
}
