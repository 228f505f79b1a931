//! Named points at which the real binary dies on request, so that a test can stop it between any two
//! durable steps. `SPILLWAY_CRASH_AT=after-send spillway agent` aborts the process, without unwinding
//! or cleaning up, the first time it has sent a request and not yet noted that. slurmctld does not
//! hand its environment to the programs, so a cluster in use cannot reach these by accident.

/// The environment variable that names the point.
const VARIABLE: &str = "SPILLWAY_CRASH_AT";

/// Where the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// After a request is durable in the spool; the agent does not know yet. In the programs and the agent.
    Fsync,
    /// After all parts of a request are on the queue; the spool still holds it.
    Send,
    /// After envelopes were received; nothing was done with them.
    Receive,
    /// After slurmctld was told; nobody else was, and nothing was written down.
    Scontrol,
    /// After an envelope was acknowledged; its message is still on the queue.
    Acknowledge,
}

impl CrashPoint {
    fn name(self) -> &'static str {
        match self {
            Self::Fsync => "after-fsync",
            Self::Send => "after-send",
            Self::Receive => "after-receive",
            Self::Scontrol => "after-scontrol",
            Self::Acknowledge => "after-acknowledge",
        }
    }
}

/// Aborts if the environment names this point.
pub fn point(point: CrashPoint) {
    if std::env::var_os(VARIABLE).is_some_and(|name| name == point.name()) {
        eprintln!("{VARIABLE}={}: aborting", point.name());
        std::process::abort();
    }
}
