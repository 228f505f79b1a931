//! `spillway explain`: what is the matter with a node, a job or a request, and what to do.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use spillway_core::name::{JobId, NodeName, RequestId};

use super::operator::{OperatorAws, SiteArguments};
use super::{EXIT_FAILED, EXIT_OK, output, runtime};
use crate::explain::{Account, Sources};
use crate::local_time;
use crate::slurm::Slurm;

/// `explain …`
#[derive(Debug, Subcommand)]
pub enum ExplainCommand {
    /// A node, by its name in slurm.conf
    Node(What),
    /// A job, by its id, and the nodes it has
    Job(What),
    /// A request: one call of Slurm's for nodes, by the id that logs and tags have
    Request(What),
}

/// What is explained.
#[derive(Debug, Args)]
pub struct What {
    /// Which
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    site: SiteArguments,
}

/// Explains. Exits 1 if something is wrong.
pub fn run(command: &ExplainCommand) -> anyhow::Result<u8> {
    let (ExplainCommand::Node(what) | ExplainCommand::Job(what) | ExplainCommand::Request(what)) =
        command;
    let account = runtime()?.block_on(explain(command, what))?;
    let text = if what.site.json {
        serde_json::to_string(&account)?
    } else {
        account.render(&local_time::zone())
    };
    output::print_line(&text)?;
    Ok(if account.well { EXIT_OK } else { EXIT_FAILED })
}

async fn explain(command: &ExplainCommand, what: &What) -> anyhow::Result<Account> {
    let site = what.site.load()?;
    let aws = OperatorAws::connect(&site.client).await?;
    let sources = Sources {
        slurm: Slurm::new(&site.client.slurm),
        site: &site,
        table: aws.table,
        queues: aws.queues,
    };
    let name = what.name.as_str();
    Ok(match command {
        ExplainCommand::Node(_) => {
            let node =
                NodeName::new(name).with_context(|| format!("{name:?} is no name of one node"))?;
            sources.node(&node).await
        }
        ExplainCommand::Job(_) => {
            let job = JobId::new(name).with_context(|| format!("{name:?} is no job id"))?;
            sources.job(&job).await
        }
        ExplainCommand::Request(_) => {
            let request =
                RequestId::new(name).with_context(|| format!("{name:?} is no request id"))?;
            sources.request(&request).await
        }
    })
}
