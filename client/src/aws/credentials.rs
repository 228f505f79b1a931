//! Credentials from a file that others keep fresh: the SSM agent and IAM Roles Anywhere's helper replace what is in
//! it every half hour. The SDK's own provider reads a file once in a process's life and would ask AWS with what has
//! expired.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};

/// How long what was read counts. Those who keep a file fresh replace credentials long before they expire.
const READ_AGAIN_AFTER: Duration = Duration::from_mins(5);

/// Reads the file each time it is asked.
#[derive(Debug)]
pub struct FreshFile {
    file: PathBuf,
    profile: Option<String>,
}

impl FreshFile {
    /// Only this file: a key in the environment of whoever starts us must not be used instead. Without a profile:
    /// the default one.
    pub fn new(file: PathBuf, profile: Option<String>) -> Self {
        Self { file, profile }
    }

    fn provider(&self) -> ProfileFileCredentialsProvider {
        let files = EnvConfigFiles::builder()
            .with_file(EnvConfigFileKind::Credentials, &self.file)
            .build();
        let mut provider = ProfileFileCredentialsProvider::builder().profile_files(files);
        if let Some(profile) = &self.profile {
            provider = provider.profile_name(profile);
        }
        provider.build()
    }
}

impl ProvideCredentials for FreshFile {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let provider = self.provider();
        future::ProvideCredentials::new(async move {
            let mut credentials = provider.provide_credentials().await?;
            credentials
                .expiry_mut()
                .get_or_insert_with(|| SystemTime::now() + READ_AGAIN_AFTER);
            Ok(credentials)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write(path: &Path, key: &str) {
        let text = format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\naws_session_token = token\n"
        );
        std::fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn what_was_replaced_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let file = FreshFile::new(path.clone(), None);
        assert!(file.provide_credentials().await.is_err());
        for key in ["AKIAFIRST", "AKIASECOND"] {
            write(&path, key);
            let read = file.provide_credentials().await.unwrap();
            assert_eq!(read.access_key_id(), key);
            let expiry = read.expiry().unwrap();
            assert!(expiry <= SystemTime::now() + READ_AGAIN_AFTER);
        }
    }
}
