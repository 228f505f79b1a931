//! `spillway keys`: the keys that sign what slurmctld is told, made and replaced with the operator's
//! credentials. The private half of a key goes from this process to SSM and nowhere else.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use spillway_core::config::ClientConfig;
use spillway_core::envelope::{KeyId, PublicKey};

use super::operator::{self, HINT};
use super::{EXIT_OK, output, runtime};
use crate::aws::ssm::Parameters;
use crate::config::{default_file, load_client};
use crate::keyring::{KeptKey, Keyring};

/// `keys …`
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print its public line for `trusted_keys`; the first key signs at once
    ///
    /// The private half is stored in SSM and nowhere else. To replace a key: create, add the line to
    /// `trusted_keys` on each head node, rotate, revoke the old key, remove its line.
    Create(CreateArguments),
    /// Show the keys: which one signs, and which ones this machine's configuration trusts
    List(ListArguments),
    /// Make a key the one that signs, from within a minute on
    Rotate(KeyArguments),
    /// Delete the private half of a key that no longer signs
    Revoke(KeyArguments),
}

/// Options of `keys create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArguments,
}

/// Options of `keys list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    site: SiteArguments,
}

/// Options of `keys rotate` and `keys revoke`.
#[derive(Debug, Args)]
pub struct KeyArguments {
    /// The key, as `keys list` shows it: 16 hexadecimal digits
    #[arg(value_name = "ID")]
    id: KeyId,
    #[command(flatten)]
    site: SiteArguments,
}

/// Whose keys.
#[derive(Debug, Args)]
struct SiteArguments {
    /// The configuration [default: spillway.toml beside slurm.conf, else /etc/spillway/spillway.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does it.
pub fn run(command: KeysCommand) -> anyhow::Result<u8> {
    let (KeysCommand::Create(CreateArguments { site, .. })
    | KeysCommand::List(ListArguments { site, .. })
    | KeysCommand::Rotate(KeyArguments { site, .. })
    | KeysCommand::Revoke(KeyArguments { site, .. })) = &command;
    let file = site.config.clone().unwrap_or_else(default_file);
    let site = load_client(&file)?;
    let text = runtime()?.block_on(async {
        let ring = connect(&site).await?;
        match command {
            KeysCommand::Create(arguments) => create(&ring, arguments.json).await,
            KeysCommand::List(arguments) => list(&ring, &site, arguments.json).await,
            KeysCommand::Rotate(arguments) => rotate(&ring, &site, &file, &arguments.id).await,
            KeysCommand::Revoke(arguments) => revoke(&ring, &site, &file, &arguments.id).await,
        }
    })?;
    output::print_line(&text)?;
    Ok(EXIT_OK)
}

async fn connect(site: &ClientConfig) -> anyhow::Result<Keyring> {
    let sdk = operator::sdk(site).await?;
    Ok(Keyring::new(Parameters::new(&sdk), &site.cluster))
}

async fn create(ring: &Keyring, json: bool) -> anyhow::Result<String> {
    eprintln!("spillway: storing a new private key in SSM");
    let public = ring
        .create()
        .await
        .with_context(|| format!("cannot store a key: {HINT}"))?;
    let id = public.id();
    let signs = ring.activate_first(&id).await.with_context(|| {
        format!(
            "key {id} is stored and not yet used (trusted_keys: \"{public}\"); once SSM answers, run \
             `spillway keys rotate {id}` if it is the first one"
        )
    })?;
    if json {
        return Ok(serde_json::json!({ "id": id, "public": public, "active": signs }).to_string());
    }
    let next = if signs {
        "It signs from now on: until the line is there, no update reaches Slurm.".to_owned()
    } else {
        format!("It does not sign yet. When the line is everywhere: spillway keys rotate {id}")
    };
    Ok(format!(
        "key {id} is created\nAdd this to trusted_keys in [callback] of spillway.toml on each head node:\n\n    \
         \"{public}\"\n\n{next}"
    ))
}

async fn list(ring: &Keyring, site: &ClientConfig, json: bool) -> anyhow::Result<String> {
    let (keys, active) =
        async { Ok::<_, crate::keyring::KeyringError>((ring.list().await?, ring.active().await?)) }
            .await
            .with_context(|| format!("cannot list the keys: {HINT}"))?;
    let rows = rows(keys, active.as_ref(), &site.callback.trusted_keys);
    if json {
        return Ok(serde_json::to_string(&rows)?);
    }
    if rows.is_empty() {
        return Ok("no keys: make the first one with `spillway keys create`".to_owned());
    }
    let word = |is: bool| if is { "yes" } else { "no" };
    let lines = rows.iter().map(|row| {
        format!(
            "{:<16}  {:<24}  {:<6}  {}",
            row.id,
            row.created.as_deref().unwrap_or("(no private half)"),
            word(row.active),
            word(row.trusted_here)
        )
    });
    let header = format!(
        "{:<16}  {:<24}  {:<6}  {}",
        "ID", "CREATED", "ACTIVE", "TRUSTED HERE"
    );
    Ok(std::iter::once(header)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n"))
}

/// A line of `keys list`.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Row {
    id: KeyId,
    /// None for a key that is trusted or said to sign, and has no private half.
    created: Option<String>,
    active: bool,
    trusted_here: bool,
}

/// All keys that are anywhere: stored, said to sign, or trusted.
fn rows(kept: Vec<KeptKey>, active: Option<&KeyId>, trusted: &[PublicKey]) -> Vec<Row> {
    let trusted: Vec<KeyId> = trusted.iter().map(PublicKey::id).collect();
    let mut ids: Vec<(KeyId, Option<String>)> = kept
        .into_iter()
        .map(|key| (key.id, Some(key.created)))
        .collect();
    for id in active.into_iter().chain(&trusted) {
        if !ids.iter().any(|(known, _)| known == id) {
            ids.push((id.clone(), None));
        }
    }
    let row = |(id, created): (KeyId, Option<String>)| Row {
        active: active == Some(&id),
        trusted_here: trusted.contains(&id),
        id,
        created,
    };
    ids.into_iter().map(row).collect()
}

async fn rotate(
    ring: &Keyring,
    site: &ClientConfig,
    file: &Path,
    id: &KeyId,
) -> anyhow::Result<String> {
    ring.activate(id)
        .await
        .with_context(|| format!("cannot make key {id} sign ({HINT})"))?;
    if line_of(site, id).is_none() {
        eprintln!(
            "spillway: warning: {} does not trust key {id}: add its line to trusted_keys, or no update reaches Slurm",
            file.display()
        );
    }
    Ok(format!(
        "key {id} signs, within a minute also where another was in use"
    ))
}

async fn revoke(
    ring: &Keyring,
    site: &ClientConfig,
    file: &Path,
    id: &KeyId,
) -> anyhow::Result<String> {
    let was_there = ring
        .delete(id)
        .await
        .with_context(|| format!("cannot revoke key {id} ({HINT})"))?;
    let done = if was_there {
        format!("the private half of key {id} is deleted")
    } else {
        format!("there is no private half of key {id}")
    };
    Ok(match line_of(site, id) {
        Some(line) => format!(
            "{done}\nRemove this from trusted_keys on each head node; what it signed in the last ten minutes is \
             refused from then on, and comes again under the key that signs now:\n\n    \"{line}\""
        ),
        None => format!("{done}; {} does not trust it", file.display()),
    })
}

/// The line of a key in this machine's configuration.
fn line_of<'a>(site: &'a ClientConfig, id: &KeyId) -> Option<&'a PublicKey> {
    let mut keys = site.callback.trusted_keys.iter();
    keys.find(|key| key.id() == *id)
}

#[cfg(test)]
mod tests {
    use spillway_core::envelope::SigningKey;

    use super::*;

    #[test]
    fn a_listing_shows_keys_wherever_they_are() {
        let [stored, signing, trusted] = [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let kept = |key: &SigningKey| KeptKey {
            id: key.id(),
            created: "2026-11-23T16:00:00Z".to_owned(),
        };
        let rows = rows(
            vec![kept(&stored), kept(&signing)],
            Some(&signing.id()),
            &[signing.public(), trusted.public()],
        );
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.created.is_some(), row.active, row.trusted_here))
            .collect();
        assert_eq!(
            seen,
            [
                (true, false, false),
                (true, true, true),
                (false, false, true)
            ]
        );
        assert_eq!(rows[2].id, trusted.id());
    }
}
