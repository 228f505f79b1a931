//! Nodes taken from jobs and given to them: failed, drained, powered up.

use std::collections::HashSet;

use spillway_core::envelope;
use spillway_core::hostlist::Hostlist;
use spillway_core::name::NodeName;

use super::{NodeRow, Slurm, SlurmError, UPDATE_BATCH, by_name, reason_text};
use crate::nodes;

/// Flags of a node that is powered down and not to be had, or on its way up already. A planned node is powered up by
/// the job that it is planned for.
const NOT_TO_BE_HAD: [&str; 10] = [
    "DRAIN",
    "MAINTENANCE",
    "RESERVED",
    "PLANNED",
    "POWER_UP",
    "POWERING_UP",
    "POWER_DOWN",
    "POWERING_DOWN",
    "NOT_RESPONDING",
    "FAIL",
];

impl Slurm {
    /// Takes at most [`UPDATE_BATCH`] nodes that power up away from Slurm, with our reason.
    ///
    /// One `power_down_force` and no `state=down` before it. Measured on slurmctld 22.05.8, nodes
    /// `ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP`, ResumeTimeout 40, SuspendTimeout 10:
    ///
    /// | | `power_down_force` alone | `down`, then `power_down_force` |
    /// |---|---|---|
    /// | job | requeued at once (also one of several nodes; srun ends with "Node failure") | the same |
    /// | Reason | ours at once, and still when powered down | the same |
    /// | node at once | `IDLE+CLOUD+POWERING_DOWN` | `DOWN+CLOUD+POWERING_DOWN` (`IDLE` with `idle_on_node_suspend`) |
    /// | SuspendProgram | called within a second | the same |
    /// | after SuspendTimeout | `IDLE+CLOUD+POWERED_DOWN`: usable | **`DOWN+CLOUD+POWERED_DOWN` for ever** (`IDLE` with `idle_on_node_suspend`) |
    ///
    /// Never `resume` or `undrain`: they leave a powered-down node unschedulable after the next
    /// reconfigure (22.05.8, 24.11.5). A drain, also one of ours, is gone with it at `POWERING_DOWN` (22.05.8,
    /// 24.11.5, 26.05.5).
    pub async fn fail(&self, nodes: &[&NodeName], reason: &str) -> Result<(), SlurmError> {
        let reason = format!("Reason={}", reason_text(reason));
        self.set(nodes, &["State=POWER_DOWN_FORCE", &reason]).await
    }

    /// Lets no new job start on at most [`UPDATE_BATCH`] nodes; those that run there go on.
    pub async fn drain(&self, nodes: &[&NodeName], reason: &str) -> Result<(), SlurmError> {
        let reason = format!("Reason={}", reason_text(&envelope::reason(reason)));
        self.set(nodes, &["State=DRAIN", &reason]).await
    }

    /// Powers up as many of `candidates` as are to be had, at most `count`; says which.
    pub async fn power_up_some(
        &self,
        candidates: &[NodeName],
        count: usize,
    ) -> Result<Vec<NodeName>, SlurmError> {
        let rows = by_name(self.nodes().await?);
        let is_shown = |node: &&NodeName| rows.get(*node).is_some_and(is_to_be_had);
        let mut chosen: Vec<&NodeName> = candidates.iter().filter(is_shown).take(count).collect();
        if chosen.len() < count {
            // What is not shown is powered down, and whether it is reserved is said elsewhere.
            let reserved = self.reserved().await?;
            let is_hidden =
                |node: &&NodeName| !rows.contains_key(*node) && !reserved.contains(*node);
            let missing = count - chosen.len();
            chosen.extend(candidates.iter().filter(is_hidden).take(missing));
        }
        nodes::sort(&mut chosen);
        for batch in chosen.chunks(UPDATE_BATCH) {
            self.set(batch, &["State=POWER_UP"]).await?;
        }
        Ok(chosen.into_iter().cloned().collect())
    }

    /// The nodes of all reservations.
    async fn reserved(&self) -> Result<HashSet<NodeName>, SlurmError> {
        let text = self
            .run("scontrol", &["show", "reservation", "--oneliner"])
            .await?;
        let lists = text
            .split_whitespace()
            .filter_map(|word| Hostlist::parse(word.strip_prefix("Nodes=")?).ok());
        Ok(lists
            .filter_map(|list| list.node_names().ok())
            .flatten()
            .collect())
    }

    /// `scontrol update` of at most [`UPDATE_BATCH`] nodes; nothing for none.
    pub(super) async fn set(&self, nodes: &[&NodeName], words: &[&str]) -> Result<(), SlurmError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
        let names = format!("NodeName={}", names.join(","));
        self.run("scontrol", &[&["update", &names], words].concat())
            .await
            .map(drop)
    }
}

/// Whether a job that came now would get it, once it is powered up.
fn is_to_be_had(row: &NodeRow) -> bool {
    row.is_cloud()
        && row.has("IDLE")
        && row.has("POWERED_DOWN")
        && !NOT_TO_BE_HAD.iter().any(|flag| row.has(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_had() {
        for (state, expected) in [
            ("IDLE+CLOUD+POWERED_DOWN", true),
            ("IDLE+POWERED_DOWN", false),
            ("IDLE+CLOUD", false),
            ("IDLE+CLOUD+POWERING_DOWN", false),
            ("IDLE+CLOUD+POWER_UP+POWERED_DOWN", false),
            ("ALLOCATED+CLOUD+POWER_UP+POWERED_DOWN", false),
            ("DOWN+CLOUD+POWERED_DOWN", false),
            ("IDLE+CLOUD+DRAIN+POWERED_DOWN", false),
            ("IDLE+CLOUD+MAINTENANCE+POWERED_DOWN+RESERVED", false),
            ("IDLE+CLOUD+POWERED_DOWN+PLANNED", false),
            ("IDLE+CLOUD+POWERED_DOWN+NOT_RESPONDING", false),
        ] {
            let row = NodeRow::parse(&format!("NodeName=c1 State={state} x=1")).unwrap();
            assert_eq!(is_to_be_had(&row), expected, "{state}");
        }
    }
}
