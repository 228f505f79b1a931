//! One call to EC2: tokens are taken for it, it is written down, made, answered, and what it tells of EC2's capacity is
//! remembered.

use spillway_core::budget::{Bucket, Budget, Grant, Wanted};
use spillway_core::capacity::{Capacity, Reach, Scope};
use spillway_core::plan::{Attempt, Candidate, LaunchCall, Recipe};
use tracing::{info, warn};

use super::chunk::Work;
use super::doubt::Outcome;
use super::history::History;
use super::{LaunchError, Progress};
use crate::fault::FaultKind;
use crate::ports::{Clock, Ec2, Queues, Table};
use crate::record::{AttemptRecord, LaunchAnswer, Shortage};
use crate::shared::{ONLY, change};
use crate::tally::{self, Tally};

/// The fewest instances that a call is made for while EC2's bucket fills and more are wanted: at two a second it takes
/// 25 seconds for them, and a launch of 1,000 more than the bucket held makes 20 calls.
const WORTH_A_CALL: u32 = 50;

impl<T: Table, Q: Queues, C: Clock, E: Ec2> Work<'_, T, Q, C, E> {
    /// Makes one call, written down before it is made; answers what must be waited for before going on.
    pub(super) async fn attempt(
        &self,
        attempt: Attempt,
        capacity: &Capacity,
        history: &mut History,
        tally: &mut Tally,
    ) -> Result<Option<Progress>, LaunchError> {
        let place = self.place(history.next_attempt);
        let recipe = Recipe {
            candidates: attempt.candidates,
            ..self.recipes[attempt.recipe].clone()
        };
        let (count, at_least) = (attempt.count, attempt.at_least);
        let cluster = &self.control.cluster;
        let mut call = self.chunk.call(cluster, &place, recipe, count, at_least);
        match self.take_tokens(&call).await? {
            Grant::Later { wait_ms } => {
                return Ok(Some(Progress::Wait {
                    seconds: wait_ms.div_ceil(1000),
                }));
            }
            Grant::Now { instances } => {
                call.count = call.count.min(instances);
                call.at_least = call.at_least.min(call.count);
            }
        }
        let key = self.key(history.next_attempt);
        let mut record = AttemptRecord {
            call,
            round: u32::try_from(attempt.round).unwrap_or(u32::MAX),
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
            "launching {} instances for {}",
            record.call.count,
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
            shortages = ?answer.shortages,
            "EC2 launched {} of {}",
            answer.instances.len(),
            record.call.count,
        );
        let mut learnt = capacity.clone();
        let now_ms = self.control.clock.now_ms();
        learn(
            &mut learnt,
            &record.call,
            &answer,
            self.first_rest_ms(),
            now_ms,
        );
        if learnt != *capacity {
            tally.add(
                tally::POOLS_RESTING,
                self.learn(&record.call, &answer).await?,
            );
        }
        self.settle_tokens(&record.call, &answer).await?;
        record.answer = Some(answer);
        history.take(&record);
        Ok(None)
    }

    async fn take_tokens(&self, call: &LaunchCall) -> Result<Grant, LaunchError> {
        let wanted = Wanted {
            call: bucket(call),
            instances: call.count,
            at_least: if call.at_least > 1 {
                call.count
            } else {
                call.count.min(WORTH_A_CALL)
            },
        };
        let grant = change(self.control, ONLY, |budget: &mut Budget, now_ms| {
            budget.take(wanted, self.limits, now_ms)
        });
        Ok(grant.await?)
    }

    /// Puts back the tokens of what was not launched; after a refusal as asked too fast there are none.
    async fn settle_tokens(
        &self,
        call: &LaunchCall,
        answer: &LaunchAnswer,
    ) -> Result<(), LaunchError> {
        let launched = u32::try_from(answer.instances.len()).unwrap_or(u32::MAX);
        let over = call.count.saturating_sub(launched);
        let throttled = answer
            .shortages
            .iter()
            .any(|shortage| shortage.fault.kind == FaultKind::Throttled);
        if over == 0 {
            return Ok(());
        }
        if throttled {
            warn!(launch = %self.launch.request_id, "EC2 was asked too fast");
        }
        let put_back = change(self.control, ONLY, |budget: &mut Budget, now_ms| {
            if throttled {
                budget.found_empty(bucket(call), now_ms);
            } else {
                budget.put_back(over, self.limits, now_ms);
            }
        });
        Ok(put_back.await?)
    }

    /// Remembers which pools have nothing and which have again. Answers how many rest now that did not before.
    pub(super) async fn learn(
        &self,
        call: &LaunchCall,
        answer: &LaunchAnswer,
    ) -> Result<usize, LaunchError> {
        let resting = change(self.control, ONLY, |capacity: &mut Capacity, now_ms| {
            let before = capacity.resting_count(now_ms);
            learn(capacity, call, answer, self.first_rest_ms(), now_ms);
            capacity.resting_count(now_ms).saturating_sub(before)
        });
        Ok(resting.await?)
    }
}

/// Takes in what an answer tells of pools.
fn learn(
    capacity: &mut Capacity,
    call: &LaunchCall,
    answer: &LaunchAnswer,
    first_rest_ms: u64,
    now_ms: u64,
) {
    let kind = call.recipe.capacity;
    for candidate in &answer.launched_in {
        capacity.open(kind, candidate);
    }
    // What EC2 says of pools beside a plea for patience may be nothing but that plea's consequence.
    let patience = answer.shortages.iter().any(|s| s.fault.is_passing());
    let shortages = answer.shortages.iter().filter(|_| !patience);
    for Shortage { fault, candidate } in shortages {
        let FaultKind::Unfulfillable(reach) = fault.kind else {
            continue;
        };
        // Where EC2 names no candidate it speaks of all that it was offered.
        let spoken_of: &[Candidate] = match candidate {
            Some(candidate) => std::slice::from_ref(candidate),
            None if reach == Reach::Kind => call.recipe.candidates.get(..1).unwrap_or_default(),
            None => &call.recipe.candidates,
        };
        for candidate in spoken_of {
            let scope = Scope {
                capacity: kind,
                reach,
                candidate,
            };
            capacity.close(&scope, &fault.code, first_rest_ms, now_ms);
        }
    }
}

fn bucket(call: &LaunchCall) -> Bucket {
    if call.only_candidate().is_some() {
        Bucket::RunInstances
    } else {
        Bucket::CreateFleet
    }
}
