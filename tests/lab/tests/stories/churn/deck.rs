//! Which fault comes next: a deck of all kinds, shuffled, and shuffled anew when it is empty. So each kind comes as often as
//! any other.

use std::collections::BTreeMap;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// EC2 takes a spot instance back, and says so.
    SpotNotice,
    /// Somebody terminates an instance in the console.
    TerminatedBehindOurBack,
    /// Somebody launches an instance with the cluster's tag.
    LaunchedBehindOurBack,
    /// No pool has anything.
    NoCapacity,
    /// `CreateFleet` and `RunInstances` are asked too fast.
    Throttled,
    /// EC2 is away.
    Ec2Away,
    /// DynamoDB is away.
    TableAway,
    /// SQS is away.
    QueuesAway,
    /// SSM is away.
    ParametersAway,
    /// Calls of the functions are carried out, and their answers do not come.
    AnswersLost,
    /// A Lambda's process is killed while it works.
    FunctionKilled,
    /// slurmctld is stopped, and started again some seconds later.
    SlurmctldRestarted,
    /// `scontrol reconfigure`.
    Reconfigured,
    /// The agent is killed, and started again some seconds later.
    AgentKilled,
    /// A node is set DOWN for a reason of ours.
    NodeDown,
    /// A node is drained for a reason of ours.
    NodeDrained,
    /// An instance boots whose slurmd does not work.
    SlurmdNeverStarts,
    /// A slurmd is killed.
    SlurmdDies,
    /// What is on a queue comes late, twice, and in the other order.
    MessagesRepeated,
    /// Something that is no message is on a queue.
    Malformed,
    /// A user cancels a job.
    JobCancelled,
}

/// Every kind.
pub const ALL: [Kind; 21] = [
    Kind::SpotNotice,
    Kind::TerminatedBehindOurBack,
    Kind::LaunchedBehindOurBack,
    Kind::NoCapacity,
    Kind::Throttled,
    Kind::Ec2Away,
    Kind::TableAway,
    Kind::QueuesAway,
    Kind::ParametersAway,
    Kind::AnswersLost,
    Kind::FunctionKilled,
    Kind::SlurmctldRestarted,
    Kind::Reconfigured,
    Kind::AgentKilled,
    Kind::NodeDown,
    Kind::NodeDrained,
    Kind::SlurmdNeverStarts,
    Kind::SlurmdDies,
    Kind::MessagesRepeated,
    Kind::Malformed,
    Kind::JobCancelled,
];

/// The deck, what was dealt and has not struck, and how often each kind has.
#[derive(Debug, Default)]
pub struct Deck {
    cards: Vec<Kind>,
    /// Dealt, and waiting for something that it can strike.
    pub waiting: Vec<Kind>,
    struck: BTreeMap<Kind, usize>,
}

impl Deck {
    /// Deals the next card.
    pub fn deal(&mut self, rng: &mut fastrand::Rng) {
        if self.cards.is_empty() {
            self.cards = ALL.to_vec();
            rng.shuffle(&mut self.cards);
        }
        self.waiting.extend(self.cards.pop());
    }

    /// Deals every kind that has not struck, is not dealt and not `ongoing`.
    pub fn deal_missing(&mut self, ongoing: &[Kind]) {
        let mut missing = self.missing();
        missing.retain(|kind| !ongoing.contains(kind) && !self.waiting.contains(kind));
        self.waiting.extend(missing);
    }

    /// It has had its effect.
    pub fn has_struck(&mut self, kind: Kind) {
        *self.struck.entry(kind).or_default() += 1;
    }

    /// How often each kind has struck.
    pub fn struck(&self) -> &BTreeMap<Kind, usize> {
        &self.struck
    }

    /// The kinds that have not struck.
    pub fn missing(&self) -> Vec<Kind> {
        let mut missing = ALL.to_vec();
        missing.retain(|kind| !self.struck.contains_key(kind));
        missing
    }
}
