//! Notices: EC2 says that it takes instances away, or has. Whose instances they are the table tells, in one read for a
//! whole batch; what is a stranger's is dropped without a call to EC2. Ours leave as their partition wants it, and EC2
//! ends them; what has stopped instead is ended by us.
//!
//! Events come in any order and again: what they do is decided by the pairing (`spillway_core::pairing`), and the timer
//! that has jobs queued again counts once however often it was set.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use spillway_core::capacity::{Capacity, FIRST_REST_MS};
use spillway_core::config::{NoticeAction, NoticePolicy, Policy};
use spillway_core::message::{ReportBody, RequeueJobs};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::notice::{Notice, ReservationEnds, Warning, WarningKind};
use spillway_core::pairing::{Event, Pairing, Step, StepKind, Verdict};
use spillway_core::plan::InstanceState;
use spillway_core::tag;
use tracing::{info, warn};

use crate::fault::Fault;
use crate::health;
use crate::pairings::{Applied, apply, ask_termination, released};
use crate::ports::{Clock, Control, Ec2, InstanceSeen, MAX_DELAY_SECONDS, Queues, Table};
use crate::record::InstanceRecord;
use crate::shared::{ONLY, change};
use crate::tally::{self, Tally};

/// Takes in a batch of events.
pub async fn notices<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    notices: Vec<Notice>,
) -> Result<Tally, Fault> {
    let mut warnings = BTreeSet::new();
    let mut reservations = BTreeSet::new();
    for notice in notices {
        warnings.extend(notice.warnings);
        reservations.extend(notice.reservation);
    }
    for ends in reservations {
        warnings.extend(warnings_of(control, ec2, ends).await?);
    }
    warned(control, warnings).await
}

/// What an end of a reservation means for the cluster's own instances in it. The table does not know them by it.
async fn warnings_of<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ec2: &impl Ec2,
    ends: ReservationEnds,
) -> Result<Vec<Warning>, Fault> {
    let ours = BTreeMap::from([(tag::CLUSTER.to_owned(), control.cluster.to_string())]);
    let seen = ec2.find_in_reservation(&ends.reservation_id, &ours).await?;
    info!(
        reservation_id = ends.reservation_id,
        instances = seen.len(),
        "a reservation ends"
    );
    let alive = seen.into_iter().filter(InstanceSeen::is_alive);
    let warning = |instance| Warning {
        kind: WarningKind::Interruption,
        instance,
        until_ms: ends.until_ms,
        reason: ends.reason.clone(),
    };
    Ok(alive.map(|seen| warning(seen.instance_id)).collect())
}

/// A warning of an instance of ours.
struct Ours<'a> {
    warning: Warning,
    record: &'a InstanceRecord,
    action: NoticeAction,
    policy: NoticePolicy,
}

/// Carries out what these warnings mean for instances of ours.
pub(crate) async fn warned<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    warnings: BTreeSet<Warning>,
) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let named: BTreeSet<&InstanceId> = warnings.iter().map(|warning| &warning.instance).collect();
    let named: Vec<InstanceId> = named.into_iter().cloned().collect();
    if named.is_empty() {
        return Ok(tally);
    }
    let records = control.table.instances(&named).await?;
    tally.add(tally::NOTICES_OF_STRANGERS, named.len() - records.len());
    let open = records
        .iter()
        .filter(|record| record.state != InstanceState::Terminated);
    let open: BTreeMap<&InstanceId, &InstanceRecord> =
        open.map(|record| (&record.instance_id, record)).collect();
    let ours = warnings.into_iter().filter_map(|warning| {
        let record = *open.get(&warning.instance)?;
        Some((warning, record))
    });
    let ours: Vec<(Warning, &InstanceRecord)> = ours.collect();
    if ours.is_empty() {
        return Ok(tally);
    }
    let policy = control.table.policy().await?;
    let ours = ours
        .into_iter()
        .map(|(warning, record)| ours_of(policy.as_ref(), warning, record));
    let ours: Vec<Ours<'_>> = ours.collect();
    rest_pools(control, policy.as_ref(), &ours, &mut tally).await?;
    leave(control, ours, &mut tally).await?;
    Ok(tally)
}

fn ours_of<'a>(policy: Option<&Policy>, warning: Warning, record: &'a InstanceRecord) -> Ours<'a> {
    let node = record.node.as_ref();
    let own = policy.and_then(|policy| Some(policy.notices_of(node?)));
    let policy = own.unwrap_or_default();
    Ours {
        action: match warning.kind {
            WarningKind::Interruption => policy.interruption,
            WarningKind::Rebalance => policy.rebalance,
            WarningKind::Maintenance => policy.maintenance,
            WarningKind::Gone => NoticeAction::Ignore,
        },
        warning,
        record,
        policy,
    }
}

/// Leaves alone the pools that EC2 takes instances back from: always where it does, and where it may soon if the site
/// heeds that.
async fn rest_pools<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    policy: Option<&Policy>,
    ours: &[Ours<'_>],
    tally: &mut Tally,
) -> Result<(), Fault> {
    let of = |ours: &Ours<'_>| {
        let code = match ours.warning.kind {
            WarningKind::Interruption => "InstanceInterruptionWarning",
            WarningKind::Rebalance if ours.action != NoticeAction::Ignore => {
                "InstanceRebalanceRecommendation"
            }
            _ => return None,
        };
        Some((ours.record.pool.clone()?, code))
    };
    let pools: BTreeMap<_, _> = ours.iter().filter_map(of).collect();
    if pools.is_empty() {
        return Ok(());
    }
    let rest_ms = policy.map_or(FIRST_REST_MS, |policy| {
        u64::from(policy.limits.capacity_rest_seconds) * 1000
    });
    let resting = change(control, ONLY, |capacity: &mut Capacity, now_ms| {
        let before = capacity.resting_count(now_ms);
        for (pool, code) in &pools {
            capacity.close_pool(pool, code, rest_ms, now_ms);
        }
        capacity.resting_count(now_ms).saturating_sub(before)
    });
    tally.add(tally::POOLS_RESTING, resting.await?);
    Ok(())
}

/// Puts the warnings to the pairings: one of each node at a time, an instance's end last.
async fn leave<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    ours: Vec<Ours<'_>>,
    tally: &mut Tally,
) -> Result<(), Fault> {
    let is_open = |ours: &Ours<'_>| match ours.record.state {
        InstanceState::Paired => ours.is_gone() || ours.action != NoticeAction::Ignore,
        InstanceState::Released => ours.is_gone(),
        InstanceState::Terminated => false,
    };
    let mut open: Vec<(NodeName, Ours<'_>)> = ours
        .into_iter()
        .filter(is_open)
        .filter_map(|ours| Some((ours.record.node.clone()?, ours)))
        .collect();
    let mut let_go = BTreeSet::new();
    while !open.is_empty() {
        let mut round: BTreeMap<NodeName, Ours<'_>> = BTreeMap::new();
        let mut later = Vec::new();
        for (node, ours) in open {
            match round.entry(node) {
                Entry::Vacant(place) => {
                    place.insert(ours);
                }
                Entry::Occupied(place) => later.push((place.key().clone(), ours)),
            }
        }
        let events = round
            .iter()
            .map(|(node, ours)| (node.clone(), ours.event()));
        let applied = apply(control, events.collect()).await?;
        follow_up(control, &round, &applied, tally).await?;
        let taken = applied
            .into_iter()
            .filter(|applied| was_taken(&applied.transition.next));
        let_go.extend(released(&taken.collect::<Vec<_>>()));
        open = later;
    }
    ask_termination(control, let_go).await
}

/// Whether the node lost its instance to EC2, by this event or before: whoever took that in may have died before it could ask
/// for the end of the instance, and one that has merely stopped would stay for ever. What Slurm let go is ended by the
/// suspend, of which EC2 tells here as well.
fn was_taken(pairing: &Pairing) -> bool {
    let is_news = |step: &&Step| !matches!(step.what, StepKind::Told | StepKind::NotTaken);
    let last = pairing.history.iter().rev().find(is_news);
    last.is_some_and(|step| step.what == StepKind::Gone)
}

/// Sets timers, counts, and says what came of a round.
async fn follow_up<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    round: &BTreeMap<NodeName, Ours<'_>>,
    applied: &[Applied],
    tally: &mut Tally,
) -> Result<(), Fault> {
    let mut never_joined = Vec::new();
    for applied in applied {
        let Some(ours) = round.get(&applied.node) else {
            continue;
        };
        let Warning {
            instance, reason, ..
        } = &ours.warning;
        let node = &applied.node;
        let is_news = applied.transition.verdict == Verdict::Accepted;
        if is_news {
            warn!(%node, instance_id = %instance, reason, "{node} loses its instance");
        }
        if ours.is_gone() {
            tally.add(tally::INSTANCES_GONE, usize::from(is_news));
            if is_news && !applied.was_ready {
                never_joined.push(applied.clone());
            }
            continue;
        }
        tally.add(tally::NODES_LEAVING, usize::from(is_news));
        let leaving = applied.transition.next.leaving();
        if let Some(at_ms) = ours.requeue_at_ms()
            && applied.transition.next.instance() == Some(instance)
            && leaving.is_some_and(|leaving| !leaving.requeued)
        {
            let timer = RequeueJobs {
                instance_id: instance.clone(),
                node: node.clone(),
                at_ms,
            };
            set_timer(control, timer).await?;
        }
    }
    // One that dies before it has joined, and says nothing, burns money as one that says why it cannot.
    health::did_not_join(control, &never_joined, tally).await
}

/// Sets, or renews, the timer that has an instance's jobs queued again.
pub(crate) async fn set_timer<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    timer: RequeueJobs,
) -> Result<(), Fault> {
    let left_ms = timer.at_ms.saturating_sub(control.clock.now_ms());
    let delay_seconds = left_ms.div_ceil(1000).min(MAX_DELAY_SECONDS);
    let queues = &control.queues;
    queues
        .send_report(ReportBody::Requeue(timer), delay_seconds)
        .await
}

impl Ours<'_> {
    fn is_gone(&self) -> bool {
        self.warning.kind == WarningKind::Gone
    }

    fn event(&self) -> Event {
        let Warning {
            instance,
            reason,
            until_ms,
            ..
        } = &self.warning;
        if self.is_gone() {
            return Event::Gone {
                instance: instance.clone(),
                reason: reason.clone(),
            };
        }
        Event::Leaving {
            instance: instance.clone(),
            reason: reason.clone(),
            until_ms: *until_ms,
            signal: self.policy.signal.clone(),
            replace: self.policy.replace,
        }
    }

    /// When its jobs are to be queued again; none if they are not, or nobody says when it goes.
    fn requeue_at_ms(&self) -> Option<u64> {
        let before_ms = u64::from(self.policy.requeue_before_seconds) * 1000;
        let until_ms = self.warning.until_ms?;
        (self.action == NoticeAction::Requeue).then(|| until_ms.saturating_sub(before_ms))
    }
}
