//! A clock that stands.

use spillway_control::ports::Clock;

/// Always this time, Unix milliseconds: who waits goes on at once.
#[derive(Debug)]
pub struct At(pub u64);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        self.0
    }
    async fn sleep_ms(&self, _ms: u64) {}
    fn fresh_id(&self) -> String {
        "fresh".to_owned()
    }
}
