//! The account of a job: what is the matter with its nodes, and what they have in common.

use std::collections::BTreeMap;

use spillway_core::hostlist;
use spillway_core::name::NodeName;

use super::cause::{self, Kind, Verdict};
use super::facts::JobFacts;
use super::{Account, Fact, Moment, NOTHING_TO_DO, timeline};
use crate::slurm::JobView;

/// From what was gathered to the answer.
pub fn account(facts: &JobFacts) -> Account {
    let job = match &facts.slurm {
        Err(why) => {
            return alone(
                format!(
                    "Job {} cannot be explained: slurmctld does not answer here ({why}).",
                    facts.job
                ),
                "Run this where scontrol works, such as on the head node.",
            );
        }
        Ok(None) => {
            return alone(
                format!("Job {} is not known to slurmctld.", facts.job),
                "slurmctld forgets a job some minutes after its end (MinJobAge); `sacct -j` may know more. A node that the job \
                 ran on can still be explained.",
            );
        }
        Ok(Some(job)) => job,
    };
    let groups = grouped(facts);
    let (well, summary, advice) = judge(facts, job, &groups);
    Account {
        well,
        summary,
        advice,
        happened: happened(facts, job),
        known: known(facts, job, &groups),
        unread: Vec::new(),
    }
}

fn alone(summary: String, advice: &str) -> Account {
    Account {
        well: false,
        summary,
        advice: advice.to_owned(),
        happened: Vec::new(),
        known: Vec::new(),
        unread: Vec::new(),
    }
}

/// Nodes with one cause, and the verdict on the first of them.
struct Group<'a> {
    nodes: Vec<&'a NodeName>,
    verdict: Verdict,
}

fn grouped(facts: &JobFacts) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<Kind, Group<'_>> = BTreeMap::new();
    for node in &facts.nodes {
        let verdict = cause::of_node(node);
        let group = groups.entry(verdict.kind).or_insert(Group {
            nodes: Vec::new(),
            verdict,
        });
        group.nodes.push(&node.node);
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    // What is wrong first, and of that what concerns most.
    groups.sort_by_key(|group| (group.verdict.well, usize::MAX - group.nodes.len()));
    groups
}

fn judge(facts: &JobFacts, job: &JobView, groups: &[Group<'_>]) -> (bool, String, String) {
    let name = &facts.job;
    let Some(first) = groups.first() else {
        if job.state != "PENDING" {
            let what = format!("Job {name} is {} and has no nodes.", job.state);
            return (true, what, NOTHING_TO_DO.to_owned());
        }
        let what = format!(
            "Job {name} waits, and Slurm has chosen no nodes for it (Reason={}): Spillway is asked only when it has.",
            job.reason
        );
        let advice = match remark(job) {
            Some(said) => format!("What Spillway last said of it: {said}"),
            None => "Look at Slurm's reason (`squeue`, `scontrol show job`).".to_owned(),
        };
        return (true, what, advice);
    };
    let all = facts.nodes.len() + facts.left_out;
    if first.verdict.well {
        let what = match groups {
            [only] if only.verdict.kind == Kind::Runs => "its nodes run well",
            _ => "nothing is wrong with its nodes",
        };
        let what = format!("Job {name} is {}, and {what}.", job.state);
        return (true, what, first.verdict.advice.clone());
    }
    let count = first.nodes.len();
    let of = if count == all { "All" } else { "Some" };
    let nodes = hostlist::fold(&first.nodes);
    let what = format!(
        "Job {name} is {}. {of} of its {all} nodes have a problem: {nodes} {}",
        job.state, first.verdict.what
    );
    (false, what, first.verdict.advice.clone())
}

/// What Spillway last wrote into its AdminComment.
fn remark(job: &JobView) -> Option<&str> {
    job.admin_comment.as_deref()?.rsplit("spillway: ").next()
}

fn happened(facts: &JobFacts, job: &JobView) -> Vec<Moment> {
    let mut moments = Vec::new();
    if let Some(at_ms) = job.submitted_ms {
        let user = job.user.as_deref().unwrap_or("somebody");
        moments.push(Moment::new(at_ms, format!("{user} submitted it.")));
    }
    if let Some(at_ms) = job.started_ms.filter(|at_ms| *at_ms <= facts.now_ms) {
        let again = match job.restarts {
            0 => String::new(),
            restarts => format!(" for the {}. time", restarts + 1),
        };
        moments.push(Moment::new(
            at_ms,
            format!("Slurm started it{again} on {}.", job.nodes),
        ));
    }
    if let Some(first) = facts.nodes.first() {
        let tale = timeline::of_node(first);
        let since_ms = job.submitted_ms.unwrap_or(0);
        let own = tale.into_iter().filter(|moment| moment.at_ms >= since_ms);
        let own = own.map(|moment| Moment {
            what: format!("{}: {}", first.node, moment.what),
            ..moment
        });
        moments.extend(own);
    }
    moments.sort_by_key(|moment| moment.at_ms);
    moments
}

fn known(facts: &JobFacts, job: &JobView, groups: &[Group<'_>]) -> Vec<Fact> {
    let reason = if job.reason == "None" {
        String::new()
    } else {
        format!(", Reason={}", job.reason)
    };
    let mut known = vec![Fact::new("Slurm", format!("{}{reason}", job.state))];
    for group in groups {
        let nodes = hostlist::fold(&group.nodes);
        let what = match group.nodes.len() {
            1 => group.verdict.what.clone(),
            count => format!("{count} nodes; the first {}", group.verdict.what),
        };
        known.push(Fact::new(nodes, what));
    }
    if facts.left_out > 0 {
        let what = format!("{} more were not looked at", facts.left_out);
        known.push(Fact::new("Other nodes", what));
    }
    if let Some(comment) = job
        .admin_comment
        .as_deref()
        .filter(|text| text.contains("spillway: "))
    {
        known.push(Fact::new("AdminComment", comment));
    }
    known
}
