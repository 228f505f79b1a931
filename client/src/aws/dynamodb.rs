//! The table, as far as this program may touch it: a burst node reads its own item, an operator reads and
//! writes the policy, and what `operator` has besides.

mod operator;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, Put, TransactWriteItem};
use spillway_core::config::{Policy, PolicyError};
use spillway_core::name::{ClusterName, Generation, NameError, NodeName};

pub use operator::Released;

/// The partition key of every item.
const KEY: &str = "pk";

/// The table of one cluster.
#[derive(Debug, Clone)]
pub struct Table {
    client: Client,
    name: String,
}

/// Why the table did not serve.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// `DynamoDB` refused or did not answer.
    #[error("table {table}: {said}")]
    Service {
        /// Its name.
        table: String,
        /// The service's code and message, or what stood in the way.
        said: String,
    },
    /// An item that this build does not understand.
    #[error(
        "item {key} in table {table}: {problem}: is the table from another version of Spillway?"
    )]
    Item {
        /// Its name.
        table: String,
        /// Which item.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Somebody else was faster.
    #[error(
        "version {version} of the policy was written by somebody else just now: look at it, then push again"
    )]
    Superseded {
        /// The version we wanted to write.
        version: u64,
    },
}

/// An instance's own item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceItem {
    /// Where it stands.
    pub state: InstanceState,
    /// What it serves; absent if it never served a node.
    pub serving: Option<Serving>,
    /// The generation for which slurmctld has acknowledged the address.
    pub acknowledged_generation: Option<Generation>,
    /// When the node must have joined, Unix milliseconds.
    pub deadline_ms: Option<u64>,
}

/// Which node an instance serves, and for which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// The Slurm node.
    pub node: NodeName,
    /// The node's generation.
    pub generation: Generation,
}

/// The life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It serves a node.
    Paired,
    /// It is to be terminated, or was.
    Released,
}

/// A policy as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    /// 1 for the first one pushed.
    pub version: u64,
    /// The policy.
    pub policy: Policy,
}

type Item = HashMap<String, AttributeValue>;

impl Table {
    /// The table of that name.
    #[must_use]
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self {
            client,
            name: name.into(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The item of the instance with this ARN; none if it has not been paired with a node yet.
    pub async fn instance(&self, arn: &str) -> Result<Option<InstanceItem>, TableError> {
        let Some(item) = self.item(arn).await? else {
            return Ok(None);
        };
        InstanceItem::parse(&item)
            .map(Some)
            .map_err(|problem| self.malformed(arn, problem))
    }

    /// The policy that is in force; none if none was pushed yet.
    pub async fn policy(&self, cluster: &ClusterName) -> Result<Option<StoredPolicy>, TableError> {
        let key = policy_key(cluster);
        let Some(item) = self.item(&key).await? else {
            return Ok(None);
        };
        StoredPolicy::parse(&item)
            .map(Some)
            .map_err(|problem| self.malformed(&key, problem))
    }

    /// Puts a policy in force as the next version after `replaced`, and keeps it as that version besides:
    /// both or neither. Returns the version.
    pub async fn push_policy(
        &self,
        policy: &Policy,
        replaced: Option<u64>,
        pushed_by: &str,
    ) -> Result<u64, TableError> {
        let version = replaced.unwrap_or(0) + 1;
        let key = policy_key(&policy.cluster);
        let current = self.put(&key, policy, version, pushed_by);
        let current = match replaced {
            None => current.condition_expression("attribute_not_exists(pk)"),
            Some(replaced) => current
                .condition_expression("version = :replaced")
                .expression_attribute_values(":replaced", number(replaced)),
        };
        let history = self
            .put(&format!("{key}#{version}"), policy, version, pushed_by)
            .condition_expression("attribute_not_exists(pk)");
        let write = |put: aws_sdk_dynamodb::types::builders::PutBuilder| {
            let put = put.build().expect("table and item are set");
            TransactWriteItem::builder().put(put).build()
        };
        let sent = self
            .client
            .transact_write_items()
            .transact_items(write(current))
            .transact_items(write(history))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(version),
            Err(error) if error.as_service_error().is_some_and(is_race) => {
                Err(TableError::Superseded { version })
            }
            Err(error) => Err(self.refused(&error)),
        }
    }

    fn put(
        &self,
        key: &str,
        policy: &Policy,
        version: u64,
        pushed_by: &str,
    ) -> aws_sdk_dynamodb::types::builders::PutBuilder {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Put::builder()
            .table_name(&self.name)
            .item(KEY, text(key))
            .item("kind", text("policy"))
            .item("version", number(version))
            .item("policy", text(&policy.to_json()))
            .item("pushed_at_ms", number(now_ms))
            .item("pushed_by", text(pushed_by))
    }

    async fn item(&self, key: &str) -> Result<Option<Item>, TableError> {
        let answer = self
            .client
            .get_item()
            .table_name(&self.name)
            .key(KEY, AttributeValue::S(key.to_owned()))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| self.refused(&error))?;
        Ok(answer.item)
    }

    fn refused<E>(&self, error: &E) -> TableError
    where
        E: ProvideErrorMetadata + std::error::Error,
    {
        let said = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            _ => DisplayErrorContext(error).to_string(),
        };
        TableError::Service {
            table: self.name.clone(),
            said,
        }
    }

    fn malformed(&self, key: &str, problem: String) -> TableError {
        TableError::Item {
            table: self.name.clone(),
            key: key.to_owned(),
            problem,
        }
    }
}

/// Whether a transaction failed because somebody else wrote the same items.
fn is_race(error: &TransactWriteItemsError) -> bool {
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        return false;
    };
    let codes = cancelled.cancellation_reasons().iter();
    codes
        .filter_map(|reason| reason.code())
        .any(|code| matches!(code, "ConditionalCheckFailed" | "TransactionConflict"))
}

fn policy_key(cluster: &ClusterName) -> String {
    format!("POLICY#{cluster}")
}

fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn read_text<'a>(item: &'a Item, name: &str) -> Result<Option<&'a str>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::S(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a string")),
    }
}

fn read_number(item: &Item, name: &str) -> Result<Option<u64>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::N(digits)) => digits
            .parse()
            .map(Some)
            .map_err(|_| format!("{name} is {digits:?}, not a whole number")),
        Some(_) => Err(format!("{name} is not a number")),
    }
}

impl InstanceItem {
    fn parse(item: &Item) -> Result<Self, String> {
        let state = match read_text(item, "state")? {
            Some("paired") => InstanceState::Paired,
            Some("released" | "terminated") => InstanceState::Released,
            other => return Err(format!("state is {other:?}")),
        };
        let named = |error: NameError| error.to_string();
        let generation = |name| -> Result<Option<Generation>, String> {
            let value = read_number(item, name)?;
            value.map(Generation::new).transpose().map_err(named)
        };
        let node = read_text(item, "node")?
            .map(NodeName::new)
            .transpose()
            .map_err(named)?;
        let serving = node
            .zip(generation("generation")?)
            .map(|(node, generation)| Serving { node, generation });
        if state == InstanceState::Paired && serving.is_none() {
            return Err("it is paired but names no node and generation".to_owned());
        }
        Ok(Self {
            state,
            serving,
            acknowledged_generation: generation("acknowledged_generation")?,
            deadline_ms: read_number(item, "deadline_ms")?,
        })
    }
}

impl StoredPolicy {
    fn parse(item: &Item) -> Result<Self, String> {
        let version = read_number(item, "version")?.ok_or("it has no version")?;
        let text = read_text(item, "policy")?.ok_or("it has no policy")?;
        let policy = Policy::from_json(text).map_err(|error: PolicyError| error.to_string())?;
        Ok(Self { version, policy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(pairs: &[(&str, AttributeValue)]) -> Item {
        let own = |(name, value): &(&str, AttributeValue)| ((*name).to_owned(), value.clone());
        pairs.iter().map(own).collect()
    }

    fn text(text: &str) -> AttributeValue {
        AttributeValue::S(text.to_owned())
    }

    #[test]
    fn a_paired_instance_knows_its_node_and_generation() {
        let parsed = InstanceItem::parse(&item(&[
            (
                "pk",
                text("arn:aws:ec2:us-east-1:000000000000:instance/i-00000000000000001"),
            ),
            ("kind", text("instance")),
            ("instance_id", text("i-00000000000000001")),
            ("state", text("paired")),
            ("node", text("aws-1")),
            ("generation", number(12)),
            ("address", text("10.0.0.1")),
            ("acknowledged_generation", number(11)),
        ]))
        .unwrap();
        assert_eq!(
            parsed,
            InstanceItem {
                state: InstanceState::Paired,
                serving: Some(Serving {
                    node: NodeName::new("aws-1").unwrap(),
                    generation: Generation::new(12).unwrap(),
                }),
                acknowledged_generation: Some(Generation::new(11).unwrap()),
                deadline_ms: None,
            }
        );
    }

    #[test]
    fn released_and_terminated_are_the_end() {
        for state in ["released", "terminated"] {
            let parsed = InstanceItem::parse(&item(&[("state", text(state))])).unwrap();
            assert_eq!(parsed.state, InstanceState::Released);
        }
    }

    #[test]
    fn an_item_of_another_shape_is_an_error() {
        for pairs in [
            vec![],
            vec![("state", text("new"))],
            vec![("state", text("paired"))],
            vec![("state", text("paired")), ("node", text("aws-1"))],
            vec![("state", text("released")), ("deadline_ms", text("1"))],
            vec![("state", text("released")), ("generation", number(0))],
        ] {
            InstanceItem::parse(&item(&pairs)).unwrap_err();
        }
    }
}
