//! The secrets that a burst node joins with: munge's key, or that of Slurm's own `auth/slurm`. They lie in SSM, the
//! operator puts them there, and root of a burst node fetches them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use spillway_core::name::ClusterName;

/// The most that munged reads (`MUNGE_KEY_LEN_MAX_BYTES` in munge 0.5.14 and newer).
const MAX_MUNGE_KEY_BYTES: usize = 1024;
/// A standard parameter holds 4,096 characters (SSM quotas), which is so much in base64.
const MAX_PARAMETER_BYTES: usize = 3072;
/// The least that munged takes (`MUNGE_KEY_LEN_MIN_BYTES`); a shorter one could be guessed.
const MIN_KEY_BYTES: usize = 32;

/// Which secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JoinSecret {
    /// The key of munge: /etc/munge/munge.key
    MungeKey,
    /// The key of Slurm's auth/slurm (23.11 and newer): slurm.key beside slurm.conf
    SlurmKey,
}

/// Why bytes are no such secret. Never holds any of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short or too long.
    #[error("a {secret} has {MIN_KEY_BYTES} to {max} bytes, this one has {bytes}")]
    Size {
        /// Which secret.
        secret: JoinSecret,
        /// The most it may have.
        max: usize,
        /// What it has.
        bytes: usize,
    },
    /// The parameter was not written by `spillway secrets put`.
    #[error("parameter {parameter} is not in base64: put it there with `spillway secrets put`")]
    NotBase64 {
        /// Its name.
        parameter: String,
    },
}

/// The bytes of a key. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(Vec<u8>);

impl JoinSecret {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::MungeKey, Self::SlurmKey];

    /// The name of the SSM parameter that holds it.
    #[must_use]
    pub fn parameter(self, cluster: &ClusterName) -> String {
        format!("/spillway/{cluster}/{self}")
    }

    /// A key of this kind, if the bytes can be one.
    pub fn key(self, bytes: Vec<u8>) -> Result<KeyBytes, SecretError> {
        let max = match self {
            Self::MungeKey => MAX_MUNGE_KEY_BYTES,
            Self::SlurmKey => MAX_PARAMETER_BYTES,
        };
        if (MIN_KEY_BYTES..=max).contains(&bytes.len()) {
            return Ok(KeyBytes(bytes));
        }
        Err(SecretError::Size {
            secret: self,
            max,
            bytes: bytes.len(),
        })
    }

    /// A key of this kind, from the value of its parameter.
    pub fn read_parameter(
        self,
        cluster: &ClusterName,
        value: &str,
    ) -> Result<KeyBytes, SecretError> {
        // The decoder's own error names a byte of it.
        let bytes = STANDARD
            .decode(value.trim())
            .map_err(|_| SecretError::NotBase64 {
                parameter: self.parameter(cluster),
            })?;
        self.key(bytes)
    }
}

impl fmt::Display for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::MungeKey => "munge-key",
            Self::SlurmKey => "slurm-key",
        })
    }
}

impl KeyBytes {
    /// As its file holds it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As its parameter holds it.
    #[must_use]
    pub fn to_parameter(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_parameter_which_holds_the_longest() {
        let cluster = ClusterName::new("lab").unwrap();
        for (secret, longest) in [
            (JoinSecret::MungeKey, MAX_MUNGE_KEY_BYTES),
            (JoinSecret::SlurmKey, MAX_PARAMETER_BYTES),
        ] {
            for length in [MIN_KEY_BYTES, longest] {
                let key = secret.key((0..length).map(|i| i.to_le_bytes()[0]).collect());
                let key = key.unwrap();
                let value = key.to_parameter();
                assert!(value.len() <= 4096, "{secret}: {}", value.len());
                assert_eq!(secret.read_parameter(&cluster, &value), Ok(key));
            }
            for length in [0, MIN_KEY_BYTES - 1, longest + 1] {
                secret.key(vec![7; length]).unwrap_err();
            }
        }
    }

    #[test]
    fn neither_a_key_nor_an_error_shows_its_bytes() {
        let cluster = ClusterName::new("lab").unwrap();
        let key = JoinSecret::MungeKey.key(vec![b'S'; 64]).unwrap();
        assert_eq!(format!("{key:?}"), "KeyBytes(64 bytes)");
        let error = JoinSecret::MungeKey
            .read_parameter(&cluster, "SSSSSSSS*")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "parameter /spillway/lab/munge-key is not in base64: put it there with `spillway secrets put`"
        );
    }
}
