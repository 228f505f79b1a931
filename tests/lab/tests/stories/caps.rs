//! Whoever has the head node's credentials asks for more than the policy allows. It is refused or capped, counted, and
//! told to Slurm; and at no moment does EC2 run more instances than the policy says.

mod unseen;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use spillway_core::message::MAX_REQUEST_BYTES;
use spillway_core::usage::MAX_UNKNOWN_NODES_PER_HOUR;
use spillway_lab::ec2_api::Ec2Api;
use spillway_lab::lab::Lab;
use spillway_lab::site::INSTANCE_TYPES;
use spillway_world::ec2::InstanceState;

use crate::by_hand::{resume, send, suspend};
use crate::support;
use crate::support::{
    Story, alive, generation, launched_ever, node, none_runs, now_ms, pause, submit, take, until,
};

/// What the policy allows here: half of the lab's nodes at once, and two launches of a node an hour.
const MAX_NODES: usize = 4;
const LAUNCHES_PER_NODE: usize = 2;

/// How long a message that was refused is watched for what it must not do.
const QUIET_SECONDS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn messages_made_by_hand_get_no_more_than_the_policy_allows() {
    let lab = Story::begin("messages_made_by_hand", |_| {}).await;
    push_small_limits(&lab).await;
    let watch = Watch::begin(&lab);

    another_clusters_name(&lab).await;
    strangers_and_a_passed_deadline(&lab).await;
    a_template_and_a_type_of_ones_own(&lab).await;
    ten_thousand_nodes(&lab).await;
    one_node_a_hundred_times(&lab).await;

    let most = watch.end().await;
    assert_eq!(most, MAX_NODES, "most instances at once");
    lab.end().await;
}

async fn another_clusters_name(lab: &Lab) {
    let mut message = resume("cloud-0", now_ms() + 100_000);
    message["cluster"] = json!("another");
    send(lab, &[("ResumeQueueUrl", message.clone())]).await;
    let put_aside = take(lab, "ResumeDeadLetterQueueUrl").await;
    assert_eq!(
        serde_json::from_str::<Value>(&put_aside).ok(),
        Some(message)
    );
    counted(lab, "RecordsQuarantined", 1).await;
    assert_eq!(
        (generation(lab, "cloud-0").await, launched_ever(lab)),
        (0, 0)
    );
}

async fn strangers_and_a_passed_deadline(lab: &Lab) {
    let unknown = resume("stranger-[0-2]", now_ms() + 100_000);
    let late = resume("cloud-7", now_ms() - 1_000);
    let (queue, suspend) = ("ResumeQueueUrl", suspend("made-up-[0-999]"));
    send(
        lab,
        &[
            (queue, unknown),
            (queue, late),
            ("SuspendQueueUrl", suspend),
        ],
    )
    .await;
    counted(lab, "NodesUnknown", 3 + 1_000).await;
    until("both are told", 30, async || {
        (metric(lab, "NodesFailed").await == 4).then_some(())
    })
    .await;
    assert_eq!(launched_ever(lab), 0);
    assert_eq!(node_items(lab).await, 4, "none was made by the suspend");
}

async fn a_template_and_a_type_of_ones_own(lab: &Lab) {
    let mut message = resume("cloud-0", now_ms() + 100_000);
    for place in ["", "/body"] {
        let place = message.pointer_mut(place).expect("an object");
        place["launch_template_id"] = json!("lt-00000000000000bad");
        place["instance_type"] = json!("p5.48xlarge");
        place["instance_types"] = json!(["p5.48xlarge"]);
        place["tags"] = json!({"spillway:cluster": "another"});
    }
    send(lab, &[("ResumeQueueUrl", message)]).await;
    until("an instance is there", 60, async || {
        (alive(lab).len() == 1).then_some(())
    })
    .await;
    lab.ec2.with(|ec2, _| {
        let launched = ec2.instances().next().expect("one instance");
        assert!(INSTANCE_TYPES.contains(&launched.instance_type.as_str()));
        let cluster = launched.tags.get("spillway:cluster").map(String::as_str);
        assert_eq!(cluster, Some(lab.spec.cluster.as_str()));
    });
    send(lab, &[("SuspendQueueUrl", suspend("cloud-0"))]).await;
    none_runs(lab).await;
}

/// All of the policy's nodes and 9,992 others. Slurm itself asks for one more.
async fn ten_thousand_nodes(lab: &Lab) {
    let unknown = metric(lab, "NodesUnknown").await;
    let message = resume("cloud-[0-9999]", now_ms() + 100_000);
    assert!(message.to_string().len() < MAX_REQUEST_BYTES);
    send(lab, &[("ResumeQueueUrl", message)]).await;
    until("the caps are full", 60, async || {
        (alive(lab).len() == MAX_NODES).then_some(())
    })
    .await;
    counted(lab, "NodesUnknown", unknown + 9_992).await;
    counted(lab, "NodesOverLimit", 8 - MAX_NODES).await;
    let told = MAX_UNKNOWN_NODES_PER_HOUR as usize;
    let items = node_items(lab).await;
    // An hour may begin in the middle of the story.
    assert!((8 + told..=8 + told + 3).contains(&items), "{items} items");

    let job = submit(lab, "cloud-6", 0).await;
    let reason = told_why(lab, "cloud-6").await;
    let expected =
        format!("spillway: over the site's limit of {MAX_NODES} nodes (limits.max_nodes)");
    assert_eq!(reason, expected);
    lab.head.run("scancel", &[&job]).await.expect("scancel");
    assert_eq!(alive(lab).len(), MAX_NODES);
    send(lab, &[("SuspendQueueUrl", suspend("cloud-[0-9999]"))]).await;
    none_runs(lab).await;
}

async fn one_node_a_hundred_times(lab: &Lab) {
    let before = launched_ever(lab);
    let over = metric(lab, "NodesOverLimit").await;
    for _ in 0..LAUNCHES_PER_NODE {
        let message = resume("cloud-5", now_ms() + 100_000);
        send(lab, &[("ResumeQueueUrl", message)]).await;
        until("it is launched", 60, async || {
            (alive(lab).len() == 1).then_some(())
        })
        .await;
        send(lab, &[("SuspendQueueUrl", suspend("cloud-5"))]).await;
        none_runs(lab).await;
    }
    let mut last = 0;
    let mut messages = Vec::new();
    for _ in LAUNCHES_PER_NODE..100 {
        messages.push(("ResumeQueueUrl", resume("cloud-5", now_ms() + 100_000)));
        let suspend = suspend("cloud-5");
        last = suspend["body"]["generation"].as_u64().expect("a number");
        messages.push(("SuspendQueueUrl", suspend));
    }
    send(lab, &messages).await;
    until("the last of them is accepted", 120, async || {
        (generation(lab, "cloud-5").await == last).then_some(())
    })
    .await;
    pause(QUIET_SECONDS).await;
    assert_eq!(launched_ever(lab) - before, LAUNCHES_PER_NODE);
    assert!(metric(lab, "NodesOverLimit").await > over);

    let job = submit(lab, "cloud-5", 0).await;
    let expected = format!(
        "spillway: over the site's limit of {LAUNCHES_PER_NODE} launches of a node an hour \
         (limits.launches_per_hour_per_node)"
    );
    assert_eq!(told_why(lab, "cloud-5").await, expected);
    lab.head.run("scancel", &[&job]).await.expect("scancel");
    assert_eq!(launched_ever(lab) - before, LAUNCHES_PER_NODE);
}

/// Looks all along how many instances run or are pending.
struct Watch {
    most: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn begin(lab: &Lab) -> Self {
        let (most, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn(watch(lab.ec2.clone(), Arc::clone(&most), Arc::clone(&over)));
        Self { most, over, task }
    }

    /// The most that were seen at once.
    async fn end(self) -> usize {
        self.over.store(true, Ordering::SeqCst);
        self.task.await.expect("the watch goes on to the end");
        self.most.load(Ordering::SeqCst)
    }
}

async fn watch(ec2: Ec2Api, most: Arc<AtomicUsize>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::SeqCst) {
        let running = ec2.with(|ec2, _| {
            let states = ec2.instances().map(|instance| instance.state);
            let runs = |state| matches!(state, InstanceState::Pending | InstanceState::Running);
            states.filter(|state| runs(*state)).count()
        });
        most.fetch_max(running, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn push_small_limits(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let limits =
        format!("max_nodes = {MAX_NODES}\nlaunches_per_hour_per_node = {LAUNCHES_PER_NODE}\n");
    let changed = text.replace("max_nodes = 64\n", &limits);
    assert_ne!(
        changed, text,
        "the lab's limits are others than this story knows"
    );
    std::fs::write(&path, changed).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}

async fn told_why(lab: &Lab, name: &str) -> String {
    until("Slurm's Reason is ours", 60, async || {
        let reason = node(lab, name).await.reason?;
        reason.starts_with("spillway: ").then_some(reason)
    })
    .await
}

/// Waits until a metric of `launch` and `terminate` adds up to this, and no more.
async fn counted(lab: &Lab, name: &str, count: usize) {
    until(&format!("{name} is {count}"), 60, async || {
        let found = metric(lab, name).await;
        assert!(found <= count, "{name} is {found}");
        (found == count).then_some(())
    })
    .await;
}

/// What the metric lines of `launch` and `terminate` add up to.
async fn metric(lab: &Lab, name: &str) -> usize {
    support::metric(lab, "launch", name).await + support::metric(lab, "terminate", name).await
}

/// How many nodes have an item.
async fn node_items(lab: &Lab) -> usize {
    let table = lab.output("TableName").expect("the stack has a table");
    let body = json!({
        "TableName": table, "Select": "COUNT", "FilterExpression": "begins_with(pk, :prefix)",
        "ExpressionAttributeValues": {":prefix": {"S": format!("NODE#{}#", lab.spec.cluster)}},
    });
    let root = lab.cloud.emulator.root();
    let answer = root
        .json("dynamodb", "DynamoDB_20120810.Scan", &body)
        .await
        .expect("the table answers");
    let count = answer["Count"].as_u64().expect("a number");
    usize::try_from(count).expect("a small one")
}
