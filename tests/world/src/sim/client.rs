//! The head node: Slurm's programs that stamp and spool, the agent that sends and receives, and what it tells slurmctld.
//! The rules are those of `client/src/hook.rs` and `client/src/callback`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use spillway_control::sender::Sender;
use spillway_core::envelope::SigningKey;
use spillway_core::hostlist;
use spillway_core::message::{
    HEARTBEAT_SECONDS, Heartbeat, NodeStates, NodesInState, ReportBody, RequestJob,
    ResumeQueueBody, ResumeRequest, SuspendCause, SuspendQueueBody, SuspendRequest,
};
use spillway_core::name::{Generation, JobId, RequestId};
use spillway_core::node_state::NodeState;

use super::names::{Call, Trouble};
use super::queue::Body;
use super::setting::Setting;
use super::slurm::ResumedJob;
use super::world::{Due, RESUME, SUSPEND, UPDATES, World};

/// What the key that seals is made of.
pub const SIGNING_SEED: [u8; 32] = [7; 32];
/// As `client/src/hook/request.rs` has it.
const MARGIN_MS: u64 = 10_000;
const MARGIN_DIVISOR: u64 = 10;

/// What was last asked for a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct History {
    pub generation: Generation,
    pub resume: bool,
    /// The last update applied that answers it; 0 if none.
    pub applied: u64,
}

#[derive(Debug, Clone)]
struct Spooled {
    queue: usize,
    body: Body,
    generation: Generation,
    deadline_ms: Option<u64>,
    nodes: Vec<usize>,
}

/// The head node's side.
#[derive(Debug)]
pub(crate) struct Client {
    key: Arc<SigningKey>,
    pub history: Vec<Option<History>>,
    last: Option<Generation>,
    spool: VecDeque<Spooled>,
    sends: bool,
    pub away: bool,
    /// Ids of envelopes that were dealt with.
    pub(super) seen: BTreeSet<String>,
    /// Envelopes opened so far.
    pub(super) opened: u64,
}

impl Client {
    pub(crate) fn new(setting: &Setting) -> Self {
        Self {
            key: Arc::new(SigningKey::from_seed(&SIGNING_SEED)),
            history: vec![None; setting.nodes.len()],
            last: None,
            spool: VecDeque::new(),
            sends: false,
            away: false,
            seen: BTreeSet::new(),
            opened: 0,
        }
    }

    pub(crate) fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key)
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.spool.is_empty() && !self.away
    }

    /// The stamp of the resume that Slurm asked for last, where it has not let go of the node since.
    pub(crate) fn wanted(&self, node: usize) -> Option<Generation> {
        self.history[node]
            .filter(|history| history.resume)
            .map(|history| history.generation)
    }
}

impl World {
    pub(super) fn head_now_ms(&self) -> u64 {
        self.now_ms.saturating_add_signed(self.setting.head_skew_ms)
    }

    fn stamp(&mut self, nodes: &[usize], resume: bool) -> Generation {
        let generation = Generation::stamp(self.head_now_ms() * 1000, self.client.last);
        let generation = generation.expect("a time of this century");
        self.client.last = Some(generation);
        for node in nodes {
            self.client.history[*node] = Some(History {
                generation,
                resume,
                applied: 0,
            });
        }
        generation
    }

    /// slurmctld calls ResumeProgram.
    pub(crate) fn resume_program(&mut self, nodes: &[usize], jobs: &[ResumedJob]) {
        let generation = self.stamp(nodes, true);
        self.tell(|| {
            format!(
                "-- ResumeProgram {} at {generation}",
                self.slurm.names(nodes).join(",")
            )
        });
        let timeout_ms = self.setting.resume_timeout_ms;
        let margin_ms = MARGIN_MS
            .max(timeout_ms / MARGIN_DIVISOR)
            .min(timeout_ms / 2);
        let deadline_ms = generation.at_ms() + timeout_ms - margin_ms;
        let request_id = self.request_id();
        let parts: Vec<&[ResumedJob]> = if jobs.len() > 1 && self.rng.f64() < 0.3 {
            jobs.chunks(jobs.len().div_ceil(2)).collect()
        } else {
            vec![jobs]
        };
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, jobs) in (1..).zip(parts) {
            let own: Vec<usize> = match count {
                1 => nodes.to_vec(),
                _ => jobs.iter().flat_map(|job| job.nodes.clone()).collect(),
            };
            let body = ResumeQueueBody::Resume(ResumeRequest {
                request_id: request_id.clone(),
                generation,
                part,
                parts: count,
                deadline_ms,
                nodes: self.fold(&own),
                jobs: jobs.iter().map(|job| self.request_job(job)).collect(),
            });
            self.spool(Spooled {
                queue: RESUME,
                body: Body::Resume(body),
                generation,
                deadline_ms: Some(deadline_ms),
                nodes: own,
            });
        }
    }

    /// slurmctld calls SuspendProgram or ResumeFailProgram.
    pub(crate) fn suspend_program(&mut self, nodes: &[usize], cause: SuspendCause) {
        let generation = self.stamp(nodes, false);
        self.tell(|| {
            let names = self.slurm.names(nodes).join(",");
            format!("-- SuspendProgram ({cause:?}) {names} at {generation}")
        });
        let body = SuspendQueueBody::Suspend(SuspendRequest {
            request_id: self.request_id(),
            generation,
            part: 1,
            parts: 1,
            cause,
            nodes: self.fold(nodes),
        });
        self.spool(Spooled {
            queue: SUSPEND,
            body: Body::Suspend(body),
            generation,
            deadline_ms: None,
            nodes: nodes.to_vec(),
        });
    }

    fn request_id(&mut self) -> RequestId {
        RequestId::new(format!("r{}", self.fresh_number())).expect("an id")
    }

    /// Some jobs run before squeue has told whose they are, and some are of no account.
    fn request_job(&self, job: &ResumedJob) -> RequestJob {
        let known = |names: [Option<&str>; 4], by: usize| {
            let name = names[job.id / by % names.len()];
            name.map(str::to_owned)
        };
        RequestJob {
            job_id: JobId::new((job.id + 1).to_string()).expect("an id"),
            nodes_resume: self.fold(&job.nodes),
            nodes_alloc: Some(self.fold(&job.all)),
            partition: None,
            features: None,
            user: known([Some("alice"), Some("bob"), Some("carol"), None], 1),
            account: known(
                [Some("physics"), Some("chemistry"), Some("physics"), None],
                4,
            ),
        }
    }

    fn fold(&self, nodes: &[usize]) -> String {
        hostlist::fold(self.slurm.names(nodes))
    }

    fn spool(&mut self, request: Spooled) {
        self.client.spool.push_back(request);
        self.send_spool();
    }

    fn send_spool(&mut self) {
        if !self.client.sends && !self.client.away && !self.client.spool.is_empty() {
            self.client.sends = true;
            let after_ms = self.rng.u64(5..=300);
            self.after(after_ms, Due::AgentSends);
        }
    }

    /// The agent sends what is first in the spool, or gives it up if that is too late.
    pub(crate) fn agent_sends(&mut self) {
        self.client.sends = false;
        if self.client.away {
            return;
        }
        let Some(request) = self.client.spool.pop_front() else {
            return;
        };
        if request
            .deadline_ms
            .is_some_and(|deadline_ms| deadline_ms <= self.head_now_ms())
        {
            self.give_up(&request);
        } else {
            let again = self.strike(Call::ResumeProgram, false) == Some(Trouble::Repeated);
            for _ in 0..=usize::from(again) {
                self.send(request.queue, request.body.clone(), Sender::Other, 0);
            }
        }
        self.send_spool();
    }

    /// A resume that was not sent in time: its nodes are suspended, and failed in Slurm.
    fn give_up(&mut self, request: &Spooled) {
        let unanswered = |node: &usize| {
            self.client.history[*node].is_some_and(|history| {
                history.generation == request.generation && history.applied == 0
            })
        };
        let nodes: Vec<usize> = request.nodes.iter().copied().filter(unanswered).collect();
        if !nodes.is_empty() {
            self.suspend_program(&nodes, SuspendCause::Expired);
            self.power_down_force(&nodes);
        }
    }

    /// The network between the head node and AWS is away, or the agent is down, for a while.
    pub(crate) fn agent_goes_away(&mut self) {
        let for_ms = if self.rng.f64() < 0.2 {
            self.rng.u64(60_000..=900_000)
        } else {
            self.rng.u64(2_000..=120_000)
        };
        self.agent_is_away(for_ms);
    }

    pub(super) fn agent_is_away(&mut self, for_ms: u64) {
        if !self.client.away {
            self.client.away = true;
            self.coverage.call(Call::Agent);
            self.coverage.strike(Trouble::Away, Call::Agent);
            self.tell(|| format!("!! the agent is away for {} s", for_ms / 1000));
            self.after(for_ms, Due::AgentReturns);
        }
    }

    pub(crate) fn agent_returns(&mut self) {
        self.tell(|| "   the agent is back".to_owned());
        self.client.away = false;
        self.heartbeat(true);
        self.send_spool();
        self.look_into(UPDATES, 1);
    }

    /// The agent says that it lives, and from time to time what slurmctld says of the nodes.
    pub(crate) fn heartbeats(&mut self) {
        self.after(HEARTBEAT_SECONDS * 1000, Due::Heartbeat);
        if !self.client.away {
            self.heartbeat(false);
            if self.setting.sweeps || self.rng.f64() < 0.3 {
                let states = NodeStates {
                    observed_ms: self.head_now_ms(),
                    states: self.node_states(),
                };
                self.send_report(ReportBody::NodeStates(states), Sender::Other, 0);
            }
        }
    }

    /// As `client/src/agent/reporter.rs` has it.
    fn node_states(&self) -> Vec<NodesInState> {
        let mut by_state: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, node) in self.slurm.nodes.iter().enumerate() {
            by_state.entry(node.state()).or_default().push(index);
        }
        let folded = by_state.into_iter().map(|(state, nodes)| {
            let is_at_rest = NodeState(&state).is_at_rest();
            let detailed = if is_at_rest { &[][..] } else { &nodes };
            let address = |index: &usize| {
                let node = &self.slurm.nodes[*index];
                node.address
                    .map_or_else(|| node.name.to_string(), |address| address.to_string())
            };
            let generation = |index: &usize| {
                self.client.history[*index].map_or(0, |history| history.generation.get())
            };
            NodesInState {
                nodes: self.fold(&nodes),
                reason: None,
                set_by_hand: false,
                addresses: detailed.iter().map(address).collect(),
                generations: detailed.iter().map(generation).collect(),
                state,
            }
        });
        folded.collect()
    }

    pub(crate) fn heartbeat(&mut self, hello: bool) {
        let heartbeat = Heartbeat {
            sent_ms: self.head_now_ms(),
            hello,
            slurm_version: None,
            spooled: self.client.spool.len() as u64,
            oldest_spooled_ms: None,
            clock_skew_ms: None,
            refused_envelopes: BTreeMap::new(),
        };
        self.send_report(ReportBody::Heartbeat(heartbeat), Sender::Other, 0);
    }
}
