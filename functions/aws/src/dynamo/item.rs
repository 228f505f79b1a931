//! How records look as items: attributes that a person can read in the console, and that a burst node or
//! the stream's reader finds by these very names.

use std::collections::HashMap;
use std::net::IpAddr;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::record::InstanceRecord;
use spillway_core::name::{ClusterName, Generation, InstanceId, NodeName, RequestId};
use spillway_core::pairing::{DueUpdate, LaunchKey, Leaving, Pairing, PairingState, Step};

/// An item as the SDK has it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// The table's only key.
pub(super) const KEY: &str = "pk";

/// Over how many keys each index is spread: a key of an index takes 1,000 writes a second, and a burst
/// makes thousands of updates due at once.
pub(super) const SHARDS: u32 = 8;

/// A node's item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeItem {
    kind: Kind,
    version: u64,
    node: NodeName,
    generation: Generation,
    state: State,
    update_number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch_request_id: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch_part: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    launches_ms: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released_instance_id: Option<InstanceId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaving: Option<Leaving>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    history: Vec<Step>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    update_due: Option<DueUpdate>,
    /// Key of the index `due`; there only while an update is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_shard: Option<String>,
    /// Sort key of the index `due`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at_ms: Option<u64>,
    /// Key of the index `active`; there only while the node has an instance or waits for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active_shard: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Free,
    Requested,
    Launched,
    Ready,
}

impl NodeItem {
    /// The item of `pairing` at `version`.
    pub(super) fn new(cluster: &ClusterName, pairing: &Pairing, version: u64) -> Self {
        let due = pairing.update_due.as_ref();
        let mut item = Self {
            kind: Kind::Node,
            version,
            node: pairing.node.clone(),
            generation: pairing.generation,
            state: State::Free,
            update_number: pairing.update_number,
            request_id: pairing.request_id.clone(),
            launch_request_id: None,
            launch_part: None,
            instance_id: None,
            address: None,
            deadline_ms: None,
            launches_ms: pairing.launches_ms.clone(),
            released_instance_id: pairing.released.clone(),
            leaving: pairing.leaving().cloned(),
            recovered_ms: pairing.recovered_ms,
            history: pairing.history.clone(),
            update_due: due.cloned(),
            due_shard: due.map(|_| due_shard(cluster, shard_of(&pairing.node))),
            due_at_ms: due.map(|due| due.since_ms),
            active_shard: (pairing.state != PairingState::Free)
                .then(|| active_shard(cluster, shard_of(&pairing.node))),
        };
        match &pairing.state {
            PairingState::Free => {}
            PairingState::Requested {
                launch,
                deadline_ms,
            } => {
                item.state = State::Requested;
                item.set_launch(launch, *deadline_ms);
            }
            PairingState::Launched {
                launch,
                deadline_ms,
                instance,
                address,
            } => {
                item.state = State::Launched;
                item.set_launch(launch, *deadline_ms);
                item.set_instance(instance, *address);
            }
            PairingState::Ready {
                instance, address, ..
            } => {
                item.state = State::Ready;
                item.set_instance(instance, *address);
            }
        }
        item
    }

    fn set_launch(&mut self, launch: &LaunchKey, deadline_ms: u64) {
        self.launch_request_id = Some(launch.request_id.clone());
        self.launch_part = Some(launch.part);
        self.deadline_ms = Some(deadline_ms);
    }

    fn set_instance(&mut self, instance: &InstanceId, address: IpAddr) {
        self.instance_id = Some(instance.clone());
        self.address = Some(address);
    }

    /// The pairing and its version; none if attributes that its state needs are missing.
    pub(super) fn into_pairing(self) -> Option<(Pairing, u64)> {
        let launch = self.launch_request_id.zip(self.launch_part);
        let launch = launch.map(|(request_id, part)| LaunchKey { request_id, part });
        let state = match self.state {
            State::Free => PairingState::Free,
            State::Requested => PairingState::Requested {
                launch: launch?,
                deadline_ms: self.deadline_ms?,
            },
            State::Launched => PairingState::Launched {
                launch: launch?,
                deadline_ms: self.deadline_ms?,
                instance: self.instance_id?,
                address: self.address?,
            },
            State::Ready => PairingState::Ready {
                instance: self.instance_id?,
                address: self.address?,
                leaving: self.leaving,
            },
        };
        let pairing = Pairing {
            node: self.node,
            generation: self.generation,
            request_id: self.request_id,
            state,
            update_number: self.update_number,
            update_due: self.update_due,
            launches_ms: self.launches_ms,
            released: self.released_instance_id,
            recovered_ms: self.recovered_ms,
            history: self.history,
        };
        Some((pairing, self.version))
    }

    /// As an item with its key.
    pub(super) fn into_item(self, key: String) -> Result<Item, Fault> {
        let mut item = to_item(&self)?;
        item.insert(KEY.to_owned(), text(key));
        Ok(item)
    }
}

/// The key of one shard of the index `due`.
pub(super) fn due_shard(cluster: &ClusterName, shard: u32) -> String {
    format!("DUE#{cluster}#{shard}")
}

/// The key of one shard of the index `active`.
pub(super) fn active_shard(cluster: &ClusterName, shard: u32) -> String {
    format!("ACTIVE#{cluster}#{shard}")
}

/// The same for a name for ever (FNV-1a): Rust's own hashers may change with a release.
fn shard_of(node: &NodeName) -> u32 {
    let hash = node.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % SHARDS
}

/// A record as one attribute.
pub(super) fn map_value(record: &impl Serialize) -> Result<AttributeValue, Fault> {
    Ok(AttributeValue::M(to_item(record)?))
}

/// A string attribute.
pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number attribute.
pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The number called `name`.
pub(super) fn read_number(item: &Item, name: &str) -> Option<u64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

/// The text called `name`.
pub(super) fn read_text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// The JSON text called `name`.
pub(super) fn read_json<T: DeserializeOwned>(item: &Item, name: &str) -> Result<T, Fault> {
    let text =
        read_text(item, name).ok_or_else(|| malformed(item, &format!("it has no text {name}")))?;
    serde_json::from_str(text).map_err(|error| malformed(item, &format!("{name}: {error}")))
}

/// An instance's item as a record.
pub(super) fn read_instance(item: Item) -> Result<InstanceRecord, Fault> {
    from_item(item)
}

/// A node's item.
pub(super) fn read_node(item: Item) -> Result<NodeItem, Fault> {
    from_item(item)
}

fn from_item<T: DeserializeOwned>(item: Item) -> Result<T, Fault> {
    let key = read_text(&item, KEY).unwrap_or_default().to_owned();
    serde_dynamo::aws_sdk_dynamodb_1::from_item(item)
        .map_err(|error| malformed_key(&key, &error.to_string()))
}

fn to_item(record: &impl Serialize) -> Result<Item, Fault> {
    serde_dynamo::aws_sdk_dynamodb_1::to_item(record)
        .map_err(|error| malformed_key("", &error.to_string()))
}

/// The fault of an item that is not as we write them.
pub(super) fn malformed(item: &Item, problem: &str) -> Fault {
    malformed_key(read_text(item, KEY).unwrap_or_default(), problem)
}

fn malformed_key(key: &str, problem: &str) -> Fault {
    Fault {
        kind: FaultKind::Invalid,
        service: "dynamodb".into(),
        operation: "GetItem".into(),
        code: "MalformedItem".to_owned(),
        message: format!("item {key}: {problem}"),
    }
}
