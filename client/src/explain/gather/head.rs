//! The head node's own files: the spool, and the memory of what was asked. Nothing is written and no lock is taken, so that
//! anybody who may read them can ask.

use std::collections::HashMap;

use spillway_core::config::ClientConfig;
use spillway_core::name::{NodeName, RequestId};

use super::super::facts::{Local, Read, Waiting};
use crate::callback;
use crate::slurm::NodeRow;
use crate::spool::{self, Header, Target};

/// slurmctld's nodes.
pub type Rows = HashMap<NodeName, NodeRow>;

/// What they say of a node.
pub fn of_node(site: &ClientConfig, node: &NodeName) -> Read<Local> {
    let headers = spool::waiting(&site.spool_directory).map_err(|error| error.to_string())?;
    let own = headers
        .iter()
        .filter(|header| header.nodes.iter().any(|name| name == node.as_str()));
    let stamped = callback::last_request(&site.spool_directory, node);
    Ok(Some(Local {
        stamped: stamped.map_err(|error| error.to_string())?,
        waiting: own.map(waiting).collect(),
    }))
}

/// The request, if it waits to be sent.
pub fn waiting_request(site: &ClientConfig, id: &RequestId) -> Read<Waiting> {
    let headers = spool::waiting(&site.spool_directory).map_err(|error| error.to_string())?;
    Ok(headers
        .iter()
        .find(|header| header.request_id == *id)
        .map(waiting))
}

fn waiting(header: &Header) -> Waiting {
    Waiting {
        request_id: header.request_id.clone(),
        at_ms: header.generation.at_ms(),
        resume: header.target == Target::Resume,
        deadline_ms: header.deadline_ms,
    }
}
