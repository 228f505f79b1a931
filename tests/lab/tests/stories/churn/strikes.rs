//! How each kind of fault is made, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use spillway_lab::faults::Action;
use spillway_lab::hypervisor::SpotAction;
use spillway_lab::lab::Lab;
use spillway_world::ec2::{CapacityKind, InstanceState, Pool};

use super::deck::Kind;
use super::repeat::repeat;
use super::{Churn, NODES, OTHER_TYPE};
use crate::faults::broken::BROKEN;
use crate::support::functions::{enable, kill, mapping};
use crate::support::{alive, arm, pools, put};
use crate::sweep::launched_behind_our_back;

/// A fault that waits for a call to strike is given up after this, and dealt again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a service is away: longer than the SDK's own retries take.
const AWAY_MS: std::ops::Range<u64> = 4_000..8_000;
/// How long there is no capacity, and how long a queue is kept from its reader.
const SCARCE: Duration = Duration::from_secs(12);
const HELD: Duration = Duration::from_secs(4);
/// How long a killed program is missed.
const MISSED_MS: std::ops::Range<u64> = 500..6_000;
/// How long a call is kept waiting; its caller is dead by then.
const HANG_MS: u64 = 10_000;
/// `CreateFleet` is refused so often: the SDK repeats it twice by itself.
const REFUSALS: u64 = 4;
/// So many answers to functions are lost, one after the other: more than the SDK's tries.
const LOST: u64 = 5;
/// The state of a node that ends its jobs.
const DOWN: &str = "DOWN";
/// What a node is set down or drained for.
const REASON: &str = "Reason=spillway: by a story";
/// Functions that are killed, in a call of which service, and after how many at most: fewer than it soon makes.
const FUNCTIONS: [(&str, &str, u64); 7] = [
    ("launch", "dynamodb", 16),
    ("launch", "ec2", 1),
    ("terminate", "dynamodb", 4),
    ("report", "dynamodb", 8),
    ("callback", "dynamodb", 3),
    ("notice", "dynamodb", 1),
    ("sweep", "ec2", 0),
];
/// Functions whose messages are repeated, and their queues.
const READERS: [(&str, &str); 3] = [
    ("launch", "ResumeQueueUrl"),
    ("terminate", "SuspendQueueUrl"),
    ("report", "ReportsQueueUrl"),
];
/// Queues that get something that is no message.
const READ: [&str; 4] = ["Resume", "Suspend", "Reports", "Notices"];

/// A fault that lasts.
pub struct Ongoing {
    /// Which.
    pub kind: Kind,
    begun: Instant,
    least: Duration,
    end: End,
}

/// What it waits for, and what ends it.
enum End {
    /// The proxy's fault has hit so many calls.
    Hit { fault: String, times: u64 },
    /// EC2 has been asked for instances; then it has some again.
    Capacity { probe: String },
    /// A function hangs in a call; it is killed.
    Killed {
        function: &'static str,
        faults: [String; 2],
    },
    /// A machine has booted from the bad image.
    Booted { before: BTreeSet<String> },
    /// The queue's messages are there.
    Held {
        queue: &'static str,
        mapping: String,
    },
    /// The agent is dead.
    AgentStarts,
}

impl Churn {
    /// The faults that wait strike, if there is something that they can strike.
    pub async fn strike(&mut self) {
        for kind in std::mem::take(&mut self.deck.waiting) {
            let what = self.struck_by(kind).await;
            match what {
                None => self.deck.waiting.push(kind),
                Some(Struck::Begins(least, end)) => {
                    self.diary.note(&format!("fault: {kind:?} begins"));
                    self.ongoing.push(Ongoing {
                        kind,
                        begun: Instant::now(),
                        least,
                        end,
                    });
                }
                Some(Struck::Done(what)) => {
                    self.diary.note(&format!("fault: {kind:?}: {what}"));
                    self.deck.has_struck(kind);
                }
            }
        }
    }

    async fn struck_by(&mut self, kind: Kind) -> Option<Struck> {
        match kind {
            Kind::SpotNotice => self.spot_notice(),
            Kind::TerminatedBehindOurBack => {
                let id = self.pick(&alive(&self.lab))?;
                let ids = [id.clone()];
                let ended = |ec2: &mut spillway_world::ec2::Ec2, now_ms| {
                    ec2.terminate_instances(now_ms, &ids, false)
                };
                self.lab.ec2.with(ended).ok()?;
                Some(Struck::Done(id))
            }
            Kind::LaunchedBehindOurBack => {
                let is_scarce = |fault: &Ongoing| fault.kind == Kind::NoCapacity;
                let nobody_gets_any = self.ongoing.iter().any(is_scarce);
                (!nobody_gets_any).then(|| Struck::Done(launched_behind_our_back(&self.lab)))
            }
            Kind::NoCapacity => {
                set_all_free_capacity(&self.lab, Some(0));
                let probe = self.arm("ec2", Some("CreateFleet"), "lab-launch", None, wait());
                Some(Struck::Begins(SCARCE, End::Capacity { probe }))
            }
            Kind::Throttled => {
                let action = refusal("RequestLimitExceeded", "Request limit exceeded.");
                let operation = Some("CreateFleet");
                let times = REFUSALS;
                let fault = self.arm("ec2", operation, "lab-launch", Some(times), action);
                Some(Struck::Begins(Duration::ZERO, End::Hit { fault, times }))
            }
            Kind::Ec2Away => Some(self.away("ec2")),
            Kind::TableAway => Some(self.away("dynamodb")),
            Kind::QueuesAway => Some(self.away("sqs")),
            Kind::ParametersAway => Some(self.away("ssm")),
            Kind::AnswersLost => {
                let (_, service, _) = self.pick(&FUNCTIONS)?;
                let action = Action::LoseAnswer {};
                let times = LOST;
                let fault = self.arm(service, None, "lab-", Some(times), action);
                Some(Struck::Begins(Duration::ZERO, End::Hit { fault, times }))
            }
            Kind::FunctionKilled => Some(self.function_hangs()),
            Kind::AgentKilled => {
                self.lab.agent.kill();
                let missed = Duration::from_millis(self.rng.u64(MISSED_MS));
                Some(Struck::Begins(missed, End::AgentStarts))
            }
            Kind::SlurmdNeverStarts => {
                let dead = "#!/bin/sh\nexec sleep infinity\n";
                let image = self.good_image.clone();
                let image = image.with_bytes("/usr/sbin/slurmd", dead, 0o755);
                let before = self.lab.hypervisor.running().into_iter().collect();
                self.lab.hypervisor.set_image(image).expect("staged");
                Some(Struck::Begins(Duration::ZERO, End::Booted { before }))
            }
            Kind::MessagesRepeated => {
                let (function, queue) = self.pick(&READERS)?;
                let mapping = mapping(&self.lab, function).await;
                enable(&self.lab, &mapping, false).await;
                Some(Struck::Begins(HELD, End::Held { queue, mapping }))
            }
            Kind::Malformed => {
                let queue = self.pick(&READ)?;
                put(&self.lab, &format!("{queue}QueueUrl"), BROKEN).await;
                let dead_letters = format!("{queue}DeadLetterQueueUrl");
                *self.malformed.entry(dead_letters).or_default() += 1;
                Some(Struck::Done(queue.to_owned()))
            }
            Kind::JobCancelled => {
                let id = self.jobs.cancel(&self.lab, &mut self.rng).await?;
                Some(Struck::Done(format!("job {id}")))
            }
            _ => self.struck_by_slurm(kind).await,
        }
    }

    async fn struck_by_slurm(&mut self, kind: Kind) -> Option<Struck> {
        match kind {
            Kind::SlurmctldRestarted => {
                self.lab.head.stop_slurmctld().await;
                let missed_ms = self.rng.u64(MISSED_MS);
                tokio::time::sleep(Duration::from_millis(missed_ms)).await;
                let started = self.lab.head.start_slurmctld().await;
                started.expect("slurmctld starts again");
                Some(Struck::Done(format!("away for {missed_ms} ms")))
            }
            Kind::Reconfigured => {
                self.lab.head.scontrol(&["reconfigure"]).await.ok()?;
                Some(Struck::Done(String::new()))
            }
            Kind::NodeDown => self.set_node(DOWN).await,
            Kind::NodeDrained => self.set_node("DRAIN").await,
            Kind::SlurmdDies => {
                let id = self.pick(&self.lab.hypervisor.running())?;
                let kills = "kill -9 \"$(cat /run/slurmd.pid)\"";
                let mut shell = self.lab.hypervisor.command(&id, "/bin/sh").ok()?;
                let killed = shell.args(["-c", kills]).output().await.ok()?;
                killed.status.success().then_some(Struck::Done(id))
            }
            _ => unreachable!("{kind:?} is none of Slurm's"),
        }
    }

    /// Any of the nodes; every second time one that is in use.
    async fn set_node(&mut self, state: &str) -> Option<Struck> {
        let nodes = self.jobs.nodes();
        let used = nodes.iter().filter(|(_, node)| !node.has("POWERED_DOWN"));
        let used: Vec<String> = used.map(|(name, _)| name.clone()).collect();
        let any = format!("cloud-{}", self.rng.u32(..NODES));
        let name = self.rng.bool().then(|| self.pick(&used)).flatten();
        let name = name.unwrap_or(any);
        let was = self.jobs.nodes().get(&name).map(|node| node.state.clone());
        let (node, state) = (format!("NodeName={name}"), format!("State={state}"));
        if state == DOWN {
            self.jobs.node_is_set_down(&name);
        }
        let update = ["update", &node, &state, REASON];
        self.lab.head.scontrol(&update).await.ok()?;
        Some(Struck::Done(format!("{name}, which was {was:?}")))
    }

    /// EC2 announces it, and instance metadata shows it to the instance, too.
    fn spot_notice(&mut self) -> Option<Struck> {
        let is_spot = |i: &&spillway_world::ec2::Instance| {
            i.kind == CapacityKind::Spot
                && i.state == InstanceState::Running
                && i.interruption.is_none()
        };
        let spot: Vec<String> = self.lab.ec2.with(|ec2, _| {
            let spot = ec2.instances().filter(is_spot);
            spot.map(|i| i.instance_id.clone()).collect()
        });
        let id = self.pick(&spot)?;
        let notice = self
            .lab
            .ec2
            .with(|ec2, now_ms| ec2.interrupt_spot(now_ms, &id))
            .ok()?;
        let at = i64::try_from(notice.at_ms).ok()?;
        let action = SpotAction {
            action: notice.action,
            time: jiff::Timestamp::from_millisecond(at).ok()?.to_string(),
        };
        // It may not have booted.
        let _ = self.lab.hypervisor.set_spot_action(&id, Some(&action));
        Some(Struck::Done(id))
    }

    fn away(&mut self, service: &str) -> Struck {
        let action = refusal("ServiceUnavailable", "The service is unavailable.");
        let fault = self.arm(service, None, "", None, action);
        let least = Duration::from_millis(self.rng.u64(AWAY_MS));
        Struck::Begins(least, End::Hit { fault, times: 1 })
    }

    fn function_hangs(&mut self) -> Struck {
        let (function, service, most) = FUNCTIONS[self.rng.usize(..FUNCTIONS.len())];
        let principal = format!("lab-{function}");
        let before = self.rng.u64(..=most);
        let hang = if self.rng.bool() {
            Action::HangMs(HANG_MS)
        } else {
            Action::HangAnswerMs(HANG_MS)
        };
        let faults = [
            self.arm(service, None, &principal, Some(before), wait()),
            self.arm(service, None, &principal, Some(1), hang),
        ];
        Struck::Begins(Duration::ZERO, End::Killed { function, faults })
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.rng.usize(..from.len())].clone())
    }

    /// Ends faults that have lasted long enough.
    pub async fn end_what_is_over(&mut self) {
        for ongoing in std::mem::take(&mut self.ongoing) {
            let lasts = ongoing.begun.elapsed();
            let is_given_up = lasts > PATIENCE;
            if lasts < ongoing.least || !(is_given_up || self.has_struck(&ongoing.end)) {
                self.ongoing.push(ongoing);
                continue;
            }
            let kind = ongoing.kind;
            if self.end(ongoing.end).await {
                self.diary.note(&format!("fault: {kind:?} is over"));
                self.deck.has_struck(kind);
            } else {
                self.diary.note(&format!("fault: {kind:?} met nothing"));
                self.deck.waiting.push(kind);
            }
        }
    }

    fn has_struck(&self, end: &End) -> bool {
        let times_of = |fault: &String| self.lab.cloud.proxy.faults().fired(fault);
        let fired = |fault: &String| times_of(fault) > 0;
        match end {
            End::Hit { fault, times } => times_of(fault) >= *times,
            End::Capacity { probe } => fired(probe),
            End::Killed { faults, .. } => fired(&faults[1]),
            End::Booted { before } => {
                let now = self.lab.hypervisor.running();
                now.iter().any(|id| !before.contains(id))
            }
            End::Held { .. } | End::AgentStarts => true,
        }
    }

    /// Ends a fault; false if it has struck nothing.
    async fn end(&mut self, end: End) -> bool {
        let has_struck = match &end {
            End::Hit { fault, .. } => self.lab.cloud.proxy.faults().fired(fault) > 0,
            other => self.has_struck(other),
        };
        let disarm = |fault: &String| self.lab.cloud.proxy.faults().disarm(fault);
        match end {
            End::Hit { fault, .. } => disarm(&fault),
            End::Capacity { probe } => {
                set_all_free_capacity(&self.lab, None);
                disarm(&probe)
            }
            End::Killed { function, faults } => {
                if has_struck {
                    self.diary.note(&format!("{function} is killed"));
                    kill(&self.lab, function);
                }
                faults.iter().all(disarm)
            }
            End::Booted { .. } => {
                let good = self.good_image.clone();
                self.lab.hypervisor.set_image(good).expect("staged");
                true
            }
            End::Held { queue, mapping } => {
                let repeated = repeat(&self.lab, queue).await;
                enable(&self.lab, &mapping, true).await;
                self.diary
                    .note(&format!("{repeated} of {queue}, twice each"));
                return repeated > 0;
            }
            End::AgentStarts => {
                self.lab.agent.start(&BTreeMap::new()).expect("it starts");
                true
            }
        };
        has_struck
    }

    fn arm(
        &self,
        service: &str,
        operation: Option<&str>,
        principal: &str,
        times: Option<u64>,
        action: Action,
    ) -> String {
        arm(&self.lab, service, operation, principal, times, action)
    }
}

/// What came of an attempt to strike.
enum Struck {
    /// It is done.
    Done(String),
    /// It lasts so long at least, and then until its end.
    Begins(Duration, End),
}

/// Lets a call pass, and is seen to have been there.
fn wait() -> Action {
    Action::DelayMs(0)
}

fn refusal(code: &str, message: &str) -> Action {
    Action::Refuse {
        status: 503,
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// Sets what every pool of both node groups has left.
fn set_all_free_capacity(lab: &Lab, free: Option<u32>) {
    let mut all = Vec::new();
    for kind in [CapacityKind::Spot, CapacityKind::OnDemand] {
        all.extend(pools(lab, kind));
    }
    let others = all.clone().into_iter().map(|pool| Pool {
        instance_type: OTHER_TYPE.to_owned(),
        ..pool
    });
    all.extend(others);
    lab.ec2.with(|ec2, _| {
        for pool in all {
            ec2.set_free_capacity(pool, free);
        }
    });
}
