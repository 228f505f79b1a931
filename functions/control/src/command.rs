//! What became of the commands that carried envelopes. Nothing hangs on it, for the resend timers see to what was
//! not acknowledged; but a head node that cannot be reached this way is to be noticed.

use spillway_core::message::CommandSent;
use tracing::{info, warn};

use crate::fault::Fault;
use crate::ports::CommandOutcomes;
use crate::tally::{self, Tally};

/// The template lets a command go to four head nodes at most; a message that names more was not written by us.
const MAX_HEAD_NODES: usize = 4;

/// Looks what became of a command on each node it was sent to.
pub async fn look(outcomes: &impl CommandOutcomes, sent: &CommandSent) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let command_id = &sent.command_id;
    for head_node in sent.head_nodes.iter().take(MAX_HEAD_NODES) {
        match outcomes.outcome(command_id, head_node).await {
            Ok(outcome) if outcome.status == SUCCESS => {
                info!(command_id, head_node, "command succeeded");
            }
            Ok(outcome) => {
                let (status, error) = (&outcome.status, &outcome.error);
                let exit_code = outcome.exit_code;
                warn!(
                    command_id,
                    head_node, status, exit_code, error, "command failed: {status}"
                );
                tally.add(tally::COMMANDS_FAILED, 1);
            }
            Err(fault) if fault.is_passing() => return Err(fault),
            Err(fault) => {
                warn!(command_id, head_node, %fault, "nothing is known of a command");
                tally.add(tally::COMMANDS_FAILED, 1);
            }
        }
    }
    Ok(tally)
}

/// The one status of a command that did what it should.
const SUCCESS: &str = "Success";
