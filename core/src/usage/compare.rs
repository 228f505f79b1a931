//! Comparing with EC2: whoever ended an instance may have died before it could say so in the record.

use std::collections::{BTreeMap, BTreeSet};

use super::{BELIEVED_MINUTES, COMPARED, LaunchId, MINUTE_MS, Owner, Usage};
use crate::name::NodeGroupName;
use crate::pairing::LaunchKey;

/// An instance that EC2 shows and that is not ended.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    /// Its launch, by its tags.
    pub launch: &'a LaunchKey,
    /// Its node group, by its tags.
    pub node_group: &'a NodeGroupName,
    /// For whom it is held, if it was looked up.
    pub owner: Option<&'a Owner>,
}

/// Instances of one launch and group.
#[derive(Default)]
struct Seen<'a> {
    of_owner: BTreeMap<&'a Owner, u32>,
    of_anyone: u32,
}

impl Seen<'_> {
    /// The most that an owner may have of them.
    fn most(&self, owner: &Owner) -> u32 {
        self.of_anyone + self.of_owner.get(owner).copied().unwrap_or(0)
    }

    fn count(&self) -> u32 {
        self.of_anyone + self.of_owner.values().sum::<u32>()
    }
}

/// By launch and group.
fn by_launch<'a>(
    live: impl IntoIterator<Item = Live<'a>>,
) -> BTreeMap<(LaunchId, &'a NodeGroupName), Seen<'a>> {
    let mut seen: BTreeMap<(LaunchId, &NodeGroupName), Seen<'_>> = BTreeMap::new();
    for instance in live {
        let key = (LaunchId::from(instance.launch), instance.node_group);
        let seen = seen.entry(key).or_default();
        match instance.owner {
            Some(owner) => *seen.of_owner.entry(owner).or_default() += 1,
            None => seen.of_anyone += 1,
        }
    }
    seen
}

impl Usage {
    /// Whether the record may be compared with EC2 again: asking for all instances of a cluster costs EC2's patience.
    #[must_use]
    pub fn may_compare(&self, now_ms: u64) -> bool {
        self.compared_minute != now_ms / MINUTE_MS
    }

    /// The launches and groups of which EC2 shows some of what several owners hold, but not all: whose these are has to
    /// be looked up.
    pub fn ambiguous<'a>(
        &self,
        live: impl IntoIterator<Item = Live<'a>>,
        now_ms: u64,
    ) -> BTreeSet<(LaunchId, NodeGroupName)> {
        let now = now_ms / MINUTE_MS;
        let is_ambiguous = |(launch, name): &(LaunchId, &NodeGroupName), seen: &Seen<'_>| {
            let Some(group) = self.node_groups.get(*name) else {
                return false;
            };
            let holds = group.owners.values();
            let holds: Vec<_> = holds
                .filter_map(|launches| launches.0.get(launch))
                .collect();
            let held: u32 = holds.iter().map(|held| held.0).sum();
            holds.len() > 1
                && seen.count() < held
                && holds.iter().any(|held| held.1 + BELIEVED_MINUTES <= now)
        };
        let seen = by_launch(live).into_iter();
        let ambiguous = seen.filter(|(key, seen)| is_ambiguous(key, seen));
        ambiguous
            .map(|((launch, group), _)| (launch, group.clone()))
            .collect()
    }

    /// Corrects the record by what EC2 shows: the instances that run or are pending. A launch whose life is over holds
    /// no more than that. Where it is not known whose an instance is it may be each one's, so that no one holds too
    /// little. Answers how many nodes came free.
    pub fn compare<'a>(&mut self, live: impl IntoIterator<Item = Live<'a>>, now_ms: u64) -> u32 {
        let now = now_ms / MINUTE_MS;
        let seen = by_launch(live);
        let before = self.nodes();
        for (name, group) in &mut self.node_groups {
            for (owner, launches) in &mut group.owners {
                for (launch, held) in &mut launches.0 {
                    let seen = seen.get(&(launch.clone(), name));
                    let most = seen.map_or(0, |seen| seen.most(owner));
                    if held.1 + BELIEVED_MINUTES <= now && most < held.0 {
                        held.0 = most;
                        held.2 |= COMPARED;
                    }
                }
            }
        }
        self.compared_minute = now;
        self.drop_empty();
        before - self.nodes()
    }
}
