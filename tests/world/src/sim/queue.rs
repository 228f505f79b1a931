//! One standard queue of SQS: at least once, in no order, with visibility, delay, receive count and a dead-letter
//! queue.

use std::collections::BTreeMap;

use spillway_control::sender::Sender;
use spillway_core::message::{ReportBody, ResumeQueueBody, SuspendQueueBody};

/// Visibility of every queue (template: `QueueVisibilitySeconds`).
pub(crate) const VISIBILITY_MS: u64 = 70_000;

/// What a message says. Text is only what the agent gets: bodies of the other queues are read and written by code
/// that has tests of its own.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Resume(ResumeQueueBody),
    Suspend(SuspendQueueBody),
    Report(ReportBody),
    Envelope(String),
    /// An event, as EventBridge delivers it.
    Notice(String),
}

/// A message in a queue.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub id: u64,
    pub body: Body,
    pub sender: Sender,
    /// When SQS took it.
    pub sent_ms: u64,
    /// Nobody receives it before.
    pub visible_ms: u64,
    /// How often it was received.
    pub receives: u32,
    /// Wrong on purpose: it belongs into the dead-letter queue.
    pub poison: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub messages: BTreeMap<u64, Message>,
    pub dead: Vec<Message>,
    max_receives: u32,
}

impl Queue {
    pub(crate) fn new(max_receives: u32) -> Self {
        Self {
            messages: BTreeMap::new(),
            dead: Vec::new(),
            max_receives,
        }
    }

    /// Up to `most` messages that can be received now, in an order by chance. Each is invisible for a while, unless
    /// it is one that `stays`: that one is delivered once more.
    pub(crate) fn receive(
        &mut self,
        now_ms: u64,
        most: usize,
        rng: &mut fastrand::Rng,
        mut stays: impl FnMut(&Message) -> bool,
    ) -> Vec<Message> {
        let visible = self.messages.values().filter(|m| m.visible_ms <= now_ms);
        let mut ids: Vec<u64> = visible.map(|message| message.id).collect();
        rng.shuffle(&mut ids);
        let mut received = Vec::new();
        for id in ids {
            if received.len() == most {
                break;
            }
            let Some(message) = self.messages.get_mut(&id) else {
                continue;
            };
            if message.receives >= self.max_receives {
                self.dead.extend(self.messages.remove(&id));
                continue;
            }
            message.receives += 1;
            message.visible_ms = now_ms + if stays(message) { 1_000 } else { VISIBILITY_MS };
            received.push(message.clone());
        }
        received
    }
}
