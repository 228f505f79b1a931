//! Finding out what a call launched. The answer of EC2 may be lost, the worker may die before it stores
//! it, and a repeated call may answer less than it launched. What bears the attempt's tags was launched.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::name::InstanceId;
use spillway_core::plan::LaunchCall;
use tracing::{info, warn};

use super::{Budget, Progress};
use crate::fault::{Fault, FaultKind};
use crate::ports::{Clock, Ec2};
use crate::record::{LaunchAnswer, Shortage};

/// How long EC2 may take to show an instance that it has launched (EC2 API, eventual consistency: seconds
/// as a rule). Only after that is an instance that is not shown taken for not launched.
const GRACE_MS: u64 = 10_000;

/// How long between two looks.
const LOOK_MS: u64 = 1_000;

/// How long a call with unknown outcome is left alone before it is repeated.
const REPEAT_SECONDS: u64 = 5;

/// What is known of a call.
pub(super) enum Outcome {
    /// This is what it launched, and why not more.
    Known(LaunchAnswer),
    /// Ask again later.
    Unknown(Progress),
}

/// One call of which the table holds no answer.
pub(super) struct Doubt<'a, E, C> {
    pub ec2: &'a E,
    pub clock: &'a C,
    pub call: &'a LaunchCall,
    /// The tags that only its instances bear.
    pub tags: &'a BTreeMap<String, String>,
    pub budget: Budget,
    /// The call is not repeated after this, Unix milliseconds.
    pub ends_ms: u64,
}

impl<E: Ec2, C: Clock> Doubt<'_, E, C> {
    /// Makes the call for the first time.
    pub(super) async fn make(&self) -> Result<Outcome, Fault> {
        self.call(false).await
    }

    /// `again`: the call may have been made before.
    async fn call(&self, again: bool) -> Result<Outcome, Fault> {
        let left_ms = self.budget.left_ms(self.clock);
        let answer = self.ec2.launch(self.call, left_ms).await;
        self.understand(answer, again).await
    }

    /// Settles a call that may have been made before: looks first, then repeats it word for word.
    pub(super) async fn settle(&self) -> Result<Outcome, Fault> {
        let found = self.find().await?;
        if self.is_complete(found.len()) {
            info!(
                found = found.len(),
                "an earlier worker's call had launched everything"
            );
            return Ok(launched(found));
        }
        if self.clock.now_ms() >= self.ends_ms {
            return Ok(launched(self.look(found, false).await?));
        }
        self.call(true).await
    }

    async fn understand(
        &self,
        answer: Result<LaunchAnswer, Fault>,
        again: bool,
    ) -> Result<Outcome, Fault> {
        match answer {
            Ok(answer) => {
                if self.is_complete(answer.instances.len()) {
                    return Ok(Outcome::Known(answer));
                }
                // Less than asked for: either EC2 has no more, or the call had been made before and its
                // answer now lacks instances. Only the tags tell.
                let explained = !again && !answer.shortages.is_empty();
                let answered = answer.instances.iter().cloned().collect();
                let found = self.look(answered, explained).await?;
                Ok(Outcome::Known(LaunchAnswer {
                    instances: found.into_iter().collect(),
                    ..answer
                }))
            }
            Err(fault) => match fault.kind {
                FaultKind::Conflict => {
                    warn!(%fault, "the call's token was used before: launched already");
                    Ok(launched(self.look(BTreeSet::new(), false).await?))
                }
                // A repetition by the SDK that is throttled may hide a first try that EC2 carried out.
                FaultKind::Transient | FaultKind::Throttled => {
                    warn!(%fault, "the call's outcome is unknown");
                    let found = self.find().await?;
                    if self.is_complete(found.len()) {
                        return Ok(launched(found));
                    }
                    Ok(Outcome::Unknown(Progress::Wait {
                        seconds: REPEAT_SECONDS,
                    }))
                }
                _ => {
                    let found = self.look(BTreeSet::new(), !again).await?;
                    Ok(Outcome::Known(LaunchAnswer {
                        instances: found.into_iter().collect(),
                        launched_in: Vec::new(),
                        shortages: vec![Shortage {
                            fault,
                            candidate: None,
                        }],
                    }))
                }
            },
        }
    }

    /// Looks for the attempt's instances until all are there or the grace period ends. Where the answer
    /// itself explains what is missing, one look is enough.
    async fn look(
        &self,
        known: BTreeSet<InstanceId>,
        once: bool,
    ) -> Result<BTreeSet<InstanceId>, Fault> {
        let until_ms = self.clock.now_ms() + GRACE_MS;
        let mut found = known;
        loop {
            found.extend(self.find().await?);
            if once || self.is_complete(found.len()) || self.clock.now_ms() >= until_ms {
                return Ok(found);
            }
            if !self.budget.lasts(self.clock) {
                return Err(Fault {
                    kind: FaultKind::Transient,
                    service: "ec2".into(),
                    operation: "DescribeInstances".into(),
                    code: "GracePeriod".into(),
                    message: "the invocation's time ran out before EC2 showed what was launched"
                        .into(),
                });
            }
            self.clock.sleep_ms(LOOK_MS).await;
        }
    }

    async fn find(&self) -> Result<BTreeSet<InstanceId>, Fault> {
        let seen = self.ec2.find(self.tags).await?;
        Ok(seen
            .into_iter()
            .map(|instance| instance.instance_id)
            .collect())
    }

    fn is_complete(&self, count: usize) -> bool {
        count >= self.call.count as usize
    }
}

/// What is there, and nothing is known of why not more.
fn launched(instances: BTreeSet<InstanceId>) -> Outcome {
    Outcome::Known(LaunchAnswer {
        instances: instances.into_iter().collect(),
        ..LaunchAnswer::default()
    })
}
