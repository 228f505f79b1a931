//! Records and messages as a story tells them.

use spillway_control::ports::InstanceWrite;
use spillway_core::envelope::UpdateAction;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{ReportBody, ResumeQueueBody, SuspendQueueBody, UpdateOutcome};
use spillway_core::name::InstanceId;
use spillway_core::pairing::{DueAction, LaunchKey, Pairing, PairingState};

use super::queue::Body;
use super::setting::START_MS;

/// A moment as the story counts: seconds since the run began.
fn at(ms: u64) -> String {
    let since_ms = ms.saturating_sub(START_MS);
    format!("{}.{:03}", since_ms / 1000, since_ms % 1000)
}

fn launch(key: &LaunchKey) -> String {
    format!("launch {} part {}", key.request_id, key.part)
}

/// The names of a hostlist, each by itself: a story is searched for names.
fn names(hostlist: &str) -> String {
    let list = Hostlist::parse(hostlist);
    list.map_or_else(
        |_| hostlist.to_owned(),
        |list| list.iter().collect::<Vec<_>>().join(","),
    )
}

/// Ids, with commas.
pub(crate) fn ids(ids: &[InstanceId]) -> String {
    let ids: Vec<&str> = ids.iter().map(InstanceId::as_str).collect();
    ids.join(", ")
}

/// What became of a node's record, and of an instance's with it.
pub(crate) fn pairing(pairing: &Pairing, instance: Option<&InstanceWrite>) -> String {
    let state = match &pairing.state {
        PairingState::Free => "free".to_owned(),
        PairingState::Requested {
            launch: key,
            deadline_ms,
        } => {
            format!("waits for {} until {}", launch(key), at(*deadline_ms))
        }
        PairingState::Launched {
            instance,
            deadline_ms,
            ..
        } => {
            format!("has {instance}, which must join until {}", at(*deadline_ms))
        }
        PairingState::Ready { instance, .. } => format!("has {instance}, which has joined"),
    };
    let due = match &pairing.update_due {
        None => String::new(),
        Some(due) => {
            let what = match &due.action {
                DueAction::Address { address } => format!("its address {address}"),
                DueAction::Fail { reason, .. } => format!("that it fails ({reason})"),
                DueAction::Drain { reason, .. } => format!("to drain it ({reason})"),
                DueAction::Requeue { reason } => format!("to requeue its jobs ({reason})"),
                DueAction::Recover { reason } => format!("to recover it ({reason})"),
            };
            let (number, attempt) = (due.number, due.attempt);
            format!("; Slurm is to be told {what}, update {number} attempt {attempt}")
        }
    };
    let instance = match instance {
        None => String::new(),
        Some(InstanceWrite::Pair { instance_id, .. }) => format!("; {instance_id} is paired"),
        Some(InstanceWrite::Release(id)) => format!("; {id} is released"),
        Some(InstanceWrite::Admit(id)) => format!("; {id} may start slurmd"),
    };
    let (node, generation) = (&pairing.node, pairing.generation);
    format!("{node} at {generation}: {state}{due}{instance}")
}

/// What a message says.
pub(crate) fn body(body: &Body) -> String {
    match body {
        Body::Resume(ResumeQueueBody::Resume(request)) => {
            format!("resume {} of {}", request.request_id, names(&request.nodes))
        }
        Body::Resume(ResumeQueueBody::Continue(timer)) => {
            format!("timer: go on with {} part {}", timer.request_id, timer.part)
        }
        Body::Suspend(SuspendQueueBody::Suspend(request)) => {
            format!(
                "suspend {} of {}",
                request.request_id,
                names(&request.nodes)
            )
        }
        Body::Suspend(SuspendQueueBody::Release(release)) => {
            format!("end {}", ids(&release.instance_ids))
        }
        Body::Report(body) => report(body),
        Body::Envelope(_) => "an envelope".to_owned(),
        Body::Notice(event) => event.clone(),
    }
}

fn report(body: &ReportBody) -> String {
    match body {
        ReportBody::Acknowledge(acknowledge) => {
            let result = |result: &spillway_core::message::UpdateResult| {
                let outcome = match &result.outcome {
                    UpdateOutcome::Applied => "applied",
                    UpdateOutcome::Stale { .. } => "stale",
                    UpdateOutcome::Refused { .. } => "refused",
                };
                format!("{} {outcome}", names(&result.nodes))
            };
            let results: Vec<String> = acknowledge.results.iter().map(result).collect();
            format!("acknowledgement: {}", results.join(", "))
        }
        ReportBody::Heartbeat(heartbeat) if heartbeat.hello => "hello".to_owned(),
        ReportBody::Heartbeat(_) => "heartbeat".to_owned(),
        ReportBody::NodeStates(_) => "node states".to_owned(),
        ReportBody::Ready(ready) => {
            let (node, id, generation) = (&ready.node, &ready.instance_id, ready.generation);
            format!("{node} has joined on {id} for {generation}")
        }
        ReportBody::Failed(failed) => {
            format!("{} cannot join: {}", failed.instance_id, failed.reason)
        }
        ReportBody::Notice(notice) => {
            format!(
                "{} says that it goes: {}",
                notice.instance_id, notice.action
            )
        }
        ReportBody::Requeue(timer) => format!("timer: requeue the jobs of {}", timer.node),
        ReportBody::Resend(resend) => {
            format!(
                "timer: attempt {} for {} may be unanswered",
                resend.attempt,
                names(&resend.nodes)
            )
        }
        ReportBody::Command(sent) => format!("timer: look after {}", sent.command_id),
        ReportBody::JoinDeadline(timer) => {
            let (nodes, generation) = (names(&timer.nodes), timer.generation);
            format!(
                "timer: {nodes} at {generation} must have joined until {}",
                at(timer.deadline_ms)
            )
        }
    }
}

/// What an update says.
pub(crate) fn update(action: &UpdateAction) -> String {
    match action {
        UpdateAction::Address { addresses } => format!("{addresses:?}"),
        UpdateAction::Fail { reason, .. } => format!("fail ({reason})"),
        UpdateAction::Drain { reason, .. } => format!("drain ({reason})"),
        UpdateAction::Requeue { reason } => format!("requeue ({reason})"),
        UpdateAction::Recover { reason } => format!("recover ({reason})"),
    }
}
