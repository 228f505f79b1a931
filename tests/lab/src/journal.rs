//! The journal: one JSON line for each call that anyone in the lab made to the cloud.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// One call, as the proxy saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When the request had been read, milliseconds since 1970.
    pub at_ms: u64,
    /// The service of the signature's credential scope (`sqs`, `dynamodb`, `ec2` …), empty if unsigned.
    pub service: String,
    /// The API operation, or method and path where the protocol does not name one.
    pub operation: String,
    /// Who called: the name registered or learned for the access key, else the access key id, else empty.
    pub principal: String,
    /// The HTTP status answered, or what would have been answered where a fault dropped it; 0 for none.
    pub status: u16,
    /// The error code of an answer that is an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// From request read to answer ready, an injected delay included.
    pub duration_ms: u64,
    /// Size of the request's body.
    pub request_bytes: u64,
    /// Size of the answer's body.
    pub response_bytes: u64,
    /// What the proxy decided, where authorization is left to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// The id of the fault that fired on this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// How many items of a DynamoDB table it wrote, each of a transaction counted, by the first word of their keys
    /// (`NODE`, `REQUEST` …; `instance` where the key is an instance's ARN). Empty for a call that was refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub writes: BTreeMap<String, u32>,
}

/// What the proxy decided on a call (`authorize::scope` lists the operations).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorization {
    /// The caller's policies allow it.
    Allowed,
    /// They do not allow this action on this resource, and the call needs that.
    Refused {
        /// `service:Action`.
        action: String,
        /// The resource's ARN.
        resource: String,
    },
    /// Nobody known signed it.
    Unsigned,
    /// The lab cannot judge it, and refused it for that.
    Unknown,
}

/// The journal of one lab. Cheap to clone; lines of concurrent calls do not mix.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

impl Journal {
    /// Opens the journal at `path`, appending to what is there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(Mutex::new(file)),
        })
    }

    /// Where the lines are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All calls so far, in the order in which they ended.
    pub fn calls(&self) -> io::Result<Vec<Call>> {
        read(&self.path)
    }

    /// Writes one line. Unbuffered, so that a reader sees the call as soon as its caller has the answer.
    pub(crate) fn record(&self, call: &Call) -> io::Result<()> {
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line)
    }
}

/// Reads a journal, of this lab or another process's. A last line still being written is left out.
pub fn read(path: &Path) -> io::Result<Vec<Call>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut calls = Vec::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
        calls.push(serde_json::from_str(&line)?);
        line.clear();
    }
    Ok(calls)
}
