//! Making the plan: which nodes are launched together, for which jobs, and how.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Candidate, Chunk, ChunkJob, LaunchPlan, MAX_CHUNK_NODES, Recipe, Refused};
use crate::config::{CapacityKind, NodeGroup, Policy, Strategy};
use crate::hostlist::{self, Hostlist};
use crate::message::{RequestJob, ResumeRequest};
use crate::name::{JobId, NodeName};
use crate::tag;

/// The part of a gang that one chunk launches; the gang's other parts are elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GangPart<'a> {
    /// The job.
    pub job_id: &'a JobId,
    /// Index of the chunk.
    pub chunk: u32,
    /// Hostlist of the part.
    pub nodes: &'a str,
}

impl LaunchPlan {
    /// The parts of gangs that no chunk launches as a whole.
    pub fn gang_parts(&self) -> impl Iterator<Item = GangPart<'_>> {
        (0..).zip(&self.chunks).flat_map(|(chunk, part)| {
            let spanning = part.jobs.iter().filter(|job| job.spans);
            spanning.map(move |job| GangPart {
                job_id: &job.job_id,
                chunk,
                nodes: &job.nodes,
            })
        })
    }
}

/// The plan where no policy was ever pushed: nothing is launched, and Slurm is told why.
#[must_use]
pub fn refuse_without_policy(nodes: &[NodeName]) -> LaunchPlan {
    let reason = "spillway: no policy was pushed (spillway config push)".to_owned();
    let nodes = hostlist::fold(nodes);
    let refused = if nodes.is_empty() {
        Vec::new()
    } else {
        vec![Refused {
            nodes,
            reason,
            cool_off: None,
        }]
    };
    LaunchPlan {
        refused,
        ..LaunchPlan::default()
    }
}

/// Plans the launch of `nodes`, those of `request` that were accepted for it. `spanning` are the jobs that wait for
/// nodes of other requests too.
#[must_use]
pub fn plan_launch(
    request: &ResumeRequest,
    nodes: &[NodeName],
    policy: &Policy,
    spanning: &BTreeSet<JobId>,
) -> LaunchPlan {
    let mut plan = LaunchPlan::default();
    let mut unknown = Vec::new();
    let mut by_group: BTreeMap<_, BTreeSet<&NodeName>> = BTreeMap::new();
    for node in nodes {
        match policy.group_of(node) {
            Some(group) => {
                by_group.entry(&group.name).or_default().insert(node);
            }
            None => unknown.push(node),
        }
    }
    if !unknown.is_empty() {
        plan.refused.push(Refused {
            nodes: hostlist::fold(unknown.into_iter().collect::<BTreeSet<_>>()),
            reason: "spillway: the pushed policy names no such node (spillway config push)"
                .to_owned(),
            cool_off: None,
        });
    }
    let jobs = Jobs::of(request, nodes, policy);
    for (name, members) in by_group {
        let group = policy
            .node_groups
            .get(name)
            .expect("group_of answered a group of this policy");
        let recipes = group.capacity.iter().map(|kind| recipe(group, *kind));
        plan.recipes.insert(name.clone(), recipes.collect());
        for (members, jobs_of_chunk) in jobs.chunks(&members, group, spanning) {
            plan.chunks.push(Chunk {
                node_group: name.clone(),
                nodes: hostlist::fold(&members),
                tags: tags(request, group, &members, &jobs, policy),
                one_zone: group.one_zone,
                jobs: jobs_of_chunk,
            });
        }
    }
    plan
}

/// The jobs of a request.
struct Jobs<'a> {
    all: &'a [RequestJob],
    /// By job: those of its nodes that are launched, and what it gets when EC2 has not enough.
    wants: Vec<(BTreeSet<NodeName>, Strategy)>,
    /// The jobs of each node, by their index.
    by_node: HashMap<NodeName, Vec<usize>>,
}

impl<'a> Jobs<'a> {
    fn of(request: &'a ResumeRequest, nodes: &[NodeName], policy: &Policy) -> Self {
        let launched: BTreeSet<&NodeName> = nodes.iter().collect();
        let mut by_node: HashMap<NodeName, Vec<usize>> = HashMap::new();
        let mut wants = Vec::with_capacity(request.jobs.len());
        for (index, job) in request.jobs.iter().enumerate() {
            let own = names(&job.nodes_resume);
            let size = job.nodes_alloc.as_deref().map_or(own.len(), |all| {
                Hostlist::parse(all).map_or(own.len(), |all| all.len())
            });
            let own: BTreeSet<NodeName> = own
                .into_iter()
                .filter(|node| launched.contains(node))
                .collect();
            for node in &own {
                by_node.entry(node.clone()).or_default().push(index);
            }
            let strategy = if size > 1 {
                strategy(job, own.first(), policy)
            } else {
                Strategy::BestEffort
            };
            wants.push((own, strategy));
        }
        Self {
            all: &request.jobs,
            wants,
            by_node,
        }
    }

    /// `members` of one group in chunks, each with its jobs. A job is not split unless it is larger than a chunk.
    fn chunks<'n>(
        &self,
        members: &BTreeSet<&'n NodeName>,
        group: &NodeGroup,
        spanning: &BTreeSet<JobId>,
    ) -> Vec<(Vec<&'n NodeName>, Vec<ChunkJob>)> {
        let mut placed: BTreeSet<&NodeName> = BTreeSet::new();
        let mut chunks: Vec<(Vec<&'n NodeName>, Vec<ChunkJob>)> = Vec::new();
        let mut open: (Vec<&'n NodeName>, Vec<ChunkJob>) = Default::default();
        for (job, (wants, strategy)) in self.all.iter().zip(&self.wants) {
            let here: Vec<&'n NodeName> = wants
                .iter()
                .filter_map(|node| members.get(node).copied())
                .collect();
            if here.is_empty() {
                continue;
            }
            let fresh: Vec<&'n NodeName> = here
                .iter()
                .copied()
                .filter(|node| placed.insert(*node))
                .collect();
            let is_gang = *strategy != Strategy::BestEffort;
            let is_large = fresh.len() > MAX_CHUNK_NODES;
            let spans =
                is_gang && (spanning.contains(&job.job_id) || here.len() < wants.len() || is_large);
            let entry = |nodes: &[&NodeName]| ChunkJob {
                job_id: job.job_id.clone(),
                nodes: hostlist::fold(nodes),
                strategy: *strategy,
                spans,
            };
            // Shared nodes that another chunk launches are that chunk's to bring.
            let alone = is_large || spans || (is_gang && group.one_zone);
            if alone {
                let parts = fresh.chunks(MAX_CHUNK_NODES);
                chunks.extend(parts.map(|part| (part.to_vec(), vec![entry(part)])));
                continue;
            }
            if open.0.len() + fresh.len() > MAX_CHUNK_NODES {
                chunks.push(std::mem::take(&mut open));
            }
            open.0.extend(fresh);
            let together: Vec<&NodeName> = here
                .into_iter()
                .filter(|node| open.0.contains(node))
                .collect();
            if !together.is_empty() {
                open.1.push(entry(&together));
            }
        }
        for node in members.iter().copied().filter(|n| placed.insert(*n)) {
            if open.0.len() == MAX_CHUNK_NODES {
                chunks.push(std::mem::take(&mut open));
            }
            open.0.push(node);
        }
        if !open.0.is_empty() {
            chunks.push(open);
        }
        chunks
    }

    /// The one job that all of `members` serve.
    fn sole(&self, members: &[&NodeName]) -> Option<&RequestJob> {
        let [first, rest @ ..] = members else {
            return None;
        };
        let &[job] = self.by_node.get(*first)?.as_slice() else {
            return None;
        };
        rest.iter()
            .all(|node| self.by_node.get(*node).is_some_and(|own| own == &[job]))
            .then(|| &self.all[job])
    }
}

/// By the job's partition, or by the first one of its nodes' group where Slurm does not tell (before 23.02).
fn strategy(job: &RequestJob, node: Option<&NodeName>, policy: &Policy) -> Strategy {
    let named = job.partition.as_ref().and_then(|partition| {
        let mut partitions = policy.partitions.iter();
        partitions.find(|(name, _)| name.as_str() == partition)
    });
    let own = || {
        let group = node.and_then(|node| policy.group_of(node))?;
        let name = group.partitions.first()?;
        policy.partitions.get_key_value(name)
    };
    named
        .or_else(own)
        .map(|(_, partition)| partition.strategy)
        .unwrap_or_default()
}

fn recipe(group: &NodeGroup, capacity: CapacityKind) -> Recipe {
    let candidates = group.instance_types.iter().flat_map(|instance_type| {
        group.subnets.iter().map(|subnet| Candidate {
            instance_type: instance_type.to_string(),
            subnet_id: subnet.subnet_id.to_string(),
            zone: subnet.zone.to_string(),
        })
    });
    Recipe {
        capacity,
        launch_template_id: group.launch_template_id.to_string(),
        launch_template_version: group.launch_template_version.to_string(),
        on_demand_allocation: group.on_demand_allocation,
        max_on_demand_cents_per_hour: group.max_on_demand_cents_per_hour,
        candidates: candidates.collect(),
    }
}

/// The tags that all of a chunk's instances share; those of the job only if they all serve one.
fn tags(
    request: &ResumeRequest,
    group: &NodeGroup,
    members: &[&NodeName],
    jobs: &Jobs<'_>,
    policy: &Policy,
) -> BTreeMap<String, String> {
    let mut tags: BTreeMap<String, String> = group.tags.clone();
    tags.insert(tag::CLUSTER.to_owned(), policy.cluster.to_string());
    tags.insert(tag::NODE_GROUP.to_owned(), group.name.to_string());
    tags.insert(tag::GENERATION.to_owned(), request.generation.to_string());
    if let Some(partition) = group.partitions.first() {
        tags.insert(tag::PARTITION.to_owned(), partition.to_string());
    }
    if let [only] = members {
        tags.insert(tag::NAME.to_owned(), only.to_string());
    }
    if let Some(job) = jobs.sole(members) {
        tags.insert(tag::JOB.to_owned(), job.job_id.to_string());
        let known = [
            (tag::USER, &job.user),
            (tag::ACCOUNT, &job.account),
            (tag::PARTITION, &job.partition),
        ];
        for (key, text) in known
            .into_iter()
            .filter_map(|(key, text)| Some((key, text.as_ref()?)))
        {
            tags.insert(key.to_owned(), tag::value(text));
        }
    }
    tags
}

/// Node names of a hostlist; none where it is not one.
pub(super) fn names(hostlist: &str) -> Vec<NodeName> {
    Hostlist::parse(hostlist)
        .ok()
        .and_then(|list| list.node_names().ok())
        .unwrap_or_default()
}
