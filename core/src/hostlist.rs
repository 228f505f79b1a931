//! Slurm's hostlist expressions, such as `cloud[001-128,200],gpu[1-4]`: parse, expand, fold. The same
//! names in the same order as `scontrol show hostnames` for every well-formed expression; what Slurm
//! garbles or refuses is an error that says where and what to write instead. (Slurm 22.05.8 to 26.05,
//! src/common/hostlist.c.)

mod expand;
mod fold;
mod parse;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use expand::Names;
pub use fold::fold;
pub use parse::HostlistError;

use crate::name::{NameError, NodeName};

/// Most numbers in one range such as `1-65536`: Slurm's own (`MAX_RANGE`), and its largest cluster.
pub const MAX_RANGE_LENGTH: u64 = 65_536;
/// Most names in one expression: four times Slurm's largest cluster, so that no text that fits in a
/// message can make us expand without bound.
pub const MAX_NAMES: u64 = 262_144;
/// Longest name an expression may stand for: that of a DNS name. (A node name is shorter still.)
pub const MAX_NAME_LENGTH: usize = 255;

/// A parsed expression: names in order, duplicates kept. Expands only when iterated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostlist {
    items: Vec<Item>,
    len: usize,
}

/// What stands between two commas outside of brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    /// A name without brackets.
    Name(Box<str>),
    /// At least one bracket group, each with the text before it.
    Product(Vec<Group>),
}

/// `rack[1-4,7]`: a text and the numbers that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    prefix: Box<str>,
    ranges: Vec<Range>,
}

/// `low-high`, both included, printed with at least `width` digits (the digits written for `low`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u64,
    high: u64,
    width: usize,
}

impl Hostlist {
    /// Parses one expression. Items are separated by commas or white space, as in Slurm.
    pub fn parse(expression: &str) -> Result<Self, HostlistError> {
        parse::parse(expression)
    }

    /// The number of names, duplicates counted; at least 1.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "an expression without a name is an error"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The names in Slurm's order, made one by one.
    #[must_use]
    pub fn iter(&self) -> Names<'_> {
        Names::new(self)
    }

    /// The names as node names; fails at the first that is none.
    pub fn node_names(&self) -> Result<Vec<NodeName>, NameError> {
        self.iter().map(NodeName::new).collect()
    }
}

impl<'a> IntoIterator for &'a Hostlist {
    type Item = String;
    type IntoIter = Names<'a>;

    fn into_iter(self) -> Names<'a> {
        self.iter()
    }
}

impl FromStr for Hostlist {
    type Err = HostlistError;

    fn from_str(expression: &str) -> Result<Self, HostlistError> {
        Self::parse(expression)
    }
}

/// Prints an expression that stands for the same names, group by group as it was written.
impl fmt::Display for Hostlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match item {
                Item::Name(name) => f.write_str(name)?,
                Item::Product(groups) => groups.iter().try_for_each(|group| group.fmt(f))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.prefix)?;
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            range.fmt(f)?;
        }
        f.write_str("]")
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, width } = *self;
        write!(f, "{low:0width$}")?;
        if high > low {
            write!(f, "-{high:0width$}")?;
        }
        Ok(())
    }
}

impl Serialize for Hostlist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hostlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expression = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&expression).map_err(de::Error::custom)
    }
}

impl JsonSchema for Hostlist {
    fn schema_name() -> Cow<'static, str> {
        "Hostlist".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "node names as Slurm writes them, such as cloud[001-128,200],gpu[1-4]",
            "minLength": 1,
        })
    }
}
