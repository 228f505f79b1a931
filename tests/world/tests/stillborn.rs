//! Instances that EC2 launches and ends before they can serve, as where it may not use the key of a volume: they are not
//! launched again and again, their nodes are told why, and after ten of them the group is protected.

use std::collections::BTreeMap;

use spillway_control::fault::Fault;
use spillway_control::launch::{Budget, launch};
use spillway_control::ports::{Clock, Control, Ec2, InstanceSeen, Table, Terminated};
use spillway_control::record::LaunchAnswer;
use spillway_control::tally::GROUPS_PROTECTED;
use spillway_core::message::{ResumeQueueBody, ResumeRequest};
use spillway_core::name::{Generation, InstanceId, RequestId};
use spillway_core::pairing::DueAction;
use spillway_core::plan::LaunchCall;
use spillway_world::sim::{Port, calm};

const WHY: &str = "Client.InternalError: Client error on launch";
const INVOCATION_MS: u64 = 60_000;

/// Ends whatever it launches.
struct Stillborn(Port);

impl Ec2 for Stillborn {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        self.0.launch(call, limit_ms).await
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        let found = self.0.find(tags).await?.into_iter();
        let ended = found.map(|seen| InstanceSeen {
            state: "terminated".to_owned(),
            state_reason: Some(WHY.to_owned()),
            address: None,
            ..seen
        });
        Ok(ended.collect())
    }

    async fn find_in_reservation(
        &self,
        _: &str,
        _: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn terminate(&self, _: &[InstanceId]) -> Terminated {
        unreachable!("a launch ends nothing")
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn console(&self, _: &InstanceId) -> Result<String, Fault> {
        unreachable!("a launch does not ask")
    }

    async fn tag(&self, _: &[InstanceId], _: &BTreeMap<String, String>) -> Result<(), Fault> {
        unreachable!("nothing is there to be named")
    }
}

fn resume(nodes: &str, number: u64, now_ms: u64) -> ResumeRequest {
    ResumeRequest {
        request_id: RequestId::new(format!("request-{number}")).expect("an id"),
        generation: Generation::new((now_ms + number) * 1000).expect("a generation"),
        part: 1,
        parts: 1,
        deadline_ms: now_ms + 300_000,
        nodes: nodes.to_owned(),
        jobs: Vec::new(),
    }
}

#[test]
fn instances_that_end_at_once_are_launched_once_and_protect_their_group() {
    calm(async |port| {
        let policy = port.pushed_policy();
        let group = policy.node_groups.iter().next().expect("a group");
        let all = group.nodes.node_names().expect("names");
        let control = Control {
            cluster: policy.cluster.clone(),
            table: port.clone(),
            queues: port.clone(),
            clock: port.clone(),
        };
        let ec2 = Stillborn(port.clone());
        let mut protected = 0_usize;
        for (number, node) in (1..).zip(all.iter().cycle().take(10)) {
            // EC2's buckets fill again.
            port.sleep_ms(5_000).await;
            let request = resume(node.as_str(), number, port.now_ms());
            let budget = Budget {
                ends_ms: port.now_ms() + INVOCATION_MS,
            };
            let sent_ms = port.now_ms();
            let body = ResumeQueueBody::Resume(request);
            let tally = launch(&control, &ec2, body, sent_ms, budget).await;
            let tally = tally.expect("carried out");
            let count = tally.iter().find(|(name, _)| *name == GROUPS_PROTECTED);
            protected += usize::from(count.is_some());

            let pairing = &control.table.pairings(&[node.clone()]).await.expect("read")[0].record;
            let due = pairing
                .update_due
                .as_ref()
                .unwrap_or_else(|| panic!("{pairing:?}"));
            let DueAction::Fail { reason, .. } = &due.action else {
                panic!("{due:?}");
            };
            assert!(reason.ends_with(WHY), "{reason}");
            let launched = port.with_ec2(|ec2| ec2.instances().count());
            assert_eq!(launched, usize::try_from(number).expect("small"));
        }
        assert_eq!(protected, 1, "with the tenth");
    });
}
