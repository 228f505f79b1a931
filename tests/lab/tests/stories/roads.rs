//! The roads home: updates come by SSM alone, by the queue alone, by both; and what is forged, old or comes twice
//! changes nothing.

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use spillway_core::envelope::{Envelope, Update, UpdateAction, seal};
use spillway_core::name::{ClusterName, Generation};
use spillway_lab::lab::{HEAD_NODE_ID, Lab};
use spillway_lab::ssm::Invocation;

use crate::support::{
    Story, generation, job_is, metric, node, now_ms, pause, put, signing_key, submit, until,
};

/// A job on new nodes: slurmctld 22.05 looks only every 30 s whether the nodes of a batch job have booted.
const JOB_SECONDS: u64 = 110;

/// Instances that stay pending for longer than any story.
const FOR_EVER_MS: u64 = 3_600_000;

async fn begin(name: &str, roads: &str) -> Story {
    let roads = roads.to_owned();
    Story::begin(name, |spec| spec.update_roads = roads).await
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_come_by_ssm_alone() {
    let lab = begin("updates_come_by_ssm_alone", "ssm").await;
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    let commands = ended(&lab).await;
    assert!(!commands.is_empty());
    assert!(
        commands.iter().all(|command| command.status == "Success"),
        "{commands:?}"
    );
    assert_eq!(calls(&lab, "head-node", "ReceiveMessage"), 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_come_by_the_queue_alone() {
    let lab = begin("updates_come_by_the_queue_alone", "queue").await;
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    assert_eq!(calls(&lab, "lab-callback", "SendCommand"), 0);
    assert!(lab.ssm.invocations().is_empty());
    lab.end().await;
}

/// Counted by a program in scontrol's place, which notes its arguments and then is scontrol.
#[tokio::test(flavor = "multi_thread")]
async fn by_both_roads_scontrol_runs_once_a_change() {
    let mut lab = begin("by_both_roads_scontrol_runs_once_a_change", "both").await;
    let noted = note_scontrol(&mut lab).await;
    let id = submit(&lab, "cloud-0,cloud-1", 0).await;
    job_is(&lab, &id, "COMPLETED", JOB_SECONDS).await;
    let commands = ended(&lab).await;
    assert!(!commands.is_empty(), "SSM was not used");
    // The receive of an agent that was stopped may have taken it: then it comes again when it is visible again.
    until("the queue's copy has come too", 100, async || {
        (calls(&lab, "head-node", "DeleteMessageBatch") > 0).then_some(())
    })
    .await;
    let text = std::fs::read_to_string(noted).expect("scontrol was called");
    let updates: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("NodeAddr="))
        .collect();
    for name in ["cloud-0", "cloud-1"] {
        let of_node = updates.iter().filter(|line| {
            let names = line.split_once("NodeName=").map(|(_, rest)| rest);
            let names = names.and_then(|rest| rest.split(' ').next()).unwrap_or("");
            names.split(',').any(|own| own == name)
        });
        assert_eq!(of_node.count(), 1, "{name}: {updates:?}");
    }
    lab.end().await;
}

/// 1,000 nodes of a real slurmctld. Their instances stay pending, so that no machine is booted for them: what is
/// looked at is the way of a thousand addresses, from EC2's answers to slurmctld.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_addresses_come_by_ssm_alone() {
    const NODES: u32 = 1_000;
    let lab = Story::begin("a_thousand_addresses_come_by_ssm_alone", |spec| {
        spec.update_roads = "ssm".to_owned();
        spec.nodes = NODES;
        spec.max_nodes = NODES;
        spec.resume_timeout_seconds = 600;
        spec.function_timeout_seconds = 60;
        spec.queue_visibility_seconds = 70;
    })
    .await;
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = FOR_EVER_MS);
    let count = NODES.to_string();
    let options = ["-N", &count, "--output=/dev/null"];
    let submitted = lab.head.sbatch(&options, "#!/bin/sh\nhostname\n");
    submitted.await.expect("sbatch takes the job");
    let begun = now_ms();
    until("slurmctld has every address", 400, async || {
        let nodes = lab.head.scontrol(&["-o", "show", "nodes"]).await.ok()?;
        let told: BTreeMap<&str, &str> = nodes.lines().filter_map(name_and_address).collect();
        let told: BTreeSet<&str> = told.into_values().collect();
        let launched: BTreeSet<String> = lab.ec2.with(|ec2, _| {
            let addresses = ec2.instances().filter_map(|i| i.private_ip);
            addresses.map(|address| address.to_string()).collect()
        });
        let is_told = launched
            .iter()
            .all(|address| told.contains(address.as_str()));
        (launched.len() == NODES as usize && is_told).then_some(())
    })
    .await;
    println!("{NODES} addresses in {} ms", now_ms() - begun);
    let commands = ended(&lab).await;
    let failed = commands
        .iter()
        .filter(|command| command.status != "Success");
    assert_eq!(failed.count(), 0, "{commands:?}");
    println!("by {} commands", commands.len());
    assert_eq!(calls(&lab, "head-node", "ReceiveMessage"), 0);
    lab.end().await;
}

fn name_and_address(line: &str) -> Option<(&str, &str)> {
    let field = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key));
    Some((field("NodeName=")?, field("NodeAddr=")?))
}

/// The key is replaced while jobs start: no update is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_is_replaced_while_jobs_start() {
    let mut lab = begin("the_key_is_replaced_while_jobs_start", "both").await;
    let old = signing_key(&lab).await;
    let first = submit(&lab, "cloud-0,cloud-1", 0).await;
    let created = keys(&lab, &["create", "--json"]).await;
    let created: Value = serde_json::from_str(&created).expect("JSON");
    let (id, public) = (&created["id"], &created["public"]);
    let (id, public) = (id.as_str().expect("id"), public.as_str().expect("public"));
    let old_line = old.public().to_string();
    trust(&mut lab, &old_line, &format!("{old_line}\", \"{public}"));
    keys(&lab, &["rotate", id]).await;
    let second = submit(&lab, "cloud-2,cloud-3", 0).await;
    for job in [&first, &second] {
        job_is(&lab, job, "COMPLETED", JOB_SECONDS).await;
    }
    // callback uses a key for a minute at most after it was replaced.
    pause(65).await;
    keys(&lab, &["revoke", &old.id().to_string()]).await;
    trust(&mut lab, &format!("{old_line}\", \"{public}"), public);
    let third = submit(&lab, "cloud-4", 600).await;
    job_is(&lab, &third, "RUNNING", JOB_SECONDS).await;
    let before = node(&lab, "cloud-4").await;
    let fail = UpdateAction::Fail {
        reason: "a lie".to_owned(),
        cool_off: None,
    };
    let envelope = said(
        "late",
        "cloud-4",
        generation(&lab, "cloud-4").await,
        99,
        fail,
    );
    let cluster = ClusterName::new("lab").expect("a name");
    let late = seal(&cluster, &envelope, &old).expect("sealed");
    put(&lab, "UpdatesQueueUrl", &late).await;
    until("the revoked key is refused", 60, async || {
        let log = std::fs::read_to_string(lab.agent.log_file()).ok()?;
        log.contains("unknown-key").then_some(())
    })
    .await;
    assert_eq!(before, node(&lab, "cloud-4").await);
    job_is(&lab, &third, "RUNNING", 1).await;
    lab.end().await;
}

/// An envelope issued now, with one update.
fn said(id: &str, node: &str, generation: u64, number: u64, action: UpdateAction) -> Envelope {
    Envelope {
        envelope_id: id.to_owned(),
        issued_ms: now_ms(),
        expires_ms: now_ms() + 600_000,
        updates: vec![Update {
            nodes: node.to_owned(),
            generation: Generation::new(generation).expect("a generation"),
            number,
            request_id: None,
            note: None,
            action,
        }],
    }
}

/// Envelopes of ours in the wrong order, by both roads at the same time, and again: each change is told once, and the
/// last one stays.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_and_repeated_envelopes_are_told_once() {
    let mut lab = Story::begin("swapped_and_repeated_envelopes_are_told_once", |spec| {
        spec.resume_timeout_seconds = 600;
    })
    .await;
    // The node stays on its way up: its address may be told again and again.
    lab.ec2.with(|ec2, _| ec2.settings.pending_ms = FOR_EVER_MS);
    let noted = note_scontrol(&mut lab).await;
    submit(&lab, "cloud-0", 0).await;
    let at = async |address: &str| node(&lab, "cloud-0").await.node_addr == address;
    until("the node has its instance's address", 60, async || {
        (generation(&lab, "cloud-0").await > 0 && !at("cloud-0").await).then_some(())
    })
    .await;
    let current = generation(&lab, "cloud-0").await;
    let key = signing_key(&lab).await;
    let own = ClusterName::new("lab").expect("a name");
    let address = |id: &str, number: u64, address: &str| {
        let addresses = vec![address.parse().expect("an address")];
        let action = UpdateAction::Address { addresses };
        seal(&own, &said(id, "cloud-0", current, number, action), &key).expect("sealed")
    };
    let [first, second, third] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

    put(&lab, "UpdatesQueueUrl", &address("second", 51, second)).await;
    until("the second is told", 30, async || {
        at(second).await.then_some(())
    })
    .await;
    let swapped = address("first", 50, first);
    put(&lab, "UpdatesQueueUrl", &swapped).await;
    let ran = command_ended(&lab, &swapped).await;
    assert!(ran.output.contains("stale"), "{ran:?}");
    assert!(at(second).await);

    let both = address("third", 60, third);
    let ((), ran) = tokio::join!(
        put(&lab, "UpdatesQueueUrl", &both),
        command_ended(&lab, &both)
    );
    assert_eq!(ran.status, "Success", "{ran:?}");
    assert!(at(third).await);

    // By the queue once more: nobody but a replayer sends it in a second message.
    put(&lab, "UpdatesQueueUrl", &both).await;
    until("the replay is counted", 90, async || {
        let log = std::fs::read_to_string(lab.agent.log_file()).ok()?;
        (log.contains("replayed") && metric(&lab, "report", "EnvelopesRefused").await == 1)
            .then_some(())
    })
    .await;
    assert!(at(third).await);
    let calls = std::fs::read_to_string(noted).expect("scontrol was called");
    let told = |address: &str| {
        let argument = format!("NodeAddr={address}");
        calls
            .lines()
            .filter(|line| line.contains(&argument))
            .count()
    };
    assert_eq!([first, second, third].map(told), [0, 1, 1], "{calls}");
    lab.end().await;
}

/// Sends the command and waits for its end.
async fn command_ended(lab: &Lab, envelope: &str) -> Invocation {
    let command = send_command(lab, envelope).await;
    until("the command has ended", 60, async || {
        let mut all = lab.ssm.invocations().into_iter();
        let own = all.find(|known| known.command_id == command)?;
        (!["Pending", "InProgress"].contains(&own.status)).then_some(own)
    })
    .await
}

/// Puts one text for another in the configuration; the agent notices by itself.
fn trust(lab: &mut Lab, from: &str, to: &str) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).expect("write the configuration");
}

async fn keys(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.client().arg("keys").args(arguments).output().await;
    let output = output.expect("the client runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All commands, once none is under way.
async fn ended(lab: &Lab) -> Vec<Invocation> {
    until("all commands have ended", 60, async || {
        let all = lab.ssm.invocations();
        let is_open = |known: &Invocation| ["Pending", "InProgress"].contains(&known.status);
        (!all.iter().any(is_open)).then_some(all)
    })
    .await
}

fn calls(lab: &Lab, principal: &str, operation: &str) -> usize {
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    let calls = calls.iter();
    calls
        .filter(|call| call.principal == principal && call.operation == operation)
        .count()
}

/// Sends the lab's command as the account's owner; gives its id.
async fn send_command(lab: &Lab, envelope: &str) -> String {
    let parameters = json!({"Envelope": [envelope]}).to_string();
    let output = tokio::process::Command::new(lab.venv.join("bin/aws"))
        .args(["ssm", "send-command", "--document-name", "lab-apply"])
        .args(["--instance-ids", HEAD_NODE_ID, "--timeout-seconds", "30"])
        .args(["--output", "json", "--parameters", &parameters])
        .args(["--endpoint-url", &lab.cloud.proxy.url()])
        .envs(lab.operator_environment())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .output()
        .await
        .expect("aws runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let id = answer["Command"]["CommandId"].as_str();
    id.expect("an id").to_owned()
}

/// Has the client call a scontrol that notes its arguments; gives the file.
async fn note_scontrol(lab: &mut Lab) -> PathBuf {
    let head = lab.head.directory().to_owned();
    let directory = head.join("noting");
    // Written by the agent and by `spillway apply`, both as SlurmUser.
    let noted = head.join("spool/scontrol.calls");
    std::fs::create_dir_all(&directory).expect("make a directory");
    for program in ["scontrol", "sinfo", "squeue"] {
        let path = directory.join(program);
        let note = format!("echo \"$*\" >> {}", noted.display());
        let text = format!("#!/bin/sh\n{note}\nexec /usr/bin/{program} \"$@\"\n");
        std::fs::write(&path, text).expect("write a program");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("make it a program");
    }
    let own = format!("[slurm]\nbin_directory = \"{}\"\n", directory.display());
    trust(lab, "[slurm]\n", &own);
    lab.agent.stop().await;
    lab.agent.start(&BTreeMap::new()).expect("the agent starts");
    noted
}
