//! The demo's figures.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use spillway_core::tag;

use super::instances_left;
use super::jobs::JobRan;
use super::timeline::Moments;
use crate::lab::Lab;

/// The services that Spillway calls. The calls of the deployment go to others.
const SERVICES: [&str; 3] = ["sqs", "dynamodb", "ec2"];

/// What `summary.json` holds.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    jobs: Vec<JobRan>,
    nodes: Vec<String>,
    latencies_ms: Latencies,
    aws_calls: BTreeMap<String, usize>,
    pub instances_left: usize,
}

/// Medians over the demo's nodes (over its calls, for `resume_program`), in milliseconds.
#[derive(Debug, Serialize)]
struct Latencies {
    /// From slurmctld's start of ResumeProgram until the agent has its request, by both logs: what the program
    /// does last is to wake the agent.
    resume_program: Option<u64>,
    /// From the stamp of the request to EC2's launch.
    request_to_launch: Option<u64>,
    /// From EC2's launch until slurmctld has the node's address.
    launch_to_address: Option<u64>,
    /// From there until slurmctld has taken the node's registration.
    address_to_registered: Option<u64>,
    /// From Slurm's power-down until the instance is terminated.
    suspend_to_terminated: Option<u64>,
}

impl Latencies {
    fn named(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("ResumeProgram", self.resume_program),
            ("request to launch", self.request_to_launch),
            ("launch to address", self.launch_to_address),
            ("address to registered", self.address_to_registered),
            ("suspend to terminated", self.suspend_to_terminated),
        ]
    }
}

impl Summary {
    /// The latencies of which nothing was seen: a step that was not taken, or one that we failed to see.
    pub(super) fn unseen(&self) -> Vec<&'static str> {
        let named = self.latencies_ms.named().into_iter();
        named
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect()
    }
}

pub(super) fn summary(lab: &Lab, jobs: Vec<JobRan>, moments: Moments) -> anyhow::Result<Summary> {
    let mut aws_calls = BTreeMap::new();
    let calls = lab.cloud.proxy.journal().calls()?.into_iter();
    for call in calls.filter(|call| SERVICES.contains(&call.service.as_str())) {
        *aws_calls.entry(call.operation).or_default() += 1;
    }
    let instances: Vec<(String, Option<u64>, u64)> = lab.ec2.with(|ec2, _| {
        let stamp =
            |i: &spillway_world::ec2::Instance| i.tags.get(tag::GENERATION)?.parse::<u64>().ok();
        ec2.instances()
            .map(|i| (i.instance_id.clone(), stamp(i), i.launched_at_ms))
            .collect()
    });
    let mut nodes: Vec<String> = jobs.iter().flat_map(|job| job.nodes.clone()).collect();
    nodes.sort();
    nodes.dedup();
    let launched: BTreeMap<&str, u64> = instances
        .iter()
        .map(|(id, _, at_ms)| (id.as_str(), *at_ms))
        .collect();
    let resume_program_ms = moments.resume_programs.durations_ms();
    let Moments {
        nodes: node_moments,
        terminated_ms,
        instance_of,
        ..
    } = moments;
    let of_node = |node: &str| launched.get(instance_of.get(node)?.as_str()).copied();
    let between = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?);
    let latencies_ms = Latencies {
        resume_program: median(resume_program_ms),
        request_to_launch: median(
            instances
                .iter()
                .filter_map(|(_, stamp_us, at_ms)| at_ms.checked_sub((*stamp_us)? / 1000)),
        ),
        launch_to_address: median(
            node_moments
                .iter()
                .filter_map(|(node, m)| between(of_node(node), m.addressed_ms)),
        ),
        address_to_registered: median(
            node_moments
                .values()
                .filter_map(|m| between(m.addressed_ms, m.registered_ms)),
        ),
        suspend_to_terminated: median(node_moments.iter().filter_map(|(node, m)| {
            between(
                m.powering_down_ms,
                terminated_ms.get(instance_of.get(node)?).copied(),
            )
        })),
    };
    Ok(Summary {
        jobs,
        nodes,
        latencies_ms,
        aws_calls,
        instances_left: instances_left(lab),
    })
}

fn median(values: impl IntoIterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:<12}{:<6}nodes", "job", "state", "exit")?;
        for job in &self.jobs {
            writeln!(
                f,
                "{:<10}{:<12}{:<6}{}",
                job.id,
                job.state,
                job.exit_code,
                job.nodes.join(",")
            )?;
        }
        writeln!(f)?;
        for (name, value) in self.latencies_ms.named() {
            let value = value.map_or("?".to_owned(), |ms| format!("{ms} ms"));
            writeln!(f, "{name:<24}{value:>10}")?;
        }
        write!(f, "\nAWS calls: ")?;
        let calls: Vec<String> = self
            .aws_calls
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        write!(
            f,
            "{}\ninstances left: {}",
            calls.join(", "),
            self.instances_left
        )
    }
}
