//! Slurm's node states as the agent reported them, node by node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hostlist::Hostlist;
use crate::message::NodesInState;
use crate::name::NodeName;
use crate::node_state::NodeState;

/// slurmctld's states at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmReport {
    /// When slurmctld was asked, Unix milliseconds, by the head node's clock.
    pub observed_ms: u64,
    /// What it said of each cloud node.
    pub nodes: BTreeMap<NodeName, SlurmNode>,
}

/// What slurmctld says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmNode {
    state: Arc<str>,
    /// `Reason=`.
    pub reason: Option<Arc<str>>,
    /// An administrator set the reason, and with it the state.
    pub is_set_by_hand: bool,
    /// `NodeAddr`; absent of nodes at rest.
    pub address: Option<String>,
    /// The last request stamped for it; absent of nodes at rest, 0 for none.
    pub generation: Option<u64>,
}

impl SlurmNode {
    /// Its flags.
    #[must_use]
    pub fn state(&self) -> NodeState<'_> {
        NodeState(&self.state)
    }
}

impl SlurmReport {
    /// Reads a report. What cannot be read is left out: nothing is healed of a node that nothing is known of.
    #[must_use]
    pub fn read(observed_ms: u64, states: &[NodesInState]) -> Self {
        let mut nodes = BTreeMap::new();
        for group in states {
            let Some(names) = Hostlist::parse(&group.nodes)
                .ok()
                .and_then(|list| list.node_names().ok())
            else {
                continue;
            };
            let state: Arc<str> = group.state.as_str().into();
            let reason: Option<Arc<str>> = group.reason.as_deref().map(Into::into);
            for (index, name) in names.into_iter().enumerate() {
                let node = SlurmNode {
                    state: state.clone(),
                    reason: reason.clone(),
                    is_set_by_hand: group.set_by_hand,
                    address: group.addresses.get(index).cloned(),
                    generation: group.generations.get(index).copied(),
                };
                nodes.insert(name, node);
            }
        }
        Self { observed_ms, nodes }
    }
}
