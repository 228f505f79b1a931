//! `spillway explain`: the story of a node, a job or a request, from Slurm's call to now, with the cause and what to do.
//!
//! `gather` asks whoever knows something; each source may fail, and the others still tell. What was gathered (`facts`) becomes
//! an [`Account`] by pure functions: `cause` judges, `timeline` tells what happened, `known` what is known now.

mod cause;
mod facts;
mod gather;
mod job;
mod known;
mod node;
mod request;
#[cfg(test)]
mod tests;
mod timeline;

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::local_time;

pub use gather::Sources;

/// What a colleague would answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Nothing is wrong.
    pub well: bool,
    /// What is the matter, in a sentence.
    pub summary: String,
    /// What to do.
    pub advice: String,
    /// What happened, in order.
    pub happened: Vec<Moment>,
    /// What is known now.
    pub known: Vec<Fact>,
    /// What could not be asked, and why.
    pub unread: Vec<Fact>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: String,
    /// What belongs to it and has no time of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// What is known of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Of what.
    pub about: String,
    /// What.
    pub what: String,
}

impl Moment {
    fn new(at_ms: u64, what: impl Into<String>) -> Self {
        Self {
            at_ms,
            what: what.into(),
            details: Vec::new(),
        }
    }
}

impl Fact {
    fn new(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            what: what.into(),
        }
    }
}

/// How the agent is looked after.
const AGENT_ADVICE: &str = "On the head node: `systemctl status spillway-agent` and `journalctl -u spillway-agent`. What \
     waits is sent as soon as the agent runs and reaches AWS.";
/// Why nothing can be explained.
const TABLE_UNREAD: &str = "the table with Spillway's records cannot be read";
/// What to do about that.
const TABLE_ADVICE: &str = "Use the operator's AWS credentials (the stack's OperatorPolicyArn) for this account and region.";
/// What to do where nothing is wrong.
const NOTHING_TO_DO: &str = "Nothing to do.";

impl Account {
    /// As a person reads it.
    pub fn render(&self, zone: &TimeZone) -> String {
        let mut text = format!("{}\n{}\n", self.summary, self.advice);
        if let Some(first) = self.happened.first() {
            let zone_words = local_time::describe(first.at_ms, zone);
            let _ = write!(text, "\nWhat happened ({zone_words}):\n");
        }
        for moment in &self.happened {
            let time = local_time::absolute(moment.at_ms, zone);
            let _ = writeln!(text, "  {time}  {}", moment.what);
            for detail in &moment.details {
                let _ = writeln!(text, "  {:width$}  {detail}", "", width = time.len());
            }
        }
        text += &section("What is known now:", &self.known);
        text += &section("What could not be asked:", &self.unread);
        localized(text.trim_end(), zone)
    }
}

fn section(title: &str, facts: &[Fact]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let width = facts.iter().map(|fact| fact.about.chars().count()).max();
    let width = width.unwrap_or(0) + 1;
    let line = |fact: &Fact| format!("  {:<width$}  {}\n", format!("{}:", fact.about), fact.what);
    format!("\n{title}\n{}", facts.iter().map(line).collect::<String>())
}

/// How long ago, such as `40 s ago`.
fn ago(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", local_time::duration(now_ms.saturating_sub(at_ms)))
}

/// A reason as a part of a sentence: without the mark that only Slurm needs, and without a full stop.
fn plain(reason: &str) -> &str {
    let reason = reason
        .trim_start_matches("spillway: ")
        .trim_end_matches('.');
    reason.trim_start_matches("nothing serves this node and ")
}

/// The text with what AWS writes as `2026-01-01T00:12:00Z` in local time.
fn localized(text: &str, zone: &TimeZone) -> String {
    /// Of such a time.
    const LENGTH: usize = 20;
    let mut local = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let time = rest.get(..LENGTH).filter(|time| time.ends_with('Z'));
        let time = time.and_then(|time| time.parse::<Timestamp>().ok());
        let at_ms = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
        let taken = if let Some(at_ms) = at_ms {
            local += &local_time::absolute(at_ms, zone);
            LENGTH
        } else {
            local.push(first);
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    local
}
