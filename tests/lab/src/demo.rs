//! `make demo`: jobs of a real slurmctld run on nodes that did not exist a minute before, and whoever looks on
//! is told who did what.

mod figures;
mod jobs;
mod logs;
mod secrets;
mod timeline;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;
use spillway_world::ec2::InstanceState;

use crate::lab::{Lab, LabSpec};
use figures::Summary;
use timeline::Timeline;

/// How long the nodes may take to be suspended, and their instances to be gone, after the last job.
const FAREWELL_SECONDS: u64 = 120;

/// Runs the demo with its state below `state`; what it found is in `summary.json` there.
pub async fn run(state: &Path) -> anyhow::Result<()> {
    if state.exists() {
        fs::remove_dir_all(state).with_context(|| format!("clear {}", state.display()))?;
    }
    let mut spec = LabSpec::new(&state.join("lab"))?;
    // Sites keep idle nodes for minutes; here somebody watches.
    spec.suspend_time_seconds = 8;
    spec.suspend_timeout_seconds = 5;
    let interval = "SlurmctldParameters=power_save_interval=2";
    spec.slurm_lines.push(interval.to_owned());
    println!(
        "A site with a Slurm cluster whose {} cloud nodes do not exist yet.",
        spec.nodes
    );
    let lab = Lab::start(spec, |line| println!("{line}")).await?;
    let timeline = Timeline::follow(&lab);
    let outcome = story(&lab, &timeline).await;
    let kept = lab.keep_logs(&state.join("logs"));
    timeline.end().await;
    lab.stop().await;
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            kept?;
            bail!("{error:#} (logs are in {})", state.join("logs").display());
        }
    };
    let path = state.join("summary.json");
    fs::write(&path, serde_json::to_string_pretty(&summary)?)
        .with_context(|| format!("write {}", path.display()))?;
    println!("\n{summary}\nFigures: {}", path.display());
    ensure!(
        summary.instances_left == 0,
        "{} instances are left",
        summary.instances_left
    );
    let unseen = summary.unseen();
    ensure!(unseen.is_empty(), "nothing seen of: {}", unseen.join(", "));
    println!("demo: ok");
    Ok(())
}

async fn story(lab: &Lab, timeline: &Timeline) -> anyhow::Result<Summary> {
    timeline.chapter("A user asks for two nodes: srun -N 2 hostname");
    let mut ran = jobs::srun_on_two_nodes(lab, timeline).await?;
    timeline.chapter(
        "A user submits an array of three: sbatch --array=0-2. The third task needs a new node, and waits:\n\
         slurmctld 22.05 looks only every 30 s whether the nodes of a batch job have booted.",
    );
    ran.extend(jobs::array_of_three(lab, timeline).await?);
    timeline.chapter("No job is left: Slurm suspends the idle nodes");
    all_gone(lab).await?;
    timeline.chapter("The sweep looks for what went wrong");
    swept(lab).await?;
    // The last events are on their way through the logs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    timeline.chapter("What all this has left is searched for secrets");
    let searched = secrets::search(lab).await?;
    println!(
        "none of {} secrets is in {} places with {} bytes",
        searched.secrets, searched.places, searched.bytes
    );
    figures::summary(lab, ran, timeline.moments())
}

/// Asks for a sweep, which else comes within a minute, and waits until it has said something.
async fn swept(lab: &Lab) -> anyhow::Result<()> {
    let url = lab
        .output("SweepQueueUrl")
        .context("the stack has a sweep queue")?;
    let cluster = &lab.spec.cluster;
    let message = json!({"version": 1, "cluster": cluster, "body": {"kind": "sweep"}});
    let root = lab.cloud.emulator.root();
    root.send_message(url, &message.to_string()).await?;
    let logs = json!({"logGroupName": format!("/aws/lambda/{cluster}-sweep")});
    let deadline = tokio::time::Instant::now() + Duration::from_secs(FAREWELL_SECONDS);
    while tokio::time::Instant::now() < deadline {
        let answer = root
            .json("logs", "Logs_20140328.FilterLogEvents", &logs)
            .await?;
        if answer["events"]
            .as_array()
            .is_some_and(|events| !events.is_empty())
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    bail!("the sweep said nothing for {FAREWELL_SECONDS} s")
}

/// Waits until Slurm holds every node powered down and EC2 has no instance left.
async fn all_gone(lab: &Lab) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(FAREWELL_SECONDS);
    loop {
        let left = instances_left(lab);
        let nodes = lab.head.scontrol(&["-o", "show", "node"]).await?;
        let up: Vec<&str> = nodes
            .lines()
            .filter(|line| !line.contains("POWERED_DOWN"))
            .collect();
        if left == 0 && up.is_empty() {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            bail!(
                "{left} instances and {} nodes are still there after {FAREWELL_SECONDS} s",
                up.len()
            );
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Instances that EC2 still has, in whatever state but terminated.
fn instances_left(lab: &Lab) -> usize {
    lab.ec2.with(|ec2, _| {
        ec2.instances()
            .filter(|i| i.state != InstanceState::Terminated)
            .count()
    })
}
