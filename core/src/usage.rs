//! What the cluster's launches hold of its caps: one record for the whole cluster, changed by pure functions.
//!
//! A launch holds one node of a group for each node it was let launch, until the instance is terminated or it is known
//! that none came. It is held for an owner: the partition, account and user of the job that the node was launched for. It
//! is counted by launch, not by node: a node whose old instance is still being ended and whose next one is on its way
//! holds two, and so does the record.

mod caps;
mod compare;
mod owner;
mod reserve;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::name::NodeGroupName;
use crate::pairing::LaunchKey;

pub use compare::Live;
pub use owner::{Holds, Owner};
pub use reserve::{OVER_LIMIT, Reservation, over_limit};

/// Most bytes of the record's launches, owners and groups. The record is one item of the table, which takes 405 KB of it;
/// the rest is for the hour's counts and for launches of ten nodes and more, whose numbers are longer than the
/// `HOLD_BYTES` of one.
pub const MAX_BYTES: usize = 395_000;
/// What a launch takes for each group and owner: 10,000 nodes launched one by one take 380 KB.
const HOLD_BYTES: usize = 38;
/// What an owner takes in each group beside its names.
const OWNER_BYTES: usize = 6;
/// What a group takes beside its name.
const GROUP_BYTES: usize = 40;

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
#[serde(from = "GroupUsageRead")]
struct GroupUsage {
    /// vCPUs of each node.
    cpus: u32,
    owners: BTreeMap<Owner, Launches>,
}

/// What launches hold for one owner in one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Launches(BTreeMap<LaunchId, Held>);

/// As it may have been written before owners were counted.
#[derive(Deserialize)]
struct GroupUsageRead {
    cpus: u32,
    #[serde(default)]
    owners: BTreeMap<Owner, Launches>,
    #[serde(default)]
    launches: Launches,
}

impl From<GroupUsageRead> for GroupUsage {
    fn from(read: GroupUsageRead) -> Self {
        let mut owners = read.owners;
        if !read.launches.0.is_empty() {
            owners.insert(Owner::default(), read.launches);
        }
        Self {
            cpus: read.cpus,
            owners,
        }
    }
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

    /// Nodes held for whom `is_counted` says.
    #[must_use]
    pub fn nodes_for(&self, is_counted: impl Fn(&Owner) -> bool) -> u32 {
        let owners = self.node_groups.values().flat_map(|group| &group.owners);
        let counted = owners.filter(|(owner, _)| is_counted(owner));
        counted.map(|(_, launches)| launches.nodes()).sum()
    }

    /// `count` instances of a launch that were held for `owner` were terminated. To be called once for each of them. One
    /// that no node ever had ends for nobody: it was held for whoever alone holds any of its launch.
    pub fn end(&mut self, launch: &LaunchKey, group: &NodeGroupName, owner: &Owner, count: u32) {
        let known = *owner != Owner::default() || self.held(launch, group, owner).is_some();
        let held = if known {
            self.held(launch, group, owner)
        } else {
            self.held_by_one(launch, group)
        };
        if let Some(held) = held.filter(|held| held.2 & COMPARED == 0) {
            held.0 = held.0.saturating_sub(count);
        }
        self.drop_empty();
    }

    /// A launch is over: of `planned` nodes for `owner`, `launched` instances were launched in all, also those that have
    /// ended since. What did not come is given back, once, to the caps and to the hour. Answers whether anything changed.
    pub fn settle(
        &mut self,
        launch: &LaunchKey,
        group: &NodeGroupName,
        owner: &Owner,
        planned: u32,
        launched: u32,
    ) -> bool {
        let held = self.held(launch, group, owner);
        let Some(held) = held.filter(|held| held.2 == 0) else {
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

    fn held(
        &mut self,
        launch: &LaunchKey,
        group: &NodeGroupName,
        owner: &Owner,
    ) -> Option<&mut Held> {
        let launches = self.node_groups.get_mut(group)?.owners.get_mut(owner)?;
        launches.0.get_mut(&LaunchId::from(launch))
    }

    /// What one owner alone holds of a launch.
    fn held_by_one(&mut self, launch: &LaunchKey, group: &NodeGroupName) -> Option<&mut Held> {
        let id = LaunchId::from(launch);
        let owners = self.node_groups.get_mut(group)?.owners.values_mut();
        let mut held = owners.filter_map(|launches| launches.0.get_mut(&id));
        let one = held.next()?;
        held.next().is_none().then_some(one)
    }

    fn drop_empty(&mut self) {
        for group in self.node_groups.values_mut() {
            for launches in group.owners.values_mut() {
                launches.0.retain(|_, held| held.0 > 0);
            }
            group.owners.retain(|_, launches| !launches.0.is_empty());
        }
        self.node_groups.retain(|_, group| !group.owners.is_empty());
    }

    /// How many of [`MAX_BYTES`] are taken.
    fn bytes(&self) -> usize {
        let of_owner = |(owner, launches): (&Owner, &Launches)| {
            OWNER_BYTES + owner.len() + HOLD_BYTES * launches.0.len()
        };
        let of_group = |(name, group): (&NodeGroupName, &GroupUsage)| {
            let owners: usize = group.owners.iter().map(of_owner).sum();
            group_bytes(name) + owners
        };
        self.node_groups.iter().map(of_group).sum()
    }
}

fn group_bytes(name: &NodeGroupName) -> usize {
    GROUP_BYTES + name.as_str().len()
}

impl GroupUsage {
    fn nodes(&self) -> u32 {
        self.owners.values().map(Launches::nodes).sum()
    }
}

impl Launches {
    fn nodes(&self) -> u32 {
        self.0.values().map(|held| held.0).sum()
    }
}
