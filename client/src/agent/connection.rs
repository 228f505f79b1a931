//! Whether the network is there, so that its return is reported at once: the control plane holds back
//! while it does not hear of us, and sends what is due when we say hello.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// What the last calls to SQS said of the network.
#[derive(Debug)]
pub struct Connection {
    /// A hello is due: after the start, and after the network was away.
    hello_due: AtomicBool,
    back: Notify,
}

impl Connection {
    /// Before the first call.
    pub fn new() -> Self {
        Self {
            hello_due: AtomicBool::new(true),
            back: Notify::new(),
        }
    }

    /// A call got no answer, or not the one it should.
    pub fn lost(&self) {
        self.hello_due.store(true, Ordering::SeqCst);
    }

    /// A call was answered.
    pub fn works(&self) {
        if self.is_hello_due() {
            self.back.notify_one();
        }
    }

    /// Whether the next heartbeat says hello.
    pub fn is_hello_due(&self) -> bool {
        self.hello_due.load(Ordering::SeqCst)
    }

    /// The hello was said.
    pub fn greeted(&self) {
        self.hello_due.store(false, Ordering::SeqCst);
    }

    /// Waits until the network is back and no hello has been said.
    pub async fn back(&self) {
        self.back.notified().await;
    }
}
