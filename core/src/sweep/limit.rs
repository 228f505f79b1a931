//! How much one sweep may take away.

use super::{Finding, Life, Snapshot};

/// Drops all that would take instances away if it is more than the site allows at once, and says so: then something else
/// is wrong than so many instances.
pub(super) fn stop(findings: &mut [Finding], snapshot: &Snapshot) -> Option<String> {
    let takes_away = |finding: &Finding| {
        let heal = finding.heal.as_ref();
        heal.is_some_and(|heal| heal.takes_away(finding.what))
    };
    let count = findings
        .iter()
        .filter(|finding| takes_away(finding))
        .count();
    let alive = snapshot
        .instances
        .values()
        .filter(|seen| seen.life == Life::Alive)
        .count();
    let policy = &snapshot.policy;
    let share = alive * policy.max_percent as usize / 100;
    if count <= share.max(policy.max_instances as usize) {
        return None;
    }
    for finding in findings {
        if takes_away(finding) {
            finding.heal = None;
        }
    }
    Some(format!(
        "{count} of {alive} instances would be let go: more than sweep.max_percent = {} and sweep.max_instances = {} \
         allow at once",
        policy.max_percent, policy.max_instances
    ))
}
