//! One file of the spool: a line that says what the request is, then the messages, one a line, ready to
//! be sent. The agent reads the first line and never takes the messages apart.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use spillway_core::hostlist::Hostlist;
use spillway_core::name::{Generation, NodeName, RequestId};

/// The version this build writes, and the newest it reads.
const ENTRY_VERSION: u32 = 1;

/// The queue that a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// For `launch`.
    Resume,
    /// For `terminate`.
    Suspend,
}

/// What the agent must know of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`ENTRY_VERSION`] of the writer.
    version: u32,
    /// Where it goes.
    pub target: Target,
    /// One per call of Slurm.
    pub request_id: RequestId,
    /// Its stamp.
    pub generation: Generation,
    /// A resume is worthless after this, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// All its nodes.
    pub nodes: Hostlist,
    /// How many jobs it is for.
    pub jobs: usize,
    /// The nodes are also to be failed in Slurm, with this reason: a resume that missed its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<String>,
    /// How many messages follow.
    parts: usize,
}

/// A request in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub header: Header,
    /// The messages, as JSON without line breaks.
    pub parts: Vec<String>,
}

/// What a request is, apart from its messages.
#[derive(Debug)]
pub struct Subject {
    /// Where it goes.
    pub target: Target,
    /// One per call of Slurm.
    pub request_id: RequestId,
    /// Its stamp.
    pub generation: Generation,
    /// For a resume.
    pub deadline_ms: Option<u64>,
    /// All its nodes.
    pub nodes: Hostlist,
    /// How many jobs it is for.
    pub jobs: usize,
    /// See [`Header::fail`].
    pub fail: Option<String>,
}

/// Why a file of the spool cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MalformedEntry {
    /// A disk fault, most likely.
    #[error("it is no UTF-8 text")]
    NotText,
    /// The first line is not a header.
    #[error("its first line is malformed ({0})")]
    Header(#[from] serde_json::Error),
    /// Written by a newer Spillway.
    #[error("it has version {0}, this build reads up to {ENTRY_VERSION}")]
    Newer(u32),
    /// Messages are missing.
    #[error("it should hold {expected} messages and holds {found}")]
    Parts {
        /// As the header says.
        expected: usize,
        /// As counted.
        found: usize,
    },
    /// A hostlist that stands for something that is no node name.
    #[error("its nodes are not all node names")]
    Nodes,
}

impl Entry {
    /// A request and its messages.
    pub fn new(subject: Subject, parts: Vec<String>) -> Self {
        let header = Header {
            version: ENTRY_VERSION,
            target: subject.target,
            request_id: subject.request_id,
            generation: subject.generation,
            deadline_ms: subject.deadline_ms,
            nodes: subject.nodes,
            jobs: subject.jobs,
            fail: subject.fail,
            parts: parts.len(),
        };
        Self { header, parts }
    }

    /// Writes the content of the file.
    pub fn write_to(&self, file: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *file, &self.header)?;
        for part in &self.parts {
            file.write_all(b"\n")?;
            file.write_all(part.as_bytes())?;
        }
        file.write_all(b"\n")
    }

    /// Reads the content of a file.
    pub fn parse(text: &str) -> Result<Self, MalformedEntry> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let Head { version } = serde_json::from_str(first)?;
        if version > ENTRY_VERSION {
            return Err(MalformedEntry::Newer(version));
        }
        let header: Header = serde_json::from_str(first)?;
        let parts: Vec<String> = lines.map(str::to_owned).collect();
        if parts.len() != header.parts {
            return Err(MalformedEntry::Parts {
                expected: header.parts,
                found: parts.len(),
            });
        }
        header.node_names()?;
        Ok(Self { header, parts })
    }
}

impl Header {
    /// Its nodes, one by one.
    pub fn node_names(&self) -> Result<Vec<NodeName>, MalformedEntry> {
        self.nodes.node_names().map_err(|_| MalformedEntry::Nodes)
    }
}
