//! Where the head node's programs run: in this machine's own root file system, or in that of another Debian, whose
//! Slurm and munge they then are; as this machine's own host, or as another with a name and an address of its own. What
//! is not this machine's is in namespaces that go with the programs.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};

use crate::process::{Process, bound_command, bound_command_as_through};
use crate::root_fs;

/// The root file system of a head node.
#[derive(Debug, Clone)]
pub struct HeadRoot {
    /// Does nothing but keep the namespaces; none where root and host are this machine's own.
    keeper: Option<Arc<Process>>,
    /// The kinds of namespaces, as options of `nsenter`.
    kinds: &'static [&'static str],
}

/// A host of its own beside this machine.
#[derive(Debug, Clone)]
pub(super) struct OtherHost {
    /// Its name.
    pub(super) name: String,
    /// The file of its network's namespace.
    pub(super) namespace_file: PathBuf,
}

impl HeadRoot {
    /// A root file system like `debian` in which `shared` lies where it lies here; this machine's own for none.
    /// What is written to it elsewhere goes to `directory`.
    pub(super) fn start(
        debian: Option<&Path>,
        directory: &Path,
        shared: &Path,
    ) -> io::Result<Self> {
        let Some(debian) = debian else {
            return Ok(Self {
                keeper: None,
                kinds: &[],
            });
        };
        root_fs::make_directories(directory)?;
        let (debian, directory, shared) =
            (debian.to_owned(), directory.to_owned(), shared.to_owned());
        let prepare = move || {
            // Names that only this machine's hosts file knows, its own among them.
            let hosts = fs::read("/etc/hosts")?;
            let root = root_fs::mount_overlay(&debian, &directory)?;
            for part in ["/dev", "/proc", "/sys"] {
                root_fs::bind(Path::new(part), &root)?;
            }
            root_fs::bind(&shared, &root)?;
            fs::write(root.join("etc/hosts"), hosts)?;
            root_fs::enter(&root)?;
            Ok(keeper())
        };
        let keeper = Process::spawn_on_thread(prepare, |_| ())?;
        Ok(Self {
            keeper: Some(Arc::new(keeper)),
            kinds: &["--mount", "--root"],
        })
    }

    /// This machine's own root, on another host.
    pub(super) fn start_on(host: OtherHost) -> io::Result<Self> {
        let prepare = move || {
            setns(File::open(&host.namespace_file)?, CloneFlags::CLONE_NEWNET)?;
            unshare(CloneFlags::CLONE_NEWUTS)?;
            nix::unistd::sethostname(&host.name)?;
            Ok(keeper())
        };
        let keeper = Process::spawn_on_thread(prepare, |_| ())?;
        Ok(Self {
            keeper: Some(Arc::new(keeper)),
            kinds: &["--net", "--uts"],
        })
    }

    /// A bound command for `program` of this root, as `user`, in `directory`.
    pub(super) fn bound_command_as(
        &self,
        user: &str,
        program: impl AsRef<OsStr>,
        directory: &Path,
    ) -> Command {
        let mut command = bound_command_as_through(&self.way_in(directory), user, program);
        command.current_dir(directory);
        command
    }

    /// A command for `program` of this root, in `/`.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> tokio::process::Command {
        let mut words = self.way_in(Path::new("/"));
        words.push(program.as_ref().to_owned());
        let mut command = tokio::process::Command::new(&words[0]);
        command.args(&words[1..]).current_dir("/");
        command
    }

    /// Takes the calling thread, and what it starts, into this root.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let Some(keeper) = &self.keeper else {
            return Ok(());
        };
        let its = |what: &str| format!("/proc/{}/{what}", keeper.pid());
        let root = File::open(its("root"))?;
        // A namespace of mounts cannot be entered while root and working directory are shared with other threads.
        unshare(CloneFlags::CLONE_FS)?;
        setns(File::open(its("ns/mnt"))?, CloneFlags::CLONE_NEWNS)?;
        nix::unistd::fchdir(&root)?;
        root_fs::enter(Path::new("."))
    }

    /// The words before a program of this root that is to run in `directory`.
    fn way_in(&self, directory: &Path) -> Vec<OsString> {
        let Some(keeper) = &self.keeper else {
            return Vec::new();
        };
        let mut inside = OsString::from("--wdns=");
        inside.push(directory);
        let target = format!("--target={}", keeper.pid());
        ["/usr/bin/nsenter", &target]
            .iter()
            .chain(self.kinds)
            .map(OsString::from)
            .chain([inside, "--".into()])
            .collect()
    }
}

/// Holds what it was started in, for as long as it runs.
fn keeper() -> Command {
    let mut keeper = bound_command("/usr/bin/sleep");
    keeper.arg("infinity");
    keeper
}
