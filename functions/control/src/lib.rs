//! The use-cases of Spillway's control plane, and the ports through which they see the world.
//!
//! A use-case observes (reads through a port), decides (asks `spillway_core`), executes (writes through a
//! port) and reports. Events only wake it: whatever it decides, it decides from state it re-reads, so a
//! message delivered twice, late or out of order does no harm.

pub mod caps;
pub mod command;
pub mod deliver;
pub mod fault;
pub mod health;
pub mod launch;
pub mod names;
pub mod notice;
pub mod pairings;
pub mod ports;
pub mod publish;
pub mod record;
pub mod report;
pub mod roads;
pub mod sender;
pub mod shared;
pub mod stamp;
pub mod sweep;
pub mod tally;
pub mod terminate;
