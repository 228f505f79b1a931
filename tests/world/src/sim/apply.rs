//! Envelopes at the head node: opened, judged by generation, number and Slurm's state, applied, acknowledged.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use spillway_control::sender::Sender;
use spillway_core::envelope::{Envelope, Update, UpdateAction, open};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{Acknowledge, Message, ReportBody, UpdateOutcome, UpdateResult};

use super::names::{Call, Trouble};
use super::queue::Body;
use super::slurm::Power;
use super::words;
use super::world::{UPDATES, World};

/// How many envelopes the agent takes at once.
const MOST: usize = 10;
/// Every so many envelopes the signature is verified too: it costs more than all the rest of an envelope's way, and
/// has tests of its own.
const VERIFIED: u64 = 32;

/// What an update is to one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Apply,
    AlreadySo,
    Stale(&'static str),
}

impl World {
    /// The agent looks into the updates queue.
    pub(crate) fn agent_receives(&mut self) {
        if self.client.away {
            return;
        }
        let twice = &mut self.functions.twice;
        let stays = |message: &super::queue::Message| twice.remove(&message.id);
        let received = self.queues[UPDATES].receive(self.now_ms, MOST, &mut self.rng, stays);
        for message in received {
            self.look_into(UPDATES, message.visible_ms - self.now_ms);
            let Body::Envelope(sealed) = &message.body else {
                continue;
            };
            if self.client.away || !self.take_envelope(sealed) {
                return;
            }
            self.queues[UPDATES].messages.remove(&message.id);
        }
    }

    /// `spillway apply` is run with an envelope.
    pub(crate) fn command_arrives(&mut self, sealed: &str) {
        if self.client.away {
            self.tell(|| "   a command does not reach the head node".to_owned());
        } else {
            self.take_envelope(sealed);
        }
    }

    /// Deals with one copy of an envelope; false if the agent died over it.
    fn take_envelope(&mut self, sealed: &str) -> bool {
        let envelope = self.open(sealed);
        if envelope.expires_ms <= self.head_now_ms() {
            self.tell(|| format!("   envelope {} has expired", envelope.envelope_id));
            return true;
        }
        if self.client.seen.contains(&envelope.envelope_id) {
            return true;
        }
        let mut results = Vec::new();
        for update in &envelope.updates {
            self.apply(update, &mut results);
        }
        if self.strike(Call::Apply, false) == Some(Trouble::CrashAfter) {
            let for_ms = self.rng.u64(1_000..=20_000);
            self.agent_is_away(for_ms);
            return false;
        }
        let acknowledge = Acknowledge {
            envelope_id: envelope.envelope_id.clone(),
            results,
        };
        self.client.seen.insert(envelope.envelope_id);
        self.send_report(ReportBody::Acknowledge(acknowledge), Sender::Other, 0);
        true
    }

    fn open(&mut self, sealed: &str) -> Envelope {
        self.client.opened += 1;
        let cluster = &self.setting.cluster;
        if self.client.opened.is_multiple_of(VERIFIED) {
            let trusted = [self.client.signing_key().public()];
            return open(sealed, cluster, &trusted).expect("sealed by us");
        }
        let payload = sealed
            .rsplit('.')
            .nth(1)
            .expect("a sealed envelope has a payload");
        let json = URL_SAFE_NO_PAD.decode(payload).expect("base64");
        let json = String::from_utf8(json).expect("JSON");
        Message::parse(&json, cluster).expect("a message of ours")
    }

    fn apply(&mut self, update: &Update, results: &mut Vec<UpdateResult>) {
        let list = Hostlist::parse(&update.nodes).expect("our own hostlist");
        let names = list.node_names().expect("our own names");
        let mut failing = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let address = match &update.action {
                UpdateAction::Address { addresses } => Some(addresses[index]),
                _ => None,
            };
            let outcome = match self.slurm.index(name) {
                None => Verdict::Stale("slurmctld does not show it"),
                Some(node) => self.judge(node, update, address),
            };
            self.tell(|| {
                let (number, generation) = (update.number, update.generation);
                let what = words::update(&update.action);
                format!("   update {number} for {name} at {generation}: {what}: {outcome:?}")
            });
            let result = |outcome| UpdateResult {
                nodes: hostlist::fold([name]),
                generation: update.generation,
                number: update.number,
                outcome,
            };
            if let Verdict::Stale(reason) = outcome {
                let reason = reason.to_owned();
                results.push(result(UpdateOutcome::Stale { reason }));
                continue;
            }
            results.push(result(UpdateOutcome::Applied));
            let Some(node) = self.slurm.index(name) else {
                continue;
            };
            if let Some(history) = &mut self.client.history[node] {
                history.applied = history.applied.max(update.number);
            }
            if outcome != Verdict::Apply {
                continue;
            }
            match &update.action {
                UpdateAction::Address { .. } => self.slurm.nodes[node].address = address,
                UpdateAction::Fail { .. } | UpdateAction::Recover { .. } => failing.push(node),
                UpdateAction::Drain { .. } => self.drain(node),
                UpdateAction::Requeue { .. } => self.requeue(node),
            }
        }
        if !failing.is_empty() {
            self.power_down_force(&failing);
        }
    }

    fn judge(&self, node: usize, update: &Update, address: Option<IpAddr>) -> Verdict {
        let Some(history) = self.client.history[node] else {
            return Verdict::Stale("nothing was requested for it here");
        };
        if update.generation != history.generation {
            return Verdict::Stale("it answers another request");
        }
        if !history.resume {
            return Verdict::Stale("its last request is a suspend");
        }
        if update.number < history.applied {
            return Verdict::Stale("a later one was applied");
        }
        if update.number == history.applied {
            return Verdict::AlreadySo;
        }
        let row = &self.slurm.nodes[node];
        match (row.power, address) {
            (Power::Down | Power::PoweringDown, _) => Verdict::Stale("it is let go"),
            (_, Some(address)) if row.address == Some(address) => Verdict::AlreadySo,
            (Power::Up, Some(_)) => Verdict::Stale("it has joined at another address"),
            (Power::PoweringUp(_), None) if !matches!(update.action, UpdateAction::Fail { .. }) => {
                Verdict::Stale("it has not joined yet")
            }
            _ => Verdict::Apply,
        }
    }
}
