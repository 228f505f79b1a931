//! How this program speaks: results on standard output, one error with its causes on standard error.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// Prints a line; a reader that has gone away (`| head`) is an error like any other.
pub fn print_line(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

/// Prints `spillway: what failed: because: because`.
pub fn print_error(error: &anyhow::Error) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "spillway: {}", chain(error));
}

/// The error and its causes, without a cause that the words before it already say.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let words = cause.to_string();
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

/// Log lines for a person on standard error: time, level, what happened.
pub fn start_log() {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .finish();
    // The first subscriber stays if there is one.
    let _ = tracing::subscriber::set_global_default(log);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_chain_is_said_once() {
        let error = anyhow::anyhow!("no such file")
            .context("cannot read a.toml: no such file")
            .context("cannot push");
        assert_eq!(
            chain(&error),
            "cannot push: cannot read a.toml: no such file"
        );
    }
}
