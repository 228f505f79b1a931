//! The spool: one file per call of Slurm, durable before the program that Slurm ran exits, and the last
//! stamp given. A stamp is given and its file written under one lock, so whoever holds the lock sees
//! every stamp there is.
//!
//! ```text
//! <spool_directory>/stamp                      the last generation given; the lock
//!                   requests/<generation>.json  not sent
//!                   requests/<generation>.sent  sent; the agent has yet to note it and remove it
//!                   requests/<generation>.malformed, .refused  put aside for a person to look at
//! ```

mod entry;

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use spillway_core::name::{Generation, NameError};

pub use entry::{Entry, Header, MalformedEntry, Subject, Target};

use crate::clock::{now_ms, now_us};
use crate::crash::{self, CrashPoint};
use crate::files::{self, FileError, Keep};

/// Digits of a generation in a file name: those of 2^53, so that names sort as numbers.
const GENERATION_DIGITS: usize = 16;
/// How far a stamp may lie ahead of the clock. The control plane refuses those further ahead of its own
/// (its `MAX_AHEAD_MS`, the same five minutes): a last stamp beyond that, from a clock that was wrong for
/// a moment, must not be counted on from, or it would make every later one as useless.
const MAX_AHEAD_MS: u64 = 5 * 60 * 1000;
const WAITING: &str = "json";
const SENT: &str = "sent";

/// Where requests wait to be sent.
#[derive(Debug, Clone)]
pub struct Spool {
    stamp: PathBuf,
    requests: PathBuf,
}

/// Why the spool could not take or give a request.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// What it wrote, Slurm's programs and the agent could not read.
    #[error("{path} belongs to user {owner} and this runs as user {own}: run it as the owner, who is SlurmUser", path = path.display())]
    OtherUser {
        /// The spool directory.
        path: PathBuf,
        /// Whose it is, a uid.
        owner: u32,
        /// The effective uid.
        own: u32,
    },
    /// The clock is before 1970 or beyond all stamps.
    #[error("cannot stamp: {0}")]
    Clock(#[from] NameError),
    /// A file in the spool is not one of ours.
    #[error("{path} is no request: {reason}; it is put aside as .malformed", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: MalformedEntry,
    },
}

/// A request in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Its stamp.
    pub generation: Generation,
    /// Whether a program without an agent has sent it already.
    pub sent: bool,
}

/// Why a file is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// It is no request.
    Malformed,
    /// SQS will never take it.
    Refused,
}

/// Whether a stamp is from a clock that was wrong: no later stamp is counted on from it.
fn is_far_ahead(generation: Generation, now_ms: u64) -> bool {
    generation.at_ms() > now_ms.saturating_add(MAX_AHEAD_MS)
}

/// Whether `one` was stamped after `other`. What lies far ahead was stamped before all that does not.
pub fn is_newer(one: Generation, other: Generation, now_ms: u64) -> bool {
    let rank = |generation| (!is_far_ahead(generation, now_ms), generation);
    rank(one) > rank(other)
}

/// Refuses every user but the owner of a spool directory, root above all: files of root's would stop the
/// programs that slurmctld runs, and the agent. One that is not there yet becomes ours.
pub fn check_user(directory: &Path) -> Result<(), SpoolError> {
    check_user_id(directory, nix::unistd::geteuid().as_raw())
}

fn check_user_id(directory: &Path, own: u32) -> Result<(), SpoolError> {
    let path = directory.to_owned();
    match fs::metadata(directory) {
        Ok(found) if found.uid() == own => Ok(()),
        Ok(found) => Err(SpoolError::OtherUser {
            path,
            owner: found.uid(),
            own,
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::on("look at", directory)(error).into()),
    }
}

/// The requests of a spool directory that are not sent, oldest first, for whoever only looks: nothing is made and no lock is
/// taken. A file that goes or cannot be understood meanwhile is left out.
pub fn waiting(directory: &Path) -> Result<Vec<Header>, FileError> {
    let requests = directory.join("requests");
    let listing = match fs::read_dir(&requests) {
        Err(error) if error.kind() == ErrorKind::NotFound && directory.is_dir() => {
            return Ok(Vec::new());
        }
        listing => listing.map_err(FileError::on("list", &requests))?,
    };
    let mut headers = Vec::new();
    for file in listing {
        let path = file.map_err(FileError::on("list", &requests))?.path();
        if path.extension().is_some_and(|kind| kind == WAITING) {
            let entry = files::read(&path)
                .ok()
                .and_then(|text| Entry::parse(&text).ok());
            headers.extend(entry.map(|entry| entry.header));
        }
    }
    headers.sort_by_key(|header| header.generation);
    Ok(headers)
}

impl Spool {
    /// The spool in a directory, which is made if it is not there.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        check_user(directory)?;
        let requests = directory.join("requests");
        if !requests.is_dir() {
            files::make_directory(&requests)?;
        }
        Ok(Self {
            stamp: directory.join("stamp"),
            requests,
        })
    }

    /// Stamps a request and writes it durably. `make` builds the entry for its stamp.
    pub fn put(&self, make: impl FnOnce(Generation) -> Entry) -> Result<Generation, SpoolError> {
        let mut stamp = self.lock()?;
        let now_us = now_us();
        let last = self
            .last(&mut stamp)?
            .filter(|last| !is_far_ahead(*last, now_us / 1000));
        let generation = Generation::stamp(now_us, last)?;
        let line = format!(
            "{generation:0GENERATION_DIGITS$}\n",
            generation = generation.get()
        );
        stamp
            .seek(SeekFrom::Start(0))
            .and_then(|_| stamp.write_all(line.as_bytes()))
            .and_then(|()| stamp.sync_data())
            .map_err(FileError::on("write", &self.stamp))?;
        let path = self.path(generation, WAITING);
        let entry = make(generation);
        files::replace_with(&path, Keep::Durably, |file| entry.write_to(file))?;
        crash::point(CrashPoint::Fsync);
        Ok(generation)
    }

    /// What is to be said before a stamp is given, if the last one lies too far ahead to be counted on from.
    pub fn complaint(&self) -> Result<Option<String>, SpoolError> {
        let mut stamp = self.lock()?;
        let now_ms = now_ms();
        let last = self.last(&mut stamp)?;
        Ok(last.filter(|last| is_far_ahead(*last, now_ms)).map(|last| {
            let ahead_seconds = (last.at_ms() - now_ms) / 1000;
            format!(
                "the last stamp, {last}, lies {ahead_seconds} s ahead of the clock, which must have been \
                 wrong: it is forgotten. Requests of that time are refused in AWS"
            )
        }))
    }

    fn last(&self, stamp: &mut fs::File) -> Result<Option<Generation>, FileError> {
        let mut text = String::new();
        stamp
            .read_to_string(&mut text)
            .map_err(FileError::on("read", &self.stamp))?;
        Ok(text.trim().parse().ok())
    }

    /// What is in the spool, oldest first. Every stamp given before the call is seen: the lock is held.
    pub fn slots(&self) -> Result<Vec<Slot>, SpoolError> {
        let _stamp = self.lock()?;
        let listing =
            fs::read_dir(&self.requests).map_err(FileError::on("list", &self.requests))?;
        let mut slots = Vec::new();
        for file in listing {
            let file = file.map_err(FileError::on("list", &self.requests))?;
            let name = file.file_name();
            let Some((number, kind)) = name.to_str().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let sent = kind == SENT;
            if let (Ok(generation), true) = (
                number.trim_start_matches('0').parse(),
                sent || kind == WAITING,
            ) {
                slots.push(Slot { generation, sent });
            }
        }
        slots.sort_unstable();
        Ok(slots)
    }

    /// Reads one request.
    pub fn read(&self, slot: Slot) -> Result<Entry, SpoolError> {
        let path = self.path(slot.generation, if slot.sent { SENT } else { WAITING });
        let entry = match files::read(&path) {
            Ok(text) => Entry::parse(&text),
            Err(error) if error.is_not_text() => Err(MalformedEntry::NotText),
            Err(error) => return Err(error.into()),
        };
        entry.map_err(|reason| SpoolError::Malformed { path, reason })
    }

    /// Notes that a request was sent. A lost note costs a second send, which changes nothing.
    pub fn mark_sent(&self, generation: Generation) -> Result<(), SpoolError> {
        let (from, to) = (self.path(generation, WAITING), self.path(generation, SENT));
        Ok(files::rename(&from, &to, Keep::WhileItLasts)?)
    }

    /// Forgets a request.
    pub fn remove(&self, generation: Generation) -> Result<(), SpoolError> {
        for kind in [WAITING, SENT] {
            let path = self.path(generation, kind);
            match fs::remove_file(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => done.map_err(FileError::on("remove", &path))?,
            }
        }
        Ok(())
    }

    /// Puts aside a file that is no request, or that SQS will never take, so that it is complained about once.
    pub fn put_aside(&self, slot: Slot, why: Aside) -> Result<(), SpoolError> {
        let path = self.path(slot.generation, if slot.sent { SENT } else { WAITING });
        let aside = path.with_extension(match why {
            Aside::Malformed => "malformed",
            Aside::Refused => "refused",
        });
        Ok(files::rename(&path, &aside, Keep::WhileItLasts)?)
    }

    fn lock(&self) -> Result<fs::File, FileError> {
        let stamp = files::open_or_make(&self.stamp)?;
        stamp.lock().map_err(FileError::on("lock", &self.stamp))?;
        Ok(stamp)
    }

    fn path(&self, generation: Generation, kind: &str) -> PathBuf {
        let number = generation.get();
        self.requests
            .join(format!("{number:0GENERATION_DIGITS$}.{kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_use_a_spool() {
        let directory = tempfile::tempdir().unwrap();
        let owner = directory.path().metadata().unwrap().uid();
        check_user_id(directory.path(), owner).unwrap();
        check_user_id(&directory.path().join("not-there"), owner + 1).unwrap();
        let refused = check_user_id(directory.path(), owner + 1).unwrap_err();
        let words = format!(
            "belongs to user {owner} and this runs as user {}",
            owner + 1
        );
        assert!(refused.to_string().contains(&words), "{refused}");
    }
}
