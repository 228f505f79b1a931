//! The signing keys of a cluster, as parameters of SSM: each private half a SecureString named by its key id,
//! and beside them a plain parameter that says which one signs. `callback` alone may read them.

use spillway_core::envelope::{KeyId, PublicKey, SEED_BYTES, SigningKey};
use spillway_core::name::ClusterName;

use crate::aws::ssm::{Decrypt, Existing, ParameterError, Parameters};

/// The name, beside the key ids, of the parameter that says which key signs.
const ACTIVE: &str = "active";

/// The keys of one cluster.
#[derive(Debug)]
pub struct Keyring {
    parameters: Parameters,
    /// `/spillway/<cluster>/signing-key/`.
    path: String,
}

/// A key whose private half is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptKey {
    /// What it is called.
    pub id: KeyId,
    /// When it was created, RFC 3339 in UTC.
    pub created: String,
}

/// Why a key cannot be made, used or deleted.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// SSM.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The operating system gave no randomness.
    #[error("no random bytes can be had: {0}")]
    Random(#[from] getrandom::Error),
    /// No private half under this id.
    #[error("there is no key {0}: `spillway keys list` shows those there are")]
    Missing(KeyId),
    /// It signs; without it nothing would reach Slurm.
    #[error(
        "key {0} is the one that signs: make another one sign first (`spillway keys rotate ID`)"
    )]
    Active(KeyId),
}

impl Keyring {
    /// The keys of a cluster; nothing is read yet.
    pub fn new(parameters: Parameters, cluster: &ClusterName) -> Self {
        Self {
            parameters,
            path: format!("/spillway/{cluster}/signing-key/"),
        }
    }

    /// Makes a key and stores its private half, which exists nowhere else. Returns the public half.
    pub async fn create(&self) -> Result<PublicKey, KeyringError> {
        let mut seed = [0; SEED_BYTES];
        getrandom::fill(&mut seed)?;
        let key = SigningKey::from_seed(&seed);
        let name = self.name(key.id().as_str());
        self.parameters
            .put_secure(&name, &key.to_secret_text(), Existing::Keep)
            .await?;
        Ok(key.public())
    }

    /// The keys there are, the oldest first.
    pub async fn list(&self) -> Result<Vec<KeptKey>, KeyringError> {
        let listed = self.parameters.list(&self.path).await?;
        let mut keys: Vec<KeptKey> = listed
            .into_iter()
            .filter_map(|parameter| {
                let id = parameter.name.strip_prefix(&self.path)?.parse().ok()?;
                let created = parameter.written;
                Some(KeptKey { id, created })
            })
            .collect();
        keys.sort_by(|a, b| a.created.cmp(&b.created));
        Ok(keys)
    }

    /// Which key signs; none before the first one was created.
    pub async fn active(&self) -> Result<Option<KeyId>, KeyringError> {
        let value = self.parameters.get(&self.name(ACTIVE), Decrypt::No).await?;
        Ok(value.and_then(|id| id.trim().parse().ok()))
    }

    /// Makes a key the one that signs if none does. Returns whether it is.
    pub async fn activate_first(&self, id: &KeyId) -> Result<bool, KeyringError> {
        let name = self.name(ACTIVE);
        match self
            .parameters
            .put(&name, id.as_str(), Existing::Keep)
            .await
        {
            Ok(()) => Ok(true),
            Err(ParameterError::Exists { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a key the one that signs.
    pub async fn activate(&self, id: &KeyId) -> Result<(), KeyringError> {
        let name = self.name(id.as_str());
        if self.parameters.get(&name, Decrypt::No).await?.is_none() {
            return Err(KeyringError::Missing(id.clone()));
        }
        let name = self.name(ACTIVE);
        Ok(self
            .parameters
            .put(&name, id.as_str(), Existing::Replace)
            .await?)
    }

    /// Deletes a private half, for good; not that of the key that signs. False if it was not there.
    pub async fn delete(&self, id: &KeyId) -> Result<bool, KeyringError> {
        if self.active().await?.as_ref() == Some(id) {
            return Err(KeyringError::Active(id.clone()));
        }
        Ok(self.parameters.delete(&self.name(id.as_str())).await?)
    }

    fn name(&self, last: &str) -> String {
        format!("{}{last}", self.path)
    }
}
