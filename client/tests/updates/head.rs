//! A head node: its files, the real program under its names, and a slurmctld that does nothing but note what it
//! is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use spillway_core::envelope::{
    ENVELOPE_LIFE_MS, Envelope, PublicKey, SigningKey, Update, UpdateAction, seal,
};
use spillway_core::name::{ClusterName, Generation};

use crate::aws::Aws;

/// `scontrol`: shows nodes that power up, or those of the file `nodes`, and notes each update as one line, and who it
/// is run by. It keeps one reservation, lets nodes go that are told to power down, takes jobs that are queued again off
/// their nodes, and refuses what the file `refused` says: words and a complaint on each line.
const SCONTROL: &str = r#"#!/bin/sh
here=${0%/*}/..
look_up() {
    if [ "$1" = reservation ]; then
        cat $here/reservation 2>/dev/null || echo No reservations in the system
    elif ! cat $here/nodes 2>/dev/null; then
        for n in 0 1 2 3 4 5 6 7 8 9; do
            echo "NodeName=cloud$n NodeAddr=cloud$n State=ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP ThreadsPerCore=1"
        done
    fi
}
refuse() {
    [ -f $here/refused ] || return 0
    while IFS='|' read -r words complaint; do
        case "$*" in *"$words"*) echo "$complaint" >&2; exit 1;; esac
    done <$here/refused
}
power_down() {
    for node in $(echo $1 | tr , ' '); do
        sed -i "s/^\(NodeName=$node .*State=\)DOWN[^ ]*/\1DOWN+CLOUD+POWERING_DOWN/; t
            s/^\(NodeName=$node .*State=\)[^ ]*/\1IDLE+CLOUD+POWER_DOWN/" $here/nodes
    done
}
idle() {
    for node in $(echo $1 | tr , ' '); do
        sed -i "s/^\(NodeName=$node .*State=\)DOWN/\1IDLE/" $here/nodes
    done
}
requeue() {
    for job in $(echo $1 | tr , ' '); do
        sed -i "/^[^ ]* $job\(+[0-9]*\)\? /d" $here/running
    done
}
reserve() {
    for word; do
        case "$word" in
        ReservationName=*) name=$word;;
        Nodes=*) nodes=$word;;
        EndTime=now+*) left=${word#EndTime=now+};;
        esac
    done
    end=$(($(date +%s) + ${left%seconds}))
    echo "$name StartTime=1 EndTime=$end Duration=1 $nodes NodeCnt=1 State=ACTIVE" >$here/reservation
}
case "$1" in
--version) echo slurm 22.05.8;;
show) look_up $2;;
create|update)
    [ $1 = create ] || shift
    # Slow, so that two at once would meet.
    sleep 0.2
    refuse "$*"
    case "$*" in
    *ReservationName=*) reserve "$@";;
    *State=IDLE*) idle ${1#NodeName=};;
    *POWER_DOWN_FORCE*) [ ! -f $here/nodes ] || power_down ${1#NodeName=};;
    esac
    echo "$*" >>$here/told/lines
    { id -u; id -g; id -G; grep Cap /proc/self/status; } >$here/told/who;;
requeue)
    refuse "$*"
    requeue $2
    echo "$*" >>$here/told/lines;;
esac
"#;

/// `scancel` notes what it is told.
const SCANCEL: &str = r#"#!/bin/sh
here=${0%/*}/..
echo "scancel $*" >>$here/told/lines
"#;

/// `squeue`: what the file `jobs` holds; without it no job is known. Of the jobs on nodes, the lines of the file
/// `running` that begin with one of them.
const SQUEUE: &str = r#"#!/bin/sh
here=${0%/*}/..
for word; do
    case "$word" in
    --nodelist=*)
        for node in $($here/spillway hostlist expand ${word#*=}); do
            sed -n "s/^$node //p" $here/running
        done | sort -u
        exit;;
    esac
done
case "$*" in
*--jobs=*) echo "$*" >>$here/told/squeue
    cat $here/jobs 2>/dev/null && exit
    echo slurm_load_jobs error: Invalid job id specified >&2
    exit 1;;
esac
"#;

pub struct HeadNode {
    directory: tempfile::TempDir,
    pub aws: Aws,
    pub cluster: ClusterName,
}

/// The key of a number.
pub fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

pub fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since_1970.as_millis().try_into().unwrap()
}

/// A fresh envelope with one update that tells an address.
pub fn address(id: &str, node: &str, generation: Generation, number: u64, last: u8) -> Envelope {
    Envelope {
        envelope_id: id.to_owned(),
        issued_ms: now_ms(),
        expires_ms: now_ms() + ENVELOPE_LIFE_MS,
        updates: vec![Update {
            nodes: node.to_owned(),
            generation,
            number,
            request_id: None,
            note: None,
            action: UpdateAction::Address {
                addresses: vec![[10, 0, 0, last].into()],
            },
        }],
    }
}

impl HeadNode {
    /// That trusts these keys. The test's own user is SlurmUser.
    pub fn new(trusted: &[PublicKey]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let aws = Aws::start();
        let head = Self {
            directory,
            aws,
            cluster: ClusterName::new("try").unwrap(),
        };
        fs::set_permissions(head.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let own = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap();
        head.write(
            "slurm.conf",
            &format!("ClusterName=try\nSlurmUser={}\n", own.name),
        );
        head.write(
            "credentials",
            "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n",
        );
        head.configure(trusted, "both");
        for directory in ["bin", "told", "spool"] {
            fs::create_dir(head.path(directory)).unwrap();
        }
        for (name, text) in [
            ("scontrol", SCONTROL),
            ("scancel", SCANCEL),
            ("squeue", SQUEUE),
        ] {
            let path = head.path("bin").join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["spillway-resume", "spillway-suspend", "spillway"] {
            symlink(env!("CARGO_BIN_EXE_spillway"), head.path(name)).unwrap();
        }
        head
    }

    /// Writes spillway.toml, as an editor does: beside, and renamed.
    pub fn configure(&self, trusted: &[PublicKey], roads: &str) {
        let path = self.path("");
        let (path, port) = (path.display(), self.aws.port);
        let url = format!("http://127.0.0.1:{port}");
        let trusted: Vec<String> = trusted.iter().map(ToString::to_string).collect();
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
credentials_file = "{path}credentials"
endpoint_url = "{url}"
[client]
spool_directory = "{path}spool"
socket = "{path}spool/agent.sock"
jobs_file = "{path}spool/jobs"
[callback]
trusted_keys = {trusted:?}
roads = "{roads}"
[slurm]
bin_directory = "{path}bin"
resume_timeout_seconds = 600
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
        self.write("spillway.toml.new", &site);
        fs::rename(self.path("spillway.toml.new"), self.path("spillway.toml")).unwrap();
    }

    /// A path in the head node's directory; that itself, with a slash at its end, for "".
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SLURM_CONF", self.path("slurm.conf"));
        command
    }

    /// Slurm resumes a node; the request's stamp.
    pub fn resume(&self, node: &str) -> Generation {
        self.call("spillway-resume", node)
    }

    /// Slurm suspends a node; the request's stamp.
    pub fn suspend(&self, node: &str) -> Generation {
        self.call("spillway-suspend", node)
    }

    fn call(&self, program: &str, node: &str) -> Generation {
        let output = Command::new(self.path(program))
            .arg(node)
            .env_clear()
            .env("SLURM_CONF", self.path("slurm.conf"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let stamp = fs::read_to_string(self.path("spool/stamp")).unwrap();
        Generation::new(stamp.trim().parse().unwrap()).unwrap()
    }

    pub fn seal(&self, envelope: &Envelope, number: u8) -> String {
        seal(&self.cluster, envelope, &key(number)).unwrap()
    }

    /// As SSM's agent runs it.
    pub fn apply(&self, sealed: &str) -> Command {
        let mut command = self.program();
        command
            .arg("apply")
            .env("SSM_Envelope", sealed)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// As a person runs it.
    pub fn apply_by_hand(&self, sealed: &str) -> Output {
        let mut child = self
            .program()
            .args(["apply", "--stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(sealed.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    /// Starts the agent and waits until it answers.
    pub fn agent(&self) -> Agent {
        let log = fs::File::create(self.path("agent.log")).unwrap();
        let child = self.program().arg("agent").stderr(log).spawn().unwrap();
        let agent = Agent(child);
        let socket = self.path("spool/agent.sock");
        wait_for("the agent's socket", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        agent
    }

    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap()
    }

    /// Applies an envelope; the outcome of its first update, and what was printed on standard error.
    pub fn applied(&self, envelope: &Envelope) -> (Value, String) {
        let output = self.apply(&self.seal(envelope, 1)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let printed = stdout_json(&output);
        assert_eq!(printed["acknowledged"], true);
        let outcome = printed["results"][0]["outcome"]["outcome"].clone();
        (outcome, stderr(&output))
    }

    /// What slurmctld was told, in order.
    pub fn told(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("told/lines")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// Killed when the test ends.
pub struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "waited for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn stdout_json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Gives a directory and all in it to a user.
pub fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
    if path.is_dir() {
        for file in fs::read_dir(path).unwrap() {
            give(&file.unwrap().path(), uid, gid);
        }
    }
}
