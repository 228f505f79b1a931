//! The invariants of DESIGN.md 8.2, each looked at where something changes that it is about, and all at the end.

mod end;
mod launches;
mod owners;

use std::collections::{BTreeMap, BTreeSet};

use spillway_control::record::RequestRecord;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{ReportBody, ResumeQueueBody};
use spillway_core::name::{Generation, InstanceId, NodeName};
use spillway_core::pairing::{DueAction, LaunchKey, Pairing, PairingState};
use spillway_core::plan::{InstanceState, LaunchCall};

use super::queue::Body;
use super::slurm::Power;
use super::world::{REPORTS, RESUME, World};

/// A node has at most one instance that is neither ending nor marked released.
pub const ONE_INSTANCE: &str = "one-instance";
/// Every instance is owned by one pairing, or marked, or ending, or its launch is still going on.
pub const OWNED: &str = "owned";
/// A node that was asked for is ready or failed soon after its deadline, unless its timer is still on its way; and in
/// any case before redelivery has done its worst.
pub const DEADLINE: &str = "deadline";
/// A node that will not come has a reason.
pub const REASON: &str = "reason";
/// A node's generation only grows.
pub const GENERATION: &str = "generation";
/// Nothing that Slurm wants and that has joined is let go or terminated.
pub const WANTED: &str = "wanted";
/// At the end nothing runs that Slurm does not hold up.
pub const RUNS: &str = "runs";
/// At the end Slurm knows what there is to know, and holds nothing up that does not run.
pub const TOLD: &str = "told";
/// No cap of the policy is exceeded.
pub const CAPS: &str = "caps";
/// A token stands for one launch.
pub const TOKEN: &str = "token";
/// A launch has no more instances at once than it has nodes.
pub const LAUNCHED_ONCE: &str = "launched-once";
/// At the end no message is left but poison, and no launch is unfinished.
pub const QUEUES: &str = "queues";
/// The run ends.
pub const QUIET: &str = "quiet";

/// Nothing panics.
pub const PANIC: &str = "panic";

/// All of them.
pub const INVARIANTS: [&str; 14] = [
    ONE_INSTANCE,
    OWNED,
    DEADLINE,
    REASON,
    GENERATION,
    WANTED,
    RUNS,
    TOLD,
    CAPS,
    TOKEN,
    LAUNCHED_ONCE,
    QUEUES,
    QUIET,
    PANIC,
];

/// A join timer comes a second or two after its deadline, and is carried out within another.
const SOON_MS: u64 = 5_000;
/// What redelivery may add to a deadline: four deliveries of the timer (70 s each), a delayed one (90 s) and its
/// being put back once.
const MARGIN_MS: u64 = 480_000;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// One of [`INVARIANTS`].
    pub invariant: &'static str,
    /// Nodes and instances it is about.
    pub about: Vec<String>,
    /// In words.
    pub what: String,
}

impl Violation {
    /// A use-case, or the simulation itself, panicked.
    pub(crate) fn panic() -> Self {
        Self {
            invariant: PANIC,
            about: Vec::new(),
            what: "a panic; its words are above".to_owned(),
        }
    }
}

/// What the invariants need to remember.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Calls by token, and whether they have launched.
    tokens: BTreeMap<String, (LaunchCall, bool)>,
    /// Instances whose ready report was taken in, and for which generation.
    joined: BTreeSet<(InstanceId, Generation)>,
    deadlines: BTreeSet<(u64, NodeName, Generation)>,
    launched: u32,
    /// Instances of whose end EventBridge has told.
    pub ended: BTreeSet<String>,
}

impl World {
    /// A pairing was written.
    pub(crate) fn watch_pairing(&mut self, old: &Pairing, new: &Pairing) {
        let node = &new.node;
        let about = || {
            let instances = [old.instance(), new.instance()].into_iter().flatten();
            let names = instances.map(ToString::to_string);
            names.chain([node.to_string()]).collect::<Vec<_>>()
        };
        if new.generation < old.generation {
            let what = format!("{node} went from {} to {}", old.generation, new.generation);
            self.violate(GENERATION, about(), what);
        }
        let paired = self.records.paired.get(node).cloned().unwrap_or_default();
        if paired.len() > 1 {
            let what = format!("{node} has {paired:?}, none of them marked");
            self.violate(ONE_INSTANCE, about(), what);
        }
        self.watch_ownership(old, new, &about());
        let came = !matches!(old.state, PairingState::Free) && new.state == PairingState::Free;
        // One that Slurm has let go of meanwhile need not be told why.
        let waits = self
            .slurm
            .index(node)
            .is_some_and(|index| self.client.wanted(index) == Some(new.generation));
        if came && new.generation == old.generation && waits && !is_failed(new) {
            self.violate(
                REASON,
                about(),
                format!("{node} is let go without a reason"),
            );
        }
        match &new.state {
            PairingState::Requested { deadline_ms, .. }
            | PairingState::Launched { deadline_ms, .. } => {
                // One that is accepted after its deadline gets its timer right after.
                let at_ms = self.now_ms.max(*deadline_ms) + SOON_MS;
                let look = (at_ms, node.clone(), new.generation);
                self.watch.deadlines.insert(look);
            }
            PairingState::Ready { instance, .. } => {
                self.watch.joined.insert((instance.clone(), new.generation));
            }
            PairingState::Free => {}
        }
    }

    fn watch_ownership(&mut self, old: &Pairing, new: &Pairing, about: &[String]) {
        let node = &new.node;
        if let Some(id) = new.instance() {
            let item = self.records.instances.get(id);
            let fits = item.is_some_and(|item| {
                item.state == InstanceState::Paired && item.node.as_ref() == Some(node)
            });
            if !fits {
                let what = format!("{node} has {id}, whose item says otherwise: {item:?}");
                self.violate(OWNED, about.to_vec(), what);
            }
        }
        let Some(left) = old.instance().filter(|id| new.instance() != Some(*id)) else {
            return;
        };
        if !self.is_marked(left) {
            let what = format!("{left} has left {node} and is not marked released");
            self.violate(OWNED, about.to_vec(), what);
        }
        if self
            .is_wanted(left)
            .is_some_and(|generation| generation == old.generation)
            && matches!(old.state, PairingState::Ready { .. })
            && self.cloud.live.contains_key(left.as_str())
        {
            let what = format!("{node} is up on {left}, which is let go");
            self.violate(WANTED, about.to_vec(), what);
        }
    }

    fn is_marked(&self, id: &InstanceId) -> bool {
        let state = self.records.instance_state(id);
        matches!(
            state,
            Some(InstanceState::Released | InstanceState::Terminated)
        )
    }

    /// The generation for which Slurm has a node up on this instance and still wants it.
    fn is_wanted(&self, id: &InstanceId) -> Option<Generation> {
        let up = self.slurm.nodes_that(|node| {
            node.power == Power::Up && node.instance.as_deref() == Some(id.as_str())
        });
        self.client.wanted(*up.first()?)
    }

    /// Time has passed: whose deadline has come is looked at, until it is ready or failed.
    pub(crate) fn watch_deadlines(&mut self) {
        while let Some((at_ms, _, _)) = self.watch.deadlines.first()
            && *at_ms <= self.now_ms
            && let Some((_, node, generation)) = self.watch.deadlines.pop_first()
        {
            let pairing = self.records.pairing(&node).record;
            let deadline_ms = match pairing.state {
                PairingState::Requested { deadline_ms, .. }
                | PairingState::Launched { deadline_ms, .. } => deadline_ms,
                PairingState::Free | PairingState::Ready { .. } => continue,
            };
            if pairing.generation != generation {
                continue;
            }
            if deadline_ms + MARGIN_MS <= self.now_ms {
                let what = format!("{node} is neither ready nor failed long after its deadline");
                self.violate(DEADLINE, vec![node.to_string()], what);
            } else if !self.will_be_failed(&node, generation) {
                let what = format!("{node} is neither ready nor failed, and no timer will fail it");
                self.violate(DEADLINE, vec![node.to_string()], what);
            } else {
                let look = (self.now_ms + SOON_MS, node, generation);
                self.watch.deadlines.insert(look);
            }
        }
    }

    /// Whether a join timer of this generation that names the node is still to be carried out, or the resume itself,
    /// which sets such a timer.
    fn will_be_failed(&self, node: &NodeName, generation: Generation) -> bool {
        let names_it = |nodes: &str| {
            let list = Hostlist::parse(nodes);
            list.is_ok_and(|list| list.iter().any(|name| name == node.as_str()))
        };
        let messages = [REPORTS, RESUME].map(|queue| self.queues[queue].messages.values());
        messages
            .into_iter()
            .flatten()
            .any(|message| match &message.body {
                Body::Report(ReportBody::JoinDeadline(timer)) => {
                    timer.generation == generation && names_it(&timer.nodes)
                }
                Body::Resume(ResumeQueueBody::Resume(request)) => {
                    request.generation == generation && names_it(&request.nodes)
                }
                _ => false,
            })
    }

    /// EC2 is asked to terminate.
    pub(crate) fn watch_termination(&mut self, ids: &[InstanceId]) {
        self.tell(|| format!("   EC2 terminates {}", super::words::ids(ids)));
        for id in ids {
            if !self.cloud.live.contains_key(id.as_str()) {
                continue;
            }
            if !self.is_marked(id) {
                let what = format!("{id} is terminated and was not released");
                self.violate(WANTED, vec![id.to_string()], what);
            }
            if let Some(generation) = self.is_wanted(id)
                && self.watch.joined.contains(&(id.clone(), generation))
            {
                let what =
                    format!("{id} has joined for {generation}, is wanted, and is terminated");
                self.violate(WANTED, vec![id.to_string()], what);
            }
        }
    }

    /// A launch says that it is done.
    pub(crate) fn watch_done(&mut self, key: &LaunchKey, _record: &RequestRecord) {
        let own = self
            .cloud
            .live
            .iter()
            .filter(|(_, live)| live.launch == *key);
        let ids: Vec<InstanceId> = own.filter_map(|(id, _)| InstanceId::new(id).ok()).collect();
        for id in ids {
            if !self.is_marked(&id) && !self.is_paired(&id) {
                let what = format!("{id} belongs to nobody, and its launch is done");
                self.violate(OWNED, vec![id.to_string()], what);
            }
        }
    }

    fn is_paired(&self, id: &InstanceId) -> bool {
        let item = self.records.instances.get(id);
        let node = item.and_then(|item| item.node.as_ref());
        node.is_some_and(|node| self.records.pairing(node).record.instance() == Some(id))
    }
}

fn is_failed(pairing: &Pairing) -> bool {
    let due = pairing.update_due.as_ref();
    due.is_some_and(|due| match &due.action {
        DueAction::Fail { reason, .. } => reason.starts_with("spillway: "),
        _ => false,
    })
}
