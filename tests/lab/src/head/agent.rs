//! The agent of the head node (`spillway agent`) as a process that a test may stop, kill and start again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use super::{HeadError, HeadNode, HeadRoot, PATH, SLURM_USER, at, stop};
use crate::process::Process;

/// The agent of one head node, running or not, as the slurm user. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    root: HeadRoot,
    client: PathBuf,
    slurm_conf: PathBuf,
    log_file: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// The agent of `head`, not yet started.
    #[must_use]
    pub fn of(head: &HeadNode) -> Self {
        Self {
            root: head.root().clone(),
            client: head.client(),
            slurm_conf: head.slurm_conf(),
            log_file: head.directory().join("log/agent.log"),
            process: None,
        }
    }

    /// Starts `spillway agent`, with nothing in its environment but PATH, `SLURM_CONF` and what is given (such as
    /// a crash point). One that runs is killed first.
    pub fn start(&mut self, environment: &BTreeMap<String, String>) -> Result<(), HeadError> {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log_file)
            .map_err(at("open the agent's log"))?;
        let mut command = self
            .root
            .bound_command_as(SLURM_USER, &self.client, Path::new("/"));
        command
            .arg("agent")
            .env("PATH", PATH)
            .env("SLURM_CONF", &self.slurm_conf)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(at("open the agent's log"))?)
            .stderr(log);
        self.process = Some(Process::spawn(command).map_err(at("start the agent"))?);
        Ok(())
    }

    /// The agent's log.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// The process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.process
            .as_ref()
            .filter(|process| !process.has_ended())
            .map(Process::pid)
    }

    /// Waits for the agent to end by itself, as at a crash point; None if it was never started.
    pub async fn ended(&self) -> Option<ExitStatus> {
        match &self.process {
            Some(process) => Some(process.ended().await),
            None => None,
        }
    }

    /// Stops it as systemd would: SIGTERM, and SIGKILL if that takes too long.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            stop(process).await;
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }
}
