//! The real binary on a head node of its own: real files, sockets and signals. SQS is away in each of the
//! ways that a network has; with SQS and slurmctld the lab's tests go on.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A directory with slurm.conf, spillway.toml and the programs under their names.
struct HeadNode {
    directory: tempfile::TempDir,
}

impl HeadNode {
    /// `port`: where SQS is said to be; `resume_timeout_seconds`: Slurm's.
    fn new(port: u16, resume_timeout_seconds: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let url = format!("http://127.0.0.1:{port}");
        let site = format!(
            r#"
cluster = "try"
region = "us-east-1"
[queues]
resume = "{url}/000000000000/try-resume"
suspend = "{url}/000000000000/try-suspend"
reports = "{url}/000000000000/try-reports"
updates = "{url}/000000000000/try-updates"
[aws]
table = "try-table"
credentials_file = "{path}/credentials"
endpoint_url = "{url}"
[client]
spool_directory = "{path}/spool"
socket = "{path}/spool/agent.sock"
jobs_file = "{path}/spool/jobs"
[slurm]
bin_directory = "{path}/no-slurm-here"
resume_timeout_seconds = {resume_timeout_seconds}
suspend_timeout_seconds = 10
[limits]
max_nodes = 10
launches_per_hour = 100
[[partition]]
name = "cloud"
node_groups = ["group"]
[[node_group]]
name = "group"
nodes = "cloud[0-9]"
launch_template = {{ id = "lt-0a1b2c3d4e5f60718", version = 1 }}
instance_types = ["c7i.large"]
subnets = [{{ id = "subnet-0a1b2c3d4e5f60001", zone = "us-east-1a" }}]
capacity = ["on-demand"]
cpus = 1
memory_mb = 100
"#
        );
        let write =
            |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
        write("slurm.conf", "");
        write("spillway.toml", &site);
        write(
            "credentials",
            "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n",
        );
        for name in [
            "spillway-resume",
            "spillway-suspend",
            "spillway-resume-fail",
        ] {
            symlink(env!("CARGO_BIN_EXE_spillway"), directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// With the environment that slurmctld gives and no more.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    fn run(&self, program: &str, hostlist: &str) -> Output {
        self.command(&self.path(program))
            .arg(hostlist)
            .output()
            .unwrap()
    }

    fn resume(&self, hostlist: &str, resume_file: &Path) -> Output {
        self.command(&self.path("spillway-resume"))
            .arg(hostlist)
            .env("SLURM_RESUME_FILE", resume_file)
            .output()
            .unwrap()
    }

    /// Starts the agent and waits until it answers.
    fn agent(&self) -> Agent {
        let child = self
            .command(Path::new(env!("CARGO_BIN_EXE_spillway")))
            .arg("agent")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Agent(child);
        let socket = self.path("spool/agent.sock");
        wait_for("the agent's socket", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        agent
    }

    /// The requests in the spool, oldest first: the first line of each and the messages.
    fn requests(&self) -> Vec<(Value, Vec<Value>)> {
        let listing = fs::read_dir(self.path("spool/requests"));
        let files = listing
            .into_iter()
            .flatten()
            .map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> = files
            .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
            .collect();
        files.sort();
        let parse = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap();
            let mut lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            (lines.next().unwrap(), lines.collect())
        };
        files.iter().map(parse).collect()
    }
}

/// Killed when the test ends.
struct Agent(Child);

impl Agent {
    fn terminate(mut self) -> bool {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        self.0.wait().unwrap().success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nothing listens on.
fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn bad_input_is_said_where_a_person_looks() {
    let head = HeadNode::new(refusing_port(), 60);
    for program in [
        "spillway-resume",
        "spillway-suspend",
        "spillway-resume-fail",
    ] {
        let output = head.run(program, "cloud[1-2");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("hostlist"), "{}", stderr(&output));
        let log = fs::read_to_string(head.path("spool/programs.log")).unwrap();
        let line = log.lines().last().unwrap();
        assert!(
            line.contains(program) && line.contains("cloud[1-2"),
            "{line}"
        );
    }
    assert!(head.requests().is_empty());
    fs::remove_file(head.path("spillway.toml")).unwrap();
    let output = head.run("spillway-suspend", "cloud1");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("spillway.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_unusable_resume_file_costs_the_jobs_and_not_the_nodes() {
    let head = HeadNode::new(refusing_port(), 60);
    let broken = head.path("broken");
    fs::write(&broken, "{\"jobs\":").unwrap();
    for file in [head.path("missing"), broken] {
        let output = head.resume("cloud[1-3]", &file);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr(&output).contains("without their jobs"),
            "{}",
            stderr(&output)
        );
        let (header, messages) = head.requests().pop().unwrap();
        assert_eq!(header["nodes"], "cloud[1-3]");
        assert_eq!(messages[0]["body"]["nodes"], "cloud[1-3]");
    }
}

#[test]
fn a_resume_says_what_it_is_for() {
    let head = HeadNode::new(refusing_port(), 60);
    fs::create_dir(head.path("spool")).unwrap();
    fs::write(head.path("spool/jobs"), "7\tada\tphysics\tcloud\t(null)").unwrap();
    let file = head.path("resume");
    fs::write(
        &file,
        r#"{"jobs":[{"job_id":7,"nodes":"cloud[1-2]"}],"all_nodes":"cloud[1-2]"}"#,
    )
    .unwrap();
    let output = head.resume("cloud[1-2]", &file);
    assert!(output.status.success(), "{}", stderr(&output));
    let (header, messages) = head.requests().pop().unwrap();
    let body = &messages[0]["body"];
    assert_eq!(body["kind"], "resume");
    assert_eq!(body["jobs"][0]["job_id"], "7");
    assert_eq!(body["jobs"][0]["user"], "ada");
    assert_eq!(body["jobs"][0]["partition"], "cloud");
    let stamp_us = header["generation"].as_u64().unwrap();
    // 60 s less a margin of 10 s.
    assert_eq!(
        body["deadline_ms"].as_u64().unwrap(),
        stamp_us / 1000 + 50_000
    );
    let path = head.path(&format!("spool/requests/{stamp_us:016}.json"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn calls_at_once_get_stamps_of_their_own() {
    let head = HeadNode::new(refusing_port(), 60);
    let _agent = head.agent();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let head = &head;
            scope.spawn(move || {
                let node = format!("cloud{}", number % 10);
                assert!(head.run("spillway-suspend", &node).status.success());
            });
        }
    });
    let stamps: Vec<u64> = head
        .requests()
        .iter()
        .map(|(header, _)| header["generation"].as_u64().unwrap())
        .collect();
    assert_eq!(stamps.len(), 20);
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
}

#[test]
fn a_clock_set_back_does_not_matter() {
    let head = HeadNode::new(refusing_port(), 60);
    let _agent = head.agent();
    let now_us = || {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since_1970.as_micros()).unwrap()
    };
    let newest = || head.requests().pop().unwrap().0["generation"].as_u64();
    // By less than what the control plane lets pass: the stamps go on.
    let last = now_us() + 240_000_000;
    fs::write(head.path("spool/stamp"), format!("{last:016}\n")).unwrap();
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    assert_eq!(newest(), Some(last + 1));
    assert!(!head.path("spool/programs.log").exists());
    // By more: such stamps would be refused, for as long as the clock was ahead.
    fs::write(head.path("spool/stamp"), "9007199254740000\n").unwrap();
    let before = now_us();
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    let (header, _) = head.requests().remove(0);
    let stamp = header["generation"].as_u64().unwrap();
    assert!((before..=now_us()).contains(&stamp), "{stamp}");
    let log = fs::read_to_string(head.path("spool/programs.log")).unwrap();
    assert!(log.contains("ahead of the clock"), "{log}");
    // Said once.
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    assert_eq!(
        fs::read_to_string(head.path("spool/programs.log")).unwrap(),
        log
    );
}

#[test]
fn another_user_is_refused_and_leaves_nothing() {
    let head = HeadNode::new(refusing_port(), 60);
    let spool = head.path("spool");
    fs::create_dir(&spool).unwrap();
    // Only root may give a directory away, and only others find one of root's.
    if chown(&spool, Some(12_345), None).is_err() {
        fs::remove_dir(&spool).unwrap();
        symlink("/", &spool).unwrap();
    }
    let left = || fs::read_dir(&spool).unwrap().count();
    let before = left();
    let agent = head
        .command(Path::new(env!("CARGO_BIN_EXE_spillway")))
        .arg("agent")
        .output()
        .unwrap();
    let malformed = head.run("spillway-suspend", "cloud[1-2");
    assert_eq!(malformed.status.code(), Some(1));
    for output in [agent, head.run("spillway-suspend", "cloud1")] {
        assert_eq!(output.status.code(), Some(1));
        let words = stderr(&output);
        assert!(words.contains("run it as the owner"), "{words}");
    }
    assert_eq!(left(), before);
}

/// An SQS that will never take a resume, nor a message that speaks of cloud1; the port.
fn fastidious_queues() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |stream: TcpStream| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut sends, mut length) = (false, 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim().to_lowercase();
                sends |= line.ends_with("amazonsqs.sendmessage");
                if let Some(number) = line.strip_prefix("content-length:") {
                    length = number.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            let body = String::from_utf8(body).unwrap();
            let (status, text) = if !sends {
                ("503 Service Unavailable", "{}")
            } else if body.contains("try-resume") || body.contains("cloud1") {
                (
                    "400 Bad Request",
                    r#"{"__type":"com.amazonaws.sqs#InvalidMessageContents","message":"no"}"#,
                )
            } else {
                ("200 OK", r#"{"MessageId":"1","MD5OfMessageBody":"0"}"#)
            };
            let length = text.len();
            let head = "content-type: application/x-amz-json-1.0";
            let answer =
                format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {length}\r\n\r\n{text}");
            reader.get_mut().write_all(answer.as_bytes())?;
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap()));
        }
    });
    port
}

#[test]
fn what_sqs_will_never_take_holds_up_nothing() {
    let head = HeadNode::new(fastidious_queues(), 600);
    let _agent = head.agent();
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    assert!(head.run("spillway-suspend", "cloud2").status.success());
    assert!(head.run("spillway-resume", "cloud3").status.success());
    let files = |kind: &str| {
        let listing = fs::read_dir(head.path("spool/requests")).unwrap();
        let texts = listing
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == kind))
            .map(|path| fs::read_to_string(path).unwrap());
        texts.collect::<Vec<String>>()
    };
    wait_for("all to be seen to", || {
        files("json").is_empty() && files("refused").len() == 2
    });
    // The resume's undoing is sent, and waits for slurmctld, which is not here.
    let sent = files("sent");
    assert_eq!(sent.len(), 1, "{sent:?}");
    let header: Value = serde_json::from_str(sent[0].lines().next().unwrap()).unwrap();
    assert_eq!(header["nodes"], "cloud3");
    let reason = header["fail"].as_str().unwrap();
    assert!(reason.contains("InvalidMessageContents"), "{reason}");
}

#[test]
fn no_agent_and_a_network_that_swallows_costs_two_seconds() {
    let black_hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let head = HeadNode::new(black_hole.local_addr().unwrap().port(), 60);
    let start = Instant::now();
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    let elapsed = start.elapsed();
    assert!(
        elapsed > Duration::from_secs(1),
        "it did not try: {elapsed:?}"
    );
    assert!(elapsed < Duration::from_millis(2100), "{elapsed:?}");
    assert_eq!(head.requests().len(), 1);
}

#[test]
fn a_crash_after_the_request_is_durable_loses_nothing() {
    let head = HeadNode::new(refusing_port(), 60);
    let status = head
        .command(&head.path("spillway-suspend"))
        .arg("cloud1")
        .env("SPILLWAY_CRASH_AT", "after-fsync")
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), None, "it should have aborted");
    assert_eq!(head.requests().len(), 1);
}

#[test]
fn one_agent_per_spool_and_it_stops_when_told() {
    let head = HeadNode::new(refusing_port(), 60);
    let agent = head.agent();
    let second = head
        .command(Path::new(env!("CARGO_BIN_EXE_spillway")))
        .arg("agent")
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains("another agent"),
        "{}",
        stderr(&second)
    );
    assert!(head.run("spillway-suspend", "cloud1").status.success());
    assert!(agent.terminate());
    assert_eq!(head.requests().len(), 1);
}

#[test]
fn a_resume_that_cannot_be_sent_in_time_becomes_a_suspend_and_a_reason() {
    // The shortest ResumeTimeout that the configuration takes; the deadline is after 20 s.
    let head = HeadNode::new(refusing_port(), 30);
    let agent = head.agent();
    assert!(head.run("spillway-resume", "cloud[1-2]").status.success());
    // Overtaken for one node: that one is no longer ours to fail.
    assert!(head.run("spillway-suspend", "cloud2").status.success());
    let expired = || {
        head.requests()
            .into_iter()
            .find(|(header, _)| header.get("fail").is_some())
    };
    wait_for("the resume to expire", || expired().is_some());
    let (header, messages) = expired().unwrap();
    assert_eq!(header["nodes"], "cloud1");
    assert_eq!(messages[0]["body"]["cause"], "expired");
    let reason = header["fail"].as_str().unwrap();
    assert!(
        reason.contains("could not be sent in time") && reason.contains("refused"),
        "{reason}"
    );
    wait_for("the resume to leave the spool", || {
        head.requests()
            .iter()
            .all(|(header, _)| header["target"] == "suspend")
    });
    drop(agent);
    // Killed and started again: the same two suspends, nothing stamped anew.
    let before = head.requests();
    let _agent = head.agent();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(head.requests(), before);
}

/// An operator changes keys while jobs run: a slip in it costs no request.
#[test]
fn a_request_is_kept_whatever_is_in_callback() {
    let head = HeadNode::new(refusing_port(), 60);
    let site = fs::read_to_string(head.path("spillway.toml")).unwrap();
    for (count, slip) in [
        "trusted_keys = [\"ed25519:half\"]",
        "roads = 7",
        "keys = []",
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("{site}\n[callback]\n{slip}\n");
        fs::write(head.path("spillway.toml"), text).unwrap();
        let output = head.run("spillway-suspend", "cloud1");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(head.requests().len(), count + 1);
    }
}
