//! How the programs wake the agent: they connect to its socket and it answers `ok`. Nothing else is said;
//! what is to be done lies in the spool, so a lost wake costs a delay and no more.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// How long a program waits for the agent before it sends by itself. A living agent answers from a
/// thread of its own, in well under a millisecond.
pub const WAKE_TIMEOUT: Duration = Duration::from_millis(50);

const ANSWER: &[u8] = b"ok\n";

/// Wakes the agent. An error means that none answered within [`WAKE_TIMEOUT`].
pub fn wake(path: &Path) -> io::Result<()> {
    let stream = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Without blocking: a full backlog, which means a stuck agent, is an error and not a wait.
    connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    let mut stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAKE_TIMEOUT))?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)
}

/// Listens on the socket, 0600, in place of whatever lay there: only one agent runs per spool.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers every program and calls `woken`, for as long as the process lives. Runs on a thread of its
/// own, so that a busy agent is not taken for a dead one.
pub fn serve(listener: &UnixListener, woken: impl Fn()) {
    for stream in listener.incoming() {
        match stream {
            Ok(mut stream) => {
                woken();
                // A program that has gone away no longer needs the answer.
                let _ = stream.write_all(ANSWER);
            }
            // Out of descriptors, most likely: a moment later there may be some.
            Err(_) => std::thread::sleep(WAKE_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn each_wake_is_answered_and_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let listener = listen(&path).unwrap();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        std::thread::spawn(move || {
            serve(&listener, || {
                count.fetch_add(1, Ordering::SeqCst);
            });
        });
        wake(&path).unwrap();
        wake(&path).unwrap();
        assert_eq!(woken.load(Ordering::SeqCst), 2);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_silent_agent_costs_the_timeout_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let _silent = listen(&path).unwrap();
        let start = Instant::now();
        assert!(wake(&path).is_err());
        assert!(start.elapsed() >= WAKE_TIMEOUT);
        assert!(start.elapsed() < WAKE_TIMEOUT * 4);
    }

    #[test]
    fn no_agent_is_known_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let start = Instant::now();
        assert!(wake(&directory.path().join("agent.sock")).is_err());
        assert!(start.elapsed() < WAKE_TIMEOUT);
    }
}
