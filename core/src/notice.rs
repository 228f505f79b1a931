//! What AWS says of instances that are about to go or are gone, as EventBridge delivers it, in our words.
//!
//! Events are known by their source and detail-type, and read leniently beyond that: AWS's own samples lack fields, name
//! others differently and write lists as text. An event of another kind says nothing to us. `kinds` has a reader for
//! each kind, `time` reads their dates.

use serde::Deserialize;
use serde_json::Value;

use crate::envelope;
use crate::message::{MAX_BODY_BYTES, NodeNotice};
use crate::name::{InstanceId, NameError};

mod kinds;
mod time;

/// What is about to become of an instance. In the order in which several of one instance are acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WarningKind {
    /// EC2 recommends to leave a spot instance that it may take soon.
    Rebalance,
    /// AWS announces work on the instance's host.
    Maintenance,
    /// EC2 takes the instance: a spot interruption, or the end of a reservation or capacity block.
    Interruption,
    /// It ends or stops, or has done so.
    Gone,
}

/// What one instance is warned of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Warning {
    /// What.
    pub kind: WarningKind,
    /// Which instance, whosoever it is.
    pub instance: InstanceId,
    /// When it happens, Unix milliseconds; absent where nobody says.
    pub until_ms: Option<u64>,
    /// For Slurm's Reason: AWS's words, at most [`envelope::MAX_REASON_CHARS`].
    pub reason: String,
}

/// Every instance of a reservation is warned of an interruption.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationEnds {
    /// EC2's id of the reservation, `cr-…`.
    pub reservation_id: String,
    /// When EC2 begins to take its instances, Unix milliseconds.
    pub until_ms: Option<u64>,
    /// For Slurm's Reason.
    pub reason: String,
}

/// What one event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// Of instances that it names.
    pub warnings: Vec<Warning>,
    /// Of a reservation, whose instances it does not name.
    pub reservation: Option<ReservationEnds>,
}

/// Why an event of a kind that concerns us cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// More bytes than SQS itself would carry.
    #[error("event of {bytes} bytes is over the limit of {MAX_BODY_BYTES}")]
    TooLarge {
        /// Length of the body.
        bytes: usize,
    },
    /// Not JSON, or without what every event of EventBridge has.
    #[error("this is no event of EventBridge")]
    Envelope(#[source] serde_json::Error),
    /// Its detail is not that of its kind.
    #[error("{detail_type}: its detail is malformed")]
    Detail {
        /// The kind.
        detail_type: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// It names an instance in a way that EC2 does not.
    #[error("{detail_type}")]
    Instance {
        /// The kind.
        detail_type: String,
        /// What is wrong.
        source: NameError,
    },
    /// It names no reservation.
    #[error("{detail_type}: {found:?} is no reservation")]
    Reservation {
        /// The kind.
        detail_type: String,
        /// What it names.
        found: String,
    },
    /// A date that cannot be read.
    #[error("{detail_type}: {field} is {found:?}, which is no date of RFC 3339 or RFC 2822")]
    Time {
        /// The kind.
        detail_type: String,
        /// Of which field.
        field: &'static str,
        /// What stands there.
        found: String,
    },
}

/// What EventBridge puts around every event. The samples of AWS's guides lack `version`, and more.
#[derive(Debug, Deserialize)]
struct Event {
    source: String,
    #[serde(rename = "detail-type", alias = "detail_type")]
    detail_type: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    detail: Value,
}

impl Notice {
    /// Reads an event. One of a kind that does not concern us says nothing.
    pub fn parse(text: &str) -> Result<Self, NoticeError> {
        if text.len() > MAX_BODY_BYTES {
            return Err(NoticeError::TooLarge { bytes: text.len() });
        }
        let event: Event = serde_json::from_str(text).map_err(NoticeError::Envelope)?;
        match kinds::reader(&event.source, &event.detail_type) {
            Some(read) => read(&event),
            None => Ok(Self::default()),
        }
    }

    fn of(warning: Warning) -> Self {
        Self {
            warnings: vec![warning],
            reservation: None,
        }
    }
}

impl Warning {
    /// What an instance says of itself, from its metadata.
    #[must_use]
    pub fn of_node(notice: &NodeNotice) -> Self {
        let kind = if notice.action == "rebalance" {
            WarningKind::Rebalance
        } else {
            WarningKind::Interruption
        };
        let words = format!("instance metadata announces: {}", notice.action);
        Self {
            kind,
            instance: notice.instance_id.clone(),
            until_ms: notice.until_ms,
            reason: reason(&words, notice.until_ms),
        }
    }
}

/// For Slurm's Reason, with when it happens.
fn reason(words: &str, until_ms: Option<u64>) -> String {
    let at = until_ms.and_then(time::words);
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    envelope::reason(&format!("{words}{at}"))
}
