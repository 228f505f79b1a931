//! Splits a request into messages: by whole jobs, and jobs that share a node stay together, so that no
//! gang is ever torn. Every node stands in exactly one part, and so does every job.

use std::collections::HashMap;
use std::io;

use spillway_core::message::{MAX_REQUEST_BYTES, RequestJob};
use spillway_core::name::NodeName;

use super::request::fold;
use super::resume_file::Job;

/// What a message says besides its nodes and jobs: version, cluster, ids, numbers and keys. Measured at
/// 260 bytes with the longest names.
const ENVELOPE_BYTES: usize = 400;
/// A node in a folded hostlist costs at most its name, a comma and brackets.
const FOLD_BYTES: usize = 3;

/// One message's share of the request.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Hostlist.
    pub nodes: String,
    /// The jobs that the nodes are for.
    pub jobs: Vec<RequestJob>,
}

/// The parts of a request for `names`; at least one. A part is at most [`MAX_REQUEST_BYTES`] long
/// unless jobs that belong together are longer by themselves.
pub fn split(names: &[NodeName], mut jobs: Vec<Job>) -> Vec<Part> {
    let mut job_of: HashMap<&str, Option<usize>> =
        names.iter().map(|name| (name.as_str(), None)).collect();
    // slurmctld names no job without a node of this call; a message never has jobs without nodes.
    jobs.retain(|job| {
        job.nodes
            .iter()
            .any(|node| job_of.contains_key(node.as_str()))
    });
    let mut groups = Groups::new(jobs.len());
    for (index, job) in jobs.iter().enumerate() {
        for node in &job.nodes {
            // A node that this call does not resume belongs to another call.
            if let Some(first) = job_of.get_mut(node.as_str()) {
                groups.join(*first.get_or_insert(index), index);
            }
        }
    }
    // What each group costs, at the index of its first job.
    let mut bytes = vec![0; jobs.len()];
    for (index, job) in jobs.iter().enumerate() {
        bytes[groups.of(index)] += json_bytes(&job.job) + 1;
    }
    for (name, job) in &job_of {
        if let Some(job) = job {
            bytes[groups.of(*job)] += name.len() + FOLD_BYTES;
        }
    }
    // Groups in the order of their first jobs, then each node without a job by itself.
    let mut open = Packing::default();
    let part_of: Vec<usize> = bytes
        .into_iter()
        .map(|bytes| open.part_for(bytes))
        .collect();
    let mut nodes: Vec<Vec<&str>> = Vec::new();
    let mut part_jobs: Vec<Vec<RequestJob>> = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        at(&mut part_jobs, part_of[groups.of(index)]).push(job.job);
    }
    for name in names {
        // Taken out, so that a name that stands twice in the call stands once in the message.
        if let Some(job) = job_of.remove(name.as_str()) {
            let part = match job {
                Some(job) => part_of[groups.of(job)],
                None => open.part_for(name.as_str().len() + FOLD_BYTES),
            };
            at(&mut nodes, part).push(name.as_str());
        }
    }
    part_jobs.resize_with(part_jobs.len().max(nodes.len()), Vec::new);
    nodes.resize_with(part_jobs.len(), Vec::new);
    let parts = nodes.into_iter().zip(part_jobs);
    parts
        .map(|(nodes, jobs)| Part {
            nodes: fold(nodes),
            jobs,
        })
        .collect()
}

/// The list at an index, made if it is not there yet.
fn at<T>(lists: &mut Vec<Vec<T>>, index: usize) -> &mut Vec<T> {
    if lists.len() <= index {
        lists.resize_with(index + 1, Vec::new);
    }
    &mut lists[index]
}

/// Fills one part after the other.
#[derive(Default)]
struct Packing {
    part: usize,
    bytes: usize,
}

impl Packing {
    /// The part that takes so many more bytes. A group's jobs after its first one cost nothing of their
    /// own (0): they go where the first one is.
    fn part_for(&mut self, bytes: usize) -> usize {
        if self.bytes > 0 && ENVELOPE_BYTES + self.bytes + bytes > MAX_REQUEST_BYTES {
            self.part += 1;
            self.bytes = 0;
        }
        self.bytes += bytes;
        self.part
    }
}

/// Which jobs belong together: a union-find whose representative is the first of them.
struct Groups(Vec<usize>);

impl Groups {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn of(&mut self, mut index: usize) -> usize {
        while self.0[index] != index {
            self.0[index] = self.0[self.0[index]];
            index = self.0[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        self.0[a.max(b)] = a.min(b);
    }
}

fn json_bytes(job: &RequestJob) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, job)
        .expect("a job holds only strings, and counting cannot fail");
    counter.0
}

#[cfg(test)]
mod tests;
