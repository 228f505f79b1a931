//! What travels on the queues: versioned messages, their bounds, and how a reader takes them apart. What is
//! asked of us is in `request`, what comes back in `report`, what slurmctld is told in [`crate::envelope`].
//!
//! Every body is `{"version":1,"cluster":"…","body":{"kind":"…",…}}`. A reader takes unknown fields and
//! older versions, refuses newer ones, and refuses another cluster's message.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::name::ClusterName;

mod report;
mod request;
mod sweep;

pub use report::*;
pub use request::*;
pub use sweep::*;

/// The version this build writes, and the newest it reads.
pub const MESSAGE_VERSION: u32 = 1;

/// The largest body a client sends. SQS takes 1 MiB; a quarter of it leaves room for attributes, keeps a
/// Lambda batch of ten below its 6 MB and a request record below DynamoDB's 400 KB.
pub const MAX_REQUEST_BYTES: usize = 200_000;

/// The largest body a reader looks at: SQS's own limit of 1 MiB.
pub const MAX_BODY_BYTES: usize = 1_048_576;

/// The outermost shape of every message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message<T> {
    /// The writer's [`MESSAGE_VERSION`].
    pub version: u32,
    /// The cluster whose control plane this is for.
    pub cluster: ClusterName,
    /// What is said.
    pub body: T,
}

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// More bytes than SQS itself would carry.
    #[error("message of {bytes} bytes is over the limit of {MAX_BODY_BYTES}")]
    TooLarge {
        /// Length of the body.
        bytes: usize,
    },
    /// Not JSON, or not of the expected shape.
    #[error("message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by a newer Spillway.
    #[error(
        "message has version {found}, this build reads up to {MESSAGE_VERSION}: update this side first"
    )]
    Newer {
        /// The version in the message.
        found: u32,
    },
    /// For another control plane.
    #[error("message is for cluster {found:?}, this is {own:?}")]
    OtherCluster {
        /// The cluster in the message.
        found: String,
        /// Ours.
        own: String,
    },
}

impl<T: Serialize> Message<T> {
    /// A message of this build's version.
    pub fn new(cluster: ClusterName, body: T) -> Self {
        Self {
            version: MESSAGE_VERSION,
            cluster,
            body,
        }
    }

    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages hold only strings, numbers and lists")
    }
}

impl<T: DeserializeOwned> Message<T> {
    /// Reads one body, for `own` cluster only.
    pub fn parse(text: &str, own: &ClusterName) -> Result<T, MessageError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            cluster: String,
        }
        if text.len() > MAX_BODY_BYTES {
            return Err(MessageError::TooLarge { bytes: text.len() });
        }
        let head: Head = serde_json::from_str(text)?;
        if head.version > MESSAGE_VERSION {
            return Err(MessageError::Newer {
                found: head.version,
            });
        }
        if head.cluster != own.as_str() {
            return Err(MessageError::OtherCluster {
                found: head.cluster,
                own: own.to_string(),
            });
        }
        Ok(serde_json::from_str::<Self>(text)?.body)
    }
}
