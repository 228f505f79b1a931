//! What EC2 shows: instances that nobody owns, and pairings whose instance is not what it should be.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, FindingKind, Heal, Life, Mark, SeenInstance, Snapshot, Sweep};
use crate::config::NoticeAction;
use crate::name::InstanceId;
use crate::pairing::{LaunchKey, Pairing, PairingState};
use crate::plan::{InstanceState, UNKNOWN_GRACE_MS};

/// The instances that run, or are stopped, and that no pairing owns.
pub fn unowned(snapshot: &Snapshot) -> impl Iterator<Item = (&InstanceId, &SeenInstance)> {
    let owned: BTreeSet<&InstanceId> = snapshot
        .pairings
        .values()
        .filter_map(Pairing::instance)
        .collect();
    snapshot
        .instances
        .iter()
        .filter(move |(id, seen)| seen.life != Life::Ended && !owned.contains(id))
}

/// Until when the launches that are not done may pair what they have launched. Nodes that are asked for again wait for the
/// launch that goes on already, with later deadlines than its own.
fn launches_end_ms(snapshot: &Snapshot) -> BTreeMap<&LaunchKey, u64> {
    let open = snapshot
        .requests
        .iter()
        .filter(|(_, request)| !request.is_done);
    let mut ends_ms: BTreeMap<&LaunchKey, u64> = open
        .map(|(launch, request)| (launch, request.deadline_ms + super::LATE_MS))
        .collect();
    for pairing in snapshot.pairings.values() {
        if let PairingState::Requested {
            launch,
            deadline_ms,
            ..
        } = &pairing.state
            && let Some(end_ms) = ends_ms.get_mut(launch)
        {
            *end_ms = (*end_ms).max(deadline_ms + super::LATE_MS);
        }
    }
    ends_ms
}

impl Sweep<'_> {
    pub(super) fn unowned_instances(&mut self) {
        let ends_ms = launches_end_ms(self.snapshot);
        let now_ms = self.snapshot.now_ms;
        for (id, seen) in unowned(self.snapshot) {
            let launch = seen.launch.as_ref();
            let ends_ms = launch.and_then(|launch| ends_ms.get(launch));
            let found = self.unowned_instance(id, seen, ends_ms.is_some_and(|end| now_ms < *end));
            self.findings.extend(found);
        }
    }

    /// `is_under_way`: the launch that brought it may still pair it.
    fn unowned_instance(
        &mut self,
        id: &InstanceId,
        seen: &SeenInstance,
        is_under_way: bool,
    ) -> Option<Finding> {
        let snapshot = self.snapshot;
        let record = snapshot.records.get(id);
        let finding = |what, reason: String, heal| Finding {
            what,
            node: record.and_then(|record| record.node.clone()),
            instance: Some(id.clone()),
            reason,
            heal,
        };
        if seen.is_held || record.is_some_and(|record| record.is_held) {
            let reason = format!("{id} serves no node and is held");
            return Some(finding(FindingKind::Held, reason, None));
        }
        let (mark, least_ms) = match record.map(|record| record.state) {
            Some(InstanceState::Released) => (Mark::StillRuns(id.clone()), self.confirm_ms()),
            // EC2 takes a while to show what it has ended; what it did not know for long may come up after all.
            Some(InstanceState::Terminated) => (Mark::StillRuns(id.clone()), UNKNOWN_GRACE_MS),
            _ if is_under_way => return None,
            _ => (Mark::Orphan(id.clone()), self.confirm_ms()),
        };
        let is_old = snapshot.now_ms.saturating_sub(seen.launched_ms) >= self.grace_ms();
        let lasts = self.marks.has_lasted(mark.clone(), least_ms);
        let (what, reason, heal) = match (mark, record.map(|record| record.state)) {
            (Mark::StillRuns(_), Some(InstanceState::Released)) => (
                FindingKind::StillRuns,
                format!("{id} was let go and still runs"),
                lasts.then_some(Heal::EndAgain),
            ),
            (Mark::StillRuns(_), _) => (
                FindingKind::StillRuns,
                format!("{id} was taken for terminated and still runs"),
                lasts.then_some(Heal::End),
            ),
            _ => (
                FindingKind::Orphan,
                format!("{id} serves no node and no launch waits for it"),
                (lasts && is_old).then_some(Heal::End),
            ),
        };
        Some(finding(what, reason, heal))
    }

    /// What EC2 says of a pairing's instance.
    pub(super) fn of_ec2(&mut self, pairing: &Pairing) -> Option<Finding> {
        let id = pairing.instance()?;
        let Some(seen) = self.snapshot.instances.get(id) else {
            let lasts = self
                .marks
                .has_lasted(Mark::Unknown(id.clone()), UNKNOWN_GRACE_MS);
            let reason = format!("spillway: EC2 knows no instance {id}");
            let heal = lasts.then_some(Heal::Fail);
            return Some(Finding::of(
                FindingKind::InstanceUnknown,
                pairing,
                reason,
                heal,
            ));
        };
        match seen.life {
            Life::Ended | Life::Stopped => {
                let how = if seen.life == Life::Ended {
                    "ended"
                } else {
                    "stopped"
                };
                let reason = format!("spillway: EC2 {how} {id}");
                let heal = Some(Heal::Fail);
                Some(Finding::of(
                    FindingKind::InstanceGone,
                    pairing,
                    reason,
                    heal,
                ))
            }
            Life::Alive if seen.is_impaired => self.impaired(pairing, id),
            Life::Alive => None,
        }
    }

    /// An instance that still boots may fail its checks; a node that drains already is waited for.
    fn impaired(&mut self, pairing: &Pairing, id: &InstanceId) -> Option<Finding> {
        if !matches!(pairing.state, PairingState::Ready { leaving: None, .. }) {
            return None;
        }
        let policy = self.snapshot.notices.get(&pairing.node);
        let policy = policy.cloned().unwrap_or_default();
        if policy.maintenance == NoticeAction::Ignore {
            return None;
        }
        let least_ms = self.confirm_ms();
        let lasts = self.marks.has_lasted(Mark::Impaired(id.clone()), least_ms);
        let reason = format!("spillway: {id} fails EC2's status checks");
        let heal = lasts.then_some(Heal::Drain {
            signal: policy.signal,
            replace: policy.replace,
        });
        Some(Finding::of(FindingKind::Impaired, pairing, reason, heal))
    }
}
