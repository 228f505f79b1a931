//! The table's stream: changes of node items in four shards, in order within each, and Lambda's mapping of it to
//! `callback`, which retries a batch, halves it, and gives it up after ten minutes.

use std::collections::{BTreeSet, VecDeque};

use spillway_core::name::NodeName;
use spillway_core::pairing::Pairing;

use super::names::{Call, Trouble};
use super::world::{Due, World};

/// Shards of the stream.
pub(crate) const SHARDS: usize = 4;
/// The template's `BatchSize` and `MaximumRecordAgeInSeconds` of `callback`.
const BATCH: usize = 100;
const MAX_AGE_MS: u64 = 600_000;

/// A change of a node's item that `callback` is to see.
#[derive(Debug, Clone)]
struct Change {
    node: NodeName,
    at_ms: u64,
    /// Number and attempt of the update, where it is newly due.
    due: (u64, u32),
}

/// The stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    shards: [Shard; SHARDS],
    /// Updates whose change was lost: only a sweep, or an agent's hello, would find them.
    pub lost: BTreeSet<(NodeName, u64, u32)>,
}

#[derive(Debug, Default)]
struct Shard {
    changes: VecDeque<Change>,
    /// How many changes the invocation under way has in hand.
    in_hand: usize,
    /// After a failure: how many changes the next batch has at most.
    halved: Option<usize>,
}

impl Stream {
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.changes.is_empty())
    }
}

fn shard_of(node: &NodeName) -> usize {
    node.as_str().bytes().map(usize::from).sum::<usize>() % SHARDS
}

impl World {
    /// A node's item changed. Changes that make nothing due are passed over by the mapping.
    pub(crate) fn record_change(&mut self, old: &Pairing, new: &Pairing) {
        let due = |pairing: &Pairing| {
            pairing
                .update_due
                .as_ref()
                .map(|due| (due.number, due.attempt))
        };
        let Some(newly) = due(new).filter(|_| due(old) != due(new)) else {
            return;
        };
        let node = new.node.clone();
        let trouble = self.strike(Call::Stream, false);
        if trouble == Some(Trouble::Lost) {
            self.tell(|| format!("!! the change of {node} is lost"));
            self.stream.lost.insert((node, newly.0, newly.1));
            return;
        }
        let shard = shard_of(&node);
        let change = Change {
            node,
            at_ms: self.now_ms,
            due: newly,
        };
        let changes = &mut self.stream.shards[shard].changes;
        match trouble {
            Some(Trouble::Reordered) => {
                let behind = self.stream.shards[shard].in_hand.min(changes.len());
                changes.insert(behind, change);
            }
            Some(Trouble::Duplicated) => changes.extend([change.clone(), change]),
            _ => changes.push_back(change),
        }
        let mut after_ms = self.rng.u64(50..=300);
        if matches!(trouble, Some(Trouble::Slow | Trouble::Reordered)) {
            after_ms += self.rng.u64(500..=60_000);
        }
        self.after(after_ms, Due::Pump(shard));
    }

    /// Lambda looks at a shard: the next batch goes to `callback`.
    pub(crate) fn pump(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let shard = &mut self.stream.shards[index];
        if shard.in_hand > 0 {
            return;
        }
        while let Some(old) = shard
            .changes
            .pop_front_if(|change| change.at_ms + MAX_AGE_MS < now_ms)
        {
            self.stream.lost.insert((old.node, old.due.0, old.due.1));
        }
        let most = shard.halved.unwrap_or(BATCH);
        let nodes: BTreeSet<NodeName> = {
            let batch = shard.changes.iter().take(most);
            batch.map(|change| change.node.clone()).collect()
        };
        shard.in_hand = shard.changes.len().min(most);
        if !nodes.is_empty() {
            self.invoke_callback(index, nodes);
        }
    }

    /// `callback` has dealt with its batch, or not.
    pub(crate) fn pumped(&mut self, index: usize, done: bool) {
        let shard = &mut self.stream.shards[index];
        let in_hand = std::mem::take(&mut shard.in_hand);
        if done {
            shard.changes.drain(..in_hand);
            shard.halved = None;
        } else {
            shard.halved = Some((in_hand / 2).max(1));
        }
        let after_ms = if done { 20 } else { 1_000 };
        self.after(after_ms, Due::Pump(index));
    }
}
