//! Accepting a request: which of its nodes are to be launched, by what plan, and by when they must join. What the
//! policy does not name or the caps do not leave room for is refused here, before anything is spent on it.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::config::{DEFAULT_LAUNCHES_PER_HOUR_PER_NODE, Policy};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{JoinDeadline, ReportBody, ResumeRequest};
use spillway_core::name::NodeName;
use spillway_core::pairing::{DueAction, Event, LaunchKey, PairingState, Verdict};
use spillway_core::plan::{self, LaunchPlan, Refused};
use spillway_core::usage::{OVER_LIMIT, Reservation};
use tracing::{info, warn};

use super::protect::{self, Admitted};
use super::{LaunchError, gang, note};
use crate::caps;
use crate::fault::Fault;
use crate::names::{MAX_NAMES, NamesError, distinct};
use crate::pairings::{Applied, apply, ask_termination, released};
use crate::ports::{Clock, Control, Ec2, MAX_DELAY_SECONDS, Queues, Table};
use crate::tally::{self, Tally};

/// Most names that the jobs of one message have together. A node that is not shared has one job, and a shared one
/// some: four times a message's nodes is more than a resume file ever named.
const MAX_JOB_NAMES: usize = 4 * MAX_NAMES;

/// How many nodes one join timer names.
const MAX_TIMER_NODES: usize = 2_000;

/// By how much the clocks of functions may differ.
const CLOCKS_DIFFER_MS: u64 = 1_000;

/// Puts the resume to each node's pairing and plans the launch of those that need an instance.
pub(super) async fn accept<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    key: &LaunchKey,
    request: &ResumeRequest,
    tally: &mut Tally,
) -> Result<LaunchPlan, LaunchError> {
    check_jobs(request)?;
    let policy = control.table.policy().await?;
    let nodes = distinct(&request.nodes)?;
    let nodes = to_accept(control, policy.as_ref(), nodes, tally).await?;
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
                launches_per_hour: policy
                    .as_ref()
                    .map_or(DEFAULT_LAUNCHES_PER_HOUR_PER_NODE, |policy| {
                        policy.limits.launches_per_hour_per_node
                    }),
            },
        )
    });
    let mut applied = apply(control, events.collect()).await?;
    applied.sort_by(|a, b| a.node.cmp(&b.node));
    let late_ms = control.clock.now_ms() + CLOCKS_DIFFER_MS;
    let late = names(&applied, |applied| is_due_by(applied, late_ms));
    set_join_timers(
        control,
        request,
        policy.as_ref(),
        &late.into_iter().collect(),
    )
    .await?;
    ask_termination(control, released(&applied)).await?;
    let to_launch = names(&applied, |applied| applied.transition.launch);
    let stale = names(&applied, |applied| {
        applied.transition.verdict == Verdict::Stale
    });
    tally.add(tally::NODES_RESUMED, applied.len() - stale.len());
    tally.add(tally::NODES_STALE, stale.len());
    tally.add(tally::NODES_FAILED, names(&applied, fails).len());
    tally.add(
        tally::NODES_OVER_LIMIT,
        names(&applied, fails_by_limit).len(),
    );
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
    let Some(policy) = policy else {
        return Ok(plan::refuse_without_policy(&to_launch));
    };
    let Admitted { nodes, kept_back } =
        protect::admit(control, request, &to_launch, &policy).await?;
    let Reservation {
        granted,
        holds,
        refused,
    } = caps::reserve(control, ec2, key, request, &nodes, &policy).await?;
    tally.add(tally::NODES_OVER_LIMIT, nodes.len() - granted.len());
    let awaited = gang::awaited(control, request, &policy).await?;
    let spanning = awaited.keys().cloned().collect();
    let mut plan = plan::plan_launch(request, &granted, &policy, &spanning);
    plan.holds = holds;
    plan.refused.extend(refused.into_iter().chain(kept_back));
    for Refused { nodes, reason, .. } in &plan.refused {
        warn!(request_id = %request.request_id, nodes, reason, "not launched");
    }
    gang::enter(control, key, request, &plan, &awaited).await?;
    Ok(plan)
}

/// What a job names is expanded too: no text may make that more than a message may have.
fn check_jobs(request: &ResumeRequest) -> Result<(), NamesError> {
    let jobs = request.jobs.iter();
    let lists = jobs.filter_map(|job| Hostlist::parse(&job.nodes_resume).ok());
    let names: usize = lists.map(|list| list.len()).sum();
    if names > MAX_JOB_NAMES {
        return Err(NamesError::TooMany { names });
    }
    Ok(())
}

/// The nodes that the policy names, and as many of the others as are told that it does not: each of those gets an item
/// in the table, and anyone who may send can make up names.
async fn to_accept<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    policy: Option<&Policy>,
    nodes: BTreeSet<NodeName>,
    tally: &mut Tally,
) -> Result<BTreeSet<NodeName>, Fault> {
    let is_named = |node: &NodeName| policy.is_some_and(|policy| policy.group_of(node).is_some());
    let (mut accepted, others): (BTreeSet<_>, BTreeSet<_>) = nodes.into_iter().partition(is_named);
    if others.is_empty() {
        return Ok(accepted);
    }
    let told = caps::tell_unknown(control, others.len()).await?;
    tally.add(tally::NODES_UNKNOWN, others.len());
    warn!(
        nodes = others.len(),
        told, "a resume names nodes that the policy does not name"
    );
    accepted.extend(others.into_iter().take(told));
    Ok(accepted)
}

/// Whether the node is waited for, and its deadline is there by `at_ms`: the timer that was set before the node was
/// accepted may have come already, and found nothing to fail.
fn is_due_by(applied: &Applied, at_ms: u64) -> bool {
    match applied.transition.next.state {
        PairingState::Requested { deadline_ms, .. }
        | PairingState::Launched { deadline_ms, .. } => deadline_ms <= at_ms,
        PairingState::Free | PairingState::Ready { .. } => false,
    }
}

/// Whether the resume was accepted and the node failed at once.
fn fails(applied: &Applied) -> bool {
    applied.transition.verdict == Verdict::Accepted && reason(applied).is_some()
}

fn fails_by_limit(applied: &Applied) -> bool {
    fails(applied) && reason(applied).is_some_and(|reason| reason.starts_with(OVER_LIMIT))
}

fn reason(applied: &Applied) -> Option<&str> {
    match &applied.transition.next.update_due.as_ref()?.action {
        DueAction::Fail { reason, .. } => Some(reason),
        _ => None,
    }
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
    request: &ResumeRequest,
    plan: &LaunchPlan,
    tally: &mut Tally,
) -> Result<(), LaunchError> {
    for refused in &plan.refused {
        let nodes = distinct(&refused.nodes)?;
        let list: Vec<NodeName> = nodes.iter().cloned().collect();
        let event = Event::NotLaunched {
            launch: key.clone(),
            reason: note::bounded(&refused.reason),
            cool_off: refused.cool_off.clone(),
            note: note::of_request(request, &list, &refused.reason),
        };
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
                put_back: false,
            };
            control
                .queues
                .send_report(ReportBody::JoinDeadline(timer), delay_seconds)
                .await?;
        }
    }
    Ok(())
}
