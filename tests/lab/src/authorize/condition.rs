//! IAM's conditions: one operator, one key and the values that a policy compares it with.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html>

use super::context::{Context, is_known, is_multivalued};
use super::pattern::{Pattern, Wild};
use super::policy::PolicyError;

/// One line of a statement's `Condition`.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    set: Set,
    comparison: Comparison,
    /// `…IfExists`: met where the request lacks the key.
    if_exists: bool,
    key: String,
    values: Vec<String>,
}

/// How a key's several values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// The key has one.
    Single,
    /// `ForAllValues:`
    All,
    /// `ForAnyValue:`
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// A text, and whether the condition wants it not to match.
    Text {
        kind: Text,
        is_not: bool,
    },
    Bool,
    Null,
    Number(Number),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Equals,
    EqualsIgnoreCase,
    Like,
    /// AWS makes no difference between `ArnEquals` and `ArnLike`.
    Arn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Equals,
    NotEquals,
    Less,
    LessEquals,
    Greater,
    GreaterEquals,
}

impl Condition {
    /// Reads an operator such as `ForAllValues:StringEqualsIfExists` with its key and values.
    pub(super) fn read(
        operator: &str,
        key: &str,
        values: Vec<String>,
    ) -> Result<Self, PolicyError> {
        let (set, name) = match operator.split_once(':') {
            None => (Set::Single, operator),
            Some(("ForAllValues", name)) => (Set::All, name),
            Some(("ForAnyValue", name)) => (Set::Any, name),
            Some(_) => return Err(PolicyError::Operator(operator.to_owned())),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let comparison =
            comparison(name).ok_or_else(|| PolicyError::Operator(operator.to_owned()))?;
        if comparison == Comparison::Null && (if_exists || set != Set::Single) {
            return Err(PolicyError::Operator(operator.to_owned()));
        }
        for value in &values {
            check_value(comparison, value)?;
        }
        Ok(Self {
            set,
            comparison,
            if_exists,
            key: key.to_owned(),
            values,
        })
    }

    /// Whether the request meets it.
    pub(super) fn is_met(&self, variables: bool, context: &Context) -> Result<bool, PolicyError> {
        if !is_known(&self.key) {
            return Err(PolicyError::Key(self.key.clone()));
        }
        let found = context.get(&self.key);
        if self.comparison == Comparison::Null {
            // A list of values is met by one of them, as everywhere.
            return Ok(self
                .values
                .iter()
                .any(|value| (value == "true") == found.is_none()));
        }
        if self.set == Set::Single && is_multivalued(&self.key) {
            return Err(PolicyError::Multivalued(self.key.clone()));
        }
        // A policy's value with a variable that has none here makes the whole statement invalid.
        let mut wanted = Vec::new();
        for value in &self.values {
            let Some(pattern) = Pattern::read(value, variables, context)? else {
                return Ok(false);
            };
            wanted.push((pattern, value.as_str()));
        }
        let Some(found) = found else {
            return Ok(self.if_exists || self.is_met_without_key());
        };
        let mut holds = found.iter().map(|value| self.holds(value, &wanted));
        Ok(match self.set {
            Set::All => holds.all(|held| held),
            Set::Single | Set::Any => holds.any(|held| held),
        })
    }

    /// What a request without the key makes of it: a "not" is true of nothing, "for all" of no value.
    fn is_met_without_key(&self) -> bool {
        match self.set {
            Set::All => true,
            Set::Any => false,
            Set::Single => matches!(
                self.comparison,
                Comparison::Text { is_not: true, .. } | Comparison::Number(Number::NotEquals)
            ),
        }
    }

    /// One value of the request against all of the policy's: one must match, or none where it says "not".
    fn holds(&self, value: &str, wanted: &[(Pattern, &str)]) -> bool {
        match self.comparison {
            Comparison::Text { kind, is_not } => {
                wanted
                    .iter()
                    .any(|(pattern, _)| kind.matches(pattern, value))
                    != is_not
            }
            Comparison::Bool => wanted
                .iter()
                .any(|(_, text)| text.eq_ignore_ascii_case(value)),
            Comparison::Number(number) => number.holds(value, wanted),
            Comparison::Null => false,
        }
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    let text = |kind, is_not| Comparison::Text { kind, is_not };
    Some(match name {
        "StringEquals" => text(Text::Equals, false),
        "StringNotEquals" => text(Text::Equals, true),
        "StringEqualsIgnoreCase" => text(Text::EqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => text(Text::EqualsIgnoreCase, true),
        "StringLike" => text(Text::Like, false),
        "StringNotLike" => text(Text::Like, true),
        "ArnEquals" | "ArnLike" => text(Text::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => text(Text::Arn, true),
        "Bool" => Comparison::Bool,
        "Null" => Comparison::Null,
        "NumericEquals" => Comparison::Number(Number::Equals),
        "NumericNotEquals" => Comparison::Number(Number::NotEquals),
        "NumericLessThan" => Comparison::Number(Number::Less),
        "NumericLessThanEquals" => Comparison::Number(Number::LessEquals),
        "NumericGreaterThan" => Comparison::Number(Number::Greater),
        "NumericGreaterThanEquals" => Comparison::Number(Number::GreaterEquals),
        // Dates, addresses and binary values stand in none of our policies.
        _ => return None,
    })
}

fn check_value(comparison: Comparison, value: &str) -> Result<(), PolicyError> {
    let fits = match comparison {
        Comparison::Null => matches!(value, "true" | "false"),
        Comparison::Bool => value.contains("${") || value.parse::<bool>().is_ok(),
        Comparison::Number(_) => value.parse::<f64>().is_ok(),
        Comparison::Text { .. } => true,
    };
    if fits {
        return Ok(());
    }
    Err(PolicyError::Value(value.to_owned()))
}

impl Text {
    fn matches(self, pattern: &Pattern, value: &str) -> bool {
        match self {
            Self::Equals => pattern.matches(value, Wild::Never),
            Self::EqualsIgnoreCase => pattern
                .to_lowercase()
                .matches(&value.to_lowercase(), Wild::Never),
            Self::Like => pattern.matches(value, Wild::Text),
            Self::Arn => pattern.matches_arn(value),
        }
    }
}

impl Number {
    fn holds(self, value: &str, wanted: &[(Pattern, &str)]) -> bool {
        let Ok(value) = value.parse::<f64>() else {
            return self == Self::NotEquals;
        };
        let mut wanted = wanted.iter().filter_map(|(_, text)| text.parse().ok());
        match self {
            Self::Equals => wanted.any(|other: f64| value.total_cmp(&other).is_eq()),
            Self::NotEquals => wanted.all(|other: f64| value.total_cmp(&other).is_ne()),
            Self::Less => wanted.any(|other: f64| value < other),
            Self::LessEquals => wanted.any(|other: f64| value <= other),
            Self::Greater => wanted.any(|other: f64| value > other),
            Self::GreaterEquals => wanted.any(|other: f64| value >= other),
        }
    }
}
