//! What an envelope asks for besides the state of its nodes: that an exhausted node group rests, and that jobs are
//! told what was tried. Neither decides what becomes of the envelope: what cannot be done is logged, and the
//! updates stay as applied as they are.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::envelope::{CoolOff, JobNote, Update, UpdateAction};
use spillway_core::hostlist::Hostlist;
use spillway_core::name::NodeGroupName;
use tracing::{info, warn};

use crate::slurm::{Rest, Slurm};

/// The longest cool-off from now on, whatever an envelope says, so that a wrong one cannot close a node group: the
/// control plane lets a pool rest half an hour at most, and clocks differ.
const MAX_COOL_OFF_MS: u64 = 31 * 60 * 1000;

/// Gathered from the updates of one envelope that were applied, each thing once.
#[derive(Debug, Default)]
pub struct Besides<'a> {
    cool_offs: BTreeMap<&'a NodeGroupName, (&'a CoolOff, &'a str)>,
    notes: BTreeSet<&'a JobNote>,
}

impl<'a> Besides<'a> {
    /// Takes what an update asks for.
    pub fn gather(&mut self, update: &'a Update) {
        self.notes.extend(&update.note);
        let UpdateAction::Fail {
            reason,
            cool_off: Some(cool_off),
        } = &update.action
        else {
            return;
        };
        let longest = self
            .cool_offs
            .entry(&cool_off.node_group)
            .or_insert((cool_off, reason));
        if longest.0.until_ms < cool_off.until_ms {
            *longest = (cool_off, reason);
        }
    }

    /// Tells slurmctld. Groups rest first: the next job may ask for their nodes at any moment.
    pub async fn tell(self, slurm: &Slurm, now_ms: u64) {
        for (cool_off, reason) in self.cool_offs.into_values() {
            rest(slurm, cool_off, reason, now_ms).await;
        }
        for note in self.notes {
            if let Err(error) = slurm.remark(note).await {
                warn!(jobs = ?note.jobs, text = note.text, "jobs were not told what was tried: {error}");
            }
        }
    }
}

async fn rest(slurm: &Slurm, cool_off: &CoolOff, reason: &str, now_ms: u64) {
    let Some(until_ms) = bounded(cool_off.until_ms, now_ms) else {
        return;
    };
    let node_group = &cool_off.node_group;
    let names = Hostlist::parse(&cool_off.nodes).map(|hostlist| hostlist.node_names());
    let Ok(Ok(nodes)) = names else {
        warn!(%node_group, nodes = cool_off.nodes, "no cool-off: this is no hostlist");
        return;
    };
    let rest = Rest {
        node_group,
        nodes: &nodes,
        until_seconds: until_ms.div_ceil(1000),
        reason,
    };
    match slurm.keep_back(&rest, now_ms / 1000).await {
        Ok(nodes) => info!(%node_group, nodes, until_ms, "cool-off"),
        Err(error) => warn!(%node_group, until_ms, "no cool-off: {error}"),
    }
}

/// Until when a group rests; none if that is over.
fn bounded(until_ms: u64, now_ms: u64) -> Option<u64> {
    let until_ms = until_ms.min(now_ms.saturating_add(MAX_COOL_OFF_MS));
    (until_ms > now_ms).then_some(until_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_closes_a_group_for_long() {
        let now_ms = 1_795_000_000_000;
        let minute_ms = 60_000;
        for (until_ms, expected) in [
            (now_ms + minute_ms, Some(now_ms + minute_ms)),
            (now_ms + 31 * minute_ms, Some(now_ms + 31 * minute_ms)),
            (now_ms + 32 * minute_ms, Some(now_ms + 31 * minute_ms)),
            (u64::MAX, Some(now_ms + 31 * minute_ms)),
            (now_ms, None),
            (0, None),
        ] {
            assert_eq!(bounded(until_ms, now_ms), expected);
        }
    }
}
