//! Typed names and numbers that identify things: clusters, partitions, node groups, nodes, instances,
//! requests, generations, jobs. Each is checked once, where it is made (also when read by serde), so
//! that nothing further in can hold a name that is unsafe in a command line, a file name, an AWS name
//! or a table key.

use std::fmt;
use std::marker::PhantomData;

use serde::de;

mod aws;
mod generation;
mod owner;
mod slurm;

pub use aws::{InstanceId, InstanceType, LaunchTemplateId, Region, SubnetId, Zone};
pub use generation::{Generation, MAX_GENERATION};
pub use owner::{MAX_OWNER_NAME_CHARS, OwnerName};
pub use slurm::{
    ClusterName, JobId, MAX_CLUSTER_NAME_LENGTH, MAX_JOB_ID_LENGTH, MAX_NODE_GROUP_NAME_LENGTH,
    MAX_NODE_NAME_LENGTH, MAX_PARTITION_NAME_LENGTH, MAX_REQUEST_ID_LENGTH, MAX_SIGNAL_LENGTH,
    NodeGroupName, NodeName, PartitionName, RequestId, Signal,
};

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

/// Declares a name: a string that [`Rule::check`] has accepted.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            pub(super) const RULE: $crate::name::Rule = $rule;

            /// Checks the text and takes it as a name.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::name::NameError> {
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

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::NameError;

            fn from_str(text: &str) -> Result<Self, $crate::name::NameError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::name::NameError;

            fn try_from(text: String) -> Result<Self, $crate::name::NameError> {
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
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
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

/// Reads a name from a string, and only from a string. The check is made inside the visitor so that a
/// reader of files knows which value was refused.
struct NameVisitor<N>(PhantomData<N>);

impl<N: TryFrom<String, Error = NameError>> de::Visitor<'_> for NameVisitor<N> {
    type Value = N;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<N, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<N, E> {
        N::try_from(text).map_err(E::custom)
    }
}

macro_rules! deserialize_from_string {
    ($($name:ident),*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_string($crate::name::NameVisitor(std::marker::PhantomData))
            }
        }
    )*};
}

use {deserialize_from_string, name};

#[cfg(test)]
mod tests;
