//! Sharing: which of a chunk's nodes get the instances that came.

use std::collections::BTreeSet;

use super::{Chunk, launch::names};
use crate::config::Strategy;
use crate::name::NodeName;

/// A chunk's nodes by what must come together, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units(Vec<Unit>);

/// Nodes of one job, or of none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub nodes: BTreeSet<NodeName>,
    /// Worth nothing unless all come.
    pub is_whole: bool,
    /// EC2 is held to that where it can be.
    pub is_strict: bool,
}

/// The units of a chunk.
#[must_use]
pub fn units(chunk: &Chunk) -> Units {
    let of_job = |job: &super::ChunkJob| Unit {
        nodes: names(&job.nodes).into_iter().collect(),
        is_whole: job.strategy != Strategy::BestEffort,
        is_strict: job.strategy == Strategy::AllOrNothing
            || (chunk.one_zone && job.strategy == Strategy::Greedy),
    };
    let mut units: Vec<Unit> = chunk.jobs.iter().map(of_job).collect();
    let of_jobs: BTreeSet<&NodeName> = units.iter().flat_map(|unit| &unit.nodes).collect();
    let others: BTreeSet<NodeName> = names(&chunk.nodes)
        .into_iter()
        .filter(|node| !of_jobs.contains(node))
        .collect();
    if !others.is_empty() {
        units.push(Unit {
            nodes: others,
            is_whole: false,
            is_strict: false,
        });
    }
    Units(units)
}

impl Units {
    pub(super) fn as_slice(&self) -> &[Unit] {
        &self.0
    }

    /// The nodes of `wanted` that `instances` instances serve: jobs in the order of the request, each gang whole or not
    /// at all, so that what one gang leaves incomplete serves those behind it. A node of several jobs is served once.
    #[must_use]
    pub fn share(&self, wanted: &BTreeSet<NodeName>, instances: usize) -> Vec<NodeName> {
        let mut left = instances;
        let mut served: BTreeSet<&NodeName> = BTreeSet::new();
        let mut order = Vec::new();
        for unit in &self.0 {
            let needs: Vec<&NodeName> = unit
                .nodes
                .iter()
                .filter(|node| wanted.contains(*node) && !served.contains(node))
                .collect();
            if unit.is_whole && needs.len() > left {
                continue;
            }
            for node in needs.into_iter().take(left) {
                served.insert(node);
                order.push(node.clone());
                left -= 1;
            }
        }
        order
    }
}
