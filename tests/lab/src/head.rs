//! The site's head node: a real munged and slurmctld with configuration, ports and directories of their own.

mod agent;
mod commands;
mod files;
mod root;
mod slurm_conf;

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::hypervisor::Image;
use crate::network::Network;
use crate::process::Process;
pub use agent::Agent;
pub use commands::NodeView;
use files::{
    check_reachable, install_client, make_directories, make_munge_key, slurm_user, write_munge_key,
};
pub use root::HeadRoot;
use root::OtherHost;
pub use slurm_conf::CloudPartition;
use slurm_conf::{Host, SlurmConf};

/// The user that slurmctld, munged and the agent run as; Debian's package makes it.
pub const SLURM_USER: &str = "slurm";
/// slurmctld answers within a second; a shared two-core machine may take many times that.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// On SIGTERM slurmctld waits up to ten seconds for a running `ResumeProgram` (Slurm 22.05), then saves its state.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// From 23.11 on slurmctld and slurmd insist on cgroups unless told, and a lab has none.
const CGROUP_CONF: &str = "CgroupPlugin=disabled\n";
/// Search path of the daemons and of Slurm's commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there is no head node, or why a command on it failed.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Debian's slurm package is missing.
    #[error("no user `{SLURM_USER}` here: install slurm-wlm and munge")]
    NoSlurmUser,
    /// `slurmctld` could not reach its own programs.
    #[error(
        "the slurm user cannot enter {0}: put the head node elsewhere or allow it with `chmod o+x`"
    )]
    Closed(PathBuf),
    /// The operating system said no.
    #[error("{step}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A daemon ended or did not answer.
    #[error("{daemon} does not answer; its log ends:\n{log}")]
    NotStarted {
        /// Which.
        daemon: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// Slurm refused the power-saving settings, and would never call `ResumeProgram`.
    #[error("slurmctld runs without power saving; its log says:\n{0}")]
    NoPowerSaving(String),
    /// A second head node that slurm.conf does not name.
    #[error("slurm.conf names one head node: make it with `has_backup`")]
    NoBackup,
    /// A Slurm command failed.
    #[error("`{command}` ended with {status}: {message}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed.
        message: String,
    },
}

fn at(step: &'static str) -> impl Fn(io::Error) -> HeadError {
    move |source| HeadError::Io { step, source }
}

/// What a head node is made of.
#[derive(Debug, Clone)]
pub struct HeadSpec {
    /// A directory for it alone, which the slurm user can reach ([`Network::directory`] is such a place).
    pub directory: PathBuf,
    /// The root file system whose Slurm and munge it runs ([`crate::install::ensure_slurm`]); none for this machine's.
    /// Then `directory` must lie in the [`Network::directory`].
    pub debian: Option<PathBuf>,
    /// The client to install as `spillway` and under the three names that Slurm calls.
    pub client: PathBuf,
    /// Slurm's `ClusterName`.
    pub cluster_name: String,
    /// Partitions of CLOUD nodes.
    pub partitions: Vec<CloudPartition>,
    /// Slurm's `ResumeTimeout`.
    pub resume_timeout_seconds: u32,
    /// Slurm's `SuspendTimeout`: longer than an instance needs to die (facts of Slurm's power states: a node may be
    /// resumed as soon as this is over).
    pub suspend_timeout_seconds: u32,
    /// Whether there is a second head node ([`HeadNode::start_backup`]), with the spool on `StateSaveLocation`.
    pub has_backup: bool,
    /// More lines of slurm.conf, such as `SlurmctldParameters=idle_on_node_suspend`.
    pub extra_lines: Vec<String>,
}

/// A running head node. Dropping it kills slurmctld and munged, and leaves the directory.
#[derive(Debug)]
pub struct HeadNode {
    host_name: String,
    directory: PathBuf,
    root: HeadRoot,
    slurm_conf: SlurmConf,
    munge_key: Vec<u8>,
    // Dropped in this order: munged last.
    slurmctld: Option<Process>,
    _munged: Process,
}

impl HeadNode {
    /// Makes key and configuration, installs the client, starts munged and slurmctld, and waits until slurmctld
    /// answers with power saving on.
    pub async fn start(spec: HeadSpec, network: &Network) -> Result<Self, HeadError> {
        let host = Host {
            name: host_name().map_err(at("read this machine's host name"))?,
            address: network.bridge_address(),
        };
        let backup = spec.has_backup.then(|| Host {
            name: format!("{}-backup", host.name),
            address: network.backup_address(),
        });
        let slurm_conf = SlurmConf {
            host,
            backup,
            port: free_port().map_err(at("find a free port"))?,
            state: spec.directory.join("state"),
            spec,
        };
        let directory = &slurm_conf.spec.directory;
        let root = HeadRoot::start(
            slurm_conf.spec.debian.as_deref(),
            &directory.with_extension("root"),
            &network.directory(),
        )
        .map_err(at("make the head node's root file system"))?;
        let munge_key = make_munge_key().map_err(at("make the munge key"))?;
        Self::set_up(slurm_conf.host.name.clone(), slurm_conf, root, munge_key).await
    }

    /// Starts the second head node: a host of its own with the same `StateSaveLocation` and munge key, and slurmctld as
    /// the backup controller. Waits until that is ready to take over.
    pub async fn start_backup(&self, network: &Network) -> Result<Self, HeadError> {
        let mut slurm_conf = self.slurm_conf.clone();
        let host = slurm_conf.backup.clone().ok_or(HeadError::NoBackup)?;
        slurm_conf.spec.directory = self.directory.with_extension("backup");
        let attachment = network
            .attach("backup", host.address)
            .map_err(io::Error::other)
            .map_err(at("give the second head node an address"))?;
        let root = HeadRoot::start_on(OtherHost {
            name: host.name.clone(),
            namespace_file: attachment.namespace_file(),
        })
        .map_err(at("make the second head node's host"))?;
        Self::set_up(host.name, slurm_conf, root, self.munge_key.clone()).await
    }

    async fn set_up(
        host_name: String,
        slurm_conf: SlurmConf,
        root: HeadRoot,
        munge_key: Vec<u8>,
    ) -> Result<Self, HeadError> {
        let user = slurm_user()?;
        let spec = &slurm_conf.spec;
        let directory = spec.directory.clone();
        make_directories(&directory, &user).map_err(at("make the head node's directories"))?;
        check_reachable(&directory, &user)?;
        install_client(&spec.client, &directory).map_err(at("install the client"))?;
        write_munge_key(&directory, &user, &munge_key).map_err(at("write the munge key"))?;
        fs::write(directory.join("etc/slurm.conf"), slurm_conf.head_text())
            .map_err(at("write slurm.conf"))?;
        if spec.debian.is_some() {
            fs::write(directory.join("etc/cgroup.conf"), CGROUP_CONF)
                .map_err(at("write cgroup.conf"))?;
        }
        let munged = start_munged(&root, &directory).await?;
        let mut head = Self {
            host_name,
            directory,
            root,
            slurm_conf,
            munge_key,
            slurmctld: None,
            _munged: munged,
        };
        head.start_slurmctld().await?;
        Ok(head)
    }

    /// The directory it lives in.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The value for `SLURM_CONF`; the client's configuration belongs beside it.
    #[must_use]
    pub fn slurm_conf(&self) -> PathBuf {
        self.directory.join("etc/slurm.conf")
    }

    /// The installed client.
    #[must_use]
    pub fn client(&self) -> PathBuf {
        self.directory.join("bin/spillway")
    }

    /// Slurm's `StateSaveLocation`.
    #[must_use]
    pub fn state_save_location(&self) -> PathBuf {
        self.slurm_conf.state.clone()
    }

    /// The client's spool; beneath `StateSaveLocation` where there are two head nodes.
    #[must_use]
    pub fn spool_directory(&self) -> PathBuf {
        match self.slurm_conf.backup {
            None => self.directory.join("spool"),
            Some(_) => self.state_save_location().join("spillway"),
        }
    }

    /// slurmctld's debug log.
    #[must_use]
    pub fn slurmctld_log(&self) -> PathBuf {
        self.directory.join("log/slurmctld.log")
    }

    /// The file of the cluster's munge key.
    #[must_use]
    pub fn munge_key_file(&self) -> PathBuf {
        self.directory.join("munge/munge.key")
    }

    /// The cluster's munge key.
    #[must_use]
    pub fn munge_key(&self) -> &[u8] {
        &self.munge_key
    }

    /// What an instance's image needs to be a node of this cluster, but for the munge key: slurm.conf.
    #[must_use]
    pub fn node_image(&self) -> Image {
        let image = Image::default().with_bytes(
            "/etc/slurm/slurm.conf",
            self.slurm_conf.node_text(),
            0o644,
        );
        match &self.slurm_conf.spec.debian {
            None => image,
            Some(debian) => image
                .with_bytes("/etc/slurm/cgroup.conf", CGROUP_CONF, 0o644)
                .with_root(debian),
        }
    }

    /// Where its programs run.
    #[must_use]
    pub fn root(&self) -> &HeadRoot {
        &self.root
    }

    /// True while slurmctld's process lives.
    #[must_use]
    pub fn slurmctld_runs(&self) -> bool {
        self.slurmctld
            .as_ref()
            .is_some_and(|process| !process.has_ended())
    }

    /// Starts slurmctld (again) and waits until it answers.
    pub async fn start_slurmctld(&mut self) -> Result<(), HeadError> {
        let log_file = self.slurmctld_log();
        let log_start = fs::metadata(&log_file).map_or(0, |log| log.len());
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log/slurmctld.out"))
            .map_err(at("open slurmctld's output"))?;
        let place = self.state_save_location();
        let mut command = self.root.bound_command_as(SLURM_USER, "slurmctld", &place);
        command
            .arg("-D")
            .env("PATH", PATH)
            // Its log's times are then as everybody else's.
            .env("TZ", "UTC")
            .env("SLURM_CONF", self.slurm_conf())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(at("open slurmctld's output"))?)
            .stderr(output);
        let process = Process::spawn(command).map_err(at("start slurmctld"))?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.answers().await {
            if process.has_ended() || Instant::now() > deadline {
                let log = tail(&log_file) + &tail(&self.directory.join("log/slurmctld.out"));
                return Err(HeadError::NotStarted {
                    daemon: "slurmctld",
                    log,
                });
            }
            tokio::time::sleep(POLL).await;
        }
        self.slurmctld = Some(process);
        check_power_saving(&log_file, log_start)
    }

    /// Stops slurmctld as systemd would (SIGTERM, state saved); kills it if that takes too long.
    pub async fn stop_slurmctld(&mut self) {
        if let Some(process) = self.slurmctld.take() {
            stop(process).await;
        }
    }

    /// Kills slurmctld (`kill -9`): state that was not saved is lost, as after a crash.
    pub fn kill_slurmctld(&mut self) {
        self.slurmctld = None;
    }

    /// [`Self::stop_slurmctld`], then [`Self::start_slurmctld`].
    pub async fn restart_slurmctld(&mut self) -> Result<(), HeadError> {
        self.stop_slurmctld().await;
        self.start_slurmctld().await
    }

    async fn answers(&self) -> bool {
        let ping = self.command("scontrol").arg("ping").output().await;
        let own = format!("at {} is UP", self.host_name);
        ping.is_ok_and(|ping| String::from_utf8_lossy(&ping.stdout).contains(&own))
    }
}

/// SIGTERM, then SIGKILL after [`STOP_TIMEOUT`].
async fn stop(process: Process) {
    process.signal(Signal::SIGTERM);
    // After a time-out, dropping the process kills it.
    let _ = tokio::time::timeout(STOP_TIMEOUT, process.ended()).await;
}

fn host_name() -> io::Result<String> {
    let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    // slurmctld compares the short name.
    Ok(name.split('.').next().unwrap_or_default().to_owned())
}

/// slurmctld listens on every address, so the port must be free on all.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("0.0.0.0", 0))?.local_addr()?.port())
}

async fn start_munged(root: &HeadRoot, directory: &Path) -> Result<Process, HeadError> {
    let own = directory.join("munge");
    let socket = own.join("munge.socket");
    // A socket of a killed head node would look like an answer.
    let _ = fs::remove_file(&socket);
    let mut command = root.bound_command_as(SLURM_USER, "munged", Path::new("/"));
    command
        .args(["--foreground", "--num-threads", "2"])
        .env("PATH", PATH);
    for (option, file) in [
        ("--key-file", "munge.key"),
        ("--socket", "munge.socket"),
        ("--pid-file", "munged.pid"),
        ("--log-file", "munged.log"),
        ("--seed-file", "munged.seed"),
    ] {
        command.arg(option).arg(own.join(file));
    }
    let output =
        File::create(directory.join("log/munged.out")).map_err(at("open munged's output"))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    let process = Process::spawn(command).map_err(at("start munged"))?;
    let deadline = Instant::now() + START_TIMEOUT;
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        if process.has_ended() || Instant::now() > deadline {
            let log = tail(&directory.join("log/munged.out"));
            return Err(HeadError::NotStarted {
                daemon: "munged",
                log,
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(process)
}

fn check_power_saving(log_file: &Path, log_start: u64) -> Result<(), HeadError> {
    let log = fs::read(log_file).map_err(at("read slurmctld's log"))?;
    let start = usize::try_from(log_start)
        .unwrap_or(usize::MAX)
        .min(log.len());
    let log = String::from_utf8_lossy(&log[start..]).into_owned();
    // "power_save module disabled" to 25.11, "automatic power save mode disabled" from 26.05.
    let complaints: Vec<&str> = log
        .lines()
        .filter(|line| {
            line.contains("power_save module disabled") || line.contains("power save mode disabled")
        })
        .collect();
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(HeadError::NoPowerSaving(complaints.join("\n")))
    }
}

/// The last lines of a log, for an error message.
fn tail(file: &Path) -> String {
    const LINES: usize = 20;
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| format!("({}: {error})", file.display()));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
