//! The calls to DynamoDB that everything else is made of.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_control::fault::{Fault, FaultKind};

use super::item::{Item, KEY, read_text, text};
use super::{CALLS_AT_ONCE, DynamoTable};
use crate::classify;

pub(super) const SERVICE: &str = "dynamodb";

/// BatchGetItem takes at most 100 keys (API reference).
const MAX_BATCH_KEYS: usize = 100;
/// How often what BatchGetItem left over is asked for again.
const MAX_BATCH_ROUNDS: u32 = 8;
/// The attribute that tells a writer its own write again, when the SDK repeats a call whose answer was lost.
const WRITE_ID: &str = "write_id";

/// A condition with its names and values.
#[derive(Debug, Default)]
pub(super) struct Expression {
    pub update: Option<&'static str>,
    pub condition: Option<&'static str>,
    pub names: Vec<(&'static str, &'static str)>,
    pub values: Vec<(&'static str, AttributeValue)>,
}

impl Expression {
    pub(super) fn names(&self) -> HashMap<String, String> {
        self.names
            .iter()
            .map(|(alias, name)| ((*alias).to_owned(), (*name).to_owned()))
            .collect()
    }

    pub(super) fn values(&self) -> HashMap<String, AttributeValue> {
        self.values
            .iter()
            .map(|(alias, value)| ((*alias).to_owned(), value.clone()))
            .collect()
    }
}

impl DynamoTable {
    /// One item, strongly consistent.
    pub(super) async fn get(&self, key: String) -> Result<Option<Item>, Fault> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.table)
            .key(KEY, text(key))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| classify::fault(SERVICE, "GetItem", &error))?;
        Ok(answer.item)
    }

    /// Those of the items that exist, strongly consistent, each once, in no order.
    pub(super) async fn get_all(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> Result<Vec<Item>, Fault> {
        // DynamoDB refuses a batch that names an item twice.
        let keys: Vec<String> = keys.collect::<BTreeSet<_>>().into_iter().collect();
        let batches = keys.chunks(MAX_BATCH_KEYS);
        let calls: Vec<_> = batches.map(|keys| self.get_batch(keys.to_vec())).collect();
        let batches: Vec<Vec<Item>> = stream::iter(calls)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(batches.into_iter().flatten().collect())
    }

    async fn get_batch(&self, keys: Vec<String>) -> Result<Vec<Item>, Fault> {
        let mut items = Vec::with_capacity(keys.len());
        let mut open: Vec<Item> = keys
            .into_iter()
            .map(|key| HashMap::from([(KEY.to_owned(), text(key))]))
            .collect();
        for round in 0..MAX_BATCH_ROUNDS {
            let wanted = KeysAndAttributes::builder()
                .set_keys(Some(open))
                .consistent_read(true)
                .build()
                .map_err(|error| invalid("BatchGetItem", "Construction", &error.to_string()))?;
            let answer = self
                .client
                .batch_get_item()
                .request_items(&self.table, wanted)
                .send()
                .await
                .map_err(|error| classify::fault(SERVICE, "BatchGetItem", &error))?;
            items.extend(answer.responses.unwrap_or_default().into_values().flatten());
            let left = answer
                .unprocessed_keys
                .unwrap_or_default()
                .into_values()
                .next();
            open = left.map(|left| left.keys).unwrap_or_default();
            if open.is_empty() {
                return Ok(items);
            }
            pause(round).await;
        }
        Err(Fault {
            kind: FaultKind::Throttled,
            service: SERVICE.into(),
            operation: "BatchGetItem".into(),
            code: "UnprocessedKeys".to_owned(),
            message: format!(
                "{} items were still unread after {MAX_BATCH_ROUNDS} rounds",
                open.len()
            ),
        })
    }

    /// Puts an item under a condition; `false` if the condition does not hold. An item that this very call
    /// wrote before its answer was lost counts as written.
    pub(super) async fn put(&self, mut item: Item, condition: Expression) -> Result<bool, Fault> {
        let write_id = uuid::Uuid::new_v4().to_string();
        item.insert(WRITE_ID.to_owned(), text(&write_id));
        let answer = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .set_condition_expression(condition.condition.map(str::to_owned))
            .set_expression_attribute_names(some(condition.names()))
            .set_expression_attribute_values(some(condition.values()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(answer))
                if answer.err().is_conditional_check_failed_exception() =>
            {
                let PutItemError::ConditionalCheckFailedException(failed) = answer.err() else {
                    return Ok(false);
                };
                let there = failed.item.as_ref();
                Ok(there.and_then(|item| read_text(item, WRITE_ID)) == Some(write_id.as_str()))
            }
            Err(error) => Err(classify::fault(SERVICE, "PutItem", &error)),
        }
    }

    /// Updates an item under a condition; `false` if the condition does not hold.
    pub(super) async fn update(&self, key: String, change: Expression) -> Result<bool, Fault> {
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .key(KEY, text(key))
            .set_update_expression(change.update.map(str::to_owned))
            .set_condition_expression(change.condition.map(str::to_owned))
            .set_expression_attribute_names(some(change.names()))
            .set_expression_attribute_values(some(change.values()))
            .send()
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if is_condition_failed(&error) => Ok(false),
            Err(error) => Err(classify::fault(SERVICE, "UpdateItem", &error)),
        }
    }
}

fn is_condition_failed<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error
        .as_service_error()
        .is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}

fn some<K, V>(map: HashMap<K, V>) -> Option<HashMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

/// The fault of a call that cannot be made as it is.
pub(super) fn invalid(operation: &'static str, code: &str, message: &str) -> Fault {
    Fault {
        kind: FaultKind::Invalid,
        service: SERVICE.into(),
        operation: operation.into(),
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// Waits before another round: 50 ms, doubling up to 1.6 s, of which a random half, so that workers that
/// met in one round do not meet in the next.
pub(super) async fn pause(round: u32) {
    const FIRST_MS: u64 = 50;
    const MAX_DOUBLINGS: u32 = 5;
    let most_ms = FIRST_MS << round.min(MAX_DOUBLINGS);
    let chance = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
    let ms = most_ms / 2 + most_ms * chance / 512;
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
