//! Finding nodes: by the sparse indexes, and by reading the whole table.

use aws_sdk_dynamodb::types::AttributeValue;
use futures::stream::{self, StreamExt, TryStreamExt};
use spillway_control::fault::Fault;
use spillway_core::name::NodeName;
use tracing::warn;

use super::call::SERVICE;
use super::item::{Item, KEY, SHARDS, active_shard, due_shard, read_text, text};
use super::{CALLS_AT_ONCE, DynamoTable};
use crate::classify;

/// Into how many parts the whole table is read side by side.
const SCAN_SEGMENTS: i32 = 4;

impl DynamoTable {
    pub(super) async fn find_due(&self) -> Result<Vec<NodeName>, Fault> {
        let shards = (0..SHARDS).map(|shard| due_shard(&self.cluster, shard));
        self.find_in("due", "due_shard = :shard", shards).await
    }

    pub(super) async fn find_active(&self) -> Result<Vec<NodeName>, Fault> {
        let shards = (0..SHARDS).map(|shard| active_shard(&self.cluster, shard));
        self.find_in("active", "active_shard = :shard", shards)
            .await
    }

    async fn find_in(
        &self,
        index: &'static str,
        condition: &'static str,
        shards: impl Iterator<Item = String>,
    ) -> Result<Vec<NodeName>, Fault> {
        let shards: Vec<_> = shards
            .map(|shard| self.find_in_shard(index, condition, shard))
            .collect();
        let found: Vec<Vec<NodeName>> = stream::iter(shards)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn find_in_shard(
        &self,
        index: &'static str,
        condition: &'static str,
        shard: String,
    ) -> Result<Vec<NodeName>, Fault> {
        let mut nodes = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .client
                .query()
                .table_name(&self.table)
                .index_name(index)
                .key_condition_expression(condition)
                .expression_attribute_values(":shard", text(&shard))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| classify::fault(SERVICE, "Query", &error))?;
            nodes.extend(self.nodes_of(&page.items.unwrap_or_default()));
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(nodes);
            }
        }
    }

    /// Strongly consistent: what the indexes have lost is found.
    pub(super) async fn find_every(&self) -> Result<Vec<NodeName>, Fault> {
        let segments: Vec<_> = (0..SCAN_SEGMENTS)
            .map(|segment| self.find_every_in(segment))
            .collect();
        let found: Vec<Vec<NodeName>> = stream::iter(segments)
            .buffer_unordered(CALLS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn find_every_in(&self, segment: i32) -> Result<Vec<NodeName>, Fault> {
        let mut nodes = Vec::new();
        let mut start = None;
        loop {
            let page = self
                .client
                .scan()
                .table_name(&self.table)
                .segment(segment)
                .total_segments(SCAN_SEGMENTS)
                .consistent_read(true)
                .filter_expression("#kind = :node")
                .projection_expression(KEY)
                .expression_attribute_names("#kind", "kind")
                .expression_attribute_values(":node", AttributeValue::S("node".to_owned()))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| classify::fault(SERVICE, "Scan", &error))?;
            nodes.extend(self.nodes_of(&page.items.unwrap_or_default()));
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(nodes);
            }
        }
    }

    fn nodes_of(&self, items: &[Item]) -> Vec<NodeName> {
        let prefix = self.node_prefix();
        let node = |item: &Item| {
            let name = read_text(item, KEY).and_then(|key| key.strip_prefix(&prefix));
            let node = name.and_then(|name| NodeName::new(name).ok());
            if node.is_none() {
                let key = read_text(item, KEY);
                warn!(key, "an item that was found is no node's; left out");
            }
            node
        };
        items.iter().filter_map(node).collect()
    }
}
