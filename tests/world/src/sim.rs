//! The simulation: the use-cases of `control` in a world in memory, where everything that may go wrong does, by a
//! seed. One seed is one run of some minutes of virtual time; the same seed is the same run.
//!
//! `world` holds what is outside of the use-cases; `port` is how they see it. `functions` is Lambda, `slurm` and
//! `client` are the head node, `cloud` and `machine` are EC2 and what runs there. `watch` looks at the invariants
//! after every step.

mod alone;
mod apply;
mod burst;
mod campaign;
mod client;
mod cloud;
mod coverage;
mod events;
mod executor;
mod functions;
mod machine;
mod names;
mod outside;
mod port;
mod queue;
mod run;
mod senders;
mod setting;
mod slurm;
mod store;
mod story;
mod stray;
mod stream;
mod table;
mod watch;
mod words;
mod world;

pub use alone::{Inbox, Received, calm, calm_ec2};
pub use burst::{Burst, burst};
pub use campaign::Campaign;
pub use client::SIGNING_SEED;
pub use coverage::Coverage;
pub use port::Port;
pub use run::{Run, run, tell};
pub use setting::pools;
pub use watch::{INVARIANTS, Violation};
