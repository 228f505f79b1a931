//! slurmctld as far as power saving goes: jobs want nodes, nodes are resumed, come up, idle, are suspended; what does
//! not come in time is given up, and its job is requeued.

use std::net::IpAddr;

use spillway_core::name::NodeName;

use super::setting::Setting;
use super::world::{Due, World};

/// A job is requeued so often; then its user gives up.
const MAX_REQUEUES: u32 = 2;

/// Where a node stands with Slurm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Down,
    /// Since when.
    PoweringUp(u64),
    Up,
    PoweringDown,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub name: NodeName,
    pub group: usize,
    pub power: Power,
    /// `NodeAddr`; none is the node's name.
    pub address: Option<IpAddr>,
    /// The instance whose slurmd registered last.
    pub instance: Option<String>,
    pub job: Option<usize>,
    /// No new job starts on it.
    pub drains: bool,
    /// When it has idled for `SuspendTime`.
    idle_until_ms: u64,
    /// Timers of an earlier stand of the node mean nothing.
    epoch: u64,
}

impl Node {
    /// As scontrol prints it.
    pub(crate) fn state(&self) -> String {
        let base = if self.job.is_some() {
            "ALLOCATED"
        } else {
            "IDLE"
        };
        let power = match self.power {
            Power::Down => "+POWERED_DOWN",
            Power::PoweringUp(_) => "+NOT_RESPONDING+POWERING_UP",
            Power::Up => "",
            Power::PoweringDown => "+POWERING_DOWN",
        };
        format!("{base}+CLOUD{power}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Pending,
    Configuring,
    Running,
    Over,
}

#[derive(Debug)]
struct Job {
    group: usize,
    need: usize,
    /// How long it runs; none is longer than the simulation.
    run_ms: Option<u64>,
    stand: Stand,
    nodes: Vec<usize>,
    /// Not before this.
    begins_ms: u64,
    requeues: u32,
    epoch: u64,
}

/// What ResumeProgram is told of a job.
#[derive(Debug, Clone)]
pub(crate) struct ResumedJob {
    pub id: usize,
    /// Its nodes of this call.
    pub nodes: Vec<usize>,
    pub all: Vec<usize>,
}

/// slurmctld.
#[derive(Debug)]
pub(crate) struct Slurm {
    pub nodes: Vec<Node>,
    jobs: Vec<Job>,
}

impl Slurm {
    pub(crate) fn new(setting: &Setting) -> Self {
        let node = |(name, group): &(NodeName, usize)| Node {
            name: name.clone(),
            group: *group,
            power: Power::Down,
            address: None,
            instance: None,
            job: None,
            drains: false,
            idle_until_ms: 0,
            epoch: 0,
        };
        Self {
            nodes: setting.nodes.iter().map(node).collect(),
            jobs: Vec::new(),
        }
    }

    /// Nothing will happen by itself any more. A job that waits for nodes which a longer one holds may wait for ever.
    pub(crate) fn is_settled(&self, now_ms: u64) -> bool {
        let moves = |job: &Job| match job.stand {
            Stand::Pending => job.begins_ms >= now_ms,
            Stand::Running => job.run_ms.is_some(),
            Stand::Configuring | Stand::Over => false,
        };
        let settled = |node: &Node| match node.power {
            Power::Down => true,
            Power::Up => node.job.is_some(),
            Power::PoweringUp(_) | Power::PoweringDown => false,
        };
        !self.jobs.iter().any(moves) && self.nodes.iter().all(settled)
    }

    /// A new job, pending.
    pub(crate) fn submit(
        &mut self,
        group: usize,
        need: usize,
        run_ms: Option<u64>,
        now_ms: u64,
    ) -> usize {
        self.jobs.push(Job {
            group,
            need,
            run_ms,
            stand: Stand::Pending,
            nodes: Vec::new(),
            begins_ms: now_ms,
            requeues: 0,
            epoch: 0,
        });
        self.jobs.len() - 1
    }

    /// Jobs that are not over.
    pub(crate) fn open_jobs(&self) -> Vec<usize> {
        let jobs = self.jobs.iter().enumerate();
        let open = jobs.filter(|(_, job)| job.stand != Stand::Over);
        open.map(|(id, _)| id).collect()
    }

    pub(crate) fn index(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    pub(crate) fn names(&self, nodes: &[usize]) -> Vec<&str> {
        nodes
            .iter()
            .map(|node| self.nodes[*node].name.as_str())
            .collect()
    }

    pub(crate) fn nodes_that(&self, which: impl Fn(&Node) -> bool) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|index| which(&self.nodes[*index]))
            .collect()
    }

    fn stands(&mut self, node: usize, power: Power) -> u64 {
        let node = &mut self.nodes[node];
        node.power = power;
        node.epoch += 1;
        if power != Power::Up {
            node.instance = None;
            node.drains = false;
        }
        if matches!(power, Power::Down) {
            node.address = None;
        }
        node.epoch
    }
}

impl World {
    /// Jobs get nodes; those that are powered down are resumed, in one call.
    pub(crate) fn schedule(&mut self) {
        let mut resumed = Vec::new();
        for id in 0..self.slurm.jobs.len() {
            let job = &self.slurm.jobs[id];
            if job.stand != Stand::Pending || job.begins_ms > self.now_ms {
                continue;
            }
            let Some(chosen) = self.choose(job.group, job.need) else {
                continue;
            };
            for node in &chosen {
                self.slurm.nodes[*node].job = Some(id);
            }
            let is_down = |node: &usize| self.slurm.nodes[*node].power == Power::Down;
            let down: Vec<usize> = chosen.iter().copied().filter(is_down).collect();
            let job = &mut self.slurm.jobs[id];
            job.stand = Stand::Configuring;
            job.nodes.clone_from(&chosen);
            if down.is_empty() {
                self.start_if_ready(id);
            } else {
                resumed.push(ResumedJob {
                    id,
                    nodes: down,
                    all: chosen,
                });
            }
        }
        if !resumed.is_empty() {
            let nodes: Vec<usize> = resumed.iter().flat_map(|job| job.nodes.clone()).collect();
            self.power_up(&nodes);
            self.resume_program(&nodes, &resumed);
        }
    }

    fn choose(&mut self, group: usize, need: usize) -> Option<Vec<usize>> {
        let free = |node: &Node| {
            let is_free = node.job.is_none() && !node.drains;
            node.group == group && is_free && node.power != Power::PoweringDown
        };
        let mut nodes = self.slurm.nodes_that(free);
        if nodes.len() < need {
            return None;
        }
        // Those that are up first, as Slurm's weights have it; among the others by chance.
        self.rng.shuffle(&mut nodes);
        nodes.sort_by_key(|node| self.slurm.nodes[*node].power != Power::Up);
        nodes.truncate(need);
        nodes.sort_unstable();
        Some(nodes)
    }

    pub(crate) fn power_up(&mut self, nodes: &[usize]) {
        for node in nodes {
            let epoch = self.slurm.stands(*node, Power::PoweringUp(self.now_ms));
            self.after(
                self.setting.resume_timeout_ms,
                Due::ResumeTimeout(*node, epoch),
            );
        }
    }

    /// `scontrol update State=POWER_DOWN_FORCE`: jobs are requeued, SuspendProgram is called.
    pub(crate) fn power_down_force(&mut self, nodes: &[usize]) {
        let nodes: Vec<usize> = nodes
            .iter()
            .copied()
            .filter(|node| self.slurm.nodes[*node].power != Power::PoweringDown)
            .collect();
        for node in &nodes {
            self.lose_job(*node);
        }
        self.power_down(&nodes);
    }

    /// `scontrol update State=DRAIN`.
    pub(crate) fn drain(&mut self, node: usize) {
        self.slurm.nodes[node].drains = true;
    }

    /// `scontrol requeue` of what runs on a node, drained before.
    pub(crate) fn requeue(&mut self, node: usize) {
        self.drain(node);
        self.lose_job(node);
    }

    fn power_down(&mut self, nodes: &[usize]) {
        for node in nodes {
            let epoch = self.slurm.stands(*node, Power::PoweringDown);
            self.after(
                self.setting.suspend_timeout_ms,
                Due::SuspendTimeout(*node, epoch),
            );
        }
        if !nodes.is_empty() {
            self.suspend_program(nodes, spillway_core::message::SuspendCause::Suspend);
        }
    }

    pub(crate) fn suspend_timeout(&mut self, node: usize, epoch: u64) {
        if self.slurm.nodes[node].epoch == epoch {
            self.slurm.stands(node, Power::Down);
            self.tell(|| {
                format!(
                    "   Slurm holds {} powered down",
                    self.slurm.nodes[node].name
                )
            });
            self.schedule();
        }
    }

    /// All nodes that were resumed together are given up together.
    pub(crate) fn resume_timeout(&mut self, node: usize, epoch: u64) {
        let Power::PoweringUp(since_ms) = self.slurm.nodes[node].power else {
            return;
        };
        if self.slurm.nodes[node].epoch != epoch {
            return;
        }
        let nodes = self
            .slurm
            .nodes_that(|node| node.power == Power::PoweringUp(since_ms));
        self.tell(|| format!("   ResumeTimeout of {}", self.slurm.names(&nodes).join(",")));
        for node in &nodes {
            self.lose_job(*node);
            self.slurm.stands(*node, Power::Down);
        }
        self.suspend_program(&nodes, spillway_core::message::SuspendCause::ResumeFail);
    }

    /// All nodes that have idled for `SuspendTime` are suspended.
    pub(crate) fn idle_timeout(&mut self) {
        let now_ms = self.now_ms;
        let nodes = self.slurm.nodes_that(|node| {
            node.power == Power::Up && node.job.is_none() && node.idle_until_ms <= now_ms
        });
        self.power_down(&nodes);
    }

    /// A slurmd that booted at `booted_ms` registers. Whether slurmctld takes it.
    pub(crate) fn register(&mut self, node: usize, instance: &str, booted_ms: u64) -> bool {
        let Power::PoweringUp(since_ms) = self.slurm.nodes[node].power else {
            return self.slurm.nodes[node].instance.as_deref() == Some(instance);
        };
        if booted_ms < since_ms {
            return false;
        }
        self.slurm.stands(node, Power::Up);
        self.slurm.nodes[node].instance = Some(instance.to_owned());
        self.tell(|| format!("   {} is up on {instance}", self.slurm.nodes[node].name));
        match self.slurm.nodes[node].job {
            Some(job) => self.start_if_ready(job),
            None => self.idles(node),
        }
        true
    }

    fn idles(&mut self, node: usize) {
        self.slurm.nodes[node].idle_until_ms = self.now_ms + self.setting.suspend_time_ms;
        self.after(self.setting.suspend_time_ms, Due::IdleTimeout);
    }

    fn start_if_ready(&mut self, id: usize) {
        let job = &mut self.slurm.jobs[id];
        let is_up = |node: &usize| self.slurm.nodes[*node].power == Power::Up;
        if job.stand == Stand::Configuring && job.nodes.iter().all(is_up) {
            job.stand = Stand::Running;
            job.epoch += 1;
            let (epoch, run_ms) = (job.epoch, job.run_ms);
            self.tell(|| format!("   job {id} runs"));
            if let Some(run_ms) = run_ms {
                self.after(run_ms, Due::JobEnds(id, epoch));
            }
        }
    }

    pub(crate) fn job_ends(&mut self, id: usize, epoch: u64) {
        if self.slurm.jobs[id].epoch == epoch && self.slurm.jobs[id].stand == Stand::Running {
            self.tell(|| format!("   job {id} has ended"));
            self.job_over(id);
        }
    }

    pub(crate) fn job_over(&mut self, id: usize) {
        self.slurm.jobs[id].stand = Stand::Over;
        self.free_nodes(id);
        self.schedule();
    }

    fn free_nodes(&mut self, id: usize) {
        for node in std::mem::take(&mut self.slurm.jobs[id].nodes) {
            self.slurm.nodes[node].job = None;
            if self.slurm.nodes[node].power == Power::Up {
                self.idles(node);
            }
        }
    }

    /// The node's job loses all its nodes and is requeued, or given up.
    fn lose_job(&mut self, node: usize) {
        let Some(id) = self.slurm.nodes[node].job else {
            return;
        };
        self.free_nodes(id);
        let hold_off_ms = self.rng.u64(5_000..=120_000);
        let job = &mut self.slurm.jobs[id];
        job.epoch += 1;
        job.requeues += 1;
        job.begins_ms = self.now_ms + hold_off_ms;
        job.stand = if job.requeues > MAX_REQUEUES {
            Stand::Over
        } else {
            Stand::Pending
        };
        self.after(hold_off_ms, Due::Schedule);
    }
}
