//! EC2 is away for minutes. What is asked for meanwhile comes afterwards, once.

use spillway_lab::faults::Action;

use super::dead_letters;
use crate::support::{
    Story, alive, arm, fired, job, job_is, lasting_seconds, launched_ever, pause, powered_down,
    submit, until,
};

/// How long EC2 answers nobody: longer than the waits of `launch` and `terminate`, also where it is shorter.
const AWAY_SECONDS: u64 = 300;

/// A job may wait for a message to be delivered again, and for its nodes to join.
const JOB_SECONDS: u64 = 120;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_ec2_is_unavailable() {
    let away_seconds = lasting_seconds(AWAY_SECONDS);
    let lab = Story::begin("nothing_is_lost_while_ec2_is_unavailable", |spec| {
        spec.suspend_time_seconds = 900;
        spec.resume_timeout_seconds = u32::try_from(away_seconds + JOB_SECONDS).expect("minutes");
    })
    .await;
    let before = submit(&lab, "cloud-0", 0).await;
    job_is(&lab, &before, "COMPLETED", JOB_SECONDS).await;
    let first = alive(&lab);

    let unavailable = Action::Refuse {
        status: 503,
        code: "Unavailable".to_owned(),
        message: "The service is unavailable. Please try again shortly.".to_owned(),
    };
    let everybody = "";
    let away = arm(&lab, "ec2", None, everybody, None, unavailable);
    let jobs = [
        submit(&lab, "cloud-1,cloud-2", 0).await,
        submit(&lab, "cloud-3", 0).await,
    ];
    let down = ["update", "nodename=cloud-0", "state=power_down"];
    lab.head.scontrol(&down).await.expect("power down");
    fired(&lab, &away, 4).await;
    pause(away_seconds).await;
    assert_eq!(alive(&lab), first, "EC2 did nothing");
    println!(
        "EC2 refused {} calls",
        lab.cloud.proxy.faults().fired(&away)
    );
    assert!(lab.cloud.proxy.faults().disarm(&away));

    for id in &jobs {
        job_is(&lab, id, "COMPLETED", JOB_SECONDS).await;
        assert_eq!(job(&lab, id, "Restarts").await, "0");
    }
    until("what was suspended is ended", 60, async || {
        (!alive(&lab).contains(&first[0])).then_some(())
    })
    .await;
    powered_down(&lab, "cloud-0").await;
    assert_eq!(alive(&lab).len(), 3, "one instance a node");
    assert_eq!(launched_ever(&lab), 4);
    assert_eq!(dead_letters(&lab).await, 0);
    lab.end().await;
}
