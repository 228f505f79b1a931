//! What happened to a node, in plain words and in order.

use std::collections::BTreeSet;

use spillway_core::pairing::{Step, StepKind};
use spillway_core::record::{InstanceRecord, RequestRecord};

use super::facts::{Attempt, NodeFacts, jobs_of};
use super::{Moment, plain};
use crate::local_time;

/// A request that reaches AWS later than this after Slurm's call was held up.
const HELD_UP_MS: u64 = 10_000;
/// Most jobs that are named.
const MAX_JOBS: usize = 5;

/// All that is known to have happened to it.
pub fn of_node(facts: &NodeFacts) -> Vec<Moment> {
    let mut moments = Vec::new();
    if let Ok(Some(record)) = &facts.record {
        let mut told = "it";
        for (index, step) in record.history.iter().enumerate() {
            told = told_of(step.what).unwrap_or(told);
            moments.extend(of_step(step, facts, told));
            // A part of the story that was driven out of the history begins in the middle: that is said once.
            if index == 0 && record.history.len() >= spillway_core::pairing::MAX_HISTORY {
                moments[0]
                    .details
                    .push("(earlier events are not kept)".to_owned());
            }
        }
    }
    moments.extend(of_spool(facts));
    moments.sort_by_key(|moment| moment.at_ms);
    moments
}

/// What slurmctld is told after a step.
fn told_of(step: StepKind) -> Option<&'static str> {
    Some(match step {
        StepKind::Launched => "the instance's address",
        StepKind::NotLaunched | StepKind::Refused | StepKind::Failed => {
            "that the node does not come, and powers it down"
        }
        StepKind::Gone => "that the node is gone, and powers it down",
        StepKind::Leaving => "that the node is to be drained",
        StepKind::Requeued => "that the node's jobs are to be queued again",
        StepKind::Recovered => "that the node is to be recovered",
        _ => return None,
    })
}

fn of_step(step: &Step, facts: &NodeFacts, told: &str) -> Vec<Moment> {
    let stamped_ms = step.generation.at_ms();
    let mut moment = Moment::new(step.at_ms, words(step, facts, told));
    match step.what {
        StepKind::Resumed | StepKind::Suspended if stamped_ms > 0 => {
            moment.at_ms = stamped_ms.min(step.at_ms);
        }
        _ => return vec![moment],
    }
    let late_ms = step.at_ms - moment.at_ms;
    let held_up = (late_ms > HELD_UP_MS).then(|| {
        let late = local_time::duration(late_ms);
        Moment::new(
            step.at_ms,
            format!("The request was taken up in AWS, {late} after Slurm's call."),
        )
    });
    let request = facts.request.as_ref().ok().and_then(Option::as_ref);
    let own = request.filter(|request| request.request.generation == step.generation);
    let mut moments = vec![moment];
    moments.extend(held_up);
    if let Some(request) = own.filter(|_| step.what == StepKind::Resumed) {
        moments[0].what = asked(request, facts);
        let tried = attempts(&facts.attempts);
        moments
            .last_mut()
            .expect("it has one")
            .details
            .extend(tried);
    }
    moments
}

fn words(step: &Step, facts: &NodeFacts, told: &str) -> String {
    let reason = step.reason.as_deref().map(plain);
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let instance = step
        .instance
        .as_ref()
        .map_or("its instance", |id| id.as_str());
    match step.what {
        StepKind::Resumed => "Slurm asked for the node.".to_owned(),
        StepKind::Refused => format!("Spillway refused to launch it{why}."),
        StepKind::Launched => {
            let place = placed(facts, instance);
            // What the jobs were told: `cloud-7: launched 1 on-demand, for spot: …`.
            let after = reason.and_then(|note| note.split_once(", for "));
            let after = after.map_or_else(String::new, |(_, after)| format!(", after {after}"));
            format!("{instance} was launched for it{place}{after}.")
        }
        StepKind::NotLaunched => format!("No instance could be launched for it{why}."),
        StepKind::Told => format!("slurmctld was told {told}."),
        StepKind::NotTaken => {
            format!(
                "The head node did not pass on {told}: something newer had come, or slurmctld refused."
            )
        }
        StepKind::Joined => {
            format!("It joined: {instance} is up, and slurmctld took its registration.")
        }
        StepKind::Failed => format!("It did not join{why}."),
        StepKind::Leaving => {
            format!("{instance} is about to go{why}. No new job starts on the node.")
        }
        StepKind::Requeued => "Its jobs were queued again.".to_owned(),
        StepKind::Gone => format!("{instance} is gone{why}."),
        StepKind::Suspended => match step.instance {
            Some(_) => format!("Slurm let the node go; {instance} was let go with it."),
            None => "Slurm let the node go.".to_owned(),
        },
        StepKind::Unwanted => {
            format!("Slurm held the node powered down, so the sweep let {instance} go.")
        }
        StepKind::Recovered => format!("The sweep found it stuck{why}."),
    }
}

/// Where the instance was launched, if that is known.
fn placed(facts: &NodeFacts, instance: &str) -> String {
    let record = facts.instance.as_ref().ok().and_then(Option::as_ref);
    let own = record.filter(|record| record.instance_id.as_str() == instance);
    own.and_then(pool)
        .map_or_else(String::new, |pool| format!(" ({pool})"))
}

/// Such as `spot c7i.large in us-east-1a`.
pub fn pool(record: &InstanceRecord) -> Option<String> {
    let pool = record.pool.as_ref()?;
    let kind = pool.capacity.as_str();
    Some(format!("{kind} {} in {}", pool.instance_type, pool.zone))
}

fn asked(request: &RequestRecord, facts: &NodeFacts) -> String {
    let jobs = jobs_of(request, &facts.node);
    let named: Vec<String> = jobs
        .iter()
        .take(MAX_JOBS)
        .map(|job| match &job.user {
            Some(user) => format!("job {} of {user}", job.job_id),
            None => format!("job {}", job.job_id),
        })
        .collect();
    let more = jobs.len().saturating_sub(MAX_JOBS);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let for_whom = if named.is_empty() {
        String::new()
    } else {
        format!(", for {}{more}", named.join(", "))
    };
    format!(
        "Slurm asked for the node{for_whom} (request {}).",
        request.request.request_id
    )
}

/// The calls to EC2, one a line.
pub fn attempts(attempts: &[Attempt]) -> Vec<String> {
    attempts.iter().map(attempt).collect()
}

fn attempt(attempt: &Attempt) -> String {
    let call = &attempt.call;
    let candidates = || call.recipe.candidates.iter();
    let types: BTreeSet<&str> = candidates().map(|c| c.instance_type.as_str()).collect();
    let zones: BTreeSet<&str> = candidates().map(|c| c.zone.as_str()).collect();
    let list = |words: BTreeSet<&str>| words.into_iter().collect::<Vec<_>>().join(", ");
    let came = match &attempt.answer {
        None => "it is not known yet what came".to_owned(),
        Some(answer) => {
            let mut codes: Vec<String> = Vec::new();
            for shortage in &answer.shortages {
                let said = format!("{}: {}", shortage.fault.code, shortage.fault.message);
                if !codes.contains(&said) {
                    codes.push(said);
                }
            }
            let count = match answer.instances.len() {
                0 => "none came".to_owned(),
                count => format!("{count} came"),
            };
            if codes.is_empty() {
                count
            } else {
                format!("{count}; EC2 said {}", codes.join("; "))
            }
        }
    };
    format!(
        "EC2 was asked for {} {} ({} in {}): {came}",
        call.count,
        call.recipe.capacity.as_str(),
        list(types),
        list(zones)
    )
}

/// What Slurm has asked for here and AWS has not taken up.
fn of_spool(facts: &NodeFacts) -> Vec<Moment> {
    let Ok(Some(local)) = &facts.local else {
        return Vec::new();
    };
    let wanted = |resume| {
        if resume {
            "asked for the node"
        } else {
            "let the node go"
        }
    };
    let waiting = local.waiting.iter().map(|waiting| {
        let words = wanted(waiting.resume);
        Moment::new(
            waiting.at_ms,
            format!(
                "Slurm {words} (request {}). The request waits on the head node.",
                waiting.request_id
            ),
        )
    });
    let mut moments: Vec<Moment> = waiting.collect();
    let known = facts
        .record
        .as_ref()
        .ok()
        .map(|record| record.as_ref().map(|record| record.generation));
    if let (Some((stamped, resume)), Some(known)) = (local.stamped, known)
        && known.is_none_or(|known| stamped > known)
        && !local
            .waiting
            .iter()
            .any(|waiting| waiting.at_ms == stamped.at_ms())
    {
        let words = wanted(resume);
        let what = format!("Slurm {words}. The request was sent and is not taken up in AWS yet.");
        moments.push(Moment::new(stamped.at_ms(), what));
    }
    moments
}
