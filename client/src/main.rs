//! Spillway on the machines of a Slurm cluster: one binary, known to slurmctld by three more names.

mod agent;
mod aws;
mod callback;
mod cli;
mod clock;
mod config;
mod crash;
mod explain;
mod files;
mod hook;
mod jobs_file;
mod keyring;
mod local_time;
mod node;
mod nodes;
mod privilege;
mod secret;
mod slurm;
mod spool;
mod wake;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    match name.to_str().and_then(hook::Program::named) {
        Some(program) => {
            let arguments: Vec<String> = arguments
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect();
            hook::run(program, &arguments)
        }
        None => cli::run(),
    }
}
