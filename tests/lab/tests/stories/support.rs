//! What the stories share: a lab that keeps its logs when a story fails, waiting, and looking.

pub mod bus;
pub mod functions;
mod logs;
mod table;

pub use logs::{log_lines, metric};
pub use table::{generation, item, items, ready, record};

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spillway_core::envelope::SigningKey;
use spillway_lab::faults::{Action, Fault};
use spillway_lab::head::NodeView;
use spillway_lab::lab::{Lab, LabSpec};
use spillway_world::ec2::{CapacityKind, InstanceState, Pool};

/// A lab with a story's name.
pub struct Story {
    // Boxed, as what starts it: a whole lab is large.
    lab: Option<Box<Lab>>,
    logs: PathBuf,
    _state: tempfile::TempDir,
}

impl Story {
    /// Starts a lab for the story; `change` may change how it is made.
    pub async fn begin(name: &str, change: impl FnOnce(&mut LabSpec)) -> Self {
        let state = tempfile::tempdir().expect("a temporary directory");
        let mut spec = LabSpec::new(state.path()).expect("the binaries are built");
        // A story asks for its sweeps itself.
        spec.sweeps = false;
        change(&mut spec);
        let lab = Box::pin(Lab::start(spec, |line| println!("{line}")))
            .await
            .expect("the lab starts");
        let logs = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target/stories")
            .join(name);
        Self {
            lab: Some(Box::new(lab)),
            logs,
            _state: state,
        }
    }

    /// The story is over and was as it should be.
    pub async fn end(mut self) {
        if let Some(lab) = self.lab.take() {
            lab.stop().await;
        }
    }
}

impl Deref for Story {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.lab.as_ref().expect("the story has not ended")
    }
}

impl DerefMut for Story {
    fn deref_mut(&mut self) -> &mut Lab {
        self.lab.as_mut().expect("the story has not ended")
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let Some(lab) = self.lab.as_ref().filter(|_| std::thread::panicking()) else {
            return;
        };
        match lab.keep_logs(&self.logs) {
            Ok(()) => eprintln!("logs are in {}", self.logs.display()),
            Err(error) => eprintln!("the logs are lost: {error:#}"),
        }
    }
}

/// Waits until `look` finds something; a story that waits in vain has failed.
pub async fn until<T>(what: &str, seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {seconds} s in vain until {what}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// By how much what lasts long in life is shorter here, unless `SPILLWAY_SOAK` is set (`make soak`). Only that: the waits of
/// the functions are the real ones.
const SHORTER: u64 = 10;

/// So many seconds, or a tenth of them.
pub fn lasting_seconds(seconds: u64) -> u64 {
    let is_soak = std::env::var_os("SPILLWAY_SOAK").is_some();
    seconds / if is_soak { 1 } else { SHORTER }
}

/// Waits; for what must not happen meanwhile.
pub async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// What slurmctld says of a node.
pub async fn node(lab: &Lab, name: &str) -> NodeView {
    lab.head.node(name).await.expect("scontrol answers")
}

/// Waits until slurmctld holds the node powered down.
pub async fn powered_down(lab: &Lab, name: &str) {
    until(&format!("{name} is powered down"), 90, async || {
        node(lab, name).await.is("POWERED_DOWN").then_some(())
    })
    .await;
}

/// Submits a job for these nodes that prints where it ran and sleeps; it may be requeued.
pub async fn submit(lab: &Lab, nodes: &str, sleep_seconds: u64) -> String {
    submit_with(lab, nodes, sleep_seconds, "--requeue").await
}

/// [`submit`], with an option of the caller's.
pub async fn submit_with(lab: &Lab, nodes: &str, sleep_seconds: u64, option: &str) -> String {
    let count = nodes.split(',').count().to_string();
    let id = sbatch(lab, &["-N", &count, "-w", nodes, option], sleep_seconds).await;
    id.expect("sbatch takes the job")
}

/// Submits such a job with these options alone: its id, if slurmctld takes it.
pub async fn sbatch(lab: &Lab, options: &[&str], sleep_seconds: u64) -> anyhow::Result<String> {
    let script = format!("#!/bin/bash\nhostname\nsleep {sleep_seconds}\n");
    let output = format!("--output={}/%j.out", lab.shared_directory().display());
    let options = [options, &[&output]].concat();
    Ok(lab.head.sbatch(&options, &script).await?.to_string())
}

/// A field of `scontrol show job`.
pub async fn job(lab: &Lab, id: &str, field: &str) -> String {
    let text = lab
        .head
        .scontrol(&["-o", "show", "job", id])
        .await
        .expect("scontrol answers");
    let key = format!("{field}=");
    text.split_whitespace()
        .find_map(|word| word.strip_prefix(&key))
        .unwrap_or_default()
        .to_owned()
}

/// What administrators have written of a job; empty for nothing.
pub async fn admin_comment(lab: &Lab, id: &str) -> String {
    let format = ["--Format=admin_comment:1001", "--states=all", "--noheader"];
    let text = lab
        .head
        .run("squeue", &[&format[..], &["--jobs", id]].concat())
        .await
        .expect("squeue answers");
    text.trim().trim_start_matches("(null)").to_owned()
}

/// Waits until the job has this state.
pub async fn job_is(lab: &Lab, id: &str, state: &str, seconds: u64) {
    let what = format!("job {id} is {state}");
    until(&what, seconds, async || {
        (job(lab, id, "JobState").await == state).then_some(())
    })
    .await;
}

/// How many instances were ever launched.
pub fn launched_ever(lab: &Lab) -> usize {
    lab.ec2.with(|ec2, _| ec2.instances().count())
}

/// Ids of the instances that are pending or running.
pub fn alive(lab: &Lab) -> Vec<String> {
    lab.ec2.with(|ec2, _| {
        let alive = |state| matches!(state, InstanceState::Pending | InstanceState::Running);
        ec2.instances()
            .filter(|i| alive(i.state))
            .map(|i| i.instance_id.clone())
            .collect()
    })
}

/// Waits until no instance runs, and the caps know it.
pub async fn none_runs(lab: &Lab) {
    until("no instance runs", 60, async || {
        alive(lab).is_empty().then_some(())
    })
    .await;
    // The caps hear of it after EC2.
    until("the caps are free again", 30, async || {
        let key = json!({"pk": {"S": format!("USAGE#{}", lab.spec.cluster)}});
        let usage = item(lab, &key).await;
        (usage["nodes"]["N"].as_str() == Some("0")).then_some(())
    })
    .await;
}

/// Arms a fault on calls of a service by a principal.
pub fn arm(
    lab: &Lab,
    service: &str,
    operation: Option<&str>,
    principal: &str,
    times: Option<u64>,
    action: Action,
) -> String {
    let fault = Fault {
        id: None,
        service: service.to_owned(),
        operation: operation.map(str::to_owned),
        principal: Some(principal.to_owned()),
        body_contains: None,
        times,
        action,
    };
    lab.cloud
        .proxy
        .faults()
        .arm(fault)
        .expect("the fault is well formed")
}

/// An error of AWS's own making: the caller may try again.
pub fn internal_error() -> Action {
    Action::Refuse {
        status: 500,
        code: "InternalServerError".to_owned(),
        message: "by a story".to_owned(),
    }
}

/// A right is missing.
pub fn denied() -> Action {
    Action::Refuse {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "by a story".to_owned(),
    }
}

/// `text` with `to` in place of `from`, which must be there.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in the configuration");
    text.replace(from, to)
}

/// Waits until a fault has fired.
pub async fn fired(lab: &Lab, id: &str, times: u64) {
    let faults = lab.cloud.proxy.faults();
    until(&format!("fault {id} fires"), 60, async || {
        (faults.fired(id) >= times).then_some(())
    })
    .await;
}

/// Puts a message on one of the stack's queues, as anyone with the right to could.
pub async fn put(lab: &Lab, queue_output: &str, body: &str) {
    let url = lab.output(queue_output).expect("the stack has the queue");
    lab.cloud
        .emulator
        .root()
        .send_message(url, body)
        .await
        .expect("the queue takes the message");
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("and before the year 500 million")
}

/// Takes the next message from a queue: its body.
pub async fn take(lab: &Lab, queue_output: &str) -> String {
    let message = take_message(lab, queue_output).await;
    message["Body"].as_str().expect("a body").to_owned()
}

/// Takes the next message from a queue, with its attributes.
pub async fn take_message(lab: &Lab, queue_output: &str) -> Value {
    let url = lab
        .output(queue_output)
        .expect("the stack has the queue")
        .to_owned();
    let root = lab.cloud.emulator.root();
    until("a message is on the queue", 60, async || {
        let ask = json!({
            "QueueUrl": url, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"],
        });
        let mut answer = root
            .json("sqs", "AmazonSQS.ReceiveMessage", &ask)
            .await
            .expect("SQS answers");
        let message = answer["Messages"].get_mut(0)?.take();
        let delete = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
        root.json("sqs", "AmazonSQS.DeleteMessage", &delete)
            .await
            .expect("SQS answers");
        Some(message)
    })
    .await
}

/// Has a queue put aside what failed once.
pub async fn put_aside_after_one_failure(lab: &Lab, queue_output: &str, dead_letter_output: &str) {
    let root = lab.cloud.emulator.root();
    let url = |output: &str| {
        lab.output(output)
            .expect("the stack has the queue")
            .to_owned()
    };
    let dead_letter = root
        .queue_attributes(&url(dead_letter_output))
        .await
        .expect("SQS answers");
    let policy = json!({"deadLetterTargetArn": dead_letter["QueueArn"], "maxReceiveCount": 1});
    let attributes = json!({"RedrivePolicy": policy.to_string()});
    let body = json!({"QueueUrl": url(queue_output), "Attributes": attributes});
    root.json("sqs", "AmazonSQS.SetQueueAttributes", &body)
        .await
        .expect("SQS answers");
}

/// The private key that signs, as the account's owner could read it.
pub async fn signing_key(lab: &Lab) -> SigningKey {
    let root = lab.cloud.emulator.root();
    let read = async |last: &str| {
        let name = format!("/spillway/lab/signing-key/{last}");
        let ask = json!({"Name": name, "WithDecryption": true});
        let answer = root.json("ssm", "AmazonSSM.GetParameter", &ask).await;
        let answer = answer.expect("SSM answers");
        let value = answer["Parameter"]["Value"].as_str();
        value.expect("a value").to_owned()
    };
    let id = read("active").await;
    SigningKey::from_secret_text(&read(&id).await).expect("a key")
}

/// The node group's pools of a capacity kind, in every zone of the network.
pub fn pools(lab: &Lab, kind: CapacityKind) -> Vec<Pool> {
    let zones = lab
        .network
        .subnets()
        .into_iter()
        .map(|s| s.availability_zone);
    zones
        .flat_map(|zone| {
            lab.spec
                .instance_types
                .iter()
                .map(move |instance_type| Pool {
                    kind,
                    instance_type: instance_type.clone(),
                    availability_zone: zone.clone(),
                })
        })
        .collect()
}

/// Sets how many instances more each of the node group's pools of a capacity kind has.
pub fn set_free_capacity(lab: &Lab, kind: CapacityKind, free: Option<u32>) {
    let pools = pools(lab, kind);
    lab.ec2.with(|ec2, _| {
        for pool in pools {
            ec2.set_free_capacity(pool, free);
        }
    });
}

/// How often an operation was called that succeeded.
pub fn calls(lab: &Lab, operation: &str) -> usize {
    let calls = lab.cloud.proxy.journal().calls().expect("the journal");
    calls
        .iter()
        .filter(|call| call.operation == operation && call.status == 200)
        .count()
}

/// `capacity_rest_seconds` where a story waits for the end of a rest: the shortest that a policy may set.
const REST_SECONDS: u32 = 10;

pub async fn push_short_rest(lab: &Lab) {
    let path = lab.head.directory().join("etc/spillway.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let limits = format!("[limits]\ncapacity_rest_seconds = {REST_SECONDS}\n");
    let changed = text.replace("[limits]\n", &limits);
    assert_ne!(changed, text, "the configuration has no limits");
    std::fs::write(&path, changed).expect("write the configuration");
    lab.push_policy(&path).await.expect("the policy is pushed");
}
