//! Node items: read in batches, written in transactions together with their instances.

use std::collections::{HashMap, HashSet};

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{InstanceWrite, PairingWrite};
use spillway_control::record::Stored;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::Pairing;

use super::call::{Expression, SERVICE, invalid, pause};
use super::item::{KEY, NodeItem, malformed, map_value, number, read_node, read_text, text};
use super::records::version_is;
use super::{CALLS_AT_ONCE, DynamoTable};
use crate::classify;

/// TransactWriteItems takes at most 100 actions (API reference); a write needs up to two.
const MAX_TRANSACTION_WRITES: usize = 50;
/// How often what one transaction left open is tried again.
const MAX_ROUNDS: u32 = 8;
const OPERATION: &str = "TransactWriteItems";

/// What a pairing writes into an instance's item: of an instance that has one, of a new one, and of a new one of which it
/// is known where it was launched.
const PAIR: &str = "SET #kind = :kind, instance_id = :id, #state = :paired, #node = :node, #generation = :generation, \
     address = :address, deadline_ms = :deadline";
const PAIR_FROM: &str = "SET #kind = :kind, instance_id = :id, #state = :paired, #node = :node, #generation = :generation, \
     address = :address, deadline_ms = :deadline, origin = :origin";
const PAIR_FROM_POOL: &str = "SET #kind = :kind, instance_id = :id, #state = :paired, #node = :node, \
     #generation = :generation, address = :address, deadline_ms = :deadline, origin = :origin, #pool = :pool";

impl DynamoTable {
    pub(super) async fn read_pairings(
        &self,
        nodes: &[NodeName],
    ) -> Result<Vec<Stored<Pairing>>, Fault> {
        let keys = nodes.iter().map(|node| self.node_key(node));
        let mut stored = HashMap::new();
        for item in self.get_all(keys).await? {
            let broken = malformed(&item, "attributes that its state needs are missing");
            let (record, version) = read_node(item)?.into_pairing().ok_or(broken)?;
            stored.insert(record.node.clone(), Stored { record, version });
        }
        let of = |node: &NodeName| {
            stored.get(node).cloned().unwrap_or_else(|| Stored {
                record: Pairing::new(node.clone()),
                version: 0,
            })
        };
        Ok(nodes.iter().map(of).collect())
    }

    pub(super) async fn transact(&self, writes: &[PairingWrite]) -> Result<Vec<bool>, Fault> {
        let mut transactions = Vec::new();
        for batch in batches(writes) {
            transactions.push(
                self.transact_batch(
                    batch
                        .into_iter()
                        .map(|index| (index, &writes[index]))
                        .collect(),
                ),
            );
        }
        let settled: Vec<Vec<(usize, bool)>> = stream::iter(transactions)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        let mut written = vec![false; writes.len()];
        for (index, done) in settled.into_iter().flatten() {
            written[index] = done;
        }
        Ok(written)
    }

    /// Writes each of `open` or finds out that it cannot be written. A transaction is all or nothing: the
    /// writes that it failed for are taken out, and the rest tried again.
    async fn transact_batch(
        &self,
        open: Vec<(usize, &PairingWrite)>,
    ) -> Result<Vec<(usize, bool)>, Fault> {
        let mut open: Vec<Open<'_>> = open
            .into_iter()
            .map(|(index, write)| Open::new(index, write))
            .collect();
        let mut settled = Vec::with_capacity(open.len());
        for round in 0..MAX_ROUNDS {
            if open.is_empty() {
                return Ok(settled);
            }
            let Some(reasons) = self.try_transaction(&open).await? else {
                settled.extend(open.iter().map(|open| (open.index, true)));
                return Ok(settled);
            };
            let must_wait = reasons.iter().any(|reason| is_passing(code(reason)));
            let mut reasons = reasons.as_slice();
            let mut left = Vec::with_capacity(open.len());
            for mut write in open {
                let (own, others) = reasons
                    .split_at_checked(write.actions())
                    .unwrap_or((reasons, &[]));
                reasons = others;
                match write.judge(own)? {
                    Judgement::Lost => settled.push((write.index, false)),
                    Judgement::Again => left.push(write),
                }
            }
            open = left;
            if must_wait {
                pause(round).await;
            }
        }
        Err(Fault {
            kind: FaultKind::Transient,
            service: SERVICE.into(),
            operation: OPERATION.into(),
            code: "TransactionContended".to_owned(),
            message: format!(
                "{} nodes could not be written in {MAX_ROUNDS} rounds",
                open.len()
            ),
        })
    }

    /// `None` if everything was written, else why not, an entry for each action.
    async fn try_transaction(
        &self,
        open: &[Open<'_>],
    ) -> Result<Option<Vec<CancellationReason>>, Fault> {
        let mut actions = Vec::with_capacity(2 * open.len());
        for write in open {
            actions.push(self.put_node(write.write)?);
            if let Some(instance) = write.instance {
                actions.push(self.update_instance(write.write, instance)?);
            }
        }
        // The SDK gives the call a ClientRequestToken: repeated after a lost answer it is not done twice.
        let answer = self
            .client
            .transact_write_items()
            .set_transact_items(Some(actions))
            .send()
            .await;
        let Err(error) = answer else { return Ok(None) };
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                Ok(Some(cancelled.cancellation_reasons().to_vec()))
            }
            _ => Err(classify::fault(SERVICE, OPERATION, &error)),
        }
    }

    fn put_node(&self, write: &PairingWrite) -> Result<TransactWriteItem, Fault> {
        let key = self.node_key(&write.pairing.node);
        let item = NodeItem::new(&self.cluster, &write.pairing, write.expected_version + 1)
            .into_item(key)?;
        let condition = version_is(write.expected_version);
        let mut put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.condition.map(str::to_owned));
        for (alias, name) in condition.names {
            put = put.expression_attribute_names(alias, name);
        }
        for (alias, value) in condition.values {
            put = put.expression_attribute_values(alias, value);
        }
        let put = put
            .build()
            .map_err(|error| invalid(OPERATION, "Construction", &error.to_string()))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn update_instance(
        &self,
        write: &PairingWrite,
        instance: &InstanceWrite,
    ) -> Result<TransactWriteItem, Fault> {
        let change = instance_change(write, instance)?;
        let update = Update::builder()
            .table_name(&self.table)
            .key(KEY, text(self.home.instance_arn(instance_id(instance))))
            .set_update_expression(change.update.map(str::to_owned))
            .set_condition_expression(change.condition.map(str::to_owned))
            .set_expression_attribute_names(Some(change.names()).filter(|names| !names.is_empty()))
            .set_expression_attribute_values(Some(change.values()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| invalid(OPERATION, "Construction", &error.to_string()))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// A write that is not settled yet.
struct Open<'a> {
    index: usize,
    write: &'a PairingWrite,
    /// What is still to become of the instance.
    instance: Option<&'a InstanceWrite>,
}

enum Judgement {
    /// The record has moved on.
    Lost,
    /// It may yet be written.
    Again,
}

impl<'a> Open<'a> {
    fn new(index: usize, write: &'a PairingWrite) -> Self {
        Self {
            index,
            write,
            instance: write.instance.as_ref(),
        }
    }

    fn actions(&self) -> usize {
        1 + usize::from(self.instance.is_some())
    }

    /// What the reasons of its own actions mean for it.
    fn judge(&mut self, reasons: &[CancellationReason]) -> Result<Judgement, Fault> {
        for (action, reason) in reasons.iter().enumerate() {
            match code(reason) {
                "None" => {}
                "ConditionalCheckFailed"
                    if action == 1 && self.is_release_of_terminated(reason) =>
                {
                    // It is gone already: the node is written without it.
                    self.instance = None;
                }
                "ConditionalCheckFailed" => return Ok(Judgement::Lost),
                code if is_passing(code) => {}
                code => {
                    return Err(invalid(
                        OPERATION,
                        code,
                        reason.message().unwrap_or_default(),
                    ));
                }
            }
        }
        Ok(Judgement::Again)
    }

    fn is_release_of_terminated(&self, reason: &CancellationReason) -> bool {
        matches!(self.instance, Some(InstanceWrite::Release(_)))
            && reason
                .item
                .as_ref()
                .and_then(|item| read_text(item, "state"))
                == Some("terminated")
    }
}

/// A reason without code is DynamoDB's way to say that this action was not to blame.
fn code(reason: &CancellationReason) -> &str {
    reason.code().unwrap_or("None")
}

/// Reasons that pass by themselves (TransactWriteItems, cancellation reasons).
fn is_passing(code: &str) -> bool {
    matches!(
        code,
        "TransactionConflict" | "ProvisionedThroughputExceeded" | "ThrottlingError"
    )
}

/// Indexes of the writes, as many in a batch as a transaction takes; no batch names an item twice, which
/// DynamoDB would refuse.
fn batches(writes: &[PairingWrite]) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut taken: HashSet<&InstanceId> = HashSet::new();
    for (index, write) in writes.iter().enumerate() {
        let instance = write.instance.as_ref().map(instance_id);
        let fits = |batch: &Vec<usize>| {
            batch.len() < MAX_TRANSACTION_WRITES
                && instance.is_none_or(|instance| !taken.contains(instance))
        };
        match batches.last_mut() {
            Some(batch) if fits(batch) => batch.push(index),
            _ => {
                taken.clear();
                batches.push(vec![index]);
            }
        }
        taken.extend(instance);
    }
    batches
}

fn instance_id(write: &InstanceWrite) -> &InstanceId {
    match write {
        InstanceWrite::Pair { instance_id, .. }
        | InstanceWrite::Release(instance_id)
        | InstanceWrite::Admit(instance_id) => instance_id,
    }
}

/// What a write makes of the instance's item.
fn instance_change(write: &PairingWrite, instance: &InstanceWrite) -> Result<Expression, Fault> {
    let generation = number(write.pairing.generation.get());
    Ok(match instance {
        InstanceWrite::Pair {
            instance_id,
            address,
            deadline_ms,
            origin,
            pool,
        } => {
            let mut change = Expression {
                update: Some(PAIR),
                condition: Some("attribute_not_exists(pk) OR #state = :paired"),
                names: vec![
                    ("#kind", "kind"),
                    ("#state", "state"),
                    ("#node", "node"),
                    ("#generation", "generation"),
                ],
                values: vec![
                    (":kind", text("instance")),
                    (":id", text(instance_id.as_str())),
                    (":paired", text("paired")),
                    (":node", text(write.pairing.node.as_str())),
                    (":generation", generation),
                    (":address", text(address.to_string())),
                    (":deadline", number(*deadline_ms)),
                ],
            };
            if let Some(origin) = origin {
                change.update = Some(PAIR_FROM);
                change.values.push((":origin", map_value(origin)?));
            }
            if let (Some(_), Some(pool)) = (origin, pool) {
                change.update = Some(PAIR_FROM_POOL);
                // A word of DynamoDB's own.
                change.names.push(("#pool", "pool"));
                change.values.push((":pool", map_value(pool)?));
            }
            change
        }
        InstanceWrite::Release(instance_id) => Expression {
            update: Some("SET #kind = :kind, instance_id = :id, #state = :released"),
            condition: Some("attribute_not_exists(pk) OR #state <> :terminated"),
            names: vec![("#kind", "kind"), ("#state", "state")],
            values: vec![
                (":kind", text("instance")),
                (":id", text(instance_id.as_str())),
                (":released", text("released")),
                (":terminated", text("terminated")),
            ],
        },
        InstanceWrite::Admit(_) => Expression {
            update: Some("SET acknowledged_generation = :generation"),
            condition: Some("attribute_exists(pk)"),
            names: Vec::new(),
            values: vec![(":generation", generation)],
        },
    })
}
