//! One machine: namespaces, an overlay over this machine's root, process 1, and the way back to nothing.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use super::metadata::Metadata;
use super::{AssumeRole, HypervisorError, Image, ImageContent, Instance};
use crate::network::{Attachment, METADATA_ADDRESS, Network};
use crate::process::{Process, bound_command};
use crate::root_fs::{self, PARTS};

/// Search path of process 1, as cloud-init gives it to user data.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the image's large files appear inside a machine.
const INSIDE: &str = "/run/instance";
/// What [`POWER_OFF_PROGRAMS`] are in the image: process 1 ends, and everything with it.
const POWER_OFF: &str = "#!/bin/sh\nexec kill -TERM 1\n";
const POWER_OFF_PROGRAMS: [&str; 4] = ["shutdown", "poweroff", "halt", "reboot"];

/// What all machines of a hypervisor share.
pub(super) struct Environment<'a> {
    pub(super) network: &'a Network,
    pub(super) directory: &'a Path,
    pub(super) image: Image,
    pub(super) assume_role: Arc<dyn AssumeRole>,
}

/// A running machine. Dropping it kills its processes and takes its mounts, namespace and files away, all but the
/// console's output and its `/var/log`.
pub(super) struct Machine {
    process: Process,
    killed: Arc<AtomicBool>,
    metadata: Arc<Metadata>,
    metadata_server: JoinHandle<()>,
    // Held so that the bridge outlives the machine.
    _network: Network,
    attachment: Attachment,
    directory: PathBuf,
}

/// Everything the machine's thread needs to turn itself into the machine's first process.
struct Plan {
    instance: Instance,
    user_data: Option<Vec<u8>>,
    image: Image,
    staged: PathBuf,
    directory: PathBuf,
    namespace_file: PathBuf,
}

/// Copies the image's large files below `directory`: a rebuild of a program does not change running instances.
pub(super) fn stage_image(image: &mut Image, directory: &Path) -> io::Result<()> {
    let staged = staged_directory(directory);
    fs::create_dir_all(&staged)?;
    for file in &mut image.files {
        if let ImageContent::File(source) = &mut file.content
            && !source.starts_with(INSIDE)
        {
            let name = uuid::Uuid::new_v4().to_string();
            fs::copy(&*source, staged.join(&name))?;
            fs::set_permissions(staged.join(&name), fs::Permissions::from_mode(file.mode))?;
            *source = PathBuf::from(INSIDE).join(name);
        }
    }
    Ok(())
}

fn staged_directory(directory: &Path) -> PathBuf {
    directory.join("image")
}

impl Machine {
    /// Makes the machine and starts its process 1. Blocks for some tens of milliseconds; needs a tokio runtime's
    /// context for the metadata server. `on_power_off` is called if process 1 ends by itself.
    pub(super) fn boot(
        environment: &Environment<'_>,
        instance: Instance,
        user_data: Option<Vec<u8>>,
        on_power_off: impl FnOnce() + Send + 'static,
    ) -> Result<Self, HypervisorError> {
        let instance_id = instance.instance_id.clone();
        let at = |step| {
            let instance_id = instance_id.clone();
            move |source| HypervisorError::Boot {
                instance_id,
                step,
                source,
            }
        };
        let directory = environment.directory.join(&instance_id);
        root_fs::make_directories(&directory).map_err(at("make its directories"))?;
        let attachment = environment
            .network
            .attach(&instance_id, instance.private_ip)?;
        let metadata = Arc::new(Metadata::new(
            &instance,
            &attachment.mac,
            environment.network,
            user_data.clone(),
            Arc::clone(&environment.assume_role),
        ));
        let plan = Plan {
            instance,
            user_data,
            image: environment.image.clone(),
            staged: staged_directory(environment.directory),
            directory: directory.clone(),
            namespace_file: attachment.namespace_file(),
        };
        let killed = Arc::new(AtomicBool::new(false));
        let was_killed = Arc::clone(&killed);
        let (listener_sender, listener) = mpsc::channel();
        let process = Process::spawn_on_thread(
            move || plan.enter(&listener_sender),
            move |_| {
                if !was_killed.load(Ordering::SeqCst) {
                    on_power_off();
                }
            },
        );
        let served = process.and_then(|process| {
            let listener = listener.recv().map_err(io::Error::other)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok((process, tokio::spawn(Arc::clone(&metadata).serve(listener))))
        });
        match served {
            Ok((process, metadata_server)) => Ok(Self {
                process,
                killed,
                metadata,
                metadata_server,
                _network: environment.network.clone(),
                attachment,
                directory,
            }),
            Err(source) => {
                attachment.detach();
                remove_files(&directory);
                Err(at("start process 1")(source))
            }
        }
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Sends the kill that dropping waits for.
    pub(super) fn begin_kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.process.signal(Signal::SIGKILL);
    }

    pub(super) fn command(&self, program: &str, image: &Image) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("nsenter");
        command
            .args([
                "--target",
                &self.process.pid().to_string(),
                "--mount",
                "--uts",
                "--ipc",
                "--net",
                "--pid",
            ])
            .args(["--root", "--wd", "--", program]);
        // Process 1's own /proc entry is named as its parent sees it, so the environment is not taken from there.
        command
            .env_clear()
            .envs(base_environment(image))
            .kill_on_drop(true);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.begin_kill();
        // Process 1 of a process namespace takes all others with it, and is reaped after them.
        self.process.kill();
        self.metadata_server.abort();
        self.attachment.detach();
        remove_files(&self.directory);
    }
}

fn base_environment(image: &Image) -> impl Iterator<Item = (&str, &str)> {
    let given = image
        .environment
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    [("PATH", PATH), ("HOME", "/root"), ("LANG", "C.UTF-8")]
        .into_iter()
        .chain(given)
}

/// Removes the machine's files but keeps its console output and its `/var/log`, for whoever asks why it failed.
fn remove_files(directory: &Path) {
    let logs = directory.join("log");
    // An instance that died early has written no log.
    let _ = fs::remove_dir_all(&logs);
    let _ = fs::rename(directory.join("upper/var/log"), &logs);
    for part in PARTS {
        if let Err(error) = fs::remove_dir_all(directory.join(part)) {
            tracing::warn!(%error, directory = %directory.display(), part, "files of a dead machine stay");
        }
    }
}

impl Plan {
    /// Turns the calling thread into a thread of the machine and returns the command that becomes process 1.
    fn enter(self, listeners: &mpsc::Sender<TcpListener>) -> io::Result<Command> {
        let console = File::create(self.directory.join("console.log"))?;
        setns(File::open(&self.namespace_file)?, CloneFlags::CLONE_NEWNET)?;
        let listener = TcpListener::bind((METADATA_ADDRESS, 80))?;
        listener.set_nonblocking(true)?;
        // The receiver is waiting in `boot`.
        let _ = listeners.send(listener);
        unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID)?;
        nix::unistd::sethostname(self.instance.host_name())?;
        self.mount_root()?;
        root_fs::enter(&self.directory.join("root"))?;
        self.write_files()?;
        let mut command = bound_command("/bin/sh");
        command
            .args(["-c", include_str!("init.sh")])
            .envs(base_environment(&self.image))
            .current_dir("/")
            .stdin(std::process::Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console);
        Ok(command)
    }

    /// Mounts the machine's root file system.
    fn mount_root(&self) -> io::Result<()> {
        let image_root = self.image.root.as_deref().unwrap_or(Path::new("/"));
        let root = root_fs::mount_overlay(image_root, &self.directory)?;
        for shared in ["/dev", "/sys"] {
            root_fs::bind(Path::new(shared), &root)?;
        }
        for private in ["run", "tmp"] {
            root_fs::mount_tmpfs(&root.join(private))?;
        }
        fs::set_permissions(root.join("run"), fs::Permissions::from_mode(0o755))?;
        let inside = root.join("run/instance");
        fs::create_dir(&inside)?;
        let none: Option<&str> = None;
        mount(Some(&self.staged), &inside, none, MsFlags::MS_BIND, none)?;
        for shared in &self.image.shared_directories {
            root_fs::bind(shared, &root)?;
        }
        Ok(())
    }

    /// Writes what makes this machine this instance. The thread's root is the machine's by now.
    fn write_files(&self) -> io::Result<()> {
        let host_name = self.instance.host_name();
        let hosts = format!(
            "127.0.0.1 localhost\n{} {} {host_name}\n",
            self.instance.private_ip,
            self.instance.private_dns_name()
        );
        write_file(Path::new("/etc/hosts"), hosts.as_bytes(), 0o644)?;
        write_file(
            Path::new("/etc/hostname"),
            format!("{host_name}\n").as_bytes(),
            0o644,
        )?;
        // This machine's own munge key is no part of the image.
        remove_file(Path::new("/etc/munge/munge.key"))?;
        let systemctl = include_bytes!("systemctl.sh");
        write_file(Path::new("/usr/bin/systemctl"), systemctl, 0o755)?;
        let systemd_run = include_bytes!("systemd-run.sh");
        write_file(Path::new("/usr/bin/systemd-run"), systemd_run, 0o755)?;
        for program in POWER_OFF_PROGRAMS {
            write_file(
                &Path::new("/usr/sbin").join(program),
                POWER_OFF.as_bytes(),
                0o755,
            )?;
        }
        if let Some(user_data) = self
            .user_data
            .as_ref()
            .filter(|text| text.starts_with(b"#!"))
        {
            write_file(
                Path::new("/var/lib/cloud/instance/user-data.sh"),
                user_data,
                0o700,
            )?;
        }
        for file in &self.image.files {
            match &file.content {
                ImageContent::Bytes(bytes) => write_file(&file.path, bytes, file.mode)?,
                ImageContent::File(inside) => {
                    write_file(&file.path, b"", file.mode)?;
                    let none: Option<&str> = None;
                    mount(Some(inside), &file.path, none, MsFlags::MS_BIND, none)?;
                }
            }
        }
        Ok(())
    }
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Never write through a link: on Debian `poweroff` is one to systemctl.
    remove_file(path)?;
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
