//! The node names of a message: expanded, checked, each once.

use std::collections::BTreeSet;

use spillway_core::hostlist::{Hostlist, HostlistError};
use spillway_core::name::{NameError, NodeName};

/// Why a message's hostlist cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Not an expression.
    #[error(transparent)]
    Hostlist(#[from] HostlistError),
    /// A name in it is no node name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The names `expression` stands for, without repetitions, sorted.
pub fn distinct(expression: &str) -> Result<BTreeSet<NodeName>, NamesError> {
    Ok(Hostlist::parse(expression)?
        .node_names()?
        .into_iter()
        .collect())
}
