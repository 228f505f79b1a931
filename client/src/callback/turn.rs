//! Whose turn it is to tell slurmctld: one envelope at a time, whichever process has it, or both would call
//! scontrol for the same change.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::files;

/// How often it is looked whether the turn is free: an envelope takes some tens of milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Held while an envelope is judged and applied; given back when it is dropped, or the process ends.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Why the turn was not to be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TurnError {
    /// Another process applies an envelope, and slurmctld is slow.
    #[error("another process applies updates for {waited_seconds} s already: see how slurmctld is")]
    Taken {
        /// How long we waited.
        waited_seconds: u64,
    },
    /// The lock's file.
    #[error("{0}")]
    File(String),
}

impl Turn {
    /// Waits for the turn, at most for `patience`.
    pub async fn take(spool_directory: &Path, patience: Duration) -> Result<Self, TurnError> {
        let path = spool_directory.join("updates.lock");
        let file =
            files::open_or_make(&path).map_err(|error| TurnError::File(error.to_string()))?;
        let deadline = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _lock: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    tokio::time::sleep(LOOK_INTERVAL).await;
                }
                Err(TryLockError::WouldBlock) => {
                    let waited_seconds = patience.as_secs();
                    return Err(TurnError::Taken { waited_seconds });
                }
                Err(TryLockError::Error(error)) => {
                    let error = files::FileError::on("lock", &path)(error);
                    return Err(TurnError::File(error.to_string()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nobody_waits_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let first = Turn::take(directory.path(), Duration::ZERO).await.unwrap();
        let second = Turn::take(directory.path(), Duration::from_millis(50)).await;
        assert!(matches!(second, Err(TurnError::Taken { .. })), "{second:?}");
        let path = directory.path().to_owned();
        let waiting = tokio::spawn(async move { Turn::take(&path, Duration::from_secs(20)).await });
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap().unwrap();
    }
}
