//! Nodes that no instance serves and for which none is wanted: why that is.

use spillway_core::pairing::{Step, StepKind};
use spillway_core::plan::InstanceState;
use spillway_core::record::HeldBy;

use super::{Kind, Verdict, refusal, verdict as judged};
use crate::explain::facts::{NodeFacts, NodeItem};
use crate::explain::{NOTHING_TO_DO, ago, plain};
use crate::slurm;

/// Judges by the last thing that happened to it.
pub fn verdict(facts: &NodeFacts, record: &NodeItem) -> Verdict {
    if let Some(found) = held(facts) {
        return found;
    }
    let Some(last) = record.last_step() else {
        return judged(Kind::AtRest, true, "is powered down.", NOTHING_TO_DO);
    };
    let reason = last
        .reason
        .as_deref()
        .map_or("no reason is recorded", plain);
    let when = ago(last.at_ms, facts.site.now_ms);
    match last.what {
        StepKind::NotLaunched | StepKind::Refused => refusal::verdict(facts, last, reason),
        StepKind::Failed => not_joined(last, reason),
        StepKind::Gone | StepKind::Leaving => gone(record, last, reason),
        StepKind::Recovered => recovered(facts, last, reason),
        StepKind::Unwanted => judged(
            Kind::AtRest,
            true,
            format!(
                "is powered down. Slurm had let it go {when} without a word, and the sweep has ended its instance."
            ),
            NOTHING_TO_DO,
        ),
        _ => stuck(facts).unwrap_or_else(|| {
            let what = format!("is powered down and well: Slurm let it go {when}.");
            judged(Kind::AtRest, true, what, NOTHING_TO_DO)
        }),
    }
}

fn held(facts: &NodeFacts) -> Option<Verdict> {
    let record = facts.instance.as_ref().ok()?.as_ref()?;
    record
        .held
        .filter(|_| record.state != InstanceState::Terminated)?;
    let id = &record.instance_id;
    let undo = match record.held? {
        HeldBy::Operator => format!("`spillway release {id}`"),
        HeldBy::Tag => {
            format!(
                "remove the tag {} from {id} in EC2",
                spillway_core::tag::HOLD
            )
        }
    };
    Some(judged(
        Kind::Held,
        true,
        format!(
            "is powered down, but {id}, which served it last, is kept: somebody holds it. It still costs."
        ),
        format!("When it is needed no more: {undo}. The next sweeps then terminate it."),
    ))
}

fn stuck(facts: &NodeFacts) -> Option<Verdict> {
    let row = facts.slurm.as_ref().ok()?.as_ref()?;
    slurm::remedy(row)?;
    let reason = row.reason.as_deref().unwrap_or("no reason given");
    Some(judged(
        Kind::Stuck,
        false,
        format!(
            "is stuck in Slurm: nothing serves it, and slurmctld has it as {} ({reason}).",
            row.state
        ),
        "Nothing to do at first: the sweep gets it out of that within a few minutes. To look now: `spillway sweep --dry-run`.",
    ))
}

fn recovered(facts: &NodeFacts, last: &Step, reason: &str) -> Verdict {
    if let Some(still) = stuck(facts) {
        return still;
    }
    let when = ago(last.at_ms, facts.site.now_ms);
    judged(
        Kind::Recovered,
        true,
        format!("was stuck in Slurm and was recovered {when}: {reason}. It can be used again."),
        NOTHING_TO_DO,
    )
}

fn not_joined(last: &Step, reason: &str) -> Verdict {
    let look = last.instance.as_ref().map_or_else(String::new, |id| {
        format!(" `aws ec2 get-console-output --latest --instance-id {id}` shows its console for about an hour.")
    });
    judged(
        Kind::NotJoined,
        false,
        format!("did not come up: {reason}."),
        format!(
            "See why it could not join: the image, its user data, and the way from its subnet to slurmctld and AWS are the usual \
             causes.{look} The node is tried again with the next job."
        ),
    )
}

fn gone(record: &NodeItem, last: &Step, reason: &str) -> Verdict {
    let of_life = record
        .history
        .iter()
        .filter(|step| step.generation == last.generation);
    let requeued = of_life.clone().any(|step| step.what == StepKind::Requeued);
    let jobs = if requeued {
        " Its jobs were queued again in time."
    } else {
        ""
    };
    let is_spot = reason.contains("Spot");
    let who = if is_spot {
        "EC2 took its spot instance back"
    } else {
        "its instance went away"
    };
    let advice = if is_spot {
        "Nothing to do: Slurm asks for it again when a job needs it, and that pool is left alone for a while. Work that must not \
         be interrupted belongs on a node group with capacity = [\"on-demand\"]."
    } else {
        "Nothing to do if that was meant: Slurm asks for it again when a job needs it."
    };
    judged(
        Kind::Gone,
        true,
        format!("is powered down: {who} ({reason}).{jobs}"),
        advice,
    )
}
