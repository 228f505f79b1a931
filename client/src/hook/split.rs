//! Splits a request into messages: by whole jobs, and jobs that share a node stay together, so that no
//! gang is ever torn. Every node stands in exactly one part, and so does every job.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use spillway_core::message::MAX_REQUEST_BYTES;
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
pub struct Part<'a> {
    /// Hostlist.
    pub nodes: String,
    /// The jobs that the nodes are for.
    pub jobs: Vec<&'a Job<'a>>,
}

/// The parts of a request for `names`; at least one. A part is at most [`MAX_REQUEST_BYTES`] long
/// unless jobs that belong together are longer by themselves.
pub fn split<'a>(names: &[NodeName], jobs: &'a [Job<'a>]) -> Vec<Part<'a>> {
    // A name that stands twice in the call stands once in the message.
    let mut nodes: Vec<&str> = Vec::with_capacity(names.len());
    let mut index_of: HashMap<&str, usize> = HashMap::with_capacity(names.len());
    for name in names {
        if let Entry::Vacant(new) = index_of.entry(name.as_str()) {
            new.insert(nodes.len());
            nodes.push(name.as_str());
        }
    }
    let mut first_job: Vec<Option<usize>> = vec![None; nodes.len()];
    let mut has_nodes = vec![false; jobs.len()];
    let mut groups = Groups::new(jobs.len());
    for (job, content) in jobs.iter().enumerate() {
        for name in content.nodes() {
            // A node that this call does not resume belongs to another call.
            if let Some(node) = index_of.get(&*name) {
                has_nodes[job] = true;
                groups.join(*first_job[*node].get_or_insert(job), job);
            }
        }
    }
    // slurmctld names no job without a node of this call; a message never has jobs without nodes.
    let called = (0..jobs.len()).filter(|job| has_nodes[*job]);
    // What each group costs, at the index of its first job.
    let mut bytes = vec![0; jobs.len()];
    for job in called.clone() {
        bytes[groups.of(job)] += jobs[job].json_bytes() + 1;
    }
    for (node, job) in first_job.iter().enumerate() {
        if let Some(job) = job {
            bytes[groups.of(*job)] += nodes[node].len() + FOLD_BYTES;
        }
    }
    // Groups in the order of their first jobs, then each node without a job by itself.
    let mut open = Packing::default();
    let part_of: Vec<usize> = bytes
        .into_iter()
        .map(|bytes| open.part_for(bytes))
        .collect();
    let mut part_nodes: Vec<Vec<&str>> = Vec::new();
    let mut part_jobs: Vec<Vec<&Job>> = Vec::new();
    for job in called {
        at(&mut part_jobs, part_of[groups.of(job)]).push(&jobs[job]);
    }
    for (name, job) in nodes.into_iter().zip(first_job) {
        let part = match job {
            Some(job) => part_of[groups.of(job)],
            None => open.part_for(name.len() + FOLD_BYTES),
        };
        at(&mut part_nodes, part).push(name);
    }
    part_jobs.resize_with(part_jobs.len().max(part_nodes.len()), Vec::new);
    part_nodes.resize_with(part_jobs.len(), Vec::new);
    let parts = part_nodes.into_iter().zip(part_jobs);
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

#[cfg(test)]
mod tests;
