//! `spillway agent`, the one process on the head node that talks to AWS for Slurm: it sends what the
//! programs have put into the spool, applies updates, and reports. All it must know after a crash is in
//! the spool directory, so it may be killed at any moment.

mod apply;
mod connection;
mod expired;
mod judge;
mod known_jobs;
mod ledger;
mod memory;
mod reporter;
mod sender;
mod updates;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use spillway_core::config::{ClientConfig, Site};
use spillway_core::message::{Message, ReportBody};
use spillway_core::name::NodeName;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::aws::sqs::{Queue, Sqs, SqsError};
use crate::config;
use crate::files;
use crate::slurm::{NodeRow, Slurm};
use crate::spool::{self, Target};
use crate::wake;
use connection::Connection;
use ledger::Ledger;

/// What the tasks of the agent share.
struct Agent {
    config: ClientConfig,
    /// Those that have burst nodes.
    partitions: HashSet<String>,
    slurm: Slurm,
    sqs: Sqs,
    ledger: Mutex<Ledger>,
    connection: Connection,
    /// A program has put something into the spool.
    wake: Notify,
    /// Why the requests of a queue wait, for Slurm's Reason.
    send_trouble: Mutex<HashMap<Target, SqsError>>,
}

impl Agent {
    /// Held for moments and never across an await.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic elsewhere leaves the ledger whole: it is changed only by its own methods.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_trouble(&self) -> MutexGuard<'_, HashMap<Target, SqsError>> {
        self.send_trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn report(&self, body: ReportBody) -> Result<(), SqsError> {
        let message = Message::new(self.config.cluster.clone(), body);
        self.sqs.send(Queue::Reports, &message.to_json()).await
    }
}

fn by_name(rows: Vec<NodeRow>) -> HashMap<NodeName, NodeRow> {
    rows.into_iter()
        .map(|row| (row.node.clone(), row))
        .collect()
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
        .block_on(serve(site))
}

async fn serve(site: Site) -> anyhow::Result<()> {
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
    let agent = Arc::new(Agent {
        partitions: reporter::partitions(&site),
        slurm: Slurm::new(&config.slurm),
        sqs: Sqs::connect(&config).await?,
        ledger: Mutex::new(Ledger::open(&config.spool_directory)?),
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
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => info!("agent stopped by SIGTERM"),
        _ = interrupt.recv() => info!("agent stopped by SIGINT"),
        end = sender::run(Arc::clone(&agent)) => end.context("the sender ended")?,
        end = updates::run(Arc::clone(&agent)) => end.context("taking updates ended")?,
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
