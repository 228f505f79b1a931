//! The operator's commands, with the operator's credentials: what they say is what happened, and a hold holds.

use std::time::Duration;

use serde_json::Value;
use spillway_lab::lab::Lab;

use crate::support::{Story, alive, job_is, none_runs, pause, record, submit, until};
use crate::sweep::push_short_grace;

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_asks_holds_and_sweeps() {
    let lab = Story::begin("the_operator_asks_holds_and_sweeps", |_| {}).await;
    push_short_grace(&lab).await;
    let job = submit(&lab, "cloud-0", 300).await;
    job_is(&lab, &job, "RUNNING", 120).await;
    let instance = alive(&lab).remove(0);
    all_is_well(&lab, &job, &instance).await;

    let (code, said) = operator(&lab, &["hold", "cloud-0"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is no instance id"), "{said}");
    let (code, said) = operator(&lab, &["hold", &instance]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("{instance} is held. It serves cloud-0.")),
        "{said}"
    );
    lab.head.run("scancel", &[&job]).await.expect("scancel");
    lab.head
        .scontrol(&["update", "nodename=cloud-0", "state=power_down"])
        .await
        .expect("power down");
    until("the node is let go", 60, async || {
        (record(&lab, "cloud-0").await["state"]["S"] == "free").then_some(())
    })
    .await;
    held_through_sweeps(&lab, &instance).await;

    let (code, said) = operator(&lab, &["release", &instance]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("is held no longer"), "{said}");
    for _ in 0..3 {
        let (code, said) = operator(&lab, &["sweep"]).await;
        assert_eq!(code, 0, "{said}");
        pause(5).await;
    }
    none_runs(&lab).await;
    let last = operator_json(&lab, &["sweep", "--last", "--json"]).await;
    assert_eq!(last["dry_run"], false);
    lab.end().await;
}

/// A node that runs, its job and its request; and a node that nobody has asked for.
async fn all_is_well(lab: &Lab, job: &str, instance: &str) {
    let node = operator_json(lab, &["explain", "node", "cloud-0", "--json"]).await;
    let summary = node["summary"].as_str().expect("a summary");
    assert!(
        summary.starts_with(&format!("cloud-0 runs well on {instance}")),
        "{node:#}"
    );
    // Nothing is missing in the operator's policy.
    assert_eq!(node["unread"], serde_json::json!([]), "{node:#}");
    let happened: Vec<&str> = node["happened"]
        .as_array()
        .expect("what happened")
        .iter()
        .filter_map(|moment| moment["what"].as_str())
        .collect();
    let begin = format!("Slurm asked for the node, for job {job} of ");
    assert!(happened[0].starts_with(&begin), "{happened:#?}");
    assert!(
        happened.iter().any(|what| what.starts_with("It joined: ")),
        "{happened:#?}"
    );
    let details = node["happened"][0]["details"].to_string();
    assert!(details.contains("EC2 was asked for 1 "), "{node:#}");

    let of_job = operator_json(lab, &["explain", "job", job, "--json"]).await;
    let expected = format!("Job {job} is RUNNING, and its nodes run well.");
    assert_eq!(of_job["summary"], expected.as_str(), "{of_job:#}");

    let item = record(lab, "cloud-0").await;
    let request = item["request_id"]["S"].as_str().expect("it has a request");
    let (code, said) = operator(lab, &["explain", "request", request]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("was served: 1 node got an instance."),
        "{said}"
    );

    let (code, said) = operator(lab, &["explain", "node", "cloud-5"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("cloud-5 was never asked for"), "{said}");
    let (code, said) = operator(lab, &["explain", "node", "nobody"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.starts_with("nobody is no node that anybody knows"),
        "{said}"
    );
}

async fn held_through_sweeps(lab: &Lab, instance: &str) {
    for arguments in [
        &["sweep", "--json"][..],
        &["sweep", "--dry-run", "--whole", "--json"],
    ] {
        let report = operator_json(lab, arguments).await;
        let findings = report["findings"].as_array().expect("findings");
        let own = findings
            .iter()
            .find(|finding| finding["instance"] == instance);
        assert_eq!(own.expect("it is found")["what"], "held", "{report:#}");
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(alive(lab), [instance.to_owned()]);
    let (code, said) = operator(lab, &["explain", "node", "cloud-0"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains(&format!("`spillway release {instance}`")),
        "{said}"
    );
}

/// A command's exit status, and what it printed.
async fn operator(lab: &Lab, arguments: &[&str]) -> (i32, String) {
    let output = lab
        .client()
        .args(arguments)
        .output()
        .await
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().expect("it exits"), text)
}

async fn operator_json(lab: &Lab, arguments: &[&str]) -> Value {
    let output = lab
        .client()
        .args(arguments)
        .output()
        .await
        .expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}
