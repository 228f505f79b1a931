//! One line of `scontrol show nodes --oneliner`.

use spillway_core::name::NodeName;

/// What slurmctld says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRow {
    /// Which.
    pub node: NodeName,
    /// `+`-joined flags, as printed.
    pub state: String,
    /// `NodeAddr`.
    pub address: String,
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
        })
    }

    /// Whether a flag is set. Never compare whole states: versions add flags.
    pub fn has(&self, flag: &str) -> bool {
        self.state
            .split('+')
            .any(|set| set.trim_end_matches(['*', '#', '~', '%', '$', '@', '^', '!']) == flag)
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
        self.has("POWERED_DOWN") || self.has("POWERING_DOWN")
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
