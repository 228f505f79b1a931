//! What is reported of the cloud nodes: those at rest by their state alone, the others with what the sweep needs to
//! know of each. The report stays within bounds, whatever the number of nodes and of reasons.

use std::collections::{BTreeMap, HashMap};

use spillway_core::envelope::MAX_REASON_CHARS;
use spillway_core::hostlist;
use spillway_core::message::{MAX_DETAILED_NODES, NodesInState};
use spillway_core::name::{Generation, NodeName};

use crate::nodes;
use crate::slurm::{NodeRow, remedy};

/// The most entries with details: where each node has a reason of its own, an entry is some 300 bytes, and all
/// together are to stay as small as [`MAX_DETAILED_NODES`] in one entry.
const MAX_DETAILED_ENTRIES: usize = 500;

/// Folds nodes by state and reason. `generations`: the last request stamped for each here, as it was before slurmctld
/// was asked: so a state is never told of an older request than it answers.
pub fn node_states(
    rows: Vec<NodeRow>,
    generations: &HashMap<NodeName, Generation>,
) -> Vec<NodesInState> {
    let mut plain: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
    // What can be healed comes first: it must not fall behind the bound.
    let mut detailed: BTreeMap<(bool, String, Option<String>), Vec<NodeRow>> = BTreeMap::new();
    for row in rows {
        if is_at_rest_and_well(&row) {
            plain.entry(row.state).or_default().push(row.node);
        } else {
            let key = (
                remedy(&row).is_none(),
                row.state.clone(),
                row.reason.clone(),
            );
            detailed.entry(key).or_default().push(row);
        }
    }
    let mut left = MAX_DETAILED_NODES;
    let mut states = Vec::new();
    for ((_, state, reason), mut rows) in detailed {
        rows.sort_by(|a, b| nodes::compare(a.node.as_str(), b.node.as_str()));
        let fits = if states.len() < MAX_DETAILED_ENTRIES {
            rows.len().min(left)
        } else {
            0
        };
        let beyond = rows.split_off(fits);
        left -= fits;
        if !rows.is_empty() {
            states.push(with_details(state.clone(), reason, &rows, generations));
        }
        if !beyond.is_empty() {
            let names = beyond.into_iter().map(|row| row.node);
            plain.entry(state).or_default().extend(names);
        }
    }
    states.extend(plain.into_iter().map(|(state, mut names)| {
        nodes::sort(&mut names);
        NodesInState {
            state,
            nodes: hostlist::fold(names),
            reason: None,
            addresses: Vec::new(),
            generations: Vec::new(),
        }
    }));
    states
}

fn is_at_rest_and_well(row: &NodeRow) -> bool {
    let is_at_rest = row.is_at_rest() && row.has("IDLE") && row.has("POWERED_DOWN");
    is_at_rest && !row.has("DRAIN") && !row.has_own_address() && remedy(row).is_none()
}

/// `rows`: in the order in which they are folded.
fn with_details(
    state: String,
    reason: Option<String>,
    rows: &[NodeRow],
    generations: &HashMap<NodeName, Generation>,
) -> NodesInState {
    let generation = |row: &NodeRow| generations.get(&row.node).map_or(0, |stamp| stamp.get());
    NodesInState {
        state,
        nodes: hostlist::fold(rows.iter().map(|row| &row.node)),
        reason: reason.map(|reason| reason.chars().take(MAX_REASON_CHARS).collect()),
        addresses: rows.iter().map(|row| row.address.clone()).collect(),
        generations: rows.iter().map(generation).collect(),
    }
}

#[cfg(test)]
mod tests {
    use spillway_core::hostlist::Hostlist;

    use super::*;

    fn row(node: &str, state: &str, address: &str, reason: &str) -> NodeRow {
        let line = format!(
            "NodeName={node} NodeAddr={address} State={state} x=1 Reason={reason} [root@1]"
        );
        NodeRow::parse(&line).unwrap()
    }

    fn stamps(of: &[(&str, u64)]) -> HashMap<NodeName, Generation> {
        let stamp = |&(node, stamp): &(&str, u64)| {
            (
                NodeName::new(node).unwrap(),
                Generation::new(stamp).unwrap(),
            )
        };
        of.iter().map(stamp).collect()
    }

    #[test]
    fn what_rests_is_told_by_state_and_the_others_in_detail() {
        let rest = "IDLE+CLOUD+POWERED_DOWN";
        let rows = vec![
            row("c10", rest, "c10", ""),
            row("c9", rest, "c9", "spillway: no capacity"),
            row("c8", rest, "10.0.0.8", ""),
            row("c7", "DOWN+CLOUD+POWERED_DOWN", "c7", "Not responding"),
            row("c20", "ALLOCATED+CLOUD", "10.0.0.20", ""),
            row("c3", "ALLOCATED+CLOUD", "10.0.0.3", ""),
            row("c4", "ALLOCATED+CLOUD+DRAIN", "10.0.0.4", "disk"),
            row("c5", "IDLE+CLOUD+POWERING_DOWN", "10.0.0.5", ""),
        ];
        let states = node_states(rows, &stamps(&[("c20", 7), ("c7", 5), ("c9", 4)]));
        let told: Vec<_> = states
            .iter()
            .map(|told| {
                let reason = told.reason.as_deref().unwrap_or_default();
                let details = format!("{} {:?}", told.addresses.join(","), told.generations);
                (&told.state[..], &told.nodes[..], reason, details)
            })
            .collect();
        let expected = [
            ("DOWN+CLOUD+POWERED_DOWN", "c7", "Not responding", "c7 [5]"),
            (rest, "c8", "", "10.0.0.8 [0]"),
            (
                "ALLOCATED+CLOUD",
                "c[3,20]",
                "",
                "10.0.0.3,10.0.0.20 [0, 7]",
            ),
            ("ALLOCATED+CLOUD+DRAIN", "c4", "disk", "10.0.0.4 [0]"),
            ("IDLE+CLOUD+POWERING_DOWN", "c5", "", "10.0.0.5 [0]"),
            (rest, "c[9-10]", "", " []"),
        ];
        assert_eq!(
            told,
            expected.map(|(state, nodes, reason, details)| (
                state,
                nodes,
                reason,
                details.to_owned()
            ))
        );
    }

    #[test]
    fn details_are_in_the_order_of_the_hostlist() {
        let names = ["b2", "a10", "a9", "a09", "b", "a-1-x", "a1", "b10", "a2b3"];
        let of = |name: &&str| row(name, "IDLE+CLOUD", &format!("at-{name}"), "");
        let states = node_states(names.iter().map(of).collect(), &HashMap::new());
        let [told] = &states[..] else {
            panic!("{states:?}");
        };
        let nodes = Hostlist::parse(&told.nodes).unwrap().node_names().unwrap();
        let expected: Vec<String> = nodes.iter().map(|node| format!("at-{node}")).collect();
        assert_eq!(told.addresses, expected, "{}", told.nodes);
    }

    #[test]
    fn beyond_the_bounds_only_the_state_is_told_and_what_is_wedged_comes_first() {
        let up = |n: usize| row(&format!("c{n}"), "ALLOCATED+CLOUD", "10.0.0.1", "");
        let mut rows: Vec<NodeRow> = (0..=MAX_DETAILED_NODES).map(up).collect();
        rows.push(row("z1", "DOWN+CLOUD", "10.0.0.2", "Not responding"));
        let states = node_states(rows, &HashMap::new());
        assert_eq!(states[0].nodes, "z1");
        let details: Vec<usize> = states.iter().map(|told| told.addresses.len()).collect();
        assert_eq!(details, [1, MAX_DETAILED_NODES - 1, 0]);
        assert_eq!(
            states[2].nodes,
            format!("c[{}-{MAX_DETAILED_NODES}]", MAX_DETAILED_NODES - 1)
        );
        let each = |n: usize| row(&format!("c{n}"), "IDLE+CLOUD", "10.0.0.1", &format!("r{n}"));
        let states = node_states(
            (0..2 * MAX_DETAILED_ENTRIES).map(each).collect(),
            &HashMap::new(),
        );
        assert_eq!(states.len(), MAX_DETAILED_ENTRIES + 1);
        assert_eq!(states[MAX_DETAILED_ENTRIES].reason, None);
    }
}
