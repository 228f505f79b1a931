//! Terminating: one id that EC2 refuses fails its whole call, so the call is split until the rest is done.

use spillway_control::fault::{Fault, FaultKind};
use spillway_core::name::InstanceId;
use tracing::{info, warn};

use crate::{Ec2Client, classify};

const OPERATION: &str = "TerminateInstances";

impl Ec2Client {
    /// Terminates all of `ids` that can be. Ids that EC2 does not know count as terminated. Where some could
    /// not be terminated for another reason, the first such reason is the answer, after the rest is done.
    pub(crate) async fn terminate_ids(&self, ids: &[InstanceId]) -> Result<Vec<InstanceId>, Fault> {
        let mut done = Vec::with_capacity(ids.len());
        let mut refused = None;
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
                (FaultKind::NotFound, [only]) => {
                    info!(instance_id = %only, "EC2 does not know it (any more): counted as terminated");
                    done.extend(ids);
                }
                (FaultKind::NotFound, _) => open.extend(split(&ids, &fault.message)),
                // One instance that is protected, or not ours, stands for its whole call.
                (FaultKind::Invalid | FaultKind::Denied, [_, _, ..]) => {
                    let (first, second) = ids.split_at(ids.len() / 2);
                    open.extend([first.to_vec(), second.to_vec()]);
                }
                (FaultKind::Invalid | FaultKind::Denied, _) => {
                    warn!(instances = ?ids, %fault, "EC2 refuses to terminate");
                    refused = refused.or(Some(fault));
                }
                _ => return Err(fault),
            }
        }
        refused.map_or(Ok(done), Err)
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

/// The ids in two calls: those that EC2's message names as unknown, each alone, and the others. Where it
/// names none, two halves.
fn split(ids: &[InstanceId], message: &str) -> Vec<Vec<InstanceId>> {
    let named = |id: &&InstanceId| {
        message
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .any(|word| word == id.as_str())
    };
    let (unknown, others): (Vec<&InstanceId>, Vec<&InstanceId>) = ids.iter().partition(named);
    if unknown.is_empty() || others.is_empty() {
        let (first, second) = ids.split_at(ids.len() / 2);
        return vec![first.to_vec(), second.to_vec()];
    }
    vec![
        unknown.into_iter().cloned().collect(),
        others.into_iter().cloned().collect(),
    ]
}
