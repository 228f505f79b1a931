//! The stack's table: which items tell of a node or a request.

use serde::Deserialize;
use spillway_core::capacity::Capacity;
use spillway_core::name::{NodeName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::record::{HeartbeatRecord, InstanceRecord, NodeStatesRecord, RequestRecord};
use spillway_core::sweep::{LAST_REPORT, SweepReport};

use super::super::facts::{Attempt, NodeItem, Part, Read, names};
use super::Sources;
use crate::aws::dynamodb::TableError;
use crate::aws::home;

/// Most parts of a request, and most attempts at a chunk, that are read.
const MAX_READ: u32 = 64;

impl Sources<'_> {
    pub(super) async fn heartbeat(&self) -> Read<HeartbeatRecord> {
        self.record(&["HEARTBEAT"]).await
    }

    pub(super) async fn capacity(&self) -> Read<Capacity> {
        self.record(&["CAPACITY"]).await
    }

    pub(super) async fn states(&self) -> Read<NodeStatesRecord> {
        self.record(&["STATES"]).await
    }

    pub(super) async fn last_report(&self) -> Read<SweepReport> {
        let report: Option<Option<SweepReport>> =
            self.record(&["SWEEP-REPORT", LAST_REPORT]).await?;
        Ok(report.flatten())
    }

    pub(super) async fn node_item(&self, node: &NodeName) -> Read<NodeItem> {
        said(self.table.read(&self.key(&["NODE", node.as_str()])).await)
    }

    /// The instance that serves the node, or the one that served it last.
    pub(super) async fn instance_of(&self, item: Option<&NodeItem>) -> Read<InstanceRecord> {
        let id = item.and_then(|item| {
            item.instance_id
                .as_ref()
                .or(item.released_instance_id.as_ref())
        });
        let Some(id) = id else {
            return Ok(None);
        };
        let arn = home::instance_arn(&self.site.client, id).map_err(|error| error.to_string())?;
        said(self.table.read(&arn).await)
    }

    /// The part of the last request that names the node, and the calls that were made for it.
    pub(super) async fn launch_of(
        &self,
        node: &NodeName,
        item: Option<&NodeItem>,
        instance: &Read<InstanceRecord>,
    ) -> (Read<RequestRecord>, Vec<Attempt>) {
        let Some(item) = item else {
            return (Ok(None), Vec::new());
        };
        let record = match self.request_of(node, item, instance).await {
            Ok(Some(record)) => record,
            other => return (other, Vec::new()),
        };
        let chunks = record.plan.iter().flat_map(|plan| &plan.chunks).zip(0..);
        let own = chunks
            .filter(|(chunk, _)| names(&chunk.nodes, node))
            .map(|(_, index)| index);
        let own: Vec<u32> = own.collect();
        let attempts = self.attempts(&record, &own).await;
        (Ok(Some(record)), attempts)
    }

    async fn request_of(
        &self,
        node: &NodeName,
        item: &NodeItem,
        instance: &Read<InstanceRecord>,
    ) -> Read<RequestRecord> {
        let origin = instance
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .and_then(|record| record.origin.as_ref());
        let origin = origin.map(|origin| origin.launch.clone());
        let is_last = |launch: &LaunchKey| Some(&launch.request_id) == item.request_id.as_ref();
        if let Some(launch) = item.launch().or(origin.filter(is_last)) {
            return self.part(&launch.request_id, launch.part).await;
        }
        let Some(request_id) = &item.request_id else {
            return Ok(None);
        };
        // Which part names the node is written nowhere else.
        for part in 1..=MAX_READ {
            let Some(record) = self.part(request_id, part).await? else {
                return Ok(None);
            };
            if names(&record.request.nodes, node) {
                return Ok(Some(record));
            }
            if part >= record.request.parts {
                break;
            }
        }
        Ok(None)
    }

    /// The parts of a request that are recorded, with their calls.
    pub(super) async fn parts(&self, request_id: &RequestId) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        // They may be taken up in any order.
        let (mut part, mut last) = (1, MAX_READ);
        while part <= last && (part <= 3 || !parts.is_empty()) {
            if let Some(record) = self.part(request_id, part).await? {
                last = last.min(record.request.parts);
                let chunks = record.plan.as_ref().map_or(0, |plan| plan.chunks.len());
                let chunks: Vec<u32> = (0..MAX_READ).take(chunks).collect();
                let attempts = self.attempts(&record, &chunks).await;
                parts.push(Part { record, attempts });
            }
            part += 1;
        }
        Ok(parts)
    }

    async fn part(&self, request_id: &RequestId, part: u32) -> Read<RequestRecord> {
        self.record(&["REQUEST", request_id.as_str(), &part.to_string()])
            .await
    }

    /// The calls made for these chunks. What cannot be read is left out: its request has said so already.
    async fn attempts(&self, request: &RequestRecord, chunks: &[u32]) -> Vec<Attempt> {
        let request = &request.request;
        let mut attempts = Vec::new();
        for chunk in chunks {
            for attempt in 1..=MAX_READ {
                let numbers = [request.part, *chunk, attempt].map(|number| number.to_string());
                let [part, chunk, attempt] = &numbers;
                let key = self.key(&["ATTEMPT", request.request_id.as_str(), part, chunk, attempt]);
                let Ok(Some([record, answer])) = self.table.texts(&key, ["record", "answer"]).await
                else {
                    break;
                };
                let parsed = Attempt::deserialize(record).map(|record| Attempt {
                    answer: Option::deserialize(answer).ok().flatten().or(record.answer),
                    call: record.call,
                });
                attempts.extend(parsed.ok());
            }
        }
        attempts
    }

    async fn record<T: serde::de::DeserializeOwned>(&self, names: &[&str]) -> Read<T> {
        said(self.table.record(&self.key(names)).await)
    }

    /// `KIND#cluster#rest`.
    fn key(&self, names: &[&str]) -> String {
        let (kind, rest) = names.split_first().expect("every key has a kind");
        let mut words = vec![*kind, self.site.client.cluster.as_str()];
        words.extend(rest);
        words.join("#")
    }
}

fn said<T>(read: Result<Option<T>, TableError>) -> Read<T> {
    read.map_err(|error| error.to_string())
}
