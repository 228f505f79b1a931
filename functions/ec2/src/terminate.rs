//! Terminating: one id that EC2 refuses fails its whole call, so the call is split until the rest is done.

use std::collections::HashSet;

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::Terminated;
use spillway_core::name::InstanceId;
use tracing::warn;

use crate::{Ec2Client, classify};

const OPERATION: &str = "TerminateInstances";

/// So many single instances refused mean that it is not about single instances: a right is missing, and
/// asking for each alone would use up the time.
const MAX_REFUSALS: usize = 8;

impl Ec2Client {
    /// Terminates all of `ids` that can be. Ids that EC2 does not know are answered apart. Where some could
    /// not be terminated, the first reason is answered beside those that were.
    pub(crate) async fn terminate_ids(&self, ids: &[InstanceId]) -> Terminated {
        let mut done = Vec::with_capacity(ids.len());
        let mut all_unknown = Vec::new();
        let mut refused = Vec::new();
        let mut open = vec![ids.to_vec()];
        while let Some(ids) = open.pop() {
            if ids.is_empty() {
                continue;
            }
            let Err(fault) = self.terminate_all_of(&ids).await else {
                done.extend(ids);
                continue;
            };
            match (fault.kind, ids.as_slice()) {
                (FaultKind::NotFound, _) => {
                    let (unknown, others) = unknown(&ids, &fault.message);
                    all_unknown.extend(unknown);
                    open.extend(others);
                }
                // One instance that is protected, or not ours, stands for its whole call.
                (FaultKind::Invalid | FaultKind::Denied, [_, _, ..]) => {
                    let (first, second) = ids.split_at(ids.len() / 2);
                    open.extend([first.to_vec(), second.to_vec()]);
                }
                (FaultKind::Invalid | FaultKind::Denied, _) => {
                    warn!(instances = ?ids, %fault, "EC2 refuses to terminate");
                    refused.push(fault);
                    if refused.len() >= MAX_REFUSALS {
                        break;
                    }
                }
                _ => {
                    return Terminated {
                        done,
                        unknown: all_unknown,
                        fault: Some(fault),
                    };
                }
            }
        }
        Terminated {
            done,
            unknown: all_unknown,
            fault: refused.into_iter().next(),
        }
    }

    async fn terminate_all_of(&self, ids: &[InstanceId]) -> Result<(), Fault> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let answer = self
            .client
            .terminate_instances()
            .set_instance_ids(Some(ids))
            .send()
            .await;
        answer
            .map(drop)
            .map_err(|error| classify::fault(OPERATION, &error))
    }
}

/// Those of `ids` that EC2's message names as unknown, and the calls to make for the others. Where it names
/// none, an id alone is the unknown one, and of several each half is asked for by itself.
fn unknown(ids: &[InstanceId], message: &str) -> (Vec<InstanceId>, Vec<Vec<InstanceId>>) {
    let words: HashSet<&str> = message
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .collect();
    let (named, others): (Vec<InstanceId>, Vec<InstanceId>) = ids
        .iter()
        .cloned()
        .partition(|id| words.contains(id.as_str()));
    match (named.as_slice(), others.as_slice()) {
        ([], [_]) => (others, Vec::new()),
        ([], _) => {
            let (first, second) = others.split_at(others.len() / 2);
            (Vec::new(), vec![first.to_vec(), second.to_vec()])
        }
        _ => (named, vec![others]),
    }
}
