//! Reserving: which nodes of a request may be launched, and why the others may not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::caps::Amounts;
use super::{
    HOLD_BYTES, HOUR_MINUTES, Held, Holds, LaunchId, MAX_BYTES, MINUTE_MS, OWNER_BYTES, Owner,
    Usage, group_bytes,
};
use crate::config::{NodeGroup, Policy};
use crate::hostlist::{self, Hostlist};
use crate::message::{RequestJob, ResumeRequest};
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
    /// What tells for whom they are held.
    pub holds: Holds,
    /// These may not.
    pub refused: Vec<Refused>,
}

impl Usage {
    /// Reserves what the caps leave for `nodes`, those that `request` is to launch, and forgets what `launch` had
    /// reserved before: a launch that reserves again has launched nothing yet.
    ///
    /// A job of several nodes that does not fit as a whole gets none, so that nothing is spent on it; nodes of
    /// single-node jobs and of no job are granted one by one, in the order of the request. A node that several jobs share
    /// is held for the first that gets it.
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
        let mut held: BTreeMap<(&NodeGroupName, Owner), (&NodeGroup, u32)> = BTreeMap::new();
        let mut holds = Holds::default();
        for Unit { job, nodes } in units(request, nodes) {
            let is_open = |node: &&NodeName| !granted.contains(node);
            let open: Vec<&NodeName> = nodes.into_iter().filter(is_open).collect();
            let own = job.map(|job| &request.jobs[job]);
            let shares = shares(&open, own, policy);
            match room.take(&shares) {
                Ok(()) => {
                    granted.extend(open);
                    for Share {
                        group,
                        owner,
                        count,
                    } in shares
                    {
                        held.entry((&group.name, owner)).or_insert((group, 0)).1 += count;
                    }
                }
                Err(reason) => {
                    holds.refused_jobs.extend(job);
                    reasons.extend(open.into_iter().map(|node| (node, reason.clone())));
                }
            }
        }
        for ((_, owner), (group, count)) in held {
            let partitions = || group.partitions.clone();
            holds
                .partitions
                .entry(group.name.clone())
                .or_insert_with(partitions);
            self.hold(
                &launch,
                &Share {
                    group,
                    owner,
                    count,
                },
                minute,
            );
        }
        reasons.retain(|node, _| !granted.contains(*node));
        let granted = nodes.iter().filter(|node| granted.contains(node));
        Reservation {
            granted: granted.cloned().collect(),
            holds,
            refused: refused(nodes, &reasons),
        }
    }

    fn hold(&mut self, launch: &LaunchId, share: &Share<'_>, minute: u64) {
        let group = self.node_groups.entry(share.group.name.clone());
        let group = group.or_default();
        group.cpus = share.group.cpus;
        let launches = group.owners.entry(share.owner.clone()).or_default();
        launches
            .0
            .insert(launch.clone(), Held(share.count, minute, 0));
        *self.launched.entry(minute).or_default() += share.count;
    }

    fn forget(&mut self, launch: &LaunchId) {
        let groups = self.node_groups.values_mut();
        for launches in groups.flat_map(|group| group.owners.values_mut()) {
            if let Some(Held(nodes, minute, _)) = launches.0.remove(launch)
                && let Some(count) = self.launched.get_mut(&minute)
            {
                *count = count.saturating_sub(nodes);
            }
        }
        self.drop_empty();
    }
}

/// Those of `nodes` that have a reason, by it.
fn refused(nodes: &[NodeName], reasons: &HashMap<&NodeName, String>) -> Vec<Refused> {
    let mut by_reason: BTreeMap<&str, Vec<&NodeName>> = BTreeMap::new();
    for node in nodes {
        if let Some(reason) = reasons.get(node) {
            by_reason.entry(reason).or_default().push(node);
        }
    }
    let refused = by_reason.into_iter().map(|(reason, nodes)| Refused {
        nodes: hostlist::fold(nodes),
        reason: reason.to_owned(),
        cool_off: None,
    });
    refused.collect()
}

/// What must come together: the nodes of a job, or one of no job.
struct Unit<'a> {
    /// Its index in the request.
    job: Option<usize>,
    nodes: Vec<&'a NodeName>,
}

/// In the order of the request, then those of no job.
fn units<'a>(request: &ResumeRequest, nodes: &'a [NodeName]) -> Vec<Unit<'a>> {
    let by_name: HashMap<&str, &NodeName> = nodes.iter().map(|n| (n.as_str(), n)).collect();
    let mut of_jobs: HashSet<&NodeName> = HashSet::new();
    let mut units = Vec::new();
    for (index, job) in request.jobs.iter().enumerate() {
        let Ok(names) = Hostlist::parse(&job.nodes_resume) else {
            continue;
        };
        let nodes: BTreeSet<&NodeName> = names
            .iter()
            .filter_map(|name| by_name.get(name.as_str()).copied())
            .collect();
        of_jobs.extend(&nodes);
        units.push(Unit {
            job: Some(index),
            nodes: nodes.into_iter().collect(),
        });
    }
    let others = nodes.iter().filter(|node| !of_jobs.contains(node));
    units.extend(others.map(|node| Unit {
        job: None,
        nodes: vec![node],
    }));
    units
}

/// Nodes of one group that are held for one owner.
struct Share<'a> {
    group: &'a NodeGroup,
    owner: Owner,
    count: u32,
}

/// The nodes of a unit by their groups; those that the policy does not name are of none.
fn shares<'a>(nodes: &[&NodeName], job: Option<&RequestJob>, policy: &'a Policy) -> Vec<Share<'a>> {
    let mut shares: BTreeMap<&NodeGroupName, Share<'a>> = BTreeMap::new();
    for node in nodes {
        if let Some(group) = policy.group_of(node) {
            let share = || Share {
                group,
                owner: Owner::of(job, &group.partitions),
                count: 0,
            };
            shares.entry(&group.name).or_insert_with(share).count += 1;
        }
    }
    shares.into_values().collect()
}

/// What the caps leave.
struct Room<'a> {
    usage: &'a Usage,
    policy: &'a Policy,
    held: Amounts,
    launches: u32,
    /// Of [`MAX_BYTES`].
    bytes: usize,
    /// What this launch holds so far.
    holds: BTreeSet<(NodeGroupName, Owner)>,
}

impl<'a> Room<'a> {
    fn new(usage: &'a Usage, policy: &'a Policy, now_ms: u64) -> Self {
        let launches = policy.limits.launches_per_hour;
        let groups = policy.node_groups.iter();
        let new = groups.filter(|group| !usage.node_groups.contains_key(&group.name));
        let new: usize = new.map(|group| group_bytes(&group.name)).sum();
        Self {
            usage,
            policy,
            held: Amounts::held(usage),
            launches: launches.saturating_sub(usage.launched_within_hour(now_ms)),
            bytes: MAX_BYTES.saturating_sub(usage.bytes() + new),
            holds: BTreeSet::new(),
        }
    }

    /// Takes room for all of `shares`, or for none and says what stands in the way.
    fn take(&mut self, shares: &[Share<'_>]) -> Result<(), String> {
        let mut wanted = Amounts::default();
        for share in shares {
            wanted.add(
                &share.group.name,
                share.group.cpus,
                &share.owner,
                share.count,
            );
        }
        self.held.fit(&wanted, self.policy)?;
        let count: u32 = shares.iter().map(|share| share.count).sum();
        if count > self.launches {
            let most = self.policy.limits.launches_per_hour;
            let what = format!("{most} launches an hour");
            return Err(over_limit(&what, "limits.launches_per_hour"));
        }
        let bytes: usize = shares.iter().map(|share| self.bytes_of(share)).sum();
        if bytes > self.bytes {
            return Err(FULL.to_owned());
        }
        self.held.extend(wanted);
        self.launches -= count;
        self.bytes -= bytes;
        let keys = shares
            .iter()
            .map(|share| (share.group.name.clone(), share.owner.clone()));
        self.holds.extend(keys);
        Ok(())
    }

    /// What a share adds to the record beside its group, at most.
    fn bytes_of(&self, share: &Share<'_>) -> usize {
        let key = (share.group.name.clone(), share.owner.clone());
        if self.holds.contains(&key) {
            return 0;
        }
        let group = self.usage.node_groups.get(&share.group.name);
        match group.filter(|group| group.owners.contains_key(&share.owner)) {
            Some(_) => HOLD_BYTES,
            None => HOLD_BYTES + OWNER_BYTES + share.owner.len(),
        }
    }
}

/// Slurm's Reason when the record takes no more.
const FULL: &str =
    "spillway: as many launches hold nodes as can be counted; no more until some have ended";
