//! The stamp that orders what Slurm asks for a node.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{NameError, shown};

/// Largest generation: the largest integer that every JSON reader keeps exactly (2^53 - 1). In
/// microseconds since 1970 that is the year 2255.
pub const MAX_GENERATION: u64 = (1 << 53) - 1;

/// The stamp of a resume or suspend: microseconds since 1970 at the moment Slurm called, or one more
/// than the last stamp if that is larger. Higher is newer; in JSON a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Generation(u64);

impl Generation {
    /// That of a node never asked for; every stamp is higher.
    pub const ZERO: Self = Self(0);

    /// That of a node never asked for of which there must be a record all the same; every stamp is higher.
    pub const FIRST: Self = Self(1);

    /// Takes a stamp read from elsewhere. 0 and anything above [`MAX_GENERATION`] are refused.
    pub fn new(value: u64) -> Result<Self, NameError> {
        if (1..=MAX_GENERATION).contains(&value) {
            Ok(Self(value))
        } else {
            Err(NameError::Generation { value })
        }
    }

    /// The stamp for a call at `now_us` (microseconds since 1970) after the last one given.
    pub fn stamp(now_us: u64, last: Option<Self>) -> Result<Self, NameError> {
        Self::new(now_us.max(last.map_or(1, |last| last.0 + 1)))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The moment in milliseconds since 1970 that the stamp stands for.
    #[must_use]
    pub fn at_ms(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = NameError;

    /// Digits only, as [`Generation`] prints itself into a tag or a table key.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let form = || NameError::Form {
            kind: "generation",
            value: shown(text),
            rule: "a number of digits only",
        };
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(form());
        }
        Self::new(text.parse().map_err(|_| form())?)
    }
}

impl TryFrom<u64> for Generation {
    type Error = NameError;

    fn try_from(value: u64) -> Result<Self, NameError> {
        Self::new(value)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Generation {
    fn schema_name() -> Cow<'static, str> {
        "Generation".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "description": "microseconds since 1970 at the moment Slurm called, never twice the same",
            "minimum": 1,
            "maximum": MAX_GENERATION,
        })
    }
}
