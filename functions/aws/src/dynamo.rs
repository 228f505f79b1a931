//! The state table in DynamoDB: one table, one key `pk`, an item per node, instance, request, attempt.
//!
//! Every write is conditional. No text of DynamoDB's is ever matched, only codes.

mod call;
mod find;
mod instances;
mod item;
mod pairings;
mod records;
mod shared;

use spillway_control::fault::Fault;
use spillway_control::ports::{PairingWrite, Table};
use spillway_control::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, HeldBy, InstanceRecord, LaunchAnswer,
    NodeStatesRecord, Origin, RequestRecord, Stored,
};
use spillway_control::shared::Shared;
use spillway_core::config::Policy;
use spillway_core::name::{ClusterName, InstanceId, NodeName};
use spillway_core::pairing::{LaunchKey, Pairing};

use crate::home::Home;
use crate::sdk::{DynamoClient, SdkConfig};

pub use records::{MAX_RECORD_BYTES, RECORD_RETENTION_SECONDS};

/// How many calls of one batch are in flight at a time: 100 items each, so that the 3,000 reads a second of
/// one partition are not passed by one worker alone.
const CALLS_AT_ONCE: usize = 8;

/// The table of one cluster.
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: DynamoClient,
    table: String,
    cluster: ClusterName,
    home: Home,
}

impl DynamoTable {
    /// A client; make one per process.
    #[must_use]
    pub fn client(config: &SdkConfig) -> DynamoClient {
        DynamoClient::new(config)
    }

    /// Makes a cheap call, so that the first invocation finds an open connection. What it answers is not
    /// needed; if it fails, the first real call fails too, and says why.
    pub async fn warm(client: &DynamoClient, table: &str, cluster: &ClusterName) {
        let key = item::text(policy_key(cluster));
        let _ = client
            .get_item()
            .table_name(table)
            .key(item::KEY, key)
            .projection_expression("pushed_at_ms")
            .send()
            .await;
    }

    /// The table called `table`, with the items of `cluster` and of the instances at `home`.
    #[must_use]
    pub fn new(client: DynamoClient, table: String, cluster: ClusterName, home: Home) -> Self {
        Self {
            client,
            table,
            cluster,
            home,
        }
    }

    fn node_prefix(&self) -> String {
        format!("NODE#{}#", self.cluster)
    }

    fn node_key(&self, node: &NodeName) -> String {
        format!("{}{node}", self.node_prefix())
    }

    fn request_key(&self, key: &LaunchKey) -> String {
        format!("REQUEST#{}#{}#{}", self.cluster, key.request_id, key.part)
    }

    fn attempt_key(&self, key: &AttemptKey) -> String {
        let AttemptKey {
            launch,
            chunk,
            attempt,
        } = key;
        format!(
            "ATTEMPT#{}#{}#{}#{chunk}#{attempt}",
            self.cluster, launch.request_id, launch.part
        )
    }

    fn heartbeat_key(&self) -> String {
        format!("HEARTBEAT#{}", self.cluster)
    }

    fn node_states_key(&self) -> String {
        format!("STATES#{}", self.cluster)
    }
}

/// Where `spillway config push` puts the policy.
fn policy_key(cluster: &ClusterName) -> String {
    format!("POLICY#{cluster}")
}

impl Table for DynamoTable {
    async fn policy(&self) -> Result<Option<Policy>, Fault> {
        self.read_policy().await
    }

    async fn pairings(&self, nodes: &[NodeName]) -> Result<Vec<Stored<Pairing>>, Fault> {
        self.read_pairings(nodes).await
    }

    async fn write_pairings(&self, writes: &[PairingWrite]) -> Result<Vec<bool>, Fault> {
        self.transact(writes).await
    }

    async fn nodes_with_update_due(&self) -> Result<Vec<NodeName>, Fault> {
        self.find_due().await
    }

    async fn active_nodes(&self) -> Result<Vec<NodeName>, Fault> {
        self.find_active().await
    }

    async fn every_node(&self) -> Result<Vec<NodeName>, Fault> {
        self.find_every().await
    }

    async fn instances(&self, ids: &[InstanceId]) -> Result<Vec<InstanceRecord>, Fault> {
        self.read_instances(ids).await
    }

    async fn release_unpaired(&self, ids: &[InstanceId], origin: &Origin) -> Result<(), Fault> {
        self.mark_released(ids, origin).await
    }

    async fn release_orphan(
        &self,
        id: &InstanceId,
        seen: Option<&InstanceRecord>,
    ) -> Result<bool, Fault> {
        self.mark_orphan(id, seen).await
    }

    async fn hold(&self, ids: &[InstanceId], held: Option<HeldBy>) -> Result<(), Fault> {
        self.mark_held(ids, held).await
    }

    async fn note_unknown(&self, ids: &[InstanceId], now_ms: u64) -> Result<(), Fault> {
        self.note_unknown_released(ids, now_ms).await
    }

    async fn mark_terminated(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, Fault> {
        self.close_released(ids).await
    }

    async fn shared<S: Shared>(&self, name: &str) -> Result<Stored<S>, Fault> {
        self.read_shared(name).await
    }

    async fn put_shared<S: Shared>(
        &self,
        name: &str,
        record: &S,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        self.write_shared(name, record, expected_version).await
    }

    async fn request(&self, key: &LaunchKey) -> Result<Option<Stored<RequestRecord>>, Fault> {
        self.read_request(key).await
    }

    async fn put_request(
        &self,
        key: &LaunchKey,
        record: &RequestRecord,
        expected_version: u64,
    ) -> Result<bool, Fault> {
        self.write_request(key, record, expected_version).await
    }

    async fn attempt(&self, key: &AttemptKey) -> Result<Option<AttemptRecord>, Fault> {
        self.read_attempt(key).await
    }

    async fn put_attempt(&self, key: &AttemptKey, record: &AttemptRecord) -> Result<bool, Fault> {
        self.write_attempt(key, record).await
    }

    async fn answer_attempt(&self, key: &AttemptKey, answer: &LaunchAnswer) -> Result<(), Fault> {
        self.write_answer(key, answer).await
    }

    async fn heartbeat(&self) -> Result<Option<HeartbeatRecord>, Fault> {
        self.read_heartbeat().await
    }

    async fn put_heartbeat(&self, record: &HeartbeatRecord) -> Result<(), Fault> {
        self.write_heartbeat(record).await
    }

    async fn node_states(&self) -> Result<Option<NodeStatesRecord>, Fault> {
        self.read_node_states().await
    }

    async fn put_node_states(&self, record: &NodeStatesRecord) -> Result<(), Fault> {
        self.write_node_states(record).await
    }
}
