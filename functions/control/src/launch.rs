//! Resume: nodes are accepted, a plan is stored, instances are launched and paired, one worker at a time.
//!
//! The request record carries the plan and a lease. A worker that dies leaves both behind; whoever comes
//! next (a redelivery, a timer) takes the lease when it has run out and goes on where the other stopped.

mod accept;
mod attempt;
mod chunk;
mod doubt;
mod gang;
mod history;
mod note;
mod protect;
mod standing;

use std::collections::BTreeMap;

use spillway_core::message::{ContinueLaunch, ResumeQueueBody, ResumeRequest};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Chunk, units};
use spillway_core::usage::LAUNCH_LIFE_MS;
use tracing::{error, info, warn};

use crate::caps;
use crate::fault::{Fault, FaultKind};
use crate::names::NamesError;
use crate::ports::{Clock, Control, Ec2, Queues, Table};
use crate::record::{RequestRecord, Stored};
use crate::stamp::{FromTheFuture, check_stamp};
use crate::tally::Tally;

/// How often a launch is put off before it is left to its join deadline: with waits of 3 s at the least this covers
/// the longest ResumeTimeout (an hour).
const MAX_CONTINUATIONS: u32 = 1_200;

/// What is kept back of the invocation's time for storing what was learnt and setting timers.
const RESERVE_MS: u64 = 4_000;

/// How long EC2 is left alone after it could not be asked: its buckets refill within seconds.
const EC2_WAIT_SECONDS: u64 = 5;

/// A lease outlives its worker by this, for clocks that differ between Lambdas.
const LEASE_MARGIN_MS: u64 = 1_000;

/// Why a resume was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The message is wrong and stays wrong.
    #[error("resume request names no valid nodes")]
    Names(#[from] NamesError),
    /// The stamp lies further ahead than clocks may differ.
    #[error(transparent)]
    FromTheFuture(#[from] FromTheFuture),
    /// A call failed; the message is to be delivered again.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How much time the invocation has.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When Lambda ends the invocation, Unix milliseconds.
    pub ends_ms: u64,
}

impl Budget {
    /// Whether there is time left to begin something new.
    pub(crate) fn lasts(self, clock: &impl Clock) -> bool {
        self.left_ms(clock) > 0
    }

    /// What a call may take at most.
    fn left_ms(self, clock: &impl Clock) -> u64 {
        self.ends_ms.saturating_sub(clock.now_ms() + RESERVE_MS)
    }
}

/// How far a launch got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is left to do.
    Done,
    /// Something must be waited for.
    Wait {
        /// For about this long.
        seconds: u64,
    },
}

impl Progress {
    /// What is to be waited for when both are.
    fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, wait) | (wait, Self::Done) => wait,
            (Self::Wait { seconds: one }, Self::Wait { seconds: two }) => Self::Wait {
                seconds: one.min(two),
            },
        }
    }
}

/// Carries out one message of the resume queue. `sent_ms` is when SQS took it.
pub async fn launch<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    body: ResumeQueueBody,
    sent_ms: u64,
    budget: Budget,
) -> Result<Tally, LaunchError> {
    let mut tally = Tally::default();
    let (key, request, attempt) = match body {
        ResumeQueueBody::Resume(request) => {
            check_stamp(request.generation, sent_ms)?;
            (key(&request.request_id, request.part), Some(request), 0)
        }
        ResumeQueueBody::Continue(timer) => {
            (key(&timer.request_id, timer.part), None, timer.attempt)
        }
    };
    let mut work = match take_lease(control, &key, request, budget).await? {
        Lease::Taken(work) => work,
        Lease::Finished => return Ok(tally),
        Lease::Held { seconds } => {
            wait(control, &key, attempt, seconds).await?;
            return Ok(tally);
        }
    };
    let progress = advance(control, ec2, &mut work, budget, &mut tally).await?;
    work.record.lease_until_ms = 0;
    work.record.done = progress == Progress::Done;
    work.store(control).await?;
    if let Progress::Wait { seconds } = progress {
        wait(control, &key, attempt, seconds).await?;
    }
    Ok(tally)
}

fn key(request_id: &spillway_core::name::RequestId, part: u32) -> LaunchKey {
    LaunchKey {
        request_id: request_id.clone(),
        part,
    }
}

/// Plans if nothing is planned yet, then carries the plan on.
async fn advance<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    work: &mut Work,
    budget: Budget,
    tally: &mut Tally,
) -> Result<Progress, LaunchError> {
    if work.record.plan.is_none() {
        work.record.plan =
            Some(accept::accept(control, ec2, &work.key, &work.record.request, tally).await?);
        work.store(control).await?;
    }
    let plan = work.record.plan.clone().unwrap_or_default();
    accept::refuse(control, &work.key, &work.record.request, &plan, tally).await?;
    if plan.chunks.is_empty() {
        return Ok(Progress::Done);
    }
    let limits = control.table.policy().await?.map(|policy| policy.limits);
    let limits = limits.unwrap_or_default();
    let owners = caps::owners(&work.record.request, &plan)?;
    let mut progress = Progress::Done;
    let open = (0..).zip(&plan.chunks);
    let open = open.filter(|(index, _)| !work.record.launched.contains_key(index));
    let open: Vec<(u32, &Chunk)> = open.collect();
    for (index, chunk) in open {
        if !budget.lasts(&control.clock) {
            return Ok(Progress::Wait { seconds: 0 });
        }
        let recipes = plan
            .recipes
            .get(&chunk.node_group)
            .map_or(&[][..], Vec::as_slice);
        let chunk = chunk::Work {
            control,
            ec2,
            launch: &work.key,
            index,
            units: units(chunk),
            owners: &owners[index as usize],
            chunk,
            recipes,
            limits: &limits,
            budget,
            ends_ms: work.record.request.generation.at_ms() + LAUNCH_LIFE_MS,
        };
        let mut instances = Vec::new();
        match chunk.advance(&mut instances, tally).await {
            Ok(Progress::Done) => {
                work.record.launched.insert(index, instances);
            }
            Ok(wait @ Progress::Wait { .. }) => progress = progress.sooner(wait),
            // EC2 is asked too fast, or does not answer: later, and without using up the message's deliveries.
            Err(LaunchError::Fault(fault)) if fault.service == "ec2" && fault.is_passing() => {
                warn!(request_id = %work.key.request_id, %fault, "EC2 is asked again later");
                progress = progress.sooner(Progress::Wait {
                    seconds: EC2_WAIT_SECONDS,
                });
            }
            Err(error) => return Err(error),
        }
    }
    if progress == Progress::Done {
        caps::settle(control, &work.key, &plan, &owners, &work.record.launched).await?;
    }
    Ok(progress)
}

async fn wait<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    key: &LaunchKey,
    attempt: u32,
    seconds: u64,
) -> Result<(), Fault> {
    if attempt >= MAX_CONTINUATIONS {
        error!(request_id = %key.request_id, part = key.part, "put off {attempt} times; left to its join deadline");
        return Ok(());
    }
    let timer = ContinueLaunch {
        request_id: key.request_id.clone(),
        part: key.part,
        attempt: attempt + 1,
    };
    info!(request_id = %key.request_id, part = key.part, attempt, "goes on in {seconds} s");
    control
        .queues
        .send_resume(ResumeQueueBody::Continue(timer), seconds)
        .await
}

/// A request part under this worker's lease.
struct Work {
    key: LaunchKey,
    record: RequestRecord,
    version: u64,
}

enum Lease {
    Taken(Box<Work>),
    Finished,
    Held { seconds: u64 },
}

impl Work {
    /// Stores the record as the lease's holder.
    async fn store<T: Table, Q: Queues, C: Clock>(
        &mut self,
        control: &Control<T, Q, C>,
    ) -> Result<(), Fault> {
        if control
            .table
            .put_request(&self.key, &self.record, self.version)
            .await?
        {
            self.version += 1;
            return Ok(());
        }
        Err(Fault {
            kind: FaultKind::Transient,
            service: "dynamodb".into(),
            operation: "PutItem".into(),
            code: "LeaseLost".into(),
            message: format!(
                "another worker took over {} part {}",
                self.key.request_id, self.key.part
            ),
        })
    }
}

/// Takes the lease of a request part, making its record where there is none.
async fn take_lease<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    key: &LaunchKey,
    request: Option<ResumeRequest>,
    budget: Budget,
) -> Result<Lease, Fault> {
    /// Two deliveries at once: the second finds the first's lease at the second look.
    const LOOKS: usize = 3;
    let lease_until_ms = budget.ends_ms + LEASE_MARGIN_MS;
    for _ in 0..LOOKS {
        let now_ms = control.clock.now_ms();
        let (record, version) = match (control.table.request(key).await?, &request) {
            (Some(Stored { record, .. }), _) if record.done => return Ok(Lease::Finished),
            (Some(Stored { record, .. }), _) if record.lease_until_ms > now_ms => {
                let seconds = (record.lease_until_ms - now_ms).div_ceil(1000);
                return Ok(Lease::Held { seconds });
            }
            (Some(Stored { record, version }), _) => (
                RequestRecord {
                    lease_until_ms,
                    ..record
                },
                version,
            ),
            (None, Some(request)) => {
                let request = request.clone();
                (
                    RequestRecord {
                        request,
                        plan: None,
                        lease_until_ms,
                        done: false,
                        launched: BTreeMap::new(),
                    },
                    0,
                )
            }
            (None, None) => {
                error!(request_id = %key.request_id, "a timer names a request that is not in the table");
                return Ok(Lease::Finished);
            }
        };
        if control.table.put_request(key, &record, version).await? {
            return Ok(Lease::Taken(Box::new(Work {
                key: key.clone(),
                record,
                version: version + 1,
            })));
        }
    }
    Ok(Lease::Held { seconds: 1 })
}
