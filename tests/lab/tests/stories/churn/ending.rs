//! The end of the churn: what must be, and what is told of a run where it is not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::deck::Kind;
use super::jobs::MOST_NODES;
use super::{Churn, NODES};
use crate::support::{alive, item, items};

/// From the end of the churn until all is quiet. An instance that does not join is given up 75 s after the request; its
/// job is queued again and has another's nodes 40 s later (slurmctld looks at a batch job's nodes every 30 s), runs for 8 s,
/// and its nodes are idle for 15 s and powering down for 10 s. What only a sweep finds adds one report of the node
/// states (30 s) and two sweeps (30 s); the last timers on the reports queue are due a minute after the last update. In
/// three minutes' churn 110 to 190 s were seen.
const SETTLE: Duration = Duration::from_secs(270);
/// The faults that wait for something to strike are given this long after the churn.
const LAST: Duration = Duration::from_secs(100);
/// Of so many nodes and jobs that are not well is told what is the matter.
const MOST_EXPLAINED: usize = 4;

/// Something that is not as it must be.
struct Trouble {
    what: String,
    /// What to ask `spillway explain` for.
    explain: Option<[String; 2]>,
}

impl Trouble {
    fn of(what: String) -> Self {
        Self {
            what,
            explain: None,
        }
    }

    fn explained(kind: &str, name: &str, what: &str) -> Self {
        Self {
            what: format!("{kind} {name} {what}"),
            explain: Some([kind.to_owned(), name.to_owned()]),
        }
    }
}

fn words(troubles: &[Trouble]) -> String {
    let words: Vec<&str> = troubles.iter().map(|t| t.what.as_str()).collect();
    words.join("; ")
}

impl Churn {
    /// Ends the faults. Those that were not dealt on a slow machine, or have found nothing to strike, strike while jobs still
    /// come.
    pub async fn cease(&mut self) {
        let ongoing: Vec<_> = self.ongoing.iter().map(|fault| fault.kind).collect();
        self.deck.deal_missing(&ongoing);
        let deadline = Instant::now() + LAST;
        let busy = |churn: &Self| !churn.deck.waiting.is_empty() || !churn.ongoing.is_empty();
        while busy(self) && Instant::now() < deadline {
            self.arrive().await;
            self.strike().await;
            self.tick().await;
        }
        let (missing, struck) = (self.deck.missing(), self.deck.struck());
        println!("{} jobs; struck: {struck:?}", self.jobs.count());
        assert!(missing.is_empty(), "never struck: {missing:?}");
        assert!(self.ongoing.is_empty(), "a fault has not ended");
        self.diary.note("no more jobs, no more faults");
    }

    /// Waits until all is as it must be.
    pub async fn settle(&mut self) {
        let begun = Instant::now();
        let mut troubles = self.troubles().await;
        while !troubles.is_empty() && begun.elapsed() < SETTLE {
            let before = troubles.len();
            self.tick().await;
            troubles = self.troubles().await;
            if troubles.len() != before {
                self.diary.note(&words(&troubles));
            }
        }
        self.diary.note("settled");
        println!(
            "settled in {:?}; jobs: {:?}",
            begun.elapsed(),
            self.jobs.states()
        );
        if !troubles.is_empty() {
            self.tell(&troubles).await;
            panic!("SPILLWAY_CHURN_SEED={}: {}", self.seed, words(&troubles));
        }
    }

    /// What is the matter, with what led to it.
    async fn tell(&self, troubles: &[Trouble]) {
        println!("SPILLWAY_CHURN_SEED={}", self.seed);
        println!("{}", self.diary.text());
        let asked = troubles.iter().filter_map(|t| t.explain.as_ref());
        for what in asked.take(MOST_EXPLAINED) {
            let mut client = self.lab.client();
            let output = client.arg("explain").args(what).output().await;
            let output = output.expect("the client runs");
            let text = [output.stdout, output.stderr].concat();
            println!("--- {}", String::from_utf8_lossy(&text));
        }
        let names = self.lab.outputs.keys();
        for name in names.filter(|name| name.ends_with("DeadLetterQueueUrl")) {
            for message in self.messages(name).await {
                println!("--- {name}: {message}");
            }
        }
    }

    /// Takes what is on a queue, at most ten messages, with their attributes.
    async fn messages(&self, queue: &str) -> Vec<Value> {
        let url = self.lab.output(queue).expect("the stack has the queue");
        let ask = json!({
            "QueueUrl": url, "MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"],
            "AttributeNames": ["All"],
        });
        let root = self.lab.cloud.emulator.root();
        let answer = root.json("sqs", "AmazonSQS.ReceiveMessage", &ask).await;
        let answer = answer.expect("SQS answers");
        answer["Messages"].as_array().cloned().unwrap_or_default()
    }

    async fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = self.of_slurm().await;
        troubles.extend(self.of_instances());
        troubles.extend(self.of_the_table().await);
        troubles.extend(self.of_queues().await);
        troubles
    }

    async fn of_slurm(&self) -> Vec<Trouble> {
        let of_job = |(id, what): (String, String)| Trouble::explained("job", &id, &what);
        let mut troubles: Vec<Trouble> = self.jobs.troubles().into_iter().map(of_job).collect();
        let nodes = self.jobs.nodes();
        if nodes.len() != NODES as usize {
            troubles.push(Trouble::of(format!(
                "slurmctld shows {} nodes",
                nodes.len()
            )));
        }
        let at_rest = BTreeSet::from(["IDLE", "CLOUD", "POWERED_DOWN"]);
        for (name, node) in nodes {
            let flags: BTreeSet<&str> = node.state.split('+').collect();
            if flags != at_rest {
                let what = format!("is {} ({:?})", node.state, node.reason);
                troubles.push(Trouble::explained("node", name, &what));
            }
        }
        let shown = self.lab.head.scontrol(&["-o", "show", "reservation"]).await;
        // What a dead slurmctld said last is not how things are.
        let shown = shown.unwrap_or_else(|error| format!("slurmctld does not answer: {error:#}"));
        if !shown.contains("No reservations in the system") {
            troubles.push(Trouble::of(shown));
        }
        let spool = self.lab.head.directory().join("spool/requests");
        let spooled = std::fs::read_dir(spool).map_or(0, Iterator::count);
        if spooled > 0 {
            troubles.push(Trouble::of(format!("{spooled} requests are in the spool")));
        }
        troubles
    }

    fn of_instances(&self) -> Vec<Trouble> {
        let runs = alive(&self.lab).into_iter();
        let mut troubles: Vec<Trouble> = runs.map(|id| Trouble::of(format!("{id} runs"))).collect();
        let machines = self.lab.hypervisor.running();
        if !machines.is_empty() {
            troubles.push(Trouble::of(format!("machines: {machines:?}")));
        }
        troubles
    }

    async fn of_the_table(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for node in items(&self.lab, "node").await {
            let is_told = node["update_due"].is_null();
            if node["state"]["S"] != "free" || !is_told {
                let name = node["pk"]["S"].as_str().unwrap_or_default();
                let name = name.rsplit('#').next().unwrap_or_default();
                let what = format!("has the record {node}");
                troubles.push(Trouble::explained("node", name, &what));
            }
        }
        let key = json!({"pk": {"S": format!("USAGE#{}", self.lab.spec.cluster)}});
        let usage = item(&self.lab, &key).await;
        let held = usage["nodes"]["N"].as_str().and_then(|n| n.parse().ok());
        let held: usize = held.expect("a number");
        if held > self.most_lost() {
            troubles.push(Trouble::of(format!("the caps count {held}")));
        }
        troubles
    }

    /// How many nodes the caps may still count: a worker that is cut off between two writes keeps them too full, never
    /// too empty, for at most 80 minutes (`docs/decisions/0006`). A job's nodes end together.
    fn most_lost(&self) -> usize {
        let cut_off = [Kind::FunctionKilled, Kind::TableAway, Kind::AnswersLost];
        let struck = self.deck.struck();
        let times = cut_off.iter().filter_map(|kind| struck.get(kind));
        times.sum::<usize>() * MOST_NODES
    }

    /// No message is on any queue, in a reader's hands or delayed; in the dead-letter queues are the malformed ones.
    async fn of_queues(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let queues = self
            .lab
            .outputs
            .iter()
            .filter(|(name, _)| name.ends_with("QueueUrl"));
        for (name, url) in queues {
            let attributes = self.lab.cloud.emulator.root().queue_attributes(url).await;
            let attributes = attributes.expect("SQS answers");
            let count = |what: &str| -> u64 {
                let text = attributes[what].as_str().and_then(|text| text.parse().ok());
                text.expect("a number")
            };
            let expected = self.malformed.get(name).copied().unwrap_or(0);
            let there = [
                count("ApproximateNumberOfMessages"),
                count("ApproximateNumberOfMessagesNotVisible"),
                count("ApproximateNumberOfMessagesDelayed"),
            ];
            if there != [expected, 0, 0] {
                troubles.push(Trouble::of(format!(
                    "{name} has {there:?}, not [{expected}, 0, 0]"
                )));
            }
        }
        troubles
    }
}
