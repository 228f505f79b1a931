//! What the use-cases send: messages, commands, and the key that seals.

use std::sync::Arc;

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{CommandOutcome, CommandOutcomes, Commands, Keys, Queues};
use spillway_control::sender::Sender;
use spillway_core::envelope::SigningKey;
use spillway_core::message::{CommandSent, ReportBody, ResumeQueueBody, SuspendQueueBody};

use super::names::{Call, Trouble};
use super::port::{Port, fault};
use super::queue::Body;
use super::words;
use super::world::{Due, REPORTS, RESUME, SUSPEND, UPDATES, World};

impl Port {
    async fn send(&self, call: Call, queue: usize, body: Body, seconds: u64) -> Result<(), Fault> {
        // Repeated by the SDK, it is there twice.
        let effect = |world: &mut World, _| {
            world.tell(|| {
                let when = if seconds > 0 {
                    format!(", in {seconds} s")
                } else {
                    String::new()
                };
                format!("   sends {}{when}", words::body(&body))
            });
            world.send(queue, body.clone(), Sender::Other, seconds);
        };
        self.call(call, effect).await
    }
}

impl Queues for Port {
    async fn send_resume(&self, body: ResumeQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        self.send(Call::SendResume, RESUME, Body::Resume(body), delay_seconds)
            .await
    }

    async fn send_suspend(&self, body: SuspendQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        let body = Body::Suspend(body);
        self.send(Call::SendSuspend, SUSPEND, body, delay_seconds)
            .await
    }

    async fn send_report(&self, body: ReportBody, delay_seconds: u64) -> Result<(), Fault> {
        self.send(Call::SendReport, REPORTS, Body::Report(body), delay_seconds)
            .await
    }

    async fn send_envelope(&self, sealed: &str) -> Result<(), Fault> {
        let body = Body::Envelope(sealed.to_owned());
        self.send(Call::SendEnvelope, UPDATES, body, 0).await
    }
}

impl Keys for Port {
    async fn signing_key(&self) -> Result<Arc<SigningKey>, Fault> {
        self.call(Call::SigningKey, |world, _| world.client.signing_key())
            .await
    }
}

impl Commands for Port {
    async fn send(&self, sealed: &str) -> Result<CommandSent, Fault> {
        let effect = |world: &mut World, _| {
            let trouble = world.strike(Call::Command, self.spared);
            let mut after_ms = world.rng.u64(200..=3_000);
            if trouble == Some(Trouble::Slow) {
                after_ms += world.rng.u64(5_000..=60_000);
            }
            if trouble != Some(Trouble::Lost) {
                world.after(after_ms, Due::Command(sealed.to_owned()));
            }
            let command_id = format!("command-{}", world.fresh_number());
            world.commands.insert(command_id.clone());
            CommandSent {
                command_id,
                head_nodes: vec!["mi-0123456789abcdef0".to_owned()],
            }
        };
        self.call(Call::SendCommand, effect).await
    }
}

impl CommandOutcomes for Port {
    async fn outcome(&self, command_id: &str, _head_node: &str) -> Result<CommandOutcome, Fault> {
        let call = Call::Outcome;
        let way = self.way(call);
        self.there(call, way).await?;
        let is_known = self.shared.lock().commands.contains(command_id);
        if way.trouble == Some(Trouble::Unknown) || !is_known {
            return Err(fault(call, FaultKind::NotFound, "InvocationDoesNotExist"));
        }
        self.back(call, way).await?;
        Ok(CommandOutcome {
            status: "Success".to_owned(),
            exit_code: Some(0),
            error: String::new(),
        })
    }
}
