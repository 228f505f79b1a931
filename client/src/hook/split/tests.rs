//! Every node and job in exactly one part, each part small enough, no gang torn.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::prelude::*;
use spillway_core::hostlist::Hostlist;
use spillway_core::message::{Message, ResumeQueueBody};
use spillway_core::name::{ClusterName, Generation, MAX_GENERATION, RequestId};

use super::super::request::resume;
use super::super::resume_file::Text;
use super::*;

fn job(id: u32, nodes: &[String]) -> Job<'static> {
    let text = |text: String| Text(Cow::Owned(text));
    let expression = fold(nodes.to_vec());
    Job {
        job_id: NonZeroU32::new(id).unwrap(),
        hostlist: (nodes.len() > 1).then(|| Hostlist::parse(&expression).unwrap()),
        nodes_resume: text(expression.clone()),
        nodes_alloc: Some(text(expression)),
        partition: Some(Text::from("cloud")),
        features: Some(text("a long constraint, \"quoted\"".repeat(8))),
        user: Some(Text::from("ada")),
        account: None,
    }
}

fn names(texts: &[String]) -> Vec<NodeName> {
    texts
        .iter()
        .map(|text| NodeName::new(text.as_str()).unwrap())
        .collect()
}

fn expand(nodes: &str) -> Vec<String> {
    Hostlist::parse(nodes).unwrap().iter().collect()
}

#[test]
fn ten_thousand_jobs_of_one_node_are_few_messages() {
    let nodes: Vec<String> = (0..10_000)
        .map(|number| format!("cloud-{number}"))
        .collect();
    let jobs: Vec<Job> = nodes
        .iter()
        .zip(1..)
        .map(|(node, id)| job(id, std::slice::from_ref(node)))
        .collect();
    let parts = split(&names(&nodes), &jobs);
    assert!(parts.len() > 1 && parts.len() < 60, "{}", parts.len());
    assert_eq!(
        parts.iter().map(|part| part.jobs.len()).sum::<usize>(),
        10_000
    );
}

#[test]
fn nodes_without_a_job_still_go() {
    let nodes: Vec<String> = (0..40_000)
        .map(|number| format!("rack{}-node{number}-{number}", number % 9))
        .collect();
    let parts = split(&names(&nodes), &[]);
    let all: BTreeSet<String> = parts.iter().flat_map(|part| expand(&part.nodes)).collect();
    assert_eq!(all, nodes.into_iter().collect());
    assert!(parts.len() > 1);
    assert!(
        parts
            .iter()
            .all(|part| part.nodes.len() < MAX_REQUEST_BYTES)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn keeps_every_node_and_job_once(
        owners in proptest::collection::vec((0_u32..600, 0_u32..600, 0_u8..8), 1..1500),
    ) {
        // Node i belongs to the first job, one in eight to the second as well, one in eight to none.
        let mut of_job: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        let mut nodes = Vec::new();
        for (index, (first, second, kind)) in owners.iter().enumerate() {
            let node = format!("cloud-{index}");
            nodes.push(node.clone());
            if *kind != 0 {
                of_job.entry(*first + 1).or_default().push(node.clone());
            }
            if *kind == 1 && first != second {
                of_job.entry(*second + 1).or_default().push(node);
            }
        }
        let jobs: Vec<Job> = of_job.iter().map(|(id, nodes)| job(*id, nodes)).collect();
        let parts = split(&names(&nodes), &jobs);

        let mut seen_nodes: Vec<String> = parts.iter().flat_map(|part| expand(&part.nodes)).collect();
        seen_nodes.sort();
        nodes.sort();
        prop_assert_eq!(seen_nodes, nodes);
        let mut seen_jobs: Vec<String> =
            parts.iter().flat_map(|part| &part.jobs).map(|job| job.job_id.to_string()).collect();
        seen_jobs.sort();
        let mut expected: Vec<String> = of_job.keys().map(ToString::to_string).collect();
        expected.sort();
        prop_assert_eq!(seen_jobs, expected);
        for part in &parts {
            let own: BTreeSet<String> = expand(&part.nodes).into_iter().collect();
            for job in &part.jobs {
                for node in expand(&job.nodes_resume.0) {
                    prop_assert!(own.contains(&node), "job {} is torn", job.job_id);
                }
            }
        }
    }

    #[test]
    fn no_part_is_over_the_limit(sizes in proptest::collection::vec(1_usize..40, 1..2000)) {
        let mut count = 0;
        let mut nodes = Vec::new();
        let mut jobs = Vec::new();
        for (size, id) in sizes.iter().zip(1..) {
            let own: Vec<String> = (count..count + size).map(|number| format!("cloud-{number}")).collect();
            count += size;
            jobs.push(job(id, &own));
            nodes.extend(own);
        }
        let generation = Generation::new(MAX_GENERATION).unwrap();
        let entry = resume(
            &ClusterName::new("c".repeat(40)).unwrap(),
            RequestId::new("r".repeat(64)).unwrap(),
            generation,
            60_000,
            Hostlist::parse(&fold(nodes.clone())).unwrap(),
            &names(&nodes),
            &jobs,
        );
        let mut seen = 0;
        for (part, number) in entry.parts.iter().zip(1..) {
            prop_assert!(part.len() <= MAX_REQUEST_BYTES, "{} bytes", part.len());
            let message: Message<ResumeQueueBody> = serde_json::from_str(part).unwrap();
            let ResumeQueueBody::Resume(request) = message.body else {
                panic!("no resume");
            };
            prop_assert_eq!((request.part, request.parts as usize), (number, entry.parts.len()));
            seen += expand(&request.nodes).len();
        }
        prop_assert_eq!(seen, nodes.len());
    }
}
