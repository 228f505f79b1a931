//! Gets nodes out of states that slurmctld does not get them out of by itself. Which command heals what was seen on
//! real slurmctlds 22.05.8, 24.11.5 and 26.05.5:
//!
//! - `State=POWER_DOWN_FORCE` clears all but a base state of DOWN, which stays for ever, and kills a job;
//! - `State=IDLE` clears DOWN, kills no job (it is refused then), and must come after the former, once the node is
//!   `POWERING_DOWN`: before, slurmctld may set it DOWN again. With a `Reason=` beside it, 22.05 and 26.05 lose it;
//! - neither ends a `POWERING_DOWN` before its time, which is `SuspendTimeout`'s; `State=RESUME` does, at once, and is refused
//!   on a node that is idle and powered down. It is for nodes whose time has long passed by the site's own configuration.

use std::collections::HashSet;
use std::time::Duration;

use spillway_core::name::NodeName;
use tokio::time::Instant;

use super::{NodeRow, Slurm, SlurmError, UPDATE_BATCH, by_name};

/// How long a node that is told to power down may take to begin: up to 11 s were seen on 24.11 and 26.05. Not much longer,
/// for other updates wait meanwhile; what has not begun by then is healed the next time.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_secs(1);

/// Reasons that slurmctld itself gives; it appends its own to one that is there with ` : ` before it. A node that is down
/// or drained for another reason is somebody's.
const SLURMCTLD_REASONS: [&str; 7] = [
    "Not responding",
    "ResumeTimeout reached",
    "Node unexpectedly rebooted",
    "Low ",
    "gres/",
    "Kill task failed",
    "Prolog error",
];

/// What heals a node, as far as its state tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// `State=POWER_DOWN_FORCE`; after it `State=IDLE` where it is down.
    PowerDown,
    /// `State=IDLE`.
    Idle,
    /// `State=RESUME`: it powers down without end.
    Resume,
    /// It is powered down and well, and has another's address.
    Address,
}

/// What heals a node that no job holds and no instance serves; none if it is well, or on its way.
pub fn remedy(row: &NodeRow) -> Option<Remedy> {
    let is_moving = row.has("POWER_UP") || row.has("POWER_DOWN");
    if !row.is_cloud() || row.holds_job() || is_moving || is_somebodys(row) {
        return None;
    }
    let (down, silent) = (row.has("DOWN"), row.has("NOT_RESPONDING"));
    if down && row.is_let_go() && !silent {
        return Some(Remedy::Idle);
    }
    let is_stuck = down && !row.is_let_go()
        || row.has("POWERED_DOWN") && silent
        || row.has("INVALID_REG")
        || row.has("DRAIN");
    if is_stuck && !row.has("POWERING_DOWN") {
        return Some(Remedy::PowerDown);
    }
    (row.has("POWERED_DOWN") && row.has_own_address()).then_some(Remedy::Address)
}

/// [`remedy`], for a node that no instance of ours serves and that the sweep has found wedged: one that is up for all that, a
/// stranger runs, and one that powers down has done so for longer than twice the policy's `suspend_timeout_seconds`.
pub fn remedy_unserved(row: &NodeRow) -> Option<Remedy> {
    let is_idle = row.is_cloud()
        && row.has("IDLE")
        && !row.holds_job()
        && !row.is_powering_up()
        && !row.has("POWER_UP")
        && !row.has("POWER_DOWN")
        && !is_somebodys(row);
    let unserved = if row.has("POWERING_DOWN") {
        Some(Remedy::Resume)
    } else {
        (!row.is_let_go()).then_some(Remedy::PowerDown)
    };
    remedy(row).or(unserved.filter(|_| is_idle))
}

/// Whether it is down or drained for a reason that is neither ours nor slurmctld's.
pub fn is_somebodys(row: &NodeRow) -> bool {
    let Some(reason) = row.reason.as_deref() else {
        return false;
    };
    let last = reason.rsplit(" : ").next().unwrap_or_default();
    let is_slurmctlds = SLURMCTLD_REASONS
        .iter()
        .any(|words| last.starts_with(words));
    let is_set = row.has("DOWN") || row.has("DRAIN");
    is_set && !row.reason_is_ours() && !is_slurmctlds
}

impl Slurm {
    /// Heals at most [`UPDATE_BATCH`] nodes, each as its state asks for now: what was seen before may be over, and a
    /// forced power-down kills a job.
    pub async fn recover(&self, nodes: &[&NodeName], reason: &str) -> Result<(), SlurmError> {
        let rows = self.rows_of(nodes).await?;
        let with = |remedy| chosen(&rows, remedy);
        self.fail(&with(Remedy::PowerDown), reason).await?;
        self.set(&with(Remedy::Idle), &["State=IDLE"]).await?;
        self.set(&with(Remedy::Resume), &["State=RESUME"]).await?;
        let strangers = rows
            .iter()
            .filter(|row| row.has("POWERED_DOWN") && row.has_own_address());
        let strangers = strangers.filter(|row| remedy(row).is_some());
        self.reset_addresses(&strangers.map(|row| &row.node).collect::<Vec<_>>())
            .await
    }

    /// Clears DOWN from nodes that were told to power down for their recovery, once they do.
    pub async fn clear_down(&self, nodes: &[&NodeName]) -> Result<(), SlurmError> {
        let give_up = Instant::now() + BEGIN_TIMEOUT;
        let mut left: Vec<&NodeName> = nodes.to_vec();
        loop {
            let rows = self.rows_of(&left).await?;
            for batch in chosen(&rows, Remedy::Idle).chunks(UPDATE_BATCH) {
                self.set(batch, &["State=IDLE"]).await?;
            }
            let late: HashSet<&NodeName> = rows
                .iter()
                .filter(|row| is_late(row))
                .map(|row| &row.node)
                .collect();
            left.retain(|node| late.contains(node));
            if left.is_empty() || Instant::now() >= give_up {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `NodeAddr` is the node's name again, as slurmctld has it for a node that is powered down.
    async fn reset_addresses(&self, nodes: &[&NodeName]) -> Result<(), SlurmError> {
        let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        let addresses = format!("NodeAddr={}", names.join(","));
        self.set(nodes, &[&addresses]).await
    }

    async fn rows_of(&self, nodes: &[&NodeName]) -> Result<Vec<NodeRow>, SlurmError> {
        let mut rows = by_name(self.cloud_nodes().await?);
        Ok(nodes.iter().filter_map(|node| rows.remove(*node)).collect())
    }
}

fn chosen(rows: &[NodeRow], which: Remedy) -> Vec<&NodeName> {
    let chosen = rows
        .iter()
        .filter(|row| remedy_unserved(row) == Some(which));
    chosen.map(|row| &row.node).collect()
}

/// Whether it is down and has yet to begin to power down.
fn is_late(row: &NodeRow) -> bool {
    row.has("DOWN") && !row.holds_job() && remedy(row) != Some(Remedy::Idle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_heals_what() {
        use Remedy::{Address, Idle, PowerDown, Resume};
        for (state, expected) in [
            ("IDLE+CLOUD", Some(PowerDown)),
            ("IDLE+CLOUD+NOT_RESPONDING", Some(PowerDown)),
            ("IDLE+CLOUD+NOT_RESPONDING+POWERING_UP", None),
            ("IDLE+CLOUD+POWER_DOWN", None),
            ("IDLE+CLOUD+POWERING_DOWN", Some(Resume)),
            ("IDLE+CLOUD+NOT_RESPONDING+POWERING_DOWN", Some(Resume)),
            ("DOWN+CLOUD+POWERING_DOWN", Some(Idle)),
            ("MIXED+CLOUD", None),
            ("IDLE+CLOUD+POWERED_DOWN", None),
            ("IDLE", None),
        ] {
            let row = NodeRow::parse(&format!("NodeName=c1 NodeAddr=c1 State={state}")).unwrap();
            assert_eq!(remedy_unserved(&row), expected, "{state}");
        }
        for (state, reason, expected) in [
            // Well, or on its way.
            ("IDLE+CLOUD+POWERED_DOWN", "", None),
            ("IDLE+CLOUD+POWERING_DOWN", "", None),
            ("IDLE+CLOUD", "", None),
            ("IDLE+CLOUD+NOT_RESPONDING+POWERING_UP", "", None),
            ("IDLE+CLOUD+NOT_RESPONDING", "", None),
            ("DOWN+CLOUD+POWER_DOWN+NOT_RESPONDING", "spillway: x", None),
            ("DOWN+CLOUD+POWER_UP+POWERED_DOWN", "", None),
            // Wedged.
            (
                "DOWN+CLOUD+NOT_RESPONDING+POWERING_UP",
                "Not responding",
                Some(PowerDown),
            ),
            (
                "DOWN+CLOUD+POWERED_DOWN",
                "ResumeTimeout reached",
                Some(Idle),
            ),
            (
                "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
                "ResumeTimeout reached",
                Some(PowerDown),
            ),
            ("DOWN+CLOUD+POWERING_DOWN", "spillway: x", Some(Idle)),
            (
                "IDLE+CLOUD+POWERED_DOWN+NOT_RESPONDING",
                "",
                Some(PowerDown),
            ),
            (
                "IDLE+CLOUD+DRAIN+INVALID_REG",
                "Low RealMemory (reported:1)",
                Some(PowerDown),
            ),
            ("IDLE+CLOUD+DRAIN", "spillway: spot", Some(PowerDown)),
            (
                "IDLE+CLOUD+DRAIN",
                "spillway: spot : Not responding",
                Some(PowerDown),
            ),
            (
                "IDLE+CLOUD+DRAIN+POWERED_DOWN",
                "spillway: spot",
                Some(PowerDown),
            ),
            (
                "DOWN+CLOUD+NOT_RESPONDING",
                "Not responding",
                Some(PowerDown),
            ),
            // A job holds it.
            ("ALLOCATED+CLOUD+DRAIN", "spillway: spot", None),
            ("MIXED+CLOUD+DRAIN+NOT_RESPONDING", "spillway: spot", None),
            ("DOWN+CLOUD+COMPLETING", "Not responding", None),
            // Somebody's, or not ours at all.
            ("IDLE+CLOUD+DRAIN", "disk", None),
            ("IDLE+CLOUD+DRAIN+INVALID_REG", "disk", None),
            ("DOWN+CLOUD", "broken : see ticket 7", None),
            ("DOWN+CLOUD+POWERED_DOWN", "broken", None),
            ("DOWN+POWERED_DOWN", "Not responding", None),
        ] {
            for (address, and_address) in [("c1", None), ("10.0.0.5", Some(Address))] {
                let line = format!(
                    "NodeName=c1 NodeAddr={address} State={state} x=1 Reason={reason} [root@1]"
                );
                let row = NodeRow::parse(&line).unwrap();
                let is_well = state == "IDLE+CLOUD+POWERED_DOWN";
                let expected = expected.or(and_address.filter(|_| is_well));
                assert_eq!(remedy(&row), expected, "{line}");
            }
        }
    }
}
