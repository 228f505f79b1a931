//! Runs Slurm's and munge's programs: with a time-out, and with the program's own words in the error.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How much of a program's output is read: ten times what `scontrol show config` prints.
const MAX_OUTPUT_BYTES: u64 = 256 * 1024;

/// A program that has ended may have left a daemon that still holds its output open: what was not
/// written by then is not waited for.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there or may not be run.
    #[error("cannot run {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not answer within {seconds} s")]
    TimedOut {
        /// Its name.
        program: String,
        /// The limit.
        seconds: u64,
    },
    /// It ended with an error.
    #[error("{program} failed: {said}")]
    Failed {
        /// Its name.
        program: String,
        /// Its last words, without its own name before them.
        said: String,
    },
}

impl CommandError {
    /// The words that matter to a person, without the name of the program where it spoke for itself.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Failed { said, .. } => said.clone(),
            other => other.to_string(),
        }
    }
}

/// Runs a program to its end, gives it `input`, and returns what it printed.
pub async fn run(
    mut command: Command,
    input: &[u8],
    timeout: Duration,
) -> Result<String, CommandError> {
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let run = run_to_end(&mut command, &program, input);
    tokio::time::timeout(timeout, run)
        .await
        .unwrap_or_else(|_| {
            Err(CommandError::TimedOut {
                program: program.clone(),
                seconds: timeout.as_secs(),
            })
        })
}

async fn run_to_end(
    command: &mut Command,
    program: &str,
    input: &[u8],
) -> Result<String, CommandError> {
    let failed = |source| CommandError::Start {
        program: program.to_owned(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("piped above");
    let mut stdout = child
        .stdout
        .take()
        .expect("piped above")
        .take(MAX_OUTPUT_BYTES);
    let mut stderr = child
        .stderr
        .take()
        .expect("piped above")
        .take(MAX_OUTPUT_BYTES);
    let (mut printed, mut complained) = (Vec::new(), Vec::new());
    let status = {
        let write = async {
            // A program that ends without reading its input is judged by its status.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let read = async {
            tokio::join!(
                stdout.read_to_end(&mut printed),
                stderr.read_to_end(&mut complained)
            )
        };
        let talk = async { tokio::join!(write, read) };
        tokio::pin!(talk);
        tokio::select! {
            _ = &mut talk => child.wait().await.map_err(failed)?,
            status = child.wait() => {
                let _ = tokio::time::timeout(OUTPUT_GRACE, talk).await;
                status.map_err(failed)?
            }
        }
    };
    if status.success() {
        return Ok(String::from_utf8_lossy(&printed).into_owned());
    }
    let said = last_words(&String::from_utf8_lossy(&complained))
        .or_else(|| last_words(&String::from_utf8_lossy(&printed)))
        .unwrap_or_else(|| status.to_string());
    Err(CommandError::Failed {
        program: program.to_owned(),
        said,
    })
}

/// The last line that says something, without `program: error:` before it.
fn last_words(text: &str) -> Option<String> {
    let line = text
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    let mut words = line;
    for label in ["error:", "fatal:", "Error:"] {
        if let Some((_, rest)) = words.split_once(label) {
            words = rest.trim_start();
        }
    }
    Some(words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn input_and_output_pass_through() {
        let printed = run(shell("tr a-z A-Z"), b"munge", LONG).await.unwrap();
        assert_eq!(printed, "MUNGE");
    }

    #[tokio::test]
    async fn the_programs_own_words_are_the_error() {
        let script = "echo 'slurmd: error: first' >&2; echo 'slurmd: fatal: no spool' >&2; exit 1";
        let error = run(shell(script), b"", LONG).await.unwrap_err();
        assert_eq!(error.words(), "no spool");
    }

    #[tokio::test]
    async fn a_daemon_left_behind_is_not_waited_for() {
        let started = std::time::Instant::now();
        let printed = run(shell("echo up; sleep 5 & exit 0"), b"", LONG)
            .await
            .unwrap();
        assert_eq!(printed, "up\n");
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn what_hangs_is_ended() {
        let error = run(shell("sleep 60"), b"", Duration::from_secs(1))
            .await
            .unwrap_err();
        assert_eq!(error.words(), "sh did not answer within 1 s");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = run(Command::new("no-such-program"), b"", LONG)
            .await
            .unwrap_err();
        assert!(error.words().starts_with("cannot run no-such-program: "));
    }
}
