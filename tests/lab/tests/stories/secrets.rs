//! What a burst node keeps from the jobs that run on it, and whose word the control plane takes: an ordinary user's job
//! reaches neither instance metadata nor the munge key, and an instance is believed of itself alone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use spillway_lab::lab::Lab;

use crate::joining::inside;
use crate::support::{Story, alive, job, job_is, pause, record, submit, until};

/// An account of Debian's that has no rights, on the head node and on every instance.
const ORDINARY_USER: &str = "games";

/// From srun's call until its node has booted and the job has ended.
const JOB_SECONDS: u64 = 120;

/// What a process can find out, a line each. A number is the status of an answer over HTTP, 000 that there was none.
const LOOK: &str = r#"#!/bin/sh
metadata=http://169.254.169.254/latest
ask() { curl -g -s -m 5 -o /dev/null -w '%{http_code}' "$@"; }
say() { echo "$1=$2"; }
say uid "$(id -u)"
say version-1 "$(ask $metadata/meta-data/)"
say new-token "$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $metadata/api/token)"
token=$(curl -s -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $metadata/api/token)
role=$(curl -s -m 5 -H "X-aws-ec2-metadata-token: $token" $metadata/meta-data/iam/security-credentials/)
say credentials "$(ask -H "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/iam/security-credentials/$role")"
say user-data "$(ask -H "X-aws-ec2-metadata-token: $token" $metadata/user-data)"
say ipv6 "$(ask 'http://[fd00:ec2::254]/latest/meta-data/')"
# Root of a user namespace of one's own is nobody outside of it.
say own-root "$(unshare --user --map-root-user curl -s -m 5 -o /dev/null -w '%{http_code}' $metadata/meta-data/)"
may_read() { if head -c 1 "$1" >/dev/null 2>&1; then echo yes; else echo no; fi; }
say munge-key "$(may_read /etc/munge/munge.key)"
say join-record "$(may_read /var/lib/spillway/node.json)"
say slurmd-environment "$(may_read "/proc/$(cat /run/slurmd.pid)/environ")"
"#;

type Seen = BTreeMap<String, String>;

fn seen(output: &str) -> Seen {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    output.lines().filter_map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reaches_neither_metadata_nor_keys() {
    let lab = Story::begin("a_job_reaches_neither_metadata_nor_keys", |_| {}).await;
    // An image that has a key already, and not the cluster's: the stored one takes its place.
    let image = lab.hypervisor.image();
    let image = image.with_bytes("/etc/munge/munge.key", [7; 128], 0o400);
    lab.hypervisor
        .set_image(image)
        .expect("the image is staged");
    let script = lab.shared_directory().join("look.sh");
    fs::write(&script, LOOK).expect("the script is written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("and made executable");
    let script = script.display().to_string();

    let mut srun = lab.head.command("setpriv");
    srun.args(["--reuid", ORDINARY_USER, "--regid", ORDINARY_USER])
        .args(["--clear-groups", "srun", "-w", "cloud-0", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ended = tokio::time::timeout(Duration::from_secs(JOB_SECONDS), srun.output())
        .await
        .expect("the job ends in time")
        .expect("srun runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    let job = seen(&String::from_utf8_lossy(&ended.stdout));
    println!("the job saw {job:#?}");
    assert_ne!(job["uid"], "0");
    for question in ["version-1", "new-token", "credentials", "user-data", "ipv6"] {
        assert_eq!(job[question], "000", "{question}: {job:?}");
    }
    // Nothing where the kernel gives no user namespaces.
    assert!(["000", ""].contains(&job["own-root"].as_str()), "{job:?}");
    for question in ["munge-key", "join-record", "slurmd-environment"] {
        assert_eq!(job[question], "no", "{question}: {job:?}");
    }

    // The same questions, asked by root there: they can be answered.
    let instance = alive(&lab).pop().expect("the node's instance");
    let (_, output) = inside(&lab, &instance, &script).await;
    let root = seen(&output);
    println!("root saw {root:#?}");
    assert_eq!(root["uid"], "0");
    // The template asks for a token.
    assert_eq!(root["version-1"], "401");
    for question in ["new-token", "credentials", "user-data"] {
        assert_eq!(root[question], "200", "{question}: {root:?}");
    }
    for question in ["munge-key", "join-record", "slurmd-environment"] {
        assert_eq!(root[question], "yes", "{question}: {root:?}");
    }

    let (_, key) = inside(
        &lab,
        &instance,
        "stat -c '%a %U' /etc/munge/munge.key; base64 -w 0 /etc/munge/munge.key",
    )
    .await;
    let (owner, key) = key.split_once('\n').expect("two lines");
    assert_eq!(owner, "400 munge");
    let stored = base64(lab.head.munge_key());
    assert!(key == stored, "the key is not the one that was stored");
    let (status, said) = inside(&lab, &instance, "spillway node check").await;
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("metadata   ok       closed to every user but root"),
        "{said}"
    );
    // Somebody opens it again: slurmd may not be started any more.
    let (status, said) = inside(
        &lab,
        &instance,
        "nft delete table inet spillway; spillway node check",
    )
    .await;
    assert_eq!(status, 1, "{said}");
    assert!(
        said.contains(
            "metadata   FAILED   instance metadata is open to jobs: nobody reaches 169.254.169.254"
        ),
        "{said}"
    );
    lab.end().await;
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// One instance, rooted, with the credentials that root of it gets.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_believed_of_itself_alone() {
    let lab = Story::begin("an_instance_is_believed_of_itself_alone", |_| {}).await;
    let id = submit(&lab, "cloud-0,cloud-1", 600).await;
    job_is(&lab, &id, "RUNNING", JOB_SECONDS).await;
    // Of themselves they were believed.
    for name in ["cloud-0", "cloud-1"] {
        until(&format!("{name} is ready in our records"), 30, async || {
            (record(&lab, name).await["state"]["S"] == "ready").then_some(())
        })
        .await;
    }
    let (zero, one) = (instance_of(&lab, "cloud-0"), instance_of(&lab, "cloud-1"));
    let rooted = credentials_of(&lab, &zero).await;

    let ready = json!({"kind": "ready", "instance_id": one, "node": "cloud-1", "generation": 1});
    let of = |id: &str| json!({"kind": "failed", "instance_id": id, "reason": "by a story"});
    let heartbeat = json!({"kind": "heartbeat", "sent_ms": 1, "hello": false, "spooled": 7});
    let head_node = user_credentials(&lab);
    let another = format!("instance {zero} reports for instance {one}");
    let not_its_to_say = format!("instance {zero} sends what no burst node has to say");
    let not_by_it = format!("a report of instance {one} was not sent by it");
    for (credentials, report, reason) in [
        (&rooted, &of(&one), &another),
        (&rooted, &ready, &another),
        (&rooted, &heartbeat, &not_its_to_say),
        (&head_node, &of(&one), &not_by_it),
        (&head_node, &ready, &not_by_it),
    ] {
        send_report(&lab, credentials, report).await;
        let (body, why) = set_aside(&lab).await;
        assert_eq!(&why, reason);
        let body: Value = serde_json::from_str(&body).expect("as it was sent");
        assert_eq!(&body["body"], report);
    }
    // Nothing has changed: what would change something takes no longer than this.
    pause(3).await;
    assert_eq!(job(&lab, &id, "JobState").await, "RUNNING");
    assert_eq!(alive(&lab).len(), 2);
    for name in ["cloud-0", "cloud-1"] {
        assert_eq!(record(&lab, name).await["state"]["S"], "ready", "{name}");
    }
    lab.end().await;
}

/// The environment of a program that is to have these credentials.
type Environment = BTreeMap<String, String>;

fn instance_of(lab: &Lab, node: &str) -> String {
    lab.ec2.with(|ec2, _| {
        let found = ec2
            .instances()
            .find(|i| i.tags.get("Name").is_some_and(|name| name == node));
        let found = found.expect("the node's instance bears its name");
        found.instance_id.clone()
    })
}

/// What root of the instance gets from its metadata.
async fn credentials_of(lab: &Lab, instance: &str) -> Environment {
    let script = "\
        at=http://169.254.169.254/latest; \
        token=$(curl -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $at/api/token); \
        ask() { curl -s -H \"X-aws-ec2-metadata-token: $token\" $at/meta-data/iam/security-credentials/$1; }; \
        ask $(ask)";
    let (status, document) = inside(lab, instance, script).await;
    assert_eq!(status, 0, "{document}");
    let document: Value = serde_json::from_str(&document).expect("credentials");
    let value = |key: &str| document[key].as_str().expect("a text").to_owned();
    Environment::from([
        ("AWS_ACCESS_KEY_ID".to_owned(), value("AccessKeyId")),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), value("SecretAccessKey")),
        ("AWS_SESSION_TOKEN".to_owned(), value("Token")),
    ])
}

/// The head node's.
fn user_credentials(lab: &Lab) -> Environment {
    let file = lab.head_credentials().display().to_string();
    Environment::from([("AWS_SHARED_CREDENTIALS_FILE".to_owned(), file)])
}

async fn send_report(lab: &Lab, credentials: &Environment, report: &Value) {
    let message = json!({"version": 1, "cluster": lab.spec.cluster, "body": report});
    let queue = lab.output("ReportsQueueUrl").expect("the queue's URL");
    let sent = tokio::process::Command::new(lab.venv.join("bin/aws"))
        .args([
            "--endpoint-url",
            &lab.cloud.proxy.url(),
            "--region",
            "us-east-1",
        ])
        .args(["sqs", "send-message", "--queue-url", queue])
        .args(["--message-body", &message.to_string()])
        .env_clear()
        .env("AWS_CA_BUNDLE", &lab.cloud.certificates.bundle)
        .envs(credentials)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the AWS CLI runs");
    let said = String::from_utf8_lossy(&sent.stderr);
    assert!(sent.status.success(), "{said}");
}

/// The next message of the reports' dead-letter queue, and why it is there.
async fn set_aside(lab: &Lab) -> (String, String) {
    let url = lab.output("ReportsDeadLetterQueueUrl").expect("the URL");
    let root = lab.cloud.emulator.root();
    until("the report is set aside", 60, async || {
        let ask = json!({"QueueUrl": url, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]});
        let answer = root
            .json("sqs", "AmazonSQS.ReceiveMessage", &ask)
            .await
            .expect("SQS answers");
        let message = &answer["Messages"][0];
        let body = message["Body"].as_str()?.to_owned();
        let reason = &message["MessageAttributes"]["Reason"]["StringValue"];
        let reason = reason.as_str().expect("a reason").to_owned();
        let delete = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
        root.json("sqs", "AmazonSQS.DeleteMessage", &delete)
            .await
            .expect("SQS answers");
        Some((body, reason))
    })
    .await
}

/// The operator's side: a key is stored, shown by all but itself, and replaced on purpose only.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_key_is_replaced_on_purpose_only() {
    let lab = Story::begin("a_stored_key_is_replaced_on_purpose_only", |_| {}).await;
    let file = lab.head.munge_key_file().display().to_string();
    let other = lab.spec.state.join("other.key");
    fs::write(&other, [9; 64]).expect("another key is written");
    let other = other.display().to_string();
    let put = ["secrets", "put", "munge-key", "--file"];

    let (status, said) = spillway(&lab, &[&put[..], &[&file]].concat()).await;
    assert!(status && said.contains("munge-key unchanged"), "{said}");
    let (status, said) = spillway(&lab, &[&put[..], &[&other]].concat()).await;
    assert!(
        !status && said.contains("/spillway/lab/munge-key holds another munge-key"),
        "{said}"
    );
    let (_, listed) = spillway(&lab, &["secrets", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(listed["secrets"][0]["version"], 1);
    assert_eq!(listed["secrets"][0]["parameter"], "/spillway/lab/munge-key");

    let (status, said) = spillway(&lab, &[&put[..], &[&other, "--replace"]].concat()).await;
    assert!(status && said.contains("State=POWER_DOWN"), "{said}");
    assert!(!said.contains(&base64(&[9; 64])) && !said.contains(&base64(lab.head.munge_key())));
    let (_, listed) = spillway(&lab, &["secrets", "list"]).await;
    assert!(listed.contains("munge-key  version 2"), "{listed}");

    fs::write(lab.spec.state.join("short.key"), [9; 31]).expect("a short key is written");
    let short = lab.spec.state.join("short.key").display().to_string();
    let (status, said) = spillway(&lab, &[&put[..], &[&short]].concat()).await;
    assert!(
        !status && said.contains("a munge-key has 32 to 1024 bytes, this one has 31"),
        "{said}"
    );
    lab.end().await;
}

/// Runs the client as the operator: whether it succeeded, and what it said.
async fn spillway(lab: &Lab, arguments: &[&str]) -> (bool, String) {
    let output = lab.client().args(arguments).output().await;
    let output = output.expect("the client runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}
