//! Measures the programs that slurmctld runs, as it runs them: how long a call takes and how much memory.
//!
//! ```text
//! cargo build --release -p spillway-client --bin spillway --example measure_programs
//! target/release/examples/measure_programs target/release/spillway [--json] [--runs 50] [--endpoint URL --ca FILE]
//! ```
//!
//! Each row is a process of its own, so that its memory is that of its own calls. `--endpoint` adds rows
//! with an agent that sends there (through a proxy that delays, for instance).

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

/// Calls of which the median is taken.
const DEFAULT_RUNS: usize = 50;
/// A call that waits for its whole two seconds is repeated less often.
const SLOW_RUNS: usize = 5;

/// How the nodes are asked for.
const SHAPES: [(&str, usize, bool); 4] = [
    ("1 node", 1, false),
    ("1,000 nodes, one job", 1_000, false),
    ("10,000 nodes, one job", 10_000, false),
    ("10,000 nodes, 10,000 jobs", 10_000, true),
];

/// One row of the table.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    mode: String,
    shape: String,
    runs: usize,
    median_ms: f64,
    max_ms: f64,
    max_rss_mb: f64,
}

#[derive(Debug, Clone)]
struct Options {
    binary: PathBuf,
    json: bool,
    runs: usize,
    endpoint: Option<String>,
    ca: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut options = Options {
        binary: PathBuf::new(),
        json: false,
        runs: DEFAULT_RUNS,
        endpoint: None,
        ca: None,
    };
    let mut row = None;
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .with_context(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--json" => options.json = true,
            "--runs" => options.runs = value()?.parse()?,
            "--endpoint" => options.endpoint = Some(value()?),
            "--ca" => options.ca = Some(value()?.into()),
            "--row" => row = Some((value()?, value()?)),
            _ => options.binary = argument.into(),
        }
    }
    options.binary = options
        .binary
        .canonicalize()
        .context("first argument: the spillway binary")?;
    match row {
        Some((mode, shape)) => {
            println!(
                "{}",
                serde_json::to_string(&measure(&options, &mode, &shape)?)?
            );
            Ok(())
        }
        None => table(&options),
    }
}

fn table(options: &Options) -> Result<()> {
    let before = load()?;
    let mut modes = vec!["agent, SQS refuses", "agent, SQS swallows"];
    if options.endpoint.is_some() {
        modes.push("agent, SQS answers");
    }
    let mut rows = Vec::new();
    for mode in modes {
        for (shape, _, _) in SHAPES {
            rows.push(row_in_own_process(options, mode, shape)?);
        }
    }
    rows.push(row_in_own_process(
        options,
        "no agent, SQS swallows",
        SHAPES[0].0,
    )?);
    rows.push(row_in_own_process(
        options,
        "no agent, SQS swallows",
        SHAPES[3].0,
    )?);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("Load average before and after: {before}, {}\n", load()?);
    println!(
        "| mode | request | runs | median ms | max ms | max RSS MB |\n|---|---|---|---|---|---|"
    );
    for row in rows {
        let Row {
            mode,
            shape,
            runs,
            median_ms,
            max_ms,
            max_rss_mb,
        } = row;
        println!("| {mode} | {shape} | {runs} | {median_ms:.1} | {max_ms:.1} | {max_rss_mb:.1} |");
    }
    Ok(())
}

/// How many processes wanted to run in the last minute: on a busy machine every figure grows.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let (last_minute, _) = text.split_once(' ').context("/proc/loadavg")?;
    Ok(last_minute.to_owned())
}

fn row_in_own_process(options: &Options, mode: &str, shape: &str) -> Result<Row> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(&options.binary)
        .args(["--row", mode, shape, "--runs", &options.runs.to_string()]);
    if let Some(endpoint) = &options.endpoint {
        command.args(["--endpoint", endpoint]);
    }
    if let Some(ca) = &options.ca {
        command.arg("--ca").arg(ca);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{mode}, {shape}: {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(options: &Options, mode: &str, shape: &str) -> Result<Row> {
    let (_, count, jobs_apart) = SHAPES
        .into_iter()
        .find(|(name, _, _)| *name == shape)
        .context("unknown shape")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = format!("http://{}", listener.local_addr()?);
    let endpoint = match mode {
        "agent, SQS answers" => options.endpoint.clone().context("--endpoint")?,
        _ => own,
    };
    // Listening and never accepting is what a swallowing address looks like from here.
    let _swallowing = mode.ends_with("swallows").then_some(listener);
    write_site(path, &endpoint, count, options.ca.as_deref())?;
    let resume_file = path.join("resume_file");
    fs::write(&resume_file, resume_text(count, jobs_apart))?;
    fs::write(
        path.join("jobs"),
        jobs_text(if jobs_apart { count } else { 1 }),
    )?;
    let program = path.join("spillway-resume");
    symlink(&options.binary, &program)?;
    let with_agent = mode.starts_with("agent");
    let agent = if with_agent {
        Some(Agent::start(&options.binary, path)?)
    } else {
        None
    };
    let runs = if with_agent { options.runs } else { SLOW_RUNS };
    let mut durations = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let status = Command::new(&program)
            .arg(format!("cloud-[1-{count}]"))
            .env_clear()
            .env("SLURM_CONF", path.join("slurm.conf"))
            .env("SLURM_RESUME_FILE", &resume_file)
            .status()?;
        durations.push(start.elapsed());
        if !status.success() {
            bail!("spillway-resume: {status}");
        }
    }
    // The agent is not waited for yet, so this is the largest of the calls.
    let max_rss_kb = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    drop(agent);
    durations.sort_unstable();
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Ok(Row {
        mode: mode.to_owned(),
        shape: shape.to_owned(),
        runs,
        median_ms: ms(durations[runs / 2]),
        max_ms: ms(durations[runs - 1]),
        #[expect(clippy::cast_precision_loss, reason = "kilobytes of a process")]
        max_rss_mb: max_rss_kb as f64 / 1024.0,
    })
}

/// A real agent, killed at the end.
struct Agent(Child);

impl Agent {
    fn start(binary: &Path, path: &Path) -> Result<Self> {
        let child = Command::new(binary)
            .arg("agent")
            .env_clear()
            .env("SLURM_CONF", path.join("slurm.conf"))
            .env("RUST_LOG", "error")
            .spawn()?;
        let agent = Self(child);
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(path.join("agent.sock")).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                bail!("the agent does not listen");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn resume_text(count: usize, jobs_apart: bool) -> String {
    let job = |id: usize, nodes: &str| {
        format!(
            r#"{{"exclusive":"NO","extra":null,"job_id":{id},"priority":1,"features":"c7i","nodes_alloc":"{nodes}","nodes_resume":"{nodes}","oversubscribe":"OK","partition":"cloud","reservation":null}}"#
        )
    };
    let all = format!("cloud-[1-{count}]");
    let jobs: Vec<String> = if jobs_apart {
        (1..=count)
            .map(|id| job(id, &format!("cloud-{id}")))
            .collect()
    } else {
        vec![job(1, &all)]
    };
    format!(
        r#"{{"jobs":[{}],"all_nodes_resume":"{all}"}}"#,
        jobs.join(",")
    )
}

fn jobs_text(count: usize) -> String {
    let line = |id| format!("{id}\tuser{}\taccount{}\tcloud\tc7i", id % 97, id % 13);
    (1..=count).map(line).collect::<Vec<String>>().join("\n")
}

fn write_site(path: &Path, endpoint: &str, count: usize, ca: Option<&Path>) -> Result<()> {
    let directory = path.display();
    let ca = ca.map_or_else(String::new, |ca| {
        format!("ca_bundle = \"{}\"", ca.display())
    });
    fs::write(path.join("slurm.conf"), "")?;
    fs::write(
        path.join("credentials"),
        "[default]\naws_access_key_id = test\naws_secret_access_key = test\n",
    )?;
    let site = format!(
        r#"
cluster = "measure"
region = "us-east-1"
[queues]
resume = "{endpoint}/000000000000/measure-resume"
suspend = "{endpoint}/000000000000/measure-suspend"
reports = "{endpoint}/000000000000/measure-reports"
updates = "{endpoint}/000000000000/measure-updates"
[aws]
table = "measure"
credentials_file = "{directory}/credentials"
endpoint_url = "{endpoint}"
{ca}
[client]
spool_directory = "{directory}/spool"
socket = "{directory}/agent.sock"
jobs_file = "{directory}/jobs"
[slurm]
bin_directory = "{directory}/no-slurm-here"
resume_timeout_seconds = 600
suspend_timeout_seconds = 60
[limits]
max_nodes = 10000
launches_per_hour = 10000
[[partition]]
name = "cloud"
node_groups = ["group"]
[[node_group]]
name = "group"
nodes = "cloud-[1-{count}]"
launch_template = {{ id = "lt-0a1b2c3d4e5f60718", version = 1 }}
instance_types = ["c7i.large"]
subnets = [{{ id = "subnet-0a1b2c3d4e5f60001", zone = "us-east-1a" }}]
capacity = ["on-demand"]
cpus = 1
memory_mb = 100
"#
    );
    Ok(fs::write(path.join("spillway.toml"), site)?)
}
