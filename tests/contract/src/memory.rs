//! The world in memory, as the suites look at it.

use std::sync::Mutex;

use spillway_control::fault::Fault;
use spillway_control::ports::EventBus;
use spillway_core::name::ClusterName;
use spillway_core::site_event::SiteEvent;
use spillway_world::ec2::Ec2 as Model;
use spillway_world::sim::{Inbox, Port};
use spillway_world::site_bus::MemoryBus;

use crate::suites::ec2::Behind;
use crate::suites::events::{self, Received, Subscriber};
use crate::suites::queues::{Letter, Reader};

impl Reader for Port {
    fn cluster(&self) -> ClusterName {
        self.pushed_policy().cluster
    }

    async fn receive(&self, from: Inbox) -> Vec<Letter> {
        let received = Self::receive(self, from).into_iter();
        let letters = received.map(|message| Letter {
            handle: message.id.to_string(),
            text: message.text,
            receives: message.receives,
        });
        letters.collect()
    }

    async fn delete(&self, from: Inbox, letter: Letter) {
        let id = letter.handle.parse().expect("made above");
        Self::delete(self, from, id);
    }

    async fn dead_letters(&self, from: Inbox) -> Vec<String> {
        Self::dead_letters(self, from)
    }

    fn visibility_ms(&self) -> u64 {
        Inbox::VISIBILITY_MS
    }

    fn max_receives(&self, from: Inbox) -> u32 {
        from.max_receives()
    }
}

impl Behind for Port {
    fn with<R>(&self, act: impl FnOnce(&mut Model) -> R) -> R {
        self.with_ec2(act)
    }
}

/// The bus in memory, and how much of it was received.
#[derive(Debug, Default)]
pub struct Subscribed {
    bus: MemoryBus,
    received: Mutex<usize>,
}

impl EventBus for Subscribed {
    async fn publish(&self, events: &[SiteEvent]) -> Vec<Result<(), Fault>> {
        self.bus.publish(events).await
    }
}

impl Subscriber for Subscribed {
    async fn received(&self) -> Vec<Received> {
        let taken = self.bus.taken();
        let mut received = self.received.lock().expect("nobody panics");
        let new = taken.iter().skip(*received).map(events::received).collect();
        *received = taken.len();
        new
    }
}
