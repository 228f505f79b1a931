//! Acting on a sweep's plan: by the same events and messages as everything else, so that whatever happened since is
//! respected. A step that finds its node changed does nothing.

use std::collections::BTreeSet;

use spillway_core::envelope::reason;
use spillway_core::message::{ContinueLaunch, ResumeQueueBody};
use spillway_core::name::{Generation, InstanceId, NodeName};
use spillway_core::pairing::{Event, LaunchKey};
use spillway_core::sweep::{Finding, FindingKind, Heal, SweepPlan};
use tracing::{info, warn};

use super::observe::Seen;
use crate::fault::Fault;
use crate::health;
use crate::launch::Budget;
use crate::pairings::{Applied, apply, ask_termination};
use crate::ports::{Clock, Control, Ec2, Queues, Table};
use crate::report::{accepted, see_through};
use crate::tally::{self, Tally};

/// Of how many instances that did not join the console is asked for in one sweep: a call each.
const MAX_CONSOLES: usize = 5;
/// So many nodes are changed before it is looked whether time is left.
const NODES_AT_ONCE: usize = 200;

/// Carries out what there is time for: what is left is found again in a minute.
pub(super) async fn execute<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    seen: &Seen,
    plan: &SweepPlan,
    budget: Budget,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let healed: Vec<(&Finding, &Heal)> = plan
        .findings
        .iter()
        .filter_map(|finding| Some((finding, finding.heal.as_ref()?)))
        .collect();
    end(control, seen, &healed, tally).await?;
    go_on(control, &healed).await?;
    let events = events(ec2, &healed).await;
    for events in events.chunks(NODES_AT_ONCE) {
        if !budget.lasts(&control.clock) {
            warn!("no time is left; the next sweep goes on");
            return Ok(());
        }
        let applied = apply(control, events.to_vec()).await?;
        let changed = accepted(&applied);
        tally.add(tally::SWEEP_HEALED, changed.len());
        health::did_not_join(control, &of_late(&applied, &healed), tally).await?;
        see_through(control, &applied, None).await?;
    }
    Ok(())
}

/// Ends orphans and asks again for the end of what was let go.
async fn end<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    seen: &Seen,
    healed: &[(&Finding, &Heal)],
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut ids: BTreeSet<InstanceId> = BTreeSet::new();
    for (finding, heal) in healed {
        let Some(id) = &finding.instance else {
            continue;
        };
        match heal {
            Heal::EndAgain => {
                ids.insert(id.clone());
            }
            Heal::End => {
                if control.table.release_orphan(id, seen.items.get(id)).await? {
                    tally.add(tally::ORPHANS_ENDED, 1);
                    ids.insert(id.clone());
                } else {
                    info!(instance_id = %id, "it was taken up meanwhile");
                }
            }
            _ => {}
        }
    }
    tally.add(tally::SWEEP_HEALED, ids.len());
    ask_termination(control, ids).await
}

/// Wakes launches that nobody works on.
async fn go_on<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    healed: &[(&Finding, &Heal)],
) -> Result<(), Fault> {
    let launches: BTreeSet<&LaunchKey> = healed
        .iter()
        .filter_map(|(_, heal)| match heal {
            Heal::GoOn { launch } => Some(launch),
            _ => None,
        })
        .collect();
    for launch in launches {
        let timer = ContinueLaunch {
            request_id: launch.request_id.clone(),
            part: launch.part,
            attempt: 0,
        };
        control
            .queues
            .send_resume(ResumeQueueBody::Continue(timer), 0)
            .await?;
    }
    Ok(())
}

/// What the plan has the pairings told, each node once.
async fn events(ec2: &impl Ec2, healed: &[(&Finding, &Heal)]) -> Vec<(NodeName, Event)> {
    let mut events = Vec::new();
    let mut consoles = 0;
    for (finding, heal) in healed {
        let Some(node) = finding.node.clone() else {
            continue;
        };
        let event = match (heal, finding.instance.clone()) {
            (Heal::Expire { .. }, Some(instance)) if consoles < MAX_CONSOLES => {
                consoles += 1;
                let reason = late_reason(ec2, &instance).await;
                Event::Failed { instance, reason }
            }
            (heal, instance) => match event(finding, heal, instance) {
                Some(event) => event,
                None => continue,
            },
        };
        events.push((node, event));
    }
    events
}

fn event(finding: &Finding, heal: &Heal, instance: Option<InstanceId>) -> Option<Event> {
    let reason = || reason(&finding.reason);
    Some(match heal {
        Heal::Fail => Event::Gone {
            instance: instance?,
            reason: reason(),
        },
        Heal::Drain { signal, replace } => Event::Leaving {
            instance: instance?,
            reason: reason(),
            until_ms: None,
            signal: signal.clone(),
            replace: *replace,
        },
        Heal::LetGo { generation } => Event::Unwanted {
            generation: *generation,
        },
        Heal::Recover { generation } => Event::Wedged {
            generation: Generation::new(*generation).unwrap_or(Generation::FIRST),
            reason: reason(),
        },
        Heal::Expire { generation } => Event::Deadline {
            generation: *generation,
        },
        Heal::TellAgain { attempt } => Event::Unanswered {
            attempt: Some(*attempt),
        },
        Heal::End | Heal::EndAgain | Heal::GoOn { .. } => return None,
    })
}

/// Why it did not join, with the end of its console, which often says so.
async fn late_reason(ec2: &impl Ec2, instance: &InstanceId) -> String {
    /// Slurm's Reason is short; the last line is the one that tells.
    const CONSOLE_CHARS: usize = 120;
    let late = format!("spillway: {instance} did not join in time");
    let console = match ec2.console(instance).await {
        Ok(console) => console,
        Err(fault) => {
            info!(instance_id = %instance, %fault, "its console cannot be read");
            return reason(&late);
        }
    };
    let last = console
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty());
    let Some(last) = last else {
        return reason(&late);
    };
    let skip = last.chars().count().saturating_sub(CONSOLE_CHARS);
    let end: String = last.chars().skip(skip).collect();
    reason(&format!("{late}; its console ends: {end}"))
}

/// Those that did not join: their node group's health hangs on it.
fn of_late(applied: &[Applied], healed: &[(&Finding, &Heal)]) -> Vec<Applied> {
    let late: BTreeSet<&NodeName> = healed
        .iter()
        .filter(|(finding, _)| finding.what == FindingKind::Late)
        .filter_map(|(finding, _)| finding.node.as_ref())
        .collect();
    applied
        .iter()
        .filter(|applied| late.contains(&applied.node))
        .cloned()
        .collect()
}
