//! The parameters of a Query API call as a tree (`Filter.1.Value.2` is a path in it). Reading takes a
//! parameter out, and what nobody took is refused, so nothing a caller says is ever ignored.

use std::collections::BTreeMap;
use std::str::FromStr;

use spillway_world::ec2::{Ec2Error, Ec2Result};

/// One step of the tree: its own value and what lies below.
#[derive(Debug, Default)]
pub struct Params {
    value: Option<String>,
    below: BTreeMap<String, Params>,
}

impl Params {
    /// The tree of a form's pairs.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut root = Self::default();
        for (name, value) in pairs {
            let leaf = name.split('.').fold(&mut root, |at, step| at.section(step));
            leaf.value = Some(value);
        }
        root
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.below.get_mut(name)?.value.take()
    }

    /// Takes a text that must be there.
    pub fn required(&mut self, name: &str) -> Ec2Result<String> {
        self.text(name).ok_or_else(|| Ec2Error::missing(name))
    }

    /// Takes a number.
    pub fn number<T: FromStr>(&mut self, name: &str) -> Ec2Result<Option<T>> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| invalid(&text, name)))
            .transpose()
    }

    /// Takes `true` or `false`.
    pub fn boolean(&mut self, name: &str) -> Ec2Result<Option<bool>> {
        self.number(name)
    }

    /// What lies below a name; empty if nothing does.
    pub fn section(&mut self, name: &str) -> &mut Self {
        self.below.entry(name.to_owned()).or_default()
    }

    /// The members of a list (`name.1`, `name.2` …) in the order of their numbers.
    pub fn list(&mut self, name: &str) -> Vec<&mut Self> {
        let Some(list) = self.below.get_mut(name) else {
            return Vec::new();
        };
        let mut members: Vec<(u32, &mut Self)> = list
            .below
            .iter_mut()
            .filter_map(|(number, member)| Some((number.parse().ok()?, member)))
            .collect();
        members.sort_by_key(|(number, _)| *number);
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Takes a list of texts.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        self.list(name)
            .into_iter()
            .filter_map(|member| member.value.take())
            .collect()
    }

    /// Refuses what was not taken.
    pub fn finish(&self) -> Ec2Result<()> {
        self.left("").map_or(Ok(()), |path| {
            let message = format!("The parameter {path} is not recognized");
            Err(Ec2Error::client("UnknownParameter", message))
        })
    }

    fn left(&self, path: &str) -> Option<String> {
        if self.value.is_some() {
            return Some(path.to_owned());
        }
        self.below.iter().find_map(|(name, below)| {
            below.left(&if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            })
        })
    }
}

/// `InvalidParameterValue` for a value that cannot be read.
pub fn invalid(value: &str, name: &str) -> Ec2Error {
    Ec2Error::invalid_value(format!("Value ({value}) for parameter {name} is invalid."))
}
