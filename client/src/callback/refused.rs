//! How many envelopes were refused, by reason, until a heartbeat has told it. The agent counts for itself;
//! `spillway apply` leaves a line a refusal in the spool directory, where the agent finds them.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize as _;
use serde::de::value::{Error as WordError, StrDeserializer};
use spillway_core::message::RefusalReason;

use crate::files::{self, FileError};

/// Of more refusals than this holds nothing is noted: without an agent nobody takes them out.
const MAX_NOTED_BYTES: u64 = 64 * 1024;
/// Messages that are remembered as refused and left on the queue; it is 900 s long at most.
const MAX_LEFT: usize = 10_000;

/// Refusals by reason.
pub type Counts = BTreeMap<RefusalReason, u64>;

/// What the agent has refused and not yet told.
#[derive(Debug, Default)]
pub struct Refused(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Ids of messages that come again.
    left: HashSet<String>,
}

impl Refused {
    /// Counts a refusal. False if this message was counted before.
    pub fn count(&self, reason: RefusalReason, message_id: &str) -> bool {
        let mut state = self.state();
        if state.left.len() >= MAX_LEFT {
            state.left.clear();
        }
        let is_new = state.left.insert(message_id.to_owned());
        if is_new {
            *state.counts.entry(reason).or_default() += 1;
        }
        is_new
    }

    /// Takes out what is to be told.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut self.state().counts)
    }

    /// Puts in what could not be told, or what others have refused.
    pub fn add(&self, counts: &Counts) {
        let mut state = self.state();
        for (reason, count) in counts {
            *state.counts.entry(*reason).or_default() += count;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves a note for the agent.
pub fn leave_note(spool_directory: &Path, reason: RefusalReason) -> Result<(), FileError> {
    let path = spool_directory.join("refused");
    let mut file = open(&path)?;
    let mut append = || {
        if file.seek(SeekFrom::End(0))? < MAX_NOTED_BYTES {
            writeln!(file, "{reason}")?;
        }
        Ok(())
    };
    append().map_err(FileError::on("write", &path))
}

/// Takes out the notes that were left.
pub fn take_notes(spool_directory: &Path) -> Result<Counts, FileError> {
    let path = spool_directory.join("refused");
    let mut counts = Counts::new();
    if !path.exists() {
        return Ok(counts);
    }
    let mut file = open(&path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)
        .and_then(|_| file.set_len(0))
        .map_err(FileError::on("read", &path))?;
    for word in text.lines() {
        let word = StrDeserializer::<WordError>::new(word);
        if let Ok(reason) = RefusalReason::deserialize(word) {
            *counts.entry(reason).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Locked until it is closed.
fn open(path: &Path) -> Result<File, FileError> {
    let file = files::open_or_make(path)?;
    file.lock().map_err(FileError::on("lock", path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_told_once() {
        let refused = Refused::default();
        assert!(refused.count(RefusalReason::UnknownKey, "m1"));
        assert!(!refused.count(RefusalReason::UnknownKey, "m1"));
        assert!(refused.count(RefusalReason::Forged, "m2"));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(take_notes(directory.path()).unwrap(), Counts::new());
        for reason in [RefusalReason::Forged, RefusalReason::Expired] {
            leave_note(directory.path(), reason).unwrap();
        }
        refused.add(&take_notes(directory.path()).unwrap());
        assert_eq!(take_notes(directory.path()).unwrap(), Counts::new());
        let told = refused.take();
        let expected = [
            (RefusalReason::Forged, 2),
            (RefusalReason::UnknownKey, 1),
            (RefusalReason::Expired, 1),
        ];
        assert_eq!(told, Counts::from(expected));
        assert_eq!(refused.take(), Counts::new());
        // The heartbeat did not get through.
        refused.add(&told);
        assert_eq!(refused.take(), told);
    }
}
