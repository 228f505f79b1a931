//! The seal of an envelope: one line of text, the same on both roads to the head node.
//!
//! `spillway1.<key id>.<payload>.<signature>`, payload and signature in base64url without padding. The payload
//! is the JSON of a [`Message`] with the envelope; the signature covers everything before the last dot.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::Signature;

use super::key::{KeyId, PublicKey, SigningKey};
use super::{Envelope, MAX_ENVELOPE_BYTES};
use crate::message::{Message, MessageError};
use crate::name::ClusterName;

/// The form of the seal that this build writes and reads.
const PREFIX: &str = "spillway1";

/// The longest sealed envelope: the payload grows by a third in base64, and the other parts take 115 bytes.
/// The SSM document allows as many characters.
pub const MAX_SEALED_BYTES: usize = MAX_ENVELOPE_BYTES / 3 * 4 + 200;

/// Why an envelope cannot be sealed.
#[derive(Debug, thiserror::Error)]
#[error("envelope of {bytes} bytes is over the limit of {MAX_ENVELOPE_BYTES}")]
pub struct EnvelopeTooLarge {
    /// Length of its JSON.
    pub bytes: usize,
}

/// Why a text is not an envelope of ours. Whether it is too old or came before is the receiver's to say.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Longer than any envelope.
    #[error("sealed envelope of {bytes} bytes is over the limit of {MAX_SEALED_BYTES}")]
    TooLarge {
        /// Length of the text.
        bytes: usize,
    },
    /// Not of the form above.
    #[error("sealed envelope is malformed: {0}")]
    Malformed(&'static str),
    /// Sealed with a key that is not trusted here, or no longer.
    #[error("envelope is sealed with key {key_id}, which is not trusted here")]
    UnknownKey {
        /// The key it names.
        key_id: KeyId,
    },
    /// The signature is not the named key's over this text.
    #[error("envelope is forged: the signature does not fit")]
    Forged,
    /// Sealed by us, but not for this cluster, or not readable by this build.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Seals an envelope for a cluster's head node.
pub fn seal(
    cluster: &ClusterName,
    envelope: &Envelope,
    key: &SigningKey,
) -> Result<String, EnvelopeTooLarge> {
    let json = Message::new(cluster.clone(), envelope).to_json();
    if json.len() > MAX_ENVELOPE_BYTES {
        return Err(EnvelopeTooLarge { bytes: json.len() });
    }
    let payload = URL_SAFE_NO_PAD.encode(json);
    let signed = format!("{PREFIX}.{}.{payload}", key.id());
    let signature = URL_SAFE_NO_PAD.encode(key.sign(&signed).to_bytes());
    Ok(format!("{signed}.{signature}"))
}

/// Opens a sealed envelope. Nothing of the payload is looked at before the signature is verified.
pub fn open(text: &str, own: &ClusterName, trusted: &[PublicKey]) -> Result<Envelope, OpenError> {
    if text.len() > MAX_SEALED_BYTES {
        return Err(OpenError::TooLarge { bytes: text.len() });
    }
    let (signed, signature) = text
        .rsplit_once('.')
        .ok_or(OpenError::Malformed("it has no signature"))?;
    let (head, payload) = signed
        .rsplit_once('.')
        .ok_or(OpenError::Malformed("it has no payload"))?;
    let key_id = head
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix('.'))
        .ok_or(OpenError::Malformed("it does not begin with spillway1"))?;
    let key_id: KeyId = key_id
        .parse()
        .map_err(|_| OpenError::Malformed("it names no key"))?;
    let Some(key) = trusted.iter().find(|key| key.id() == key_id) else {
        return Err(OpenError::UnknownKey { key_id });
    };
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .ok()
        .and_then(|bytes| Signature::from_slice(&bytes).ok())
        .ok_or(OpenError::Malformed("its signature is no signature"))?;
    if !key.verifies(signed, &signature) {
        return Err(OpenError::Forged);
    }
    let json = URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(OpenError::Malformed("its payload is no text"))?;
    Ok(Message::parse(&json, own)?)
}
