//! Sealed envelopes: what is accepted, and that nothing else is.

use proptest::prelude::*;
use spillway_core::envelope::{
    Envelope, KeyId, MAX_REASON_CHARS, MAX_SEALED_BYTES, OpenError, PublicKey, SigningKey, Update,
    UpdateAction, open, reason, seal,
};
use spillway_core::name::{ClusterName, Generation};

fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn envelope(reason: &str) -> Envelope {
    Envelope {
        envelope_id: "one".to_owned(),
        issued_ms: 1_800_000_000_000,
        expires_ms: 1_800_000_600_000,
        updates: vec![Update {
            nodes: "cloud[1-2]".to_owned(),
            generation: Generation::new(7).unwrap(),
            number: 1,
            request_id: None,
            note: None,
            action: UpdateAction::Fail {
                reason: reason.to_owned(),
                cool_off: None,
            },
        }],
    }
}

fn sealed(cluster_name: &str, seed: u8) -> String {
    seal(&cluster(cluster_name), &envelope("no capacity"), &key(seed)).unwrap()
}

/// The error's own name.
fn refusal(text: &str, trusted: &[PublicKey]) -> &'static str {
    match open(text, &cluster("site"), trusted) {
        Ok(_) => "accepted",
        Err(OpenError::TooLarge { .. }) => "too large",
        Err(OpenError::Malformed(_)) => "malformed",
        Err(OpenError::UnknownKey { .. }) => "unknown key",
        Err(OpenError::Forged) => "forged",
        Err(OpenError::Message(_)) => "message",
    }
}

#[test]
fn what_was_sealed_is_opened_with_either_trusted_key() {
    let trusted = [key(1).public(), key(2).public()];
    for seed in [1, 2] {
        let text = sealed("site", seed);
        let opened = open(&text, &cluster("site"), &trusted).unwrap();
        assert_eq!(opened, envelope("no capacity"));
    }
}

#[test]
fn refusals() {
    let trusted = [key(1).public()];
    let good = sealed("site", 1);
    let parts: Vec<&str> = good.split('.').collect();
    let other = sealed("site", 2);
    let other: Vec<&str> = other.split('.').collect();
    let with = |index: usize, part: &str| {
        let mut parts = parts.clone();
        parts[index] = part;
        parts.join(".")
    };
    let table = [
        (good.clone(), "accepted"),
        (String::new(), "malformed"),
        (sealed("site", 2), "unknown key"),
        (sealed("other", 1), "message"),
        // Another key's envelope under a trusted key's name, whole and in part.
        (with(3, other[3]), "forged"),
        ([other[0], parts[1], other[2], other[3]].join("."), "forged"),
        (with(0, "spillway2"), "malformed"),
        (with(0, ""), "malformed"),
        (with(1, "0123456789abcdef"), "unknown key"),
        (with(1, "0123456789ABCDEF"), "malformed"),
        (with(2, &parts[2][4..]), "forged"),
        (with(3, &parts[3][..84]), "malformed"),
        (with(3, &"A".repeat(86)), "forged"),
        (format!("{good}="), "malformed"),
        (format!("{good}\n"), "malformed"),
        (format!(" {good}"), "malformed"),
        (format!("{good}.{}", parts[3]), "malformed"),
        ("a".repeat(MAX_SEALED_BYTES + 1), "too large"),
    ];
    for (text, expected) in table {
        assert_eq!(refusal(&text, &trusted), expected, "{text}");
    }
    assert_eq!(refusal(&good, &[]), "unknown key");
}

#[test]
fn the_largest_envelope_fits_and_a_larger_one_is_not_sealed() {
    let mut fitting = 0;
    for length in 23_600..24_100 {
        match seal(&cluster("site"), &envelope(&"x".repeat(length)), &key(1)) {
            Ok(text) => {
                assert!(text.len() <= MAX_SEALED_BYTES);
                assert_eq!(refusal(&text, &[key(1).public()]), "accepted");
                fitting = length;
            }
            Err(error) => {
                assert_eq!(error.bytes, 24_001);
                break;
            }
        }
    }
    assert!(fitting > 23_600, "{fitting}");
}

#[test]
fn keys_are_written_and_read() {
    let signing = key(3);
    let public = signing.public();
    assert_eq!(public.to_string().parse::<PublicKey>(), Ok(public.clone()));
    assert_eq!(public.id(), signing.id());
    assert_eq!(signing.id().to_string().parse::<KeyId>(), Ok(signing.id()));
    let secret = signing.to_secret_text();
    assert_eq!(
        SigningKey::from_secret_text(&secret).unwrap().public(),
        public
    );
    assert!(!format!("{signing:?}").contains(&secret[23..]));
    // The neutral point: it verifies what nobody has signed.
    let weak = format!("ed25519:AQ{}", "A".repeat(41));
    for text in [
        "",
        "ed25519:",
        &weak,
        &secret,
        "ed25519:short",
        &public.to_string()[8..],
    ] {
        assert!(text.parse::<PublicKey>().is_err(), "{text}");
    }
    assert!(SigningKey::from_secret_text(&public.to_string()).is_err());
}

proptest! {
    /// Whatever is changed in a sealed envelope, it is refused.
    #[test]
    fn no_change_goes_unnoticed(at in any::<prop::sample::Index>(), byte in 0x20_u8..0x7f) {
        let good = sealed("site", 1);
        let mut bytes = good.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let text = String::from_utf8(bytes).unwrap();
        prop_assert_ne!(refusal(&text, &[key(1).public()]), "accepted");
    }
}

#[test]
fn a_reason_is_marked_once_on_one_line_and_of_bounded_length() {
    for (text, expected) in [
        ("spot", "spillway: spot"),
        ("spillway: spot", "spillway: spot"),
        ("a\nb\tc", "spillway: a b c"),
        ("", "spillway: "),
    ] {
        assert_eq!(reason(text), expected);
    }
    let long = reason(&"é".repeat(2 * MAX_REASON_CHARS));
    assert_eq!(long.chars().count(), MAX_REASON_CHARS);
}
