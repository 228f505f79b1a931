//! What `node join` leaves on the machine for `node check`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use spillway_core::name::{ClusterName, Generation, NodeName};

use super::{ControlPlane, JoinOptions};
use crate::aws::dynamodb::Serving;

/// How this machine last started slurmd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The Slurm cluster.
    pub cluster: String,
    /// Where the table is.
    pub region: String,
    /// The table.
    pub table: String,
    /// The node slurmd was started for.
    pub node: NodeName,
    /// And the generation.
    pub generation: Generation,
    /// slurm.conf, if it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slurm_conf: Option<PathBuf>,
    /// slurmd's further options.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slurmd_options: Vec<String>,
}

impl Record {
    /// That of a join.
    pub fn new(options: &JoinOptions, serving: &Serving) -> Self {
        let control_plane = options.control_plane.clone();
        Self {
            cluster: control_plane.cluster.to_string(),
            region: control_plane.region,
            table: control_plane.table,
            node: serving.node.clone(),
            generation: serving.generation,
            slurm_conf: options.slurm_conf.clone(),
            slurmd_options: options.slurmd_options.clone(),
        }
    }

    /// Reads what the last join wrote.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}: has `spillway node join` started slurmd on this machine?",
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    /// Writes it so that a reader sees the old one or the new one, never a part.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self).expect("only strings, numbers and lists");
        let write = || -> std::io::Result<()> {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let draft = path.with_extension("new");
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .mode(0o600)
                .open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&draft, path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where to ask.
    pub fn control_plane(&self) -> anyhow::Result<ControlPlane> {
        Ok(ControlPlane {
            cluster: ClusterName::new(self.cluster.clone())?,
            region: self.region.clone(),
            table: self.table.clone(),
        })
    }
}
