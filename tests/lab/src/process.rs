//! A child process that cannot outlive the lab: the kernel kills it when the lab dies, however the lab dies.
//!
//! The death signal of Linux (`PR_SET_PDEATHSIG`) belongs to the *thread* that started the child, so each child
//! has a thread of its own that starts it, waits for it, and ends with it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

/// A running child. Dropping it kills the child (`SIGKILL`) and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// False from the moment before the child is reaped: its process id may then belong to a stranger.
    signalable: Arc<Mutex<bool>>,
    ended: watch::Receiver<Option<ExitStatus>>,
    thread: Option<JoinHandle<()>>,
}

/// A command for [`Process::spawn`]: `program`, with an empty environment, killed when its starting thread dies.
#[must_use]
pub fn bound_command(program: impl AsRef<OsStr>) -> Command {
    bound(&[], &[], program.as_ref())
}

/// The same, running as `user` and in no group but the user's own.
#[must_use]
pub fn bound_command_as(user: &str, program: impl AsRef<OsStr>) -> Command {
    bound_command_as_through(&[], user, program)
}

/// The same, started through a command that takes on another's surroundings, as `nsenter` does.
pub(crate) fn bound_command_as_through(
    through: &[OsString],
    user: &str,
    program: impl AsRef<OsStr>,
) -> Command {
    let as_user = ["--reuid", user, "--regid", user, "--clear-groups"];
    bound(through, &as_user, program.as_ref())
}

fn bound(through: &[OsString], arguments: &[&str], program: &OsStr) -> Command {
    let words = through.iter().map(OsString::as_os_str);
    let mut words = words.chain([OsStr::new("/usr/bin/setpriv")]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .args(arguments)
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .env_clear();
    command
}

impl Process {
    /// Starts `command` (see [`bound_command`]) on a thread of its own.
    pub fn spawn(command: Command) -> io::Result<Self> {
        Self::spawn_on_thread(move || Ok(command), |_| ())
    }

    /// Runs `prepare` on the child's thread, which may change that thread's namespaces and root for the child to
    /// inherit, starts the command it returns, and calls `on_end` when the child has ended.
    pub fn spawn_on_thread(
        prepare: impl FnOnce() -> io::Result<Command> + Send + 'static,
        on_end: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> io::Result<Self> {
        let signalable = Arc::new(Mutex::new(true));
        let (ended_sender, ended) = watch::channel(None);
        let (started_sender, started) = mpsc::channel();
        let still_signalable = Arc::clone(&signalable);
        let thread = std::thread::Builder::new()
            .name("child".to_owned())
            .spawn(move || {
                let child = prepare().and_then(|mut command| command.spawn());
                let mut child = match child {
                    Ok(child) => child,
                    Err(error) => {
                        // The receiver is waiting in this very call.
                        let _ = started_sender.send(Err(error));
                        return;
                    }
                };
                let pid = Pid::from_raw(child.id().cast_signed());
                let _ = started_sender.send(Ok(pid));
                let without_reaping = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
                while waitid(Id::Pid(pid), without_reaping) == Err(nix::Error::EINTR) {}
                *lock(&still_signalable) = false;
                if let Ok(status) = child.wait() {
                    ended_sender.send_replace(Some(status));
                    on_end(status);
                }
            })?;
        let pid = started
            .recv()
            .map_err(|_| io::Error::other("the thread that starts the child panicked"))??;
        Ok(Self {
            pid,
            signalable,
            ended,
            thread: Some(thread),
        })
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends `signal`; false when the child had ended already.
    #[expect(clippy::must_use_candidate, reason = "most callers do not mind")]
    pub fn signal(&self, signal: Signal) -> bool {
        let signalable = lock(&self.signalable);
        *signalable && signal::kill(self.pid, signal).is_ok()
    }

    /// True once the child has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits for the child's end.
    pub async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        loop {
            if let Some(status) = *ended.borrow_and_update() {
                return status;
            }
            if ended.changed().await.is_err() {
                // The thread is gone, and it sends the status before it goes.
                std::future::pending::<()>().await;
            }
        }
    }

    /// `SIGKILL`, and waits until the child is gone. Harmless when it has ended.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn lock(flag: &Mutex<bool>) -> std::sync::MutexGuard<'_, bool> {
    flag.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
