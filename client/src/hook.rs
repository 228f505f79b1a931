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
use spillway_core::name::{Generation, NameError, NodeName, RequestId};

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
    let (error, spool) = match config::load_for_program(&config::default_file()) {
        Ok(config) => match act(program, arguments, &resume_file, &config, start) {
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
    resume_file: &Result<Option<String>, String>,
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
    if let Some(complaint) = spool.complaint()? {
        complain::about(
            program,
            arguments,
            &complaint,
            Some(&config.spool_directory),
        );
    }
    let request = Request {
        config,
        id: new_request_id(),
        nodes,
        names,
    };
    let (generation, said) = match program {
        Program::Resume => request.resume(&spool, resume_file)?,
        Program::Suspend => (request.suspend(&spool, SuspendCause::Suspend)?, Ok(())),
        Program::ResumeFail => (request.suspend(&spool, SuspendCause::ResumeFail)?, Ok(())),
    };
    if wake::wake(&config.socket).is_err() {
        direct::send(
            config,
            &spool,
            generation,
            BUDGET.saturating_sub(start.elapsed()),
        );
    }
    said
}

/// What Slurm asks for.
struct Request<'a> {
    config: &'a ClientConfig,
    id: RequestId,
    nodes: Hostlist,
    /// `nodes`, one by one.
    names: Vec<NodeName>,
}

impl Request<'_> {
    /// Puts a resume into the spool. A resume file that cannot be used costs the jobs and not the
    /// nodes, and is an error besides.
    fn resume(
        self,
        spool: &Spool,
        resume_file: &Result<Option<String>, String>,
    ) -> Result<(Generation, Result<(), HookError>), HookError> {
        let jobs_text = match resume_file {
            Ok(Some(_)) => read_jobs_file(&self.config.jobs_file),
            _ => String::new(),
        };
        let jobs = match resume_file {
            Ok(Some(text)) => resume_file::jobs(text, &jobs_text),
            Ok(None) => Ok(Vec::new()),
            Err(reason) => Err(reason.clone()),
        };
        let (jobs, said) = match jobs {
            Ok(jobs) => (jobs, Ok(())),
            Err(reason) => (Vec::new(), Err(HookError::ResumeFile(reason))),
        };
        let timeout_ms = u64::from(self.config.slurm.resume_timeout_seconds) * 1000;
        let generation = spool.put(|generation| {
            request::resume(
                &self.config.cluster,
                self.id,
                generation,
                timeout_ms,
                self.nodes,
                &self.names,
                &jobs,
            )
        })?;
        Ok((generation, said))
    }

    /// Puts a suspend into the spool.
    fn suspend(self, spool: &Spool, cause: SuspendCause) -> Result<Generation, HookError> {
        let generation = spool.put(|generation| {
            request::suspend(
                &self.config.cluster,
                self.id,
                generation,
                cause,
                self.nodes,
                &self.names,
                None,
            )
        })?;
        Ok(generation)
    }
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
