//! A large burst in a world where nothing goes wrong but that EC2 has limits: how long it takes, and how often EC2 is
//! asked too fast.

use super::run::live;
use super::setting::{START_MS, Setting};
use super::watch::Violation;
use super::world::World;

/// What came of a burst.
#[derive(Debug)]
pub struct Burst {
    /// Instances that were launched.
    pub instances: usize,
    /// From the jobs' submission to the last launch, in milliseconds.
    pub last_launch_ms: u64,
    /// Calls to EC2.
    pub calls: usize,
    /// Of which EC2 said that they came too fast, as a whole or in their answer.
    pub throttled: usize,
    /// Messages in dead-letter queues.
    pub dead_letters: usize,
    /// Invariants that did not hold.
    pub violations: Vec<Violation>,
}

/// `nodes` nodes are asked for at once: by one job, or by one for each.
#[must_use]
pub fn burst(nodes: usize, one_job: bool) -> Burst {
    let setting = Setting::calm(nodes);
    let mut world = World::of(setting, fastrand::Rng::with_seed(1), 1, false);
    let (jobs, need) = if one_job { (1, nodes) } else { (nodes, 1) };
    for _ in 0..jobs {
        let now_ms = world.now_ms;
        // Jobs without an end: what is looked at is how their nodes come.
        world.slurm.submit(0, need, None, now_ms);
    }
    world.agent_starts();
    world.schedule();
    let shared = live(world);
    let mut world = shared.lock();
    let asked = world.cloud.asked;
    Burst {
        instances: asked.launched,
        last_launch_ms: asked.last_launch_ms.saturating_sub(START_MS),
        calls: asked.calls,
        throttled: asked.throttled,
        dead_letters: world.queues.iter().map(|queue| queue.dead.len()).sum(),
        violations: std::mem::take(&mut world.violations),
    }
}
