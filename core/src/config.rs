//! `spillway.toml`, the one file that describes a site, and what becomes of it: the head node's own
//! settings ([`ClientConfig`]) and the policy that `spillway config push` stores in the table and that
//! the Lambdas read ([`Policy`]).

mod check;
mod client;
mod error;
mod file;
mod healing;
mod limits;
mod policy;
mod read;

pub use check::{
    JOIN_MARGIN_SECONDS, MAX_LAUNCHES_PER_HOUR_PER_NODE, MAX_NODES, MAX_POLICY_BYTES,
    MAX_POLL_INTERVAL_SECONDS, MAX_POOLS, MAX_RESUME_TIMEOUT_SECONDS, MAX_SITE_TAGS,
    MAX_SOCKET_PATH_LENGTH, MAX_TAG_KEY_LENGTH, MAX_TAG_VALUE_LENGTH, MAX_TRUSTED_KEYS,
    MIN_JOIN_TIMEOUT_SECONDS, MIN_POLL_INTERVAL_SECONDS, MIN_RESUME_TIMEOUT_SECONDS,
};
pub use client::{
    AwsAccess, CallbackSettings, ClientConfig, LogLevel, NO_TRUSTED_KEYS, Queues, SlurmSettings,
    UpdateRoads,
};
pub use error::{ConfigError, ConfigErrors};
pub use healing::{HeadNodeAway, NoticeAction, NoticePolicy, SweepPolicy};
pub use limits::{
    DEFAULT_EC2_INSTANCES_AT_ONCE, DEFAULT_EC2_INSTANCES_PER_SECOND,
    DEFAULT_LAUNCHES_PER_HOUR_PER_NODE, Limits, OwnerLimits,
};
pub use policy::{
    CapacityKind, NodeGroup, NodeGroups, OnDemandAllocation, POLICY_VERSION, PartitionPolicy,
    Policy, PolicyError, Strategy, Subnet,
};

/// A site, checked as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// What the head node needs.
    pub client: ClientConfig,
    /// What the Lambdas need.
    pub policy: Policy,
}

impl Site {
    /// Reads the text of a `spillway.toml`; `file` is its name for messages. All errors of form are
    /// found in one run, then all of meaning.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let located = |problems| error::locate(problems, text, file, |_| 0..0);
        let document = read::Document::parse(text).map_err(located)?;
        let site = document.read().and_then(check::check);
        site.map_err(|problems| error::locate(problems, text, file, |path| document.span_of(path)))
    }
}

impl ClientConfig {
    /// Reads the head node's own settings and leaves the policy unchecked: the programs that slurmctld
    /// runs have milliseconds, and a policy of 10,000 nodes costs ten of them.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let located = |problems| error::locate(problems, text, file, |_| 0..0);
        let document = read::Document::parse(text).map_err(located)?;
        Self::of(&document, text, file)
    }

    /// The same as if there were no `[callback]`, for the programs that slurmctld runs: while an operator changes
    /// keys, a slip there must not cost a request.
    pub fn parse_without_callback(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let located = |problems| error::locate(problems, text, file, |_| 0..0);
        let mut document = read::Document::parse(text).map_err(located)?;
        document.leave_out("callback");
        Self::of(&document, text, file)
    }

    fn of(document: &read::Document<'_>, text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let client = document.read().and_then(check::check_client);
        client
            .map_err(|problems| error::locate(problems, text, file, |path| document.span_of(path)))
    }
}

/// The JSON Schema of `spillway.toml`, for editors and for `events/schemas`.
#[must_use]
pub fn schema() -> serde_json::Value {
    read::schema(false)
}
