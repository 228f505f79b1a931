//! The three programs that slurmctld runs: `spillway-resume`, `spillway-suspend` and
//! `spillway-resume-fail`. Each reads what Slurm gave it, stamps, writes one file into the spool, wakes
//! the agent and exits, in milliseconds and whatever AWS does. Slurm gives them one argument and in the
//! environment no more than `SLURM_CONF` and `SLURM_RESUME_FILE`, throws their output away and only logs
//! their exit status.

mod complain;
mod direct;
mod request;
mod resume_file;
mod split;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use spillway_core::config::ClientConfig;
use spillway_core::hostlist::{Hostlist, HostlistError};
use spillway_core::message::SuspendCause;
use spillway_core::name::{NameError, RequestId};

use crate::config::{self, LoadError};
use crate::files;
use crate::spool::{Spool, SpoolError};
use crate::wake;

/// The longest that a program runs: slurmctld runs few of them side by side, and kills what outlasts
/// its time-outs. What was not sent by then the agent sends.
pub const BUDGET: Duration = Duration::from_secs(2);

/// Which program we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// ResumeProgram.
    Resume,
    /// SuspendProgram.
    Suspend,
    /// ResumeFailProgram.
    ResumeFail,
}

/// Why a program could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Called by hand, most likely.
    #[error("called with {count} arguments: Slurm calls it with one, a hostlist")]
    Arguments {
        /// How many there were.
        count: usize,
    },
    /// The argument is no hostlist.
    #[error("the hostlist is malformed: {0}")]
    Hostlist(#[from] HostlistError),
    /// The argument stands for something that is no node name.
    #[error("the hostlist names no node: {0}")]
    NodeName(#[from] NameError),
    /// No configuration.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The request could not be kept: nothing will be done.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The request was made, but without what the file says of its jobs.
    #[error("SLURM_RESUME_FILE is unusable ({0}): the nodes were requested without their jobs")]
    ResumeFile(String),
}

impl Program {
    /// The program of this name, if it is one of ours.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "spillway-resume" => Some(Self::Resume),
            "spillway-suspend" => Some(Self::Suspend),
            "spillway-resume-fail" => Some(Self::ResumeFail),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resume => "spillway-resume",
            Self::Suspend => "spillway-suspend",
            Self::ResumeFail => "spillway-resume-fail",
        }
    }
}

/// Runs a program: 0 if the request is as good as made.
pub fn run(program: Program, arguments: &[String]) -> ExitCode {
    let start = Instant::now();
    // First of all: slurmctld keeps the file for as long as we run, and says to read it within 10 s.
    let resume_file = match program {
        Program::Resume => resume_file::read(),
        Program::Suspend | Program::ResumeFail => Ok(None),
    };
    let (error, spool) = match config::load_client(&config::default_file()) {
        Ok(config) => match act(program, arguments, resume_file, &config, start) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => (error, Some(config.spool_directory)),
        },
        Err(error) => (error.into(), None),
    };
    complain::about(program, arguments, &error.to_string(), spool.as_deref());
    ExitCode::FAILURE
}

fn act(
    program: Program,
    arguments: &[String],
    resume_file: Result<Option<String>, String>,
    config: &ClientConfig,
    start: Instant,
) -> Result<(), HookError> {
    let [expression] = arguments else {
        return Err(HookError::Arguments {
            count: arguments.len(),
        });
    };
    let nodes = Hostlist::parse(expression)?;
    // Each name is checked here, where slurmctld's log shows the answer.
    let names = nodes.node_names()?;
    let spool = Spool::open(&config.spool_directory)?;
    let request_id = new_request_id();
    let mut unusable = None;
    let generation = match program {
        Program::Resume => {
            let file = resume_file.unwrap_or_else(|reason| {
                unusable = Some(reason);
                None
            });
            let jobs_file = read_jobs_file(&config.jobs_file);
            let jobs = file
                .as_deref()
                .map_or(Ok(Vec::new()), |text| resume_file::jobs(text, &jobs_file));
            let jobs = jobs.unwrap_or_else(|reason| {
                unusable = Some(reason);
                Vec::new()
            });
            let timeout_ms = u64::from(config.slurm.resume_timeout_seconds) * 1000;
            spool.put(|generation| {
                request::resume(
                    &config.cluster,
                    request_id,
                    generation,
                    timeout_ms,
                    nodes,
                    &names,
                    &jobs,
                )
            })?
        }
        Program::Suspend => spool.put(|generation| {
            request::suspend(
                &config.cluster,
                request_id,
                generation,
                SuspendCause::Suspend,
                nodes,
                &names,
                None,
            )
        })?,
        Program::ResumeFail => spool.put(|generation| {
            request::suspend(
                &config.cluster,
                request_id,
                generation,
                SuspendCause::ResumeFail,
                nodes,
                &names,
                None,
            )
        })?,
    };
    if wake::wake(&config.socket).is_err() {
        direct::send(
            config,
            &spool,
            generation,
            BUDGET.saturating_sub(start.elapsed()),
        );
    }
    unusable.map_or(Ok(()), |reason| Err(HookError::ResumeFile(reason)))
}

/// The file's text; empty if it is not there, which is so until the agent has first asked slurmctld.
fn read_jobs_file(path: &Path) -> String {
    files::read(path).unwrap_or_default()
}

/// A fresh request id.
pub fn new_request_id() -> RequestId {
    RequestId::new(uuid::Uuid::new_v4().simple().to_string())
        .expect("32 hexadecimal digits are a request id")
}

pub use request::suspend;
