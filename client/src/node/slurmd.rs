//! The node's slurmd: started as a daemon, watched through its pid file, ended by SIGKILL.
//!
//! A slurmd that waits for the answer to its registration ignores SIGTERM (seen on 22.05.8), and it holds
//! no job before slurmctld took it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gethostname};
use spillway_core::name::NodeName;

use super::command::{self, CommandError};
use super::slurm::{Settings, Slurm};

/// Until slurmd has gone to the background. It reads its configuration, by network where it is
/// fetched from slurmctld, and looks at the hardware first.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Until the daemon has written its pid file.
const PID_FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a killed process may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(100);

/// Used while slurmctld's settings are not known: Slurm's own defaults.
const DEFAULT_SPOOL_DIR: &str = "/var/spool/slurmd";
const DEFAULT_PID_FILE: &str = "/var/run/slurmd.pid";

/// How much of the end of slurmd's log is searched for its last error.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// Why slurmd does not run.
#[derive(Debug, thiserror::Error)]
pub enum SlurmdError {
    /// `SlurmdSpoolDir` cannot be made.
    #[error("cannot make SlurmdSpoolDir {}: {source}", path.display())]
    SpoolDir {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("slurmd does not start: {}", .0.words())]
    Start(CommandError),
    /// It went to the background and was gone.
    #[error("slurmd ended at once{}", last_error.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Gone {
        /// Last error in its log.
        last_error: Option<String>,
    },
}

/// A running slurmd.
#[derive(Debug)]
pub struct Slurmd {
    pid: Pid,
    node: NodeName,
    log: Option<PathBuf>,
}

impl Slurmd {
    /// Starts slurmd for the node, with `-b` so that its boot time is now: slurmctld ignores a slurmd that
    /// booted before the resume request.
    pub async fn start(
        slurm: &Slurm,
        settings: Option<&Settings>,
        node: &NodeName,
        options: &[String],
    ) -> Result<Self, SlurmdError> {
        let path = |key, default: Option<&str>| {
            let set = settings.and_then(|settings| settings.path(key, node, &host_name()));
            set.or_else(|| default.map(PathBuf::from))
        };
        let spool = path("SlurmdSpoolDir", Some(DEFAULT_SPOOL_DIR)).expect("has a default");
        std::fs::create_dir_all(&spool).map_err(|source| SlurmdError::SpoolDir {
            path: spool,
            source,
        })?;
        let mut command = slurm.command("slurmd");
        command.args(["-b", "-N", node.as_str()]).args(options);
        command::run(command, b"", START_TIMEOUT)
            .await
            .map_err(SlurmdError::Start)?;

        let pid_file = path("SlurmdPidFile", Some(DEFAULT_PID_FILE)).expect("has a default");
        let log = path("SlurmdLogFile", None);
        let give_up = tokio::time::Instant::now() + PID_FILE_TIMEOUT;
        loop {
            if let Some(pid) = read_pid(&pid_file).filter(|&pid| is_slurmd_of(pid, node)) {
                return Ok(Self {
                    pid,
                    node: node.clone(),
                    log,
                });
            }
            if tokio::time::Instant::now() > give_up {
                let last_error = log.as_deref().and_then(last_error_in);
                return Err(SlurmdError::Gone { last_error });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Nothing if it runs, else that it ended and why.
    pub fn check(&self) -> Result<(), SlurmdError> {
        if is_slurmd_of(self.pid, &self.node) {
            return Ok(());
        }
        let last_error = self.log.as_deref().and_then(last_error_in);
        Err(SlurmdError::Gone { last_error })
    }

    /// Ends it for certain.
    pub async fn kill(self) {
        let give_up = tokio::time::Instant::now() + KILL_TIMEOUT;
        while is_slurmd_of(self.pid, &self.node) && tokio::time::Instant::now() < give_up {
            // The only error is that it is gone already.
            let _ = kill(self.pid, Signal::SIGKILL);
            tokio::time::sleep(POLL).await;
        }
    }
}

/// This machine's host name up to the first dot, which is what Slurm puts for `%h`.
fn host_name() -> String {
    let name = gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn read_pid(path: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// Whether the process is a slurmd started for the node: a pid file may be left from before, and its pid
/// may be another's by now. The command line of a process that has ended is empty.
fn is_slurmd_of(pid: Pid, node: &NodeName) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    let mut words = line.split(|&byte| byte == 0);
    words
        .next()
        .is_some_and(|program| program.ends_with(b"slurmd"))
        && words.any(|word| word == node.as_str().as_bytes())
}

/// The last line of a log that speaks of an error, without its time stamp.
fn last_error_in(log: &Path) -> Option<String> {
    let bytes = std::fs::read(log).ok()?;
    let tail = &bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..];
    String::from_utf8_lossy(tail)
        .lines()
        .rev()
        .find_map(|line| {
            ["fatal: ", "error: "]
                .iter()
                .find_map(|label| line.split_once(label))
                .map(|(_, text)| text.trim().to_owned())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_found() {
        let directory = std::env::temp_dir().join(format!("spillway-log-{}", std::process::id()));
        let text = "[2026-11-23T12:00:00.001] error: first\n\
                    [2026-11-23T12:00:00.002] fatal: Unable to bind listen port (6818)\n\
                    [2026-11-23T12:00:00.003] debug: end\n";
        std::fs::write(&directory, text).unwrap();
        let found = last_error_in(&directory);
        std::fs::remove_file(&directory).unwrap();
        assert_eq!(found.as_deref(), Some("Unable to bind listen port (6818)"));
    }

    #[test]
    fn another_process_is_not_taken_for_the_nodes_slurmd() {
        let node = NodeName::new("aws-0").unwrap();
        assert!(!is_slurmd_of(Pid::this(), &node));
    }
}
