//! One chunk of a plan: attempts until every node has an instance or nothing is left to try, pairing as the instances
//! get their addresses, and giving back what is over.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::LazyLock;

use spillway_core::capacity::Capacity;
use spillway_core::config::Limits;
use spillway_core::hostlist;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{DueCoolOff, Event, LaunchKey, NOT_LAUNCHED_IN_TIME_REASON};
use spillway_core::plan::{CallPlace, Chunk, LaunchCall, Recipe, Units, next_attempt};
use spillway_core::tag;
use spillway_core::usage::Owner;
use tracing::warn;

use super::doubt::{Doubt, Outcome};
use super::gang::{self, Gathered};
use super::history::History;
use super::note;
use super::standing::Standing;
use super::{Budget, LaunchError, Progress};
use crate::caps;
use crate::names::distinct;
use crate::pairings::{apply, ask_termination};
use crate::ports::{Clock, Control, Ec2, InstanceSeen, Queues, Table};
use crate::record::{AttemptKey, Origin};
use crate::shared::ONLY;
use crate::tally::{self, Tally};

/// How long EC2 is left alone after it throttled a call: its buckets refill by 2 a second.
const THROTTLED_SECONDS: u64 = 3;

/// How long a timer waits for addresses and for the other parts of a gang.
const WAIT_SECONDS: u64 = 3;

/// How many instances are given their node's name as `Name` after a launch: each takes a CreateTags call,
/// and EC2's bucket for those holds 100 and refills by 10 a second.
const MAX_NAME_TAGS: usize = 100;

/// Who holds what nobody was granted.
static NOBODY: LazyLock<Owner> = LazyLock::new(Owner::default);

/// A chunk at work.
pub(super) struct Work<'a, T, Q, C, E> {
    pub control: &'a Control<T, Q, C>,
    pub ec2: &'a E,
    pub launch: &'a LaunchKey,
    pub index: u32,
    pub chunk: &'a Chunk,
    pub units: Units,
    /// For whom its nodes are held.
    pub owners: &'a BTreeMap<NodeName, Owner>,
    /// Those of the chunk's node group.
    pub recipes: &'a [Recipe],
    /// EC2's buckets, as the site has them.
    pub limits: &'a Limits,
    pub budget: Budget,
    /// EC2 is asked for nothing more after this, Unix milliseconds: the caps no longer hold what the launch was granted.
    pub ends_ms: u64,
}

impl<T: Table, Q: Queues, C: Clock, E: Ec2> Work<'_, T, Q, C, E> {
    /// Goes on until nothing is left to do or something must be waited for. When nothing is left, `launched` is how
    /// many instances were launched for the chunk in all, for each of its owners in their order.
    pub(super) async fn advance(
        &self,
        launched: &mut Vec<u32>,
        tally: &mut Tally,
    ) -> Result<Progress, LaunchError> {
        let nodes = distinct(&self.chunk.nodes)?;
        let mut history = match self.recall().await? {
            Recalled::History(history) => history,
            Recalled::Unsettled(history, progress) => {
                // What the attempts before have brought does not wait for this one.
                self.settle_in(&nodes, &history, tally).await?;
                return Ok(progress);
            }
        };
        loop {
            let standing = self.settle_in(&nodes, &history, tally).await?;
            if standing.wanted.is_empty() {
                *launched = self.finish(&nodes, &history, standing).await?;
                return Ok(Progress::Done);
            }
            if let Some(progress) = self.next(&standing, &mut history, tally).await? {
                return Ok(progress);
            }
        }
    }

    /// Asks EC2 once more, or gives up what nothing will come for; answers what must be waited for before going on.
    async fn next(
        &self,
        standing: &Standing,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<Option<Progress>, LaunchError> {
        if self.fail_lost(standing, history, tally).await? {
            return Ok(None);
        }
        let now_ms = self.control.clock.now_ms();
        if now_ms >= self.ends_ms {
            let wanted: Vec<NodeName> = standing.wanted.iter().cloned().collect();
            self.give_up(&wanted, NOT_LAUNCHED_IN_TIME_REASON, None, tally)
                .await?;
            return Ok(None);
        }
        let capacity = self.control.table.shared::<Capacity>(ONLY).await?.record;
        let attempt = if history.refused {
            None
        } else {
            next_attempt(
                self.chunk,
                self.recipes,
                history.next_round,
                &standing.wanted,
                standing.spare,
                &capacity,
                now_ms,
            )
        };
        if let Some(attempt) = attempt {
            if history.throttled {
                history.throttled = false;
                return Ok(Some(Progress::Wait {
                    seconds: THROTTLED_SECONDS,
                }));
            }
            if !self.budget.lasts(&self.control.clock) {
                return Ok(Some(Progress::Wait { seconds: 0 }));
            }
            return self.attempt(attempt, &capacity, history, tally).await;
        }
        let served = self.units.share(&standing.wanted, standing.spare);
        let served: BTreeSet<&NodeName> = served.iter().collect();
        let short = standing.wanted.iter().filter(|node| !served.contains(node));
        let short: Vec<NodeName> = short.cloned().collect();
        if short.is_empty() {
            // Addresses, or the other parts of a gang.
            return Ok(Some(Progress::Wait {
                seconds: WAIT_SECONDS,
            }));
        }
        let (reason, cool_off) = self.shortage(history, &capacity, now_ms);
        self.give_up(&short, &reason, cool_off, tally).await?;
        Ok(None)
    }

    /// Why nothing more comes, and how long the group rests.
    fn shortage(
        &self,
        history: &History,
        capacity: &Capacity,
        now_ms: u64,
    ) -> (String, Option<DueCoolOff>) {
        // What EC2 refuses for good it refuses until somebody has changed something.
        let refused = history.refused.then_some(now_ms + self.first_rest_ms());
        let until_ms = capacity.rests_until_ms(self.recipes, now_ms).or(refused);
        let cool_off = until_ms.map(|until_ms| DueCoolOff {
            node_group: self.chunk.node_group.clone(),
            until_ms,
        });
        let words = history
            .shortages()
            .or_else(|| capacity.resting(self.recipes, now_ms))
            .unwrap_or_else(|| note::NO_REASON.to_owned());
        (note::bounded(&format!("spillway: {words}")), cool_off)
    }

    /// Reads the attempts made so far and settles one whose answer is not known.
    async fn recall(&self) -> Result<Recalled, LaunchError> {
        let mut history = History::default();
        while let Some(mut record) = self
            .control
            .table
            .attempt(&self.key(history.next_attempt))
            .await?
        {
            if record.answer.is_none() {
                match self
                    .doubt(&record.call, &self.place(history.next_attempt).tags())
                    .settle()
                    .await?
                {
                    Outcome::Unknown(progress) => {
                        return Ok(Recalled::Unsettled(history, progress));
                    }
                    Outcome::Known(answer) => {
                        let key = self.key(history.next_attempt);
                        self.control.table.answer_attempt(&key, &answer).await?;
                        self.learn(&record.call, &answer).await?;
                        record.answer = Some(answer);
                    }
                }
            }
            history.take(&record);
        }
        // What a former worker was throttled for was waited for by the timer that woke this one.
        history.throttled = false;
        Ok(Recalled::History(history))
    }

    /// Tells Slurm that nodes will not come, and the parts of the gang elsewhere that it is over.
    pub(super) async fn give_up(
        &self,
        nodes: &[NodeName],
        reason: &str,
        cool_off: Option<DueCoolOff>,
        tally: &mut Tally,
    ) -> Result<(), LaunchError> {
        gang::fail(self.control, self.chunk, reason).await?;
        warn!(request_id = %self.launch.request_id, nodes = hostlist::fold(nodes), reason, "nodes will not come");
        let event = Event::NotLaunched {
            launch: self.launch.clone(),
            reason: reason.to_owned(),
            cool_off,
            note: note::of_chunk(self.chunk, nodes, reason),
        };
        let events = nodes.iter().map(|node| (node.clone(), event.clone()));
        let applied = apply(self.control, events.collect()).await?;
        tally.add(tally::NODES_FAILED, applied.len());
        Ok(())
    }

    /// Gives back what is over, and names the others. Answers how many instances there are and were, by owner.
    async fn finish(
        &self,
        nodes: &BTreeSet<NodeName>,
        history: &History,
        standing: Standing,
    ) -> Result<Vec<u32>, LaunchError> {
        let launched = self.give_back(history, standing.seen).await?;
        let standing = self.paired(nodes).await?;
        self.name(&standing).await;
        Ok(launched)
    }

    /// Releases what no node of the chunk took: everything that bears its tags, also what no attempt knows of. Asks
    /// for the termination of whatever was released before, too: who did it may have died before it could ask. Answers
    /// how many instances there are and were, by owner. `seen`: what EC2 showed of the chunk after its last attempt, if it
    /// was asked.
    async fn give_back(
        &self,
        history: &History,
        seen: Option<Vec<InstanceSeen>>,
    ) -> Result<Vec<u32>, LaunchError> {
        let found = match seen {
            Some(seen) => seen,
            None => self.ec2.find(&self.tags()).await?,
        };
        let alive = found.into_iter().filter(InstanceSeen::is_alive);
        let alive: BTreeSet<InstanceId> = alive.map(|seen| seen.instance_id).collect();
        let all: BTreeSet<InstanceId> = history.instances.union(&alive).cloned().collect();
        let taken = self.taken(&all).await?;
        let owners = self.owners_of(&all, &taken);
        let launched = caps::count(owners.values().copied());
        let is_spare = |(id, _): &(InstanceId, &Owner)| !taken.contains_key(id);
        let spare: BTreeMap<InstanceId, &Owner> = owners.into_iter().filter(is_spare).collect();
        self.release(&spare).await?;
        let launched = caps::by_owner(self.owners, &launched);
        ask_termination(self.control, all).await?;
        Ok(launched)
    }

    /// For whom each instance of the chunk is held until it is ended: what its item says, or else one of those that have
    /// fewer than they were granted. The item of one that the sweep let go does not say.
    fn owners_of(
        &self,
        all: &BTreeSet<InstanceId>,
        taken: &BTreeMap<InstanceId, Owner>,
    ) -> BTreeMap<InstanceId, &Owner> {
        let mut open = caps::count(self.owners.values());
        let mut of = BTreeMap::new();
        for (id, owner) in taken {
            if let Some((owner, count)) = open.get_key_value(owner).filter(|(_, count)| **count > 0)
            {
                let (owner, left) = (*owner, count - 1);
                open.insert(owner, left);
                of.insert(id.clone(), owner);
            }
        }
        let first = self.owners.values().next().unwrap_or(&NOBODY);
        let open = open
            .into_iter()
            .flat_map(|(owner, count)| iter::repeat_n(owner, count as usize));
        let others: Vec<&InstanceId> = all.iter().filter(|id| !of.contains_key(*id)).collect();
        of.extend(
            others
                .into_iter()
                .cloned()
                .zip(open.chain(iter::repeat(first))),
        );
        of
    }

    /// Lets the EC2 console show node names. A failure here costs nothing but the name.
    async fn name(&self, paired: &[(NodeName, InstanceId)]) {
        if self.chunk.tags.contains_key(tag::NAME) {
            return;
        }
        for (node, instance) in paired.iter().take(MAX_NAME_TAGS) {
            if !self.budget.lasts(&self.control.clock) {
                return;
            }
            let tags = BTreeMap::from([(tag::NAME.to_owned(), node.to_string())]);
            if let Err(fault) = self.ec2.tag(std::slice::from_ref(instance), &tags).await {
                warn!(%fault, instance_id = %instance, "could not name an instance; its other tags are set");
                return;
            }
        }
    }

    /// Marks instances released that no node took.
    pub(super) async fn release(
        &self,
        spare: &BTreeMap<InstanceId, &Owner>,
    ) -> Result<(), LaunchError> {
        let mut by_owner: BTreeMap<&Owner, Vec<InstanceId>> = BTreeMap::new();
        for (id, owner) in spare {
            by_owner.entry(owner).or_default().push(id.clone());
        }
        for (owner, ids) in by_owner {
            let origin = self.origin(owner);
            self.control.table.release_unpaired(&ids, &origin).await?;
        }
        Ok(())
    }

    /// Whether the chunk's nodes may be paired, if they must wait for others of their gang.
    pub(super) async fn gathered(
        &self,
        wanted: &BTreeSet<NodeName>,
        ready: usize,
    ) -> Result<Gathered, LaunchError> {
        if wanted.is_empty() {
            return Ok(Gathered::Here);
        }
        let name = spillway_core::gang::part_name(self.launch, self.index);
        gang::gather(self.control, self.chunk, &name, ready >= wanted.len()).await
    }

    /// How long a pool rests after EC2 first had not enough there.
    pub(super) fn first_rest_ms(&self) -> u64 {
        u64::from(self.limits.capacity_rest_seconds) * 1000
    }

    pub(super) fn doubt<'b>(
        &'b self,
        call: &'b LaunchCall,
        tags: &'b BTreeMap<String, String>,
    ) -> Doubt<'b, E, C> {
        Doubt {
            ec2: self.ec2,
            clock: &self.control.clock,
            call,
            tags,
            budget: self.budget,
            ends_ms: self.ends_ms,
        }
    }

    /// For whom a node is held.
    pub(super) fn owner(&self, node: &NodeName) -> &Owner {
        self.owners.get(node).unwrap_or(&NOBODY)
    }

    pub(super) fn origin(&self, owner: &Owner) -> Origin {
        Origin {
            launch: self.launch.clone(),
            node_group: self.chunk.node_group.clone(),
            owner: owner.clone(),
        }
    }

    /// The tags that all of the chunk's instances bear.
    pub(super) fn tags(&self) -> BTreeMap<String, String> {
        let mut tags = self.place(0).tags();
        tags.remove(tag::ATTEMPT);
        tags
    }

    pub(super) fn place(&self, attempt: u32) -> CallPlace<'_> {
        CallPlace {
            launch: self.launch,
            chunk: self.index,
            attempt,
        }
    }

    pub(super) fn key(&self, attempt: u32) -> AttemptKey {
        AttemptKey {
            launch: self.launch.clone(),
            chunk: self.index,
            attempt,
        }
    }
}

enum Recalled {
    History(History),
    /// The last attempt's outcome is not known yet.
    Unsettled(History, Progress),
}
