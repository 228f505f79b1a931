//! The ports: what the use-cases need of the world, in our own words. Adapters live in `functions/aws` and
//! `functions/ec2`; the simulation's live in `tests/world`.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use spillway_core::capacity::Pool;
use spillway_core::config::Policy;
use spillway_core::envelope::SigningKey;
use spillway_core::message::{CommandSent, ReportBody, ResumeQueueBody, SuspendQueueBody};
use spillway_core::name::{ClusterName, InstanceId, NodeName};
use spillway_core::pairing::{LaunchKey, Pairing};
use spillway_core::plan::LaunchCall;
use spillway_core::site_event::SiteEvent;

use crate::fault::Fault;
use crate::record::{
    AttemptKey, AttemptRecord, HeartbeatRecord, HeldBy, InstanceRecord, LaunchAnswer,
    NodeStatesRecord, Origin, RequestRecord, Stored,
};
use crate::shared::Shared;

/// A change of one pairing and, in the same transaction, of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairingWrite {
    /// The record to store.
    pub pairing: Pairing,
    /// The version it was read at; the write fails if the table holds another.
    pub expected_version: u64,
    /// What becomes of an instance with it.
    pub instance: Option<InstanceWrite>,
}

/// A change of one instance item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceWrite {
    /// It serves the node at the pairing's generation: node, generation, address and deadline are set,
    /// state becomes paired. Fails (as a version conflict would) where the item is released or terminated.
    Pair {
        /// Which.
        instance_id: InstanceId,
        /// Its private address.
        address: IpAddr,
        /// When the node must have joined.
        deadline_ms: u64,
        /// Where it comes from; none leaves what the item says of it.
        origin: Option<Origin>,
        /// Where it was launched; none leaves what the item says of it.
        pool: Option<Pool>,
    },
    /// State becomes released, unless terminated; the item is made where there is none.
    Release(InstanceId),
    /// slurmctld knows its address at the pairing's generation.
    Admit(InstanceId),
}

/// The state table. Reads are strongly consistent but for [`Table::nodes_with_update_due`].
pub trait Table: Sync {
    /// The policy last pushed.
    fn policy(&self) -> impl Future<Output = Result<Option<Policy>, Fault>> + Send;

    /// One per name, in the order of `nodes`; version 0 and [`Pairing::new`] for a node never heard of.
    fn pairings(
        &self,
        nodes: &[NodeName],
    ) -> impl Future<Output = Result<Vec<Stored<Pairing>>, Fault>> + Send;

    /// Writes each change alone: one that fails does not fail the others. Answers, in order, which were
    /// written; `false` means that the record has moved on and must be read again.
    fn write_pairings(
        &self,
        writes: &[PairingWrite],
    ) -> impl Future<Output = Result<Vec<bool>, Fault>> + Send;

    /// Names of nodes whose update is unacknowledged, by an index that may lag: a hint, never a decision.
    fn nodes_with_update_due(&self) -> impl Future<Output = Result<Vec<NodeName>, Fault>> + Send;

    /// Names of nodes that have an instance or wait for one, by an index that may lag: a hint, never a decision.
    fn active_nodes(&self) -> impl Future<Output = Result<Vec<NodeName>, Fault>> + Send;

    /// Names of all nodes that there is a pairing of, found by reading the whole table.
    fn every_node(&self) -> impl Future<Output = Result<Vec<NodeName>, Fault>> + Send;

    /// Those that exist, in no order.
    fn instances(
        &self,
        ids: &[InstanceId],
    ) -> impl Future<Output = Result<Vec<InstanceRecord>, Fault>> + Send;

    /// Marks instances of one origin released where they are neither paired nor terminated, making the item where
    /// there is none; an origin that an item has stays. For instances that no pairing took.
    fn release_unpaired(
        &self,
        ids: &[InstanceId],
        origin: &Origin,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Marks an instance released that no pairing owns, if its item is still as it was `seen` (none: there is none).
    /// Answers whether it was.
    fn release_orphan(
        &self,
        id: &InstanceId,
        seen: Option<&InstanceRecord>,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// Protects instances from being ended, or no longer, making the item where there is none.
    fn hold(
        &self,
        ids: &[InstanceId],
        held: Option<HeldBy>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Notes of released instances that EC2 knew no such at `now_ms`, unless that was noted before.
    fn note_unknown(
        &self,
        ids: &[InstanceId],
        now_ms: u64,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Marks released instances terminated. Answers those that this very call marked: each is answered at most once,
    /// whoever marks it how often.
    fn mark_terminated(
        &self,
        ids: &[InstanceId],
    ) -> impl Future<Output = Result<Vec<InstanceId>, Fault>> + Send;

    /// A record that many write; version 0 and its default before the first write.
    fn shared<S: Shared>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Stored<S>, Fault>> + Send;

    /// Stores a record read at `expected_version`; `false` if another was quicker.
    fn put_shared<S: Shared>(
        &self,
        name: &str,
        record: &S,
        expected_version: u64,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// A request part, if it ever came.
    fn request(
        &self,
        key: &LaunchKey,
    ) -> impl Future<Output = Result<Option<Stored<RequestRecord>>, Fault>> + Send;

    /// Stores a request part read at `expected_version`; `false` if another was quicker.
    fn put_request(
        &self,
        key: &LaunchKey,
        record: &RequestRecord,
        expected_version: u64,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// An attempt, if it was ever written.
    fn attempt(
        &self,
        key: &AttemptKey,
    ) -> impl Future<Output = Result<Option<AttemptRecord>, Fault>> + Send;

    /// Writes a new attempt; `false` if one is there already.
    fn put_attempt(
        &self,
        key: &AttemptKey,
        record: &AttemptRecord,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// Adds the answer to an attempt.
    fn answer_attempt(
        &self,
        key: &AttemptKey,
        answer: &LaunchAnswer,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The agent's last sign of life.
    fn heartbeat(&self) -> impl Future<Output = Result<Option<HeartbeatRecord>, Fault>> + Send;

    /// Stores a sign of life unless a later one is there.
    fn put_heartbeat(
        &self,
        record: &HeartbeatRecord,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// slurmctld's node states as last reported.
    fn node_states(&self) -> impl Future<Output = Result<Option<NodeStatesRecord>, Fault>> + Send;

    /// Stores slurmctld's node states unless later ones are there.
    fn put_node_states(
        &self,
        record: &NodeStatesRecord,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The queues. A delay above [`MAX_DELAY_SECONDS`] is cut to it.
pub trait Queues: Sync {
    /// To `launch`.
    fn send_resume(
        &self,
        body: ResumeQueueBody,
        delay_seconds: u64,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// To `terminate`.
    fn send_suspend(
        &self,
        body: SuspendQueueBody,
        delay_seconds: u64,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// To `report`.
    fn send_report(
        &self,
        body: ReportBody,
        delay_seconds: u64,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// To the agent: a sealed envelope.
    fn send_envelope(&self, sealed: &str) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The keys that seal envelopes.
pub trait Keys: Sync {
    /// The key that seals now; one read within the last minute may be answered again.
    fn signing_key(&self) -> impl Future<Output = Result<Arc<SigningKey>, Fault>> + Send;
}

/// Run Command of AWS Systems Manager.
pub trait Commands: Sync {
    /// Has every head node run `spillway apply` with a sealed envelope. SSM knows no token for this: after a doubtful
    /// answer the command may run twice, and the head node recognises the envelope.
    fn send(&self, sealed: &str) -> impl Future<Output = Result<CommandSent, Fault>> + Send;
}

/// What became of a command on one managed node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutcome {
    /// SSM's `StatusDetails`: `Success`, `Failed`, `Undeliverable`, `DeliveryTimedOut`, `ExecutionTimedOut` and others.
    pub status: String,
    /// Absent if the command did not run to its end.
    pub exit_code: Option<i32>,
    /// The first line that it wrote to standard error.
    pub error: String,
}

/// What SSM knows of commands.
pub trait CommandOutcomes: Sync {
    /// What became of a command on one node; not found if SSM knows of no such command there.
    fn outcome(
        &self,
        command_id: &str,
        head_node: &str,
    ) -> impl Future<Output = Result<CommandOutcome, Fault>> + Send;
}

/// The stack's event bus, which the site subscribes to.
pub trait EventBus: Sync {
    /// Publishes events. Answers for each, in their order, whether the bus took it; one that it did not take was not
    /// published, but for a call whose answer was lost.
    fn publish(&self, events: &[SiteEvent]) -> impl Future<Output = Vec<Result<(), Fault>>> + Send;
}

/// SQS delays a message by at most this long (SQS API reference, `DelaySeconds`).
pub const MAX_DELAY_SECONDS: u64 = 900;

/// What DescribeInstances says of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceSeen {
    /// EC2's id.
    pub instance_id: InstanceId,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`.
    pub state: String,
    /// Why it is no longer alive, code and words (`StateReason`), such as `Client.InternalError: Client error on launch`.
    pub state_reason: Option<String>,
    /// Private address of device 0 on network card 0.
    pub address: Option<IpAddr>,
    /// As EC2 names it.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// When EC2 launched it, Unix milliseconds; 0 if EC2 does not say.
    pub launched_ms: u64,
    /// It bears the tag that protects it ([`spillway_core::tag::HOLD`]).
    pub is_held: bool,
    /// Where it comes from, by its tags; none if they do not say. For whom it is held they never say.
    pub origin: Option<Origin>,
}

impl InstanceSeen {
    /// Whether it can still serve.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self.state.as_str(), "pending" | "running")
    }

    /// Whether its termination was taken.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state.as_str(), "shutting-down" | "terminated")
    }
}

/// What came of a termination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// EC2 took the termination of these, now or before.
    pub done: Vec<InstanceId>,
    /// EC2 knows no such instances: they are gone, or it does not show them yet.
    pub unknown: Vec<InstanceId>,
    /// Why not all.
    pub fault: Option<Fault>,
}

/// EC2.
pub trait Ec2: Sync {
    /// Makes the call, once as far as EC2 is concerned: the SDK may repeat it with its token. Not answered within
    /// `limit_ms` is a transient fault.
    fn launch(
        &self,
        call: &LaunchCall,
        limit_ms: u64,
    ) -> impl Future<Output = Result<LaunchAnswer, Fault>> + Send;

    /// All instances that bear the tags of the attempt, whatever their state.
    fn find(
        &self,
        tags: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Vec<InstanceSeen>, Fault>> + Send;

    /// All instances that run in a capacity reservation and bear these tags, whatever their state.
    fn find_in_reservation(
        &self,
        reservation_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<Vec<InstanceSeen>, Fault>> + Send;

    /// Terminates.
    fn terminate(&self, ids: &[InstanceId]) -> impl Future<Output = Terminated> + Send;

    /// Which running instances fail a status check; those of others may be among them.
    fn impaired(&self) -> impl Future<Output = Result<Vec<InstanceId>, Fault>> + Send;

    /// The end of what an instance wrote to its console; empty if EC2 has nothing of it.
    fn console(&self, id: &InstanceId) -> impl Future<Output = Result<String, Fault>> + Send;

    /// Sets tags on instances that bear ours.
    fn tag(
        &self,
        ids: &[InstanceId],
        tags: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Time and chance.
pub trait Clock: Sync {
    /// Unix milliseconds.
    fn now_ms(&self) -> u64;
    /// Waits.
    fn sleep_ms(&self, ms: u64) -> impl Future<Output = ()> + Send;
    /// A random identifier, unique for ever.
    fn fresh_id(&self) -> String;
}

/// What every use-case has at hand.
#[derive(Debug)]
pub struct Control<T, Q, C> {
    /// The cluster this control plane serves, and no other.
    pub cluster: ClusterName,
    /// State.
    pub table: T,
    /// Roads.
    pub queues: Q,
    /// Time.
    pub clock: C,
}
