//! Somebody who may write to the queue and send commands, and even has a signing key, tells slurmctld lies, by either
//! road. Nothing changes; each lie is logged and counted with its reason, and no lie twice.

use std::collections::BTreeMap;

use serde_json::Value;
use spillway_core::envelope::{Envelope, SigningKey, UpdateAction, seal};
use spillway_core::name::{ClusterName, Generation};
use spillway_lab::lab::Lab;
use spillway_lab::ssm::Invocation;

use super::{JOB_SECONDS, begin, calls, command_ended, keys, said, trust};
use crate::support::{
    generation, job_is, log_lines, metric, node, now_ms, pause, put, signing_key, submit, until,
};

/// A heartbeat later (30 s), and after what was left on the queue has come again (25 s).
const ONE_MORE_HEARTBEAT_SECONDS: u64 = 40;

/// How often something was refused, by reason.
type Counts = BTreeMap<String, usize>;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_old_or_another_s_changes_nothing() {
    let mut lab = begin("what_is_forged_old_or_another_s_changes_nothing", "both").await;
    let job = submit(&lab, "cloud-0", 600).await;
    job_is(&lab, &job, "RUNNING", JOB_SECONDS).await;
    until("the queue's copies are dealt with", 100, async || {
        (calls(&lab, "head-node", "DeleteMessageBatch") > 0).then_some(())
    })
    .await;
    let revoked = replace_key(&mut lab).await;
    let before = node(&lab, "cloud-0").await;
    let stale_before = metric(&lab, "report", "UpdatesStale").await;
    let liar = Liar::of(&lab).await;

    let mut by_road = Counts::new();
    for (reason, lie) in liar.lies(&revoked) {
        put(&lab, "UpdatesQueueUrl", &lie).await;
        let ran = command_ended(&lab, &lie).await;
        assert_eq!(ran.status, "Failed", "{reason}: {ran:?}");
        assert_eq!(printed(&ran)["refused"], reason, "{ran:?}");
        *by_road.entry(reason.to_owned()).or_default() += 1;
    }
    overtaken_and_replayed(&lab, &liar).await;
    *by_road.entry("replayed".to_owned()).or_default() += 1;

    let twice = by_road.iter().map(|(why, count)| (why.clone(), 2 * count));
    let told: Counts = twice.collect();
    println!("refused, by both roads: {told:?}");
    until("the agent has logged each", 60, async || {
        (logged_by_agent(&lab) == by_road).then_some(())
    })
    .await;
    let what = format!("the control plane has logged {told:?}");
    until(&what, 100, async || {
        let logged = logged_by_report(&lab).await;
        let is_over = |(why, count)| told.get(why).is_none_or(|most| count > most);
        assert!(!logged.iter().any(is_over), "{logged:?}");
        (logged == told).then_some(())
    })
    .await;
    pause(ONE_MORE_HEARTBEAT_SECONDS).await;
    assert_eq!(logged_by_agent(&lab), by_road);
    assert_eq!(logged_by_report(&lab).await, told);
    let refused = metric(&lab, "report", "EnvelopesRefused").await;
    assert_eq!(refused, told.values().sum::<usize>());
    let stale = metric(&lab, "report", "UpdatesStale").await;
    assert_eq!(stale - stale_before, 2, "one by each road");

    assert_eq!(before, node(&lab, "cloud-0").await);
    job_is(&lab, &job, "RUNNING", 1).await;
    lab.end().await;
}

/// One that answers an older request, by each road, and then again by the same one.
async fn overtaken_and_replayed(lab: &Lab, liar: &Liar) {
    let by_queue = liar.overtaken("overtaken, by the queue");
    put(lab, "UpdatesQueueUrl", &by_queue).await;
    until("it is found overtaken", 30, async || {
        let log = agent_log(lab);
        let mut lines = log.lines();
        let overtaken =
            |line: &str| line.contains("Stale {") && line.contains(&liar.overtaken_by());
        lines.any(overtaken).then_some(())
    })
    .await;
    put(lab, "UpdatesQueueUrl", &by_queue).await;

    let by_ssm = liar.overtaken("overtaken, by SSM");
    for is_replayed in [false, true] {
        let ran = command_ended(lab, &by_ssm).await;
        assert_eq!(ran.status, "Success", "{ran:?}");
        let printed = printed(&ran);
        assert_eq!(printed["replayed"], is_replayed, "{ran:?}");
        let outcome = &printed["results"][0]["outcome"];
        let words = outcome.to_string();
        assert!(
            words.contains("stale") && words.contains(&liar.overtaken_by()),
            "{ran:?}"
        );
    }
}

/// Who lies about cloud-0, whose job runs.
struct Liar {
    own: ClusterName,
    key: SigningKey,
    generation: u64,
}

impl Liar {
    async fn of(lab: &Lab) -> Self {
        Self {
            own: ClusterName::new("lab").expect("a name"),
            key: signing_key(lab).await,
            generation: generation(lab, "cloud-0").await,
        }
    }

    /// What each is refused for, and its text; no two are the same.
    fn lies(&self, revoked: &SigningKey) -> Vec<(&'static str, String)> {
        let other = ClusterName::new("other").expect("a name");
        let stranger = SigningKey::from_seed(&[9; 32]);
        let now = now_ms();
        let (names_our_key, altered) = (
            self.sealed(&self.lie("forged"), &stranger)
                .replace(&stranger.id().to_string(), &self.key.id().to_string()),
            self.sealed(&self.lie("altered"), &self.key),
        );
        let (head, signature) = altered.rsplit_once('.').expect("a signature");
        // Of the form that the document lets pass. The last character's bits beyond the signature are not zero.
        let no_signature = format!("spillway1.{}.AAAA.{}B", self.key.id(), "A".repeat(85));
        let expired = issued(self.lie("expired"), now - 700_000);
        let early = issued(self.lie("early"), now + 3_600_000);
        let elsewhere = seal(&other, &self.lie("other"), &self.key).expect("sealed");
        vec![
            ("forged", names_our_key),
            ("forged", format!("{head}A.{signature}")),
            ("malformed", no_signature),
            (
                "unknown-key",
                self.sealed(&self.lie("never known"), &stranger),
            ),
            ("unknown-key", self.sealed(&self.lie("revoked"), revoked)),
            ("other-cluster", elsewhere),
            ("expired", self.sealed(&expired, &self.key)),
            ("not-yet-valid", self.sealed(&early, &self.key)),
        ]
    }

    /// Answers a request that is not the node's last.
    fn overtaken(&self, id: &str) -> String {
        let mut envelope = self.lie(id);
        let old = self.generation - 1;
        envelope.updates[0].generation = Generation::new(old).expect("a generation");
        self.sealed(&envelope, &self.key)
    }

    /// Why.
    fn overtaken_by(&self) -> String {
        format!("the last one is {}", self.generation)
    }

    fn lie(&self, id: &str) -> Envelope {
        let fail = UpdateAction::Fail {
            reason: "a lie".to_owned(),
            cool_off: None,
        };
        said(id, "cloud-0", self.generation, 99, fail)
    }

    fn sealed(&self, envelope: &Envelope, key: &SigningKey) -> String {
        seal(&self.own, envelope, key).expect("sealed")
    }
}

fn issued(envelope: Envelope, issued_ms: u64) -> Envelope {
    Envelope {
        issued_ms,
        expires_ms: issued_ms + 600_000,
        ..envelope
    }
}

/// Has the control plane sign with a new key, and the head node trust no other; gives the old one.
async fn replace_key(lab: &mut Lab) -> SigningKey {
    let old = signing_key(lab).await;
    let created = keys(lab, &["create", "--json"]).await;
    let created: Value = serde_json::from_str(&created).expect("JSON");
    let text = |name: &str| created[name].as_str().expect("a text").to_owned();
    keys(lab, &["rotate", &text("id")]).await;
    keys(lab, &["revoke", &old.id().to_string()]).await;
    trust(lab, &old.public().to_string(), &text("public"));
    old
}

/// The line of JSON that `spillway apply` prints.
fn printed(ran: &Invocation) -> Value {
    serde_json::from_str(ran.output.trim()).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

fn agent_log(lab: &Lab) -> String {
    std::fs::read_to_string(lab.agent.log_file()).expect("the agent's log")
}

/// What the agent refused of what came by the queue.
fn logged_by_agent(lab: &Lab) -> Counts {
    let mut counts = Counts::new();
    for line in agent_log(lab)
        .lines()
        .filter(|line| line.contains(" WARN "))
    {
        let mut words = line.split(' ');
        if let Some(reason) = words.find_map(|word| word.strip_prefix("reason=")) {
            *counts.entry(reason.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// What heartbeats have told of both roads.
async fn logged_by_report(lab: &Lab) -> Counts {
    let mut counts = Counts::new();
    for line in log_lines(lab, "report").await {
        if line["message"] == "the head node refused envelopes" {
            let reason = line["reason"].as_str().expect("a reason");
            let count = line["count"].as_u64().expect("a count");
            *counts.entry(reason.to_owned()).or_default() += usize::try_from(count).expect("few");
        }
    }
    counts
}
