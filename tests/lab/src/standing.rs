//! A lab that is left running for a person: `make up` and `make down`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal as listen};

use crate::install;
use crate::lab::{Lab, LabSpec};

/// How long a lab may take to start: minutes go into a first installation.
const START_SECONDS: u64 = 900;

/// How long a lab may take to stop.
const STOP_SECONDS: u64 = 60;

fn env_file(state: &Path) -> PathBuf {
    state.join("env")
}

fn pid_file(state: &Path) -> PathBuf {
    state.join("pid")
}

fn log_file(state: &Path) -> PathBuf {
    state.join("lab.log")
}

/// The lab's process, if one runs.
fn running(state: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(pid_file(state))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    // A process id may have gone to a stranger after a reboot.
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    let own = format!("\0serve\0{}\0", state.display());
    command.ends_with(&own).then(|| Pid::from_raw(pid))
}

/// Starts a lab in the background and waits until it is up. One that is up already is left alone.
pub fn up(state: &Path) -> anyhow::Result<()> {
    if running(state).is_some() && env_file(state).exists() {
        println!("a lab is up already; source {}", env_file(state).display());
        return Ok(());
    }
    if state.exists() {
        fs::remove_dir_all(state).with_context(|| format!("clear {}", state.display()))?;
    }
    fs::create_dir_all(state).with_context(|| format!("make {}", state.display()))?;
    let log = fs::File::create(log_file(state))?;
    let mut child = Command::new("setsid")
        .arg(std::env::current_exe()?)
        .arg("serve")
        .arg(state)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the lab")?;
    let log = BufReader::new(fs::File::open(log_file(state))?);
    let mut lines = log.lines();
    let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
    while !env_file(state).exists() {
        while let Some(Ok(line)) = lines.next() {
            println!("{line}");
        }
        if let Some(status) = child.try_wait()? {
            bail!(
                "the lab ended with {status}; see {}",
                log_file(state).display()
            );
        }
        if Instant::now() > deadline {
            bail!(
                "the lab is not up after {START_SECONDS} s; see {}",
                log_file(state).display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("the lab is up; now: source {}", env_file(state).display());
    Ok(())
}

/// Stops the lab and waits until it is gone. None running is success.
pub fn down(state: &Path) -> anyhow::Result<()> {
    let Some(pid) = running(state) else {
        println!("no lab is up");
        return Ok(());
    };
    signal::kill(pid, Signal::SIGTERM).context("stop the lab")?;
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
    while running(state).is_some() {
        if Instant::now() > deadline {
            signal::kill(pid, Signal::SIGKILL).context("kill the lab")?;
            bail!(
                "the lab did not stop within {STOP_SECONDS} s and was killed; see {}",
                log_file(state).display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // What a shell would still source is no longer true.
    let _ = fs::remove_file(env_file(state));
    println!("the lab is down");
    Ok(())
}

/// The lab's process: runs until SIGTERM or SIGINT.
pub async fn serve(state: &Path) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    fs::write(pid_file(state), std::process::id().to_string())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut spec = LabSpec::new(state)?;
    // A person looks around: nodes stay a while.
    spec.suspend_time_seconds = 120;
    let lab = tokio::select! {
        lab = Lab::start(spec, |line| println!("{line}")) => lab?,
        _ = terminate.recv() => bail!("stopped while starting"),
        _ = interrupt.recv() => bail!("stopped while starting"),
    };
    let tools = state.join("bin");
    install::write_aws_command(&lab.venv, &tools)?;
    fs::write(state.join("env.new"), environment(&lab, &tools)?)?;
    fs::rename(state.join("env.new"), env_file(state))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    lab.stop().await;
    Ok(())
}

/// What `source target/lab/env` sets; `tools` is a directory for its PATH.
fn environment(lab: &Lab, tools: &Path) -> anyhow::Result<String> {
    let client = lab.head.client();
    let client_directory = client.parent().context("the client has no directory")?;
    let mut text = String::from("# Made by `make up`; source it.\n");
    let own = [
        (
            "LAB_HEAD_CREDENTIALS",
            lab.head_credentials().display().to_string(),
        ),
        (
            "LAB_JOURNAL",
            lab.cloud.proxy.journal().path().display().to_string(),
        ),
        (
            "LAB_FAULTS",
            format!("{}/faults", lab.cloud.proxy.control_url()),
        ),
        ("SPILLWAY_BIN", client.display().to_string()),
    ];
    let common = lab.operator_environment();
    let variables = common
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()));
    for (key, value) in variables.filter(|(key, _)| *key != "PATH").chain(own) {
        writeln!(text, "export {key}='{value}'")?;
    }
    writeln!(
        text,
        "export PATH='{}':'{}':\"$PATH\"",
        client_directory.display(),
        tools.display()
    )?;
    Ok(text)
}
