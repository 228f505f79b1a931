//! The jobs of the churn: each is remembered from its submission to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spillway_lab::lab::Lab;

use super::NODES;
use super::diary::Diary;
use crate::support::sbatch;

/// Most nodes of a job.
pub const MOST_NODES: usize = 3;
/// Most seconds that it runs.
const MOST_SECONDS: u64 = 8;
/// A node's Reason says why a job ended if it is there within this: longer than an update takes that is told again.
const SAID_WITHIN: Duration = Duration::from_mins(1);

/// A job whose node is set DOWN ends at once, and is seen to have ended within this.
const MISSED_WITHIN: Duration = Duration::from_secs(10);
/// What a note says that tells how the nodes were launched, not why they ended.
const LAUNCHED: &str = ": launched ";

/// A job that was submitted.
#[derive(Debug)]
pub struct Job {
    id: String,
    nodes: usize,
    is_requeued: bool,
    /// The story cancelled it.
    is_cancelled: bool,
    /// What slurmctld said of it last.
    seen: Seen,
    /// The nodes that it had last.
    had_nodes: Vec<String>,
    /// Since when it is seen to have ended.
    ended: Option<Instant>,
    /// Why it ended, where it did not end well.
    why: Option<String>,
}

/// What `scontrol show job` says of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    state: String,
    reason: String,
    nodes: String,
    comment: Option<String>,
}

/// What `scontrol show node` says of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenNode {
    /// `IDLE+CLOUD+POWERED_DOWN`.
    pub state: String,
    /// Without its author and time.
    pub reason: Option<String>,
}

/// All jobs, in the order in which they were submitted, and the nodes.
#[derive(Debug, Default)]
pub struct Jobs {
    all: Vec<Job>,
    nodes: BTreeMap<String, SeenNode>,
    /// When the story set which node DOWN, last.
    set_down: BTreeMap<String, Instant>,
}

impl Jobs {
    /// Submits a job of one to three nodes. Every third names its nodes: so all 20 are used, not only the first.
    pub async fn submit(&mut self, lab: &Lab, rng: &mut fastrand::Rng, diary: &mut Diary) {
        let count = rng.usize(1..=MOST_NODES);
        let seconds = rng.u64(1..=MOST_SECONDS);
        let is_requeued = rng.u8(0..4) > 0;
        let names = (rng.u8(0..3) == 0).then(|| named_nodes(rng, count));
        let option = if is_requeued {
            "--requeue"
        } else {
            "--no-requeue"
        };
        let nodes = count.to_string();
        let mut options = vec!["-N", &nodes, option];
        options.extend(names.iter().flat_map(|names| ["-w", names]));
        let id = match sbatch(lab, &options, seconds).await {
            Ok(id) => id,
            // slurmctld is too slow for sbatch: a user would submit again.
            Err(error) => return diary.note(&format!("no job: {error:#}")),
        };
        let on = names.unwrap_or_else(|| format!("{count} nodes"));
        diary.note(&format!("job {id} {option} on {on} for {seconds} s"));
        self.all.push(Job {
            id,
            nodes: count,
            is_requeued,
            is_cancelled: false,
            seen: Seen::default(),
            had_nodes: Vec::new(),
            ended: None,
            why: None,
        });
    }

    /// How many nodes the jobs have, or wait for, that have not ended and may run now.
    pub fn busy_nodes(&self) -> usize {
        let open = self
            .all
            .iter()
            .filter(|job| !job.has_ended() && !job.is_held());
        open.map(|job| job.nodes).sum()
    }

    /// How many jobs there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Cancels one of the jobs that have not ended: its id. None if none is to be cancelled.
    pub async fn cancel(&mut self, lab: &Lab, rng: &mut fastrand::Rng) -> Option<String> {
        let open = self.all.iter_mut();
        let mut open: Vec<&mut Job> = open.filter(|job| job.may_be_cancelled()).collect();
        let index = (!open.is_empty()).then(|| rng.usize(..open.len()))?;
        let job = &mut *open[index];
        // What a slow slurmctld does not answer in time it has done all the same, or does yet.
        job.is_cancelled = true;
        lab.head.run("scancel", &[&job.id]).await.ok()?;
        Some(job.id.clone())
    }

    /// The story itself sets a node DOWN. The Reason that it gives is gone at once where the node's slurmd registers in the
    /// same moment (ReturnToService=2).
    pub fn node_is_set_down(&mut self, name: &str) {
        self.set_down.insert(name.to_owned(), Instant::now());
    }

    /// Asks slurmctld for all jobs and nodes. What it does not answer is as it was.
    pub async fn look(&mut self, lab: &Lab, diary: &mut Diary) {
        let Ok(text) = lab.head.scontrol(&["-o", "show", "nodes"]).await else {
            return;
        };
        self.nodes = text.lines().filter_map(seen_node).collect();
        let Ok(text) = lab.head.scontrol(&["-o", "show", "jobs"]).await else {
            return;
        };
        let mut seen: BTreeMap<String, Seen> = text.lines().filter_map(seen_job).collect();
        for job in &mut self.all {
            let seen = seen.remove(&job.id).unwrap_or_default();
            job.saw(seen, &self.nodes, diary);
            job.knows_of(&self.set_down);
        }
        self.let_start(lab).await;
    }

    /// slurmctld holds a requeued batch job for two minutes, lest a slurmd that had it before refuse it. Where the nodes
    /// that had it are powered down there is no such slurmd, and it need not wait.
    async fn let_start(&self, lab: &Lab) {
        let is_let_go = |name: &String| {
            let node = self.nodes.get(name);
            node.is_some_and(|node| node.has("POWERED_DOWN") || node.has("POWERING_DOWN"))
        };
        for job in &self.all {
            if job.is_held() && job.had_nodes.iter().all(is_let_go) {
                let id = format!("JobId={}", job.id);
                // It may have been cancelled meanwhile.
                let _ = lab.head.scontrol(&["update", &id, "StartTime=now"]).await;
            }
        }
    }

    /// What slurmctld said of the nodes last.
    pub fn nodes(&self) -> &BTreeMap<String, SeenNode> {
        &self.nodes
    }

    /// The jobs that have not ended as they should: id, and what is wrong.
    pub fn troubles(&self) -> Vec<(String, String)> {
        let trouble = |job: &Job| Some((job.id.clone(), job.trouble()?));
        self.all.iter().filter_map(trouble).collect()
    }

    /// How many jobs ended in which state.
    pub fn states(&self) -> BTreeMap<&str, usize> {
        let mut states = BTreeMap::new();
        for job in &self.all {
            *states.entry(job.seen.state.as_str()).or_default() += 1;
        }
        states
    }
}

impl Job {
    fn has_ended(&self) -> bool {
        !matches!(
            self.seen.state.as_str(),
            "" | "PENDING" | "CONFIGURING" | "RUNNING" | "COMPLETING" | "SUSPENDED" | "REQUEUED"
        )
    }

    /// slurmctld holds it as it was queued again.
    fn is_held(&self) -> bool {
        self.seen.state == "PENDING" && self.seen.reason == "BeginTime"
    }

    fn may_be_cancelled(&self) -> bool {
        matches!(
            self.seen.state.as_str(),
            "PENDING" | "CONFIGURING" | "RUNNING"
        )
    }

    fn saw(&mut self, seen: Seen, nodes: &BTreeMap<String, SeenNode>, diary: &mut Diary) {
        let is_ending = seen.state == "COMPLETING";
        // A node that fails is taken from the list before the job has ended.
        if seen.nodes.starts_with("cloud-") && !is_ending {
            self.had_nodes = expand(&seen.nodes);
        }
        if seen.state != self.seen.state {
            let on = self.had_nodes.join(",");
            diary.note(&format!("job {} is {} ({on})", self.id, seen.state));
        }
        self.seen = seen;
        if self.has_ended() {
            self.ended.get_or_insert_with(Instant::now);
        } else if !is_ending {
            // Queued again, it has another run before it.
            self.why = None;
            return;
        }
        let is_late = |ended: Instant| ended.elapsed() >= SAID_WITHIN;
        if self.why.is_none() && !self.ended.is_some_and(is_late) {
            self.why = self.said(nodes);
        }
    }

    /// What its AdminComment or the Reason of one of its nodes says. A Reason is gone when the node is given to the next
    /// job: one that is there was said of this job's run.
    fn said(&self, nodes: &BTreeMap<String, SeenNode>) -> Option<String> {
        let comment = self.seen.comment.as_deref().unwrap_or_default();
        let mut remarks = comment.split(" | ").filter(|remark| {
            let is_why = !remark.contains(LAUNCHED);
            is_why && !remark.is_empty() && *remark != "(null)"
        });
        let mut reasons = self.had_nodes.iter();
        let reason = || reasons.find_map(|name| nodes.get(name)?.reason.clone());
        remarks.next().map(str::to_owned).or_else(reason)
    }

    /// The story knows why a job ended whose node it has just set DOWN.
    fn knows_of(&mut self, set_down: &BTreeMap<String, Instant>) {
        let Some(ended) = self.ended else {
            return;
        };
        let is_just_before =
            |at: &Instant| *at <= ended && ended.duration_since(*at) < MISSED_WITHIN;
        let mut nodes = self.had_nodes.iter();
        let node = nodes.find(|name| set_down.get(*name).is_some_and(is_just_before));
        if let (None, Some(node)) = (&self.why, node) {
            self.why = Some(format!("the story has set {node} DOWN"));
        }
    }

    /// What is wrong with how it ended, if anything is.
    fn trouble(&self) -> Option<String> {
        let said = || format!("is {} ({})", self.seen.state, self.seen.reason);
        match self.seen.state.as_str() {
            "COMPLETED" => None,
            "CANCELLED" if self.is_cancelled => None,
            "NODE_FAIL" | "BOOT_FAIL" if !self.is_requeued && self.why.is_some() => None,
            "NODE_FAIL" | "BOOT_FAIL" if !self.is_requeued => {
                Some(format!("{}, and neither it nor its nodes say why", said()))
            }
            _ => Some(said()),
        }
    }
}

impl SeenNode {
    /// Whether its state has this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.state.split('+').any(|own| own == flag)
    }
}

/// So many different nodes.
fn named_nodes(rng: &mut fastrand::Rng, count: usize) -> String {
    let mut all: Vec<u32> = (0..NODES).collect();
    rng.shuffle(&mut all);
    let names = all
        .iter()
        .take(count)
        .map(|number| format!("cloud-{number}"));
    names.collect::<Vec<_>>().join(",")
}

fn expand(nodes: &str) -> Vec<String> {
    let list = spillway_core::hostlist::Hostlist::parse(nodes).expect("slurmctld's own list");
    list.iter().collect()
}

fn seen_job(line: &str) -> Option<(String, Seen)> {
    let field = |key: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(key));
        word.unwrap_or_default().to_owned()
    };
    let comment = line.split_once(" AdminComment=").map(|(_, rest)| rest);
    let comment = comment.map(|rest| rest.split(" StdErr=").next().unwrap_or(rest).to_owned());
    let seen = Seen {
        state: field("JobState="),
        reason: field("Reason="),
        nodes: field("NodeList="),
        comment,
    };
    Some((
        line.strip_prefix("JobId=")?.split(' ').next()?.to_owned(),
        seen,
    ))
}

fn seen_node(line: &str) -> Option<(String, SeenNode)> {
    let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
    let reason = line.split_once(" Reason=").map(|(_, rest)| rest);
    let reason = reason.map(|rest| rest.split(" [").next().unwrap_or(rest).trim().to_owned());
    let seen = SeenNode {
        state: field("State=")?.to_owned(),
        reason,
    };
    Some((
        line.strip_prefix("NodeName=")?
            .split(' ')
            .next()?
            .to_owned(),
        seen,
    ))
}
