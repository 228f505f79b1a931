//! The stack's event bus in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::EventBus;
use spillway_core::site_event::SiteEvent;

/// A bus that keeps what it took, and refuses what it is told to.
#[derive(Debug, Default)]
pub struct MemoryBus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<SiteEvent>,
    /// Whether the next events are taken; those after them are.
    next: VecDeque<bool>,
}

impl MemoryBus {
    /// What it took, in order.
    #[must_use]
    pub fn taken(&self) -> Vec<SiteEvent> {
        self.lock().taken.clone()
    }

    /// Whether it takes each of the next events.
    pub fn expect(&self, taken: impl IntoIterator<Item = bool>) {
        self.lock().next.extend(taken);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventBus for MemoryBus {
    async fn publish(&self, events: &[SiteEvent]) -> Vec<Result<(), Fault>> {
        let mut state = self.lock();
        let take = |event: &SiteEvent| {
            if state.next.pop_front().unwrap_or(true) {
                state.taken.push(event.clone());
                return Ok(());
            }
            Err(Fault {
                kind: FaultKind::Throttled,
                service: "events".into(),
                operation: "PutEvents".into(),
                code: "ThrottlingException".to_owned(),
                message: "by a test".to_owned(),
            })
        };
        events.iter().map(take).collect()
    }
}
