//! A user or an account as caps know it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name that is told apart from others, in characters: twice what Linux and slurmdbd take of a user's name.
pub const MAX_OWNER_NAME_CHARS: usize = 64;

/// A user or an account in Slurm.
///
/// The head node sends these names, so any text becomes one: what is not a letter, a digit or one of `._-+@` becomes
/// `_`, what is too long is cut, and what is empty is [`OwnerName::UNKNOWN`]. Two texts that become the same name are
/// counted together, never past each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct OwnerName(Box<str>);

impl OwnerName {
    /// Whoever is not named: they all count as one.
    pub const UNKNOWN: &'static str = "unknown";

    /// The name that a text becomes.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let plain = |c: char| {
            if c.is_alphanumeric() || "._-+@".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = text.chars().map(plain).take(MAX_OWNER_NAME_CHARS).collect();
        if name.is_empty() {
            return Self(Self::UNKNOWN.into());
        }
        Self(name.into_boxed_str())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for OwnerName {
    fn default() -> Self {
        Self::new("")
    }
}

impl From<String> for OwnerName {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl fmt::Display for OwnerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
