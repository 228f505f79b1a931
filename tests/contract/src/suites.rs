//! What the ports promise, each promise a function that any world can be held to. Every world is held to them twice:
//! the adapters on the emulator (`tests/emulator.rs`), and the world in memory (`tests/memory.rs`).
//!
//! Where the world in memory differs and is to differ:
//!
//! - It takes records of any size; the adapter refuses what an item cannot hold (`RecordTooLarge`).
//! - Its index of updates due does not lag but where a fault has it lag.
//! - It always has a policy.
//! - Its Run Command runs what it is sent where the simulation has it run; the adapter's is the lab's own
//!   (`tests/lab/tests/stories/roads.rs`).

pub mod covered;
pub mod ec2;
pub mod events;
pub mod instances;
pub mod keys;
pub mod pairings;
pub mod queues;
pub mod records;

/// Keeps promises one after the other, and says which.
macro_rules! promises {
    ($($promise:ident),+ => $subject:expr) => {$(
        eprintln!("{}", stringify!($promise));
        $promise($subject).await;
    )+};
}
pub(crate) use promises;
