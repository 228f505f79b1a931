//! Asks every source. One that fails says why, and the others are asked all the same.

mod head;
mod table;

use std::collections::BTreeMap;

use spillway_core::capacity::Capacity;
use spillway_core::config::Site;
use spillway_core::hostlist::Hostlist;
use spillway_core::name::{JobId, NodeName, RequestId};
use spillway_core::record::NodeStatesRecord;
use spillway_core::sweep::SweepReport;

use super::facts::{JobFacts, NodeFacts, Read, Reported, RequestFacts, SiteFacts, Swept};
use super::{Account, job, node, request};
use crate::aws::dynamodb::Table;
use crate::aws::home;
use crate::aws::sqs::OperatorQueues;
use crate::clock::now_ms;
use crate::slurm::Slurm;

/// The nodes of a job that are looked at one by one.
const MAX_NODES_OF_JOB: usize = 32;
/// The nodes of a request whose standing is looked up.
const MAX_NODES_OF_REQUEST: usize = 64;
/// The stack's queues that have a dead-letter queue, and the one of the callback's stream.
const DEAD_LETTERS: [&str; 7] = [
    "resume-dead-letter",
    "suspend-dead-letter",
    "reports-dead-letter",
    "updates-dead-letter",
    "sweep-dead-letter",
    "notices-dead-letter",
    "callback-failures",
];

/// Whom to ask.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The site's configuration.
    pub site: &'a Site,
    /// The stack's table.
    pub table: Table,
    /// The stack's queues.
    pub queues: OperatorQueues,
    /// slurmctld.
    pub slurm: Slurm,
}

impl Sources<'_> {
    /// Explains a node.
    pub async fn node(&self, name: &NodeName) -> Account {
        let common = self.common().await;
        node::account(&self.node_facts(name, &common).await)
    }

    /// Explains a job.
    pub async fn job(&self, id: &JobId) -> Account {
        let slurm = self.slurm.job(id).await.map_err(|error| error.to_string());
        let nodes = slurm
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(|job| job.nodes.as_str());
        let list = nodes.and_then(|nodes| Hostlist::parse(nodes).ok());
        let names = list
            .and_then(|list| list.node_names().ok())
            .unwrap_or_default();
        let mut facts = JobFacts {
            job: id.clone(),
            slurm,
            nodes: Vec::new(),
            left_out: names.len().saturating_sub(MAX_NODES_OF_JOB),
            now_ms: now_ms(),
        };
        if !names.is_empty() {
            let common = self.common().await;
            for name in names.iter().take(MAX_NODES_OF_JOB) {
                facts.nodes.push(self.node_facts(name, &common).await);
            }
        }
        job::account(&facts)
    }

    /// Explains a request.
    pub async fn request(&self, id: &RequestId) -> Account {
        let parts = self.parts(id).await;
        let mut nodes = BTreeMap::new();
        for part in parts.iter().flatten() {
            let list = Hostlist::parse(&part.record.request.nodes);
            let names = list.ok().and_then(|list| list.node_names().ok());
            for name in names
                .unwrap_or_default()
                .into_iter()
                .take(MAX_NODES_OF_REQUEST)
            {
                if let Ok(Some(item)) = self.node_item(&name).await {
                    nodes.entry(item.state).or_insert_with(Vec::new).push(name);
                }
            }
        }
        request::account(&RequestFacts {
            request_id: id.clone(),
            parts,
            local: head::waiting_request(&self.site.client, id),
            nodes,
            site: self.site_facts().await,
        })
    }

    async fn site_facts(&self) -> SiteFacts {
        let mut dead_letters = Ok(Vec::new());
        for name in DEAD_LETTERS {
            let depth = match home::queue(&self.site.client, name) {
                Ok(url) => self
                    .queues
                    .depth(&url)
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match (depth, &mut dead_letters) {
                (Ok(0), _) | (Ok(_), Err(_)) => {}
                (Ok(count), Ok(found)) => found.push((name.to_owned(), count)),
                (Err(why), _) => {
                    // The others would say the same, each after its time-out.
                    dead_letters = Err(why);
                    break;
                }
            }
        }
        SiteFacts {
            now_ms: now_ms(),
            heartbeat: self.heartbeat().await,
            dead_letters,
        }
    }

    async fn common(&self) -> Common {
        let rows = self.slurm.every_node().await;
        Common {
            site: self.site_facts().await,
            capacity: self.capacity().await,
            states: self.states().await,
            report: self.last_report().await,
            rows: rows.map_err(|error| error.to_string()),
        }
    }

    async fn node_facts(&self, name: &NodeName, common: &Common) -> NodeFacts {
        let record = self.node_item(name).await;
        let item = record.as_ref().ok().and_then(Option::as_ref);
        let instance = self.instance_of(item).await;
        let (request, attempts) = self.launch_of(name, item, &instance).await;
        let policy = &self.site.policy;
        let rows = common.rows.as_ref();
        NodeFacts {
            node: name.clone(),
            node_group: policy.group_of(name).map(|group| group.name.clone()),
            capacity: common.capacity.clone(),
            reported: with(&common.states, |states| Reported::of(states, name)),
            sweep: with(&common.report, |report| Swept::of(report, name)),
            slurm: rows
                .map(|rows| rows.get(name).cloned())
                .map_err(Clone::clone),
            local: head::of_node(&self.site.client, name),
            site: common.site.clone(),
            record,
            instance,
            request,
            attempts,
        }
    }
}

/// What tells of every node, asked for once.
struct Common {
    site: SiteFacts,
    capacity: Read<Capacity>,
    states: Read<NodeStatesRecord>,
    report: Read<SweepReport>,
    rows: Result<head::Rows, String>,
}

fn with<T, R>(read: &Read<T>, take: impl Fn(&T) -> R) -> Read<R> {
    let found = read.as_ref().map_err(Clone::clone)?;
    Ok(found.as_ref().map(take))
}
