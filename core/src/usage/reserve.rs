//! Reserving: which nodes of a request may be launched, and why the others may not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{HOUR_MINUTES, Held, LaunchId, MAX_LAUNCHES, MINUTE_MS, Usage};
use crate::config::{NodeGroup, Policy};
use crate::hostlist::{self, Hostlist};
use crate::message::ResumeRequest;
use crate::name::{NodeGroupName, NodeName};
use crate::pairing::LaunchKey;
use crate::plan::Refused;

/// How Slurm's Reason begins when a cap of the site's stands in the way.
pub const OVER_LIMIT: &str = "spillway: over the site's limit of ";

/// Slurm's Reason when a cap stands in the way: `what` is how much it allows, `key` where the site wrote it.
#[must_use]
pub fn over_limit(what: &str, key: &str) -> String {
    format!("{OVER_LIMIT}{what} ({key})")
}

/// What a launch may launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reservation {
    /// These may be launched. A node that the policy does not name is among them and holds nothing: it is for the
    /// planner to refuse.
    pub granted: Vec<NodeName>,
    /// These may not.
    pub refused: Vec<Refused>,
}

impl Usage {
    /// Reserves what the caps leave for `nodes`, those that `request` is to launch, and forgets what `launch` had
    /// reserved before: a launch that reserves again has launched nothing yet.
    ///
    /// A job of several nodes that does not fit as a whole gets none, so that nothing is spent on it; nodes of
    /// single-node jobs and of no job are granted one by one, in the order of the request.
    pub fn reserve(
        &mut self,
        launch: &LaunchKey,
        request: &ResumeRequest,
        nodes: &[NodeName],
        policy: &Policy,
        now_ms: u64,
    ) -> Reservation {
        let launch = LaunchId::from(launch);
        let minute = now_ms / MINUTE_MS;
        self.forget(&launch);
        self.launched
            .retain(|&then, _| then + HOUR_MINUTES > minute);
        let mut room = Room::new(self, policy, now_ms);
        let mut granted: HashSet<&NodeName> = HashSet::new();
        let mut reasons: HashMap<&NodeName, String> = HashMap::new();
        for unit in units(request, nodes) {
            let open: Vec<&NodeName> = unit
                .into_iter()
                .filter(|node| !granted.contains(node))
                .collect();
            match room.take(&open, policy) {
                Ok(()) => granted.extend(open),
                Err(reason) => reasons.extend(open.into_iter().map(|node| (node, reason.clone()))),
            }
        }
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut held: BTreeMap<&NodeGroupName, (u32, u32)> = BTreeMap::new();
        for node in nodes {
            match (policy.group_of(node), reasons.get(node)) {
                (Some(group), _) if granted.contains(node) => {
                    held.entry(&group.name).or_insert((group.cpus, 0)).1 += 1;
                }
                (_, Some(reason)) => by_reason.entry(reason).or_default().push(node.as_str()),
                _ => {}
            }
        }
        for (name, (cpus, count)) in held {
            let group = self.node_groups.entry(name.clone()).or_default();
            group.cpus = cpus;
            group
                .launches
                .insert(launch.clone(), Held(count, minute, 0));
            *self.launched.entry(minute).or_default() += count;
        }
        let refused = by_reason.into_iter().map(|(reason, nodes)| Refused {
            nodes: hostlist::fold(nodes),
            reason: reason.to_owned(),
            cool_off: None,
        });
        Reservation {
            refused: refused.collect(),
            granted: nodes
                .iter()
                .filter(|node| granted.contains(node))
                .cloned()
                .collect(),
        }
    }

    fn forget(&mut self, launch: &LaunchId) {
        for group in self.node_groups.values_mut() {
            if let Some(Held(nodes, minute, _)) = group.launches.remove(launch)
                && let Some(count) = self.launched.get_mut(&minute)
            {
                *count = count.saturating_sub(nodes);
            }
        }
        self.drop_empty();
    }

    fn launches(&self) -> usize {
        self.node_groups
            .values()
            .map(|group| group.launches.len())
            .sum()
    }
}

/// What must come together, in the order of the request: the nodes of a job, then those of no job, each alone.
fn units<'a>(request: &ResumeRequest, nodes: &'a [NodeName]) -> Vec<Vec<&'a NodeName>> {
    let by_name: HashMap<&str, &NodeName> = nodes.iter().map(|n| (n.as_str(), n)).collect();
    let mut of_jobs: HashSet<&NodeName> = HashSet::new();
    let mut units = Vec::new();
    for job in &request.jobs {
        let Ok(names) = Hostlist::parse(&job.nodes_resume) else {
            continue;
        };
        let unit: BTreeSet<&NodeName> = names
            .iter()
            .filter_map(|name| by_name.get(name.as_str()).copied())
            .collect();
        of_jobs.extend(&unit);
        units.push(unit.into_iter().collect());
    }
    let others = nodes.iter().filter(|node| !of_jobs.contains(node));
    units.extend(others.map(|node| vec![node]));
    units
}

/// What the caps leave.
struct Room {
    nodes: u32,
    vcpus: Option<u64>,
    launches: u32,
    by_group: BTreeMap<NodeGroupName, u32>,
    /// Whether the record takes another launch.
    has_place: bool,
}

impl Room {
    fn new(usage: &Usage, policy: &Policy, now_ms: u64) -> Self {
        let limits = &policy.limits;
        let of = |group: &NodeGroup| {
            let left = group.max_nodes.saturating_sub(usage.nodes_of(&group.name));
            (group.name.clone(), left)
        };
        Self {
            nodes: limits.max_nodes.saturating_sub(usage.nodes()),
            vcpus: limits
                .max_vcpus
                .map(|most| u64::from(most).saturating_sub(usage.vcpus())),
            launches: limits
                .launches_per_hour
                .saturating_sub(usage.launched_within_hour(now_ms)),
            by_group: policy.node_groups.iter().map(of).collect(),
            has_place: usage.launches() + policy.node_groups.iter().len() <= MAX_LAUNCHES,
        }
    }

    /// Takes room for all of `nodes`, or for none and says what stands in the way.
    fn take(&mut self, nodes: &[&NodeName], policy: &Policy) -> Result<(), String> {
        let mut groups: BTreeMap<&NodeGroupName, (&NodeGroup, u32)> = BTreeMap::new();
        for group in nodes.iter().filter_map(|node| policy.group_of(node)) {
            groups.entry(&group.name).or_insert((group, 0)).1 += 1;
        }
        let count: u32 = groups.values().map(|(_, count)| *count).sum();
        let vcpus: u64 = groups
            .values()
            .map(|(group, count)| u64::from(group.cpus) * u64::from(*count))
            .sum();
        let limits = &policy.limits;
        for (group, count) in groups.values() {
            if *count > self.by_group[&group.name] {
                let what = format!("{} nodes of node group {}", group.max_nodes, group.name);
                return Err(over_limit(&what, "node_group.max_nodes"));
            }
        }
        if count > self.nodes {
            let what = format!("{} nodes", limits.max_nodes);
            return Err(over_limit(&what, "limits.max_nodes"));
        }
        if let (Some(left), Some(most)) = (self.vcpus, limits.max_vcpus)
            && vcpus > left
        {
            return Err(over_limit(&format!("{most} vCPUs"), "limits.max_vcpus"));
        }
        if count > self.launches {
            let what = format!("{} launches an hour", limits.launches_per_hour);
            return Err(over_limit(&what, "limits.launches_per_hour"));
        }
        if count > 0 && !self.has_place {
            return Err(format!(
                "spillway: {MAX_LAUNCHES} launches hold nodes already; no more can be counted"
            ));
        }
        self.nodes -= count;
        self.vcpus = self.vcpus.map(|left| left - vcpus);
        self.launches -= count;
        for (name, (_, count)) in groups {
            *self.by_group.get_mut(name).expect("a group of this policy") -= count;
        }
        Ok(())
    }
}
