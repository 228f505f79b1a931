//! Turns the machine off. Its launch template makes that its termination (`InstanceInitiatedShutdownBehavior`).

use std::time::Duration;

use tokio::process::Command;
use tracing::{info, warn};

use super::command;

/// A machine that was told to shut down and still runs after this is told in another way.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells the system to; another way if it does not take the first.
pub async fn shut_down() -> anyhow::Result<()> {
    let mut shutdown = Command::new("shutdown");
    shutdown.args(["-h", "now"]);
    let Err(first) = command::run(shutdown, b"", SHUTDOWN_TIMEOUT).await else {
        info!("shutting down");
        return Ok(());
    };
    warn!("shutdown: {}", first.words());
    command::run(Command::new("poweroff"), b"", SHUTDOWN_TIMEOUT).await?;
    info!("powering off");
    Ok(())
}
