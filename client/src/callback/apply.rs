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
use super::judge::{NodeUpdate, Verdict, Wish, judge};
use super::ledger::LedgerError;
use crate::clock::now_ms;
use crate::crash::{self, CrashPoint};
use crate::nodes;
use crate::slurm::{NodeRow, Slurm, SlurmError, UPDATE_BATCH};

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
    wish: Wish,
}

/// What became of one update.
#[derive(Debug, Default)]
struct Outcomes {
    /// As it is reported: by kind and reason.
    by_kind: BTreeMap<(u8, String), Vec<NodeName>>,
    /// Those to which it was applied now and not before.
    fresh: Vec<NodeName>,
}

impl Outcomes {
    fn add(&mut self, kind: u8, reason: String, node: NodeName) {
        self.by_kind.entry((kind, reason)).or_default().push(node);
    }

    /// slurmctld has it now.
    fn add_fresh(&mut self, node: NodeName) {
        self.fresh.push(node.clone());
        self.add(APPLIED, String::new(), node);
    }
}

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
        let Outcomes { by_kind, fresh } = outcomes?;
        for ((kind, reason), mut names) in by_kind {
            nodes::sort(&mut names);
            let nodes = hostlist::fold(&names);
            let outcome = match kind {
                APPLIED => {
                    besides.gather(update, &fresh);
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
                verb(&update.action),
            );
            results.push(UpdateResult {
                nodes,
                generation: update.generation,
                number: update.number,
                outcome,
            });
        }
    }
    besides.tell(receiver, now_ms()).await;
    Ok(results)
}

fn verb(action: &UpdateAction) -> &'static str {
    match action {
        UpdateAction::Address { .. } => "address",
        UpdateAction::Fail { .. } => "fail",
        UpdateAction::Drain { .. } => "drain",
        UpdateAction::Requeue { .. } => "requeue",
        UpdateAction::Recover { .. } => "recover",
    }
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
    let wishes: Vec<Wish> = match &update.action {
        UpdateAction::Address { addresses } if addresses.len() == names.len() => {
            addresses.iter().copied().map(Wish::Address).collect()
        }
        UpdateAction::Address { addresses } => {
            let (count, expected) = (addresses.len(), names.len());
            return Err(malformed(format!("{count} addresses for {expected} nodes")));
        }
        UpdateAction::Fail { .. } => vec![Wish::Fail; names.len()],
        UpdateAction::Drain { .. } => vec![Wish::Drain; names.len()],
        UpdateAction::Requeue { .. } => vec![Wish::Requeue; names.len()],
        UpdateAction::Recover { .. } => vec![Wish::Recover; names.len()],
    };
    let targets = names.into_iter().zip(wishes);
    Ok(targets.map(|(node, wish)| Target { node, wish }).collect())
}

async fn apply_update(
    receiver: &Receiver,
    update: &Update,
    targets: Vec<Target>,
    rows: &HashMap<NodeName, NodeRow>,
) -> Result<Outcomes, ApplyError> {
    let mut outcomes = Outcomes::default();
    let mut fitting = Vec::new();
    {
        let mut ledger = receiver.ledger();
        // Slurm may have called since the envelope came, and the wake may be lost.
        ledger.look()?;
        for target in targets {
            let concern = NodeUpdate {
                generation: update.generation,
                number: update.number,
                wish: target.wish,
            };
            let history = ledger.memory().node(&target.node);
            match judge(concern, history, rows.get(&target.node)) {
                Verdict::Apply => fitting.push(target),
                Verdict::AlreadySo => {
                    ledger
                        .memory()
                        .applied(&target.node, update.generation, update.number);
                    outcomes.add_fresh(target.node);
                }
                Verdict::Repeated => outcomes.add(APPLIED, String::new(), target.node),
                Verdict::Stale(reason) => outcomes.add(STALE, reason, target.node),
            }
        }
    }
    fitting.sort_by(|a, b| nodes::compare(a.node.as_str(), b.node.as_str()));
    for batch in fitting.chunks(UPDATE_BATCH) {
        tell(receiver, update, batch, rows, &mut outcomes).await?;
    }
    Ok(outcomes)
}

/// Tells slurmctld of a batch; if it refuses, of each node by itself, to know which one it means.
async fn tell(
    receiver: &Receiver,
    update: &Update,
    batch: &[Target],
    rows: &HashMap<NodeName, NodeRow>,
    outcomes: &mut Outcomes,
) -> Result<(), SlurmError> {
    match tell_slurm(&receiver.slurm, &update.action, batch, rows).await {
        Ok(()) => {
            crash::point(CrashPoint::Scontrol);
            let mut ledger = receiver.ledger();
            for target in batch {
                debug!(node = %target.node, wish = ?target.wish, "told slurmctld");
                ledger
                    .memory()
                    .applied(&target.node, update.generation, update.number);
                outcomes.add_fresh(target.node.clone());
            }
            Ok(())
        }
        Err(SlurmError::Refused { reason, .. }) if batch.len() == 1 => {
            warn!(node = %batch[0].node, "scontrol refused: {reason}");
            outcomes.add(REFUSED, reason, batch[0].node.clone());
            Ok(())
        }
        Err(SlurmError::Refused { .. }) => {
            for target in batch.chunks(1) {
                Box::pin(tell(receiver, update, target, rows, outcomes)).await?;
            }
            Ok(())
        }
        Err(away @ SlurmError::Away { .. }) => Err(away),
    }
}

async fn tell_slurm(
    slurm: &Slurm,
    action: &UpdateAction,
    batch: &[Target],
    rows: &HashMap<NodeName, NodeRow>,
) -> Result<(), SlurmError> {
    let nodes: Vec<&NodeName> = batch.iter().map(|target| &target.node).collect();
    match action {
        UpdateAction::Address { .. } => {
            let address = |target: &Target| match target.wish {
                Wish::Address(address) => Some(address),
                _ => None,
            };
            let addresses: Vec<(&NodeName, IpAddr)> = batch
                .iter()
                .filter_map(|target| Some((&target.node, address(target)?)))
                .collect();
            slurm.set_addresses(&addresses).await
        }
        UpdateAction::Fail { reason, .. } => slurm.fail(&nodes, reason).await,
        UpdateAction::Drain { reason, .. } => slurm.drain(&nodes, reason).await,
        UpdateAction::Requeue { reason } => {
            // The drain that should have come before may have been overtaken: no job may take the place.
            let is_open = |node: &&NodeName| rows.get(*node).is_some_and(|row| !row.has("DRAIN"));
            let open: Vec<&NodeName> = nodes.iter().copied().filter(is_open).collect();
            slurm.drain(&open, reason).await?;
            slurm.requeue_jobs_on(&nodes, reason).await
        }
        UpdateAction::Recover { reason } => slurm.recover(&nodes, reason).await,
    }
}
