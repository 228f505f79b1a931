//! A job of five nodes, and EC2 gives three.

use serde_json::{Map, Value, json};
use spillway_lab::lab::Lab;
use spillway_world::ec2::{CapacityKind, InstanceState};

use super::{JOB_SECONDS, NO_CAPACITY, Watch, job_is_told, told_why};
use crate::support::{
    Story, alive, calls, item, job, job_is, launched_ever, log_lines, node, pools,
    set_free_capacity, submit, until,
};

const NODES: [&str; 5] = ["cloud-0", "cloud-1", "cloud-2", "cloud-3", "cloud-4"];

/// How many instances come at first.
const COME: u32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn three_of_five_come_and_are_given_back() {
    let lab = Story::begin("three_of_five_are_given_back", |_| {}).await;
    set_free_capacity(&lab, CapacityKind::OnDemand, Some(0));
    let pool = pools(&lab, CapacityKind::OnDemand).remove(0);
    lab.ec2
        .with(|ec2, _| ec2.set_free_capacity(pool, Some(COME)));
    let watch = Watch::begin(&lab);
    let id = submit(&lab, &NODES.join(","), 0).await;
    let expected = format!("on-demand: {NO_CAPACITY}: ");
    for name in NODES {
        let reason = told_why(&lab, name).await;
        assert!(
            reason.starts_with(&format!("spillway: {expected}")),
            "{name}: {reason}"
        );
    }
    let told = job_is_told(&lab, &id).await;
    assert!(
        told.starts_with(&format!("spillway: cloud-[0-4]: {expected}")),
        "{told}"
    );
    until("the job is requeued", 5, async || {
        (job(&lab, &id, "Restarts").await == "1").then_some(())
    })
    .await;
    assert_eq!(job(&lab, &id, "JobState").await, "PENDING");
    terminated(&lab).await;
    assert_eq!(launched_ever(&lab), COME as usize, "they came");
    let pools = pools(&lab, CapacityKind::OnDemand).len();
    let resting = resting(&lab).await;
    assert_eq!(resting.as_object().map(Map::len), Some(pools), "{resting}");
    let seen = watch.seen();
    let looks = seen.iter().filter(|(name, _, _)| name == NODES[0]).count();
    assert!(looks > 5, "{looks} looks");
    for (name, address, flags) in seen {
        assert_eq!(address, name, "{flags:?}");
    }
    lab.end().await;
}

/// Asked too fast is not out of capacity: what is missing is asked for again, and no pool rests.
#[tokio::test(flavor = "multi_thread")]
async fn three_of_five_come_with_a_throttle_and_two_later() {
    let lab = Story::begin("three_of_five_with_a_throttle", |_| {}).await;
    lab.ec2.with(|ec2, now_ms| {
        ec2.settings.throttling = true;
        // As of an hour from now: until the story says otherwise the bucket does not fill.
        ec2.leave_launch_tokens(now_ms + 3_600_000, COME);
    });
    let id = submit(&lab, &NODES.join(","), 0).await;
    until("three are there", 60, async || {
        (launched_ever(&lab) == COME as usize).then_some(())
    })
    .await;
    lab.ec2
        .with(|ec2, now_ms| ec2.leave_launch_tokens(now_ms, 2));
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    assert_eq!(launched_ever(&lab), NODES.len());
    assert_eq!(alive(&lab).len(), NODES.len(), "nothing was given back");
    assert!(calls(&lab, "CreateFleet") >= 2, "and asked again for two");
    for name in NODES {
        assert_eq!(node(&lab, name).await.reason, None, "{name}");
    }
    let answers = log_lines(&lab, "launch").await;
    let throttled = |line: &Value| line.to_string().contains("RequestLimitExceeded");
    assert!(answers.iter().any(throttled), "it was to be throttled");
    let resting = resting(&lab).await;
    assert!(resting.as_object().is_none_or(Map::is_empty), "{resting}");
    lab.end().await;
}

/// The pools that the control plane leaves alone, as the table holds them.
async fn resting(lab: &Lab) -> Value {
    let key = json!({"pk": {"S": format!("CAPACITY#{}", lab.spec.cluster)}});
    let stored = item(lab, &key).await;
    // Nothing to remember is not even written.
    let record = stored["record"]["S"].as_str().unwrap_or("{}");
    let mut record: Value = serde_json::from_str(record).expect("JSON");
    record["closed"].take()
}

async fn terminated(lab: &Lab) {
    until("all instances are terminated", 60, async || {
        let all = |state| state == InstanceState::Terminated;
        let gone = lab.ec2.with(|ec2, _| ec2.instances().all(|i| all(i.state)));
        gone.then_some(())
    })
    .await;
    assert_eq!(lab.hypervisor.running(), Vec::<String>::new());
}
