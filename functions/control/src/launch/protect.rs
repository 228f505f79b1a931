//! Protected node groups: what their instances' failures to join keep back, and the probe that may open them again.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::capacity::{Admission, Capacity};
use spillway_core::config::Policy;
use spillway_core::hostlist;
use spillway_core::message::ResumeRequest;
use spillway_core::name::{NodeGroupName, NodeName};
use spillway_core::pairing::DueCoolOff;
use spillway_core::plan::Refused;

use super::LaunchError;
use crate::names::distinct;
use crate::ports::{Clock, Control, Queues, Table};
use crate::shared::{ONLY, change};

/// What may be launched as far as protected mode is concerned.
pub(super) struct Admitted {
    /// These may.
    pub nodes: Vec<NodeName>,
    /// These may not.
    pub kept_back: Vec<Refused>,
}

/// Leaves out the nodes of protected groups, but for one job's when a probe is due.
pub(super) async fn admit<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    request: &ResumeRequest,
    nodes: &[NodeName],
    policy: &Policy,
) -> Result<Admitted, LaunchError> {
    let mut by_group: BTreeMap<&NodeGroupName, Vec<NodeName>> = BTreeMap::new();
    for node in nodes {
        if let Some(group) = policy.group_of(node) {
            by_group.entry(&group.name).or_default().push(node.clone());
        }
    }
    let known = control.table.shared::<Capacity>(ONLY).await?.record;
    by_group.retain(|group, _| known.is_failing(group));
    let mut kept_back = Vec::new();
    let mut kept: BTreeSet<NodeName> = BTreeSet::new();
    for (group, members) in by_group {
        let admission = change(control, ONLY, |capacity: &mut Capacity, now_ms| {
            capacity.admit(group, now_ms)
        });
        let (until_ms, reason, back) = match admission.await? {
            Admission::Open => continue,
            Admission::Protected { until_ms, reason } => (until_ms, reason, members),
            Admission::Probe { until_ms, reason } => {
                let probe = first_job(request, &members)?;
                let is_kept = |node: &NodeName| !probe.contains(node);
                (
                    until_ms,
                    reason,
                    members.into_iter().filter(is_kept).collect(),
                )
            }
        };
        if back.is_empty() {
            continue;
        }
        kept_back.push(Refused {
            nodes: hostlist::fold(&back),
            reason,
            cool_off: Some(DueCoolOff {
                node_group: group.clone(),
                until_ms,
            }),
        });
        kept.extend(back);
    }
    let admitted = nodes.iter().filter(|node| !kept.contains(*node));
    Ok(Admitted {
        nodes: admitted.cloned().collect(),
        kept_back,
    })
}

/// Those of `members` that the request's first job needs, or the first of them.
fn first_job(
    request: &ResumeRequest,
    members: &[NodeName],
) -> Result<BTreeSet<NodeName>, LaunchError> {
    for job in &request.jobs {
        let of_job = distinct(&job.nodes_resume)?;
        let probe: BTreeSet<NodeName> = members
            .iter()
            .filter(|node| of_job.contains(*node))
            .cloned()
            .collect();
        if !probe.is_empty() {
            return Ok(probe);
        }
    }
    Ok(members.first().cloned().into_iter().collect())
}
