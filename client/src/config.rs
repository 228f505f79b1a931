//! Finds and reads `spillway.toml` for the programs and the agent, which are given nothing but `SLURM_CONF`.

use std::path::{Path, PathBuf};

use spillway_core::config::{ClientConfig, ConfigErrors, Site};

use crate::files::{self, FileError};

/// The file's name beside slurm.conf.
const FILE_NAME: &str = "spillway.toml";
/// Where it is if not there.
const DEFAULT_DIRECTORY: &str = "/etc/spillway";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("no configuration: {0}")]
    File(#[from] FileError),
    /// It is wrong.
    #[error("the configuration is wrong: {0}")]
    Content(#[from] ConfigErrors),
}

/// The file beside the slurm.conf that `SLURM_CONF` names, else the one in `/etc/spillway`.
pub fn default_file() -> PathBuf {
    let slurm_conf = std::env::var_os("SLURM_CONF").map(PathBuf::from);
    file_beside(slurm_conf.as_deref())
}

/// The file beside this slurm.conf, else the one in `/etc/spillway`.
pub fn file_beside(slurm_conf: Option<&Path>) -> PathBuf {
    slurm_conf
        .map(|slurm_conf| slurm_conf.with_file_name(FILE_NAME))
        .filter(|beside| beside.exists())
        .unwrap_or_else(|| Path::new(DEFAULT_DIRECTORY).join(FILE_NAME))
}

/// Reads a site.
pub fn load(path: &Path) -> Result<Site, LoadError> {
    let text = files::read(path)?;
    Ok(Site::parse(&text, &path.display().to_string())?)
}

/// Reads the head node's own settings only: what a program has the time for.
pub fn load_client(path: &Path) -> Result<ClientConfig, LoadError> {
    let text = files::read(path)?;
    Ok(ClientConfig::parse(&text, &path.display().to_string())?)
}

/// The same for a program that Slurm calls, which needs nothing of `[callback]`.
pub fn load_for_program(path: &Path) -> Result<ClientConfig, LoadError> {
    let text = files::read(path)?;
    let file = path.display().to_string();
    Ok(ClientConfig::parse_without_callback(&text, &file)?)
}
