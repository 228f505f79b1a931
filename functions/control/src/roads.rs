//! The roads home: an envelope is sealed once and goes, the same text, by the updates queue and by Run Command.
//! Each road is tried whatever becomes of the other; the second copy costs the head node nothing.

use spillway_core::envelope::{Envelope, SigningKey, seal};
use spillway_core::message::ReportBody;
use tracing::{info, warn};

use crate::fault::{Fault, FaultKind};
use crate::ports::{Clock, Commands, Control, Keys, Queues, Table};
use crate::tally::{self, Tally};

/// When it is looked what became of a command. By then it has ended: SSM gives up delivering it after 30 s, and the
/// document gives it 30 s to run.
const COMMAND_ENDED_SECONDS: u64 = 65;

/// What an envelope needs on its way. A site uses one road or both.
#[derive(Debug)]
pub struct Roads<K, S> {
    /// Who seals.
    pub keys: K,
    /// Whether the agent is told by the updates queue.
    pub queue: bool,
    /// Run Command, where the head nodes are told that way.
    pub commands: Option<S>,
}

/// Sends `envelopes` by every road in use. A road that fails is logged and counted; it is a fault only if no road
/// has carried all of them.
pub async fn send<T: Table, Q: Queues, C: Clock, K: Keys, S: Commands>(
    control: &Control<T, Q, C>,
    roads: &Roads<K, S>,
    envelopes: &[Envelope],
) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    if envelopes.is_empty() {
        return Ok(tally);
    }
    let key = roads.keys.signing_key().await?;
    let sealed = sealed(control, envelopes, &key)?;
    let by_queue = async {
        if !roads.queue {
            return None;
        }
        Some(send_by_queue(control, &sealed).await)
    };
    let by_command = async {
        let commands = roads.commands.as_ref()?;
        Some(send_by_command(control, commands, &sealed).await)
    };
    let (by_queue, by_command) = futures::join!(by_queue, by_command);
    let carried = [&by_queue, &by_command]
        .iter()
        .any(|road| matches!(road, Some(Ok(()))));
    let mut last = None;
    for (road, counter, result) in [
        ("the updates queue", tally::ENVELOPES_NOT_QUEUED, by_queue),
        ("Run Command", tally::COMMANDS_FAILED, by_command),
    ] {
        if let Some(Err(fault)) = result {
            warn!(%fault, "envelopes cannot be sent by {road}");
            tally.add(counter, 1);
            last = Some(fault);
        }
    }
    match last {
        Some(fault) if !carried => Err(fault),
        _ => Ok(tally),
    }
}

fn sealed<T, Q, C>(
    control: &Control<T, Q, C>,
    envelopes: &[Envelope],
    key: &SigningKey,
) -> Result<Vec<String>, Fault> {
    let seal = |envelope| seal(&control.cluster, envelope, key);
    let sealed: Result<_, _> = envelopes.iter().map(seal).collect();
    sealed.map_err(|error| Fault {
        kind: FaultKind::Invalid,
        service: "spillway".into(),
        operation: "seal".into(),
        code: "EnvelopeTooLarge".to_owned(),
        message: error.to_string(),
    })
}

async fn send_by_queue<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    sealed: &[String],
) -> Result<(), Fault> {
    for envelope in sealed {
        control.queues.send_envelope(envelope).await?;
    }
    Ok(())
}

async fn send_by_command<T: Table, Q: Queues, C: Clock, S: Commands>(
    control: &Control<T, Q, C>,
    commands: &S,
    sealed: &[String],
) -> Result<(), Fault> {
    for envelope in sealed {
        let sent = commands.send(envelope).await?;
        info!(command_id = sent.command_id, head_nodes = ?sent.head_nodes, "command sent");
        let timer = ReportBody::Command(sent);
        let timer = control.queues.send_report(timer, COMMAND_ENDED_SECONDS);
        if let Err(fault) = timer.await {
            warn!(%fault, "nobody will look what becomes of this command");
        }
    }
    Ok(())
}
