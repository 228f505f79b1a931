//! Whether an update is to be applied to a node, from what the node was last asked and what slurmctld
//! says of it. Pure: every rule of it is in the table of its tests.

use std::net::IpAddr;

use spillway_core::name::Generation;

use super::memory::NodeHistory;
use crate::slurm::NodeRow;

/// What is to be done with one node of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Tell slurmctld.
    Apply,
    /// slurmctld has it already.
    AlreadySo,
    /// Nothing may be done, because of this.
    Stale(String),
}

/// An update as far as it concerns one node.
#[derive(Debug, Clone, Copy)]
pub struct NodeUpdate {
    /// The request it answers.
    pub generation: Generation,
    /// Its number within that.
    pub number: u64,
    /// The node's address; none for a fail.
    pub address: Option<IpAddr>,
}

/// Judges. `history`: what the node was last asked here; `row`: slurmctld's word on it, none if it does
/// not show the node (then it is powered down).
pub fn judge(update: NodeUpdate, history: Option<NodeHistory>, row: Option<&NodeRow>) -> Verdict {
    let Some(history) = history else {
        return stale("nothing was requested for it here");
    };
    if update.generation != history.generation {
        return stale(&format!(
            "it answers request {}, the last one is {}",
            update.generation, history.generation
        ));
    }
    if !history.resume {
        return stale("its last request is a suspend");
    }
    if update.number < history.applied {
        return stale(&format!("update {} was applied since", history.applied));
    }
    if update.number == history.applied {
        return Verdict::AlreadySo;
    }
    let Some(row) = row else {
        return stale("slurmctld does not show it: it is powered down");
    };
    if row.is_let_go() {
        return stale(&format!("it is {}", row.state));
    }
    match update.address {
        Some(address) if row.address == address.to_string() => Verdict::AlreadySo,
        // A node that has joined keeps the address it joined with: jobs have died of another's.
        Some(_) if !row.is_powering_up() => {
            stale(&format!("it is {} at {}", row.state, row.address))
        }
        // A fail also goes to a node that has joined: the control plane has let its instance go.
        _ => Verdict::Apply,
    }
}

fn stale(reason: &str) -> Verdict {
    Verdict::Stale(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use spillway_core::name::NodeName;

    use super::*;

    fn row(state: &str, address: &str) -> NodeRow {
        NodeRow {
            node: NodeName::new("cloud1").unwrap(),
            state: state.to_owned(),
            address: address.to_owned(),
        }
    }

    fn history(generation: u64, resume: bool, applied: u64) -> NodeHistory {
        NodeHistory {
            generation: Generation::new(generation).unwrap(),
            resume,
            applied,
        }
    }

    /// The verdict on update `number` that answers request 7.
    fn verdict(
        fail: bool,
        number: u64,
        history: Option<NodeHistory>,
        row: Option<&NodeRow>,
    ) -> &'static str {
        let address: IpAddr = "10.0.0.5".parse().unwrap();
        let update = NodeUpdate {
            generation: Generation::new(7).unwrap(),
            number,
            address: (!fail).then_some(address),
        };
        match judge(update, history, row) {
            Verdict::Apply => "apply",
            Verdict::AlreadySo => "already so",
            Verdict::Stale(_) => "stale",
        }
    }

    #[test]
    fn by_what_was_last_asked() {
        let coming = row("ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP", "cloud1");
        let table = [
            (1, Some(history(7, true, 0)), "apply"),
            (1, None, "stale"),
            (1, Some(history(6, true, 0)), "stale"),
            (1, Some(history(8, true, 0)), "stale"),
            (1, Some(history(7, false, 0)), "stale"),
            (2, Some(history(7, true, 1)), "apply"),
            (2, Some(history(7, true, 2)), "already so"),
            (2, Some(history(7, true, 3)), "stale"),
        ];
        for (number, history, expected) in table {
            for fail in [false, true] {
                assert_eq!(
                    verdict(fail, number, history, Some(&coming)),
                    expected,
                    "{history:?}"
                );
            }
        }
    }

    #[test]
    fn by_what_slurmctld_says() {
        let asked = Some(history(7, true, 0));
        let table = [
            (
                "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP",
                "cloud1",
                "apply",
                "apply",
            ),
            ("MIXED+CLOUD+POWERING_UP", "10.0.0.9", "apply", "apply"),
            ("MIXED+CLOUD+POWERING_UP", "10.0.0.5", "already so", "apply"),
            ("ALLOCATED+CLOUD", "10.0.0.5", "already so", "apply"),
            ("ALLOCATED+CLOUD", "10.0.0.9", "stale", "apply"),
            ("DOWN+CLOUD", "10.0.0.9", "stale", "apply"),
            ("IDLE+CLOUD+POWERING_DOWN", "10.0.0.5", "stale", "stale"),
            ("IDLE+CLOUD+POWERED_DOWN", "cloud1", "stale", "stale"),
            (
                "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
                "cloud1",
                "stale",
                "stale",
            ),
        ];
        for (state, address, on_address, on_fail) in table {
            let row = row(state, address);
            assert_eq!(
                verdict(false, 1, asked, Some(&row)),
                on_address,
                "{state} {address}"
            );
            assert_eq!(
                verdict(true, 1, asked, Some(&row)),
                on_fail,
                "{state} {address}"
            );
        }
        assert_eq!(verdict(false, 1, asked, None), "stale");
        assert_eq!(verdict(true, 1, asked, None), "stale");
    }
}
