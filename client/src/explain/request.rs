//! The account of a request: one call of ResumeProgram.

use spillway_core::hostlist::Hostlist;
use spillway_core::name::RequestId;
use spillway_core::record::RequestRecord;

use super::facts::{NodeStanding, Part, RequestFacts};
use super::{
    AGENT_ADVICE, Account, Fact, Moment, NOTHING_TO_DO, TABLE_ADVICE, TABLE_UNREAD, ago, known,
    plain, timeline,
};

/// Where more is to be found.
const OF_EACH_NODE: &str = "`spillway explain node NODE` says for each what to do.";

/// From what was gathered to the answer.
pub fn account(facts: &RequestFacts) -> Account {
    let id = &facts.request_id;
    let (well, summary, advice) = match &facts.parts {
        Err(why) => (
            false,
            format!("Request {id} cannot be explained: {TABLE_UNREAD} ({why})."),
            TABLE_ADVICE,
        ),
        Ok(parts) if parts.is_empty() => not_there(facts),
        Ok(parts) => judge(id, &Sum::of(parts)),
    };
    let (mut known, mut unread) = known::of_site(&facts.site);
    let standing = standing(facts);
    if !standing.is_empty() {
        known.insert(0, Fact::new("Nodes now", standing));
    }
    if let Err(why) = &facts.local {
        unread.push(Fact::new("Head node's files", why));
    }
    Account {
        well,
        summary,
        advice: advice.to_owned(),
        happened: happened(facts),
        known,
        unread,
    }
}

fn not_there(facts: &RequestFacts) -> (bool, String, &'static str) {
    let id = &facts.request_id;
    if let Ok(Some(waiting)) = &facts.local {
        let age = ago(waiting.at_ms, facts.site.now_ms);
        let what = format!(
            "Request {id} of {age} still waits on the head node: the agent has not sent it to AWS."
        );
        return (false, what, AGENT_ADVICE);
    }
    let advice = "Only requests that power nodes up are recorded, for 30 days. One that was sent and never taken up waits in \
                  the resume queue or its dead-letter queue. Or check the id: `spillway explain node` shows the last one of a \
                  node.";
    (false, format!("Request {id} has no record in AWS."), advice)
}

/// How much of a request came.
#[derive(Default)]
struct Sum {
    nodes: usize,
    launched: usize,
    refused: usize,
    done: bool,
    reason: Option<String>,
}

impl Sum {
    fn of(parts: &[Part]) -> Self {
        let mut sum = Self {
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
            for refused in record.plan.iter().flat_map(|plan| &plan.refused) {
                sum.refused += count(&refused.nodes);
                sum.reason
                    .get_or_insert_with(|| plain(&refused.reason).to_owned());
            }
        }
        sum
    }
}

fn judge(id: &RequestId, sum: &Sum) -> (bool, String, &'static str) {
    let nodes = count_of(sum.nodes);
    let wanted = sum.nodes.saturating_sub(sum.refused);
    if sum.refused > 0 {
        let reason = sum.reason.as_deref().unwrap_or("no reason is recorded");
        let what = format!(
            "Request {id} was refused for {} of {nodes}: {reason}.",
            sum.refused
        );
        return (false, what, OF_EACH_NODE);
    }
    if !sum.done {
        let launched = sum.launched.min(wanted);
        let what =
            format!("Request {id} is being worked on: {launched} of {nodes} have an instance.");
        return (
            true,
            what,
            "Nothing to do but wait; what does not come is told to Slurm with the reason.",
        );
    }
    if sum.launched < wanted {
        let what = format!(
            "Request {id} brought {} of {nodes}: EC2 had no more.",
            sum.launched
        );
        return (false, what, OF_EACH_NODE);
    }
    let what = format!("Request {id} was served: {nodes} got an instance.");
    (true, what, NOTHING_TO_DO)
}

fn count_of(nodes: usize) -> String {
    if nodes == 1 {
        "1 node".to_owned()
    } else {
        format!("{nodes} nodes")
    }
}

fn happened(facts: &RequestFacts) -> Vec<Moment> {
    let parts = facts.parts.as_deref().unwrap_or_default();
    let Some(first) = parts.first().map(|part| &part.record.request) else {
        let waiting = facts.local.as_ref().ok().and_then(Option::as_ref);
        let waits = "Slurm made the request. It waits on the head node.";
        return waiting
            .map(|waiting| Moment::new(waiting.at_ms, waits))
            .into_iter()
            .collect();
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
    let ends = "Its nodes must have joined by then.";
    moments.push(Moment::new(first.deadline_ms, ends));
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
