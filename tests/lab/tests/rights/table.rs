//! The rights table: who calls what, and whether it may.

mod functions;
mod launches;
mod nodes;
mod site;

use crate::calls::{Asked, Call};
use crate::principals::Principal;
use crate::setting::Setting;

/// One row.
pub struct Row {
    /// What is tried, in words.
    pub what: &'static str,
    pub asked: Asked,
    pub expected: Expected,
}

/// What must come of it.
pub enum Expected {
    /// It is carried out.
    Allowed,
    /// It is refused, for the lack of a right.
    Refused {
        /// What the refusal says: the action that is not allowed, or why.
        lacks: &'static str,
        /// The same with one thing changed, which is carried out.
        but: Asked,
    },
    /// It is refused, for nobody known signed it.
    UnknownCaller {
        /// As above.
        but: Asked,
    },
}

impl Expected {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused { .. } => "refused",
            Self::UnknownCaller { .. } => "not known",
        }
    }
}

impl Row {
    /// The call that must pass where this one must not.
    pub fn counterpart(&self) -> Option<&Asked> {
        match &self.expected {
            Expected::Allowed => None,
            Expected::Refused { but, .. } | Expected::UnknownCaller { but } => Some(but),
        }
    }
}

fn asked(who: Principal, call: Call) -> Asked {
    Asked { who, call }
}

fn may(who: Principal, what: &'static str, call: Call) -> Row {
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Allowed,
    }
}

/// Refused, but another may.
fn only(
    may: Principal,
    who: Principal,
    what: &'static str,
    lacks: &'static str,
    call: Call,
) -> Row {
    let but = asked(may, call.clone());
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Refused { lacks, but },
    }
}

/// Refused, but the caller may do something that differs in one thing.
fn but(who: Principal, what: &'static str, lacks: &'static str, call: Call, allowed: Call) -> Row {
    let but = asked(who, allowed);
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Refused { lacks, but },
    }
}

fn not_known(may: Principal, who: Principal, what: &'static str, call: Call) -> Row {
    let but = asked(may, call.clone());
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::UnknownCaller { but },
    }
}

/// The table.
pub fn rows(setting: &Setting) -> Vec<Row> {
    [
        site::head_node(setting),
        site::operator(setting),
        launches::launch(setting),
        launches::launch_fleets(setting),
        launches::launch_tags(setting),
        functions::terminate(setting),
        functions::callback(setting),
        functions::publish(setting),
        functions::report(setting),
        functions::notice(setting),
        functions::sweep(setting),
        nodes::burst_node(setting),
        nodes::burst_node_secrets(setting),
        nodes::others(setting),
    ]
    .into_iter()
    .flatten()
    .collect()
}
