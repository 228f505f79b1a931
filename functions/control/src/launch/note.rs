//! What jobs are told of their nodes, in their AdminComment.

use std::collections::BTreeMap;

use spillway_core::config::CapacityKind;
use spillway_core::envelope::{JobNote, MAX_NOTE_JOBS, MAX_REASON_CHARS};
use spillway_core::hostlist;
use spillway_core::message::ResumeRequest;
use spillway_core::name::{JobId, NodeName};
use spillway_core::plan::Chunk;

use crate::names::distinct;

/// Where EC2 says nothing.
pub(super) const NO_REASON: &str = "EC2 launched fewer instances than asked for and gave no reason";

/// On one line, of bounded length.
pub(super) fn bounded(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_REASON_CHARS).collect()
}

/// For the jobs of `nodes`: why these do not come.
pub(super) fn of_chunk(chunk: &Chunk, nodes: &[NodeName], reason: &str) -> Option<JobNote> {
    let jobs = chunk.jobs.iter().map(|job| (&job.job_id, &*job.nodes));
    note(jobs, nodes, reason)
}

/// The same, for nodes that are not even planned.
pub(super) fn of_request(
    request: &ResumeRequest,
    nodes: &[NodeName],
    reason: &str,
) -> Option<JobNote> {
    let jobs = request
        .jobs
        .iter()
        .map(|job| (&job.job_id, &*job.nodes_resume));
    note(jobs, nodes, reason)
}

/// For the jobs of nodes that were launched by another capacity kind than the first: by which each, and why.
pub(super) fn of_fallback(
    chunk: &Chunk,
    kinds: &BTreeMap<NodeName, CapacityKind>,
    why: &str,
) -> Option<JobNote> {
    let nodes: Vec<NodeName> = kinds.keys().cloned().collect();
    let text = format!("launched {}, for {why}", counts(kinds.values()));
    let jobs = chunk.jobs.iter().map(|job| (&job.job_id, &*job.nodes));
    note(jobs, &nodes, &text)
}

/// Such as `3 spot and 2 on-demand`.
fn counts<'a>(kinds: impl Iterator<Item = &'a CapacityKind>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind.as_str()).or_default() += 1;
    }
    let counts = counts.iter().map(|(kind, count)| format!("{count} {kind}"));
    counts.collect::<Vec<_>>().join(" and ")
}

fn note<'a>(
    jobs: impl Iterator<Item = (&'a JobId, &'a str)>,
    nodes: &[NodeName],
    text: &str,
) -> Option<JobNote> {
    let concerned = jobs.filter(|(_, of_job)| {
        distinct(of_job).is_ok_and(|of_job| nodes.iter().any(|node| of_job.contains(node)))
    });
    let jobs: Vec<JobId> = concerned
        .map(|(job_id, _)| job_id.clone())
        .take(MAX_NOTE_JOBS)
        .collect();
    if jobs.is_empty() {
        return None;
    }
    let text = text.trim_start_matches("spillway:").trim_start();
    Some(JobNote {
        jobs,
        text: bounded(&format!("spillway: {}: {text}", hostlist::fold(nodes))),
    })
}
