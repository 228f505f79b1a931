//! The world of a run: everything there is outside of the use-cases, under one lock, and the agenda of what happens
//! when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use spillway_control::sender::Sender;
use spillway_core::message::ReportBody;

use super::client::Client;
use super::cloud::Cloud;
use super::coverage::Coverage;
use super::executor::TaskId;
use super::functions::{Function, Functions};
use super::machine::Machines;
use super::names::{Call, Trouble};
use super::queue::{Body, Message, Queue};
use super::setting::{START_MS, Setting};
use super::slurm::Slurm;
use super::story::Story;
use super::stream::Stream;
use super::table::Records;
use super::watch::{Violation, Watch};

/// The world, shared by all that run in it.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// Held for moments and never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Due {
    /// A task goes on.
    Wake(Waker),
    /// Lambda looks into a function's queue.
    Poll(Function),
    /// Lambda looks at a shard.
    Pump(usize),
    /// Lambda's time for an invocation is over.
    Ends(TaskId),
    /// Something happens from outside.
    Event,
    Schedule,
    ResumeTimeout(usize, u64),
    SuspendTimeout(usize, u64),
    IdleTimeout,
    /// An administrator, or a user, has second thoughts about a job.
    Regret(usize),
    JobEnds(usize, u64),
    AgentSends,
    AgentReceives,
    AgentReturns,
    Heartbeat,
    /// A command reaches the head node.
    Command(String),
    /// The schedule wakes the sweep.
    Sweep,
    /// Somebody lets go of an instance.
    HoldEnds(String),
    /// EC2's own time.
    Cloud,
    /// An instance goes on.
    Machine(String),
    /// A call arrives that nobody waits for any more.
    LateLaunch(Box<spillway_core::plan::LaunchCall>),
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct World {
    pub now_ms: u64,
    pub rng: fastrand::Rng,
    pub setting: Setting,
    agenda: BTreeMap<(u64, u64), Due>,
    sequence: u64,
    pub story: Story,
    pub coverage: Coverage,
    /// Calls that could have failed so far.
    calls: u64,
    pub records: Records,
    pub queues: [Queue; 5],
    pub stream: Stream,
    pub cloud: Cloud,
    pub slurm: Slurm,
    pub client: Client,
    pub machines: Machines,
    pub functions: Functions,
    pub watch: Watch,
    /// Ids of the commands that SSM took.
    pub commands: BTreeSet<String>,
    /// Events that happened.
    pub events: usize,
    /// The first violation of each invariant, in the order of time.
    pub violations: Vec<Violation>,
}

/// Places in [`World::queues`].
pub(crate) const RESUME: usize = 0;
pub(crate) const SUSPEND: usize = 1;
pub(crate) const REPORTS: usize = 2;
pub(crate) const UPDATES: usize = 3;
pub(crate) const NOTICES: usize = 4;

/// The template's maxReceiveCount, in that order.
pub(crate) const MAX_RECEIVES: [u32; 5] = [5, 100, 5, 10, 5];

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setting = Setting::draw(&mut rng);
        Self::of(setting, rng, seed, told)
    }

    /// A world of this setting; `rng` decides the rest.
    pub(crate) fn of(setting: Setting, rng: fastrand::Rng, seed: u64, told: bool) -> Self {
        let ec2 = setting.make_ec2(seed);
        Self {
            now_ms: START_MS,
            rng,
            agenda: BTreeMap::new(),
            sequence: 0,
            story: Story::new(told),
            coverage: Coverage::default(),
            calls: 0,
            records: Records::new(&setting),
            queues: MAX_RECEIVES.map(Queue::new),
            stream: Stream::default(),
            cloud: Cloud::new(ec2),
            slurm: Slurm::new(&setting),
            client: Client::new(&setting),
            machines: Machines::default(),
            functions: Functions::default(),
            watch: Watch::default(),
            commands: BTreeSet::new(),
            events: 0,
            violations: Vec::new(),
            setting,
        }
    }

    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        self.story.tell(self.now_ms - START_MS, text);
    }

    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// `due` happens in `after_ms`.
    pub(crate) fn after(&mut self, after_ms: u64, due: Due) {
        let number = self.fresh_number();
        self.agenda.insert((self.now_ms + after_ms, number), due);
    }

    /// What comes next; the time is then that of it.
    pub(crate) fn next(&mut self) -> Option<Due> {
        let ((at_ms, _), due) = self.agenda.pop_first()?;
        self.now_ms = self.now_ms.max(at_ms);
        Some(due)
    }

    /// Whether faults still strike: until the storm is over, and the forced ones have struck.
    pub(crate) fn is_stormy(&self) -> bool {
        self.now_ms < self.setting.storm_ends_ms || !self.setting.forced.is_empty()
    }

    /// Whether, and how, a call goes wrong. `spared`: what carries on here has been struck often enough.
    pub(crate) fn strike(&mut self, call: Call, spared: bool) -> Option<Trouble> {
        self.coverage.call(call);
        if spared || !self.is_stormy() {
            return None;
        }
        if self.is_away(call) {
            self.coverage.strike(Trouble::Refused, call);
            self.tell(|| format!("!! {}: its service is away", call.as_str()));
            return Some(Trouble::Refused);
        }
        self.calls += 1;
        let forced = self
            .setting
            .forced
            .first()
            .is_some_and(|at| *at <= self.calls);
        if !forced && self.rng.f64() >= self.setting.fault_rate * call.weight() {
            return None;
        }
        if forced {
            self.setting.forced.pop_first();
        }
        let troubles = Trouble::of(call);
        let trouble = troubles[self.rng.usize(..troubles.len())];
        self.coverage.strike(trouble, call);
        self.tell(|| format!("!! {}: {}", call.as_str(), trouble.as_str()));
        Some(trouble)
    }

    fn is_away(&self, call: Call) -> bool {
        let mut outages = self.setting.outages.iter();
        outages.any(|(service, from_ms, until_ms)| {
            (*from_ms..*until_ms).contains(&self.now_ms) && call.service() == Some(*service)
        })
    }

    /// Puts a message into a queue.
    pub(crate) fn send(&mut self, queue: usize, body: Body, sender: Sender, delay_seconds: u64) {
        let call = [
            Call::ResumeQueue,
            Call::SuspendQueue,
            Call::ReportsQueue,
            Call::UpdatesQueue,
            Call::NoticesQueue,
        ][queue];
        let trouble = self.strike(call, false);
        let mut delay_ms = delay_seconds.min(spillway_control::ports::MAX_DELAY_SECONDS) * 1000;
        delay_ms += self.rng.u64(2..=40);
        if trouble == Some(Trouble::Delayed) {
            delay_ms += self.rng.u64(200..=90_000);
        }
        let message = Message {
            id: self.fresh_number(),
            body,
            sender,
            sent_ms: self.now_ms,
            visible_ms: self.now_ms + delay_ms,
            receives: 0,
            poison: false,
        };
        if trouble == Some(Trouble::Duplicated) {
            self.functions.twice.insert(message.id);
        }
        self.enqueue(queue, message);
    }

    pub(crate) fn enqueue(&mut self, queue: usize, message: Message) {
        let after_ms = message.visible_ms - self.now_ms;
        self.queues[queue].messages.insert(message.id, message);
        self.look_into(queue, after_ms);
    }

    /// Whoever reads a queue looks into it in `after_ms`.
    pub(crate) fn look_into(&mut self, queue: usize, after_ms: u64) {
        let due = match Function::of_queue(queue) {
            Some(function) => Due::Poll(function),
            None => Due::AgentReceives,
        };
        self.after(after_ms, due);
    }

    pub(crate) fn send_report(&mut self, body: ReportBody, sender: Sender, delay_seconds: u64) {
        self.send(REPORTS, Body::Report(body), sender, delay_seconds);
    }

    /// An invariant does not hold. The run goes on: what follows from it may be told too.
    pub(crate) fn violate(&mut self, invariant: &'static str, about: Vec<String>, what: String) {
        self.tell(|| format!("## {invariant}: {what}"));
        if self
            .violations
            .iter()
            .all(|violation| violation.invariant != invariant)
        {
            self.violations.push(Violation {
                invariant,
                about,
                what,
            });
        }
    }
}
