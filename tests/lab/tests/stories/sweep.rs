//! What went wrong and no event told of: the sweep finds it, heals it, and touches nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use spillway_lab::faults::Action;
use spillway_lab::lab::Lab;
use spillway_world::ec2::{LaunchTemplateData, RunInstances, TagSpecification};

use crate::support::bus::{received, subscribe};
use crate::support::functions::kill;
use crate::support::{
    Story, alive, arm, fired, item, job, job_is, log_lines, metric, none_runs, now_ms, pause, put,
    record, submit, until,
};

/// `sweep.grace_seconds` here, the shortest that a policy may set: a finding must last as long.
pub const GRACE_SECONDS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_owns_is_ended_after_three_sweeps_and_nothing_else_is_touched() {
    let lab = Story::begin("what_nobody_owns", |_| {}).await;
    push_short_grace(&lab).await;
    let healings = json!({"source": ["spillway"], "detail-type": ["Spillway Sweep Healing"]});
    let site = subscribe(&lab, &healings).await;
    // A job that nothing may disturb.
    let running = submit(&lab, "cloud-0", 300).await;
    job_is(&lab, &running, "RUNNING", 120).await;
    let own = alive(&lab);
    assert_eq!(own.len(), 1);

    let behind = launched_behind_our_back(&lab);
    let held = launched_behind_our_back(&lab);
    set_hold(&lab, &held, true);
    let erased = pairing_erased(&lab, "cloud-1").await;
    let half = killed_mid_launch(&lab, "cloud-2").await;
    for _ in 0..3 {
        sweep(&lab).await;
        pause(GRACE_SECONDS).await;
    }
    let mut expected = own.clone();
    expected.push(held.clone());
    expected.extend(half);
    expected.sort();
    let mut left = Vec::new();
    for _ in 0..150 {
        left = alive(&lab);
        left.sort();
        if left == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let last = report(&lab, "last").await;
    assert_eq!(
        left, expected,
        "own {own:?}, held {held}, behind {behind}, erased {erased}: {last:#}"
    );
    assert!(!alive(&lab).contains(&behind) && !alive(&lab).contains(&erased));
    assert_eq!(metric(&lab, "sweep", "OrphansEnded").await, 2);
    told_of_orphans(&lab, &site, [&behind, &erased]).await;
    assert_eq!(job(&lab, &running, "JobState").await, "RUNNING");
    assert_eq!(job(&lab, &running, "Restarts").await, "0");

    // The hold is taken away in the console.
    set_hold(&lab, &held, false);
    for _ in 0..2 {
        sweep(&lab).await;
        pause(GRACE_SECONDS).await;
    }
    until("what was held is gone", 30, async || {
        (!alive(&lab).contains(&held)).then_some(())
    })
    .await;
    let last = report(&lab, "last").await;
    assert_eq!(last["stopped"], Value::Null);
    let all = ["--partition=cloud"];
    lab.head.run("scancel", &all).await.expect("scancel");
    none_runs(&lab).await;
    lab.end().await;
}

/// The site hears of each orphan that it was ended, and why.
async fn told_of_orphans(lab: &Lab, site: &str, orphans: [&String; 2]) {
    let mut told = BTreeMap::new();
    until("the site is told of the orphans", 30, async || {
        for event in received(lab, site).await {
            let detail = &event["detail"];
            if detail["what"] == "orphan" {
                let instance = detail["instance_id"].as_str().expect("an instance");
                told.insert(instance.to_owned(), detail["reason"].clone());
            }
        }
        (told.len() >= orphans.len()).then_some(())
    })
    .await;
    for orphan in orphans {
        let reason = told.get(orphan).and_then(Value::as_str);
        assert!(
            reason.is_some_and(|reason| reason.contains(orphan)),
            "{told:?}"
        );
    }
}

/// Somebody launches an instance with the cluster's tag, past every function.
pub fn launched_behind_our_back(lab: &Lab) -> String {
    let subnet = lab.network.subnets()[0].subnet_id.clone();
    let request = RunInstances {
        launch_template: None,
        direct: LaunchTemplateData {
            image_id: Some("ami-0123456789abcdef0".to_owned()),
            instance_type: Some(lab.spec.instance_types[0].clone()),
            tag_specifications: vec![TagSpecification {
                resource_type: "instance".to_owned(),
                tags: [("spillway:cluster".to_owned(), lab.spec.cluster.clone())].into(),
            }],
            ..LaunchTemplateData::default()
        },
        subnet_id: Some(subnet),
        min_count: 1,
        max_count: 1,
        client_token: None,
        dry_run: false,
    };
    let launched = lab
        .ec2
        .with(|ec2, now_ms| ec2.run_instances(now_ms, &request))
        .expect("EC2 launches");
    launched.instances[0].instance_id.clone()
}

fn set_hold(lab: &Lab, id: &str, held: bool) {
    let ids = [id.to_owned()];
    let key = "spillway:hold".to_owned();
    lab.ec2
        .with(|ec2, now_ms| {
            if held {
                let tags = [(key, "by a story".to_owned())].into();
                ec2.create_tags(now_ms, &ids, &tags, false)
            } else {
                ec2.delete_tags(now_ms, &ids, &[(key, None)], false)
            }
        })
        .expect("EC2 tags");
}

/// A node joins for a job that ends; then our record of it is lost.
async fn pairing_erased(lab: &Lab, name: &str) -> String {
    let job = submit(lab, name, 0).await;
    job_is(lab, &job, "COMPLETED", 120).await;
    let record = record(lab, name).await;
    let instance = record["instance_id"]["S"].as_str().expect("it is paired");
    let table = lab.output("TableName").expect("the stack has a table");
    let key = json!({"pk": record["pk"]});
    lab.cloud
        .emulator
        .root()
        .json(
            "dynamodb",
            "DynamoDB_20120810.DeleteItem",
            &json!({"TableName": table, "Key": key}),
        )
        .await
        .expect("the table deletes");
    instance.to_owned()
}

/// `launch` dies after EC2 has launched for a node: its message comes again, and the node gets that very instance.
async fn killed_mid_launch(lab: &Lab, name: &str) -> Option<String> {
    let before = alive(lab);
    let hang = arm(
        lab,
        "ec2",
        Some("CreateFleet"),
        "lab-launch",
        Some(1),
        Action::HangAnswerMs(5_000),
    );
    submit(lab, name, 300).await;
    fired(lab, &hang, 1).await;
    kill(lab, "launch");
    let new = alive(lab).into_iter().find(|id| !before.contains(id));
    assert!(new.is_some(), "EC2 has launched");
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let lab = Story::begin("a_dry_run", |_| {}).await;
    push_short_grace(&lab).await;
    let stray = launched_behind_our_back(&lab);
    sweep(&lab).await;
    pause(GRACE_SECONDS + 1).await;
    let order = json!({"kind": "sweep", "dry_run": true, "report_id": "mine"});
    ask(&lab, &order).await;
    let dry = until("the report is there", 60, async || {
        let report = report(&lab, "mine").await;
        report.is_object().then_some(report)
    })
    .await;
    assert_eq!(dry["dry_run"], json!(true));
    let finding = &dry["findings"][0];
    assert_eq!(
        (
            &finding["what"],
            &finding["instance"],
            &finding["heal"]["heal"]
        ),
        (&json!("orphan"), &json!(stray), &json!("end"))
    );
    pause(3).await;
    assert_eq!(alive(&lab), [stray]);
    sweep(&lab).await;
    none_runs_without_caps(&lab).await;
    lab.end().await;
}

async fn none_runs_without_caps(lab: &Lab) {
    until("no instance runs", 60, async || {
        alive(lab).is_empty().then_some(())
    })
    .await;
}

/// Sweeps once, and waits until it is done.
pub async fn sweep(lab: &Lab) {
    let name = format!("story-{}", now_ms());
    ask(lab, &json!({"kind": "sweep", "report_id": name})).await;
    for _ in 0..300 {
        // The last report is there before the sweep sets to it, one that was asked for when it is done.
        if !report(lab, &name).await.is_null() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let said = log_lines(lab, "sweep").await;
    panic!("the sweep is not done: {said:#?}");
}

/// Puts an order on the sweep queue, and does not wait.
pub async fn ask(lab: &Lab, body: &Value) {
    let message = json!({"version": 1, "cluster": lab.spec.cluster, "body": body});
    put(lab, "SweepQueueUrl", &message.to_string()).await;
}

/// The report of this name; null if there is none.
pub async fn report(lab: &Lab, name: &str) -> Value {
    let key = json!({"pk": {"S": format!("SWEEP-REPORT#{}#{name}", lab.spec.cluster)}});
    let item = item(lab, &key).await;
    let text = item["record"]["S"].as_str().unwrap_or("null");
    serde_json::from_str(text).expect("a report is JSON")
}

pub async fn push_short_grace(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let sweep = format!("[sweep]\ngrace_seconds = {GRACE_SECONDS}\n\n[limits]\n");
    let changed = text.replace("[limits]\n", &sweep);
    assert_ne!(changed, text, "the configuration has no limits");
    std::fs::write(&path, changed).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}
