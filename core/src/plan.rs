//! Planning a launch (and, in `terminate`, the end of instances): from the nodes of a request and the site's policy to the exact calls to EC2.
//!
//! A plan leaves nothing to choose to its execution. It is stored before anything is launched, so a policy
//! pushed between two deliveries of a request changes nothing for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{CapacityKind, NodeGroup, Policy};
use crate::hostlist::{self, Hostlist};
use crate::message::{RequestJob, ResumeRequest};
use crate::name::{ClusterName, NodeGroupName, NodeName};
use crate::pairing::LaunchKey;
use crate::tag;

mod terminate;

pub use terminate::{
    InstanceState, MAX_TERMINATE_IDS, TerminatePlan, UNKNOWN_GRACE_MS, UnknownPlan, plan_terminate,
    plan_unknown,
};

/// The most instances one call asks for. RunInstances' bucket holds 1,000 instances and AWS advises against
/// larger single requests; half of it leaves room for another request beside it.
pub const MAX_CHUNK_NODES: usize = 500;

/// What is to be launched for one part of a resume request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Each is launched for itself.
    pub chunks: Vec<Chunk>,
    /// The ways to launch a node group, tried in order, each for what the ones before left missing. Kept once
    /// for all chunks of a group: the plan must fit into one item of the table.
    pub recipes: BTreeMap<NodeGroupName, Vec<Recipe>>,
    /// Nodes for which nothing is launched, and why.
    pub refused: Vec<Refused>,
}

/// Nodes that the policy gives no way to launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Hostlist.
    pub nodes: String,
    /// For Slurm's Reason.
    pub reason: String,
}

/// Nodes of one node group that are launched together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Their node group.
    pub node_group: NodeGroupName,
    /// Hostlist.
    pub nodes: String,
    /// Tags of every instance of the chunk.
    pub tags: BTreeMap<String, String>,
}

/// One way to launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// What kind of capacity.
    pub capacity: CapacityKind,
    /// Launch template.
    pub launch_template_id: String,
    /// A number: `$Latest` would make a repeated call another call.
    pub launch_template_version: String,
    /// Instance types by subnets, in order of preference.
    pub candidates: Vec<Candidate>,
}

/// Where an instance may be launched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Such as `c7i.large`.
    pub instance_type: String,
    /// Subnet.
    pub subnet_id: String,
    /// The subnet's availability zone.
    pub zone: String,
}

/// One call to EC2, complete. A single candidate means RunInstances, several mean CreateFleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchCall {
    /// At most 64 ASCII characters; the same for every repetition of this call and for no other.
    pub client_token: String,
    /// How many instances; fewer are taken too.
    pub count: u32,
    /// How.
    pub recipe: Recipe,
    /// Set in the call itself.
    pub tags: BTreeMap<String, String>,
}

/// The plan where no policy was ever pushed: nothing is launched, and Slurm is told why.
#[must_use]
pub fn refuse_without_policy(nodes: &[NodeName]) -> LaunchPlan {
    let reason = "spillway: no policy was pushed (spillway config push)".to_owned();
    let nodes = hostlist::fold(nodes);
    let refused = if nodes.is_empty() {
        Vec::new()
    } else {
        vec![Refused { nodes, reason }]
    };
    LaunchPlan {
        refused,
        ..LaunchPlan::default()
    }
}

/// Plans the launch of `nodes`, those of `request` that were accepted for it.
#[must_use]
pub fn plan_launch(request: &ResumeRequest, nodes: &[NodeName], policy: &Policy) -> LaunchPlan {
    let mut plan = LaunchPlan::default();
    let mut by_group: BTreeMap<NodeGroupName, Vec<&NodeName>> = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut seen = BTreeSet::new();
    for node in nodes.iter().filter(|node| seen.insert(*node)) {
        match policy.group_of(node) {
            Some(group) => by_group.entry(group.name.clone()).or_default().push(node),
            None => unknown.push(node),
        }
    }
    if !unknown.is_empty() {
        plan.refused.push(Refused {
            nodes: fold(&unknown),
            reason: "spillway: the pushed policy names no such node (spillway config push)"
                .to_owned(),
        });
    }
    let jobs = jobs_by_node(&request.jobs);
    for (name, members) in by_group {
        let group = policy
            .node_groups
            .get(&name)
            .expect("group_of answered a group of this policy");
        let recipes = group
            .capacity
            .iter()
            .map(|kind| recipe(group, *kind))
            .collect();
        plan.recipes.insert(name.clone(), recipes);
        for members in members.chunks(MAX_CHUNK_NODES) {
            plan.chunks.push(Chunk {
                node_group: name.clone(),
                nodes: fold(members),
                tags: tags(request, group, members, &jobs, policy),
            });
        }
    }
    plan
}

impl Chunk {
    /// The call of the `attempt`-th attempt (1-based) for chunk number `index`: `count` instances by
    /// recipe number `recipe`.
    #[must_use]
    pub fn call(
        &self,
        cluster: &ClusterName,
        place: &CallPlace<'_>,
        recipe: &Recipe,
        count: u32,
    ) -> LaunchCall {
        let mut tags = self.tags.clone();
        tags.extend(place.tags());
        LaunchCall {
            client_token: place.client_token(cluster),
            count,
            recipe: recipe.clone(),
            tags,
        }
    }
}

/// Which call of which launch.
#[derive(Debug, Clone, Copy)]
pub struct CallPlace<'a> {
    /// The launch.
    pub launch: &'a LaunchKey,
    /// Index of the chunk.
    pub chunk: u32,
    /// 1-based.
    pub attempt: u32,
}

impl CallPlace<'_> {
    /// The tags by which the instances of this very call are found again.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (tag::REQUEST.to_owned(), self.launch.request_id.to_string()),
            (tag::PART.to_owned(), self.launch.part.to_string()),
            (tag::CHUNK.to_owned(), self.chunk.to_string()),
            (tag::ATTEMPT.to_owned(), self.attempt.to_string()),
        ])
    }

    /// SHA-256 in hexadecimal is exactly the 64 characters that EC2 allows (CreateFleet, ClientToken).
    fn client_token(&self, cluster: &ClusterName) -> String {
        let Self {
            launch,
            chunk,
            attempt,
        } = self;
        let text = format!(
            "{cluster}\n{}\n{}\n{chunk}\n{attempt}",
            launch.request_id, launch.part
        );
        format!("{:x}", Sha256::digest(text))
    }
}

fn recipe(group: &NodeGroup, capacity: CapacityKind) -> Recipe {
    let candidates = group
        .instance_types
        .iter()
        .flat_map(|instance_type| {
            group.subnets.iter().map(|subnet| Candidate {
                instance_type: instance_type.to_string(),
                subnet_id: subnet.subnet_id.to_string(),
                zone: subnet.zone.to_string(),
            })
        })
        .collect();
    Recipe {
        capacity,
        launch_template_id: group.launch_template_id.to_string(),
        launch_template_version: group.launch_template_version.to_string(),
        candidates,
    }
}

fn jobs_by_node(jobs: &[RequestJob]) -> HashMap<String, Vec<usize>> {
    let mut by_node: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, job) in jobs.iter().enumerate() {
        let Ok(nodes) = Hostlist::parse(&job.nodes_resume) else {
            continue;
        };
        for node in &nodes {
            by_node.entry(node).or_default().push(index);
        }
    }
    by_node
}

/// The tags that all of a chunk's instances share; those of the job only if they all serve one.
fn tags(
    request: &ResumeRequest,
    group: &NodeGroup,
    members: &[&NodeName],
    jobs: &HashMap<String, Vec<usize>>,
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
    if let Some(job) = sole_job(members, jobs).map(|index| &request.jobs[index]) {
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

fn sole_job(members: &[&NodeName], jobs: &HashMap<String, Vec<usize>>) -> Option<usize> {
    let [first, rest @ ..] = members else {
        return None;
    };
    let &[job] = jobs.get(first.as_str())?.as_slice() else {
        return None;
    };
    rest.iter()
        .all(|node| jobs.get(node.as_str()).is_some_and(|own| own == &[job]))
        .then_some(job)
}

fn fold(nodes: &[&NodeName]) -> String {
    hostlist::fold(nodes.iter().map(|node| node.as_str()))
}
