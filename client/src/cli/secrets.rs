//! `spillway secrets`: the keys that burst nodes join with, into SSM with the operator's credentials. A key is read
//! from a file or from standard input, never from the command line, and is never shown.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use spillway_core::config::ClientConfig;

use super::{EXIT_OK, operator, output, runtime};
use crate::aws::ssm::{Decrypt, Existing, ParameterError, Parameters};
use crate::config::{default_file, load_client};
use crate::secret::{JoinSecret, KeyBytes};

const HINT: &str = "are these operator credentials for this account and region?";

/// More than any key has: what is read of a file that is none.
const MAX_READ_BYTES: u64 = 64 * 1024;

/// What is to be done when a key is another from now on.
const PROCEDURE: &str = "\
Instances that boot from now on join with the stored key: slurmctld must have the same. To swap it,
  1. start no more jobs there:   scontrol update PartitionName=… State=DOWN
  2. when the jobs have ended:   scontrol update NodeName=… State=POWER_DOWN
  3. put the new key on the head node and all on-premises machines; restart munge, then the Slurm daemons
  4. start jobs again:           scontrol update PartitionName=… State=UP
docs/security.md, \"Rotating the munge key\", has it step by step.";

/// `secrets …`
#[derive(Debug, Subcommand)]
pub enum SecretsCommand {
    /// Store a key that burst nodes join with
    ///
    /// It is encrypted in SSM; `spillway node join`, as root of a burst node, fetches it. Only the bytes of the file
    /// (or of standard input) are taken, as munged itself reads them.
    Put(PutArguments),
    /// Show which keys are stored, in which version and since when; never the keys
    List(ListArguments),
}

/// Options of `secrets put`.
#[derive(Debug, Args)]
pub struct PutArguments {
    /// Which key
    secret: JoinSecret,
    /// The file that holds it [default: standard input]
    #[arg(long)]
    file: Option<PathBuf>,
    /// Put it in the place of another one
    #[arg(long)]
    replace: bool,
    /// Encrypt with this KMS key, the stack's `SecretsKeyArn` [default: the account's key for SSM]
    #[arg(long, value_name = "ARN")]
    kms_key: Option<String>,
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Options of `secrets list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does it.
pub fn run(command: SecretsCommand) -> anyhow::Result<u8> {
    match command {
        SecretsCommand::Put(arguments) => {
            let site = load_client(&arguments.config.clone().unwrap_or_else(default_file))?;
            let key = read(arguments.secret, arguments.file.as_deref())?;
            let answer = runtime()?.block_on(put(&site, &arguments, &key))?;
            output::print_line(&answer)?;
        }
        SecretsCommand::List(arguments) => {
            let site = load_client(&arguments.config.clone().unwrap_or_else(default_file))?;
            let answer = runtime()?.block_on(list(&site, arguments.json))?;
            output::print_line(&answer)?;
        }
    }
    Ok(EXIT_OK)
}

fn read(secret: JoinSecret, file: Option<&Path>) -> anyhow::Result<KeyBytes> {
    let mut bytes = Vec::new();
    match file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_READ_BYTES).read_to_end(&mut bytes))
            .with_context(|| format!("cannot read {}", path.display()))?,
        None => std::io::stdin()
            .lock()
            .take(MAX_READ_BYTES)
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?,
    };
    Ok(secret.key(bytes)?)
}

async fn parameters(site: &ClientConfig) -> anyhow::Result<Parameters> {
    let sdk = operator::sdk(site).await?;
    Ok(Parameters::new(&sdk))
}

async fn put(
    site: &ClientConfig,
    arguments: &PutArguments,
    key: &KeyBytes,
) -> anyhow::Result<String> {
    let secret = arguments.secret;
    let name = secret.parameter(&site.cluster);
    let parameters = parameters(site)
        .await?
        .encrypting_with(arguments.kms_key.clone());
    let value = key.to_parameter();
    let first = parameters.put_secure(&name, &value, Existing::Keep).await;
    match first {
        Ok(()) => return Ok(format!("{secret} is stored as {name}")),
        Err(ParameterError::Exists { .. }) => {}
        Err(error) => return Err(error).context(HINT),
    }
    let stored = parameters.get(&name, Decrypt::Yes).await.context(HINT)?;
    if stored.as_deref() == Some(value.as_str()) {
        return Ok(format!("{secret} unchanged: {name} holds it already"));
    }
    if !arguments.replace {
        bail!(
            "{name} holds another {secret}: with --replace it is replaced by this one\n{PROCEDURE}"
        );
    }
    parameters
        .put_secure(&name, &value, Existing::Replace)
        .await
        .context(HINT)?;
    Ok(format!("{secret} is replaced in {name}\n{PROCEDURE}"))
}

async fn list(site: &ClientConfig, json: bool) -> anyhow::Result<String> {
    let parameters = parameters(site).await?;
    let mut entries = Vec::new();
    let mut lines = Vec::new();
    for secret in JoinSecret::ALL {
        let name = secret.parameter(&site.cluster);
        let Some(found) = parameters.describe(&name).await.context(HINT)? else {
            continue;
        };
        let (version, written) = (found.version, found.written);
        lines.push(format!("{secret:<10} version {version}, {written}, {name}"));
        entries.push(serde_json::json!({
            "secret": secret.to_string(),
            "parameter": name,
            "version": version,
            "written": written,
        }));
    }
    if json {
        return Ok(serde_json::json!({ "secrets": entries }).to_string());
    }
    if lines.is_empty() {
        lines.push("no key is stored: burst nodes use what their image has".to_owned());
    }
    Ok(lines.join("\n"))
}
