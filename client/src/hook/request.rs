//! From Slurm's call to the entry of the spool.

use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{
    Message, ResumeQueueBody, ResumeRequest, SuspendCause, SuspendQueueBody, SuspendRequest,
};
use spillway_core::name::{ClusterName, Generation, NodeName, RequestId};

use super::resume_file::Job;
use super::split::{self, Part};
use crate::nodes;
use crate::spool::{Entry, Subject, Target};

/// How long before Slurm's ResumeTimeout a node must have joined: our word that it will not must reach
/// slurmctld first, and so must survive one failed attempt to send it (5 s) and one slow slurmctld.
const MARGIN_MS: u64 = 10_000;
/// With a long ResumeTimeout the margin grows with it: a tenth.
const MARGIN_DIVISOR: u64 = 10;

/// When a node must have joined, Unix milliseconds. At least half of Slurm's time is left to join in.
fn deadline_ms(generation: Generation, resume_timeout_ms: u64) -> u64 {
    let margin_ms = MARGIN_MS
        .max(resume_timeout_ms / MARGIN_DIVISOR)
        .min(resume_timeout_ms / 2);
    generation.at_ms() + resume_timeout_ms - margin_ms
}

/// The entry of a ResumeProgram call.
pub fn resume(
    cluster: &ClusterName,
    request_id: RequestId,
    generation: Generation,
    resume_timeout_ms: u64,
    nodes: Hostlist,
    names: &[NodeName],
    jobs: &[Job],
) -> Entry {
    let deadline_ms = deadline_ms(generation, resume_timeout_ms);
    let job_count = jobs.len();
    let message = |part: u32, parts: u32, content: Part| {
        let body = ResumeQueueBody::Resume(ResumeRequest {
            request_id: request_id.clone(),
            generation,
            part,
            parts,
            deadline_ms,
            nodes: content.nodes,
            jobs: Vec::new(),
        });
        with_jobs(
            &Message::new(cluster.clone(), body).to_json(),
            &content.jobs,
        )
    };
    let parts = number(split::split(names, jobs), message);
    let subject = Subject {
        target: Target::Resume,
        request_id,
        generation,
        deadline_ms: Some(deadline_ms),
        nodes,
        jobs: job_count,
        fail: None,
    };
    Entry::new(subject, parts)
}

/// Puts the jobs into a message that has none yet. Each is written once, into its place.
fn with_jobs(message: &str, jobs: &[&Job]) -> String {
    const NO_JOBS: &str = r#""jobs":["#;
    const END: &str = "]}}";
    let before = message
        .strip_suffix(END)
        .filter(|before| before.ends_with(NO_JOBS))
        .expect("the list of jobs is the last field of a resume");
    let mut text = before.as_bytes().to_vec();
    for (index, job) in jobs.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, job).expect("a job holds only strings and a number");
    }
    text.extend_from_slice(END.as_bytes());
    String::from_utf8(text).expect("serde_json writes UTF-8")
}

/// The entry of a suspend. With `fail` the agent also fails the nodes in Slurm with that reason.
pub fn suspend(
    cluster: &ClusterName,
    request_id: RequestId,
    generation: Generation,
    cause: SuspendCause,
    nodes: Hostlist,
    names: &[NodeName],
    fail: Option<String>,
) -> Entry {
    let message = |part: u32, parts: u32, content: Part| {
        let body = SuspendQueueBody::Suspend(SuspendRequest {
            request_id: request_id.clone(),
            generation,
            part,
            parts,
            cause,
            nodes: content.nodes,
        });
        Message::new(cluster.clone(), body).to_json()
    };
    let parts = number(split::split(names, &[]), message);
    let subject = Subject {
        target: Target::Suspend,
        request_id,
        generation,
        deadline_ms: None,
        nodes,
        jobs: 0,
        fail,
    };
    Entry::new(subject, parts)
}

fn number(parts: Vec<Part>, message: impl Fn(u32, u32, Part) -> String) -> Vec<String> {
    let count =
        u32::try_from(parts.len()).expect("far fewer parts than nodes, of which 262,144 at most");
    (1..)
        .zip(parts)
        .map(|(part, content)| message(part, count, content))
        .collect()
}

/// One expression for node names, in the order of their numbers.
pub fn fold<T: AsRef<str>>(mut names: Vec<T>) -> String {
    nodes::sort(&mut names);
    hostlist::fold(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_ten_seconds_or_a_tenth_and_at_most_half() {
        let stamp = Generation::new(1_000_000_000).unwrap();
        let left = |timeout_s: u64| deadline_ms(stamp, timeout_s * 1000) - stamp.at_ms();
        assert_eq!(left(12), 6_000);
        assert_eq!(left(60), 50_000);
        assert_eq!(left(100), 90_000);
        assert_eq!(left(600), 540_000);
    }
}
