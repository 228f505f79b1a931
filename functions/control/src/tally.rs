//! What an invocation did, in numbers; the runtime writes them as one metric event.

use std::collections::BTreeMap;

/// Counts and gauges by name. Names are those of CloudWatch metrics in the namespace `Spillway`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally(BTreeMap<&'static str, f64>);

/// Nodes that a resume request was accepted for.
pub const NODES_RESUMED: &str = "NodesResumed";
/// Nodes that a suspend request was accepted for.
pub const NODES_SUSPENDED: &str = "NodesSuspended";
/// Nodes for which a request came that was overtaken by a newer one.
pub const NODES_STALE: &str = "NodesStale";
/// Instances that EC2 launched.
pub const INSTANCES_LAUNCHED: &str = "InstancesLaunched";
/// Instances whose termination EC2 took.
pub const INSTANCES_TERMINATED: &str = "InstancesTerminated";
/// Nodes that Slurm is told will not come.
pub const NODES_FAILED: &str = "NodesFailed";
/// Nodes that a cap of the site's kept from being launched.
pub const NODES_OVER_LIMIT: &str = "NodesOverLimit";
/// Nodes that drain because their instances are about to go.
pub const NODES_LEAVING: &str = "NodesLeaving";
/// Nodes whose jobs were queued again because their instances are about to go.
pub const NODES_REQUEUED: &str = "NodesRequeued";
/// Instances of ours that EC2 said were stopped or ended while they served a node.
pub const INSTANCES_GONE: &str = "InstancesGone";
/// Instances that notices named and that are not ours.
pub const NOTICES_OF_STRANGERS: &str = "NoticesOfStrangers";
/// Pools that EC2 had nothing in, or takes instances back from, and that are left alone for a while.
pub const POOLS_RESTING: &str = "PoolsResting";
/// Node groups that stopped launching because their instances do not join.
pub const GROUPS_PROTECTED: &str = "GroupsProtected";
/// Nodes of requests that the policy does not name.
pub const NODES_UNKNOWN: &str = "NodesUnknown";
/// Nodes that joined.
pub const NODES_READY: &str = "NodesReady";
/// Updates of single nodes put into envelopes.
pub const UPDATES_SENT: &str = "UpdatesSent";
/// Updates of single nodes that the agent has dealt with.
pub const UPDATES_ACKNOWLEDGED: &str = "UpdatesAcknowledged";
/// Updates of single nodes not acknowledged when their resend timer fired.
pub const UPDATES_UNACKNOWLEDGED: &str = "UpdatesUnacknowledged";
/// Updates that the agent found overtaken: for another request than the node's last, or an older one of it.
pub const UPDATES_STALE: &str = "UpdatesStale";
/// Updates that slurmctld refused.
pub const UPDATES_REFUSED: &str = "UpdatesRefused";
/// Envelopes that the head node refused: forged, of an unknown key, too old and so on.
pub const ENVELOPES_REFUSED: &str = "EnvelopesRefused";
/// By how much the head node's clock is off, in seconds, either way.
pub const CLOCK_SKEW_SECONDS: &str = "ClockSkewSeconds";
/// Batches of envelopes that the updates queue did not take; Run Command carried them.
pub const ENVELOPES_NOT_QUEUED: &str = "EnvelopesNotQueued";
/// Commands with envelopes that could not be sent, or did not succeed on a head node.
pub const COMMANDS_FAILED: &str = "CommandsFailed";
/// Events that the stack's bus took.
pub const EVENTS_PUBLISHED: &str = "EventsPublished";
/// Sweeps, also those that left it to another.
pub const SWEEPS: &str = "Sweeps";
/// What a sweep found wrong.
pub const SWEEP_FINDINGS: &str = "SweepFindings";
/// What a sweep healed.
pub const SWEEP_HEALED: &str = "SweepHealed";
/// Sweeps that would have taken away more than the site allows, and took nothing.
pub const SWEEPS_STOPPED: &str = "SweepsStopped";
/// Instances that no node and no launch owned, ended by a sweep.
pub const ORPHANS_ENDED: &str = "OrphansEnded";
/// Age of the agent's sign of life, in seconds.
pub const HEARTBEAT_AGE_SECONDS: &str = "HeartbeatAgeSeconds";
/// Records set aside as malformed or another cluster's.
pub const RECORDS_QUARANTINED: &str = "RecordsQuarantined";
/// Records that failed and will be delivered again.
pub const RECORDS_FAILED: &str = "RecordsFailed";

/// Metrics of the cluster as a whole, whichever function publishes them: their only dimension is `Cluster`. Those of all
/// others are `Cluster` and `Function`, and an alarm must name both.
pub const OF_THE_CLUSTER: [&str; 11] = [
    COMMANDS_FAILED,
    HEARTBEAT_AGE_SECONDS,
    UPDATES_UNACKNOWLEDGED,
    ENVELOPES_REFUSED,
    CLOCK_SKEW_SECONDS,
    NODES_OVER_LIMIT,
    NODES_UNKNOWN,
    GROUPS_PROTECTED,
    SWEEPS,
    SWEEPS_STOPPED,
    ORPHANS_ENDED,
];

impl Tally {
    /// Adds `count` to `name`.
    pub fn add(&mut self, name: &'static str, count: usize) {
        // Counts stay far below 2^52.
        #[expect(clippy::cast_precision_loss)]
        let count = count as f64;
        *self.0.entry(name).or_default() += count;
    }

    /// Sets `name`.
    pub fn set(&mut self, name: &'static str, value: f64) {
        self.0.insert(name, value);
    }

    /// Takes in another's counts, and of two ages or skews the greater.
    pub fn merge(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            let own = self.0.entry(name).or_default();
            *own = if [HEARTBEAT_AGE_SECONDS, CLOCK_SKEW_SECONDS].contains(name) {
                own.max(*value)
            } else {
                *own + value
            };
        }
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.0.iter().map(|(name, value)| (*name, *value))
    }
}
