//! Churn: jobs come and go on 20 nodes while everything fails that can fail here, each kind of fault again and again. When
//! it is over, every job has ended well or with a reason, no instance runs, no node is stuck, and every queue is empty.
//!
//! The order of the faults and all choices come from a seed, which is printed and may be given (`SPILLWAY_CHURN_SEED`); when
//! things happen is up to the machine. Three minutes; thirty with `SPILLWAY_SOAK` (`make soak`).
//!
//! All of it shares two processors: 20 nodes are there, and at most [`MOST_BUSY_NODES`] are asked for at once. slurmctld is
//! stopped as systemd stops it: with `kill -9` it forgets jobs of its last seconds itself.

mod deck;
mod diary;
mod ending;
mod jobs;
mod repeat;
mod strikes;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use spillway_lab::lab::{Lab, LabSpec};
use spillway_lab::site::{INSTANCE_TYPES, NODE_GROUP};
use spillway_world::ec2::TokenReplay;

use crate::support::{Story, changed, lasting_seconds, now_ms};
use crate::sweep::ask;
use deck::Deck;
use diary::Diary;
use jobs::Jobs;
use strikes::Ongoing;

const NODES: u32 = 20;
/// So many nodes run or boot at once: two processors boot about one in two seconds.
const MOST_BUSY_NODES: usize = 10;
/// How long jobs arrive and faults strike.
const SECONDS: u64 = 30 * 60;
/// A job comes about so often, if there is room.
const ARRIVAL_MS: std::ops::Range<u64> = 1_500..5_000;
/// From the begin to the first fault: nodes run by then.
const LEAD: Duration = Duration::from_secs(25);
/// From the last fault to the end of the arrivals: some jobs come after all faults.
const TRAIL: Duration = Duration::from_secs(10);
/// In three minutes each kind comes once: 21 kinds.
const BETWEEN_FAULTS_MS: std::ops::Range<u64> = 4_000..8_000;
/// How often there is a sweep, here, in place of a minute; and `sweep.grace_seconds`: a finding lasts from one sweep to
/// the next.
const SWEEP_EVERY: Duration = Duration::from_secs(15);
const GRACE_SECONDS: u64 = 10;
/// Time for a node to boot on a busy machine, and for a message to be delivered again.
const RESUME_TIMEOUT_SECONDS: u32 = 90;
const SUSPEND_TIME_SECONDS: u32 = 15;
/// From a spot instance's notice to its end, in place of two minutes; its jobs are queued again 10 s before.
const SPOT_NOTICE_MS: u64 = 30_000;
/// What EC2 answers to a repeated call nobody documents: the seed chooses.
const TOKEN_REPLAYS: [TokenReplay; 3] = [
    TokenReplay::FirstAnswer,
    TokenReplay::FleetWithoutInstances,
    TokenReplay::Mismatch,
];
/// How often all is looked at.
const TICK: Duration = Duration::from_millis(500);
/// What the second node group launches; the first one's types are the lab's.
const OTHER_TYPE: &str = "m6i.large";
/// The first group's share of the nodes.
const FIRST_NODES: u32 = 10;

#[tokio::test(flavor = "multi_thread")]
async fn every_job_ends_and_nothing_is_left() {
    let seed = std::env::var("SPILLWAY_CHURN_SEED").ok();
    let seed = seed.map_or_else(now_ms, |seed| seed.parse().expect("a seed is a number"));
    let seconds = lasting_seconds(SECONDS);
    println!("SPILLWAY_CHURN_SEED={seed}, {seconds} s");
    let lab = Story::begin("every_job_ends_and_nothing_is_left", of_churn).await;
    push_policy(&lab).await;
    lab.ec2.with(|ec2, _| {
        ec2.settings.spot_notice_ms = SPOT_NOTICE_MS;
        ec2.settings.token_replay = TOKEN_REPLAYS[(seed % 3) as usize];
    });
    let mut churn = Churn::new(lab, seed);
    churn.run(Duration::from_secs(seconds)).await;
    churn.cease().await;
    churn.settle().await;
    churn.lab.end().await;
}

fn of_churn(spec: &mut LabSpec) {
    spec.nodes = NODES;
    spec.capacity = vec!["spot".to_owned(), "on-demand".to_owned()];
    spec.resume_timeout_seconds = RESUME_TIMEOUT_SECONDS;
    spec.suspend_time_seconds = SUSPEND_TIME_SECONDS;
    spec.slurm_lines = vec![
        // Jobs that have ended are asked for at the end.
        "MinJobAge=86400".to_owned(),
        // A slurmd that dies is missed soon; five minutes by default.
        "SlurmdTimeout=20".to_owned(),
    ];
}

/// Two node groups, short rests, a short grace, and so many launches of a node that no cap is met in half an hour.
async fn push_policy(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let (site, group) = text.split_once("[[node_group]]").expect("a node group");
    let site = changed(
        site,
        "[limits]\n",
        &format!(
            "[sweep]\ngrace_seconds = {GRACE_SECONDS}\n\n[limits]\ncapacity_rest_seconds = 10\n\
             launches_per_hour_per_node = 60\n"
        ),
    );
    let groups = format!("[\"{NODE_GROUP}\"]");
    let site = changed(&site, &groups, &format!("[\"{NODE_GROUP}\", \"other\"]"));
    let site = site + "[partition.notices]\nrequeue_before_seconds = 10\nreplace = true\n\n";
    let all = format!("cloud-[0-{}]", NODES - 1);
    let first = changed(group, &all, &format!("cloud-[0-{}]", FIRST_NODES - 1));
    let other = changed(group, &all, &format!("cloud-[{FIRST_NODES}-{}]", NODES - 1));
    let other = changed(&other, &format!("\"{NODE_GROUP}\""), "\"other\"");
    let other = changed(
        &other,
        &format!("{INSTANCE_TYPES:?}"),
        &format!("[\"{OTHER_TYPE}\"]"),
    );
    let other = changed(&other, "[\"spot\", \"on-demand\"]", "[\"on-demand\"]");
    let text = [site, first, other].join("[[node_group]]");
    std::fs::write(&path, text).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}

/// A lab in churn.
struct Churn {
    lab: Story,
    rng: fastrand::Rng,
    seed: u64,
    diary: Diary,
    jobs: Jobs,
    deck: Deck,
    ongoing: Vec<Ongoing>,
    good_image: spillway_lab::hypervisor::Image,
    /// How many malformed messages were put on each queue, by its dead-letter queue's output.
    malformed: BTreeMap<String, u64>,
    next_job: Instant,
    next_sweep: Instant,
}

impl Churn {
    fn new(lab: Story, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            rng: fastrand::Rng::with_seed(seed),
            seed,
            diary: Diary::default(),
            jobs: Jobs::default(),
            deck: Deck::default(),
            ongoing: Vec::new(),
            good_image: lab.hypervisor.image(),
            malformed: BTreeMap::new(),
            next_job: now,
            next_sweep: now + SWEEP_EVERY,
            lab,
        }
    }

    /// Jobs arrive and faults strike.
    async fn run(&mut self, how_long: Duration) {
        let begun = Instant::now();
        let mut next_fault = begun + LEAD;
        while begun.elapsed() < how_long {
            self.arrive().await;
            if Instant::now() >= next_fault && begun.elapsed() + TRAIL < how_long {
                self.deck.deal(&mut self.rng);
                let pause_ms = self.rng.u64(BETWEEN_FAULTS_MS);
                next_fault = Instant::now() + Duration::from_millis(pause_ms);
            }
            self.strike().await;
            self.tick().await;
        }
    }

    /// One more moment passes.
    async fn tick(&mut self) {
        self.end_what_is_over().await;
        self.jobs.look(&self.lab, &mut self.diary).await;
        if Instant::now() >= self.next_sweep {
            self.next_sweep = Instant::now() + SWEEP_EVERY;
            ask(&self.lab, &json!({"kind": "sweep"})).await;
        }
        tokio::time::sleep(TICK).await;
    }

    /// A job comes, if it is time and there is room.
    async fn arrive(&mut self) {
        if Instant::now() < self.next_job || self.jobs.busy_nodes() >= MOST_BUSY_NODES {
            return;
        }
        let pause_ms = self.rng.u64(ARRIVAL_MS);
        self.next_job = Instant::now() + Duration::from_millis(pause_ms);
        self.jobs
            .submit(&self.lab, &mut self.rng, &mut self.diary)
            .await;
    }
}
