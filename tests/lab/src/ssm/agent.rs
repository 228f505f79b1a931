//! A stand-in for the SSM agent on the head node: it takes commands, checks them again, gives each parameter to the
//! script as an environment variable, and runs the document's script as root, in the head node's own `/etc` and `/usr/bin`.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Delivery, Ssm};
use crate::head::{HeadNode, HeadRoot};
use crate::process::{Process, bound_command};

/// How many commands the agent runs at a time (its `CommandWorkersLimit`).
const COMMANDS_AT_ONCE: usize = 5;
/// What SSM keeps of standard output and of standard error (API reference, `GetCommandInvocation`).
const KEPT_OUTPUT_BYTES: usize = 24_000;
const KEPT_ERROR_BYTES: usize = 8_000;
/// The agent's search path, as its systemd unit has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running agent. Dropping it stops it; commands to its node are then undeliverable.
#[derive(Debug)]
pub struct NodeAgent {
    _task: JoinSet<()>,
}

#[derive(Debug)]
struct Node {
    ssm: Ssm,
    id: String,
    /// The head node's directory: `etc` and `bin/spillway` are in it.
    head: PathBuf,
    /// Where the head node's programs run.
    root: HeadRoot,
    /// What the agent keeps: scripts' output, and the places to mount on.
    own: PathBuf,
}

impl NodeAgent {
    /// Registers `head` as managed node `node_id`, and works for it.
    pub fn start(ssm: &Ssm, node_id: &str, head: &HeadNode) -> io::Result<Self> {
        let own = head.directory().join("ssm");
        for directory in ["etc/spillway", "etc/slurm", "bin", "commands"] {
            fs::create_dir_all(own.join(directory))?;
        }
        File::create(own.join("bin/spillway"))?;
        let node = Arc::new(Node {
            ssm: ssm.clone(),
            id: node_id.to_owned(),
            head: head.directory().to_owned(),
            root: head.root().clone(),
            own,
        });
        let mut deliveries = ssm.register(node_id);
        let places = Arc::new(Semaphore::new(COMMANDS_AT_ONCE));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut running = JoinSet::new();
            while let Some(delivery) = deliveries.recv().await {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                    return;
                };
                let node = Arc::clone(&node);
                running.spawn(async move {
                    node.take(&delivery).await;
                    drop(place);
                });
                while running.try_join_next().is_some() {}
            }
        });
        Ok(Self { _task: task })
    }
}

impl Node {
    /// Sees one command through, and reports what became of it.
    async fn take(&self, delivery: &Delivery) {
        if !self.ssm.begin(&delivery.command_id, &self.id) {
            return;
        }
        let ran = match check(delivery) {
            Ok(()) => self.run(delivery).await.map_err(|error| error.to_string()),
            Err(problem) => Err(problem),
        };
        self.ssm
            .set(&delivery.command_id, &self.id, |invocation| match ran {
                Ok(Some(status)) => {
                    invocation.exit_code = status.code().unwrap_or(-1);
                    invocation.status = if status.success() {
                        "Success"
                    } else {
                        "Failed"
                    };
                    invocation.output = self.written(delivery, "stdout", KEPT_OUTPUT_BYTES);
                    invocation.error = self.written(delivery, "stderr", KEPT_ERROR_BYTES);
                }
                Ok(None) => invocation.status = "ExecutionTimedOut",
                Err(problem) => {
                    invocation.status = "Failed";
                    invocation.error = problem;
                }
            });
    }

    /// Runs the script; none if it had to be killed.
    async fn run(&self, delivery: &Delivery) -> io::Result<Option<ExitStatus>> {
        let mut command = bound_command("/bin/sh");
        command
            .arg("-c")
            .arg(delivery.document.commands.join("\n"))
            .env("PATH", PATH)
            .env("AWS_SSM_INSTANCE_ID", &self.id)
            .current_dir("/")
            // A group of its own, so that nothing the script started outlives it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(File::create(self.file(delivery, "stdout"))?)
            .stderr(File::create(self.file(delivery, "stderr"))?);
        for (name, value) in &delivery.parameters {
            command.env(format!("SSM_{name}"), value);
        }
        let (root, head, own) = (self.root.clone(), self.head.clone(), self.own.clone());
        let prepare = move || {
            root.enter()?;
            show(&head, &own)?;
            Ok(command)
        };
        let process = Process::spawn_on_thread(prepare, |_| ())?;
        let limit = Duration::from_secs(delivery.document.timeout_seconds);
        let ended = tokio::time::timeout(limit, process.ended()).await.ok();
        if ended.is_none() {
            // It may end at this very moment.
            let _ = killpg(Pid::from_raw(process.pid()), Signal::SIGKILL);
        }
        Ok(ended)
    }

    fn file(&self, delivery: &Delivery, stream: &str) -> PathBuf {
        let name = format!("{}.{stream}", delivery.command_id);
        self.own.join("commands").join(name)
    }

    fn written(&self, delivery: &Delivery, stream: &str, most: usize) -> String {
        let bytes = fs::read(self.file(delivery, stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
    }
}

/// The agent's own look at what SSM has checked before.
fn check(delivery: &Delivery) -> Result<(), String> {
    let document = &delivery.document;
    if delivery
        .document_hash
        .as_ref()
        .is_some_and(|hash| !document.has_hash(hash))
    {
        return Err("the document is not the one that was named".to_owned());
    }
    let mut parameters = delivery.parameters.iter();
    parameters.try_for_each(|(name, value)| document.check(name, value))
}

/// Gives the calling thread, and what it starts, the head node's view: its configuration and its client are where a
/// site has them. Nothing of this is seen by the rest of the machine.
fn show(head: &Path, own: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for (place, over) in [("bin", "/usr/bin"), ("etc", "/etc")] {
        let lower = format!("lowerdir={}:{over}", own.join(place).display());
        let kind = Some("overlay");
        mount(kind, over, kind, MsFlags::empty(), Some(lower.as_str()))?;
    }
    for (from, to) in [
        ("etc", "/etc/spillway"),
        ("etc", "/etc/slurm"),
        ("bin/spillway", "/usr/bin/spillway"),
    ] {
        mount(Some(&head.join(from)), to, none, MsFlags::MS_BIND, none)?;
    }
    Ok(())
}
