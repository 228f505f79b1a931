//! EC2 takes spot instances back, and says so. What the lab's EC2 tells comes by the deployed rules, as the emulator matches
//! them, to the notices queue.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spillway_lab::emulator::{ACCOUNT, REGION};
use spillway_lab::lab::Lab;
use spillway_world::ec2::Pool;

use crate::support::{
    Story, alive, job, job_is, log_lines, metric, node, powered_down, put, record, submit, take,
    until,
};

/// A job may wait for its node to boot, which slurmctld 22.05 looks at every 30 s.
pub const JOB_SECONDS: u64 = 110;
/// slurmctld lets a requeued batch job wait for the life of a credential.
pub const REQUEUED_SECONDS: u64 = 260;
/// So long before the end of an instance its jobs are queued again here; by default it is 30 s.
const REQUEUE_BEFORE_SECONDS: u64 = 110;
/// The goal, of which the story takes one sample.
const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// Has the partition's jobs queued again early, and another node powered up at once if the story wants that.
pub async fn push_notices(lab: &Lab, replace: bool) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let notices = format!(
        "[partition.notices]\nrequeue_before_seconds = {REQUEUE_BEFORE_SECONDS}\nreplace = {replace}\n\n[[node_group]]"
    );
    let changed = text.replace("[[node_group]]", &notices);
    std::fs::write(&path, changed).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}

/// Runs for ever the first time, and ends the second.
pub async fn submit_unlucky(lab: &Lab) -> String {
    let script = "#!/bin/bash\n[ -n \"$SLURM_RESTART_COUNT\" ] || sleep 3600\nhostname\n";
    let output = format!("--output={}/%j.out", lab.shared_directory().display());
    let options = ["-N", "1", "--requeue", &output];
    let id = lab.head.sbatch(&options, script).await;
    id.expect("sbatch takes the job").to_string()
}

fn pool_of(lab: &Lab, instance_id: &str) -> Pool {
    let pool = lab.ec2.with(|ec2, _| {
        ec2.instance(instance_id)
            .map(spillway_world::ec2::Instance::pool)
    });
    pool.expect("the instance")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_a_spot_instance_that_is_taken_back_ends_elsewhere() {
    let lab = Story::begin("a_spot_instance_is_taken_back", |spec| {
        spec.capacity = vec!["spot".to_owned()];
        // Its drained node shall be there still when EC2 takes the instance.
        spec.suspend_time_seconds = 900;
    })
    .await;
    push_notices(&lab, true).await;
    let id = submit_unlucky(&lab).await;
    job_is(&lab, &id, "RUNNING", JOB_SECONDS).await;
    let name = job(&lab, &id, "NodeList").await;
    let [taken] = &alive(&lab)[..] else {
        panic!("one instance");
    };
    let taken = taken.clone();
    until("the node is ready", 30, async || {
        let state = record(&lab, &name).await["state"]["S"].take();
        (state == "ready").then_some(())
    })
    .await;

    let mut events = lab.ec2.listen();
    let begun = Instant::now();
    let warned = lab
        .ec2
        .with(|ec2, now_ms| ec2.interrupt_spot(now_ms, &taken));
    warned.expect("a spot instance");
    let warning = events.recv().await.expect("EC2 warns");
    let view = until("the node drains", 30, async || {
        let view = node(&lab, &name).await;
        view.is("DRAIN").then_some(view)
    })
    .await;
    let drained = begun.elapsed();
    println!("from the event to DRAIN in slurmctld: {drained:?}");
    assert!(drained < DRAINED_WITHIN, "{drained:?}");
    let reason = view.reason.expect("a reason");
    let words = "spillway: EC2 Spot Instance Interruption Warning: terminate at ";
    assert!(reason.starts_with(words), "{reason}");
    // Again, as EventBridge may: nothing new.
    let warning = warning.to_event_bridge("again", ACCOUNT, REGION);
    put(&lab, "NoticesQueueUrl", &warning.to_string()).await;

    until("the job is queued again", 60, async || {
        (job(&lab, &id, "Restarts").await == "1").then_some(())
    })
    .await;
    println!("from the event to the requeue: {:?}", begun.elapsed());
    assert!(alive(&lab).contains(&taken), "EC2 has not taken it yet");

    // EC2 takes it, and says that it does.
    until("EC2 has taken it", 180, async || {
        alive(&lab).iter().all(|id| *id != taken).then_some(())
    })
    .await;
    powered_down(&lab, &name).await;
    let view = node(&lab, &name).await;
    assert!(!view.is("DRAIN") && !view.is("DOWN"), "{view:?}");

    job_is(&lab, &id, "COMPLETED", REQUEUED_SECONDS).await;
    let other = job(&lab, &id, "NodeList").await;
    assert_ne!(other, name);
    let [serves] = &alive(&lab)[..] else {
        panic!("one replacement: {:?}", alive(&lab));
    };
    assert_ne!(
        pool_of(&lab, serves),
        pool_of(&lab, &taken),
        "the pool rests"
    );
    println!("{id} ran on {name} ({taken}) and ended on {other} ({serves})");

    // The node is as good as any.
    let again = submit(&lab, &name, 0).await;
    job_is(&lab, &again, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(metric(&lab, "notice", "NodesLeaving").await, 1);
    assert_eq!(metric(&lab, "notice", "InstancesGone").await, 1);
    lab.end().await;
}

/// How many instances that are not ours end at once, say where the account has other users.
const STRANGERS: usize = 2_000;
/// The most messages that `SendMessageBatch` takes.
const MESSAGES_A_CALL: usize = 10;

/// Each sample comes by the rule that is for it, and by no other; one that cannot be read is set aside with its reason;
/// and of strangers' nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_by_one_rule_and_strangers_leave_nothing() {
    let lab = Story::begin("events_come_by_one_rule", |_| {}).await;
    let root = lab.cloud.emulator.root();
    let rules = root.event_rules().await.expect("the rules");
    assert_eq!(rules.len(), 5, "{rules:?}");
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../events/notice");
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for file in std::fs::read_dir(directory).expect("the samples") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let event: Value = serde_json::from_str(&text).expect("JSON");
        let name = path.file_stem().expect("a name").to_string_lossy();
        let mut count = 0;
        for rule in &rules {
            let matches = root.event_matches(&rule.pattern, &event).await;
            count += usize::from(matches.expect("EventBridge answers"));
        }
        by.insert(name.into_owned(), count);
    }
    let none = by.iter().filter(|(_, count)| **count == 0);
    let none: Vec<&str> = none.map(|(name, _)| name.as_str()).collect();
    let expected = [
        "block-delivered",
        "cloudtrail-other",
        "health-issue",
        "health-other-service",
        "reservation-interruption-underscore",
        "scheduled-event",
        "state-running",
    ];
    assert_eq!(none, expected);
    assert!(by.values().all(|count| *count <= 1), "{by:?}");

    let begun = Instant::now();
    tell_of_strangers(&lab).await;
    let sent = begun.elapsed();
    let broken = json!({
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "detail": {},
    });
    put(&lab, "NoticesQueueUrl", &broken.to_string()).await;
    assert_eq!(
        take(&lab, "NoticesDeadLetterQueueUrl").await,
        broken.to_string()
    );
    until("all are dropped", 120, async || {
        let dropped = metric(&lab, "notice", "NoticesOfStrangers").await;
        (dropped == STRANGERS).then_some(())
    })
    .await;
    let dropped = begun.elapsed();
    let lines = log_lines(&lab, "notice").await;
    let said = |words: &str| lines.iter().any(|line| line.to_string().contains(words));
    assert!(said("missing field `instance-id`"), "{lines:?}");
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    let by_notice = calls
        .iter()
        .filter(|call| call.principal.contains("notice"));
    let made: BTreeMap<&str, usize> = by_notice.fold(BTreeMap::new(), |mut made, call| {
        *made.entry(call.operation.as_str()).or_default() += 1;
        made
    });
    let invocations = lines.iter().filter(|line| line["_aws"].is_object()).count();
    println!(
        "{STRANGERS} strangers: sent in {sent:?}, dropped {dropped:?} after the first was sent"
    );
    println!("by {invocations} invocations with these calls: {made:?}");
    // One read for all of a batch.
    assert!(made["BatchGetItem"] <= invocations, "{made:?}");
    assert!(
        !made
            .keys()
            .any(|call| call.contains("Describe") && !call.contains("Table")),
        "{made:?}"
    );
    lab.end().await;
}

/// Their instances' ends, as EventBridge tells of them.
async fn tell_of_strangers(lab: &Lab) {
    let url = lab.output("NoticesQueueUrl").expect("a queue");
    let entry = |number: usize| {
        let event = json!({
            "source": "aws.ec2",
            "detail-type": "EC2 Instance State-change Notification",
            "detail": {"instance-id": format!("i-{number:017x}"), "state": "terminated"},
        });
        json!({"Id": number.to_string(), "MessageBody": event.to_string()})
    };
    let root = lab.cloud.emulator.root();
    for first in (0..STRANGERS).step_by(MESSAGES_A_CALL) {
        let entries: Vec<Value> = (first..first + MESSAGES_A_CALL).map(entry).collect();
        let body = json!({"QueueUrl": url, "Entries": entries});
        let answer = root.json("sqs", "AmazonSQS.SendMessageBatch", &body).await;
        let answer = answer.expect("the queue takes the messages");
        assert!(
            answer["Failed"].as_array().is_none_or(Vec::is_empty),
            "{answer}"
        );
    }
}
