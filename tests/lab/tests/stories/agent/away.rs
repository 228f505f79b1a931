//! The agent, or its network, is away for long. When it is back each node gets its present address, and nothing of
//! what was true once.

use std::net::IpAddr;

use serde_json::{Value, json};
use spillway_core::envelope::{Envelope, UpdateAction, open, seal};
use spillway_core::hostlist::Hostlist;
use spillway_core::message::HEARTBEAT_STALE_MS;
use spillway_core::name::ClusterName;
use spillway_core::tag;
use spillway_lab::faults::Action;
use spillway_lab::lab::Lab;
use spillway_world::ec2::InstanceState;

use super::{
    arm_sqs, begin, disarm, log_lines, log_what_slurmctld_is_told, logged, queue_is_empty, ran,
    spool_is_empty, srun, start_agent, times_told,
};
use crate::support::{
    alive, arm, fired, generation, launched_ever, node, now_ms, put, signing_key, submit, until,
};

const AN_HOUR_MS: u64 = 3_600_000;

/// A documentation address (RFC 5737): no node has it.
const NOBODYS_ADDRESS: &str = "192.0.2.1";

/// Three nodes are asked for and let go in the agent's absence: one is taken back and cannot be had again, one comes
/// twice, one misses its deadline and then Slurm's own. At last all three are wanted. The agent finds all that was
/// ever said on its queue, and what is due now only by its hello.
#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_deadlines() {
    let mut lab = begin("agent_an_hour_of_deadlines", |spec| {
        // slurmctld 22.05 stands still for ten seconds where it has to reach a node whose name has no address.
        spec.resume_timeout_seconds = 60;
        spec.suspend_timeout_seconds = 5;
        spec.suspend_time_seconds = 300;
        // What Slurm itself gave up is usable again once it is powered down.
        spec.slurm_lines = vec!["SlurmctldParameters=idle_on_node_suspend".to_owned()];
    })
    .await;
    let nodes = ["cloud-0", "cloud-1", "cloud-2"];
    logged(&lab, &["said hello"], 1).await;
    lab.agent.stop().await;
    was_last_heard_an_hour_ago(&lab).await;

    let first = submit_each(&lab, &nodes).await;
    let mut history = Intercepted::default();
    history.until_answered(&lab, &nodes, is_address).await;
    let late = generation(&lab, "cloud-2").await;
    assert_eq!(launched_ever(&lab), 3);
    let_go(&lab, &nodes[..2], &first[..2]).await;

    let refused = refuse_one_fleet(&lab);
    let second = submit_each(&lab, &nodes[..1]).await;
    fired(&lab, &refused, 1).await;
    history.until_answered(&lab, &nodes[..1], is_fail).await;
    let third = submit_each(&lab, &nodes[1..2]).await;
    history.until_answered(&lab, &nodes[1..2], is_address).await;
    assert_eq!(launched_ever(&lab), 4);
    let_go(&lab, &nodes[..2], &[second, third].concat()).await;

    until("the failure of cloud-2 is told", 90, async || {
        history.0.extend(take_all(&lab).await);
        history.holds("cloud-2", late, is_fail).then_some(())
    })
    .await;
    until("Slurm gives cloud-2 up", 90, async || {
        node(&lab, "cloud-2").await.is("DOWN").then_some(())
    })
    .await;
    let_go(&lab, &nodes[2..], &first[2..]).await;
    until("all instances are gone", 30, async || {
        alive(&lab).is_empty().then_some(())
    })
    .await;

    let jobs = nodes.map(|name| (name, srun(&lab, name)));
    let mut present = Intercepted::default();
    present.until_answered(&lab, &nodes, is_address).await;
    assert_eq!(launched_ever(&lab), 7);
    for envelope in &history.0 {
        put_envelope(&lab, envelope).await;
    }
    for envelope in &present.0 {
        put_envelope(&lab, &expired(envelope)).await;
    }
    log_what_slurmctld_is_told(&lab).await;
    start_agent(&mut lab, &[]).await;
    for (name, job) in jobs {
        ran(job, name).await;
    }
    queue_is_empty(&lab, "UpdatesQueueUrl").await;

    for name in nodes {
        let view = node(&lab, name).await;
        assert_eq!(view.node_addr, address_of(&lab, name).to_string(), "{name}");
        assert_eq!(view.reason, None, "{name}");
        assert_eq!(times_told(&lab, name), 1, "{name}");
    }
    let overtaken = log_lines(&lab.agent, &["number=", "Stale"]).len();
    let said: usize = history
        .0
        .iter()
        .map(|envelope| envelope.updates.len())
        .sum();
    assert!(
        overtaken >= said,
        "{overtaken} of {said} updates were overtaken"
    );
    assert_eq!(
        log_lines(&lab.agent, &["envelope has expired"]).len(),
        present.0.len()
    );
    assert_eq!(launched_ever(&lab), 7);
    assert_eq!(alive(&lab).len(), 3);
    lab.end().await;
}

/// For longer than the control plane waits for a heartbeat nothing comes or goes; the request had just been sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_network_is_away_for_longer_than_a_heartbeat_counts() {
    let mut lab = begin("agent_the_network_is_away", |spec| {
        spec.resume_timeout_seconds = 300;
    })
    .await;
    log_what_slurmctld_is_told(&lab).await;
    logged(&lab, &["said hello"], 1).await;
    // Started anew, or the receive that waits at SQS already would still bring the address.
    lab.agent.stop().await;
    let gone = || Action::HangMs(5_000);
    let deaf = arm_sqs(&lab, Some("ReceiveMessage"), gone());
    start_agent(&mut lab, &[]).await;
    logged(&lab, &["said hello"], 2).await;
    let job = srun(&lab, "cloud-0");
    logged(&lab, &["sent", "nodes=cloud-0 "], 1).await;
    let mute = arm_sqs(&lab, None, gone());
    until("the agent counts as away", 150, async || {
        (now_ms() - heard_ms(&heartbeat(&lab).await) > HEARTBEAT_STALE_MS).then_some(())
    })
    .await;
    assert!(node(&lab, "cloud-0").await.is("POWERING_UP"));
    let waiting = take_all(&lab).await;
    assert!(!waiting.is_empty(), "it was told of the address, in vain");
    assert_eq!(times_told(&lab, "cloud-0"), 0);

    disarm(&lab, &deaf);
    disarm(&lab, &mute);
    ran(job, "cloud-0").await;
    assert_eq!(log_lines(&lab.agent, &["said hello"]).len(), 3);
    spool_is_empty(&lab).await;
    queue_is_empty(&lab, "UpdatesQueueUrl").await;
    assert_eq!(times_told(&lab, "cloud-0"), 1);
    assert_eq!(launched_ever(&lab), 1);
    assert_eq!(node(&lab, "cloud-0").await.reason, None);
    lab.end().await;
}

async fn submit_each(lab: &Lab, nodes: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for name in nodes {
        ids.push(submit(lab, name, 0).await);
    }
    ids
}

/// Ends the jobs and has Slurm power the nodes down.
async fn let_go(lab: &Lab, nodes: &[&str], jobs: &[String]) {
    for id in jobs {
        lab.head.run("scancel", &[id]).await.expect("scancel");
    }
    let names = format!("nodename={}", nodes.join(","));
    lab.head
        .scontrol(&["update", &names, "state=power_down_force"])
        .await
        .expect("power down");
    for name in nodes {
        until(&format!("{name} can be had again"), 60, async || {
            let view = node(lab, name).await;
            (view.is("POWERED_DOWN") && !view.is("DOWN")).then_some(())
        })
        .await;
    }
}

fn refuse_one_fleet(lab: &Lab) -> String {
    let denied = Action::Refuse {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "by a story".to_owned(),
    };
    arm(
        lab,
        "ec2",
        Some("CreateFleet"),
        "lab-launch",
        Some(1),
        denied,
    )
}

fn is_address(action: &UpdateAction) -> bool {
    matches!(action, UpdateAction::Address { .. })
}

fn is_fail(action: &UpdateAction) -> bool {
    matches!(action, UpdateAction::Fail { .. })
}

/// What the control plane said, taken off the updates queue.
#[derive(Default)]
struct Intercepted(Vec<Envelope>);

impl Intercepted {
    /// Takes until each of the nodes' last requests is answered so.
    async fn until_answered(
        &mut self,
        lab: &Lab,
        nodes: &[&str],
        answer: fn(&UpdateAction) -> bool,
    ) {
        for name in nodes {
            until(&format!("{name} is answered"), 60, async || {
                self.0.extend(take_all(lab).await);
                let request = generation(lab, name).await;
                self.holds(name, request, answer).then_some(())
            })
            .await;
        }
    }

    fn holds(&self, name: &str, request: u64, answer: fn(&UpdateAction) -> bool) -> bool {
        let mut updates = self.0.iter().flat_map(|envelope| &envelope.updates);
        updates.any(|update| {
            let nodes = Hostlist::parse(&update.nodes).expect("a hostlist");
            update.generation.get() == request
                && answer(&update.action)
                && nodes.iter().any(|node| node == name)
        })
    }
}

async fn take_all(lab: &Lab) -> Vec<Envelope> {
    let bodies = super::take_all(lab, "UpdatesQueueUrl").await;
    let trusted = [signing_key(lab).await.public()];
    bodies
        .iter()
        .map(|body| open(body, &cluster(lab), &trusted).expect("an envelope"))
        .collect()
}

async fn put_envelope(lab: &Lab, envelope: &Envelope) {
    let key = signing_key(lab).await;
    let sealed = seal(&cluster(lab), envelope, &key).expect("it fits");
    put(lab, "UpdatesQueueUrl", &sealed).await;
}

/// The same a second too late, and with an address that would do harm.
fn expired(envelope: &Envelope) -> Envelope {
    let mut envelope = envelope.clone();
    envelope.envelope_id.push_str("-expired");
    envelope.expires_ms = now_ms() - 1_000;
    for update in &mut envelope.updates {
        update.number += 1;
        if let UpdateAction::Address { addresses } = &mut update.action {
            addresses.fill(NOBODYS_ADDRESS.parse().expect("an address"));
        }
    }
    envelope
}

fn cluster(lab: &Lab) -> ClusterName {
    ClusterName::new(lab.spec.cluster.clone()).expect("the lab's name is one")
}

/// The private address of the instance that runs for a node.
fn address_of(lab: &Lab, name: &str) -> IpAddr {
    lab.ec2.with(|ec2, _| {
        let serves = |tags: &std::collections::BTreeMap<String, String>| {
            tags.get(tag::NAME).is_some_and(|node| node == name)
        };
        let instance = ec2
            .instances()
            .find(|i| i.state == InstanceState::Running && serves(&i.tags));
        instance
            .and_then(|i| i.private_ip)
            .expect("an instance runs for the node")
            .into()
    })
}

/// The agent's heartbeat as the table holds it, in DynamoDB's JSON.
async fn heartbeat(lab: &Lab) -> Value {
    let key = json!({"pk": {"S": format!("HEARTBEAT#{}", lab.spec.cluster)}});
    let table = lab.output("TableName").expect("the stack has a table");
    let ask = json!({"TableName": table, "Key": key, "ConsistentRead": true});
    let root = lab.cloud.emulator.root();
    let mut answer = root
        .json("dynamodb", "DynamoDB_20120810.GetItem", &ask)
        .await
        .expect("the table answers");
    answer["Item"].take()
}

fn heard_ms(heartbeat: &Value) -> u64 {
    let text = heartbeat["received_ms"]["N"].as_str();
    text.and_then(|text| text.parse().ok())
        .expect("a heartbeat has its time")
}

/// Turns the table's heartbeat back, as if the agent had been away for that long.
async fn was_last_heard_an_hour_ago(lab: &Lab) {
    let mut item = until("the agent was heard of", 30, async || {
        let item = heartbeat(lab).await;
        item.is_object().then_some(item)
    })
    .await;
    let heard_ms = heard_ms(&item) - AN_HOUR_MS;
    let text = item["record"]["S"].as_str().expect("the record's text");
    let mut record: Value = serde_json::from_str(text).expect("JSON");
    record["received_ms"] = json!(heard_ms);
    item["record"] = json!({"S": record.to_string()});
    item["received_ms"] = json!({"N": heard_ms.to_string()});
    let table = lab.output("TableName").expect("the stack has a table");
    let put = json!({"TableName": table, "Item": item});
    lab.cloud
        .emulator
        .root()
        .json("dynamodb", "DynamoDB_20120810.PutItem", &put)
        .await
        .expect("the table takes it");
}
