//! What the agent must still know after a crash: for each node the last request stamped and the last
//! update applied, and the envelopes already dealt with. One file, replaced as a whole; nodes that
//! share their history are one line of it, so that 10,000 nodes cost what one does.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::name::{Generation, NodeName};

use crate::files::{self, FileError, Keep};
use crate::nodes;
use crate::spool::{self, Target};

/// The version this build writes, and the newest it reads.
const MEMORY_VERSION: u32 = 1;

/// What is known of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeHistory {
    /// Stamp of the last request.
    pub generation: Generation,
    /// Whether that was a resume; else a suspend.
    pub resume: bool,
    /// Number of the last update applied that answers it; 0 if none.
    pub applied: u64,
}

/// The agent's durable memory.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    nodes: HashMap<NodeName, NodeHistory>,
    envelopes: BTreeMap<String, u64>,
    changed: bool,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    nodes: Vec<StoredNodes>,
    /// Envelope id and when it expires, Unix milliseconds.
    envelopes: BTreeMap<String, u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredNodes {
    nodes: Hostlist,
    generation: Generation,
    resume: bool,
    applied: u64,
}

/// Why the memory cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not our file.
    #[error("{path} is malformed ({source}): restore it, or remove it while no node powers up", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Written by a newer Spillway.
    #[error("{path} has version {found}, this build reads up to {MEMORY_VERSION}", path = path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

impl Memory {
    /// Reads the memory of a spool directory; empty if there is none yet.
    pub fn open(directory: &Path) -> Result<Self, MemoryError> {
        let path = directory.join("memory.json");
        let mut memory = Self {
            path: path.clone(),
            nodes: HashMap::new(),
            envelopes: BTreeMap::new(),
            changed: false,
        };
        let text = match files::read(&path) {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(memory),
            Err(error) => return Err(error.into()),
        };
        let malformed = |source| MemoryError::Malformed {
            path: path.clone(),
            source,
        };
        let stored: Stored = serde_json::from_str(&text).map_err(malformed)?;
        if stored.version > MEMORY_VERSION {
            return Err(MemoryError::Newer {
                path,
                found: stored.version,
            });
        }
        for line in stored.nodes {
            let history = NodeHistory {
                generation: line.generation,
                resume: line.resume,
                applied: line.applied,
            };
            let names = line.nodes.node_names().map_err(serde::de::Error::custom);
            for node in names.map_err(malformed)? {
                memory.nodes.insert(node, history);
            }
        }
        memory.envelopes = stored.envelopes;
        Ok(memory)
    }

    /// Writes what has changed.
    pub fn save(&mut self) -> Result<(), FileError> {
        if !self.changed {
            return Ok(());
        }
        let mut by_history: BTreeMap<NodeHistory, Vec<&NodeName>> = BTreeMap::new();
        for (node, history) in &self.nodes {
            by_history.entry(*history).or_default().push(node);
        }
        let nodes = by_history.into_iter().map(|(history, mut names)| {
            nodes::sort(&mut names);
            StoredNodes {
                nodes: Hostlist::parse(&hostlist::fold(names))
                    .expect("a fold of node names is a hostlist"),
                generation: history.generation,
                resume: history.resume,
                applied: history.applied,
            }
        });
        let stored = Stored {
            version: MEMORY_VERSION,
            nodes: nodes.collect(),
            envelopes: self.envelopes.clone(),
        };
        let text = serde_json::to_string(&stored).expect("only strings, numbers, lists and maps");
        files::replace(&self.path, text.as_bytes(), Keep::Durably)?;
        self.changed = false;
        Ok(())
    }

    /// Takes note of a request; an older one than the last changes nothing. True if a stamp far ahead of
    /// `now_ms` was forgotten for it.
    pub fn stamped(
        &mut self,
        names: Vec<NodeName>,
        generation: Generation,
        target: Target,
        now_ms: u64,
    ) -> bool {
        let mut forgotten = false;
        for node in names {
            let known = self.nodes.get(&node).map(|known| known.generation);
            if known.is_none_or(|known| spool::is_newer(generation, known, now_ms)) {
                forgotten |= known.is_some_and(|known| known > generation);
                self.nodes.insert(
                    node,
                    NodeHistory {
                        generation,
                        resume: target == Target::Resume,
                        applied: 0,
                    },
                );
                self.changed = true;
            }
        }
        forgotten
    }

    /// What is known of a node.
    pub fn node(&self, node: &NodeName) -> Option<NodeHistory> {
        self.nodes.get(node).copied()
    }

    /// Takes note that slurmctld has an update of a node's last request.
    pub fn applied(&mut self, node: &NodeName, generation: Generation, number: u64) {
        if let Some(known) = self.nodes.get_mut(node)
            && known.generation == generation
            && known.applied < number
        {
            known.applied = number;
            self.changed = true;
        }
    }

    /// Whether an envelope was dealt with before.
    pub fn has_seen(&self, envelope_id: &str) -> bool {
        self.envelopes.contains_key(envelope_id)
    }

    /// Takes note that an envelope was dealt with, and forgets those that have expired.
    pub fn seen(&mut self, envelope_id: &str, expires_ms: u64, now_ms: u64) {
        self.envelopes.retain(|_, expires_ms| *expires_ms > now_ms);
        self.envelopes.insert(envelope_id.to_owned(), expires_ms);
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn the_newest_request_is_known_also_after_a_wrong_clock() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        let node = NodeName::new("cloud1").unwrap();
        let at = |seconds: i64| {
            let at_ms = NOW_MS.checked_add_signed(seconds * 1000).unwrap();
            Generation::new(at_ms * 1000).unwrap()
        };
        // When each was stamped and taken in, and what is then the last one.
        for (stamp, now, last, forgotten) in [
            (-20, -20, -20, false),
            (-30, -20, -20, false),
            // The clock is an hour ahead, and then right again.
            (3600, 3600, 3600, false),
            (0, 0, 0, true),
            // Read again after a restart.
            (3600, 0, 0, false),
            (-20, 0, 0, false),
            // As far ahead as a stamp may be.
            (300, 0, 300, false),
            (1, 1, 300, false),
        ] {
            let now_ms = NOW_MS.checked_add_signed(now * 1000).unwrap();
            let names = vec![node.clone()];
            let said = memory.stamped(names, at(stamp), Target::Resume, now_ms);
            assert_eq!(said, forgotten, "{stamp}");
            assert_eq!(memory.node(&node).unwrap().generation, at(last), "{stamp}");
        }
    }
}
