//! The account of a request: one call of ResumeProgram.

use spillway_core::hostlist::Hostlist;
use spillway_core::record::RequestRecord;

use super::facts::{NodeStanding, Part, RequestFacts};
use super::{Account, Fact, Moment, NOTHING_TO_DO, ago, known, plain, timeline};

/// From what was gathered to the answer.
pub fn account(facts: &RequestFacts) -> Account {
    let (known, unread) = known::of_site(&facts.site);
    let mut account = Account {
        well: false,
        summary: String::new(),
        advice: String::new(),
        happened: Vec::new(),
        known,
        unread,
    };
    let id = &facts.request_id;
    match &facts.parts {
        Err(why) => {
            account.summary = format!(
                "Request {id} cannot be explained: the table with Spillway's records cannot be read ({why})."
            );
            account.advice = "Use the operator's AWS credentials (the stack's OperatorPolicyArn) for this account and region.".to_owned();
        }
        Ok(parts) if parts.is_empty() => not_there(facts, &mut account),
        Ok(parts) => found(facts, parts, &mut account),
    }
    account
}

fn not_there(facts: &RequestFacts, account: &mut Account) {
    let id = &facts.request_id;
    if let Ok(Some(waiting)) = &facts.local {
        let age = ago(waiting.at_ms, facts.site.now_ms);
        account.summary = format!(
            "Request {id} of {age} still waits on the head node: the agent has not sent it to AWS."
        );
        account.advice = "On the head node: `systemctl status spillway-agent` and `journalctl -u spillway-agent`.".to_owned();
        account.happened = vec![Moment::new(
            waiting.at_ms,
            "Slurm made the request. It waits on the head node.",
        )];
        return;
    }
    account.summary = format!("Request {id} has no record in AWS.");
    account.advice = "Only requests that power nodes up are recorded, for 30 days. One that was sent and never taken up waits in the \
                      resume queue or its dead-letter queue; check the id (`spillway explain node` shows the last one of a node)."
        .to_owned();
    if let Err(why) = &facts.local {
        account.unread.push(Fact::new("Head node's files", why));
    }
}

/// How much of a request came.
#[derive(Default)]
struct Sum {
    nodes: usize,
    launched: usize,
    refused: usize,
    planned: bool,
    done: bool,
    reason: Option<String>,
}

impl Sum {
    fn of(parts: &[Part]) -> Self {
        let mut sum = Self {
            planned: true,
            done: true,
            ..Self::default()
        };
        for Part { record, attempts } in parts {
            let count = |hostlist: &str| Hostlist::parse(hostlist).map_or(0, |list| list.len());
            sum.nodes += count(&record.request.nodes);
            let came = attempts
                .iter()
                .filter_map(|attempt| attempt.answer.as_ref());
            sum.launched += came.map(|answer| answer.instances.len()).sum::<usize>();
            sum.done &= record.done;
            sum.planned &= record.plan.is_some();
            for refused in record.plan.iter().flat_map(|plan| &plan.refused) {
                sum.refused += count(&refused.nodes);
                sum.reason
                    .get_or_insert_with(|| plain(&refused.reason).to_owned());
            }
        }
        sum
    }
}

fn found(facts: &RequestFacts, parts: &[Part], account: &mut Account) {
    let id = &facts.request_id;
    let sum = Sum::of(parts);
    let nodes = count_of(sum.nodes);
    let wanted = sum.nodes.saturating_sub(sum.refused);
    (account.well, account.summary, account.advice) = match () {
        () if sum.refused > 0 => (
            false,
            format!(
                "Request {id} was refused for {} of {nodes}: {}.",
                sum.refused,
                sum.reason.as_deref().unwrap_or("no reason is recorded")
            ),
            "`spillway explain node NODE` says for each what to do.".to_owned(),
        ),
        () if !sum.done => (
            true,
            format!(
                "Request {id} is being worked on: {} of {nodes} have an instance.",
                sum.launched.min(wanted)
            ),
            "Nothing to do but wait; what does not come is told to Slurm with the reason."
                .to_owned(),
        ),
        () if sum.launched < wanted => (
            false,
            format!(
                "Request {id} brought {} of {nodes}: EC2 had no more.",
                sum.launched
            ),
            "`spillway explain node NODE` says for each what to do.".to_owned(),
        ),
        () => (
            true,
            format!("Request {id} was served: {nodes} got an instance."),
            NOTHING_TO_DO.to_owned(),
        ),
    };
    account.happened = happened(parts, facts);
    let standing = standing(facts);
    if !standing.is_empty() {
        account.known.insert(0, Fact::new("Nodes now", standing));
    }
}

fn count_of(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

fn happened(parts: &[Part], facts: &RequestFacts) -> Vec<Moment> {
    let Some(first) = parts.first().map(|part| &part.record.request) else {
        return Vec::new();
    };
    let jobs: Vec<&str> = parts
        .iter()
        .flat_map(|part| &part.record.request.jobs)
        .map(|job| job.job_id.as_str())
        .collect();
    let for_whom = match jobs.len() {
        0 => String::new(),
        1..=5 => format!(", for job {}", jobs.join(", ")),
        count => format!(", for {count} jobs"),
    };
    let nodes: Vec<&str> = parts
        .iter()
        .map(|part| part.record.request.nodes.as_str())
        .collect();
    let mut moment = Moment::new(
        first.generation.at_ms(),
        format!("Slurm asked for {}{for_whom}.", nodes.join(",")),
    );
    for Part { record, attempts } in parts {
        moment.details.extend(refusals(record));
        moment.details.extend(timeline::attempts(attempts));
    }
    let mut moments = vec![moment];
    let missing = (first.parts as usize).saturating_sub(parts.len());
    if missing > 0 {
        moments[0].details.push(format!(
            "{missing} of its {} parts are not recorded yet",
            first.parts
        ));
    }
    let is_over = first.deadline_ms <= facts.site.now_ms;
    let word = if is_over { "had" } else { "have" };
    moments.push(Moment::new(
        first.deadline_ms,
        format!("By then its nodes {word} to have joined."),
    ));
    moments
}

fn refusals(record: &RequestRecord) -> Vec<String> {
    let refused = record.plan.iter().flat_map(|plan| &plan.refused);
    refused
        .map(|refused| format!("{} refused: {}", refused.nodes, plain(&refused.reason)))
        .collect()
}

fn standing(facts: &RequestFacts) -> String {
    let words = |standing| match standing {
        NodeStanding::Free => "without an instance",
        NodeStanding::Requested => "being launched",
        NodeStanding::Launched => "booting",
        NodeStanding::Ready => "up",
    };
    let groups = facts.nodes.iter();
    let groups = groups.map(|(standing, nodes)| {
        format!(
            "{} {}",
            spillway_core::hostlist::fold(nodes),
            words(*standing)
        )
    });
    groups.collect::<Vec<_>>().join("; ")
}
