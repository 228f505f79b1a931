//! One line of `scontrol show nodes --oneliner`.

use spillway_core::envelope::REASON_MARK;
use spillway_core::name::NodeName;
use spillway_core::node_state::NodeState;

/// What slurmctld says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Which.
    pub node: NodeName,
    /// `+`-joined flags, as printed.
    pub state: String,
    /// `NodeAddr`.
    pub address: String,
    /// `Reason`, without who set it and when; none if it is empty.
    pub reason: Option<String>,
}

impl NodeRow {
    /// Reads a line; none if it is not about a node.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let field = |key: &str| {
            let (_, rest) = line.split_once(key)?;
            rest.split_whitespace().next()
        };
        Some(Self {
            node: NodeName::new(line.strip_prefix("NodeName=")?.split_whitespace().next()?).ok()?,
            state: field(" State=")?.to_owned(),
            // Missing while a node has none of its own.
            address: field(" NodeAddr=").unwrap_or_default().to_owned(),
            reason: reason(line),
        })
    }

    /// Its flags.
    fn flags(&self) -> NodeState<'_> {
        NodeState(&self.state)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: &str) -> bool {
        self.flags().has(flag)
    }

    /// Whether it is one of `State=CLOUD`: on-premises nodes are none of our business.
    pub fn is_cloud(&self) -> bool {
        self.has("CLOUD")
    }

    /// Whether Slurm waits for it to come.
    pub fn is_powering_up(&self) -> bool {
        self.has("POWERING_UP")
    }

    /// Whether Slurm has let it go.
    pub fn is_let_go(&self) -> bool {
        self.flags().is_let_go()
    }

    /// Whether a job holds it, or is not quite off it yet.
    pub fn holds_job(&self) -> bool {
        self.flags().has_job()
    }

    /// Whether its `Reason` is one of ours.
    pub fn reason_is_ours(&self) -> bool {
        let reason = self.reason.as_deref();
        reason.is_some_and(|reason| reason.starts_with(REASON_MARK))
    }

    /// Whether somebody else drained it, an administrator as a rule.
    pub fn is_drained_by_others(&self) -> bool {
        self.has("DRAIN") && !self.reason_is_ours()
    }

    /// Whether it has an address of its own: slurmctld gives it back its name once it is powered down.
    pub fn has_own_address(&self) -> bool {
        !self.address.is_empty() && self.address != self.node.as_str()
    }

    /// Whether it is let go, or about to be, and no job waits for it. A node told to power down shows
    /// `POWER_DOWN` first, for seconds on 24.11 and 26.05; one that is to come back shows `POWER_UP` or its job
    /// while it still is `POWERED_DOWN`.
    pub fn is_at_rest(&self) -> bool {
        let leaves = self.is_let_go() || self.has("POWER_DOWN");
        let is_wanted = ["ALLOCATED", "MIXED", "POWER_UP"]
            .iter()
            .any(|flag| self.has(flag));
        leaves && !is_wanted
    }
}

/// The reason in a line: up to who set it and when, for other fields may follow.
fn reason(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" Reason=")?;
    let signatures = rest.match_indices(" [").filter(|(at, _)| {
        let inside = rest[at + 2..].split(']').next().unwrap_or_default();
        inside.contains('@') && !inside.contains(char::is_whitespace)
    });
    let end = signatures.map(|(at, _)| at).next();
    let text = rest[..end.unwrap_or(rest.len())].trim();
    (!text.is_empty() && text != "(null)").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_22_05() {
        let line = "NodeName=cloud4 CoresPerSocket=1  CPUAlloc=0 Gres=(null) NodeAddr=127.0.0.5 NodeHostName=cloud4  RealMemory=100 State=ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP ThreadsPerCore=1 Partitions=cloud  BootTime=None Reason=spillway: State=DOWN NodeAddr=none [root@2026-11-23T12:54:28]";
        let row = NodeRow::parse(line).unwrap();
        assert_eq!(row.node.as_str(), "cloud4");
        assert_eq!(row.address, "127.0.0.5");
        assert!(row.is_cloud() && row.is_powering_up() && !row.is_let_go());
        assert!(!row.has("POWERING") && !row.has("DOWN"));
        let reason = "spillway: State=DOWN NodeAddr=none";
        assert_eq!(row.reason.as_deref(), Some(reason));
    }

    #[test]
    fn a_reason_ends_where_its_author_begins() {
        for (text, expected) in [
            ("x=1", None),
            ("Reason= [root@1795820242]", None),
            ("Reason=bad disk [root@1795820242]", Some("bad disk")),
            (
                "Reason=disk [2] of a@b [root@1795820242] Comment=x [y]",
                Some("disk [2] of a@b"),
            ),
            ("Reason=never signed", Some("never signed")),
        ] {
            let line = format!("NodeName=c1 State=IDLE+CLOUD {text}");
            let row = NodeRow::parse(&line).unwrap();
            assert_eq!(row.reason.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn who_drained_it() {
        for (state, reason, by_others) in [
            ("IDLE+CLOUD+DRAIN", "spillway: spot", false),
            ("IDLE+CLOUD+DRAIN", "disk", true),
            ("IDLE+CLOUD", "disk", false),
        ] {
            let line = format!("NodeName=c1 State={state} Reason={reason} [slurm@1]");
            let row = NodeRow::parse(&line).unwrap();
            assert_eq!(row.is_drained_by_others(), by_others, "{line}");
        }
    }

    #[test]
    fn at_rest_is_what_leaves_and_nobody_wants() {
        for (state, is_at_rest) in [
            ("IDLE+CLOUD+POWERED_DOWN", true),
            ("DOWN+CLOUD+POWERED_DOWN", true),
            ("IDLE+CLOUD+POWERING_DOWN", true),
            ("IDLE+CLOUD+MAINTENANCE+POWERED_DOWN+RESERVED+PLANNED", true),
            ("IDLE+CLOUD+POWER_DOWN+NOT_RESPONDING+POWERING_UP", true),
            ("IDLE+CLOUD+POWER_UP+POWERED_DOWN", false),
            ("ALLOCATED+CLOUD+POWER_UP+POWERED_DOWN", false),
            ("ALLOCATED+CLOUD+POWER_DOWN", false),
            ("ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP", false),
            ("IDLE+CLOUD+NOT_RESPONDING+POWERING_UP", false),
            ("MIXED+CLOUD", false),
            ("IDLE+CLOUD", false),
            ("DOWN+CLOUD", false),
        ] {
            let line = format!("NodeName=c1 NodeAddr=c1 State={state} ThreadsPerCore=1");
            let row = NodeRow::parse(&line).unwrap();
            assert_eq!(row.is_at_rest(), is_at_rest, "{state}");
        }
    }

    #[test]
    fn other_lines_are_none() {
        assert_eq!(NodeRow::parse(""), None);
        assert_eq!(NodeRow::parse("slurm_load_node error: x"), None);
        assert!(!NodeRow::parse("NodeName=p1 State=IDLE").unwrap().is_cloud());
    }
}
