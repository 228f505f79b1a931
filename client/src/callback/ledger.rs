//! Spool and memory together: which requests are still to be sent or undone, and what each node was last
//! asked. A request leaves the spool only when the memory of it is durable, and only by the agent's hand:
//! `spillway apply` looks at the spool and leaves it as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use spillway_core::name::{Generation, NodeName};
use tracing::{error, info, warn};

use super::memory::{Memory, MemoryError};
use crate::clock::now_ms;
use crate::spool::{self, Aside, Entry, Header, Slot, Spool, SpoolError, Target};

/// Number that stands for our own failing of a node in its history. Ours is the only "update" that ever
/// answers a suspend, so it cannot meet one of the control plane's.
const OWN_FAIL: u64 = 1;

/// How many times the spool is listed if files are renamed while it is read.
const MAX_LOOKS: usize = 3;

/// Who keeps a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The agent: it sends what is in the spool and takes it out.
    Agent,
    /// `spillway apply`: it wants to know what was asked, and no more.
    Guest,
}

/// The requests that are not done with, and the memory of all.
#[derive(Debug)]
pub struct Ledger {
    keeper: Keeper,
    spool: Spool,
    memory: Memory,
    open: BTreeMap<Generation, Open>,
    /// Files that cannot be read, each complained about once.
    unreadable: BTreeSet<Generation>,
}

#[derive(Debug)]
struct Open {
    header: Arc<Header>,
    sent: bool,
    /// SQS will never take it.
    refused: bool,
    failed: bool,
}

/// What reading a file of the spool gave.
enum Reading {
    Entry(Entry),
    /// It has another name by now, or is gone.
    Vanished,
    /// Complained about once.
    Unreadable,
}

/// Why spool or memory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl Ledger {
    /// Opens both in the spool directory. The agent holds its lock.
    pub fn open(directory: &Path, keeper: Keeper) -> Result<Self, LedgerError> {
        Ok(Self {
            keeper,
            spool: Spool::open(directory)?,
            memory: Memory::open(directory)?,
            open: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        })
    }

    /// Takes in what has come into the spool, and what another process has noted. Everything stamped before
    /// the call is known after it.
    pub fn look(&mut self) -> Result<(), LedgerError> {
        for _ in 0..MAX_LOOKS {
            let mut is_whole = true;
            for slot in self.spool.slots()? {
                match self.open.get_mut(&slot.generation) {
                    Some(open) => open.sent |= slot.sent,
                    None => is_whole &= self.take_in(slot),
                }
            }
            if is_whole {
                break;
            }
        }
        // After the spool: what has left it meanwhile is in the memory.
        self.memory.refresh(now_ms())?;
        if self.keeper == Keeper::Guest {
            return Ok(());
        }
        // A program without an agent may have sent some of them.
        let sent: Vec<Generation> = self
            .open
            .iter()
            .filter(|(_, open)| open.sent)
            .map(|(key, _)| *key)
            .collect();
        sent.into_iter()
            .try_for_each(|generation| self.settle(generation))
    }

    /// False if the file was renamed or removed since the spool was listed.
    fn take_in(&mut self, slot: Slot) -> bool {
        let entry = match self.read(slot) {
            Reading::Entry(entry) => entry,
            Reading::Vanished => return false,
            Reading::Unreadable => return true,
        };
        let header = Arc::new(entry.header);
        let names = header.node_names().expect("checked when it was read");
        let failed = header.fail.is_none()
            || !names
                .iter()
                .any(|node| self.is_to_be_failed(node, header.generation));
        if self
            .memory
            .stamped(names, header.generation, header.target, now_ms())
        {
            warn!(
                generation = %header.generation,
                nodes = %header.nodes,
                "the last requests of these nodes were stamped by a clock that was ahead: they are forgotten"
            );
        }
        if self.keeper == Keeper::Agent {
            info!(
                request_id = %header.request_id,
                generation = %header.generation,
                nodes = %header.nodes,
                jobs = header.jobs,
                "{} requested",
                match header.target {
                    Target::Resume => "resume",
                    Target::Suspend => "suspend",
                },
            );
        }
        let open = Open {
            header,
            sent: slot.sent,
            refused: false,
            failed,
        };
        self.open.insert(slot.generation, open);
        true
    }

    /// Reads a request, if that can be. One bad file must not hold up all the others.
    fn read(&mut self, slot: Slot) -> Reading {
        let error = match self.spool.read(slot) {
            Ok(entry) => {
                self.unreadable.remove(&slot.generation);
                return Reading::Entry(entry);
            }
            // It was renamed since the spool was listed: the next look sees it under its new name.
            Err(SpoolError::File(error)) if error.is_not_found() => return Reading::Vanished,
            Err(error) => error,
        };
        if self.unreadable.insert(slot.generation) {
            error!("{error}; the request is passed over");
            if self.keeper == Keeper::Agent
                && matches!(error, SpoolError::Malformed { .. })
                && let Err(error) = self.spool.put_aside(slot, Aside::Malformed)
            {
                error!("{error}");
            }
        }
        Reading::Unreadable
    }

    /// Stamps a request of our own and takes it in.
    pub fn put(&mut self, make: impl FnOnce(Generation) -> Entry) -> Result<(), LedgerError> {
        if let Some(complaint) = self.spool.complaint()? {
            warn!("{complaint}");
        }
        self.spool.put(make)?;
        self.look()
    }

    /// The requests that are still to be sent, oldest first.
    pub fn unsent(&self) -> Vec<Arc<Header>> {
        let unsent = self
            .open
            .values()
            .filter(|open| !open.sent && !open.refused);
        unsent.map(|open| Arc::clone(&open.header)).collect()
    }

    /// The requests whose nodes are still to be failed in Slurm.
    pub fn unfailed(&self) -> Vec<Arc<Header>> {
        let unfailed = self.open.values().filter(|open| !open.failed);
        unfailed.map(|open| Arc::clone(&open.header)).collect()
    }

    /// The messages of a request; none if it is done with, or cannot be read now.
    pub fn parts(&mut self, generation: Generation) -> Option<Vec<String>> {
        let sent = self.open.get(&generation)?.sent;
        match self.read(Slot { generation, sent }) {
            Reading::Entry(entry) => Some(entry.parts),
            Reading::Vanished | Reading::Unreadable => None,
        }
    }

    /// A request was sent.
    pub fn sent(&mut self, generation: Generation) -> Result<(), LedgerError> {
        let Some(open) = self.open.get_mut(&generation) else {
            return Ok(());
        };
        open.sent = true;
        if !open.failed {
            self.spool.mark_sent(generation)?;
        }
        self.settle(generation)
    }

    /// SQS will never take a request. Its file is put aside, but not before its nodes are failed in Slurm.
    pub fn refused(&mut self, generation: Generation) -> Result<(), LedgerError> {
        if let Some(open) = self.open.get_mut(&generation) {
            open.refused = true;
        }
        self.settle(generation)
    }

    /// A request is not to be sent any more.
    pub fn drop_request(&mut self, generation: Generation) -> Result<(), LedgerError> {
        self.memory.save()?;
        self.spool.remove(generation)?;
        self.open.remove(&generation);
        Ok(())
    }

    /// Slurm knows of these nodes of a request of ours that they will not come, or need not know.
    pub fn failed(
        &mut self,
        generation: Generation,
        nodes: &[NodeName],
    ) -> Result<(), LedgerError> {
        for node in nodes {
            self.memory.applied(node, generation, OWN_FAIL);
        }
        self.memory.save()?;
        if let Some(open) = self.open.get_mut(&generation) {
            open.failed = true;
        }
        self.settle(generation)
    }

    /// Whether a node's last request is this resume, and no update has answered it.
    pub fn is_unanswered_resume(&self, node: &NodeName, generation: Generation) -> bool {
        self.memory.node(node).is_some_and(|known| {
            known.generation == generation && known.resume && known.applied == 0
        })
    }

    /// Whether our suspend of this stamp is the last request and Slurm has yet to be told.
    pub fn is_to_be_failed(&self, node: &NodeName, generation: Generation) -> bool {
        self.memory.node(node).is_none_or(|known| {
            spool::is_newer(generation, known.generation, now_ms())
                || known.generation == generation && !known.resume && known.applied < OWN_FAIL
        })
    }

    /// What each node was last asked, and which envelopes were dealt with.
    pub fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn settle(&mut self, generation: Generation) -> Result<(), LedgerError> {
        match self.open.get(&generation) {
            Some(open) if open.sent && open.failed => self.drop_request(generation),
            Some(open) if open.refused && open.failed => {
                self.memory.save()?;
                let sent = false;
                self.spool
                    .put_aside(Slot { generation, sent }, Aside::Refused)?;
                self.open.remove(&generation);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use spillway_core::hostlist::Hostlist;
    use spillway_core::message::SuspendCause;

    use super::*;
    use crate::hook;

    /// A suspend of these nodes, put by a program.
    fn put(spool: &Spool, nodes: &str) -> Generation {
        let nodes = Hostlist::parse(nodes).unwrap();
        let names = nodes.node_names().unwrap();
        let entry = |generation| {
            let cluster = spillway_core::name::ClusterName::new("try").unwrap();
            let id = hook::new_request_id();
            let cause = SuspendCause::Suspend;
            hook::suspend(&cluster, id, generation, cause, nodes, &names, None)
        };
        spool.put(entry).unwrap()
    }

    #[test]
    fn a_file_that_cannot_be_read_holds_up_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path(), Keeper::Agent).unwrap();
        let requests = directory.path().join("requests");
        let file = |number: u64| requests.join(format!("{number:016}.json"));
        fs::write(file(1), b"\xff\xfe").unwrap();
        // For root, too, this one cannot be read.
        fs::create_dir(file(2)).unwrap();
        // Listed, and gone when it is read.
        symlink("nowhere", file(3)).unwrap();
        fs::write(file(4), "no header").unwrap();
        let good = put(&ledger.spool, "cloud1");
        ledger.look().unwrap();
        ledger.look().unwrap();
        let unsent: Vec<Generation> = ledger.unsent().iter().map(|one| one.generation).collect();
        assert_eq!(unsent, [good]);
        assert_eq!(ledger.parts(good).unwrap().len(), 1);
        for number in [1, 4] {
            assert!(!file(number).exists());
            assert!(file(number).with_extension("malformed").exists());
        }
        // Readable again: it is taken in.
        fs::remove_dir(file(2)).unwrap();
        let newer = put(&ledger.spool, "cloud2");
        fs::rename(file(newer.get()), file(2)).unwrap();
        ledger.look().unwrap();
        assert_eq!(ledger.unsent().len(), 2);
        // It vanishes between the look and the sending.
        fs::remove_file(file(good.get())).unwrap();
        assert_eq!(ledger.parts(good), None);
    }

    #[test]
    fn a_guest_knows_what_was_asked_and_leaves_the_spool_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut guest = Ledger::open(directory.path(), Keeper::Guest).unwrap();
        let generation = put(&guest.spool, "cloud1");
        guest.spool.mark_sent(generation).unwrap();
        let malformed = directory.path().join("requests/0000000000000001.json");
        fs::write(&malformed, "no header").unwrap();
        guest.look().unwrap();
        let node = NodeName::new("cloud1").unwrap();
        assert_eq!(guest.memory().node(&node).unwrap().generation, generation);
        assert!(malformed.exists());
        assert_eq!(guest.spool.slots().unwrap().len(), 2);
    }
}
