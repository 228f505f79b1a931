//! `spillway.toml`, the one file that describes a site, and what becomes of it: the head node's own
//! settings ([`ClientConfig`]) and the policy that `spillway config push` stores in the table and that
//! the Lambdas read ([`Policy`]).

mod client;
mod policy;

pub use client::{AwsAccess, ClientConfig, LogLevel, Queues, SlurmSettings};
pub use policy::{
    CapacityKind, Limits, NodeGroup, NodeGroups, POLICY_VERSION, Policy, PolicyError, Subnet,
};

/// A site, checked as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What the head node needs.
    pub client: ClientConfig,
    /// What the Lambdas need.
    pub policy: Policy,
}
