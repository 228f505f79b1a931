//! EC2 does not show an instance yet when it is to be ended. "Not found" is not gone: it counts, and is asked for again,
//! until EC2 takes its termination.

use spillway_lab::lab::Lab;

use super::{Watch, metric, told_why};
use crate::by_hand::{resume, send, suspend};
use crate::support::{Story, alive, launched_ever, none_runs, now_ms, submit, until};

/// How long EC2 does not show what it has launched: time enough for a launch, a suspend and another resume.
const SEEN_AFTER_MS: u64 = 40_000;

/// No machine is booted for an instance that stays pending: nothing on it can end it.
const FOR_EVER_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_ec2_does_not_show_yet_counts_until_it_is_ended() {
    let lab = Story::begin("what_ec2_does_not_show_yet", |spec| spec.max_nodes = 1).await;
    lab.ec2.with(|ec2, _| {
        ec2.settings.visibility_delay_ms = SEEN_AFTER_MS;
        ec2.settings.pending_ms = FOR_EVER_MS;
    });
    let watch = Watch::begin(&lab);
    let message = resume("cloud-0", now_ms() + 100_000);
    send(&lab, &[("ResumeQueueUrl", message)]).await;
    until("it is launched", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    send(&lab, &[("SuspendQueueUrl", suspend("cloud-0"))]).await;
    until("EC2 is asked for it in vain", 30, async || {
        (terminations(&lab, 400) > 0).then_some(())
    })
    .await;

    let job = submit(&lab, "cloud-1", 0).await;
    let expected = "spillway: over the site's limit of 1 nodes (limits.max_nodes)";
    assert_eq!(told_why(&lab, "cloud-1").await, expected);
    lab.head.run("scancel", &[&job]).await.expect("scancel");
    assert_eq!((alive(&lab).len(), terminations(&lab, 200)), (1, 0));

    none_runs(&lab).await;
    assert_eq!(terminations(&lab, 200), 1);
    assert!(terminations(&lab, 400) > 1, "asked again while unseen");
    assert_eq!(metric(&lab, "InstancesTerminated").await, 1);

    // Its place is free, and was before for nobody.
    lab.ec2.with(|ec2, _| ec2.settings.visibility_delay_ms = 0);
    let message = resume("cloud-2", now_ms() + 100_000);
    send(&lab, &[("ResumeQueueUrl", message)]).await;
    until("another is launched", 60, async || {
        (alive(&lab).len() == 1).then_some(())
    })
    .await;
    assert_eq!((launched_ever(&lab), watch.end().await), (2, 1));
    lab.end().await;
}

/// How many calls to end instances were answered so.
fn terminations(lab: &Lab, status: u16) -> usize {
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    calls
        .iter()
        .filter(|call| call.operation == "TerminateInstances" && call.status == status)
        .count()
}
