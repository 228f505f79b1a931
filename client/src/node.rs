//! `spillway node`: what a burst node does for itself. It learns from its own item in the table which node
//! it serves, checks what slurmd needs, starts slurmd, and says that it is ready or why it cannot be. Beside that it
//! watches for the instance's end: EC2's notices, and its own uselessness.

mod check;
mod command;
mod dead_man;
mod join;
mod metadata;
mod record;
mod reports;
mod secrets;
mod shut_down;
mod slurm;
mod slurmd;
mod steps;
mod version;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::imds::{self, credentials::ImdsCredentialsProvider};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use spillway_core::config::AwsAccess;
use spillway_core::name::ClusterName;

use crate::aws;
use crate::aws::clock::ServiceClock;
use crate::aws::dynamodb::{InstanceItem, InstanceState, Table};
use crate::aws::imds::InstanceIdentity;
use check::{Check, Checks, Patience, failed, passed};
use record::Record;
use reports::Reports;
use shut_down::shut_down;
use slurm::Slurm;

pub use dead_man::{CUT_OFF_LIMIT, Limits, UNCLAIMED_LIMIT};
pub use join::{Joined, join};
pub use metadata::reached as reached_metadata;
pub use watch::{WatchOptions, watch};

/// Where `node join` keeps what `node check` needs; it outlives a reboot.
pub const DEFAULT_RECORD: &str = "/var/lib/spillway/node.json";

/// How often the SDK tries a call; waiting loops try again besides.
const AWS_ATTEMPTS: u32 = 3;

/// Which control plane a burst node belongs to.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// The Slurm cluster.
    pub cluster: ClusterName,
    /// Where its table and queues are.
    pub region: String,
    /// The table.
    pub table: String,
}

/// What `node join` is told.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Whose node this is.
    pub control_plane: ControlPlane,
    /// URL of the reports queue.
    pub reports_queue: String,
    /// slurm.conf, if it is not where Slurm looks.
    pub slurm_conf: Option<PathBuf>,
    /// How long joining may take while the table names no deadline.
    pub timeout: Duration,
    /// Passed on to slurmd.
    pub slurmd_options: Vec<String>,
    /// Where to keep what `node check` needs.
    pub record: PathBuf,
}

/// This instance and its way to the control plane.
#[derive(Debug)]
struct Instance {
    identity: InstanceIdentity,
    arn: String,
    sdk: SdkConfig,
    table: Table,
    clock: ServiceClock,
    imds: imds::Client,
}

impl Instance {
    /// Asks the metadata service who this is, and prepares the clients with the instance's credentials.
    async fn connect(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let imds = aws::imds::client();
        let identity = InstanceIdentity::read(&imds).await?;
        // Endpoint, proxy and authorities come from the environment: a burst node has no configuration.
        let access = AwsAccess {
            table: control_plane.table.clone(),
            credentials_file: None,
            profile: None,
            endpoint_url: None,
            proxy: None,
            ca_bundle: None,
        };
        let credentials = ImdsCredentialsProvider::builder()
            .imds_client(imds.clone())
            .build();
        let sdk = aws::sdk_config(&access, &control_plane.region, AWS_ATTEMPTS)
            .await?
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .build();
        let clock = ServiceClock::default();
        let dynamodb = aws_sdk_dynamodb::config::Builder::from(&sdk)
            .interceptor(clock.clone())
            .build();
        let client = aws_sdk_dynamodb::Client::from_conf(dynamodb);
        Ok(Self {
            arn: identity.arn(),
            identity,
            sdk,
            table: Table::new(client, &control_plane.table),
            clock,
            imds,
        })
    }

    /// The reports queue at this URL, in this instance's name.
    fn reports(&self, cluster: &ClusterName, queue_url: &str) -> Reports {
        Reports::new(
            aws_sdk_sqs::Client::new(&self.sdk),
            queue_url.to_owned(),
            cluster.clone(),
            self.identity.instance_id.clone(),
        )
    }
}

/// Whether slurmd may be (re)started on this machine: the checks of `node join`, and that the instance
/// still serves the node for the generation it joined for.
pub async fn check(record: &Path) -> anyhow::Result<Vec<Check>> {
    let record = Record::load(record)?;
    let instance = Instance::connect(&record.control_plane()?).await?;
    let item = instance.table.instance(&instance.arn).await?;
    let slurm = Slurm::new(record.slurm_conf.clone(), &record.slurmd_options);
    let mut all = Checks::run(&slurm, &instance.clock, &record.node).await;
    let outcome = match still_serves(item.as_ref(), &record) {
        Ok(seen) => passed(seen),
        Err(reason) => failed(reason, Patience::None),
    };
    all.push("pairing", outcome);
    Ok(all.checks)
}

fn still_serves(item: Option<&InstanceItem>, record: &Record) -> Result<String, String> {
    let Record {
        node, generation, ..
    } = record;
    let Some(item) = item else {
        return Err("the table knows nothing of this instance".to_owned());
    };
    if item.state == InstanceState::Released {
        return Err(format!(
            "this instance was released and serves {node} no more"
        ));
    }
    match &item.serving {
        Some(serving) if serving.node != *node => Err(format!(
            "this instance serves {} now, not {node}",
            serving.node
        )),
        Some(serving) if serving.generation != *generation => Err(format!(
            "Slurm has asked for {node} again since it joined: only `spillway node join` may start slurmd"
        )),
        Some(_) => Ok(format!("serves {node}, generation {generation}")),
        None => Err("this instance serves no node".to_owned()),
    }
}

pub use check::Outcome;

#[cfg(test)]
mod tests {
    use spillway_core::name::{Generation, NodeName};

    use super::*;
    use crate::aws::dynamodb::Serving;

    fn item(state: InstanceState, node: &str, generation: u64) -> InstanceItem {
        InstanceItem {
            state,
            serving: Some(Serving {
                node: NodeName::new(node).unwrap(),
                generation: Generation::new(generation).unwrap(),
            }),
            acknowledged_generation: None,
            deadline_ms: None,
        }
    }

    #[test]
    fn slurmd_may_run_only_for_the_node_and_generation_it_joined_for() {
        let record = Record {
            cluster: "lab".to_owned(),
            region: "us-east-1".to_owned(),
            table: "lab-state".to_owned(),
            node: NodeName::new("aws-1").unwrap(),
            generation: Generation::new(5).unwrap(),
            slurm_conf: None,
            slurmd_options: Vec::new(),
        };
        let paired = InstanceState::Paired;
        still_serves(Some(&item(paired, "aws-1", 5)), &record).unwrap();
        for other in [
            None,
            Some(item(paired, "aws-1", 6)),
            Some(item(paired, "aws-2", 5)),
            Some(item(InstanceState::Released, "aws-1", 5)),
        ] {
            still_serves(other.as_ref(), &record).unwrap_err();
        }
    }
}
