//! IAM's identity policies: reading them, and deciding by them. What this cannot judge as AWS does is an error.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use std::collections::BTreeMap;

use serde::Deserialize;

use super::condition::Condition;
use super::context::Context;
use super::pattern::{Pattern, Wild};

/// Why a policy cannot be judged here. It is the lab that must learn more then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is no policy, or has elements that identity policies do not have.
    #[error("correct the policy document: {0}")]
    Document(String),
    /// A condition operator that the lab does not evaluate.
    #[error("teach the lab the condition operator {0}")]
    Operator(String),
    /// A condition key that the lab gives no value.
    #[error("teach the lab the condition key {0}")]
    Key(String),
    /// A key of several values without `ForAllValues:` or `ForAnyValue:`.
    #[error("say ForAllValues or ForAnyValue in the condition on {0}")]
    Multivalued(String),
    /// A value that does not fit its operator.
    #[error("correct the value {0:?} in a condition")]
    Value(String),
    /// A policy variable that cannot be read.
    #[error("correct the policy variable in {0:?}")]
    Variable(String),
}

/// What the policies say to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// This statement (its Sid, where it has one) denies it, whatever others allow.
    Denied(String),
}

/// One action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `service:Action`.
    pub action: &'a str,
    /// The resource's ARN; `*` where the action knows none.
    pub resource: &'a str,
    /// Its condition keys.
    pub context: &'a Context,
}

/// An identity policy.
#[derive(Clone, Debug)]
pub struct Policy {
    statements: Vec<Statement>,
    /// Policy variables came with version 2012-10-17; in the older one they are plain text.
    variables: bool,
}

#[derive(Clone, Debug)]
struct Statement {
    sid: String,
    denies: bool,
    action: Either,
    resource: Either,
    conditions: Vec<Condition>,
}

/// A list, or all but a list.
#[derive(Clone, Debug)]
struct Either {
    texts: Vec<String>,
    is_not: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawPolicy {
    version: Option<String>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<RawStatement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawStatement {
    sid: Option<String>,
    effect: String,
    action: Option<OneOrMany<String>>,
    not_action: Option<OneOrMany<String>>,
    resource: Option<OneOrMany<String>>,
    not_resource: Option<OneOrMany<String>>,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, OneOrMany<Scalar>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

/// IAM takes numbers and truth values without quotes too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Truth(bool),
    Number(serde_json::Number),
}

impl Policy {
    /// Reads a policy document.
    pub fn parse(document: &str) -> Result<Self, PolicyError> {
        let raw: RawPolicy = serde_json::from_str(document)
            .map_err(|error| PolicyError::Document(error.to_string()))?;
        let variables = match raw.version.as_deref() {
            Some("2012-10-17") => true,
            Some("2008-10-17") | None => false,
            Some(other) => return Err(PolicyError::Document(format!("Version {other}"))),
        };
        let statements = raw.statement.into_vec().into_iter().map(Statement::read);
        Ok(Self {
            statements: statements.collect::<Result<_, _>>()?,
            variables,
        })
    }
}

/// Decides by all of a principal's policies together.
pub fn decide(policies: &[Policy], request: &Request<'_>) -> Result<Decision, PolicyError> {
    let mut decision = Decision::NotAllowed;
    for policy in policies {
        for statement in &policy.statements {
            if !statement.applies(policy.variables, request)? {
                continue;
            }
            if statement.denies {
                return Ok(Decision::Denied(statement.sid.clone()));
            }
            decision = Decision::Allowed;
        }
    }
    Ok(decision)
}

impl Statement {
    fn read(raw: RawStatement) -> Result<Self, PolicyError> {
        let sid = raw.sid.unwrap_or_default();
        let denies = match raw.effect.as_str() {
            "Allow" => false,
            "Deny" => true,
            other => return Err(PolicyError::Document(format!("Effect {other}"))),
        };
        let mut conditions = Vec::new();
        for (operator, keys) in raw.condition {
            for (key, values) in keys {
                let values = values.into_vec().into_iter().map(Scalar::into_text);
                conditions.push(Condition::read(&operator, &key, values.collect())?);
            }
        }
        Ok(Self {
            action: Either::read("Action", raw.action, raw.not_action)?,
            resource: Either::read("Resource", raw.resource, raw.not_resource)?,
            sid,
            denies,
            conditions,
        })
    }

    fn applies(&self, variables: bool, request: &Request<'_>) -> Result<bool, PolicyError> {
        // Actions do not differ by case and hold no variables; ARNs differ by case.
        let wanted = request.action.to_ascii_lowercase();
        let has_action = self.action.holds(|text| {
            let pattern = Pattern::read(&text.to_ascii_lowercase(), false, request.context)?;
            Ok(pattern.map(|pattern| pattern.matches(&wanted, Wild::Text)))
        })?;
        if has_action != Some(true) {
            return Ok(false);
        }
        let has_resource = self.resource.holds(|text| {
            let pattern = Pattern::read(text, variables, request.context)?;
            Ok(pattern.map(|pattern| pattern.matches(request.resource, Wild::Resource)))
        })?;
        if has_resource != Some(true) {
            return Ok(false);
        }
        for condition in &self.conditions {
            if !condition.is_met(variables, request.context)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Either {
    fn read(
        name: &str,
        these: Option<OneOrMany<String>>,
        all_but: Option<OneOrMany<String>>,
    ) -> Result<Self, PolicyError> {
        let (texts, is_not) = match (these, all_but) {
            (Some(texts), None) => (texts, false),
            (None, Some(texts)) => (texts, true),
            _ => {
                let message = format!("a statement needs either {name} or Not{name}");
                return Err(PolicyError::Document(message));
            }
        };
        let texts = texts.into_vec();
        if texts.is_empty() {
            return Err(PolicyError::Document(format!("an empty {name}")));
        }
        Ok(Self { texts, is_not })
    }

    /// Whether it holds for what `matches` compares each text with. A text whose variables have no value
    /// matches nothing, also for `Not…`: AWS takes the statement for invalid then.
    fn holds(
        &self,
        matches: impl Fn(&str) -> Result<Option<bool>, PolicyError>,
    ) -> Result<Option<bool>, PolicyError> {
        let mut any = false;
        for text in &self.texts {
            match matches(text)? {
                Some(one) => any |= one,
                None if self.is_not => return Ok(None),
                None => {}
            }
        }
        Ok(Some(any != self.is_not))
    }
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(many) => many,
            Self::One(one) => vec![one],
        }
    }
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Truth(truth) => truth.to_string(),
            Self::Number(number) => number.to_string(),
        }
    }
}
