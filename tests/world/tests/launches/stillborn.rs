//! Instances that EC2 launches and ends before they can serve, as where it may not use the key of a volume: they are not
//! launched again and again, their nodes are told why, and after ten of them the group is protected until a probe joins.

use std::collections::BTreeMap;

use spillway_control::fault::Fault;
use spillway_control::ports::{Clock, Ec2, InstanceSeen, Table, Terminated};
use spillway_control::record::LaunchAnswer;
use spillway_control::shared::ONLY;
use spillway_core::capacity::{Capacity, PROBE_WAIT_MS};
use spillway_core::hostlist;
use spillway_core::name::InstanceId;
use spillway_core::plan::LaunchCall;
use spillway_world::sim::{Port, calm};

use crate::site::{Site, job};

const WHY: &str = "Client.InternalError: Client error on launch";

/// Ends so many of the instances of a launch as soon as it has launched them.
struct Stillborn(Port, usize);

impl Ec2 for Stillborn {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        self.0.launch(call, limit_ms).await
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        let found = self.0.find(tags).await?.into_iter();
        let mut found: Vec<InstanceSeen> = found.collect();
        for seen in found.iter_mut().take(self.1) {
            "terminated".clone_into(&mut seen.state);
            seen.state_reason = Some(WHY.to_owned());
            seen.address = None;
        }
        Ok(found)
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

#[test]
fn instances_that_end_at_once_are_launched_once_and_protect_their_group() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let (nodes, ended) = (site.nodes.clone(), Stillborn(port.clone(), usize::MAX));
        let mut protected = 0;
        for (count, node) in (1..=10).zip(nodes.iter().cycle()) {
            protected += site.resume(&ended, node.as_str()).await;
            let (reason, rests_until_ms) = site.failed(node).await;
            assert!(reason.ends_with(WHY), "{reason}");
            assert_eq!(rests_until_ms, None);
            assert_eq!(site.launched(), count);
        }
        assert_eq!(protected, 1, "with the tenth");
        let capacity = port.shared::<Capacity>(ONLY).await.expect("read").record;
        assert_eq!(capacity.protected_count(), 1);

        // It launches nothing more until a probe is due, and says so.
        let both = format!("{},{}", nodes[0], nodes[1]);
        site.resume(&port, &both).await;
        assert_eq!(site.launched(), 10);
        let (reason, rests_until_ms) = site.failed(&nodes[0]).await;
        let words = "is protected: its last 10 instances did not join";
        assert!(reason.contains(words) && reason.ends_with(WHY), "{reason}");
        let left_ms = rests_until_ms.expect("a rest") - port.now_ms();
        assert!((1..=PROBE_WAIT_MS).contains(&left_ms), "{left_ms}");

        // The probe is one node, and opens the group when it has joined.
        port.sleep_ms(left_ms).await;
        site.resume(&port, &both).await;
        assert_eq!(site.launched(), 11);
        let (reason, _) = site.failed(&nodes[1]).await;
        assert!(reason.contains(words), "{reason}");
        site.joins(&nodes[0]).await;
        let capacity = port.shared::<Capacity>(ONLY).await.expect("read").record;
        assert_eq!(capacity.protected_count(), 0);
        site.resume(&port, nodes[1].as_str()).await;
        assert_eq!(site.launched(), 12);
    });
}

#[test]
fn a_gang_that_loses_one_instance_fails_whole_and_is_no_reason_to_protect_its_group() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let nodes = hostlist::fold(&site.nodes);
        assert!(site.nodes.len() > 10);
        let protected = site
            .resume_for(
                &Stillborn(port.clone(), 1),
                &nodes,
                vec![job(&nodes, &nodes)],
            )
            .await;
        assert_eq!(protected, 0);
        assert_eq!(site.launched(), site.nodes.len());
        for node in &site.nodes {
            let (reason, _) = site.failed(node).await;
            assert!(reason.ends_with(WHY), "{reason}");
        }
    });
}
