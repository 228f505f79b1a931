//! `spillway node`: the commands that run on a burst node, as root.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use spillway_core::name::ClusterName;

use super::{EXIT_FAILED, EXIT_OK, output, runtime};
use crate::node::{
    self, CUT_OFF_LIMIT, ControlPlane, DEFAULT_RECORD, JoinOptions, Joined, Limits, Outcome,
    UNCLAIMED_LIMIT, WatchOptions,
};

/// `node …`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Join the cluster as the node this instance was launched for, or report why not and shut down
    ///
    /// Run by the instance's user data. What follows `--` is passed on to slurmd.
    Join(Box<JoinArguments>),
    /// Tell the control plane when EC2 takes this instance, and turn it off when it is of no use any more
    ///
    /// Run by the instance's user data, as a service beside slurmd. The machine is turned off, but never while a job step
    /// runs, when the instance serves no node for 20 minutes, or hears neither of slurmctld nor of AWS for the time of
    /// `--cut-off-seconds`.
    Watch(Box<WatchArguments>),
    /// Say whether slurmd may be (re)started on this instance
    ///
    /// For `ExecStartPre` of a slurmd service: exits 1 unless every check passes and the instance still
    /// serves the node that it joined as, for the same request.
    Check(CheckArguments),
    /// Print the addresses of instance metadata that this user reaches
    ///
    /// `node join` and `node check` run it as a user without rights.
    #[command(hide = true)]
    ReachMetadata,
}

/// What `node join` and `node watch` are told alike.
#[derive(Debug, Args)]
pub struct InstanceArguments {
    /// The Slurm cluster
    #[arg(long)]
    cluster: ClusterName,
    /// The AWS region of the table and the queues
    #[arg(long)]
    region: String,
    /// The DynamoDB table
    #[arg(long)]
    table: String,
    /// URL of the queue that takes reports
    #[arg(long, value_name = "URL")]
    reports_queue: String,
    /// slurm.conf [default: what `SLURM_CONF` names, else /etc/slurm/slurm.conf]
    #[arg(long, value_name = "PATH")]
    slurm_conf: Option<PathBuf>,
    /// Options for slurmd
    #[arg(last = true, value_name = "SLURMD_OPTION")]
    pub slurmd_options: Vec<String>,
}

impl InstanceArguments {
    fn control_plane(&self) -> ControlPlane {
        ControlPlane {
            cluster: self.cluster.clone(),
            region: self.region.clone(),
            table: self.table.clone(),
        }
    }
}

/// Options of `node join`.
#[derive(Debug, Args)]
pub struct JoinArguments {
    /// Which node this is
    #[command(flatten)]
    pub instance: InstanceArguments,
    /// How long joining may take while the control plane has set no deadline
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    join_timeout_seconds: u64,
    /// Where to note what `node check` needs
    #[arg(long, value_name = "PATH", default_value = DEFAULT_RECORD, hide = true)]
    record: PathBuf,
}

/// Options of `node watch`.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Which node this is
    #[command(flatten)]
    pub instance: InstanceArguments,
    /// For how long a machine is left on that hears neither of slurmctld nor of AWS
    #[arg(long, value_name = "SECONDS", default_value_t = CUT_OFF_LIMIT.as_secs())]
    cut_off_seconds: u64,
    /// For how long a machine is left on that serves no node
    #[arg(long, value_name = "SECONDS", default_value_t = UNCLAIMED_LIMIT.as_secs(), hide = true)]
    unclaimed_seconds: u64,
}

/// Options of `node check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// What `node join` noted
    #[arg(long, value_name = "PATH", default_value = DEFAULT_RECORD, hide = true)]
    record: PathBuf,
}

/// Does it.
pub fn run(command: NodeCommand) -> anyhow::Result<u8> {
    match command {
        NodeCommand::Join(arguments) => join(*arguments),
        NodeCommand::Watch(arguments) => watch(*arguments),
        NodeCommand::Check(arguments) => check(&arguments),
        NodeCommand::ReachMetadata => {
            for address in node::reached_metadata() {
                output::print_line(&address.to_string())?;
            }
            Ok(EXIT_OK)
        }
    }
}

fn watch(arguments: WatchArguments) -> anyhow::Result<u8> {
    output::start_log();
    let options = WatchOptions {
        control_plane: arguments.instance.control_plane(),
        reports_queue: arguments.instance.reports_queue,
        slurm_conf: arguments.instance.slurm_conf,
        slurmd_options: arguments.instance.slurmd_options,
        limits: Limits {
            unclaimed: Duration::from_secs(arguments.unclaimed_seconds),
            cut_off: Duration::from_secs(arguments.cut_off_seconds),
        },
    };
    runtime()?.block_on(node::watch(&options))?;
    Ok(EXIT_OK)
}

fn join(arguments: JoinArguments) -> anyhow::Result<u8> {
    output::start_log();
    let options = JoinOptions {
        control_plane: arguments.instance.control_plane(),
        reports_queue: arguments.instance.reports_queue,
        slurm_conf: arguments.instance.slurm_conf,
        timeout: Duration::from_secs(arguments.join_timeout_seconds),
        slurmd_options: arguments.instance.slurmd_options,
        record: arguments.record,
    };
    match runtime()?.block_on(node::join(&options))? {
        Joined::Ready => Ok(EXIT_OK),
        Joined::ShutDown(reason) => Err(anyhow::anyhow!(reason).context("this node does not join")),
    }
}

fn check(arguments: &CheckArguments) -> anyhow::Result<u8> {
    let checks = runtime()?
        .block_on(node::check(&arguments.record))
        .context("cannot tell whether slurmd may be started")?;
    let failed = checks
        .iter()
        .any(|check| matches!(check.outcome, Outcome::Failed { .. }));
    if arguments.json {
        let answer = serde_json::json!({ "ok": !failed, "checks": checks });
        output::print_line(&answer.to_string())?;
    } else {
        for check in &checks {
            let (word, text) = match &check.outcome {
                Outcome::Passed { seen } => ("ok", seen),
                Outcome::Failed { reason, .. } => ("FAILED", reason),
                Outcome::Skipped { why } => ("skipped", why),
            };
            output::print_line(&format!("{:<10} {word:<8} {text}", check.name))?;
        }
    }
    Ok(if failed { EXIT_FAILED } else { EXIT_OK })
}
