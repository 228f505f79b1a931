//! Logs: JSON lines with timestamp, level, message and the fields of the span they were written in.

use tracing_subscriber::EnvFilter;

/// Starts logging to standard output, from the level that `RUST_LOG` names (else `info`). Call it once.
pub fn start_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .init();
}
