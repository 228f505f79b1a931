//! What happens from outside: users submit and cancel jobs, administrators power nodes up and down, slurmctld is
//! restarted, networks and capacity come and go, and somebody sends what no reader can carry out.

use spillway_control::sender::Sender;
use spillway_core::message::{
    ResumeQueueBody, ResumeRequest, SuspendCause, SuspendQueueBody, SuspendRequest,
};
use spillway_core::name::{Generation, RequestId};

use super::queue::{Body, Message};
use super::setting::pools;
use super::slurm::{Node, Power};
use super::world::{Due, RESUME, SUSPEND, World};
use crate::ec2;

/// The widest job.
const MOST_NODES: usize = 16;

impl World {
    /// Something happens from outside.
    pub(crate) fn event(&mut self) {
        self.events += 1;
        match self.rng.u32(0..100) {
            0..56 => self.job_arrives(),
            95..96 if self.setting.sweeps => self.stray_comes(),
            56..60 | 95..97 => self.ec2_wants_back(),
            60..70 => self.job_is_cancelled(),
            70..77 => self.admin_powers_down(),
            77..83 => self.admin_powers_up(),
            83..88 => self.resume_again(),
            88..93 => self.agent_goes_away(),
            93..95 => self.capacity_changes(),
            _ => self.poison_comes(),
        }
    }

    fn capacity_changes(&mut self) {
        let kind = if self.rng.bool() {
            ec2::CapacityKind::Spot
        } else {
            ec2::CapacityKind::OnDemand
        };
        let free = self.rng.bool().then(|| self.rng.u32(0..6));
        self.tell(|| format!("== {} capacity is now {free:?}", kind.as_str()));
        for pool in pools(kind) {
            self.cloud.ec2.set_free_capacity(pool, free);
        }
    }

    /// A message that no reader can carry out: names that are none, or a stamp from the future.
    fn poison_comes(&mut self) {
        let request_id = RequestId::new("poison").expect("an id");
        let future = Generation::new((self.now_ms + 3_600_000) * 1000).expect("a stamp");
        let (queue, body) = if self.rng.bool() {
            let request = ResumeRequest {
                request_id,
                generation: future,
                part: 1,
                parts: 1,
                deadline_ms: self.now_ms + 3_900_000,
                nodes: "a1".to_owned(),
                jobs: Vec::new(),
            };
            (RESUME, Body::Resume(ResumeQueueBody::Resume(request)))
        } else {
            let request = SuspendRequest {
                request_id,
                generation: Generation::new(self.now_ms * 1000).expect("a stamp"),
                part: 1,
                parts: 1,
                cause: SuspendCause::Suspend,
                nodes: "a[1-".to_owned(),
            };
            (SUSPEND, Body::Suspend(SuspendQueueBody::Suspend(request)))
        };
        self.tell(|| "== poison comes".to_owned());
        let message = Message {
            id: self.fresh_number(),
            body,
            sender: Sender::Other,
            sent_ms: self.now_ms,
            visible_ms: self.now_ms + 5,
            receives: 0,
            poison: true,
        };
        self.enqueue(queue, message);
    }

    /// A user submits a job.
    pub(crate) fn job_arrives(&mut self) {
        let group = self.rng.usize(0..2);
        let size = self.slurm.nodes_that(|node| node.group == group).len();
        let need = if self.rng.bool() {
            1
        } else {
            self.rng.usize(1..=size.min(MOST_NODES))
        };
        let run_ms = (self.rng.f64() < 0.9).then(|| self.rng.u64(1_000..=200_000));
        let id = self.slurm.submit(group, need, run_ms, self.now_ms);
        self.tell(|| format!("== job {id} wants {need} nodes of group {group}"));
        if self.rng.f64() < 0.25 {
            let after_ms = self.rng.u64(50..=20_000);
            self.after(after_ms, Due::Regret(id));
        }
        self.schedule();
    }

    /// Nodes are powered down while they are being launched.
    pub(crate) fn regrets(&mut self, id: usize) {
        let nodes = self.slurm.nodes_that(|node| node.job == Some(id));
        if !nodes.is_empty() {
            let some = self.rng.usize(1..=nodes.len());
            self.tell(|| format!("== nodes of job {id} are powered down by force"));
            self.power_down_force(&nodes[..some]);
        }
    }

    /// A user cancels a job.
    pub(crate) fn job_is_cancelled(&mut self) {
        let open = self.slurm.open_jobs();
        if !open.is_empty() {
            let id = open[self.rng.usize(..open.len())];
            self.tell(|| format!("== job {id} is cancelled"));
            self.job_over(id);
        }
    }

    /// Slurm called ResumeProgram once more: slurmctld was restarted.
    pub(crate) fn resume_again(&mut self) {
        let is_coming = |node: &Node| matches!(node.power, Power::PoweringUp(_));
        let coming = self.slurm.nodes_that(is_coming);
        if !coming.is_empty() {
            self.tell(|| "== slurmctld was restarted and resumes again".to_owned());
            self.power_up(&coming);
            self.resume_program(&coming, &[]);
        }
    }

    /// An administrator powers up a node that no job wants.
    pub(crate) fn admin_powers_up(&mut self) {
        let down = self
            .slurm
            .nodes_that(|node| node.power == Power::Down && node.job.is_none());
        if !down.is_empty() {
            let node = [down[self.rng.usize(..down.len())]];
            self.tell(|| "== an administrator powers up".to_owned());
            self.power_up(&node);
            self.resume_program(&node, &[]);
        }
    }

    /// An administrator powers down a node by force, whatever it does.
    pub(crate) fn admin_powers_down(&mut self) {
        let up = self
            .slurm
            .nodes_that(|node| !matches!(node.power, Power::PoweringDown));
        if !up.is_empty() {
            let node = up[self.rng.usize(..up.len())];
            self.tell(|| "== an administrator powers down by force".to_owned());
            self.power_down_force(&[node]);
        }
    }
}
