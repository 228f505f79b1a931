//! Spillway's model of the world outside. `ec2` is plain data and functions: no async, no clock, no randomness but a
//! seed; the lab serves it over HTTP. `sim` is the whole world in memory, in which the use-cases run by a seed; `site_bus`
//! is an event bus beside it.

pub mod ec2;
pub mod sim;
pub mod site_bus;
