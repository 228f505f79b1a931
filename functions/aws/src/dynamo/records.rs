//! Requests, attempts, the policy, the heartbeat and the node states: one JSON text an item, with a few
//! attributes beside it that conditions or people need.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use spillway_control::fault::Fault;
use spillway_control::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, LaunchAnswer, NodeStatesRecord, RequestRecord,
    Stored,
};
use spillway_core::config::Policy;
use spillway_core::pairing::LaunchKey;

use super::call::{Expression, invalid};
use super::item::{Item, KEY, malformed, number, read_json, read_number, read_text, text};
use super::{DynamoTable, policy_key};

/// The largest JSON text in one item: DynamoDB's 400 KB less room for the other attributes.
pub const MAX_RECORD_BYTES: usize = 350_000;

/// How long requests and attempts are kept after they were last written: longer than a message can lie in a
/// dead-letter queue (14 days) and, redriven, in its queue again (at most 14 more).
pub const RECORD_RETENTION_SECONDS: u64 = 30 * 24 * 3600;

/// When an item written now may go.
pub(super) fn expires_at_s() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    now.as_secs() + RECORD_RETENTION_SECONDS
}

impl DynamoTable {
    pub(super) async fn read_policy(&self) -> Result<Option<Policy>, Fault> {
        let Some(item) = self.get(policy_key(&self.cluster)).await? else {
            return Ok(None);
        };
        let text =
            read_text(&item, "policy").ok_or_else(|| malformed(&item, "it has no text policy"))?;
        let policy =
            Policy::from_json(text).map_err(|error| malformed(&item, &error.to_string()))?;
        if policy.cluster != self.cluster {
            return Err(malformed(
                &item,
                &format!("the policy is for cluster {}", policy.cluster),
            ));
        }
        Ok(Some(policy))
    }

    pub(super) async fn read_request(
        &self,
        key: &LaunchKey,
    ) -> Result<Option<Stored<RequestRecord>>, Fault> {
        let Some(item) = self.get(self.request_key(key)).await? else {
            return Ok(None);
        };
        let version = read_number(&item, "version")
            .ok_or_else(|| malformed(&item, "it has no number version"))?;
        Ok(Some(Stored {
            record: read_json(&item, "record")?,
            version,
        }))
    }

    pub(super) async fn write_request(
        &self,
        key: &LaunchKey,
        record: &RequestRecord,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        let mut item = record_item(self.request_key(key), "request", record, MAX_RECORD_BYTES)?;
        item.insert("version".to_owned(), number(expected_version + 1));
        item.insert(
            "generation".to_owned(),
            number(record.request.generation.get()),
        );
        item.insert("lease_until_ms".to_owned(), number(record.lease_until_ms));
        item.insert(
            "done".to_owned(),
            aws_sdk_dynamodb::types::AttributeValue::Bool(record.done),
        );
        item.insert("expires_at_s".to_owned(), number(expires_at_s()));
        self.put(item, version_is(expected_version)).await
    }

    pub(super) async fn read_attempt(
        &self,
        key: &AttemptKey,
    ) -> Result<Option<AttemptRecord>, Fault> {
        let Some(item) = self.get(self.attempt_key(key)).await? else {
            return Ok(None);
        };
        let mut record: AttemptRecord = read_json(&item, "record")?;
        if item.contains_key("answer") {
            record.answer = Some(read_json(&item, "answer")?);
        }
        Ok(Some(record))
    }

    pub(super) async fn write_attempt(
        &self,
        key: &AttemptKey,
        record: &AttemptRecord,
    ) -> Result<bool, Fault> {
        let mut item = record_item(self.attempt_key(key), "attempt", record, MAX_RECORD_BYTES)?;
        item.insert("client_token".to_owned(), text(&record.call.client_token));
        item.insert("expires_at_s".to_owned(), number(expires_at_s()));
        self.put(item, version_is(0)).await
    }

    pub(super) async fn write_answer(
        &self,
        key: &AttemptKey,
        answer: &LaunchAnswer,
    ) -> Result<(), Fault> {
        let key = self.attempt_key(key);
        let change = Expression {
            update: Some("SET answer = :answer"),
            condition: Some("attribute_exists(pk)"),
            names: Vec::new(),
            values: vec![(":answer", text(json(&key, answer, MAX_RECORD_BYTES)?))],
        };
        if self.update(key.clone(), change).await? {
            return Ok(());
        }
        Err(invalid(
            "UpdateItem",
            "NoSuchAttempt",
            &format!("item {key} is not there: an answer to no attempt"),
        ))
    }

    pub(super) async fn read_heartbeat(&self) -> Result<Option<HeartbeatRecord>, Fault> {
        let Some(item) = self.get(self.heartbeat_key()).await? else {
            return Ok(None);
        };
        read_json(&item, "record").map(Some)
    }

    pub(super) async fn write_heartbeat(&self, record: &HeartbeatRecord) -> Result<(), Fault> {
        let mut item = record_item(self.heartbeat_key(), "heartbeat", record, MAX_RECORD_BYTES)?;
        item.insert("received_ms".to_owned(), number(record.received_ms));
        let newer = Expression {
            condition: Some("attribute_not_exists(pk) OR received_ms < :received_ms"),
            values: vec![(":received_ms", number(record.received_ms))],
            ..Expression::default()
        };
        self.put(item, newer).await.map(drop)
    }

    pub(super) async fn read_node_states(&self) -> Result<Option<NodeStatesRecord>, Fault> {
        let Some(item) = self.get(self.node_states_key()).await? else {
            return Ok(None);
        };
        read_json(&item, "record").map(Some)
    }

    pub(super) async fn write_node_states(&self, record: &NodeStatesRecord) -> Result<(), Fault> {
        let mut item = record_item(
            self.node_states_key(),
            "node-states",
            record,
            MAX_RECORD_BYTES,
        )?;
        item.insert("observed_ms".to_owned(), number(record.observed_ms));
        let newer = Expression {
            condition: Some("attribute_not_exists(pk) OR observed_ms < :observed_ms"),
            values: vec![(":observed_ms", number(record.observed_ms))],
            ..Expression::default()
        };
        self.put(item, newer).await.map(drop)
    }
}

/// The item must be at this version; 0: it must not exist.
pub(super) fn version_is(version: u64) -> Expression {
    if version == 0 {
        return Expression {
            condition: Some("attribute_not_exists(pk)"),
            ..Expression::default()
        };
    }
    Expression {
        condition: Some("#version = :version"),
        names: vec![("#version", "version")],
        values: vec![(":version", number(version))],
        ..Expression::default()
    }
}

/// An item with `record` as a JSON text of at most `max_bytes`.
pub(super) fn record_item(
    key: String,
    kind: &str,
    record: &impl Serialize,
    max_bytes: usize,
) -> Result<Item, Fault> {
    let record = json(&key, record, max_bytes)?;
    Ok(HashMap::from([
        (KEY.to_owned(), text(key)),
        ("kind".to_owned(), text(kind)),
        ("record".to_owned(), text(record)),
    ]))
}

fn json(key: &str, record: &impl Serialize, max_bytes: usize) -> Result<String, Fault> {
    let json = serde_json::to_string(record).map_err(|error| {
        invalid(
            "PutItem",
            "MalformedRecord",
            &format!("item {key}: {error}"),
        )
    })?;
    if json.len() > max_bytes {
        let message = format!(
            "item {key}: {} bytes, the table takes {max_bytes} in this record",
            json.len()
        );
        return Err(invalid("PutItem", "RecordTooLarge", &message));
    }
    Ok(json)
}
