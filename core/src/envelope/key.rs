//! The keys that seal envelopes: Ed25519 (RFC 8032). The private half signs in `callback` alone; the public
//! half stands in the head node's configuration.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest, Sha256};

/// Bytes of a seed, of a public key (RFC 8032, section 5.1.5).
pub const SEED_BYTES: usize = 32;

/// How many bytes of the public key's hash name a key: enough that two keys of one site never share a name.
const KEY_ID_BYTES: usize = size_of::<u64>();

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "spillway-signing-key-1:";

/// What a key is called: the first eight bytes of the public key's SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// Why a text is not a key, or not the name of one. Never repeats the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the name of a key.
    #[error("a key id is 16 lower-case hexadecimal digits")]
    Id,
    /// Not a public key.
    #[error("a public key is \"ed25519:\" and 43 characters, as `spillway keys create` prints it")]
    Public,
    /// Not a signing key.
    #[error("this is not a signing key that `spillway keys create` has stored")]
    Secret,
}

impl KeyId {
    fn of(key: &VerifyingKey) -> Self {
        let hash = Sha256::digest(key.as_bytes());
        let first = hash.first_chunk().expect("SHA-256 has 32 bytes");
        Self(format!("{:016x}", u64::from_be_bytes(*first)))
    }

    /// The 16 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 2 * KEY_ID_BYTES && text.bytes().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Id)
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The half that verifies; written `ed25519:` and base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(into = "String")]
#[schemars(try_from = "String")]
pub struct PublicKey {
    key: VerifyingKey,
}

impl PublicKey {
    /// What the key is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.key)
    }

    /// Whether `signature` over `text` is this key's. Strict: the malleable and the small-order cases that
    /// RFC 8032 leaves open are refused.
    pub(super) fn verifies(&self, text: &str, signature: &Signature) -> bool {
        self.key.verify_strict(text.as_bytes(), signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, PUBLIC_PREFIX).ok_or(KeyError::Public)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Public)?;
        // A key of small order verifies signatures that nobody made.
        if key.is_weak() {
            return Err(KeyError::Public);
        }
        Ok(Self { key })
    }
}

/// By a visitor, so that an error in a configuration has the place of the key and not of the list.
impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = PublicKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a public key in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PublicKey, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = URL_SAFE_NO_PAD.encode(self.key.as_bytes());
        write!(f, "{PUBLIC_PREFIX}{key}")
    }
}

/// The half that signs. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// The key of a seed; the seed must be random and known to nobody.
    #[must_use]
    pub fn from_seed(seed: &[u8; SEED_BYTES]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        Self { key }
    }

    /// Reads what [`Self::to_secret_text`] wrote.
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let seed = decode(text.trim_end(), SECRET_PREFIX).ok_or(KeyError::Secret)?;
        Ok(Self::from_seed(&seed))
    }

    /// The form in which the key is kept, in a place that is kept secret.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let seed = URL_SAFE_NO_PAD.encode(self.key.as_bytes());
        format!("{SECRET_PREFIX}{seed}")
    }

    /// What the key is called.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(&self.key.verifying_key())
    }

    /// The half that verifies.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let key = self.key.verifying_key();
        PublicKey { key }
    }

    pub(super) fn sign(&self, text: &str) -> Signature {
        self.key.sign(text.as_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

fn decode(text: &str, prefix: &str) -> Option<[u8; SEED_BYTES]> {
    let encoded = text.strip_prefix(prefix)?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    bytes.try_into().ok()
}
