//! One chunk of a plan: attempts until every node has an instance or no recipe is left, pairing as the
//! instances get their addresses, and giving back what is over.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::hostlist;
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::{Event, LaunchKey, NOT_LAUNCHED_IN_TIME_REASON, PairingState};
use spillway_core::plan::{CallPlace, Chunk, LaunchCall, Recipe};
use spillway_core::tag;
use tracing::{info, warn};

use super::doubt::{Doubt, Outcome};
use super::history::History;
use super::{Budget, LaunchError, Progress};
use crate::names::distinct;
use crate::pairings::{apply, apply_of, ask_termination};
use crate::ports::{Clock, Control, Ec2, InstanceSeen, Queues, Table};
use crate::record::{AttemptKey, AttemptRecord, Origin};
use crate::tally::{self, Tally};

/// How long a throttled call is left alone: EC2's buckets refill by 2 a second.
const THROTTLED_SECONDS: u64 = 3;

/// How long an address is waited for within one invocation before a timer takes over.
const ADDRESS_LOOKS: u32 = 5;

/// How long between two looks for addresses.
const ADDRESS_LOOK_MS: u64 = 500;

/// How long a timer waits for addresses.
const ADDRESS_WAIT_SECONDS: u64 = 3;

/// How many instances are given their node's name as `Name` after a launch: each takes a CreateTags call,
/// and EC2's bucket for those holds 100 and refills by 10 a second.
const MAX_NAME_TAGS: usize = 100;

/// A chunk at work.
pub(super) struct Work<'a, T, Q, C, E> {
    pub control: &'a Control<T, Q, C>,
    pub ec2: &'a E,
    pub launch: &'a LaunchKey,
    pub index: u32,
    pub chunk: &'a Chunk,
    /// Those of the chunk's node group.
    pub recipes: &'a [Recipe],
    pub budget: Budget,
    /// EC2 is asked for nothing more after this, Unix milliseconds: the caps no longer hold what the launch was granted.
    pub ends_ms: u64,
}

/// The chunk's nodes as they stand.
struct Standing {
    /// Those that wait for an instance of this launch.
    wanted: Vec<NodeName>,
    /// Instances of this chunk that serve a node, or did.
    taken: BTreeSet<InstanceId>,
    /// Those that have an instance of this launch, and which.
    paired: Vec<(NodeName, InstanceId)>,
}

impl<T: Table, Q: Queues, C: Clock, E: Ec2> Work<'_, T, Q, C, E> {
    /// Goes on until nothing is left to do or something must be waited for. When nothing is left, `launched` is how
    /// many instances were launched for the chunk in all.
    pub(super) async fn advance(
        &self,
        launched: &mut usize,
        tally: &mut Tally,
    ) -> Result<Progress, LaunchError> {
        let nodes = distinct(&self.chunk.nodes)?;
        let mut history = match self.recall().await? {
            Recalled::History(history) => history,
            Recalled::Unsettled(history, progress) => {
                // What the attempts before have brought does not wait for this one.
                self.pair(&nodes, &history).await?;
                return Ok(progress);
            }
        };
        loop {
            let waiting = self.pair(&nodes, &history).await?;
            let standing = self.standing(&nodes, &history).await?;
            let missing = standing.wanted.len().saturating_sub(waiting);
            if missing > 0 {
                let missing_nodes = &standing.wanted[waiting..];
                if self.control.clock.now_ms() >= self.ends_ms {
                    let reason = NOT_LAUNCHED_IN_TIME_REASON.to_owned();
                    self.give_up(missing_nodes, reason, tally).await?;
                    continue;
                }
                let Some(recipe) = history.next_recipe else {
                    self.give_up(missing_nodes, history.reason(), tally).await?;
                    continue;
                };
                if history.throttled {
                    history.throttled = false;
                    return Ok(Progress::Wait {
                        seconds: THROTTLED_SECONDS,
                    });
                }
                if !self.budget.lasts(&self.control.clock) {
                    return Ok(Progress::Wait { seconds: 0 });
                }
                if let Some(progress) = self.attempt(&mut history, recipe, missing, tally).await? {
                    return Ok(progress);
                }
                continue;
            }
            if waiting > 0 {
                return Ok(Progress::Wait {
                    seconds: ADDRESS_WAIT_SECONDS,
                });
            }
            *launched = self.give_back(&history, &standing).await?;
            self.name(&standing.paired).await;
            return Ok(Progress::Done);
        }
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
                        self.control
                            .table
                            .answer_attempt(&self.key(history.next_attempt), &answer)
                            .await?;
                        record.answer = Some(answer);
                    }
                }
            }
            history.take(&record, self.recipes.len());
        }
        // What a former worker was throttled for was waited for by the timer that woke this one.
        history.throttled = false;
        Ok(Recalled::History(history))
    }

    /// One call to EC2, written down before it is made.
    async fn attempt(
        &self,
        history: &mut History,
        recipe: u32,
        missing: usize,
        tally: &mut Tally,
    ) -> Result<Option<Progress>, LaunchError> {
        let place = self.place(history.next_attempt);
        let count = u32::try_from(missing).unwrap_or(u32::MAX);
        let call = self.chunk.call(
            &self.control.cluster,
            &place,
            &self.recipes[recipe as usize],
            count,
        );
        let key = self.key(history.next_attempt);
        let mut record = AttemptRecord {
            call,
            recipe,
            answer: None,
        };
        if !self.control.table.put_attempt(&key, &record).await? {
            return Ok(Some(Progress::Wait { seconds: 1 }));
        }
        info!(
            request_id = %self.launch.request_id,
            attempt = key.attempt,
            chunk = self.index,
            capacity = record.call.recipe.capacity.as_str(),
            "launching {count} instances for {}",
            self.chunk.node_group,
        );
        let answer = match self.doubt(&record.call, &place.tags()).make().await? {
            Outcome::Known(answer) => answer,
            Outcome::Unknown(progress) => return Ok(Some(progress)),
        };
        self.control.table.answer_attempt(&key, &answer).await?;
        tally.add(tally::INSTANCES_LAUNCHED, answer.instances.len());
        info!(
            request_id = %self.launch.request_id,
            attempt = key.attempt,
            instances = ?answer.instances,
            faults = ?answer.faults,
            "EC2 launched {} of {count}",
            answer.instances.len(),
        );
        record.answer = Some(answer);
        history.take(&record, self.recipes.len());
        Ok(None)
    }

    /// Pairs what has an address with nodes that wait. Answers how many instances have none yet.
    async fn pair(
        &self,
        nodes: &BTreeSet<NodeName>,
        history: &History,
    ) -> Result<usize, LaunchError> {
        for look in 0..ADDRESS_LOOKS {
            let standing = self.standing(nodes, history).await?;
            let spare: Vec<InstanceId> = history
                .instances
                .difference(&standing.taken)
                .cloned()
                .collect();
            if spare.is_empty() || standing.wanted.is_empty() {
                return Ok(0);
            }
            let seen = self.ec2.describe(&spare).await?;
            let dead = seen.iter().filter(|instance| !instance.is_alive()).count();
            let ready: Vec<&InstanceSeen> = seen
                .iter()
                .filter(|instance| instance.is_alive() && instance.address.is_some())
                .collect();
            self.pair_ready(&standing.wanted, &ready).await?;
            let waiting = spare.len() - dead - ready.len();
            if waiting == 0 || look + 1 == ADDRESS_LOOKS || !self.budget.lasts(&self.control.clock)
            {
                return Ok(waiting);
            }
            self.control.clock.sleep_ms(ADDRESS_LOOK_MS).await;
        }
        Ok(0)
    }

    async fn pair_ready(
        &self,
        wanted: &[NodeName],
        ready: &[&InstanceSeen],
    ) -> Result<(), LaunchError> {
        let mut events = Vec::new();
        for (node, instance) in wanted.iter().zip(ready) {
            let Some(address) = instance.address else {
                continue;
            };
            let event = Event::Launched {
                launch: self.launch.clone(),
                instance: instance.instance_id.clone(),
                address,
                note: None,
            };
            events.push((node.clone(), event));
        }
        let applied = apply_of(self.control, events, Some(&self.origin())).await?;
        let over = applied
            .into_iter()
            .filter_map(|applied| applied.transition.release);
        self.release(over.collect()).await
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

    /// Tells Slurm that nodes will not come.
    async fn give_up(
        &self,
        nodes: &[NodeName],
        reason: String,
        tally: &mut Tally,
    ) -> Result<(), LaunchError> {
        warn!(request_id = %self.launch.request_id, nodes = hostlist::fold(nodes), reason, "nodes will not come");
        let event = Event::NotLaunched {
            launch: self.launch.clone(),
            reason,
            cool_off: None,
            note: None,
        };
        let applied = apply(
            self.control,
            nodes
                .iter()
                .map(|node| (node.clone(), event.clone()))
                .collect(),
        )
        .await?;
        tally.add(tally::NODES_FAILED, applied.len());
        Ok(())
    }

    /// Releases what no node of the chunk took: everything that bears its tags, also what no attempt knows of. Asks
    /// for the termination of whatever was released before, too: who did it may have died before it could ask. Answers
    /// how many instances there are and were.
    async fn give_back(
        &self,
        history: &History,
        standing: &Standing,
    ) -> Result<usize, LaunchError> {
        let mut tags = self.place(0).tags();
        tags.remove(tag::ATTEMPT);
        let found = self.ec2.find(&tags).await?;
        let found = found
            .into_iter()
            .filter(InstanceSeen::is_alive)
            .map(|seen| seen.instance_id);
        let all: BTreeSet<InstanceId> = history.instances.iter().cloned().chain(found).collect();
        let spare: Vec<InstanceId> = all.difference(&standing.taken).cloned().collect();
        if !spare.is_empty() {
            let origin = self.origin();
            self.control.table.release_unpaired(&spare, &origin).await?;
        }
        let count = all.len();
        ask_termination(self.control, all).await?;
        Ok(count)
    }

    async fn release(&self, ids: BTreeSet<InstanceId>) -> Result<(), LaunchError> {
        if ids.is_empty() {
            return Ok(());
        }
        let list: Vec<InstanceId> = ids.iter().cloned().collect();
        let origin = self.origin();
        self.control.table.release_unpaired(&list, &origin).await?;
        Ok(ask_termination(self.control, ids).await?)
    }

    async fn standing(
        &self,
        nodes: &BTreeSet<NodeName>,
        history: &History,
    ) -> Result<Standing, LaunchError> {
        let nodes: Vec<NodeName> = nodes.iter().cloned().collect();
        let (mut wanted, mut paired) = (Vec::new(), Vec::new());
        for stored in self.control.table.pairings(&nodes).await? {
            match &stored.record.state {
                PairingState::Requested { launch, .. } if launch == self.launch => {
                    wanted.push(stored.record.node);
                }
                PairingState::Launched {
                    launch, instance, ..
                } if launch == self.launch => {
                    paired.push((stored.record.node, instance.clone()));
                }
                _ => {}
            }
        }
        // An instance with an item was given a node once, or given back: it is not spare any more.
        let ids: Vec<InstanceId> = history.instances.iter().cloned().collect();
        let records = if ids.is_empty() {
            Vec::new()
        } else {
            self.control.table.instances(&ids).await?
        };
        Ok(Standing {
            wanted,
            taken: records
                .into_iter()
                .map(|record| record.instance_id)
                .collect(),
            paired,
        })
    }

    fn doubt<'b>(
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

    fn origin(&self) -> Origin {
        Origin {
            launch: self.launch.clone(),
            node_group: self.chunk.node_group.clone(),
        }
    }

    fn place(&self, attempt: u32) -> CallPlace<'_> {
        CallPlace {
            launch: self.launch,
            chunk: self.index,
            attempt,
        }
    }

    fn key(&self, attempt: u32) -> AttemptKey {
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
