//! Faults that a person or a test arms at run time, and that the proxy carries out.
//!
//! A fault names the calls it is for and what happens to the next `times` of them. The first armed fault
//! that matches a call fires, one a call.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which calls, how often, and what happens to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Its name in lists and in the journal; made up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The service as signed (`sqs`).
    pub service: String,
    /// The operation as the journal writes it (`SendMessage`); absent: every operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// A part of the principal as the journal writes it; absent: everyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// A part of the request's body; absent: every body.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
    /// How many calls it hits; absent: all until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// What happens to them.
    pub action: Action,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Answer with this error in the service's own shape; nothing is done.
    Refuse {
        /// HTTP status.
        status: u16,
        /// Error code (`RequestLimitExceeded`).
        code: String,
        /// Message for people.
        #[serde(default)]
        message: String,
    },
    /// Wait so many milliseconds, then do it and answer.
    DelayMs(u64),
    /// Do it, then drop the connection instead of answering.
    LoseAnswer {},
    /// Do nothing and answer nothing; drop the connection after so many milliseconds.
    HangMs(u64),
    /// Do it, but keep the answer back; drop the connection so many milliseconds later.
    HangAnswerMs(u64),
    /// Do it, then change the answer's body.
    Replace {
        /// A regular expression.
        from: String,
        /// What each match becomes; `$1` is the first group.
        to: String,
    },
}

/// A fault and how often it fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Armed {
    /// The fault, its id filled in.
    #[serde(flatten)]
    pub fault: Fault,
    /// Calls it hit so far.
    pub fired: u64,
}

/// Why a fault was not armed.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// `replace.from` is no regular expression.
    #[error("correct the regular expression in replace.from")]
    Pattern(#[source] regex_lite::Error),
    /// `refuse.status` is no HTTP status.
    #[error("give refuse.status a value from 100 to 999, not {0}")]
    Status(u16),
    /// The id is taken.
    #[error("choose another id, {0} is armed")]
    Duplicate(String),
}

/// The faults of one lab. Cheap to clone; all clones see the same list.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Vec<Armed>>>);

/// What a call is matched by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub service: &'a str,
    pub operation: &'a str,
    pub principal: &'a str,
    pub body: &'a [u8],
}

impl Faults {
    /// Arms a fault behind those armed before; gives its id.
    pub fn arm(&self, mut fault: Fault) -> Result<String, FaultError> {
        match &fault.action {
            Action::Replace { from, .. } => {
                regex_lite::Regex::new(from).map_err(FaultError::Pattern)?;
            }
            Action::Refuse { status, .. } if http::StatusCode::from_u16(*status).is_err() => {
                return Err(FaultError::Status(*status));
            }
            _ => {}
        }
        let id = fault
            .id
            .clone()
            .unwrap_or_else(|| Uuid::new_v4().to_string());
        let mut armed = self.lock();
        if armed
            .iter()
            .any(|known| known.fault.id.as_ref() == Some(&id))
        {
            return Err(FaultError::Duplicate(id));
        }
        fault.id = Some(id.clone());
        armed.push(Armed { fault, fired: 0 });
        Ok(id)
    }

    /// All faults, spent ones included, in the order in which they were armed.
    #[must_use]
    pub fn list(&self) -> Vec<Armed> {
        self.lock().clone()
    }

    /// How often the fault fired; 0 where there is no such fault.
    #[must_use]
    pub fn fired(&self, id: &str) -> u64 {
        self.lock()
            .iter()
            .find(|armed| armed.fault.id.as_deref() == Some(id))
            .map_or(0, |armed| armed.fired)
    }

    /// Disarms one fault; false where there is no such fault.
    #[must_use]
    pub fn disarm(&self, id: &str) -> bool {
        let mut armed = self.lock();
        let before = armed.len();
        armed.retain(|known| known.fault.id.as_deref() != Some(id));
        armed.len() < before
    }

    /// Disarms all faults.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The first armed fault that matches, counted as fired: its id and action.
    pub(crate) fn fire(&self, subject: &Subject<'_>) -> Option<(String, Action)> {
        let mut armed = self.lock();
        let hit = armed
            .iter_mut()
            .find(|armed| armed.is_left() && armed.fault.matches(subject))?;
        hit.fired += 1;
        Some((hit.fault.id.clone()?, hit.fault.action.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Armed {
    fn is_left(&self) -> bool {
        self.fault.times.is_none_or(|times| self.fired < times)
    }
}

impl Fault {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        let allows = |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(holds)
        };
        self.service == subject.service
            && allows(&self.operation, &|name| name == subject.operation)
            && allows(&self.principal, &|part| subject.principal.contains(part))
            && allows(&self.body_contains, &|part| {
                String::from_utf8_lossy(subject.body).contains(part)
            })
    }
}
