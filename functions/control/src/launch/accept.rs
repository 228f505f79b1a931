//! Accepting a request: which of its nodes are to be launched, by what plan, and by when they must join.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::config::Policy;
use spillway_core::hostlist;
use spillway_core::message::{JoinDeadline, ReportBody, ResumeRequest};
use spillway_core::name::NodeName;
use spillway_core::pairing::{Event, LaunchKey, Verdict};
use spillway_core::plan::{self, LaunchPlan};
use tracing::info;

use super::LaunchError;
use crate::fault::Fault;
use crate::names::distinct;
use crate::pairings::{Applied, apply, ask_termination, released};
use crate::ports::{Clock, Control, MAX_DELAY_SECONDS, Queues, Table};
use crate::tally::{self, Tally};

/// How many nodes one join timer names.
const MAX_TIMER_NODES: usize = 2_000;

/// Puts the resume to each node's pairing and plans the launch of those that need an instance.
pub(super) async fn accept<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    key: &LaunchKey,
    request: &ResumeRequest,
    tally: &mut Tally,
) -> Result<LaunchPlan, LaunchError> {
    let nodes = distinct(&request.nodes)?;
    let policy = control.table.policy().await?;
    // The timers first: should this worker die, what it accepted is not left without a deadline.
    set_join_timers(control, request, policy.as_ref(), &nodes).await?;
    let events = nodes.into_iter().map(|node| {
        let deadline_ms = deadline_ms(request, policy.as_ref(), &node);
        (
            node,
            Event::Resume {
                generation: request.generation,
                launch: key.clone(),
                deadline_ms,
            },
        )
    });
    let mut applied = apply(control, events.collect()).await?;
    applied.sort_by(|a, b| a.node.cmp(&b.node));
    ask_termination(control, released(&applied)).await?;
    let to_launch = names(&applied, |applied| applied.transition.launch);
    let stale = names(&applied, |applied| {
        applied.transition.verdict == Verdict::Stale
    });
    tally.add(tally::NODES_RESUMED, applied.len() - stale.len());
    tally.add(tally::NODES_STALE, stale.len());
    info!(
        request_id = %request.request_id,
        part = request.part,
        generation = %request.generation,
        nodes = request.nodes,
        launch = hostlist::fold(&to_launch),
        stale = hostlist::fold(&stale),
        "resume: {} nodes to launch, {} overtaken by a newer request",
        to_launch.len(),
        stale.len(),
    );
    Ok(policy.map_or_else(
        || plan::refuse_without_policy(&to_launch),
        |policy| plan::plan_launch(request, &to_launch, &policy),
    ))
}

/// The request's own deadline, or the node group's where that is sooner.
fn deadline_ms(request: &ResumeRequest, policy: Option<&Policy>, node: &NodeName) -> u64 {
    policy
        .and_then(|policy| policy.group_of(node))
        .map_or(request.deadline_ms, |group| {
            let join_ms = u64::from(group.join_timeout_seconds) * 1000;
            request
                .deadline_ms
                .min(request.generation.at_ms() + join_ms)
        })
}

fn names(applied: &[Applied], which: impl Fn(&Applied) -> bool) -> Vec<NodeName> {
    applied
        .iter()
        .filter(|applied| which(applied))
        .map(|applied| applied.node.clone())
        .collect()
}

/// Tells Slurm of the nodes that the policy gives no way to launch.
pub(super) async fn refuse<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    key: &LaunchKey,
    plan: &LaunchPlan,
    tally: &mut Tally,
) -> Result<(), LaunchError> {
    for refused in &plan.refused {
        let event = Event::NotLaunched {
            launch: key.clone(),
            reason: refused.reason.clone(),
        };
        let nodes = distinct(&refused.nodes)?;
        let applied = apply(
            control,
            nodes
                .into_iter()
                .map(|node| (node, event.clone()))
                .collect(),
        )
        .await?;
        let failed = names(&applied, |applied| {
            applied.transition.verdict == Verdict::Accepted
        });
        tally.add(tally::NODES_FAILED, failed.len());
    }
    Ok(())
}

/// Sets the timers that fail what has not joined in time, for every node of the request: one that waits
/// for another request's launch has a new deadline too.
async fn set_join_timers<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    request: &ResumeRequest,
    policy: Option<&Policy>,
    nodes: &BTreeSet<NodeName>,
) -> Result<(), Fault> {
    let mut by_deadline: BTreeMap<u64, Vec<&NodeName>> = BTreeMap::new();
    for node in nodes {
        by_deadline
            .entry(deadline_ms(request, policy, node))
            .or_default()
            .push(node);
    }
    let now_ms = control.clock.now_ms();
    for (deadline_ms, nodes) in by_deadline {
        let delay_seconds = deadline_ms
            .saturating_sub(now_ms)
            .div_ceil(1000)
            .min(MAX_DELAY_SECONDS);
        for nodes in nodes.chunks(MAX_TIMER_NODES) {
            let timer = JoinDeadline {
                nodes: hostlist::fold(nodes),
                generation: request.generation,
                deadline_ms,
            };
            control
                .queues
                .send_report(ReportBody::JoinDeadline(timer), delay_seconds)
                .await?;
        }
    }
    Ok(())
}
