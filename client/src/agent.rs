//! `spillway agent`, the one process on the head node that talks to AWS for Slurm: it sends what the
//! programs have put into the spool, applies updates, and reports. All it must know after a crash is in
//! the spool directory, so it may be killed at any moment.

mod connection;
mod expired;
mod known_jobs;
mod node_states;
mod queue;
mod reporter;
mod sender;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use spillway_core::config::{ClientConfig, Site};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::aws::sqs::{Sqs, SqsError};
use crate::callback::refused::Refused;
use crate::callback::{Keeper, Ledger, Receiver};
use crate::config;
use crate::files;
use crate::slurm::Slurm;
use crate::spool::{self, Target};
use crate::wake;
use connection::Connection;

/// What the tasks of the agent share.
struct Agent {
    config: ClientConfig,
    /// Those that have burst nodes.
    partitions: HashSet<String>,
    /// Spool, memory, Slurm and the queues.
    receiver: Receiver,
    /// Envelopes, since the last heartbeat.
    refused: Refused,
    connection: Connection,
    /// A program has put something into the spool.
    wake: Notify,
    /// Why the requests of a queue wait, for Slurm's Reason.
    send_trouble: Mutex<HashMap<Target, SqsError>>,
}

impl Agent {
    /// Held for moments and never across an await.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.receiver.ledger()
    }

    fn send_trouble(&self) -> MutexGuard<'_, HashMap<Target, SqsError>> {
        self.send_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the agent until SIGTERM. `path`: the configuration, if not the default one.
pub fn run(path: Option<&Path>) -> anyhow::Result<()> {
    let path = path.map_or_else(config::default_file, Path::to_owned);
    let site = config::load(&path)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!("warn,spillway={}", site.client.log_level.as_str()))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(site, &path))
}

async fn serve(site: Site, path: &Path) -> anyhow::Result<()> {
    let config = site.client.clone();
    spool::check_user(&config.spool_directory)?;
    for directory in [
        Some(config.spool_directory.as_path()),
        config.socket.parent(),
        config.jobs_file.parent(),
    ] {
        directory.map_or(Ok(()), files::make_directory)?;
    }
    // Held until the process ends.
    let _lock = lock(&config.spool_directory)?;
    let listener = wake::listen(&config.socket)
        .with_context(|| format!("cannot listen on {}", config.socket.display()))?;
    let slurm = Slurm::new(&config.slurm);
    let sqs = Sqs::connect(&config).await?;
    let agent = Arc::new(Agent {
        partitions: reporter::partitions(&site),
        receiver: Receiver::open(&config, path, Keeper::Agent, slurm, sqs)?,
        refused: Refused::default(),
        connection: Connection::new(),
        wake: Notify::new(),
        send_trouble: Mutex::new(HashMap::new()),
        config,
    });
    let woken = Arc::clone(&agent);
    std::thread::Builder::new()
        .name("wake".to_owned())
        .spawn(move || wake::serve(&listener, || woken.wake.notify_one()))
        .context("cannot start a thread")?;
    info!(cluster = %agent.config.cluster, version = env!("CARGO_PKG_VERSION"), "agent started");
    // Says whose word counts, or that nobody's does.
    agent.receiver.settings();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => info!("agent stopped by SIGTERM"),
        _ = interrupt.recv() => info!("agent stopped by SIGINT"),
        end = sender::run(Arc::clone(&agent)) => end.context("the sender ended")?,
        end = queue::run(Arc::clone(&agent)) => end.context("taking updates ended")?,
        () = expired::run(Arc::clone(&agent)) => {}
        () = reporter::heartbeats(Arc::clone(&agent)) => {}
        () = reporter::observations(Arc::clone(&agent)) => {}
    }
    Ok(())
}

/// One agent per spool: two would both send and both apply.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("agent.lock");
    let file = files::open_or_make(&path)?;
    if file.try_lock().is_err() {
        bail!(
            "another agent holds {}: only one may run per spool",
            path.display()
        );
    }
    Ok(file)
}
