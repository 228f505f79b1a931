//! For whom a node is held: the partition, account and user of the job that it was launched for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hostlist::Hostlist;
use crate::message::{RequestJob, ResumeRequest};
use crate::name::{NameError, NodeGroupName, NodeName, OwnerName, PartitionName};

/// For whom a node is held, written as `partition/account/user`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Owner {
    /// Absent only where nothing is known: in records of before owners were counted, and for an instance that nobody
    /// was granted.
    pub partition: Option<PartitionName>,
    /// The account.
    pub account: OwnerName,
    /// The user.
    pub user: OwnerName,
}

impl Owner {
    /// Who holds a node that is launched for `job`, or for none. `partitions`: those that the policy gives to the node's
    /// group.
    ///
    /// The partition is the job's if it is one of these, or else the first. Slurm tells it since 23.02. User and account come from squeue; where the agent had no answer in time, and for nodes of no job,
    /// they are [`OwnerName::UNKNOWN`], which counts as one user and one account.
    #[must_use]
    pub fn of(job: Option<&RequestJob>, partitions: &[PartitionName]) -> Self {
        let text = |of: fn(&RequestJob) -> Option<&String>| job.and_then(of).map(String::as_str);
        let named = text(|job| job.partition.as_ref());
        let own = |partition: &&PartitionName| named == Some(partition.as_str());
        let partition = partitions.iter().find(own);
        let name = |text: Option<&str>| OwnerName::new(text.unwrap_or_default());
        Self {
            partition: partition.or(partitions.first()).cloned(),
            account: name(text(|job| job.account.as_ref())),
            user: name(text(|job| job.user.as_ref())),
        }
    }

    /// Bytes of its text.
    pub(super) fn len(&self) -> usize {
        let partition = self
            .partition
            .as_ref()
            .map_or(0, |name| name.as_str().len());
        partition + self.account.as_str().len() + self.user.as_str().len() + 2
    }
}

/// What tells for whom a launch's nodes are held, beside its request. The names of a request's users can take as many
/// bytes as the rest of it: they are not kept twice in the launch's item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// The partitions of each node group, at the time of the reservation.
    #[serde(default)]
    pub partitions: BTreeMap<NodeGroupName, Vec<PartitionName>>,
    /// The jobs that got nothing, by their index in the request.
    #[serde(default)]
    pub refused_jobs: BTreeSet<usize>,
}

impl Holds {
    /// The job of each node, if it has one: the first that was not refused.
    #[must_use]
    pub fn jobs<'a>(&self, request: &'a ResumeRequest) -> HashMap<String, &'a RequestJob> {
        let mut jobs = HashMap::new();
        for (index, job) in request.jobs.iter().enumerate() {
            if self.refused_jobs.contains(&index) {
                continue;
            }
            for node in Hostlist::parse(&job.nodes_resume)
                .iter()
                .flat_map(Hostlist::iter)
            {
                jobs.entry(node).or_insert(job);
            }
        }
        jobs
    }

    /// For whom nodes of one group are held; `jobs` is the answer of [`Holds::jobs`]. A launch planned before owners were
    /// counted holds them for nobody in particular.
    #[must_use]
    pub fn owners(
        &self,
        jobs: &HashMap<String, &RequestJob>,
        group: &NodeGroupName,
        nodes: impl IntoIterator<Item = NodeName>,
    ) -> BTreeMap<NodeName, Owner> {
        let partitions = self.partitions.get(group);
        let of = |node: NodeName| {
            let job = jobs.get(node.as_str()).copied();
            let owner = partitions.map(|partitions| Owner::of(job, partitions));
            (node, owner.unwrap_or_default())
        };
        nodes.into_iter().map(of).collect()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partition = self.partition.as_ref().map_or("", PartitionName::as_str);
        write!(f, "{partition}/{}/{}", self.account, self.user)
    }
}

impl FromStr for Owner {
    type Err = NameError;

    /// None of the three names has a `/`.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        let partition = match part() {
            "" => None,
            name => Some(PartitionName::new(name)?),
        };
        Ok(Self {
            partition,
            account: OwnerName::new(part()),
            user: OwnerName::new(part()),
        })
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl TryFrom<String> for Owner {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}
