//! Runs one of Slurm's commands and says what became of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The longest a command may take. Slurm's own `MessageTimeout` is 10 s by default and its commands try
/// more than once; what takes longer than this will not come.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Words in scontrol's complaints that speak of slurmctld's or munge's trouble and not of the request
/// (`src/common/slurm_errno.c`, `slurm_protocol_api.c`).
const TRANSIENT_WORDS: [&str; 8] = [
    "Unable to contact",
    "connect failure",
    "timed out",
    "in standby",
    "Zero Bytes",
    "Protocol authentication error",
    "Transport endpoint",
    "Connection re",
];

/// Why Slurm did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlurmError {
    /// slurmctld, munge or the command itself cannot be reached now.
    #[error("{program} got no answer: {reason}")]
    Away {
        /// Which command.
        program: &'static str,
        /// Its words.
        reason: String,
    },
    /// Slurm said no.
    #[error("{program} refused: {reason}")]
    Refused {
        /// Which command.
        program: &'static str,
        /// Its words.
        reason: String,
    },
}

/// Runs a command with the environment we were given and, where that is named, with this slurm.conf; returns
/// what it printed.
pub async fn run(
    path: &Path,
    program: &'static str,
    arguments: &[&str],
    conf: Option<&Path>,
) -> Result<String, SlurmError> {
    let away = |reason: String| SlurmError::Away { program, reason };
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        // Times are printed as Unix seconds, whatever the time zone (seen on 22.05.8, 24.11.5, 26.05.5).
        .env("SLURM_TIME_FORMAT", "%s")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(conf) = conf {
        command.env("SLURM_CONF", conf);
    }
    let output = tokio::time::timeout(COMMAND_TIMEOUT, command.output())
        .await
        .map_err(|_| away(format!("nothing within {} s", COMMAND_TIMEOUT.as_secs())))?
        .map_err(|error| away(format!("cannot run {}: {error}", path.display())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let reason = complaint
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ");
    // Without a word it was killed.
    if reason.is_empty() || TRANSIENT_WORDS.iter().any(|words| reason.contains(words)) {
        Err(away(reason))
    } else {
        Err(SlurmError::Refused { program, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str) -> Result<String, SlurmError> {
        run(Path::new("/bin/sh"), "scontrol", &["-c", script], None).await
    }

    #[tokio::test]
    async fn tells_trouble_from_refusal() {
        assert_eq!(shell("echo yes").await.unwrap(), "yes\n");
        let refused =
            shell("echo 'slurm_update error: Invalid node name specified' >&2; exit 1").await;
        assert!(
            matches!(refused, Err(SlurmError::Refused { .. })),
            "{refused:?}"
        );
        let down = "slurm_load_node error: Unable to contact slurm controller (connect failure)";
        let away = shell(&format!("echo '{down}' >&2; exit 1")).await;
        assert!(matches!(away, Err(SlurmError::Away { .. })), "{away:?}");
        let killed = shell("kill -9 $$").await;
        assert!(matches!(killed, Err(SlurmError::Away { .. })), "{killed:?}");
        let missing = run(Path::new("/nonexistent/scontrol"), "scontrol", &[], None).await;
        assert!(
            matches!(missing, Err(SlurmError::Away { .. })),
            "{missing:?}"
        );
    }
}
