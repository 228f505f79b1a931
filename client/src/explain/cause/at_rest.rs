//! Nodes that no instance serves and for which none is wanted: why that is.

use spillway_core::pairing::{Step, StepKind};
use spillway_core::plan::InstanceState;
use spillway_core::record::HeldBy;
use spillway_core::sweep::{FindingKind, HELD_DOWN, REGISTERED_AS_IT, REGISTRATION_REFUSED};

use super::{Kind, Verdict, refusal, verdict as judged};
use crate::explain::facts::{NodeFacts, NodeItem};
use crate::explain::{NOTHING_TO_DO, ago, plain};
use crate::slurm::{self, NodeRow};

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
    if row.has("POWERING_DOWN") && row.has("IDLE") {
        return powers_down_for_ever(facts, row);
    }
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

/// What powers down is well until the sweep has something done about it.
fn powers_down_for_ever(facts: &NodeFacts, row: &NodeRow) -> Option<Verdict> {
    let swept = facts.sweep.as_ref().ok()?.as_ref()?;
    let mut findings = swept.findings.iter();
    findings.find(|finding| finding.what == FindingKind::Wedged && finding.heal.is_some())?;
    Some(judged(
        Kind::Stuck,
        false,
        format!(
            "is stuck in Slurm: slurmctld has been powering it down for longer than spillway.toml allows ({}).",
            row.state
        ),
        "The sweep gets it out of that. If it comes again: make SuspendTimeout in slurm.conf (`scontrol show config`) and \
         suspend_timeout_seconds in spillway.toml agree.",
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

/// Its instance was well; what slurmctld made of it was not.
fn replaced(reason: &str) -> Option<Verdict> {
    let advice = if reason.contains(REGISTRATION_REFUSED) {
        "slurm.conf says of the node what its instances do not have: make CPUs, RealMemory and Gres there, in its node group and of \
         its instance types agree. Until then the next instance is refused as well."
    } else if reason.contains(REGISTERED_AS_IT) {
        "Find out who runs slurmd under this node's name at that address, and stop it: its next instance may meet it again. The node \
         itself is tried again with the next job."
    } else if reason.contains(HELD_DOWN) {
        "If it comes again, see in slurmctld's log and in the instance's console why slurmd stopped answering. The node is tried \
         again with the next job."
    } else {
        return None;
    };
    let what = format!("is powered down, and its instance was ended by the sweep: {reason}.");
    Some(judged(Kind::Replaced, false, what, advice))
}

fn gone(record: &NodeItem, last: &Step, reason: &str) -> Verdict {
    if let Some(found) = replaced(reason) {
        return found;
    }
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
