//! Parameters of SSM: the signing keys and the secrets that nodes join with. Only commands that a person
//! runs and `node join` use this; the programs that slurmctld runs never do.

use aws_config::SdkConfig;
use aws_sdk_ssm::Client;
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::types::ParameterType;
use aws_smithy_types::date_time::{DateTime, Format};

/// A call that failed. Never holds a parameter's value.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// SSM refused or did not answer.
    #[error("parameter {name}: {said}")]
    Service {
        /// Its name, or the path that was listed.
        name: String,
        /// The service's code and message, or what stood in the way.
        said: String,
    },
    /// It is there already and was not to be replaced.
    #[error("parameter {name} is there already")]
    Exists {
        /// Its name.
        name: String,
    },
}

/// What becomes of a parameter that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays: [`ParameterError::Exists`].
    Keep,
    /// It is overwritten.
    Replace,
}

/// Whether a secret is wanted in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decrypt {
    /// Needs `kms:Decrypt` for a `SecureString`.
    Yes,
    /// The value of a `SecureString` stays sealed: enough to know that it is there.
    No,
}

/// A parameter in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its whole name.
    pub name: String,
    /// When it was last written, RFC 3339 in UTC; empty if SSM does not say.
    pub written: String,
}

/// What SSM says of a parameter besides its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Grows by one with each write.
    pub version: i64,
    /// When it was last written, RFC 3339 in UTC; empty if SSM does not say.
    pub written: String,
}

/// The parameters of one account and region.
#[derive(Debug, Clone)]
pub struct Parameters {
    client: Client,
    kms_key: Option<String>,
}

impl ParameterError {
    /// Whether the caller may not do this, which asking again does not change.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Service { said, .. } if said.starts_with("AccessDenied"))
    }
}

impl Parameters {
    /// With the credentials and the endpoint of this configuration; nothing is connected yet.
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        Self {
            client: Client::new(sdk),
            kms_key: None,
        }
    }

    /// The same; secrets are from now on encrypted with this KMS key (ARN, id or alias).
    #[must_use]
    pub fn encrypting_with(self, kms_key: Option<String>) -> Self {
        Self { kms_key, ..self }
    }

    /// Writes a `SecureString`, encrypted with the account's key for SSM unless another was named.
    pub async fn put_secure(
        &self,
        name: &str,
        value: &str,
        existing: Existing,
    ) -> Result<(), ParameterError> {
        self.write(name, value, ParameterType::SecureString, existing)
            .await
    }

    /// Writes a plain string.
    pub async fn put(
        &self,
        name: &str,
        value: &str,
        existing: Existing,
    ) -> Result<(), ParameterError> {
        self.write(name, value, ParameterType::String, existing)
            .await
    }

    async fn write(
        &self,
        name: &str,
        value: &str,
        kind: ParameterType,
        existing: Existing,
    ) -> Result<(), ParameterError> {
        let kms_key = match kind {
            ParameterType::SecureString => self.kms_key.clone(),
            _ => None,
        };
        let call = self
            .client
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(kind)
            .set_key_id(kms_key)
            .overwrite(existing == Existing::Replace);
        match call.send().await {
            Ok(_) => Ok(()),
            Err(error) if is(&error, "ParameterAlreadyExists") => Err(ParameterError::Exists {
                name: name.to_owned(),
            }),
            Err(error) => Err(failed(name, &error)),
        }
    }

    /// The value of a parameter, by its name; none if it is not there.
    pub async fn get(
        &self,
        name: &str,
        decrypt: Decrypt,
    ) -> Result<Option<String>, ParameterError> {
        let call = self
            .client
            .get_parameter()
            .name(name)
            .with_decryption(decrypt == Decrypt::Yes);
        match call.send().await {
            Ok(answer) => Ok(answer.parameter.and_then(|parameter| parameter.value)),
            Err(error) if is(&error, "ParameterNotFound") => Ok(None),
            Err(error) => Err(failed(name, &error)),
        }
    }

    /// What SSM says of a parameter, without its value; none if it is not there.
    pub async fn describe(&self, name: &str) -> Result<Option<Described>, ParameterError> {
        let call = self
            .client
            .get_parameter()
            .name(name)
            .with_decryption(false);
        match call.send().await {
            Ok(answer) => Ok(answer.parameter.map(|parameter| Described {
                version: parameter.version,
                written: rfc3339(parameter.last_modified_date),
            })),
            Err(error) if is(&error, "ParameterNotFound") => Ok(None),
            Err(error) => Err(failed(name, &error)),
        }
    }

    /// The parameters right below a path such as `/a/b/`, by name; their values stay where they are.
    pub async fn list(&self, path: &str) -> Result<Vec<Listed>, ParameterError> {
        let mut listed = Vec::new();
        let mut pages = self
            .client
            .get_parameters_by_path()
            .path(path)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(path, &error))?;
            for parameter in page.parameters.unwrap_or_default() {
                listed.push(Listed {
                    name: parameter.name.unwrap_or_default(),
                    written: rfc3339(parameter.last_modified_date),
                });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Deletes a parameter; false if it was not there.
    pub async fn delete(&self, name: &str) -> Result<bool, ParameterError> {
        match self.client.delete_parameter().name(name).send().await {
            Ok(_) => Ok(true),
            Err(error) if is(&error, "ParameterNotFound") => Ok(false),
            Err(error) => Err(failed(name, &error)),
        }
    }
}

fn rfc3339(date: Option<DateTime>) -> String {
    date.and_then(|date| date.fmt(Format::DateTime).ok())
        .unwrap_or_default()
}

fn is<E: ProvideErrorMetadata>(error: &SdkError<E>, code: &str) -> bool {
    error
        .as_service_error()
        .is_some_and(|refusal| refusal.code() == Some(code))
}

fn failed<E>(name: &str, error: &SdkError<E>) -> ParameterError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let said = match error.as_service_error().map(ProvideErrorMetadata::meta) {
        Some(meta) => format!(
            "{}: {}",
            meta.code().unwrap_or("refused"),
            meta.message().unwrap_or("no message")
        ),
        None => words(error),
    };
    ParameterError::Service {
        name: name.to_owned(),
        said,
    }
}

/// An error and its causes. Never by `Debug`: that shows the answer as it came, and a secret may be in it.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
