//! A gang whose nodes are launched apart: in several chunks, or in several requests because Slurm split the job's nodes
//! over calls of ResumeProgram. Its parts launch as they come; no part is paired before all are there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::name::{Generation, NodeName};
use crate::pairing::LaunchKey;

/// How long a gang waits for a part after the last one came. With its default `ResumeRate` Slurm asks for the rest within
/// ten seconds or so.
pub const PART_WAIT_MS: u64 = 60_000;

/// What a reason says where a part of a gang is missing.
pub const NOT_ASKED_FOR: &str = "Slurm did not ask for";

/// Most nodes of one gang that other requests are to ask for.
pub const MAX_AWAITED_NODES: usize = 10_000;

/// The record of one job's gang. A job that was requeued opens a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gang {
    /// The generation of the first part that came.
    pub opened: Generation,
    /// Nodes that no part brings yet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub awaited: BTreeSet<NodeName>,
    /// The parts, by [`part_name`].
    pub parts: BTreeMap<String, Part>,
    /// When the last part came, Unix milliseconds.
    pub last_part_ms: u64,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its nodes.
    pub nodes: BTreeSet<NodeName>,
    /// All of its instances are there.
    pub is_ready: bool,
}

/// How a gang ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All came.
    Complete,
    /// Not all came.
    Failed {
        /// For Slurm's Reason.
        reason: String,
    },
}

/// The name of what one chunk brings.
#[must_use]
pub fn part_name(launch: &LaunchKey, chunk: u32) -> String {
    format!("{}/{}/{chunk}", launch.request_id, launch.part)
}

impl Gang {
    /// The gang with one more part: an open one that awaits these nodes, or a new one. `awaited` are the job's nodes
    /// that no request has asked for yet.
    #[must_use]
    pub fn with_part(
        before: Option<Self>,
        name: &str,
        nodes: BTreeSet<NodeName>,
        awaited: BTreeSet<NodeName>,
        generation: Generation,
        now_ms: u64,
    ) -> Self {
        let part = Part {
            nodes,
            is_ready: false,
        };
        let mut gang = match before {
            Some(gang) if gang.parts.contains_key(name) => return gang,
            Some(gang) if gang.end.is_none() && gang.belongs(&part, generation) => gang,
            _ => Self {
                opened: generation,
                awaited,
                parts: BTreeMap::new(),
                last_part_ms: now_ms,
                end: None,
            },
        };
        gang.awaited.retain(|node| !part.nodes.contains(node));
        gang.last_part_ms = now_ms;
        gang.parts.insert(name.to_owned(), part);
        gang
    }

    /// Parts of one request belong together, and so does what the gang awaits.
    fn belongs(&self, part: &Part, generation: Generation) -> bool {
        let known = |node: &NodeName| self.parts.values().any(|part| part.nodes.contains(node));
        generation == self.opened && !part.nodes.iter().any(known)
            || part.nodes.iter().all(|node| self.awaited.contains(node))
    }

    /// All instances of a part are there.
    pub fn ready(&mut self, name: &str) {
        if let Some(part) = self.parts.get_mut(name) {
            part.is_ready = true;
        }
        if self.end.is_none()
            && self.awaited.is_empty()
            && self.parts.values().all(|part| part.is_ready)
        {
            self.end = Some(End::Complete);
        }
    }

    /// A part cannot come. What is complete stays so.
    pub fn fail(&mut self, reason: &str) {
        if self.end.is_none() {
            self.end = Some(End::Failed {
                reason: reason.to_owned(),
            });
        }
    }

    /// Fails if a part is missing for too long.
    pub fn look(&mut self, now_ms: u64) {
        if self.awaited.is_empty() || now_ms < self.last_part_ms + PART_WAIT_MS {
            return;
        }
        let reason = format!(
            "spillway: {NOT_ASKED_FOR} {} of the job's nodes within {} s",
            self.awaited.len(),
            PART_WAIT_MS / 1000
        );
        self.fail(&reason);
    }
}
