//! The command line of `spillway`: what a person types. (slurmctld calls the program by its other names,
//! without options.)

mod apply;
mod config;
mod explain;
mod hold;
mod hostlist;
mod keys;
mod node;
mod operator;
mod output;
mod papers;
mod push;
mod secrets;
mod sweep;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Everything was done.
pub const EXIT_OK: u8 = 0;
/// It was not done, or not everything is as it should be; the reason is on standard error.
pub const EXIT_FAILED: u8 = 1;
/// The command line was not understood (clap's own).
pub const EXIT_USAGE: u8 = 2;

const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  not done, or something is not as it should be: the reason is on standard error
  2  the command line was not understood";

/// Bursts an on-premises Slurm cluster into Amazon EC2.
#[derive(Debug, Parser)]
#[command(name = "spillway", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send Slurm's requests, take updates, report node states: the service on the head node
    Agent(AgentArguments),
    /// Apply one sealed envelope as SlurmUser and acknowledge it: what SSM Run Command runs on the head node
    ///
    /// Started as root it becomes SlurmUser before it reads the envelope, from the environment variable
    /// `SSM_Envelope`. An envelope that was applied before is answered again and changes nothing. Prints one line of
    /// JSON.
    Apply(apply::ApplyArguments),
    /// What a burst node does for itself
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Expand and fold Slurm's hostlist expressions
    #[command(subcommand)]
    Hostlist(hostlist::HostlistCommand),
    /// Check the site's configuration, and put its policy in force
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make, use and delete the keys that sign what slurmctld is told
    ///
    /// Uses the caller's own AWS credentials (environment, profile, …), never the head node's.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Store the keys that burst nodes join with
    ///
    /// Uses the caller's own AWS credentials (environment, profile, …), never the head node's.
    #[command(subcommand)]
    Secrets(secrets::SecretsCommand),
    /// Say what is the matter with a node, a job or a request, how it came to that, and what to do
    ///
    /// Asks the records in AWS with the caller's own credentials (environment, profile, …), slurmctld, and this machine's
    /// spool. What cannot be asked is said. Exits 1 if something is wrong.
    #[command(subcommand)]
    Explain(explain::ExplainCommand),
    /// Protect instances from being terminated by Spillway, until they are released
    ///
    /// Uses the caller's own AWS credentials (environment, profile, …), never the head node's.
    Hold(hold::HoldArguments),
    /// Take the protection of `spillway hold` back
    ///
    /// Uses the caller's own AWS credentials (environment, profile, …), never the head node's.
    Release(hold::HoldArguments),
    /// Compare EC2, the records and Slurm now, heal what is wrong, and show what was found
    ///
    /// A sweep runs every minute by itself. Uses the caller's own AWS credentials (environment, profile, …), never the
    /// head node's.
    Sweep(sweep::SweepArguments),
    /// Print the version
    Version(VersionArguments),
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        directory: PathBuf,
    },
    /// Print the completions for a shell
    #[command(hide = true)]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct AgentArguments {
    /// The site's configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct VersionArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads the command line, does what it says, and prints the error if that fails.
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to do if the terminal is gone.
            let _ = error.print();
            let is_help = !error.use_stderr();
            return ExitCode::from(if is_help { EXIT_OK } else { EXIT_USAGE });
        }
    };
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Agent(arguments) => {
            crate::agent::run(arguments.config.as_deref())?;
            Ok(EXIT_OK)
        }
        Command::Apply(arguments) => apply::run(&arguments),
        Command::Node(command) => node::run(command),
        Command::Hostlist(command) => hostlist::run(command),
        Command::Config(command) => config::run(command),
        Command::Keys(command) => keys::run(command),
        Command::Secrets(command) => secrets::run(command),
        Command::Explain(command) => explain::run(&command),
        Command::Hold(arguments) => hold::hold(&arguments),
        Command::Release(arguments) => hold::release(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Version(arguments) => version(&arguments),
        Command::Man { directory } => papers::man(&directory),
        Command::Completion { shell } => Ok(papers::completion(shell)),
    }
}

fn version(arguments: &VersionArguments) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let line = if arguments.json {
        let messages = spillway_core::message::MESSAGE_VERSION;
        let policy = spillway_core::config::POLICY_VERSION;
        serde_json::json!({
            "version": version,
            "message_version": messages,
            "policy_version": policy,
        })
        .to_string()
    } else {
        format!("spillway {version}")
    };
    output::print_line(&line)?;
    Ok(EXIT_OK)
}

/// A runtime for the commands that talk to AWS.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    use anyhow::Context as _;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn slurmd_options_follow_two_dashes() {
        let words = "spillway node join --cluster lab --region us-east-1 --table lab-state \
                     --reports-queue https://sqs/q -- --conf-server head:6817 -v";
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Command::Node(node::NodeCommand::Join(join)) = cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(
            join.instance.slurmd_options,
            ["--conf-server", "head:6817", "-v"]
        );
    }
}
