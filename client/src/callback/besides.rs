//! What an envelope asks for besides the state of its nodes: that an exhausted node group rests, that jobs are told
//! what was tried, that those whose nodes are about to go get a signal and other nodes. None of it decides what becomes
//! of the envelope: what cannot be done is logged, and the updates stay as applied as they are, which is noted before. So
//! a signal and a replacement come at most once for an update, also if we die here.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use spillway_core::envelope::{CoolOff, JobNote, Update, UpdateAction};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::name::{NodeGroupName, NodeName, Signal};
use tracing::{info, warn};

use super::Receiver;
use super::ledger::LedgerError;
use crate::slurm::{NodeJob, Rest, Slurm, SlurmError};

/// The longest cool-off from now on, whatever an envelope says, so that a wrong one cannot close a node group: the
/// control plane lets a pool rest half an hour at most, and clocks differ.
const MAX_COOL_OFF_MS: u64 = 31 * 60 * 1000;

/// Gathered from the updates of one envelope that were applied, each thing once.
#[derive(Debug, Default)]
pub struct Besides<'a> {
    cool_offs: BTreeMap<&'a NodeGroupName, (&'a CoolOff, &'a str)>,
    notes: BTreeSet<&'a JobNote>,
    /// Nodes that drain, by the signal that their jobs get.
    signals: BTreeMap<&'a Signal, HashSet<NodeName>>,
    /// Nodes that drain, by the hostlist that others are to come from.
    replaced: BTreeMap<&'a str, HashSet<NodeName>>,
    recovered: HashSet<NodeName>,
}

impl<'a> Besides<'a> {
    /// Takes what an update asks for. `fresh`: the nodes that it was applied to now and not before.
    pub fn gather(&mut self, update: &'a Update, fresh: &[NodeName]) {
        self.notes.extend(&update.note);
        match &update.action {
            UpdateAction::Fail {
                reason,
                cool_off: Some(cool_off),
            } => {
                let entry = self.cool_offs.entry(&cool_off.node_group);
                let longest = entry.or_insert((cool_off, reason));
                if longest.0.until_ms < cool_off.until_ms {
                    *longest = (cool_off, reason);
                }
            }
            UpdateAction::Drain {
                signal,
                replace_from,
                ..
            } => {
                if let Some(signal) = signal {
                    let nodes = self.signals.entry(signal).or_default();
                    nodes.extend(fresh.iter().cloned());
                }
                if let Some(hostlist) = replace_from {
                    let nodes = self.replaced.entry(hostlist).or_default();
                    nodes.extend(fresh.iter().cloned());
                }
            }
            UpdateAction::Recover { .. } => self.recovered.extend(fresh.iter().cloned()),
            _ => {}
        }
    }

    /// Tells slurmctld. Groups rest first: the next job may ask for their nodes at any moment. What takes longest comes
    /// last.
    pub async fn tell(self, receiver: &Receiver, now_ms: u64) {
        let slurm = &receiver.slurm;
        for (cool_off, reason) in self.cool_offs.into_values() {
            rest(slurm, cool_off, reason, now_ms).await;
        }
        for (signal, nodes) in &self.signals {
            if let Err(error) = send_signal(receiver, signal, nodes, now_ms).await {
                warn!(nodes = folded(nodes), %signal, "jobs got no signal: {error}");
            }
        }
        for (candidates, nodes) in &self.replaced {
            replace(slurm, candidates, nodes).await;
        }
        for note in self.notes {
            if let Err(error) = slurm.remark(note).await {
                warn!(jobs = ?note.jobs, text = note.text, "jobs were not told what was tried: {error}");
            }
        }
        if !self.recovered.is_empty() {
            let nodes: Vec<&NodeName> = self.recovered.iter().collect();
            if let Err(error) = slurm.clear_down(&nodes).await {
                warn!(
                    nodes = folded(&self.recovered),
                    "may still be down: {error}"
                );
            }
        }
    }
}

fn folded(nodes: &HashSet<NodeName>) -> String {
    let mut nodes: Vec<&NodeName> = nodes.iter().collect();
    crate::nodes::sort(&mut nodes);
    hostlist::fold(nodes)
}

/// Why jobs got no signal.
#[derive(Debug, thiserror::Error)]
enum SignalError {
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Sends the jobs on these nodes a signal, but not one that had it a moment ago for another of its nodes.
async fn send_signal(
    receiver: &Receiver,
    signal: &Signal,
    nodes: &HashSet<NodeName>,
    now_ms: u64,
) -> Result<(), SignalError> {
    let nodes: Vec<&NodeName> = nodes.iter().collect();
    if nodes.is_empty() {
        return Ok(());
    }
    let jobs = receiver.slurm.jobs_on(&nodes).await?;
    let jobs: Vec<&NodeJob> = {
        let mut ledger = receiver.ledger();
        let memory = ledger.memory();
        let is_first = |job: &&NodeJob| memory.is_first_signal(&job.id, job.start_seconds, now_ms);
        let jobs = jobs.iter().filter(is_first).collect();
        memory.save().map_err(LedgerError::from)?;
        jobs
    };
    if jobs.is_empty() {
        return Ok(());
    }
    receiver.slurm.signal(&jobs, signal).await?;
    let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
    info!(jobs = ids.join(","), %signal, "signalled");
    Ok(())
}

/// Powers up as many of `candidates` as drain.
async fn replace(slurm: &Slurm, candidates: &str, nodes: &HashSet<NodeName>) {
    if nodes.is_empty() {
        return;
    }
    let names = Hostlist::parse(candidates).map(|hostlist| hostlist.node_names());
    let Ok(Ok(names)) = names else {
        warn!(candidates, "no replacement: this is no hostlist");
        return;
    };
    match slurm.power_up_some(&names, nodes.len()).await {
        Ok(chosen) => {
            let chosen = hostlist::fold(&chosen);
            info!(nodes = folded(nodes), replaced_by = chosen, "powered up");
        }
        Err(error) => warn!(nodes = folded(nodes), "no replacement: {error}"),
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
