//! A change of the table that `callback` never got through with, as when it fails for ten minutes on AWS: nobody tells
//! slurmctld of it, and no timer was set. The sweep tells it. (The emulator gives a change up at once: it takes a batch of the
//! stream that was answered for done, whatever the answer says.)

use spillway_lab::faults::Action;

use super::dead_letters;
use crate::support::{Story, alive, arm, job, job_is, metric, pause, submit, until};
use crate::sweep::{report, sweep};

/// The sweep lets two timers of an update pass first, and is asked this often.
const SWEEP_EVERY_SECONDS: u64 = 10;
/// Longer than it takes until the sweep tells and the node joins.
const RESUME_TIMEOUT_SECONDS: u32 = 400;

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_tells_what_callback_gave_up() {
    let lab = Story::begin("the_sweep_tells_what_callback_gave_up", |spec| {
        spec.resume_timeout_seconds = RESUME_TIMEOUT_SECONDS;
    })
    .await;
    let away = Action::Refuse {
        status: 503,
        code: "ServiceUnavailable".to_owned(),
        message: "by a story".to_owned(),
    };
    arm(&lab, "dynamodb", None, "lab-callback", None, away);
    let id = submit(&lab, "cloud-0", 0).await;
    until("callback has failed", 60, async || {
        (metric(&lab, "callback", "RecordsFailed").await > 0).then_some(())
    })
    .await;
    lab.cloud.proxy.faults().clear();

    let mut told = false;
    while !told {
        pause(SWEEP_EVERY_SECONDS).await;
        sweep(&lab).await;
        let last = report(&lab, "last").await;
        let findings = last["findings"].as_array().into_iter().flatten();
        let mut of_node = findings.filter(|finding| finding["node"] == "cloud-0");
        told = of_node.any(|finding| finding["what"] == "untold");
        assert_eq!(job(&lab, &id, "JobState").await, "CONFIGURING");
    }
    job_is(&lab, &id, "COMPLETED", 60).await;
    assert_eq!(job(&lab, &id, "Restarts").await, "0");
    assert_eq!(alive(&lab).len(), 1, "no other was launched");
    assert_eq!(dead_letters(&lab).await, 0);
    lab.end().await;
}
