//! Whether an update is to be applied to a node, from what the node was last asked and what slurmctld
//! says of it. Pure: every rule of it is in the table of its tests.

use std::cmp::Ordering;
use std::net::IpAddr;

use spillway_core::name::Generation;

use super::memory::NodeHistory;
use crate::slurm::{NodeRow, remedy_unserved};

/// What is to be done with one node of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Tell slurmctld.
    Apply,
    /// slurmctld has it already, from somebody else.
    AlreadySo,
    /// This very update was applied before.
    Repeated,
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
    /// What is asked.
    pub wish: Wish,
}

/// What an update asks of slurmctld for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// This is its address.
    Address(IpAddr),
    /// It will not come, or is gone.
    Fail,
    /// It is to get no new jobs.
    Drain,
    /// Its jobs are to be queued again.
    Requeue,
    /// It is to be got out of a wedged state.
    Recover,
}

/// Judges. `history`: what the node was last asked here; `row`: slurmctld's word on it, none if it does
/// not show the node (then it is powered down).
pub fn judge(update: NodeUpdate, history: Option<NodeHistory>, row: Option<&NodeRow>) -> Verdict {
    let verdict = match (update.wish, history) {
        (Wish::Recover, None) if update.generation == Generation::FIRST => None,
        (_, None) => Some(stale("nothing was requested for it here")),
        (wish, Some(history)) => by_history(update, wish, history),
    };
    verdict.unwrap_or_else(|| match row {
        Some(row) => by_row(update.wish, row),
        None => stale("slurmctld does not show it: it is powered down"),
    })
}

/// The verdict, if what was asked and told before decides.
fn by_history(update: NodeUpdate, wish: Wish, history: NodeHistory) -> Option<Verdict> {
    if update.generation != history.generation {
        return Some(stale(&format!(
            "it answers request {}, the last one is {}",
            update.generation, history.generation
        )));
    }
    if !history.resume {
        // The number that is noted for a suspend may be that of our own failing: only the state tells.
        return (wish != Wish::Recover).then(|| stale("its last request is a suspend"));
    }
    match update.number.cmp(&history.applied) {
        Ordering::Less => Some(stale(&format!(
            "update {} was applied since",
            history.applied
        ))),
        Ordering::Equal => Some(Verdict::Repeated),
        Ordering::Greater => None,
    }
}

/// The verdict by slurmctld's word on the node.
fn by_row(wish: Wish, row: &NodeRow) -> Verdict {
    if wish == Wish::Recover {
        return recovery(row);
    }
    if row.is_let_go() {
        return stale(&format!("it is {}", row.state));
    }
    match wish {
        Wish::Address(address) if row.address == address.to_string() => Verdict::AlreadySo,
        // A node that has joined keeps the address it joined with: jobs have died of another's.
        Wish::Address(_) if !row.is_powering_up() => {
            stale(&format!("it is {} at {}", row.state, row.address))
        }
        // His reason stays.
        Wish::Drain if row.is_drained_by_others() => Verdict::AlreadySo,
        // A fail also goes to a node that has joined: the control plane has let its instance go.
        _ => Verdict::Apply,
    }
}

/// Whether a node is wedged, and nobody's job or will stands against its recovery.
fn recovery(row: &NodeRow) -> Verdict {
    if row.holds_job() {
        return stale(&format!("a job holds it: it is {}", row.state));
    }
    match remedy_unserved(row) {
        Some(_) => Verdict::Apply,
        None => stale(&format!("it is {}, which is not wedged", row.state)),
    }
}

fn stale(reason: &str) -> Verdict {
    Verdict::Stale(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use spillway_core::name::NodeName;

    use super::*;

    const COMING: &str = "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP";

    fn row(state: &str, address: &str, reason: Option<&str>) -> NodeRow {
        NodeRow {
            node: NodeName::new("cloud1").unwrap(),
            state: state.to_owned(),
            address: address.to_owned(),
            reason: reason.map(str::to_owned),
        }
    }

    fn history(generation: u64, resume: bool, applied: u64) -> NodeHistory {
        NodeHistory {
            generation: Generation::new(generation).unwrap(),
            resume,
            applied,
        }
    }

    /// One of each, in the order of the tables' columns.
    fn wishes() -> [Wish; 5] {
        let address = Wish::Address("10.0.0.5".parse().unwrap());
        [
            address,
            Wish::Fail,
            Wish::Drain,
            Wish::Requeue,
            Wish::Recover,
        ]
    }

    /// The verdict on update `number` that answers request 7.
    fn verdict(
        wish: Wish,
        number: u64,
        history: Option<NodeHistory>,
        row: Option<&NodeRow>,
    ) -> &'static str {
        let update = NodeUpdate {
            generation: Generation::new(7).unwrap(),
            number,
            wish,
        };
        word(&judge(update, history, row))
    }

    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Apply => "apply",
            Verdict::AlreadySo => "already so",
            Verdict::Repeated => "repeated",
            Verdict::Stale(_) => "stale",
        }
    }

    #[test]
    fn by_what_was_last_asked() {
        let coming = row(COMING, "cloud1", None);
        let wedged = row("DOWN+CLOUD+NOT_RESPONDING+POWERING_UP", "cloud1", None);
        // A recovery also answers a suspend, of whose updates nothing is noted but our own failing.
        let table = [
            (1, Some(history(7, true, 0)), "apply", "apply"),
            (1, None, "stale", "stale"),
            (1, Some(history(6, true, 0)), "stale", "stale"),
            (1, Some(history(8, true, 0)), "stale", "stale"),
            (1, Some(history(6, false, 0)), "stale", "stale"),
            (1, Some(history(8, false, 0)), "stale", "stale"),
            (1, Some(history(7, false, 0)), "stale", "apply"),
            (1, Some(history(7, false, 1)), "stale", "apply"),
            (2, Some(history(7, true, 1)), "apply", "apply"),
            (2, Some(history(7, true, 2)), "repeated", "repeated"),
            (2, Some(history(7, true, 3)), "stale", "stale"),
        ];
        for (number, history, others, recover) in table {
            for wish in wishes() {
                let (row, expected) = match wish {
                    Wish::Recover => (&wedged, recover),
                    _ => (&coming, others),
                };
                let verdict = verdict(wish, number, history, Some(row));
                assert_eq!(verdict, expected, "{wish:?} {number} {history:?}");
            }
        }
    }

    #[test]
    fn what_was_never_asked_for_may_be_recovered() {
        let wedged = row("DOWN+CLOUD+POWERED_DOWN", "cloud1", None);
        for (wish, history, expected) in [
            (Wish::Recover, None, "apply"),
            (Wish::Recover, Some(history(7, false, 0)), "stale"),
            (Wish::Fail, None, "stale"),
        ] {
            let update = NodeUpdate {
                generation: Generation::FIRST,
                number: 1,
                wish,
            };
            assert_eq!(word(&judge(update, history, Some(&wedged))), expected);
        }
    }

    const APPLY: &str = "apply";
    const STALE: &str = "stale";
    const OURS: &str = "spillway: spot";
    const HIS: &str = "disk";
    const DOWN: &str = "Not responding";

    /// State, address and reason; then what becomes of address, fail, drain, requeue and recover.
    const BY_STATE: [(&str, &str, &str, [&str; 5]); 17] = [
        (COMING, "cloud1", "", [APPLY, APPLY, APPLY, APPLY, STALE]),
        (
            "MIXED+CLOUD+POWERING_UP",
            "10.0.0.9",
            "",
            [APPLY, APPLY, APPLY, APPLY, STALE],
        ),
        (
            "MIXED+CLOUD+POWERING_UP",
            "10.0.0.5",
            "",
            ["already so", APPLY, APPLY, APPLY, STALE],
        ),
        (
            "ALLOCATED+CLOUD",
            "10.0.0.5",
            "",
            ["already so", APPLY, APPLY, APPLY, STALE],
        ),
        (
            "ALLOCATED+CLOUD",
            "10.0.0.9",
            "",
            [STALE, APPLY, APPLY, APPLY, STALE],
        ),
        (
            "IDLE+CLOUD",
            "10.0.0.9",
            "",
            [STALE, APPLY, APPLY, APPLY, APPLY],
        ),
        (
            "MIXED+CLOUD+DRAIN",
            "10.0.0.9",
            OURS,
            [STALE, APPLY, APPLY, APPLY, STALE],
        ),
        (
            "MIXED+CLOUD+DRAIN",
            "10.0.0.9",
            HIS,
            [STALE, APPLY, "already so", APPLY, STALE],
        ),
        (
            "IDLE+CLOUD+DRAIN",
            "10.0.0.9",
            OURS,
            [STALE, APPLY, APPLY, APPLY, APPLY],
        ),
        (
            "IDLE+CLOUD+DRAIN",
            "10.0.0.9",
            HIS,
            [STALE, APPLY, "already so", APPLY, STALE],
        ),
        (
            "IDLE+CLOUD+COMPLETING+DRAIN",
            "10.0.0.9",
            OURS,
            [STALE, APPLY, APPLY, APPLY, STALE],
        ),
        (
            "DOWN+CLOUD",
            "10.0.0.9",
            DOWN,
            [STALE, APPLY, APPLY, APPLY, APPLY],
        ),
        (
            "IDLE+CLOUD+POWERING_DOWN",
            "10.0.0.5",
            "",
            [STALE, STALE, STALE, STALE, APPLY],
        ),
        (
            "IDLE+CLOUD+POWERED_DOWN",
            "cloud1",
            "",
            [STALE, STALE, STALE, STALE, STALE],
        ),
        (
            "IDLE+CLOUD+POWERED_DOWN",
            "10.0.0.9",
            "",
            [STALE, STALE, STALE, STALE, APPLY],
        ),
        (
            "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
            "cloud1",
            DOWN,
            [STALE, STALE, STALE, STALE, APPLY],
        ),
        (
            "ALLOCATED+CLOUD+POWERED_DOWN+POWER_UP",
            "10.0.0.9",
            "",
            [STALE, STALE, STALE, STALE, STALE],
        ),
    ];

    #[test]
    fn by_what_slurmctld_says() {
        let asked = Some(history(7, true, 0));
        for (state, address, reason, expected) in BY_STATE {
            let row = row(
                state,
                address,
                Some(reason).filter(|reason| !reason.is_empty()),
            );
            let verdicts = wishes().map(|wish| verdict(wish, 1, asked, Some(&row)));
            assert_eq!(verdicts, expected, "{state} {address} {reason}");
        }
        for wish in wishes() {
            assert_eq!(verdict(wish, 1, asked, None), STALE);
        }
    }
}
