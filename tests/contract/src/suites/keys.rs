//! What the keys, the clock, and SSM of commands promise.

use spillway_control::fault::FaultKind;
use spillway_control::ports::{Clock, CommandOutcomes, Keys};
use spillway_core::envelope::PublicKey;

/// The key that seals is the active one, however often it is asked for.
pub async fn the_signing_key_is_the_active_one<K: Keys>(keys: &K, active: &PublicKey) {
    for _ in 0..2 {
        let key = keys.signing_key().await.expect("a key");
        assert_eq!(key.id(), active.id());
        assert_eq!(&key.public(), active);
    }
}

/// A wait takes its time, and identifiers are fresh.
pub async fn time_passes_and_identifiers_are_fresh<C: Clock>(clock: &C) {
    let begun_ms = clock.now_ms();
    clock.sleep_ms(50).await;
    let passed_ms = clock.now_ms() - begun_ms;
    assert!(passed_ms >= 49, "{passed_ms} ms");
    assert_ne!(clock.fresh_id(), clock.fresh_id());
}

/// Nothing became of a command that SSM does not know.
pub async fn an_unknown_command_has_no_outcome<O: CommandOutcomes>(outcomes: &O) {
    let outcome = outcomes.outcome(
        "11111111-2222-3333-4444-555555555555",
        "mi-0123456789abcdef0",
    );
    let fault = outcome.await.expect_err("there is no such command");
    assert_eq!(fault.kind, FaultKind::NotFound, "{fault}");
}
