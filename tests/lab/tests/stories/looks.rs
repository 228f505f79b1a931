//! What a person sees: tags in the EC2 console, logs and metrics of the functions, the command line, and the lab
//! that `make up` leaves running.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spillway_core::tag;
use spillway_lab::deploy::FUNCTIONS;
use spillway_lab::lab::Lab;
use spillway_world::ec2::InstanceState;

use crate::support::{Story, job_is, log_lines, submit_with, until};

/// A job on new nodes: slurmctld 22.05 looks only every 30 s whether the nodes of a batch job have booted.
const JOB_SECONDS: u64 = 90;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_seen_in_tags_logs_and_metrics() {
    let lab = Story::begin("a_job_is_seen_in_tags_logs_and_metrics", |_| {}).await;
    let job = submit_with(&lab, "cloud-0,cloud-1", 0, "--account=physics").await;
    job_is(&lab, &job, "COMPLETED", JOB_SECONDS).await;
    let request_id = tags_tell_of(&lab, &job);
    for name in ["cloud-0", "cloud-1"] {
        lab.head
            .scontrol(&["update", &format!("nodename={name}"), "state=power_down"])
            .await
            .expect("power down");
    }
    until("the instances are gone", 60, async || {
        lab.ec2
            .with(|ec2, _| {
                ec2.instances()
                    .all(|i| i.state == InstanceState::Terminated)
            })
            .then_some(())
    })
    .await;
    logs_follow(&lab, &request_id).await;
    metrics_count(&lab).await;

    let (status, said) = spillway(&[
        "config",
        "check",
        &lab.head
            .directory()
            .join("etc/spillway.toml")
            .display()
            .to_string(),
    ]);
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("ok: cluster lab, 1 node groups, 8 nodes"),
        "{said}"
    );
    lab.end().await;
}

/// Each instance has exactly the tags of `core/src/tag.rs`; answers the request's id.
fn tags_tell_of(lab: &Lab, job: &str) -> String {
    let all: Vec<BTreeMap<String, String>> = lab.ec2.with(|ec2, _| {
        ec2.instances()
            .map(|i| i.tags.clone().into_iter().collect())
            .collect()
    });
    let mut names = BTreeSet::new();
    let mut requests = BTreeSet::new();
    for mut tags in all {
        names.insert(tags.remove(tag::NAME).expect("a name"));
        requests.insert(tags.remove(tag::REQUEST).expect("a request id"));
        let generation = tags.remove(tag::GENERATION).expect("a generation");
        assert!(generation.parse::<u64>().is_ok(), "{generation}");
        // EC2's own say which fleet and template it came from.
        tags.retain(|key, _| !key.starts_with("aws:"));
        let rest: BTreeMap<&str, &str> =
            tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let expected = BTreeMap::from([
            (tag::CLUSTER, "lab"),
            (tag::NODE_GROUP, "burst"),
            (tag::PARTITION, "cloud"),
            (tag::PART, "1"),
            (tag::CHUNK, "0"),
            (tag::ATTEMPT, "1"),
            (tag::JOB, job),
            (tag::USER, "root"),
            (tag::ACCOUNT, "physics"),
        ]);
        assert_eq!(rest, expected);
    }
    assert_eq!(
        names,
        BTreeSet::from(["cloud-0".to_owned(), "cloud-1".to_owned()])
    );
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.pop_first().unwrap_or_default()
}

/// One request id leads from Slurm's call through each function to scontrol.
async fn logs_follow(lab: &Lab, request_id: &str) {
    let mut head_node = fs::read_to_string(lab.agent.log_file()).expect("the agent's log");
    // Whichever road brings an update first: SSM keeps what `spillway apply` writes.
    for command in lab.ssm.invocations() {
        head_node.push_str(&command.error);
    }
    for step in [" resume requested ", " sent ", " address "] {
        assert!(
            head_node
                .lines()
                .any(|line| line.contains(step) && line.contains(request_id)),
            "no{step}line with {request_id} in {head_node}"
        );
    }
    for (function, step) in [("launch", "EC2 launched 2 of 2"), ("callback", "")] {
        until(
            &format!("{function} tells of {request_id}"),
            20,
            async || {
                let lines = log_lines(lab, function).await;
                lines
                    .iter()
                    .any(|line| {
                        line["request_id"] == request_id
                            && line["message"].as_str().is_some_and(|m| m.contains(step))
                    })
                    .then_some(())
            },
        )
        .await;
    }
    for function in FUNCTIONS {
        for line in log_lines(lab, function).await {
            let is_metric = line.get("_aws").is_some();
            let is_log = ["timestamp", "level", "message"]
                .iter()
                .all(|key| line[key].is_string());
            assert!(is_metric || is_log, "{function}: {line}");
        }
    }
}

/// One metric event an invocation at most, and the numbers are those of the job.
async fn metrics_count(lab: &Lab) {
    let expected = [
        ("NodesResumed", 2.0),
        ("InstancesLaunched", 2.0),
        ("UpdatesSent", 2.0),
        ("UpdatesAcknowledged", 2.0),
        ("NodesReady", 2.0),
        ("NodesSuspended", 2.0),
        ("InstancesTerminated", 2.0),
    ];
    let counted = until("the metrics are there", 30, async || {
        let mut sums: BTreeMap<String, f64> = BTreeMap::new();
        for function in FUNCTIONS {
            let mut invocations = BTreeSet::new();
            let lines = log_lines(lab, function).await;
            for event in lines.iter().filter(|line| line.get("_aws").is_some()) {
                assert_eq!(
                    (&event["Cluster"], &event["Function"]),
                    (&json!("lab"), &json!(function))
                );
                assert!(
                    invocations.insert(event["RequestId"].to_string()),
                    "twice: {event}"
                );
                for metric in metrics_of(event) {
                    *sums.entry(metric.clone()).or_default() +=
                        event[&metric].as_f64().expect("a number");
                }
            }
        }
        sums.contains_key("InstancesTerminated").then_some(sums)
    })
    .await;
    for (metric, count) in expected {
        assert_eq!(counted.get(metric), Some(&count), "{metric} in {counted:?}");
    }
    assert!(!counted.contains_key("RecordsFailed"), "{counted:?}");
}

/// The metrics that an event declares.
fn metrics_of(event: &Value) -> Vec<String> {
    let directives = event["_aws"]["CloudWatchMetrics"]
        .as_array()
        .into_iter()
        .flatten();
    directives
        .flat_map(|directive| directive["Metrics"].as_array().into_iter().flatten())
        .filter_map(|metric| metric["Name"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn the_command_line_answers_with_its_exit_status() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let broken = directory.path().join("broken.toml");
    fs::write(&broken, "cluster = \"lab\"\nregion = 7\n").expect("write");
    let broken = broken.display().to_string();
    let table: [(&[&str], i32, &str); 11] = [
        (
            &["--help"],
            0,
            "Bursts an on-premises Slurm cluster into Amazon EC2\n",
        ),
        (&["version"], 0, "spillway 0."),
        (&["version", "--json"], 0, "\"message_version\":1"),
        (
            &["hostlist", "expand", "n[09-11,3]"],
            0,
            "n09\nn10\nn11\nn3\n",
        ),
        (
            &["hostlist", "expand", "--json", "n[1-2]"],
            0,
            "[\"n1\",\"n2\"]",
        ),
        (&["hostlist", "fold", "n1", "n2", "m7"], 0, "n[1-2],m7\n"),
        (&["hostlist", "expand", "n[5-3]"], 1, "n[5-3]"),
        (&["config", "check", &broken], 1, "broken.toml:2:"),
        (&["config", "check", "--json", &broken], 1, "\"line\":2"),
        (
            &["node", "check"],
            1,
            "cannot tell whether slurmd may be started",
        ),
        (&["frobnicate"], 2, "unrecognized subcommand"),
    ];
    for (arguments, status, text) in table {
        let (code, said) = spillway(arguments);
        assert_eq!(code, status, "spillway {arguments:?}: {said}");
        assert!(said.contains(text), "spillway {arguments:?}: {said}");
    }
}

/// Runs the client with nothing in its environment: its exit status and what it said.
fn spillway(arguments: &[&str]) -> (i32, String) {
    let client = spillway_lab::lab::binaries()
        .expect("the binaries are built")
        .join("spillway");
    run(Command::new(client).args(arguments).env_clear())
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn a_lab_stays_up_for_a_person_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let standing = Standing(directory.path().join("lab"));
    let (status, said) = standing.lab("up");
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("now: source "), "{said}");
    let (status, said) = standing.lab("up");
    assert!(status == 0 && said.contains("is up already"), "{said}");

    let shell = |script: &str| standing.shell(script);
    let host = shell("srun -N1 hostname");
    assert!(host.starts_with("ip-10-"), "{host}");
    assert!(
        shell("sbatch --parsable --output=/dev/null --wrap hostname")
            .trim()
            .parse::<u32>()
            .is_ok()
    );
    assert!(shell("spillway version").starts_with("spillway 0."));
    assert!(
        shell("spillway config check \"$(dirname $SLURM_CONF)/spillway.toml\"").contains(": ok: ")
    );
    assert!(
        shell("aws sqs get-queue-url --queue-name lab-resume-dead-letter --output text")
            .contains("dead-letter")
    );
    assert!(shell("aws dynamodb get-item --table-name lab-state --key '{\"pk\":{\"S\":\"POLICY#lab\"}}' && echo done").contains("done"));
    assert_eq!(shell("curl -s $LAB_FAULTS").trim(), "[]");
    assert!(shell("tail -n 1 $LAB_JOURNAL").starts_with('{'));
    shell("test -r $LAB_HEAD_CREDENTIALS && test -x $SPILLWAY_BIN");

    let left = standing.everything();
    assert!(
        left.len() > 5,
        "slurmctld, munged, agent, emulator, bridge …: {left:?}"
    );
    let (status, said) = standing.lab("down");
    assert_eq!(status, 0, "{said}");
    let left: Vec<&Thing> = left.iter().filter(|thing| thing.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    let (status, said) = standing.lab("down");
    assert!(status == 0 && said.contains("no lab is up"), "{said}");
}

/// A lab as `make up` leaves it, with its state in a directory of the test's own.
struct Standing(PathBuf);

impl Drop for Standing {
    fn drop(&mut self) {
        self.lab("down");
    }
}

/// What a lab could leave behind.
#[derive(Debug)]
enum Thing {
    /// By pid, and the moment it started.
    Process(String, String),
    /// A network interface or namespace, by its file's inode: the name may be another lab's by now.
    File(PathBuf, u64),
}

impl Thing {
    fn exists(&self) -> bool {
        match self {
            Self::Process(pid, started) => started_at(pid).as_ref() == Some(started),
            Self::File(path, inode) => fs::metadata(path).is_ok_and(|m| m.ino() == *inode),
        }
    }
}

impl Standing {
    fn lab(&self, what: &str) -> (i32, String) {
        run(Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg(what)
            .arg(&self.0))
    }

    /// What a script prints in a shell that has sourced the lab's environment.
    fn shell(&self, script: &str) -> String {
        let script = format!("set -e; source {}/env; {script}", self.0.display());
        let (status, said) = run(Command::new("bash").args(["-c", &script]));
        assert_eq!(status, 0, "{script}: {said}");
        said
    }

    /// Every process, interface and namespace of this lab.
    fn everything(&self) -> Vec<Thing> {
        let slurm_conf = self.shell("echo $SLURM_CONF");
        let own = Path::new(slurm_conf.trim())
            .ancestors()
            .nth(3)
            .expect("the lab's directory")
            .to_owned();
        let number = own
            .to_string_lossy()
            .rsplit('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        let needles = [format!("{}/", own.display()), self.0.display().to_string()];
        let mut things = Vec::new();
        for pid in names("/proc")
            .into_iter()
            .filter(|name| name.parse::<u32>().is_ok())
        {
            let said: String = ["cmdline", "environ", "mountinfo"]
                .iter()
                .map(|file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default())
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .collect();
            if needles.iter().any(|needle| said.contains(needle.as_str()))
                && let Some(started) = started_at(&pid)
            {
                things.push(Thing::Process(pid, started));
            }
        }
        for (directory, prefix) in [
            ("/sys/class/net", format!("sw{number}v")),
            ("/sys/class/net", format!("swlab{number}")),
            ("/run/netns", format!("swlab{number}-")),
        ] {
            for name in names(directory)
                .into_iter()
                .filter(|name| name.starts_with(&prefix))
            {
                let path = Path::new(directory).join(name);
                if let Ok(metadata) = fs::metadata(&path) {
                    things.push(Thing::File(path, metadata.ino()));
                }
            }
        }
        things
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// The 22nd field of `/proc/PID/stat`: when the process started.
fn started_at(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    if after_name.starts_with('Z') {
        return None;
    }
    after_name.split(' ').nth(19).map(str::to_owned)
}

#[test]
fn the_demo_tells_and_sums_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let state = directory.path().join("demo");
    let (status, said) = run(Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("demo")
        .arg(&state));
    assert_eq!(status, 0, "{said}");
    assert_eq!(said.lines().last(), Some("demo: ok"), "{said}");
    for told in [
        "Slurm      calls ResumeProgram for cloud-[0-1]",
        "agent      resume requested: cloud-[0-1]",
        "launch     EC2 launched 2 of 2",
        "Slurm      cloud-0 has address 10.",
        "Slurm      job 1 finds its nodes booted and starts",
        "Slurm      calls SuspendProgram for ",
    ] {
        assert!(said.contains(told), "no {told:?} in {said}");
    }

    let summary = fs::read(state.join("summary.json")).expect("a summary");
    let mut summary: Value = serde_json::from_slice(&summary).expect("JSON");
    let keys = |value: &Value| -> Vec<String> {
        let object = value.as_object().expect("an object");
        object.keys().cloned().collect()
    };
    for (latency, value) in summary["latencies_ms"].as_object().expect("an object") {
        assert!(value.is_u64(), "{latency}: {value}");
    }
    let mut latencies = keys(&summary["latencies_ms"]);
    latencies.sort();
    assert_eq!(
        latencies,
        [
            "address_to_registered",
            "launch_to_address",
            "request_to_launch",
            "resume_program",
            "suspend_to_terminated",
        ]
    );
    for operation in keys(&summary["aws_calls"]) {
        let is_name = operation.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(is_name, "{operation}");
    }
    assert_eq!(summary["aws_calls"]["CreateFleet"], 2);
    assert_eq!(summary["aws_calls"]["CreateChangeSet"], Value::Null);
    for key in ["latencies_ms", "aws_calls"] {
        summary[key].take();
    }
    let job = |id: &str, nodes: &[&str]| json!({"id": id, "state": "COMPLETED", "nodes": nodes, "exit_code": 0});
    let expected = json!({
        "jobs": [
            job("1", &["cloud-0", "cloud-1"]),
            job("2_0", &["cloud-0"]),
            job("2_1", &["cloud-1"]),
            job("2_2", &["cloud-2"]),
        ],
        "nodes": ["cloud-0", "cloud-1", "cloud-2"],
        "latencies_ms": null,
        "aws_calls": null,
        "instances_left": 0,
    });
    assert_eq!(summary, expected);
}
