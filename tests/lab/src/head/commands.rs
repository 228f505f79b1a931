//! Slurm's own commands, run against this head node's cluster.

use std::fs;
use std::io;
use std::process::{Output, Stdio};

use super::{HeadError, HeadNode, PATH, at};

impl HeadNode {
    /// A command with this cluster's `SLURM_CONF`, as root, in a directory that every node has.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
        let mut command = self.root.command(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("SLURM_CONF", self.slurm_conf())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs one of Slurm's commands and returns its standard output.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String, HeadError> {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .await
            .map_err(at("run a Slurm command"))?;
        succeeded(format!("{program} {}", arguments.join(" ")), &output)
    }

    /// Runs `scontrol` and returns its standard output.
    pub async fn scontrol(&self, arguments: &[&str]) -> Result<String, HeadError> {
        self.run("scontrol", arguments).await
    }

    /// Submits `script` with these options; returns the job's id.
    pub async fn sbatch(&self, options: &[&str], script: &str) -> Result<u32, HeadError> {
        let path = self
            .directory
            .join(format!("script-{}", uuid::Uuid::new_v4().simple()));
        fs::write(&path, script).map_err(at("write the batch script"))?;
        let mut arguments = vec!["--parsable"];
        arguments.extend(options);
        let path_text = path.to_string_lossy();
        arguments.push(&path_text);
        let submitted = self.run("sbatch", &arguments).await;
        // slurmctld keeps a copy of its own.
        fs::remove_file(&path).map_err(at("remove the batch script"))?;
        let submitted = submitted?;
        // "123" or, in a federation, "123;cluster".
        let id = submitted
            .trim()
            .split(';')
            .next()
            .and_then(|id| id.parse().ok());
        id.ok_or_else(|| at("read sbatch's answer")(io::Error::other(submitted)))
    }

    /// A node's state as `scontrol show node` prints it (`IDLE+CLOUD+POWERED_DOWN`), its address, and its reason.
    pub async fn node(&self, name: &str) -> Result<NodeView, HeadError> {
        let text = self.scontrol(&["-o", "show", "node", name]).await?;
        let field = |key: &str| {
            let (_, rest) = text.split_once(&format!(" {key}="))?;
            Some(
                rest.split_whitespace()
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            )
        };
        // The reason is the last field and may hold spaces; the time and author follow in brackets.
        let reason = text.split_once(" Reason=").map(|(_, reason)| {
            let text = reason.split(" [").next().unwrap_or(reason);
            text.trim().to_owned()
        });
        Ok(NodeView {
            flags: field("State")
                .unwrap_or_default()
                .split('+')
                .map(str::to_owned)
                .collect(),
            node_addr: field("NodeAddr").unwrap_or_default(),
            reason,
        })
    }
}

/// What Slurm says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Base state and flags, such as `IDLE`, `CLOUD`, `POWERING_UP`.
    pub flags: Vec<String>,
    /// `NodeAddr`: the node's own name while it has no address.
    pub node_addr: String,
    /// `Reason`, without its author and time.
    pub reason: Option<String>,
}

impl NodeView {
    /// True if the state has this base or flag.
    #[must_use]
    pub fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own == flag)
    }
}

fn succeeded(command: String, output: &Output) -> Result<String, HeadError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // scontrol says some errors on standard output.
    let said = [&output.stderr, &output.stdout]
        .map(|said| String::from_utf8_lossy(said).trim().to_owned());
    let message = said.join(" ").trim().to_owned();
    Err(HeadError::Command {
        command,
        status: output.status,
        message,
    })
}
