//! A cool-off in Slurm: a reservation over those nodes of a node group that are at rest. slurmctld does not offer
//! them until it ends, which it does by itself, whoever is alive then, and also when slurmctld was reconfigured
//! or killed in between. Nothing is said of the nodes themselves, so that their state and `Reason` stay as they
//! are (`docs/slurm-states.md` tells what was seen on which version).

use std::collections::{BTreeSet, HashMap};

use spillway_core::hostlist::{self, Hostlist};
use spillway_core::name::{NodeGroupName, NodeName};

use super::{NodeRow, Slurm, SlurmError, by_name, reason_text};
use crate::nodes;

/// What the reservation of a node group is called: this and the group's name.
const NAME_PREFIX: &str = "spillway-";
/// MAINT: `sinfo` shows `maint`, and the time is not accounted as somebody's use. `IGNORE_JOBS`: a failed node's
/// job may still be completing there. OVERLAP: the site's own reservations stand in nobody's way, nor in ours.
const FLAGS: &str = "Flags=MAINT,IGNORE_JOBS,OVERLAP";
/// Who could run jobs in it, if they asked for it by name. Root: the one user that Slurm's accounting has an
/// association for on every cluster, which slurmctld asks for where associations are enforced.
const USERS: &str = "Users=root";

/// A node group that is to rest.
#[derive(Debug, Clone, Copy)]
pub struct Rest<'a> {
    /// Which.
    pub node_group: &'a NodeGroupName,
    /// Its nodes. What is not among them is never touched.
    pub nodes: &'a [NodeName],
    /// Until when, Unix seconds.
    pub until_seconds: u64,
    /// Shown with the reservation, where Slurm can.
    pub reason: &'a str,
}

/// A reservation as slurmctld shows it.
#[derive(Debug, PartialEq, Eq)]
struct Reservation {
    nodes: BTreeSet<NodeName>,
    end_seconds: u64,
}

impl Slurm {
    /// Keeps the group's nodes that are at rest from being offered until then; says which nodes are kept back, as a
    /// hostlist. What is kept back already may only be kept for longer; nodes that came up in between are set free.
    pub async fn keep_back(&self, rest: &Rest<'_>, now_seconds: u64) -> Result<String, SlurmError> {
        let rows = by_name(self.nodes().await?);
        let kept = at_rest(rest.nodes, &rows);
        if kept.is_empty() {
            return Ok(String::new());
        }
        let name = format!("{NAME_PREFIX}{}", rest.node_group);
        let present = self.reservation(&name).await?;
        let end_seconds = present.as_ref().map_or(0, |present| present.end_seconds);
        let is_enough = |present: &Reservation| present.is_enough(&kept, rest.until_seconds);
        if present.as_ref().is_some_and(is_enough) {
            return Ok(fold(&kept));
        }
        // Slurm reads an absolute time in the time zone of the place. Counted from a moment ago, the reservation may
        // end a second later and never earlier.
        let until_seconds = end_seconds.max(rest.until_seconds);
        let left_seconds = until_seconds.saturating_sub(now_seconds);
        let name = format!("ReservationName={name}");
        let end = format!("EndTime=now+{left_seconds}seconds");
        // Updated also if it has ended and slurmctld has yet to forget it, which takes it half a minute.
        let words = if present.is_some() {
            vec!["update", &name, &end]
        } else {
            let start = "StartTime=now";
            vec!["create", "reservation", &name, start, &end, USERS, FLAGS]
        };
        self.reserve(&words, &kept, &rows, rest.reason).await
    }

    /// Reserves all of `kept`; if slurmctld does not know one of them, those that it shows. (One that is not shown
    /// is hidden because it is powered down, or does not exist.)
    async fn reserve(
        &self,
        words: &[&str],
        kept: &[NodeName],
        rows: &HashMap<NodeName, NodeRow>,
        reason: &str,
    ) -> Result<String, SlurmError> {
        let nodes = fold(kept);
        let told = self.tell_reservation(words, &nodes, reason).await;
        if !matches!(&told, Err(SlurmError::Refused { reason, .. }) if reason.contains("node name"))
        {
            return told.map(|()| nodes);
        }
        let shown = kept.iter().filter(|node| rows.contains_key(*node));
        let shown = fold(&shown.cloned().collect::<Vec<_>>());
        if shown.is_empty() {
            return told.map(|()| nodes);
        }
        self.tell_reservation(words, &shown, reason)
            .await
            .map(|()| shown)
    }

    async fn tell_reservation(
        &self,
        words: &[&str],
        nodes: &str,
        reason: &str,
    ) -> Result<(), SlurmError> {
        let nodes = format!("Nodes={nodes}");
        let comment = format!("Comment={}", reason_text(reason));
        let words = [words, &[nodes.as_str()]].concat();
        let told = self
            .run("scontrol", &[&words[..], &[&comment]].concat())
            .await;
        match told {
            // 22.05.8 knows no comments of reservations.
            Err(SlurmError::Refused { reason, .. }) if reason.contains("parameter Comment") => {
                self.run("scontrol", &words).await.map(drop)
            }
            told => told.map(drop),
        }
    }

    async fn reservation(&self, name: &str) -> Result<Option<Reservation>, SlurmError> {
        let text = self
            .run("scontrol", &["show", "reservation", "--oneliner"])
            .await?;
        Ok(text.lines().find_map(|line| Reservation::parse(line, name)))
    }
}

/// Those of `nodes` that are at rest, in order. One that is not shown is powered down.
fn at_rest(nodes: &[NodeName], rows: &HashMap<NodeName, NodeRow>) -> Vec<NodeName> {
    let is_at_rest = |node: &&NodeName| {
        rows.get(*node)
            .is_none_or(|row| row.is_cloud() && row.is_at_rest())
    };
    let mut kept: Vec<NodeName> = nodes.iter().filter(is_at_rest).cloned().collect();
    nodes::sort(&mut kept);
    kept
}

fn fold(nodes: &[NodeName]) -> String {
    hostlist::fold(nodes)
}

impl Reservation {
    /// Reads a line of `scontrol show reservation --oneliner`, if it is about the reservation of this name.
    fn parse(line: &str, name: &str) -> Option<Self> {
        let field = |key: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
        };
        if field("ReservationName=")? != name {
            return None;
        }
        let nodes = Hostlist::parse(field("Nodes=")?).ok()?.node_names().ok()?;
        Some(Self {
            nodes: nodes.into_iter().collect(),
            end_seconds: field("EndTime=")?.parse().ok()?,
        })
    }

    fn is_enough(&self, nodes: &[NodeName], until_seconds: u64) -> bool {
        self.end_seconds >= until_seconds
            && self.nodes.len() == nodes.len()
            && nodes.iter().all(|node| self.nodes.contains(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(hostlist: &str) -> Vec<NodeName> {
        Hostlist::parse(hostlist).unwrap().node_names().unwrap()
    }

    #[test]
    fn who_is_kept_back() {
        let states = [
            ("c1", "IDLE+CLOUD+POWER_DOWN+NOT_RESPONDING"),
            ("c2", "IDLE+CLOUD+POWERED_DOWN"),
            ("c3", "ALLOCATED+CLOUD"),
            ("c4", "IDLE+CLOUD"),
            ("c5", "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP"),
            ("c6", "IDLE+POWERED_DOWN"),
            ("other", "IDLE+CLOUD+POWERED_DOWN"),
        ];
        let rows = states.map(|(node, state)| {
            NodeRow::parse(&format!(
                "NodeName={node} NodeAddr={node} State={state} x=1"
            ))
            .unwrap()
        });
        let kept = at_rest(&names("c[1-6,9-10]"), &by_name(rows.into()));
        // Not one that is up, coming, on-premises or not of the group; c9 and c10 are not shown.
        assert_eq!(fold(&kept), "c[1-2,9-10]");
    }

    #[test]
    fn a_reservation_of_22_05() {
        let line = "ReservationName=spillway-g1 StartTime=1795820242 EndTime=1795820282 Duration=00:00:40 Nodes=c[3-6] NodeCnt=4 CoreCnt=4 Features=(null) PartitionName=(null) Flags=MAINT,OVERLAP,IGNORE_JOBS,SPEC_NODES TRES=cpu=4 Users=root Groups=(null) Accounts=(null) Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)";
        let read = Reservation::parse(line, "spillway-g1").unwrap();
        assert_eq!(read.end_seconds, 1_795_820_282);
        assert_eq!(read.nodes, names("c[3-6]").into_iter().collect());
        for (nodes, until_seconds, is_enough) in [
            ("c[3-6]", 1_795_820_282, true),
            ("c[3-6]", 1_795_820_000, true),
            ("c[3-6]", 1_795_820_283, false),
            ("c[3-5]", 1_795_820_282, false),
            ("c[3-7]", 1_795_820_282, false),
            ("c[2-5]", 1_795_820_282, false),
        ] {
            let nodes = names(nodes);
            assert_eq!(read.is_enough(&nodes, until_seconds), is_enough);
        }
        assert_eq!(Reservation::parse(line, "spillway-g"), None);
        assert_eq!(
            Reservation::parse("No reservations in the system", "a"),
            None
        );
    }
}
