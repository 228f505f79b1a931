//! What the operator's commands share: the site's configuration, and AWS with the caller's own credentials.

use std::path::PathBuf;

use aws_config::SdkConfig;
use clap::Args;
use spillway_core::config::{AwsAccess, ClientConfig, Site};

use crate::aws::dynamodb::Table;
use crate::aws::sqs::OperatorQueues;
use crate::aws::{self, AwsError};
use crate::config::{default_file, load};

/// How often the SDK tries a call: a person waits.
const AWS_ATTEMPTS: u32 = 3;

/// AWS as the caller: the configuration's credentials are the head node's, which may not do what an operator does.
pub async fn sdk(site: &ClientConfig) -> Result<SdkConfig, AwsError> {
    let access = AwsAccess {
        credentials_file: None,
        profile: None,
        ..site.aws.clone()
    };
    aws::sdk_config(&access, site.region.as_str(), AWS_ATTEMPTS).await
}
/// What is most often wrong.
pub const HINT: &str = "are these operator credentials for this account and region?";

/// Where the site is described.
#[derive(Debug, Args)]
pub struct SiteArguments {
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl SiteArguments {
    /// Reads the configuration.
    pub fn load(&self) -> anyhow::Result<Site> {
        let file = self.config.clone().unwrap_or_else(default_file);
        Ok(load(&file)?)
    }
}

/// AWS as the operator reaches it.
#[derive(Debug)]
pub struct OperatorAws {
    /// The stack's table.
    pub table: Table,
    /// The stack's queues.
    pub queues: OperatorQueues,
}

impl OperatorAws {
    /// Connects as the caller.
    pub async fn connect(site: &ClientConfig) -> Result<Self, AwsError> {
        let sdk = sdk(site).await?;
        let client = aws_sdk_dynamodb::Client::new(&sdk);
        Ok(Self {
            table: Table::new(client, &site.aws.table),
            queues: OperatorQueues::new(&sdk),
        })
    }
}
