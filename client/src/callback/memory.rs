//! What must still be known after a crash: for each node the last request stamped and the last update
//! applied, and the envelopes already dealt with. One file, replaced as a whole; nodes that share their
//! history are one line of it, so that 10,000 nodes cost what one does.
//!
//! The agent and `spillway apply` both write it. Each takes in, under a lock held for moments, what the other
//! has written, before it writes itself. What is known only grows, so taking in is the same in any order.

mod signals;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spillway_core::envelope::Envelope;
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::UpdateResult;
use spillway_core::name::{Generation, JobId, NodeName};

use super::Arrival;
use crate::clock::now_ms;
use crate::files::{self, FileError, Identity, Keep};
use crate::nodes;
use crate::spool::{self, Target};
use signals::Signals;

/// The version this build writes, and the newest it reads.
const MEMORY_VERSION: u32 = 2;
/// Copies of one envelope that are told apart: one a road and head node, and those that somebody repeats.
const MAX_COPIES: usize = 16;

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

/// The durable memory of a spool directory.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    nodes: HashMap<NodeName, NodeHistory>,
    envelopes: BTreeMap<String, SeenEnvelope>,
    signals: Signals,
    /// Something is known that the file does not hold.
    changed: bool,
    /// The file as it was when we read or wrote it last.
    file: Option<Identity>,
}

/// What became of an envelope that was dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub envelope_id: String,
    /// What became of its updates.
    pub results: Vec<UpdateResult>,
    /// Whether the control plane was told.
    pub acknowledged: bool,
    /// It was dealt with before, when another copy of it came, or the same once more.
    pub repeated: bool,
    /// A copy came by this road before, in another message: nobody but a replayer sends two.
    pub replayed: bool,
}

/// An envelope that was dealt with, until it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SeenEnvelope {
    /// Unix milliseconds.
    expires_ms: u64,
    results: Vec<UpdateResult>,
    acknowledged: bool,
    /// [`Arrival::key`] of each copy.
    copies: BTreeSet<String>,
}

/// The file's form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    nodes: Vec<StoredNodes>,
    /// By envelope id. Version 1 had others, which were not sealed: none of them is accepted now.
    #[serde(default)]
    seen: BTreeMap<String, SeenEnvelope>,
    #[serde(default)]
    signals: Signals,
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

/// The last request that was stamped for a node, and whether that was a resume; none if there was none. For whoever only
/// looks.
pub fn last_request(
    directory: &Path,
    node: &NodeName,
) -> Result<Option<(Generation, bool)>, MemoryError> {
    let known = Memory::open(directory)?.node(node);
    Ok(known.map(|known| (known.generation, known.resume)))
}

impl Memory {
    /// Reads the memory of a spool directory; empty if there is none yet.
    pub fn open(directory: &Path) -> Result<Self, MemoryError> {
        let mut memory = Self {
            path: directory.join("memory.json"),
            nodes: HashMap::new(),
            envelopes: BTreeMap::new(),
            signals: Signals::default(),
            changed: false,
            file: None,
        };
        memory.refresh(now_ms())?;
        Ok(memory)
    }

    /// Takes in what another process has written since.
    pub fn refresh(&mut self, now_ms: u64) -> Result<(), MemoryError> {
        // Before the reading: if the file is replaced in between, the next call reads it again.
        let file = files::identity(&self.path);
        if file.is_none() || file == self.file {
            return Ok(());
        }
        let text = files::read(&self.path)?;
        let malformed = |source| MemoryError::Malformed {
            path: self.path.clone(),
            source,
        };
        let stored: Stored = serde_json::from_str(&text).map_err(malformed)?;
        if stored.version > MEMORY_VERSION {
            return Err(MemoryError::Newer {
                path: self.path.clone(),
                found: stored.version,
            });
        }
        let mut histories = Vec::with_capacity(stored.nodes.len());
        for line in stored.nodes {
            let history = NodeHistory {
                generation: line.generation,
                resume: line.resume,
                applied: line.applied,
            };
            let names = line.nodes.node_names().map_err(serde::de::Error::custom);
            histories.push((history, names.map_err(malformed)?));
        }
        for (history, names) in histories {
            for node in names {
                self.take_in(node, history, now_ms);
            }
        }
        let unexpired = stored.seen.into_iter();
        for (envelope_id, theirs) in unexpired.filter(|(_, seen)| seen.expires_ms > now_ms) {
            match self.envelopes.entry(envelope_id) {
                Entry::Vacant(place) => {
                    place.insert(theirs);
                }
                Entry::Occupied(mut ours) => {
                    let ours = ours.get_mut();
                    ours.acknowledged |= theirs.acknowledged;
                    ours.copies.extend(theirs.copies);
                }
            }
        }
        self.signals.take_in(stored.signals, now_ms);
        self.file = file;
        Ok(())
    }

    fn take_in(&mut self, node: NodeName, theirs: NodeHistory, now_ms: u64) {
        match self.nodes.get_mut(&node) {
            Some(ours) if ours.generation == theirs.generation => {
                ours.applied = ours.applied.max(theirs.applied);
            }
            Some(ours) if !spool::is_newer(theirs.generation, ours.generation, now_ms) => {}
            _ => {
                self.nodes.insert(node, theirs);
            }
        }
    }

    /// Writes what has changed, with what others have written.
    pub fn save(&mut self) -> Result<(), MemoryError> {
        if !self.changed {
            return Ok(());
        }
        let _lock = self.lock()?;
        let now_ms = now_ms();
        self.refresh(now_ms)?;
        self.envelopes.retain(|_, seen| seen.expires_ms > now_ms);
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
            seen: self.envelopes.clone(),
            signals: self.signals.clone(),
        };
        let text = serde_json::to_string(&stored).expect("only strings, numbers, lists and maps");
        files::replace(&self.path, text.as_bytes(), Keep::Durably)?;
        self.file = files::identity(&self.path);
        self.changed = false;
        Ok(())
    }

    /// Held while the file is read and replaced, for milliseconds; until it is dropped.
    fn lock(&self) -> Result<File, FileError> {
        let path = self.path.with_extension("lock");
        let file = files::open_or_make(&path)?;
        file.lock().map_err(FileError::on("lock", &path))?;
        Ok(file)
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

    /// The last request of each node.
    pub fn generations(&self) -> HashMap<NodeName, Generation> {
        let known = self.nodes.iter();
        known
            .map(|(node, history)| (node.clone(), history.generation))
            .collect()
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

    /// Takes note of a signal to this run of a job; false if it had one of late.
    pub fn is_first_signal(&mut self, job: &JobId, start_seconds: u64, now_ms: u64) -> bool {
        let is_first = self.signals.is_first(job, start_seconds, now_ms);
        self.changed |= is_first;
        is_first
    }

    /// What became of an envelope if it was dealt with before; takes note of this copy of it.
    pub fn answer_to(&mut self, envelope_id: &str, arrival: &Arrival) -> Option<Answer> {
        let seen = self.envelopes.get_mut(envelope_id)?;
        let replayed = arrival.is_replay_after(&seen.copies);
        if seen.copies.len() < MAX_COPIES && seen.copies.insert(arrival.key()) {
            self.changed = true;
        }
        Some(Answer {
            envelope_id: envelope_id.to_owned(),
            results: seen.results.clone(),
            acknowledged: seen.acknowledged,
            repeated: true,
            replayed,
        })
    }

    /// Takes note that an envelope was dealt with, and forgets those that have expired.
    pub fn dealt_with(
        &mut self,
        envelope: &Envelope,
        arrival: &Arrival,
        results: Vec<UpdateResult>,
        now_ms: u64,
    ) -> Answer {
        self.envelopes.retain(|_, seen| seen.expires_ms > now_ms);
        let seen = SeenEnvelope {
            expires_ms: envelope.expires_ms,
            results: results.clone(),
            acknowledged: false,
            copies: BTreeSet::from([arrival.key()]),
        };
        self.envelopes.insert(envelope.envelope_id.clone(), seen);
        self.changed = true;
        Answer {
            envelope_id: envelope.envelope_id.clone(),
            results,
            acknowledged: false,
            repeated: false,
            replayed: false,
        }
    }

    /// Takes note that the control plane was told what became of an envelope.
    pub fn acknowledged(&mut self, envelope_id: &str) {
        if let Some(seen) = self.envelopes.get_mut(envelope_id)
            && !seen.acknowledged
        {
            seen.acknowledged = true;
            self.changed = true;
        }
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

    fn envelope(id: &str, expires_ms: u64) -> Envelope {
        Envelope {
            envelope_id: id.to_owned(),
            issued_ms: 0,
            expires_ms,
            updates: Vec::new(),
        }
    }

    fn by_queue(message_id: &str) -> Arrival {
        Arrival::Queue {
            message_id: message_id.to_owned(),
        }
    }

    fn by_ssm(host: &str) -> Arrival {
        Arrival::Ssm {
            host: host.to_owned(),
        }
    }

    #[test]
    fn two_processes_know_what_either_has_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Memory::open(directory.path()).unwrap();
        let mut apply = Memory::open(directory.path()).unwrap();
        let node = NodeName::new("cloud1").unwrap();
        let at = |ms: u64| Generation::new((NOW_MS + ms) * 1000).unwrap();
        agent.stamped(vec![node.clone()], at(0), Target::Resume, NOW_MS);
        agent.save().unwrap();
        apply.refresh(NOW_MS).unwrap();
        apply.applied(&node, at(0), 2);
        let done = apply.dealt_with(
            &envelope("one", NOW_MS + 1),
            &by_ssm("a"),
            Vec::new(),
            NOW_MS,
        );
        assert!(!done.repeated && !done.acknowledged);
        apply.acknowledged("one");
        apply.save().unwrap();
        // The agent has not looked, and writes: what apply knew stays known to both.
        let other = NodeName::new("cloud2").unwrap();
        agent.stamped(vec![other.clone()], at(1), Target::Suspend, NOW_MS);
        agent.save().unwrap();
        assert_eq!(agent.node(&node).unwrap().applied, 2);
        let again = agent.answer_to("one", &by_queue("m1")).unwrap();
        assert!(again.repeated && again.acknowledged && !again.replayed);
        apply.refresh(NOW_MS).unwrap();
        assert_eq!(apply.node(&other).unwrap().generation, at(1));
        // An update of an older request is not taken for one of the newer.
        agent.stamped(vec![node.clone()], at(5), Target::Resume, NOW_MS);
        apply.applied(&node, at(0), 3);
        apply.save().unwrap();
        agent.refresh(NOW_MS).unwrap();
        let known = agent.node(&node).unwrap();
        assert_eq!((known.generation, known.applied), (at(5), 0));
    }

    #[test]
    fn a_second_message_on_one_road_is_a_replay() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        memory.dealt_with(
            &envelope("one", NOW_MS + 1),
            &by_queue("m1"),
            Vec::new(),
            NOW_MS,
        );
        let mut replayed = |arrival: Arrival| memory.answer_to("one", &arrival).unwrap().replayed;
        // The queue delivers a message again; SSM brings the copy that it is to bring, to each head node.
        assert!(!replayed(by_queue("m1")));
        assert!(!replayed(by_ssm("head1")));
        assert!(!replayed(by_ssm("head2")));
        assert!(!replayed(Arrival::ByHand));
        assert!(replayed(by_queue("m2")));
        assert!(!replayed(by_queue("m2")), "counted once");
        assert!(replayed(by_ssm("head1")));
        // It is known until it expires, and after that it is refused for its age.
        memory.dealt_with(
            &envelope("two", NOW_MS + 2),
            &by_queue("m3"),
            Vec::new(),
            NOW_MS + 1,
        );
        assert_eq!(memory.answer_to("one", &by_queue("m1")), None);
    }
}
