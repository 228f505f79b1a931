//! Whether a text is an envelope of ours that may be applied now, and if not, why, and what becomes of it.

use spillway_core::envelope::{Envelope, OpenError, PublicKey, open};
use spillway_core::message::{MessageError, RefusalReason};
use spillway_core::name::ClusterName;

/// How far ahead of our clock an envelope may have been issued: what a clock may be off that is right enough
/// for munge, which gives up at the same five minutes.
const MAX_AHEAD_MS: u64 = 5 * 60 * 1000;

/// What becomes of a message with a refused envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It can never become good: it must not come again and again between those that are.
    Delete,
    /// It may become good, or a person must see it: it comes again, and then goes to the dead-letter queue.
    Leave,
}

/// Why a text changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Counted by this.
    pub reason: RefusalReason,
    /// The same in words.
    pub words: String,
    /// What becomes of its message.
    pub fate: Fate,
    /// What is in it, if it is ours and has only come too late.
    pub expired: Option<Box<Envelope>>,
}

impl Refusal {
    fn new(reason: RefusalReason, fate: Fate, words: impl Into<String>) -> Self {
        Self {
            reason,
            words: words.into(),
            fate,
            expired: None,
        }
    }

    /// Signed by us, and yet it makes no sense to this build.
    pub fn unreadable(words: impl Into<String>) -> Self {
        Self::new(RefusalReason::Malformed, Fate::Leave, words)
    }
}

/// Opens a sealed text and looks at its times. Whether it came before is for the memory to say.
///
/// Who has no key can make what is forged, malformed or of an unknown key, as much as they like. The first two
/// are deleted, so that each costs one delivery. The last is left, since the operator may be about to add the
/// key: it costs ten deliveries and no signature check. What is signed by us and unreadable is our own fault
/// and left for a person.
pub fn verify(
    text: &str,
    cluster: &ClusterName,
    trusted: &[PublicKey],
    now_ms: u64,
) -> Result<Envelope, Refusal> {
    let envelope = open(text, cluster, trusted).map_err(|error| {
        let words = error.to_string();
        match error {
            OpenError::TooLarge { .. } | OpenError::Malformed(_) => {
                Refusal::new(RefusalReason::Malformed, Fate::Delete, words)
            }
            OpenError::Forged => Refusal::new(RefusalReason::Forged, Fate::Delete, words),
            OpenError::UnknownKey { .. } => {
                Refusal::new(RefusalReason::UnknownKey, Fate::Leave, words)
            }
            OpenError::Message(MessageError::OtherCluster { .. }) => {
                Refusal::new(RefusalReason::OtherCluster, Fate::Delete, words)
            }
            OpenError::Message(_) => Refusal::unreadable(words),
        }
    })?;
    if envelope.expires_ms <= now_ms {
        let words = "envelope has expired; what is due comes in a newer one";
        return Err(Refusal {
            expired: Some(Box::new(envelope)),
            ..Refusal::new(RefusalReason::Expired, Fate::Delete, words)
        });
    }
    if envelope.issued_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
        let ahead_seconds = (envelope.issued_ms - now_ms) / 1000;
        let words = format!(
            "envelope was issued {ahead_seconds} s in the future: the head node's clock is behind"
        );
        let reason = RefusalReason::NotYetValid;
        return Err(Refusal::new(reason, Fate::Leave, words));
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use spillway_core::envelope::{ENVELOPE_LIFE_MS, SigningKey, seal};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn each_refusal_has_its_reason_and_its_fate() {
        let [own, other] = [1, 2].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let cluster = |name: &str| ClusterName::new(name).unwrap();
        let sealed = |name: &str, key: &SigningKey, issued_ms: u64| {
            let envelope = Envelope {
                envelope_id: "one".to_owned(),
                issued_ms,
                expires_ms: issued_ms + ENVELOPE_LIFE_MS,
                updates: Vec::new(),
            };
            seal(&cluster(name), &envelope, key).unwrap()
        };
        let good = sealed("try", &own, NOW_MS);
        let trusted = [own.public()];
        let verify = |text: &str| verify(text, &cluster("try"), &trusted, NOW_MS);
        verify(&good).unwrap();
        verify(&sealed("try", &own, NOW_MS + MAX_AHEAD_MS)).unwrap();
        let (signed, _) = good.rsplit_once('.').unwrap();
        let elsewhere = sealed("try", &own, NOW_MS + 1);
        let (_, signature) = elsewhere.rsplit_once('.').unwrap();
        let late = sealed("try", &own, NOW_MS - ENVELOPE_LIFE_MS);
        let table = [
            (format!("{signed}.{signature}"), "forged", Fate::Delete),
            (
                good.replacen("spillway1", "spillway2", 1),
                "malformed",
                Fate::Delete,
            ),
            ("{}".to_owned(), "malformed", Fate::Delete),
            ("x".repeat(50_000), "malformed", Fate::Delete),
            (sealed("try", &other, NOW_MS), "unknown-key", Fate::Leave),
            (sealed("site", &own, NOW_MS), "other-cluster", Fate::Delete),
            (late, "expired", Fate::Delete),
            (
                sealed("try", &own, NOW_MS + MAX_AHEAD_MS + 1),
                "not-yet-valid",
                Fate::Leave,
            ),
        ];
        for (text, reason, fate) in table {
            let refusal = verify(&text).unwrap_err();
            assert_eq!(
                (refusal.reason.as_str(), refusal.fate),
                (reason, fate),
                "{text}"
            );
            assert_eq!(refusal.expired.is_some(), reason == "expired");
        }
    }
}
