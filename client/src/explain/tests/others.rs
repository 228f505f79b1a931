//! Jobs and requests.

use std::collections::BTreeMap;

use spillway_core::name::JobId;

use super::super::facts::{JobFacts, NodeStanding, Part, RequestFacts};
use super::super::{job, request as of_request};
use super::*;
use crate::slurm::JobView;

fn view(line: &str) -> JobView {
    JobView::parse(&format!(
        "JobId=4711 UserId=alice(1000) SubmitTime=1767225590 {line}"
    ))
    .unwrap()
}

fn of_job(view: Option<JobView>, nodes: Vec<NodeFacts>) -> String {
    let facts = JobFacts {
        job: JobId::new("4711").unwrap(),
        slurm: Ok(view),
        nodes,
        left_out: 0,
        now_ms: at(60),
    };
    job::account(&facts).render(&berlin())
}

#[test]
fn a_job_whose_nodes_have_one_cause() {
    let reason = "spillway: over the site's limit of 4 nodes at once (limits.max_nodes)";
    let nodes = ["cloud-6", "cloud-7"].map(|node| NodeFacts {
        node: name(node),
        record: Ok(Some(item(
            "free",
            vec![
                step(1, 0, "resumed", None, None),
                step(2, 0, "not-launched", None, Some(reason)),
            ],
            json!({}),
        ))),
        ..quiet(60)
    });
    let view = view("JobState=CONFIGURING Reason=None StartTime=1767225600 NodeList=cloud-[6-7]");
    insta::assert_snapshot!(of_job(Some(view), nodes.to_vec()));
}

#[test]
fn a_job_that_waits() {
    let view = view(
        "JobState=PENDING Reason=Resources StartTime=Unknown NodeList=(null) AdminComment=spillway: cloud-7: spot: \
         InsufficientInstanceCapacity: none left Comment=x",
    );
    insta::assert_snapshot!(of_job(Some(view), Vec::new()));
}

#[test]
fn a_job_that_slurmctld_has_forgotten() {
    insta::assert_snapshot!(of_job(None, Vec::new()));
}

fn facts(parts: Vec<Part>) -> RequestFacts {
    RequestFacts {
        request_id: RequestId::new("r-1").unwrap(),
        parts: Ok(parts),
        local: Ok(None),
        nodes: BTreeMap::new(),
        site: quiet(60).site,
    }
}

#[test]
fn a_request_that_was_served() {
    let attempts = vec![attempt("on-demand", &[INSTANCE], None)];
    let mut facts = facts(vec![Part {
        record: request(0, true),
        attempts,
    }]);
    facts.nodes = BTreeMap::from([(NodeStanding::Ready, vec![name("cloud-7")])]);
    insta::assert_snapshot!(of_request::account(&facts).render(&berlin()));
}

#[test]
fn a_request_that_was_refused() {
    let mut record = request(0, true);
    let plan = record.plan.as_mut().unwrap();
    plan.chunks.clear();
    plan.refused.push(spillway_core::plan::Refused {
        nodes: "cloud-7".to_owned(),
        reason: "spillway: over the site's limit of 4 nodes at once (limits.max_nodes)".to_owned(),
        cool_off: None,
    });
    let facts = facts(vec![Part {
        record,
        attempts: Vec::new(),
    }]);
    insta::assert_snapshot!(of_request::account(&facts).render(&berlin()));
}

#[test]
fn a_request_that_waits_in_the_spool_or_is_nowhere() {
    let mut facts = facts(Vec::new());
    insta::assert_snapshot!(
        "a_request_without_a_record",
        of_request::account(&facts).render(&berlin())
    );
    facts.local = Ok(Some(waiting(20)));
    insta::assert_snapshot!(
        "a_request_in_the_spool",
        of_request::account(&facts).render(&berlin())
    );
}
