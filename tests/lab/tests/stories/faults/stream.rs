//! `callback` fails for a while: what it failed at comes again by the table's stream, and so does what came behind it.

use spillway_lab::faults::Action;

use super::{dead_letters, messages};
use crate::support::{Story, arm, fired, job_is, launched_ever, metric, record, submit, until};

/// More calls than one invocation makes: the SDK tries each three times.
const REFUSED: u64 = 9;

/// The nodes join late by as long as the stream's reader waits between its tries.
const JOB_SECONDS: u64 = 180;

#[tokio::test(flavor = "multi_thread")]
async fn what_callback_fails_at_comes_again() {
    let lab = Story::begin("what_callback_fails_at_comes_again", |_| {}).await;
    let away = Action::Refuse {
        status: 503,
        code: "ServiceUnavailable".to_owned(),
        message: "by a story".to_owned(),
    };
    let reads = arm(&lab, "dynamodb", None, "lab-callback", Some(REFUSED), away);
    let first = submit(&lab, "cloud-0", 0).await;
    fired(&lab, &reads, 1).await;
    let behind = submit(&lab, "cloud-1,cloud-2", 0).await;
    fired(&lab, &reads, REFUSED).await;
    for job in [&first, &behind] {
        job_is(&lab, job, "COMPLETED", JOB_SECONDS).await;
    }
    assert!(metric(&lab, "callback", "RecordsFailed").await > 0);
    assert_eq!(launched_ever(&lab), 3, "no node was launched anew for it");
    for name in ["cloud-0", "cloud-1", "cloud-2"] {
        until(&format!("{name} was told"), 30, async || {
            let due = record(&lab, name).await["update_due"].clone();
            due.is_null().then_some(())
        })
        .await;
    }
    assert_eq!(messages(&lab, "CallbackFailuresQueueUrl").await, 0);
    assert_eq!(dead_letters(&lab).await, 0);
    lab.end().await;
}
