//! What launches hold of the caps: no order of reserving, ending and settling lets more nodes be launched than the
//! policy says, and what has ended comes free again.

mod caps;
mod history;
mod record;

use spillway_core::config::{Policy, Site};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{RequestJob, ResumeRequest};
use spillway_core::name::{Generation, JobId, NodeGroupName, NodeName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::usage::{Reservation, Usage};

const SITE: &str = include_str!("../../../infra/examples/spillway.toml");
const NOW_MS: u64 = 1_790_000_000_000;
const HOUR_MS: u64 = 3_600_000;
/// 400 KB (DynamoDB, item size), less what the item has beside the record.
const ITEM_BYTES: usize = 400 * 1024 - 1_000;

/// The example's policy with other limits; 256 nodes of 32 vCPUs in `cpu`, 16 of 16 in `gpu`.
fn policy(limits: &str) -> Policy {
    let text = SITE.replace("max_nodes = 300\nlaunches_per_hour = 600\n", limits);
    assert_ne!(
        text, SITE,
        "the example's limits are others than this test knows"
    );
    Site::parse(&text, "spillway.toml")
        .expect("it is valid")
        .policy
}

fn names(expression: &str) -> Vec<NodeName> {
    let list = Hostlist::parse(expression).expect("a hostlist");
    list.node_names().expect("node names")
}

fn group(name: &str) -> NodeGroupName {
    NodeGroupName::new(name).expect("a name")
}

fn launch(number: usize) -> LaunchKey {
    LaunchKey {
        request_id: RequestId::new(format!("request-{number}")).expect("an id"),
        part: 1,
    }
}

/// A request with a job for each hostlist.
fn request(jobs: &[&str]) -> ResumeRequest {
    let job = |(id, nodes): (usize, &&str)| RequestJob {
        job_id: JobId::new((id + 1).to_string()).expect("an id"),
        nodes_resume: (*nodes).to_owned(),
        nodes_alloc: None,
        partition: None,
        features: None,
        user: None,
        account: None,
    };
    ResumeRequest {
        request_id: RequestId::new("r-1").expect("an id"),
        generation: Generation::new(NOW_MS * 1000).expect("a stamp"),
        part: 1,
        parts: 1,
        deadline_ms: NOW_MS + 600_000,
        nodes: String::new(),
        jobs: jobs.iter().enumerate().map(job).collect(),
    }
}

fn reserve(usage: &mut Usage, number: usize, nodes: &str, policy: &Policy) -> Reservation {
    usage.reserve(
        &launch(number),
        &request(&[]),
        &names(nodes),
        policy,
        NOW_MS,
    )
}

fn granted(reservation: &Reservation) -> String {
    hostlist::fold(&reservation.granted)
}

fn refused(reservation: &Reservation) -> Vec<(&str, &str)> {
    reservation
        .refused
        .iter()
        .map(|refused| (refused.nodes.as_str(), refused.reason.as_str()))
        .collect()
}
