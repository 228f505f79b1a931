//! `spillway config`: the one file that describes a site, checked, and its policy put in force.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use spillway_core::config::{ConfigErrors, Site};

use super::push;
use super::{EXIT_FAILED, EXIT_OK, output};

/// The file's name.
const FILE_NAME: &str = "spillway.toml";

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Find everything that is wrong with the configuration
    Check(CheckArguments),
    /// Put the configuration's policy in force: from then on the functions launch by it
    ///
    /// Uses the caller's own AWS credentials (environment, profile, …), never the head node's.
    Push(PushArguments),
}

/// Options of `config check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Options of `config push`.
#[derive(Debug, Args)]
pub struct PushArguments {
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    file: Option<PathBuf>,
    /// The DynamoDB table, instead of the one in the configuration
    #[arg(long)]
    table: Option<String>,
}

/// Does it.
pub fn run(command: ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Check(arguments) => check(arguments),
        ConfigCommand::Push(arguments) => {
            let file = arguments.file.unwrap_or_else(default_file);
            let site = read(&file)??;
            push::run(&site, arguments.table)
        }
    }
}

/// The file that the head node's programs use: beside slurm.conf, else in /etc/spillway.
fn default_file() -> PathBuf {
    let slurm_conf = std::env::var_os("SLURM_CONF").map(PathBuf::from);
    let slurm_conf = slurm_conf.unwrap_or_else(|| PathBuf::from("/etc/slurm/slurm.conf"));
    let beside = slurm_conf.with_file_name(FILE_NAME);
    if beside.exists() {
        return beside;
    }
    Path::new("/etc/spillway").join(FILE_NAME)
}

/// The site, or what is wrong with the file; the outer error is that it cannot be read at all.
fn read(file: &Path) -> anyhow::Result<Result<Site, ConfigErrors>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    Ok(Site::parse(&text, &file.display().to_string()))
}

fn check(arguments: CheckArguments) -> anyhow::Result<u8> {
    let file = arguments.file.unwrap_or_else(default_file);
    let parsed = read(&file)?;
    if arguments.json {
        output::print_line(&as_json(&file, &parsed).to_string())?;
    } else {
        match &parsed {
            Ok(site) => output::print_line(&format!("{}: ok: {}", file.display(), summary(site)))?,
            Err(errors) => {
                eprintln!("{errors}");
                let count = errors.errors.len();
                let errors = if count == 1 { "error" } else { "errors" };
                eprintln!("spillway: {count} {errors} in {}", file.display());
            }
        }
    }
    Ok(if parsed.is_ok() { EXIT_OK } else { EXIT_FAILED })
}

fn summary(site: &Site) -> String {
    let groups = &site.policy.node_groups;
    format!(
        "cluster {}, {} node groups, {} nodes",
        site.policy.cluster,
        groups.iter().len(),
        groups.node_count()
    )
}

fn as_json(file: &Path, parsed: &Result<Site, ConfigErrors>) -> serde_json::Value {
    let errors = match parsed {
        Ok(_) => &[][..],
        Err(errors) => &errors.errors,
    };
    let errors: Vec<_> = errors
        .iter()
        .map(|error| {
            serde_json::json!({
                "line": error.line,
                "column": error.column,
                "key": error.key,
                "problem": error.problem,
                "hint": error.hint,
            })
        })
        .collect();
    serde_json::json!({ "file": file, "ok": parsed.is_ok(), "errors": errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_place_in_the_json_too() {
        let parsed = Site::parse("[cluster", "a.toml");
        let json = as_json(Path::new("a.toml"), &parsed);
        assert_eq!(json["ok"], false);
        assert_eq!(json["errors"][0]["line"], 1);
        assert!(json["errors"][0]["problem"].is_string());
    }
}
