//! The world in memory, as the suites look at it.

use spillway_core::name::ClusterName;
use spillway_world::ec2::Ec2 as Model;
use spillway_world::sim::{Inbox, Port};

use crate::suites::ec2::Behind;
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
