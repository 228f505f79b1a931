//! Spillway's pure core: names, hostlists, the site's configuration, messages, the pairing state
//! machine and the planners. No AWS, no async, no clock, no randomness, no environment, no files:
//! what a function needs to know is among its arguments.

pub mod budget;
pub mod capacity;
pub mod config;
pub mod envelope;
pub mod gang;
pub mod hostlist;
pub mod message;
pub mod name;
pub mod node_state;
pub mod notice;
pub mod pairing;
pub mod plan;
pub mod record;
pub mod site_event;
pub mod sweep;
pub mod tag;
pub mod usage;
