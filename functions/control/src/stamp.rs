//! How far a request's stamp may lie ahead.

use spillway_core::name::Generation;

/// A stamp may lie this far ahead of the moment SQS took the message. A head node whose clock is further
/// off could otherwise shut out every later request for its nodes.
pub const MAX_AHEAD_MS: u64 = 5 * 60 * 1000;

/// A stamp that no clock near ours would give.
#[derive(Debug, thiserror::Error)]
#[error(
    "generation is {ahead_seconds} s ahead of the time SQS took the message: set the head node's clock"
)]
pub struct FromTheFuture {
    /// How far.
    pub ahead_seconds: u64,
}

/// Refuses a stamp from the future. `sent_ms` is when SQS took the message, by AWS's clock.
pub fn check_stamp(generation: Generation, sent_ms: u64) -> Result<(), FromTheFuture> {
    let ahead_ms = generation.at_ms().saturating_sub(sent_ms);
    if ahead_ms > MAX_AHEAD_MS {
        return Err(FromTheFuture {
            ahead_seconds: ahead_ms / 1000,
        });
    }
    Ok(())
}
