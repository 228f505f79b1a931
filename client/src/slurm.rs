//! slurmctld, asked and told through Slurm's own commands.

mod admin_comment;
mod command;
pub mod conf;
mod cool_off;
mod job_view;
mod node_job;
mod node_row;
mod power;
mod recover;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use spillway_core::config::SlurmSettings;
use spillway_core::envelope::MAX_REASON_CHARS;
use spillway_core::name::{JobId, NodeName};

pub use command::SlurmError;
pub use cool_off::Rest;
pub use job_view::JobView;
pub use node_job::NodeJob;
pub use node_row::NodeRow;
pub use recover::{is_somebodys, remedy, remedy_unserved};

use crate::jobs_file;

/// Nodes told of in one `scontrol update`: slurmctld holds its node lock for all of them (`ParallelCluster`
/// does the same), and the command line stays far below the kernel's 128 KB an argument.
pub const UPDATE_BATCH: usize = 100;

/// Finds the row of a node.
pub fn by_name(rows: Vec<NodeRow>) -> HashMap<NodeName, NodeRow> {
    rows.into_iter()
        .map(|row| (row.node.clone(), row))
        .collect()
}

/// How slurmctld is reached.
#[derive(Debug, Clone)]
pub struct Slurm {
    bin_directory: PathBuf,
    /// slurm.conf, where it is not what the environment says.
    conf: Option<PathBuf>,
}

impl Slurm {
    /// As configured.
    pub fn new(settings: &SlurmSettings) -> Self {
        Self {
            bin_directory: settings.bin_directory.clone(),
            conf: None,
        }
    }

    /// With this slurm.conf, whatever the environment says.
    pub fn with_conf(mut self, conf: PathBuf) -> Self {
        self.conf = Some(conf);
        self
    }

    /// The cloud nodes that slurmctld shows. Before 23.02 and without `PrivateData=cloud` it hides
    /// those that are powered down, also from root and with `--all` (seen on 22.05.8): a node that is
    /// not here is powered down.
    pub async fn cloud_nodes(&self) -> Result<Vec<NodeRow>, SlurmError> {
        let nodes = self.nodes().await?;
        Ok(nodes.into_iter().filter(NodeRow::is_cloud).collect())
    }

    /// All nodes that slurmctld shows, on-premises ones too.
    async fn nodes(&self) -> Result<Vec<NodeRow>, SlurmError> {
        let text = self
            .run("scontrol", &["show", "nodes", "--oneliner", "--all"])
            .await?;
        Ok(text.lines().filter_map(NodeRow::parse).collect())
    }

    /// Sets `NodeAddr` of at most [`UPDATE_BATCH`] nodes, which must be sorted: up to 22.05.7 slurmctld
    /// pairs an unsorted list wrongly.
    pub async fn set_addresses(&self, addresses: &[(&NodeName, IpAddr)]) -> Result<(), SlurmError> {
        let names: Vec<&str> = addresses.iter().map(|(node, _)| node.as_str()).collect();
        let values: Vec<String> = addresses
            .iter()
            .map(|(_, address)| address.to_string())
            .collect();
        let names = format!("NodeName={}", names.join(","));
        let values = format!("NodeAddr={}", values.join(","));
        self.run("scontrol", &["update", &names, &values])
            .await
            .map(drop)
    }

    /// The jobs that wait for nodes, as lines of the jobs file.
    pub async fn waiting_jobs(&self) -> Result<String, SlurmError> {
        self.squeue(&["--states=PENDING,CONFIGURING"]).await
    }

    /// Those of `ids` that slurmctld still knows, whatever their state, as lines of the jobs file.
    pub async fn jobs(&self, ids: &[&JobId]) -> Result<String, SlurmError> {
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let ids = format!("--jobs={}", ids.join(","));
        self.squeue(&["--states=all", &ids]).await
    }

    async fn squeue(&self, which: &[&str]) -> Result<String, SlurmError> {
        let format = format!("--format={}", jobs_file::SQUEUE_FORMAT);
        let arguments = [&["--noheader", "--all", "--array", &format], which].concat();
        self.run("squeue", &arguments).await
    }

    /// `slurm-wlm 22.05.8` and the like, the number only.
    pub async fn version(&self) -> Result<String, SlurmError> {
        let text = self.run("scontrol", &["--version"]).await?;
        Ok(text
            .split_whitespace()
            .last()
            .unwrap_or_default()
            .to_owned())
    }

    async fn run(&self, program: &'static str, arguments: &[&str]) -> Result<String, SlurmError> {
        let path = self.bin_directory.join(program);
        command::run(&path, program, arguments, self.conf.as_deref()).await
    }
}

/// Text that scontrol takes as a whole: it ends a reason at a double quote (seen on 22.05.8), and a line
/// break would break `show --oneliner`.
fn reason_text(reason: &str) -> String {
    reason
        .chars()
        .map(|c| match c {
            '"' => '\'',
            c if c.is_control() => ' ',
            c => c,
        })
        .take(MAX_REASON_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_stays_one_argument() {
        assert_eq!(
            super::reason_text("no \"c5.large\"\nin\tzone a"),
            "no 'c5.large' in zone a"
        );
        assert_eq!(super::reason_text(&"é".repeat(300)).chars().count(), 240);
    }
}
