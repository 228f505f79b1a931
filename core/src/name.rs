//! Typed names and numbers that identify things: clusters, partitions, node groups, nodes, instances,
//! requests, generations, jobs. Each is checked once, where it is made (also when read by serde), so
//! that nothing further in can hold a name that is unsafe in a command line, a file name, an AWS name
//! or a table key.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest cluster name: Slurm's own limit (slurm.conf, `ClusterName`, "maximum of 40 characters"); it
/// also leaves room for our suffixes in the names of queues (80) and functions and roles (64).
pub const MAX_CLUSTER_NAME_LENGTH: usize = 40;
/// Longest node name: a burst node takes its node name as host name and Linux allows 64 (`HOST_NAME_MAX`).
pub const MAX_NODE_NAME_LENGTH: usize = 64;
/// Longest partition name: a bound of ours, so that a message's size follows from its counts.
pub const MAX_PARTITION_NAME_LENGTH: usize = 64;
/// Longest node group name: a bound of ours, for the same reason.
pub const MAX_NODE_GROUP_NAME_LENGTH: usize = 64;
/// Longest request id: it is half of an EC2 `ClientToken`, of which EC2 takes 64 ASCII characters in
/// `RunInstances`; longer ones are hashed into the token, so this is a bound of ours for messages.
pub const MAX_REQUEST_ID_LENGTH: usize = 64;
/// Longest job id in text: two 32-bit numbers and a sign between them.
pub const MAX_JOB_ID_LENGTH: usize = 21;
/// Largest generation: the largest integer that every JSON reader keeps exactly (2^53 - 1). In
/// microseconds since 1970 that is the year 2255.
pub const MAX_GENERATION: u64 = (1 << 53) - 1;

/// How much of a refused value an error repeats: it may come from anywhere and be of any size.
const MAX_SHOWN_CHARACTERS: usize = 64;

/// Why a text or number is not the name it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{kind} is empty: {rule}")]
    Empty {
        /// What it should have been, such as "node name".
        kind: &'static str,
        /// The rule in words.
        rule: &'static str,
    },
    /// Longer than the kind allows.
    #[error("{kind} {value} has {length} characters: at most {max} are allowed")]
    TooLong {
        /// What it should have been.
        kind: &'static str,
        /// The value, quoted and cut.
        value: String,
        /// Its length in bytes.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// Of the wrong form.
    #[error("{kind} {value} is not valid: {rule}")]
    Form {
        /// What it should have been.
        kind: &'static str,
        /// The value, quoted and cut.
        value: String,
        /// The rule in words.
        rule: &'static str,
    },
    /// A word that Slurm gives a meaning of its own, so that it would name more than one thing.
    #[error("{kind} {value} is a word with a meaning of its own in Slurm: choose another name")]
    Reserved {
        /// What it should have been.
        kind: &'static str,
        /// The value, quoted.
        value: String,
    },
    /// A generation outside 1 to [`MAX_GENERATION`].
    #[error("generation {value} is outside 1 to {MAX_GENERATION}: check the clock that stamped it")]
    Generation {
        /// The number.
        value: u64,
    },
}

/// What one kind of name allows. `pattern` is what the JSON Schema says and must accept only what
/// `is_valid` accepts (a test draws names from it).
struct Rule {
    kind: &'static str,
    max_length: usize,
    words: &'static str,
    pattern: &'static str,
    reserved: &'static [&'static str],
    is_valid: fn(&str) -> bool,
}

impl Rule {
    fn check(&self, value: &str) -> Result<(), NameError> {
        let kind = self.kind;
        if value.is_empty() {
            return Err(NameError::Empty {
                kind,
                rule: self.words,
            });
        }
        if value.len() > self.max_length {
            let length = value.len();
            return Err(NameError::TooLong {
                kind,
                value: shown(value),
                length,
                max: self.max_length,
            });
        }
        if !(self.is_valid)(value) {
            return Err(NameError::Form {
                kind,
                value: shown(value),
                rule: self.words,
            });
        }
        if self
            .reserved
            .iter()
            .any(|word| word.eq_ignore_ascii_case(value))
        {
            return Err(NameError::Reserved {
                kind,
                value: shown(value),
            });
        }
        Ok(())
    }
}

/// Quotes and escapes a value for a message, and cuts it to a bounded length.
fn shown(value: &str) -> String {
    let mut cut: String = value.chars().take(MAX_SHOWN_CHARACTERS).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

fn starts_alphanumeric(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn all_in(text: &str, punctuation: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || punctuation.contains(c))
}

fn is_cluster_name(text: &str) -> bool {
    all_in(text, "-")
        && !text.contains(|c: char| c.is_ascii_uppercase())
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_slurm_name(text: &str) -> bool {
    starts_alphanumeric(text) && all_in(text, "_.-")
}

fn is_instance_id(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|hex| {
        matches!(hex.len(), 8 | 17) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn is_request_id(text: &str) -> bool {
    all_in(text, "-")
}

/// `123`, `123_4` (array task) or `123+1` (component of a heterogeneous job), without leading zeros.
fn is_job_id(text: &str) -> bool {
    let (job, rest) = text.split_at(text.find(['_', '+']).unwrap_or(text.len()));
    let is_number = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u32>().is_ok()
            && (part == "0" || !part.starts_with('0'))
    };
    is_number(job) && job != "0" && (rest.is_empty() || is_number(&rest[1..]))
}

/// Declares a name: a string that [`Rule::check`] has accepted.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            const RULE: Rule = $rule;

            /// Checks the text and takes it as a name.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                Self::RULE.check(&text)?;
                Ok(Self(text.into_boxed_str()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into_string()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Maps keyed by a name can be asked with a `&str`; `Hash`, `Eq` and `Ord` are those of the text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": Self::RULE.words,
                    "pattern": Self::RULE.pattern,
                    "minLength": 1,
                    "maxLength": Self::RULE.max_length,
                })
            }
        }
    };
}

/// Reads a name from a string, and only from a string.
macro_rules! deserialize_from_string {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from_string!(
    ClusterName,
    NodeName,
    PartitionName,
    NodeGroupName,
    InstanceId,
    RequestId
);

name!(
    /// A Slurm cluster (`ClusterName` in slurm.conf). It becomes part of the names of queues, functions,
    /// roles and the table.
    ClusterName,
    Rule {
        kind: "cluster name",
        max_length: MAX_CLUSTER_NAME_LENGTH,
        words: "1 to 40 of a-z, 0-9 and -, with a letter or digit first and last",
        pattern: "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        reserved: &[],
        is_valid: is_cluster_name,
    }
);

name!(
    /// A Slurm node (`NodeName` in slurm.conf), one name and never an expression. `ALL` and `DEFAULT`
    /// are refused: scontrol would take the first for every node of the cluster.
    NodeName,
    Rule {
        kind: "node name",
        max_length: MAX_NODE_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &["ALL", "DEFAULT"],
        is_valid: is_slurm_name,
    }
);

name!(
    /// A Slurm partition (`PartitionName` in slurm.conf).
    PartitionName,
    Rule {
        kind: "partition name",
        max_length: MAX_PARTITION_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &["ALL", "DEFAULT"],
        is_valid: is_slurm_name,
    }
);

name!(
    /// A node group: nodes with one launch recipe.
    NodeGroupName,
    Rule {
        kind: "node group name",
        max_length: MAX_NODE_GROUP_NAME_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9, _, . and -, with a letter or digit first",
        pattern: "^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        reserved: &[],
        is_valid: is_slurm_name,
    }
);

name!(
    /// An EC2 instance, in the short form of before 2016 or the long one.
    InstanceId,
    Rule {
        kind: "instance id",
        max_length: 19,
        words: "i- and 8 or 17 hexadecimal digits in lower case",
        pattern: "^i-([0-9a-f]{8}|[0-9a-f]{17})$",
        reserved: &[],
        is_valid: is_instance_id,
    }
);

name!(
    /// One call of Slurm, from the program that Slurm ran to the last update it caused.
    RequestId,
    Rule {
        kind: "request id",
        max_length: MAX_REQUEST_ID_LENGTH,
        words: "1 to 64 of A-Z, a-z, 0-9 and -",
        pattern: "^[A-Za-z0-9-]+$",
        reserved: &[],
        is_valid: is_request_id,
    }
);

name!(
    /// A job as Slurm prints it: `123`, `123_4` (array task) or `123+1` (component of a heterogeneous
    /// job). In the resume file it is a number, so it is read from a number as well.
    JobId,
    Rule {
        kind: "job id",
        max_length: MAX_JOB_ID_LENGTH,
        words: "a number, or an array task such as 123_4, or a component such as 123+1",
        pattern: "^[1-9][0-9]{0,8}([_+](0|[1-9][0-9]{0,8}))?$",
        reserved: &[],
        is_valid: is_job_id,
    }
);

impl From<std::num::NonZeroU32> for JobId {
    fn from(number: std::num::NonZeroU32) -> Self {
        Self(number.to_string().into_boxed_str())
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "a job id: a number, or a string such as \"123_4\""
        )]
        enum Form {
            Number(std::num::NonZeroU32),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number.into()),
            Form::Text(text) => Self::new(text).map_err(de::Error::custom),
        }
    }
}

/// The stamp of a resume or suspend: microseconds since 1970 at the moment Slurm called, or one more
/// than the last stamp if that is larger. Higher is newer; in JSON a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Generation(u64);

impl Generation {
    /// That of a node never asked for; every stamp is higher.
    pub const ZERO: Self = Self(0);

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

#[cfg(test)]
mod tests;
