//! The configuration of a function, from the environment that the template sets.

use spillway_core::name::{ClusterName, NameError};

const EVENT_BUS: &str = "SPILLWAY_EVENT_BUS";
const BURST_NODE_ROLE_ID: &str = "SPILLWAY_BURST_NODE_ROLE_ID";

/// What the template tells a function.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `SPILLWAY_CLUSTER`: the cluster this control plane serves.
    pub cluster: ClusterName,
    /// `SPILLWAY_TABLE`: the name of the state table.
    pub table: String,
    /// `SPILLWAY_RESUME_QUEUE_URL`, where the function has it.
    pub resume_queue_url: Option<String>,
    /// `SPILLWAY_SUSPEND_QUEUE_URL`, where the function has it.
    pub suspend_queue_url: Option<String>,
    /// `SPILLWAY_REPORTS_QUEUE_URL`, where the function has it.
    pub reports_queue_url: Option<String>,
    /// `SPILLWAY_UPDATES_QUEUE_URL`, where the function has it.
    pub updates_queue_url: Option<String>,
    /// `SPILLWAY_EVENT_BUS`: the name of the stack's event bus, where the function has it.
    pub event_bus: Option<String>,
    /// `SPILLWAY_APPLY_DOCUMENT`: the SSM document, where head nodes are told by Run Command.
    pub apply_document: Option<String>,
    /// `SPILLWAY_APPLY_DOCUMENT_HASH`: SHA-256 of its content, in hex.
    pub apply_document_hash: Option<String>,
    /// `SPILLWAY_HEAD_NODES`: the head nodes' ids as managed nodes, with commas between; none without that road.
    pub head_nodes: Vec<String>,
    /// `SPILLWAY_DEAD_LETTER_QUEUE_URL`, where the function has it.
    pub dead_letter_queue_url: Option<String>,
    /// `SPILLWAY_BURST_NODE_ROLE_ID`, where the function has it: the unique id (`AROA…`) of the burst nodes' role.
    pub burst_node_role_id: Option<String>,
}

/// Why the environment will not do.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// A variable is missing.
    #[error("{variable} is not set: deploy the function with the template")]
    Missing {
        /// Its name.
        variable: &'static str,
    },
    /// `SPILLWAY_CLUSTER` is no cluster name.
    #[error("SPILLWAY_CLUSTER")]
    Cluster(#[from] NameError),
}

impl Environment {
    /// Reads the process's own.
    pub fn read() -> Result<Self, EnvironmentError> {
        Self::from_variables(|variable| std::env::var(variable).ok())
    }

    /// The name of the stack's event bus, for the function that cannot do without.
    pub fn required_event_bus(&self) -> Result<String, EnvironmentError> {
        let missing = EnvironmentError::Missing {
            variable: EVENT_BUS,
        };
        self.event_bus.clone().ok_or(missing)
    }

    /// The unique id of the burst nodes' role, for the function that cannot do without.
    pub fn required_burst_node_role_id(&self) -> Result<String, EnvironmentError> {
        let missing = EnvironmentError::Missing {
            variable: BURST_NODE_ROLE_ID,
        };
        self.burst_node_role_id.clone().ok_or(missing)
    }

    fn from_variables(
        value: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let given = |variable| value(variable).filter(|value| !value.is_empty());
        let required = |variable| given(variable).ok_or(EnvironmentError::Missing { variable });
        Ok(Self {
            cluster: ClusterName::new(required("SPILLWAY_CLUSTER")?)?,
            table: required("SPILLWAY_TABLE")?,
            resume_queue_url: given("SPILLWAY_RESUME_QUEUE_URL"),
            suspend_queue_url: given("SPILLWAY_SUSPEND_QUEUE_URL"),
            reports_queue_url: given("SPILLWAY_REPORTS_QUEUE_URL"),
            updates_queue_url: given("SPILLWAY_UPDATES_QUEUE_URL"),
            event_bus: given(EVENT_BUS),
            apply_document: given("SPILLWAY_APPLY_DOCUMENT"),
            apply_document_hash: given("SPILLWAY_APPLY_DOCUMENT_HASH"),
            head_nodes: given("SPILLWAY_HEAD_NODES")
                .map(|nodes| nodes.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            dead_letter_queue_url: given("SPILLWAY_DEAD_LETTER_QUEUE_URL"),
            burst_node_role_id: given(BURST_NODE_ROLE_ID),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(variable: &str) -> Option<String> {
        match variable {
            "SPILLWAY_CLUSTER" => Some("lab".to_owned()),
            "SPILLWAY_TABLE" => Some("lab-state".to_owned()),
            "SPILLWAY_RESUME_QUEUE_URL" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn an_empty_variable_is_an_absent_one() {
        let environment = Environment::from_variables(variables).unwrap();
        assert_eq!(environment.table, "lab-state");
        assert_eq!(environment.resume_queue_url, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Environment::from_variables(|variable| {
            variables(variable).filter(|value| value != "lab-state")
        });
        assert_eq!(
            error.unwrap_err().to_string(),
            "SPILLWAY_TABLE is not set: deploy the function with the template"
        );
    }
}
