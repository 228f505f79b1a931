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

/// What to do where nothing is wrong.
const NOTHING_TO_DO: &str = "Nothing to do.";

impl Account {
    /// As a person reads it.
    pub fn render(&self, zone: &TimeZone) -> String {
        let mut text = format!("{}\n{}\n", self.summary, self.advice);
        if let Some(first) = self.happened.first() {
            let zone_words = local_time::describe(first.at_ms, zone);
            text += &format!("\nWhat happened ({zone_words}):\n");
        }
        for moment in &self.happened {
            let time = local_time::absolute(moment.at_ms, zone);
            text += &format!("  {time}  {}\n", moment.what);
            for detail in &moment.details {
                text += &format!("  {:width$}  {detail}\n", "", width = time.len());
            }
        }
        text += &section("What is known now:", &self.known);
        text += &section("What could not be asked:", &self.unread);
        text.trim_end().to_owned()
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

/// A reason without the mark that only Slurm needs.
fn plain(reason: &str) -> &str {
    reason.trim_start_matches("spillway: ")
}
