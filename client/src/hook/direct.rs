//! Without an agent the program sends by itself, for as long as its time allows. What it could not send
//! stays in the spool.

use std::time::Duration;

use spillway_core::config::ClientConfig;
use spillway_core::name::Generation;

use crate::aws::sqs::Sqs;
use crate::spool::{Slot, Spool};

/// Sends one request. Failing is no error: the agent will.
pub fn send(config: &ClientConfig, spool: &Spool, generation: Generation, budget: Duration) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    let attempt = async {
        let slot = Slot {
            generation,
            sent: false,
        };
        let entry = spool.read(slot).map_err(|_| ())?;
        let sqs = Sqs::connect(config).await.map_err(|_| ())?;
        for part in &entry.parts {
            sqs.send(entry.header.target.into(), part)
                .await
                .map_err(|_| ())?;
        }
        Ok::<(), ()>(())
    };
    let sent = runtime.block_on(async { tokio::time::timeout(budget, attempt).await });
    if let Ok(Ok(())) = sent {
        // If the agent came up meanwhile and sent it too, the file is gone; so is the need for the note.
        let _ = spool.mark_sent(generation);
    }
    // A name look-up without an answer must not keep us.
    runtime.shutdown_background();
}
