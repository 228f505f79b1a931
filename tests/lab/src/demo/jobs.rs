//! The demo's jobs, and the proof that they ran where they should have.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use spillway_core::tag;

use super::timeline::Timeline;
use crate::lab::Lab;

/// How long a job may take from its submission to its end.
const JOB_SECONDS: u64 = 150;

/// A job that ended.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JobRan {
    /// Such as `1`, or `2_0` for a task of an array.
    pub id: String,
    /// As Slurm names it.
    pub state: String,
    /// The nodes it ran on.
    pub nodes: Vec<String>,
    /// The exit code proper.
    pub exit_code: i32,
}

/// What each of a job's processes prints: job, node, and the host name of the machine it runs on.
const TELL: &str = "echo $SLURM_JOB_ID $SLURMD_NODENAME $(hostname)";

pub(super) async fn srun_on_two_nodes(
    lab: &Lab,
    timeline: &Timeline,
) -> anyhow::Result<Vec<JobRan>> {
    let run = lab.head.run("srun", &["-N", "2", "bash", "-c", TELL]);
    let text = tokio::time::timeout(Duration::from_secs(JOB_SECONDS), run)
        .await
        .with_context(|| format!("srun did not end within {JOB_SECONDS} s"))??;
    timeline.quote(&text);
    let lines = told(lab, &text).await?;
    ensure!(
        lines.len() == 2,
        "srun printed {} lines, not 2",
        lines.len()
    );
    let id = lines[0].0.clone();
    let mut nodes: Vec<String> = lines.into_iter().map(|(_, node)| node).collect();
    nodes.sort();
    Ok(vec![JobRan {
        id,
        state: "COMPLETED".to_owned(),
        nodes,
        exit_code: 0,
    }])
}

pub(super) async fn array_of_three(lab: &Lab, timeline: &Timeline) -> anyhow::Result<Vec<JobRan>> {
    let home = lab.shared_directory();
    let output = format!("--output={}/%A_%a.out", home.display());
    let script = format!("#!/bin/bash\n{TELL}\n");
    let id = lab
        .head
        .sbatch(&["--array=0-2", "--cpus-per-task=2", &output], &script)
        .await?;
    let mut ran = Vec::new();
    for task in 0..3 {
        let name = format!("{id}_{task}");
        let (state, exit_code) = ended(lab, &name).await?;
        ensure!(
            state == "COMPLETED",
            "job {name} ended {state} with exit code {exit_code}"
        );
        let path = home.join(format!("{name}.out"));
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read the output of {name}"))?;
        timeline.quote(&text);
        let nodes = told(lab, &text)
            .await?
            .into_iter()
            .map(|(_, node)| node)
            .collect();
        ran.push(JobRan {
            id: name,
            state,
            nodes,
            exit_code,
        });
    }
    Ok(ran)
}

/// Job and node of each line that [`TELL`] printed; the host name must be that of the very instance that
/// serves the node (EC2 has it under the node's name), and Slurm's address of the node that instance's.
async fn told(lab: &Lab, text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut told = Vec::new();
    for line in text.lines() {
        let [job, node, host] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            bail!("a job printed {line:?}, not a job, a node and a host name");
        };
        let address = lab.head.node(node).await?.node_addr;
        let named_after = format!("ip-{}", address.replace('.', "-"));
        ensure!(
            host == named_after,
            "{node} has address {address}, but its job ran on {host}"
        );
        let serves = lab.ec2.with(|ec2, _| {
            ec2.instances()
                .find(|i| i.private_ip.is_some_and(|ip| ip.to_string() == address))
                .map(|i| i.tags.get(tag::NAME).cloned().unwrap_or_default())
        });
        let serves =
            serves.with_context(|| format!("no instance has {node}'s address {address}"))?;
        ensure!(
            serves == node,
            "the instance with {node}'s address {address} is named {serves:?}"
        );
        told.push((job.to_owned(), node.to_owned()));
    }
    Ok(told)
}

/// Waits for a job's end; its state and exit code.
async fn ended(lab: &Lab, id: &str) -> anyhow::Result<(String, i32)> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(JOB_SECONDS);
    loop {
        let text = lab.head.scontrol(&["-o", "show", "job", id]).await?;
        let field = |key: &str| {
            text.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
        };
        let state = field("JobState=").context("scontrol shows no JobState")?;
        if !matches!(state, "PENDING" | "CONFIGURING" | "RUNNING" | "COMPLETING") {
            let exit = field("ExitCode=").and_then(|code| code.split(':').next()?.parse().ok());
            return Ok((
                state.to_owned(),
                exit.context("scontrol shows no ExitCode")?,
            ));
        }
        if tokio::time::Instant::now() > deadline {
            bail!("job {id} is still {state} after {JOB_SECONDS} s");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
