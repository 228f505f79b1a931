//! Applies the updates of one envelope and says what became of each node.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use spillway_core::envelope::{Envelope, Update, UpdateAction};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{UpdateOutcome, UpdateResult};
use spillway_core::name::NodeName;
use tracing::{debug, info, warn};

use super::Receiver;
use super::besides::Besides;
use super::judge::{NodeUpdate, Verdict, judge};
use super::ledger::LedgerError;
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::nodes;
use crate::slurm::{NodeRow, SlurmError, UPDATE_BATCH};

/// Why an envelope was not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Try again when slurmctld answers.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// Try again when the disk does.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Never: it is not one that can be applied.
    #[error("{0}")]
    Malformed(String),
}

/// One node of an update.
#[derive(Debug, Clone)]
struct Target {
    node: NodeName,
    /// For an address update.
    address: Option<IpAddr>,
}

/// Outcomes of one update, as it is reported: by kind and reason.
type Outcomes = BTreeMap<(u8, String), Vec<NodeName>>;

/// Applies what fits, in the order of the envelope. `rows`: what slurmctld said after the envelope came.
pub async fn apply(
    receiver: &Receiver,
    envelope: &Envelope,
    rows: &HashMap<NodeName, NodeRow>,
) -> Result<Vec<UpdateResult>, ApplyError> {
    let targets: Vec<Vec<Target>> = envelope
        .updates
        .iter()
        .map(targets)
        .collect::<Result<_, _>>()?;
    let mut results = Vec::new();
    let mut besides = Besides::default();
    for (update, targets) in envelope.updates.iter().zip(targets) {
        let outcomes = apply_update(receiver, update, targets, rows).await;
        // Also after trouble: what slurmctld has taken must be known.
        receiver
            .ledger()
            .memory()
            .save()
            .map_err(LedgerError::from)?;
        for ((kind, reason), mut names) in outcomes? {
            nodes::sort(&mut names);
            let nodes = hostlist::fold(&names);
            let outcome = match kind {
                APPLIED => {
                    besides.gather(update);
                    UpdateOutcome::Applied
                }
                STALE => UpdateOutcome::Stale { reason },
                _ => UpdateOutcome::Refused { reason },
            };
            info!(
                request_id = update.request_id.as_ref().map(tracing::field::display),
                generation = %update.generation,
                number = update.number,
                %nodes,
                ?outcome,
                "{}",
                match update.action {
                    UpdateAction::Address { .. } => "address",
                    UpdateAction::Fail { .. } => "fail",
                    UpdateAction::Drain { .. } => "drain",
                    UpdateAction::Requeue { .. } => "requeue",
                    UpdateAction::Recover { .. } => "recover",
                },
            );
            results.push(UpdateResult {
                nodes,
                generation: update.generation,
                number: update.number,
                outcome,
            });
        }
    }
    besides.tell(&receiver.slurm, now_ms()).await;
    Ok(results)
}

const APPLIED: u8 = 0;
const STALE: u8 = 1;
const REFUSED: u8 = 2;

fn targets(update: &Update) -> Result<Vec<Target>, ApplyError> {
    let malformed =
        |reason: String| ApplyError::Malformed(format!("update of {}: {reason}", update.nodes));
    let names = Hostlist::parse(&update.nodes)
        .map_err(|error| malformed(error.to_string()))?
        .node_names()
        .map_err(|error| malformed(error.to_string()))?;
    let addresses: Vec<Option<IpAddr>> = match &update.action {
        UpdateAction::Address { addresses } if addresses.len() == names.len() => {
            addresses.iter().copied().map(Some).collect()
        }
        UpdateAction::Address { addresses } => {
            let (count, expected) = (addresses.len(), names.len());
            return Err(malformed(format!("{count} addresses for {expected} nodes")));
        }
        _ => vec![None; names.len()],
    };
    let targets = names.into_iter().zip(addresses);
    Ok(targets
        .map(|(node, address)| Target { node, address })
        .collect())
}

async fn apply_update(
    receiver: &Receiver,
    update: &Update,
    targets: Vec<Target>,
    rows: &HashMap<NodeName, NodeRow>,
) -> Result<Outcomes, ApplyError> {
    let mut outcomes = Outcomes::new();
    let mut fitting = Vec::new();
    {
        let mut ledger = receiver.ledger();
        // Slurm may have called since the envelope came, and the wake may be lost.
        ledger.look()?;
        for target in targets {
            let concern = NodeUpdate {
                generation: update.generation,
                number: update.number,
                address: target.address,
            };
            let history = ledger.memory().node(&target.node);
            match judge(concern, history, rows.get(&target.node)) {
                Verdict::Apply => fitting.push(target),
                Verdict::AlreadySo => {
                    ledger
                        .memory()
                        .applied(&target.node, update.generation, update.number);
                    outcomes
                        .entry((APPLIED, String::new()))
                        .or_default()
                        .push(target.node);
                }
                Verdict::Stale(reason) => outcomes
                    .entry((STALE, reason))
                    .or_default()
                    .push(target.node),
            }
        }
    }
    fitting.sort_by(|a, b| nodes::compare(a.node.as_str(), b.node.as_str()));
    for batch in fitting.chunks(UPDATE_BATCH) {
        tell(receiver, update, batch, &mut outcomes).await?;
    }
    Ok(outcomes)
}

/// Tells slurmctld of a batch; if it refuses, of each node by itself, to know which one it means.
async fn tell(
    receiver: &Receiver,
    update: &Update,
    batch: &[Target],
    outcomes: &mut Outcomes,
) -> Result<(), SlurmError> {
    match tell_slurm(receiver, update, batch).await {
        Ok(()) => {
            crash::point(CrashPoint::Scontrol);
            let mut ledger = receiver.ledger();
            for target in batch {
                debug!(node = %target.node, address = ?target.address, "told slurmctld");
                ledger
                    .memory()
                    .applied(&target.node, update.generation, update.number);
                outcomes
                    .entry((APPLIED, String::new()))
                    .or_default()
                    .push(target.node.clone());
            }
            Ok(())
        }
        Err(SlurmError::Refused { reason, .. }) if batch.len() == 1 => {
            warn!(node = %batch[0].node, "scontrol refused: {reason}");
            outcomes
                .entry((REFUSED, reason))
                .or_default()
                .push(batch[0].node.clone());
            Ok(())
        }
        Err(SlurmError::Refused { .. }) => {
            for target in batch.chunks(1) {
                Box::pin(tell(receiver, update, target, outcomes)).await?;
            }
            Ok(())
        }
        Err(away @ SlurmError::Away { .. }) => Err(away),
    }
}

async fn tell_slurm(
    receiver: &Receiver,
    update: &Update,
    batch: &[Target],
) -> Result<(), SlurmError> {
    match &update.action {
        UpdateAction::Address { .. } => {
            let addresses: Vec<(&NodeName, IpAddr)> = batch
                .iter()
                .filter_map(|target| Some((&target.node, target.address?)))
                .collect();
            receiver.slurm.set_addresses(&addresses).await
        }
        UpdateAction::Fail { reason, .. }
        | UpdateAction::Drain { reason, .. }
        | UpdateAction::Requeue { reason }
        | UpdateAction::Recover { reason } => {
            let nodes: Vec<&NodeName> = batch.iter().map(|target| &target.node).collect();
            receiver.slurm.fail(&nodes, reason).await
        }
    }
}
