//! `spillway config`: the one file that describes a site, checked, and its policy put in force.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use spillway_core::config::{ConfigErrors, NO_TRUSTED_KEYS, Site};

use super::push;
use super::{EXIT_FAILED, EXIT_OK, output};
use crate::config::{LoadError, default_file, load};

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
            push::run(&load(&file)?, arguments.table)
        }
    }
}

fn check(arguments: CheckArguments) -> anyhow::Result<u8> {
    let file = arguments.file.unwrap_or_else(default_file);
    let parsed = match load(&file) {
        Ok(site) => Ok(site),
        Err(LoadError::Content(errors)) => Err(errors),
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        output::print_line(&as_json(&file, &parsed).to_string())?;
    } else {
        match &parsed {
            Ok(site) => {
                output::print_line(&format!("{}: ok: {}", file.display(), summary(site)))?;
                for warning in warnings(site) {
                    eprintln!("spillway: warning: {warning}");
                }
            }
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

/// What is not wrong in itself and yet keeps nodes from coming up.
fn warnings(site: &Site) -> Vec<&'static str> {
    let is_empty = site.client.callback.trusted_keys.is_empty();
    is_empty.then_some(NO_TRUSTED_KEYS).into_iter().collect()
}

fn as_json(file: &Path, parsed: &Result<Site, ConfigErrors>) -> serde_json::Value {
    let (errors, warnings) = match parsed {
        Ok(site) => (&[][..], warnings(site)),
        Err(errors) => (&errors.errors[..], Vec::new()),
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
    serde_json::json!({
        "file": file,
        "ok": parsed.is_ok(),
        "errors": errors,
        "warnings": warnings,
    })
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
