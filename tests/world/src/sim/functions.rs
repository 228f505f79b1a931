//! Lambda: each function's queue is looked into, its batches are carried out as `functions/runtime` does it, and what
//! did not succeed comes again.

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use spillway_control::deliver::deliver;
use spillway_control::launch::{Budget, LaunchError, launch};
use spillway_control::notice::notices;
use spillway_control::ports::{Clock, Control};
use spillway_control::report::{ReportError, report};
use spillway_control::roads::Roads;
use spillway_control::sweep::sweep;
use spillway_control::terminate::{TerminateError, terminate};
use spillway_core::message::SweepOrder;
use spillway_core::name::NodeName;
use spillway_core::notice::Notice;

use super::executor::{Task, TaskId};
use super::names::{Call, Trouble};
use super::port::Port;
use super::queue::{Body, Message};
use super::world::{Due, NOTICES, REPORTS, RESUME, SUSPEND, Shared, World};

/// The template's time-out of every function.
const TIMEOUT_MS: u64 = 60_000;
/// The template's `BatchSize`.
const BATCH: usize = 10;
/// As `functions/runtime` has it: records at a time, and what time a record needs at least.
const RECORDS_AT_ONCE: usize = 5;
const LEAST_TIME_MS: u64 = 6_000;
/// A message received this often was struck often enough: a fault that strikes one message five times in a row is for
/// the dead-letter queue's alarm and not for this simulation.
const SPARED_RECEIVES: u32 = 3;
/// How often the sweep runs.
const SWEEP_MS: u64 = 60_000;
/// How far the clocks of functions differ.
const SKEW_MS: i64 = 400;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Launch,
    Terminate,
    Report,
    Notice,
}

impl Function {
    /// Who reads a queue.
    pub(crate) fn of_queue(queue: usize) -> Option<Self> {
        match queue {
            RESUME => Some(Self::Launch),
            SUSPEND => Some(Self::Terminate),
            REPORTS => Some(Self::Report),
            NOTICES => Some(Self::Notice),
            _ => None,
        }
    }

    fn queue(self) -> usize {
        match self {
            Self::Launch => RESUME,
            Self::Terminate => SUSPEND,
            Self::Report => REPORTS,
            Self::Notice => NOTICES,
        }
    }

    /// The template's `MaximumConcurrency`.
    fn most_at_once(self) -> usize {
        match self {
            Self::Launch | Self::Report | Self::Notice => 10,
            Self::Terminate => 5,
        }
    }
}

/// What an invocation is about.
#[derive(Debug, Clone)]
enum Work {
    Messages(Function, Vec<Message>),
    Changes(usize, BTreeSet<NodeName>),
    Sweep,
}

/// The invocations.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    running: BTreeMap<TaskId, Work>,
    begun: Vec<(TaskId, Work)>,
    /// Crashed in this moment.
    pub crashed: Vec<TaskId>,
    /// Messages that are delivered once more.
    pub twice: BTreeSet<u64>,
}

impl Functions {
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

impl World {
    /// Lambda looks into a function's queue.
    pub(crate) fn poll(&mut self, function: Function) {
        let of_this = |work: &&Work| matches!(work, Work::Messages(of, _) if *of == function);
        let running = self.functions.running.values().filter(of_this).count();
        let queue = function.queue();
        if running >= function.most_at_once() {
            self.look_into(queue, 500);
            return;
        }
        let twice = &mut self.functions.twice;
        let stays = |message: &Message| twice.remove(&message.id);
        let batch = self.queues[queue].receive(self.now_ms, BATCH, &mut self.rng, stays);
        for message in &batch {
            self.look_into(queue, message.visible_ms - self.now_ms);
        }
        if !batch.is_empty() {
            self.invoke(Work::Messages(function, batch));
        }
    }

    pub(crate) fn invoke_callback(&mut self, shard: usize, nodes: BTreeSet<NodeName>) {
        self.invoke(Work::Changes(shard, nodes));
    }

    /// The schedule wakes the sweep.
    pub(crate) fn sweeps(&mut self) {
        self.after(SWEEP_MS, Due::Sweep);
        self.invoke(Work::Sweep);
    }

    fn invoke(&mut self, work: Work) {
        let id = self.fresh_number();
        self.tell(|| format!("-> invocation {id}: {}", words(&work)));
        self.functions.running.insert(id, work.clone());
        self.functions.begun.push((id, work));
        self.after(TIMEOUT_MS, Due::Ends(id));
    }

    /// The worker of an invocation is gone, with all that it had in hand.
    pub(crate) fn crash(&mut self, id: TaskId) {
        self.functions.crashed.push(id);
        let Some(work) = self.functions.running.remove(&id) else {
            return;
        };
        self.tell(|| {
            format!(
                "xx invocation {id} ends without an answer: {}",
                words(&work)
            )
        });
        if let Work::Changes(shard, _) = work {
            self.pumped(shard, false);
        }
    }

    /// Lambda ends an invocation that takes too long.
    pub(crate) fn time_is_up(&mut self, id: TaskId) {
        if self.functions.running.contains_key(&id) {
            self.crash(id);
        }
    }

    /// An invocation answers which of its messages are done.
    fn answered(&mut self, id: TaskId, done: &[u64]) {
        if let Some(Work::Messages(function, _)) = self.functions.running.remove(&id) {
            let queue = &mut self.queues[function.queue()];
            for id in done {
                queue.messages.remove(id);
            }
        }
    }

    /// The invocations that have begun, as tasks.
    pub(crate) fn take_begun(&mut self, handle: &Shared) -> Vec<(TaskId, Task)> {
        let begun = std::mem::take(&mut self.functions.begun);
        let task = |(id, work): (TaskId, Work)| {
            let skewed = self.strike(Call::Now, false) == Some(Trouble::Skewed);
            let spared = match &work {
                Work::Messages(_, batch) => batch.iter().any(|m| m.receives > SPARED_RECEIVES),
                Work::Changes(..) | Work::Sweep => false,
            };
            let port = Port {
                shared: handle.clone(),
                task: id,
                skew_ms: if skewed {
                    self.rng.i64(-SKEW_MS..=SKEW_MS)
                } else {
                    0
                },
                spared,
            };
            let cluster = self.setting.cluster.clone();
            let control = Control {
                cluster,
                table: port.clone(),
                queues: port.clone(),
                clock: port,
            };
            let task: Task = match work {
                Work::Messages(Function::Notice, batch) => Box::pin(events(control, batch)),
                Work::Messages(_, batch) => Box::pin(messages(control, batch)),
                Work::Changes(shard, nodes) => {
                    Box::pin(changes(control, self.setting.commands, shard, nodes))
                }
                Work::Sweep => Box::pin(sweep_once(control)),
            };
            (id, task)
        };
        begun.into_iter().map(task).collect()
    }
}

type Sight = Control<Port, Port, Port>;

async fn messages(control: Sight, batch: Vec<Message>) {
    let ends_ms = control.clock.now_ms() + TIMEOUT_MS;
    let outcomes: Vec<Option<u64>> = stream::iter(batch)
        .map(|message| carry_out(&control, message, ends_ms))
        .buffer_unordered(RECORDS_AT_ONCE)
        .collect()
        .await;
    let done: Vec<u64> = outcomes.into_iter().flatten().collect();
    let port = &control.clock;
    port.shared.lock().answered(port.task, &done);
}

/// A batch of events, as `functions/runtime` has it: as a whole, and where that fails each by itself.
async fn events(control: Sight, batch: Vec<Message>) {
    let port = &control.clock;
    let read = batch.iter().filter_map(|message| {
        let Body::Notice(text) = &message.body else {
            return None;
        };
        let notice = Notice::parse(text).expect("an event that AWS would send");
        Some((message.id, notice))
    });
    let read: Vec<(u64, Notice)> = read.collect();
    let whole = read.iter().map(|(_, notice)| notice.clone()).collect();
    let mut done: Vec<u64> = Vec::new();
    if notices(&control, port, whole).await.is_ok() {
        done.extend(read.iter().map(|(id, _)| id));
    } else {
        for (id, notice) in read {
            match notices(&control, port, vec![notice]).await {
                Ok(_) => done.push(id),
                Err(fault) => {
                    let world = port.shared.lock();
                    world.tell(|| format!("   message {id} failed: {fault}"));
                }
            }
        }
    }
    port.shared.lock().answered(port.task, &done);
}

/// Why a record was not carried out.
enum Failure {
    Lasting(String),
    Passing(String),
}

/// Carries out one message; its id if it is done.
async fn carry_out(control: &Sight, message: Message, ends_ms: u64) -> Option<u64> {
    let port = &control.clock;
    if port.now_ms() + LEAST_TIME_MS >= ends_ms {
        return None;
    }
    let id = message.id;
    let reason = match use_case(control, &message, Budget { ends_ms }).await {
        Ok(()) => return Some(id),
        Err(Failure::Passing(reason)) => {
            port.shared
                .lock()
                .tell(|| format!("   message {id} failed: {reason}"));
            return None;
        }
        Err(Failure::Lasting(reason)) => reason,
    };
    let mut world = port.shared.lock();
    world.tell(|| format!("   message {id} is set aside: {reason}"));
    let queue = match &message.body {
        Body::Resume(_) => RESUME,
        Body::Suspend(_) => SUSPEND,
        _ => REPORTS,
    };
    world.queues[queue].dead.push(message);
    Some(id)
}

async fn use_case(control: &Sight, message: &Message, budget: Budget) -> Result<(), Failure> {
    let port = &control.clock;
    let sent_ms = message.sent_ms;
    match message.body.clone() {
        Body::Resume(body) => {
            let done = launch(control, port, body, sent_ms, budget).await;
            done.map(drop).map_err(|error| match &error {
                LaunchError::Fault(_) => Failure::Passing(error.to_string()),
                _ => Failure::Lasting(error.to_string()),
            })
        }
        Body::Suspend(body) => {
            let done = terminate(control, port, body, sent_ms).await;
            done.map(drop).map_err(|error| match &error {
                TerminateError::Fault(_) => Failure::Passing(error.to_string()),
                _ => Failure::Lasting(error.to_string()),
            })
        }
        Body::Report(body) => {
            let done = report(control, port, body, sent_ms, &message.sender).await;
            done.map(drop).map_err(|error| match &error {
                ReportError::Fault(_) => Failure::Passing(error.to_string()),
                _ => Failure::Lasting(error.to_string()),
            })
        }
        Body::Envelope(_) | Body::Notice(_) => Ok(()),
    }
}

async fn sweep_once(control: Sight) {
    let port = &control.clock;
    let budget = Budget {
        ends_ms: port.now_ms() + TIMEOUT_MS,
    };
    let order = SweepOrder::default();
    let done = sweep(&control, port, order, budget).await;
    let mut world = port.shared.lock();
    match &done {
        Ok(tally) => world.watch_sweep(tally),
        Err(fault) => world.tell(|| format!("   the sweep failed: {fault}")),
    }
    world.functions.running.remove(&port.task);
}

async fn changes(control: Sight, commands: bool, shard: usize, nodes: BTreeSet<NodeName>) {
    let port = &control.clock;
    let roads = Roads {
        keys: port.clone(),
        queue: true,
        commands: commands.then(|| port.clone()),
    };
    let done = deliver(&control, &roads, &nodes).await;
    let mut world = port.shared.lock();
    if let Err(fault) = &done {
        world.tell(|| format!("   callback failed: {fault}"));
    }
    world.functions.running.remove(&port.task);
    world.pumped(shard, done.is_ok());
}

fn words(work: &Work) -> String {
    match work {
        Work::Messages(function, batch) => {
            let message = |m: &Message| {
                let again = if m.receives > 1 {
                    format!(", received {} times", m.receives)
                } else {
                    String::new()
                };
                format!("message {} ({}{again})", m.id, super::words::body(&m.body))
            };
            let ids: Vec<String> = batch.iter().map(message).collect();
            format!("{function:?}, {}", ids.join(", "))
        }
        Work::Sweep => "Sweep".to_owned(),
        Work::Changes(_, nodes) => {
            let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
            format!("Callback for {}", names.join(","))
        }
    }
}
