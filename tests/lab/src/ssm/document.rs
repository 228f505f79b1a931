//! A Command document of schema 2.2 with one step, `aws:runShellScript`: what the service and the agent check of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use regex_lite::Regex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// A document and its parameters together are at most this long when a command runs.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Why a text is not such a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The template cannot be read.
    #[error("read the template's document: {0}")]
    Template(String),
    /// Not of the shape that this lab knows.
    #[error("write the document as the lab knows it: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A pattern is none.
    #[error("correct an allowedPattern: {0}")]
    Pattern(#[from] regex_lite::Error),
    /// More than the lab knows.
    #[error("the document must have {0}")]
    Unknown(&'static str),
}

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its name.
    pub name: String,
    /// The text, to the byte.
    pub content: String,
    /// SHA-256 of the content, in hex.
    pub hash: String,
    /// The lines of its script.
    pub commands: Vec<String>,
    /// How long it may run.
    pub timeout_seconds: u64,
    parameters: BTreeMap<String, Parameter>,
}

#[derive(Debug, Clone)]
struct Parameter {
    allowed: Option<Regex>,
    max_chars: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    schema_version: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    parameters: BTreeMap<String, ParameterContent>,
    main_steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ParameterContent {
    r#type: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    allowed_pattern: Option<String>,
    max_chars: Option<usize>,
    interpolation_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    action: String,
    #[serde(rename = "name")]
    _name: String,
    inputs: Inputs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Inputs {
    run_command: Vec<String>,
    timeout_seconds: String,
}

impl Document {
    /// Reads a document.
    pub fn parse(name: &str, content: &str) -> Result<Self, DocumentError> {
        let read: Content = serde_json::from_str(content)?;
        if read.schema_version != "2.2" {
            return Err(DocumentError::Unknown("schema version 2.2"));
        }
        let [step] = read.main_steps.as_slice() else {
            return Err(DocumentError::Unknown("one step"));
        };
        if step.action != "aws:runShellScript" {
            return Err(DocumentError::Unknown("the action aws:runShellScript"));
        }
        let parameters = read.parameters.into_iter().map(|(name, parameter)| {
            let is_known = parameter.r#type == "String"
                && parameter.interpolation_type.as_deref() == Some("ENV_VAR");
            if !is_known {
                let known = "parameters of type String with interpolation ENV_VAR";
                return Err(DocumentError::Unknown(known));
            }
            let allowed = parameter
                .allowed_pattern
                .map(|pattern| Regex::new(&pattern));
            let parameter = Parameter {
                allowed: allowed.transpose()?,
                max_chars: parameter.max_chars,
            };
            Ok((name, parameter))
        });
        let timeout_seconds = step.inputs.timeout_seconds.parse();
        Ok(Self {
            name: name.to_owned(),
            content: content.to_owned(),
            hash: sha256(content),
            commands: step.inputs.run_command.clone(),
            timeout_seconds: timeout_seconds
                .map_err(|_| DocumentError::Unknown("timeoutSeconds as digits"))?,
            parameters: parameters.collect::<Result<_, _>>()?,
        })
    }

    /// Reads the document that a SAM template would make as the resource `logical_id`.
    pub fn of_template(
        name: &str,
        template: &Path,
        logical_id: &str,
    ) -> Result<Self, DocumentError> {
        let text = std::fs::read_to_string(template)
            .map_err(|error| DocumentError::Template(error.to_string()))?;
        let template: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text)
            .map_err(|error| DocumentError::Template(error.to_string()))?;
        let content = &template["Resources"][logical_id]["Properties"]["Content"];
        let content = match content {
            serde_yaml_ng::Value::Tagged(sub) => sub.value.as_str(),
            plain => plain.as_str(),
        };
        let content = content
            .ok_or_else(|| DocumentError::Template(format!("{logical_id} has no text Content")))?;
        Self::parse(name, content)
    }

    /// The value of each parameter, if these are what the document asks for, and their size in bytes.
    pub fn values(
        &self,
        given: &BTreeMap<String, Vec<String>>,
    ) -> Result<(BTreeMap<String, String>, usize), String> {
        if let Some(name) = given
            .keys()
            .find(|name| !self.parameters.contains_key(*name))
        {
            return Err(format!("unknown parameter {name}"));
        }
        let mut values = BTreeMap::new();
        let mut bytes = 0;
        for name in self.parameters.keys() {
            let [value] = given.get(name).map_or(&[][..], Vec::as_slice) else {
                return Err(format!("parameter {name} needs one value"));
            };
            self.check(name, value)?;
            bytes += value.len();
            values.insert(name.clone(), value.clone());
        }
        if self.content.len() + bytes > MAX_COMMAND_BYTES {
            return Err("document and parameters are too long".to_owned());
        }
        Ok((values, bytes))
    }

    /// Whether a parameter may have this value.
    pub fn check(&self, name: &str, value: &str) -> Result<(), String> {
        let parameter = self.parameters.get(name).ok_or("unknown parameter")?;
        let is_long = |most: usize| value.chars().count() > most;
        if parameter.max_chars.is_some_and(is_long) {
            return Err(format!("the value of {name} is too long"));
        }
        if parameter
            .allowed
            .as_ref()
            .is_some_and(|allowed| !allowed.is_match(value))
        {
            return Err(format!(
                "the value of {name} does not match its allowedPattern"
            ));
        }
        Ok(())
    }

    /// Whether the content is that of a hash.
    #[must_use]
    pub fn has_hash(&self, hash: &str) -> bool {
        sha256(&self.content) == hash
    }
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
