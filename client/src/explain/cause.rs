//! What is the matter with a node, and what to do: the first of the possible causes that fits, those that hide others first.

mod at_rest;
mod refusal;

use spillway_core::message::HEARTBEAT_STALE_MS;
use spillway_core::pairing::StepKind;

use super::facts::{NodeFacts, NodeItem, NodeStanding};
use super::{AGENT_ADVICE, NOTHING_TO_DO, TABLE_ADVICE, TABLE_UNREAD, ago, known, plain, timeline};
use crate::local_time;
use crate::slurm;

/// A request is sent within a second; one that waits longer is held up.
const SPOOL_MS: u64 = 10_000;
/// An update is acknowledged within seconds, and told again after half a minute.
const UNACKNOWLEDGED_MS: u64 = 60_000;
/// What is the matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Nodes with the same cause are told of together.
    pub kind: Kind,
    /// Nothing is wrong.
    pub well: bool,
    /// What stands after the node's name.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// The kinds of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unknown,
    Unconfigured,
    Unreadable,
    InSpool,
    Untold,
    ByHand,
    Down,
    Runs,
    Leaving,
    Joining,
    Launching,
    NeverAsked,
    Held,
    Stuck,
    Recovered,
    NoCapacity,
    OverCap,
    Refused,
    NotJoined,
    Replaced,
    Gone,
    AtRest,
}

fn verdict(kind: Kind, well: bool, what: impl Into<String>, advice: impl Into<String>) -> Verdict {
    Verdict {
        kind,
        well,
        what: what.into(),
        advice: advice.into(),
    }
}

/// Judges.
pub fn of_node(facts: &NodeFacts) -> Verdict {
    if let Some(found) = unconfigured(facts).or_else(|| in_spool(facts)) {
        return found;
    }
    match &facts.record {
        Err(why) => verdict(
            Kind::Unreadable,
            false,
            format!("cannot be explained: {TABLE_UNREAD} ({why})."),
            TABLE_ADVICE,
        ),
        Ok(None) => by_hand(facts).unwrap_or_else(|| never_asked(facts)),
        Ok(Some(record)) => of_record(facts, record),
    }
}

fn of_record(facts: &NodeFacts, record: &NodeItem) -> Verdict {
    if let Some(found) = untold(facts, record).or_else(|| by_hand(facts)) {
        return found;
    }
    match record.state {
        NodeStanding::Requested => launching(facts, record),
        NodeStanding::Launched => joining(facts, record),
        NodeStanding::Ready => serving(facts, record),
        NodeStanding::Free => at_rest::verdict(facts, record),
    }
}

fn unconfigured(facts: &NodeFacts) -> Option<Verdict> {
    if facts.node_group.is_some() {
        return None;
    }
    match &facts.slurm {
        Ok(Some(row)) if !row.is_cloud() => Some(verdict(
            Kind::Unconfigured,
            true,
            "is no burst node: slurm.conf does not give it State=CLOUD. Spillway has nothing to do with it.",
            NOTHING_TO_DO,
        )),
        Ok(Some(_)) => Some(verdict(
            Kind::Unconfigured,
            false,
            "is a cloud node in Slurm, but no node group in spillway.toml has it: what Slurm asks for it is refused.",
            "Add it to a node group and put that in force with `spillway config push`, or take it out of slurm.conf.",
        )),
        _ if matches!(facts.record, Ok(Some(_))) => None,
        _ => Some(verdict(
            Kind::Unknown,
            false,
            "is no node that anybody knows here: neither spillway.toml nor slurmctld names it.",
            "Check the name: `sinfo -N` lists Slurm's nodes, and the node groups in spillway.toml name the burst nodes.",
        )),
    }
}

fn in_spool(facts: &NodeFacts) -> Option<Verdict> {
    let local = facts.local.as_ref().ok()?.as_ref()?;
    let now_ms = facts.site.now_ms;
    let oldest = local.waiting.first()?;
    if now_ms.saturating_sub(oldest.at_ms) < SPOOL_MS {
        return None;
    }
    let wanted = if oldest.resume { "asked for" } else { "let go" };
    let expired = oldest
        .deadline_ms
        .is_some_and(|deadline_ms| deadline_ms <= now_ms);
    let late = if expired {
        " It is too late for it by now: the agent will tell Slurm that the node does not come."
    } else {
        ""
    };
    let age = ago(oldest.at_ms, now_ms);
    Some(verdict(
        Kind::InSpool,
        false,
        format!(
            "was {wanted} by Slurm {age}, and the request still waits on the head node: the agent has not sent it to AWS.{late}"
        ),
        AGENT_ADVICE,
    ))
}

/// Since when the agent is silent; none if it is not, or if that cannot be known.
fn silent_since_ms(facts: &NodeFacts) -> Option<u64> {
    let heartbeat = facts.site.heartbeat.as_ref().ok()?.as_ref()?;
    let is_stale = facts.site.now_ms.saturating_sub(heartbeat.received_ms) >= HEARTBEAT_STALE_MS;
    is_stale.then_some(heartbeat.received_ms)
}

fn untold(facts: &NodeFacts, record: &NodeItem) -> Option<Verdict> {
    let due = record.update_due.as_ref()?;
    let now_ms = facts.site.now_ms;
    let age_ms = now_ms.saturating_sub(due.since_ms);
    if age_ms < UNACKNOWLEDGED_MS {
        return None;
    }
    let what = known::due_words(&due.action);
    let age = local_time::duration(age_ms);
    let (why, advice) = match silent_since_ms(facts) {
        Some(heard_ms) => {
            let heard = ago(heard_ms, now_ms);
            (
                format!("the agent on the head node was last heard of {heard}"),
                AGENT_ADVICE,
            )
        }
        None => (
            "the agent is heard of, but does not confirm it".to_owned(),
            "Look at the agent's log on the head node (`journalctl -u spillway-agent`): it says why it does not take what it \
             is sent, a key that is not trusted for instance (`spillway keys list`).",
        ),
    };
    Some(verdict(
        Kind::Untold,
        false,
        format!(
            "has waited {age} for slurmctld to be told {what}, and nobody confirms that it was: {why}."
        ),
        advice,
    ))
}

fn by_hand(facts: &NodeFacts) -> Option<Verdict> {
    let row = facts.slurm.as_ref().ok()?.as_ref()?;
    slurm::is_somebodys(row).then(|| {
        let reason = row.reason.as_deref().unwrap_or("none given");
        verdict(
            Kind::ByHand,
            false,
            format!("was set down or drained by somebody, for this reason: {reason}. Spillway leaves such nodes alone."),
            format!("When the reason is gone: `scontrol update NodeName={} State=RESUME`.", facts.node),
        )
    })
}

fn never_asked(facts: &NodeFacts) -> Verdict {
    let node = &facts.node;
    verdict(
        Kind::NeverAsked,
        true,
        "was never asked for: Slurm has had no job for it yet.",
        format!("Nothing to do. To try it out: `srun --nodelist={node} hostname`."),
    )
}

fn launching(facts: &NodeFacts, record: &NodeItem) -> Verdict {
    let left = time_left(facts, record);
    verdict(
        Kind::Launching,
        true,
        format!(
            "is being launched: Slurm has asked for it, and EC2 is asked for an instance.{left}"
        ),
        "Nothing to do but wait; if it does not come, Slurm is told why.",
    )
}

fn joining(facts: &NodeFacts, record: &NodeItem) -> Verdict {
    let instance = record
        .instance_id
        .as_ref()
        .map_or("its instance", |id| id.as_str());
    let left = time_left(facts, record);
    verdict(
        Kind::Joining,
        true,
        format!("is booting: {instance} was launched for it and has yet to join.{left}"),
        "Nothing to do but wait; if it does not join in time, Slurm is told why.",
    )
}

fn time_left(facts: &NodeFacts, record: &NodeItem) -> String {
    let Some(deadline_ms) = record.deadline_ms else {
        return String::new();
    };
    match deadline_ms.checked_sub(facts.site.now_ms) {
        Some(left_ms) => format!(" It has {} left to join.", local_time::duration(left_ms)),
        None => " Its time to join is over: it will be given up within a minute.".to_owned(),
    }
}

fn serving(facts: &NodeFacts, record: &NodeItem) -> Verdict {
    let instance = record
        .instance_id
        .as_ref()
        .map_or("its instance", |id| id.as_str());
    if let Some(leaving) = &record.leaving {
        let when = leaving.until_ms.map_or_else(String::new, |until_ms| {
            match until_ms.checked_sub(facts.site.now_ms) {
                Some(left_ms) => format!(" in {}", local_time::duration(left_ms)),
                None => " about now".to_owned(),
            }
        });
        let jobs = if leaving.requeued {
            "Its jobs were queued again"
        } else {
            "No new job starts on it"
        };
        return verdict(
            Kind::Leaving,
            true,
            format!(
                "is about to lose {instance}{when} ({}). {jobs}.",
                plain(&leaving.reason)
            ),
            "Nothing to do: it is replaced when Slurm needs it again.",
        );
    }
    if let Ok(Some(row)) = &facts.slurm
        && row.has("DOWN")
        && !row.is_let_go()
    {
        let reason = row.reason.as_deref().unwrap_or("no reason given");
        return verdict(
            Kind::Down,
            false,
            format!("is down in Slurm ({reason}) although {instance} runs."),
            "Nothing to do at first: the sweep replaces it if that lasts for a minute. If it happens again, look at slurmd's log \
             on the instance.",
        );
    }
    let record_of = facts.instance.as_ref().ok().and_then(Option::as_ref);
    let pool = record_of.and_then(timeline::pool);
    let place = pool.map_or_else(String::new, |pool| format!(" ({pool})"));
    let last = record
        .history
        .iter()
        .rev()
        .find(|step| step.what == StepKind::Launched);
    let second = last.and_then(|step| step.reason.as_ref()).is_some();
    let second = if second {
        ", after its first choice had no capacity"
    } else {
        ""
    };
    verdict(
        Kind::Runs,
        true,
        format!("runs well on {instance}{place}{second}."),
        NOTHING_TO_DO,
    )
}
