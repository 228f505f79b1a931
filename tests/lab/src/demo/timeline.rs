//! The live timeline: what Slurm, the head node, each Lambda and EC2 say, as it happens, one line each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use spillway_world::ec2::{Ec2Event, InstanceState};
use tokio::task::JoinSet;

use super::logs::{self, ResumePrograms};
use crate::deploy::FUNCTIONS;
use crate::ec2_api::Ec2Api;
use crate::emulator::root::RootClient;
use crate::lab::Lab;

/// How often logs and Slurm are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long lines are waited for: slurmctld's log is a second behind.
const PATIENCE_MS: u64 = 1_500;

/// When what happened, for the figures; Unix milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    /// Calls of ResumeProgram.
    pub resume_programs: ResumePrograms,
    /// The first time of each, by node.
    pub nodes: BTreeMap<String, NodeMoments>,
    /// By instance.
    pub terminated_ms: HashMap<String, u64>,
    /// The first instance whose address the node got.
    pub instance_of: HashMap<String, String>,
}

/// When a node got how far.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_field_names, reason = "the unit belongs to each name")]
pub(super) struct NodeMoments {
    /// slurmctld had its address.
    pub addressed_ms: Option<u64>,
    /// slurmctld had its registration.
    pub registered_ms: Option<u64>,
    /// Slurm began to power it down.
    pub powering_down_ms: Option<u64>,
}

/// Prints until ended.
pub(super) struct Timeline {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    started_ms: u64,
    moments: Mutex<Moments>,
    /// What is yet to be printed, with when it happened.
    untold: Mutex<Vec<(u64, String)>>,
}

impl Timeline {
    /// Follows everything in `lab`.
    pub(super) fn follow(lab: &Lab) -> Self {
        let shared = Arc::new(Shared {
            started_ms: now_ms(),
            moments: Mutex::default(),
            untold: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().tell());
        tasks.spawn(shared.clone().follow_ec2(lab.ec2.clone()));
        tasks.spawn(
            shared
                .clone()
                .follow_nodes(lab.ec2.clone(), lab.head.slurm_conf()),
        );
        let slurmctld = ("Slurm", lab.head.slurmctld_log());
        for (name, path) in lab.client_logs().into_iter().chain([slurmctld]) {
            tasks.spawn(shared.clone().follow_file(name, path));
        }
        let root = lab.cloud.emulator.root();
        for function in FUNCTIONS {
            let group = format!("/aws/lambda/{}-{function}", lab.spec.cluster);
            tasks.spawn(
                shared
                    .clone()
                    .follow_function(root.clone(), function, group),
            );
        }
        Self { shared, tasks }
    }

    /// A line that says what comes next.
    pub(super) fn chapter(&self, text: &str) {
        self.shared.note(now_ms(), format!("\n{text}"));
    }

    /// What a job printed.
    pub(super) fn quote(&self, text: &str) {
        for line in text.lines() {
            self.shared.note(now_ms(), format!("{:22}| {line}", ""));
        }
    }

    /// What was seen so far.
    pub(super) fn moments(&self) -> Moments {
        self.shared.moments().clone()
    }

    /// Prints the rest and stops.
    pub(super) async fn end(mut self) {
        self.tasks.shutdown().await;
        self.shared.tell_until(u64::MAX);
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    fn moments(&self) -> std::sync::MutexGuard<'_, Moments> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that happened just now, as far as anyone can tell.
    fn say(&self, who: &str, what: &str) {
        self.say_of(now_ms(), who, what);
    }

    fn say_of(&self, at_ms: u64, who: &str, what: &str) {
        #[expect(clippy::cast_precision_loss, reason = "a demo ends within minutes")]
        let seconds = at_ms.saturating_sub(self.started_ms) as f64 / 1000.0;
        self.note(at_ms, format!("{seconds:7.2} s  {who:<10} {what}"));
    }

    fn note(&self, at_ms: u64, line: String) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.push((at_ms, line));
    }

    /// Prints in the order of the events, which the logs do not arrive in.
    async fn tell(self: Arc<Self>) {
        loop {
            self.tell_until(now_ms().saturating_sub(PATIENCE_MS));
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tell_until(&self, limit_ms: u64) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.sort_by_key(|(at_ms, _)| *at_ms);
        let count = untold.partition_point(|(at_ms, _)| *at_ms <= limit_ms);
        for (_, line) in untold.drain(..count) {
            println!("{line}");
        }
    }

    async fn follow_ec2(self: Arc<Self>, ec2: Ec2Api) {
        let mut events = ec2.listen();
        while let Some(event) = events.recv().await {
            let Ec2Event::StateChange(change) = event else {
                continue;
            };
            let state = change.to.as_str();
            let served = self.moments().instance_of.clone().into_iter();
            let node = served
                .filter(|(_, instance)| *instance == change.instance_id)
                .map(|(node, _)| format!(" ({node})"))
                .next();
            self.say_of(
                change.at_ms,
                "EC2",
                &format!(
                    "{}{} is {state} at {} in {}",
                    change.instance_id,
                    node.unwrap_or_default(),
                    change.private_ip,
                    change.availability_zone
                ),
            );
            if change.to == InstanceState::Terminated {
                self.moments()
                    .terminated_ms
                    .insert(change.instance_id, change.at_ms);
            }
        }
    }

    async fn follow_nodes(self: Arc<Self>, ec2: Ec2Api, slurm_conf: PathBuf) {
        let mut seen: BTreeMap<String, (String, String)> = BTreeMap::new();
        loop {
            let output = tokio::process::Command::new("scontrol")
                .args(["-o", "show", "node"])
                .env("SLURM_CONF", &slurm_conf)
                .output()
                .await;
            let text = output
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default();
            for line in text.lines() {
                self.look_at_node(line, &mut seen, &ec2);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn look_at_node(
        &self,
        line: &str,
        seen: &mut BTreeMap<String, (String, String)>,
        ec2: &Ec2Api,
    ) {
        let field = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
                .unwrap_or_default()
        };
        let (node, state, address) = (field("NodeName="), field("State="), field("NodeAddr="));
        let now = (state.to_owned(), address.to_owned());
        let Some(before) = seen.insert(node.to_owned(), now.clone()) else {
            return;
        };
        if before == now {
            return;
        }
        let mut moments = self.moments();
        let moment = moments.nodes.entry(node.to_owned()).or_default();
        if before.1 != now.1 && address != node {
            moment.addressed_ms.get_or_insert_with(now_ms);
            let holder = ec2.with(|ec2, _| {
                ec2.instances()
                    .find(|i| i.private_ip.is_some_and(|ip| ip.to_string() == address))
                    .map(|i| i.instance_id.clone())
            });
            let of = holder
                .as_ref()
                .map(|instance| format!(", that of {instance}"));
            let of = of.unwrap_or_default();
            self.say("Slurm", &format!("{node} has address {address}{of}"));
            if let Some(instance) = holder {
                moments
                    .instance_of
                    .entry(node.to_owned())
                    .or_insert(instance);
            }
        }
        if before.0 == now.0 {
            return;
        }
        let moment = moments.nodes.entry(node.to_owned()).or_default();
        let (was, is) = (flags(&before.0), flags(state));
        if was.contains("POWERING_UP")
            && !is.contains("POWERING_UP")
            && !is.contains("POWERED_DOWN")
        {
            moment.registered_ms.get_or_insert_with(now_ms);
        }
        if is.contains("POWERING_DOWN") {
            moment.powering_down_ms.get_or_insert_with(now_ms);
        }
        drop(moments);
        self.say("Slurm", &format!("{node} is {state}"));
    }

    /// New lines of a log, in words for this timeline.
    async fn follow_file(self: Arc<Self>, who: &'static str, path: PathBuf) {
        let mut read = 0;
        loop {
            let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
            let fresh = text.get(read..).unwrap_or_default();
            // A line that is still being written waits for its end.
            let whole = fresh.rfind('\n').map_or(0, |end| end + 1);
            for line in fresh[..whole].lines() {
                self.moments().resume_programs.look_at(line);
                let words = match who {
                    "Slurm" => logs::slurmctld(line),
                    "agent" => logs::agent(line),
                    _ => Some(line.to_owned()),
                };
                if let Some(words) = words {
                    self.say_of(logs::written_ms(line).unwrap_or_else(now_ms), who, &words);
                }
            }
            read += whole;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a Lambda logs, the messages alone.
    async fn follow_function(
        self: Arc<Self>,
        root: RootClient,
        function: &'static str,
        group: String,
    ) {
        let mut seen = BTreeSet::new();
        loop {
            let body = json!({"logGroupName": group});
            if let Ok(answer) = root
                .json("logs", "Logs_20140328.FilterLogEvents", &body)
                .await
            {
                for event in answer["events"].as_array().into_iter().flatten() {
                    let id = event["eventId"]
                        .as_str()
                        .map_or_else(|| event.to_string(), str::to_owned);
                    if !seen.insert(id) {
                        continue;
                    }
                    for line in event["message"].as_str().unwrap_or_default().lines() {
                        if let Some(words) = logs::function(line) {
                            let at_ms = logs::written_ms(line).unwrap_or_else(now_ms);
                            self.say_of(at_ms, function, &words);
                        }
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Slurm's `+`-joined flags.
fn flags(state: &str) -> BTreeSet<&str> {
    state.split('+').collect()
}
