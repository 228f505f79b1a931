//! One run: the agenda is followed until nothing moves any more.

use super::coverage::Coverage;
use super::executor::Tasks;
use super::setting::START_MS;
use super::watch::{QUIET, Violation};
use super::world::{Due, Shared, World};

/// A run that moves longer than this after its storm will never be quiet: the longest timers (a join deadline) end
/// within a quarter of it.
const LONGEST_MS: u64 = 3 * 3_600_000;
/// Lines of a story that are shown.
const LINES: usize = 120;

/// What a seed brought.
#[derive(Debug)]
pub struct Run {
    /// Which.
    pub seed: u64,
    /// How many nodes its cluster has.
    pub nodes: usize,
    /// How many events happened.
    pub events: usize,
    /// Which faults struck which calls.
    pub coverage: Coverage,
    /// Invariants that did not hold, in the order of time.
    pub violations: Vec<Violation>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64) -> Run {
    let shared = follow(seed, false);
    let mut world = shared.lock();
    Run {
        seed,
        nodes: world.slurm.nodes.len(),
        events: world.events,
        coverage: std::mem::take(&mut world.coverage),
        violations: std::mem::take(&mut world.violations),
    }
}

/// Runs a seed and tells its story: all of it, or, of a violation, what concerns it.
#[must_use]
pub fn tell(seed: u64, whole: bool) -> String {
    let shared = follow(seed, true);
    let world = shared.lock();
    let names = match world.violations.first() {
        Some(violation) if !whole => violation.about.as_slice(),
        _ => &[],
    };
    let lines = if whole { usize::MAX } else { LINES };
    let setting = &world.setting;
    format!(
        "seed {seed}: {} nodes, {} events, fault rate {}, {:?}, ResumeTimeout {} s\n{}",
        setting.nodes.len(),
        setting.events,
        setting.fault_rate,
        setting.policy.limits,
        setting.resume_timeout_ms / 1000,
        world.story.about(names, lines)
    )
}

fn follow(seed: u64, told: bool) -> Shared {
    let mut world = World::new(seed, told);
    world.begin();
    live(world)
}

/// Lets a world live until nothing moves in it any more.
pub(super) fn live(world: World) -> Shared {
    let shared = Shared::new(world);
    let mut tasks = Tasks::default();
    loop {
        let begun = {
            let mut world = shared.lock();
            if world.step() {
                break;
            }
            world.take_begun(&shared)
        };
        for (id, task) in begun {
            tasks.spawn(id, task);
        }
        tasks.run_woken();
        let crashed = std::mem::take(&mut shared.lock().functions.crashed);
        for id in crashed {
            tasks.kill(id);
        }
    }
    shared
}

impl World {
    fn begin(&mut self) {
        let storm_ms = self.setting.storm_ends_ms - START_MS;
        for _ in 0..self.setting.events {
            let at_ms = self.rng.u64(0..storm_ms * 3 / 4);
            self.after(at_ms, Due::Event);
        }
        self.agent_starts();
        if self.setting.sweeps {
            self.sweeps();
        }
    }

    /// The agent says hello, and goes on.
    pub(super) fn agent_starts(&mut self) {
        self.heartbeat(true);
        self.heartbeats();
    }

    /// The next thing happens; true if the run is over.
    fn step(&mut self) -> bool {
        if !self.is_stormy() && self.is_quiet() {
            self.watch_end();
            return true;
        }
        if self.now_ms > self.setting.storm_ends_ms + LONGEST_MS {
            self.violate(QUIET, Vec::new(), "something goes on for ever".to_owned());
            return true;
        }
        let Some(due) = self.next() else {
            return true;
        };
        self.watch_deadlines();
        self.happens(due);
        false
    }

    pub(super) fn happens(&mut self, due: Due) {
        match due {
            Due::Wake(waker) => waker.wake(),
            Due::Poll(function) => self.poll(function),
            Due::Pump(shard) => self.pump(shard),
            Due::Ends(task) => self.time_is_up(task),
            Due::Event => self.event(),
            Due::Schedule => self.schedule(),
            Due::ResumeTimeout(node, epoch) => self.resume_timeout(node, epoch),
            Due::SuspendTimeout(node, epoch) => self.suspend_timeout(node, epoch),
            Due::IdleTimeout => self.idle_timeout(),
            Due::Regret(job) => self.regrets(job),
            Due::JobEnds(job, epoch) => self.job_ends(job, epoch),
            Due::AgentSends => self.agent_sends(),
            Due::AgentReceives => self.agent_receives(),
            Due::AgentReturns => self.agent_returns(),
            Due::Heartbeat => self.heartbeats(),
            Due::Command(sealed) => self.command_arrives(&sealed),
            Due::Sweep => self.sweeps(),
            Due::HoldEnds(id) => self.hold_ends(&id),
            Due::Cloud => self.cloud_time(),
            Due::Machine(id) => self.machine_looks(id),
            Due::LateLaunch(call) => self.late_launch(&call),
        }
    }

    fn is_quiet(&self) -> bool {
        self.functions.is_idle()
            && self.queues.iter().all(|queue| queue.messages.is_empty())
            && self.stream.is_empty()
            && self.client.is_settled()
            && self.machines.are_settled()
            && self.slurm.is_settled(self.now_ms)
            && self.is_swept()
    }
}
