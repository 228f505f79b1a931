//! How a program says what is wrong: on stderr for a person, and, because slurmctld throws that away, in
//! the system's log and in `programs.log` in the spool directory.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use aws_smithy_types::date_time::{DateTime, Format};

use super::Program;
use crate::clock;
use crate::files;
use crate::spool;

/// The system's log; its socket is where syslog(3) expects it.
const SYSLOG: &str = "/dev/log";
/// `LOG_DAEMON | LOG_ERR`, as syslog(3) numbers them.
const PRIORITY: u8 = 3 << 3 | 3;
/// A program that complains every second for a day fills this; the file before it is kept.
const MAX_LOG_BYTES: u64 = 4 << 20;
/// How much of an argument is repeated: a hostlist may be many kilobytes long.
const MAX_SHOWN_CHARACTERS: usize = 200;

/// Says it everywhere it may be read. Where that fails there is nobody left to tell.
pub fn about(
    program: Program,
    arguments: &[String],
    message: &str,
    spool_directory: Option<&Path>,
) {
    let called = arguments.join(" ");
    let mut shown: String = called.chars().take(MAX_SHOWN_CHARACTERS).collect();
    if shown.len() < called.len() {
        shown.push('…');
    }
    let name = program.name();
    let line = format!("{name} {shown:?}: {message}").replace('\n', " ");
    eprintln!("{line}");
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.set_nonblocking(true);
        let tagged = format!("<{PRIORITY}>{name}[{}]: {line}", std::process::id());
        let _ = socket.send_to(tagged.as_bytes(), SYSLOG);
    }
    // Another user's file could not be written by the next who complains.
    if let Some(directory) = spool_directory
        && spool::check_user(directory).is_ok()
        && files::make_directory(directory).is_ok()
    {
        append(&directory.join("programs.log"), &line);
    }
}

fn append(path: &Path, line: &str) {
    if path.metadata().is_ok_and(|file| file.len() > MAX_LOG_BYTES) {
        let _ = std::fs::rename(path, path.with_extension("log.1"));
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path);
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{} {line}", utc(clock::now_ms()));
    }
}

/// `2026-11-23T12:53:17Z`.
fn utc(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or_default();
    let now = DateTime::from_secs(seconds);
    now.fmt(Format::DateTime)
        .unwrap_or_else(|_| format!("@{seconds}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_date() {
        assert_eq!(super::utc(1_795_438_397_999), "2026-11-23T12:53:17Z");
    }
}
