//! The node names of a message: expanded, checked, each once.

use std::collections::BTreeSet;

use spillway_core::hostlist::{Hostlist, HostlistError};
use spillway_core::name::{NameError, NodeName};

/// Most names in one message, repetitions counted: Slurm's largest cluster. A text of some bytes can stand for many
/// more, and each would be looked up.
pub const MAX_NAMES: usize = 65_536;

/// Why a message's hostlist cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// Not an expression.
    #[error(transparent)]
    Hostlist(#[from] HostlistError),
    /// A name in it is no node name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// More names than any cluster has nodes.
    #[error("{names} names: a message may have {MAX_NAMES}")]
    TooMany {
        /// How many.
        names: usize,
    },
}

/// The names `expression` stands for, without repetitions, sorted.
pub fn distinct(expression: &str) -> Result<BTreeSet<NodeName>, NamesError> {
    let list = Hostlist::parse(expression)?;
    if list.len() > MAX_NAMES {
        return Err(NamesError::TooMany { names: list.len() });
    }
    Ok(list.node_names()?.into_iter().collect())
}
