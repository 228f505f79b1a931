//! What is known now, source by source, and what could not be asked.

use spillway_core::message::HEARTBEAT_STALE_MS;
use spillway_core::pairing::DueAction;
use spillway_core::plan::InstanceState;
use spillway_core::record::{HeldBy, InstanceRecord};

use super::facts::{NodeFacts, NodeStanding, Read, SiteFacts};
use super::{Fact, ago, plain, timeline};
use crate::local_time;

/// Of a node.
pub fn of_node(facts: &NodeFacts) -> (Vec<Fact>, Vec<Fact>) {
    let now_ms = facts.site.now_ms;
    let mut known = Known::default();
    known.take("Slurm", &facts.slurm, |row| {
        let address = if row.has_own_address() {
            format!(", at {}", row.address)
        } else {
            String::new()
        };
        let reason = row.reason.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(", Reason={reason}"));
        Some(format!("{}{address}{reason}", row.state))
    });
    if !matches!(facts.slurm, Ok(Some(_))) {
        known.take("Slurm, by the agent", &facts.reported, |reported| {
            let (state, reason) = reported.state.as_ref()?;
            let reason = reason.as_ref();
            let reason = reason.map_or_else(String::new, |reason| format!(", Reason={reason}"));
            let age = ago(reported.observed_ms, now_ms);
            Some(format!("{state}{reason} ({age})"))
        });
    }
    known.take("Spillway", &facts.record, |record| {
        Some(match record.state {
            NodeStanding::Free => "no instance serves it, and none is wanted".to_owned(),
            NodeStanding::Requested => "an instance is being launched for it".to_owned(),
            NodeStanding::Launched => "its instance has yet to join".to_owned(),
            NodeStanding::Ready => "its instance has joined".to_owned(),
        })
    });
    if let Ok(Some(record)) = &facts.record
        && let Some(due) = &record.update_due
    {
        let often = match due.attempt {
            0 => String::new(),
            attempt => format!("; sent again {attempt} times"),
        };
        let what = due_words(&due.action);
        let age = local_time::duration(now_ms.saturating_sub(due.since_ms));
        known.say("To be told", format!("{what}, for {age}{often}"));
    }
    known.take("Instance", &facts.instance, |record| Some(instance(record)));
    let mut site = of_site(&facts.site);
    known.known.append(&mut site.0);
    let has_record = matches!(facts.record, Ok(Some(_)));
    known.take("Last sweep", &facts.sweep, |swept| {
        let age = ago(swept.at_ms, now_ms);
        let found: Vec<&str> = swept.findings.iter().map(|f| plain(&f.reason)).collect();
        match found[..] {
            // Of a node that nobody has asked for there is nothing to be found.
            [] if !has_record => None,
            [] => Some(format!("{age}, found nothing wrong with it")),
            _ => Some(format!("{age}, found: {}", found.join("; "))),
        }
    });
    known.missed("Head node's files", &facts.local);
    known.missed("Last request", &facts.request);
    known.missed("Capacity", &facts.capacity);
    known.unread.append(&mut site.1);
    (known.known, known.unread)
}

/// Of the head node and the queues.
pub fn of_site(site: &SiteFacts) -> (Vec<Fact>, Vec<Fact>) {
    let mut known = Known::default();
    match &site.heartbeat {
        Ok(None) => known.say("Agent", "never heard of"),
        heartbeat => known.take("Agent", heartbeat, |heartbeat| {
            let age_ms = site.now_ms.saturating_sub(heartbeat.received_ms);
            let heard = ago(heartbeat.received_ms, site.now_ms);
            let slurm = heartbeat.slurm_version.as_ref();
            let slurm = slurm.map_or_else(
                || "slurmctld did not answer it".to_owned(),
                |version| format!("Slurm {version}"),
            );
            Some(if age_ms >= HEARTBEAT_STALE_MS {
                format!("silent: last heard of {heard}")
            } else {
                format!("heard of {heard}, {slurm}")
            })
        }),
    }
    match &site.dead_letters {
        Err(why) => known.unread.push(Fact::new("Dead-letter queues", why)),
        Ok(queues) => {
            for (queue, count) in queues {
                let what = format!("{count} that could not be handled lie in {queue}");
                known.say("Messages", what);
            }
        }
    }
    (known.known, known.unread)
}

/// What slurmctld is still to be told.
pub fn due_words(action: &DueAction) -> String {
    match action {
        DueAction::Address { address } => format!("that it is at {address}"),
        DueAction::Fail { reason, .. } => format!("that it does not come ({})", plain(reason)),
        DueAction::Drain { reason, .. } => format!("to drain it ({})", plain(reason)),
        DueAction::Requeue { reason } => format!("to queue its jobs again ({})", plain(reason)),
        DueAction::Recover { .. } => "to get it out of the state that it is stuck in".to_owned(),
    }
}

fn instance(record: &InstanceRecord) -> String {
    let id = &record.instance_id;
    let pool = timeline::pool(record).map_or_else(String::new, |pool| format!(", {pool}"));
    let address = record
        .address
        .map_or_else(String::new, |address| format!(", at {address}"));
    let state = match (record.state, record.unknown_since_ms) {
        (InstanceState::Paired, _) => "serves the node",
        (InstanceState::Released, Some(_)) => "serves it no more, and EC2 does not know it",
        (InstanceState::Released, None) if record.held.is_some() => "serves it no more",
        (InstanceState::Released, None) => "serves it no more and is to be terminated",
        (InstanceState::Terminated, _) => "terminated",
    };
    let held = match record.held {
        None => "",
        Some(HeldBy::Operator) => "; held by an operator (spillway hold)",
        Some(HeldBy::Tag) => "; held by its tag in EC2",
    };
    format!("{id}{pool}{address}: {state}{held}")
}

#[derive(Default)]
struct Known {
    known: Vec<Fact>,
    unread: Vec<Fact>,
}

impl Known {
    fn say(&mut self, about: &str, what: impl Into<String>) {
        self.known.push(Fact::new(about, what));
    }

    fn take<T>(&mut self, about: &str, read: &Read<T>, words: impl Fn(&T) -> Option<String>) {
        match read {
            Err(why) => self.unread.push(Fact::new(about, why)),
            Ok(found) => {
                if let Some(what) = found.as_ref().and_then(words) {
                    self.say(about, what);
                }
            }
        }
    }

    fn missed<T>(&mut self, about: &str, read: &Read<T>) {
        self.take(about, read, |_| None);
    }
}
