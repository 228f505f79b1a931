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

/// Jobs that share nodes, directly or through others, with those nodes.
#[derive(Default)]
struct Bundle<'a> {
    jobs: Vec<RequestJob>,
    nodes: Vec<&'a str>,
    bytes: usize,
}

/// The parts of a request for `names`; at least one. A part is at most [`MAX_REQUEST_BYTES`] long
/// unless jobs that belong together are longer by themselves.
pub fn split(names: &[NodeName], jobs: Vec<Job>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut open = Bundle::default();
    for bundle in bundles(names, jobs) {
        if !open.nodes.is_empty() && ENVELOPE_BYTES + open.bytes + bundle.bytes > MAX_REQUEST_BYTES
        {
            parts.push(std::mem::take(&mut open).into_part());
        }
        open.bytes += bundle.bytes;
        open.jobs.extend(bundle.jobs);
        open.nodes.extend(bundle.nodes);
    }
    parts.push(open.into_part());
    parts
}

impl Bundle<'_> {
    fn into_part(self) -> Part {
        Part {
            nodes: fold(self.nodes),
            jobs: self.jobs,
        }
    }
}

/// Bundles in the order of their first job, then each node that has no job by itself.
fn bundles(names: &[NodeName], jobs: Vec<Job>) -> Vec<Bundle<'_>> {
    let mut group = Groups::new(jobs.len());
    let mut job_of: HashMap<&str, Option<usize>> =
        names.iter().map(|name| (name.as_str(), None)).collect();
    for (index, job) in jobs.iter().enumerate() {
        for node in &job.nodes {
            // A node that this call does not resume belongs to another call.
            if let Some(first) = job_of.get_mut(node.as_str()) {
                group.join(*first.get_or_insert(index), index);
            }
        }
    }
    let mut bundles: Vec<Bundle> = Vec::new();
    bundles.resize_with(jobs.len(), Bundle::default);
    for (index, job) in jobs.into_iter().enumerate() {
        let bundle = &mut bundles[group.of(index)];
        bundle.bytes += json_bytes(&job.job) + 1;
        bundle.jobs.push(job.job);
    }
    for name in names {
        // Taken out, so that a name that stands twice in the call stands once in the message.
        let Some(job) = job_of.remove(name.as_str()) else {
            continue;
        };
        let position = job.map_or(bundles.len(), |job| group.of(job));
        if position == bundles.len() {
            bundles.push(Bundle::default());
        }
        bundles[position].nodes.push(name.as_str());
        bundles[position].bytes += name.as_str().len() + FOLD_BYTES;
    }
    bundles.retain(|bundle| !bundle.nodes.is_empty() || !bundle.jobs.is_empty());
    bundles
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
