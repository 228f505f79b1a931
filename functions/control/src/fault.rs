//! The one error of every port, and the classes that decide what is done about it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use spillway_core::capacity::Reach;

/// What can be done about a failed call. Assigned once, in the adapter that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Asked too fast: the same call later.
    Throttled,
    /// Network, time-out, 5xx: the outcome is unknown, the same call again.
    Transient,
    /// The thing named does not exist, or not yet.
    NotFound,
    /// The token was used for another call before: what it launched is there.
    Conflict,
    /// Capacity, quota or addresses ran out, as far as it says: another pool.
    Unfulfillable(Reach),
    /// We lack a right: tell the operator.
    Denied,
    /// The call itself is wrong: tell the operator.
    Invalid,
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{service} {operation}: {code}: {message}")]
pub struct Fault {
    /// Its class.
    pub kind: FaultKind,
    /// `dynamodb`, `sqs`, `events`, `ssm`, `ec2`.
    pub service: Cow<'static, str>,
    /// As AWS names it.
    pub operation: Cow<'static, str>,
    /// AWS's code, or `Timeout`, `Dispatch` and the like where no answer came.
    pub code: String,
    /// AWS's words.
    pub message: String,
}

impl Fault {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, FaultKind::Throttled | FaultKind::Transient)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Unfulfillable(_) => "unfulfillable",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
        })
    }
}
