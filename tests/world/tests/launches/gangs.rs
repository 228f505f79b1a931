//! A gang whose nodes Slurm asks for in several calls: nobody is paired before all are there.

use spillway_control::ports::Clock;
use spillway_core::gang::PART_WAIT_MS;
use spillway_core::hostlist;
use spillway_core::message::{Message, SuspendQueueBody};
use spillway_core::name::{InstanceId, NodeName};
use spillway_core::pairing::PairingState;
use spillway_world::sim::{Inbox, calm};

use crate::site::{Site, job};

/// How late a timer may be.
const LATE_MS: u64 = 15_000;

fn halves(site: &Site) -> (Vec<NodeName>, Vec<NodeName>) {
    let (first, second) = site.nodes[..6].split_at(3);
    (first.to_vec(), second.to_vec())
}

#[test]
fn a_gang_in_two_parts_is_paired_when_the_second_is_there() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let (first, second) = halves(&site);
        let all = hostlist::fold(&site.nodes[..6]);
        let (first_list, second_list) = (hostlist::fold(&first), hostlist::fold(&second));

        site.resume_for(&port, &first_list, vec![job(&first_list, &all)])
            .await;
        assert_eq!(site.launched(), 3, "a part is launched as it comes");
        site.timers_fire(&port, PART_WAIT_MS / 2).await;
        for node in &first {
            let state = site.pairing(node).await.state;
            assert!(matches!(state, PairingState::Requested { .. }), "{state:?}");
        }

        site.resume_for(&port, &second_list, vec![job(&second_list, &all)])
            .await;
        site.timers_fire(&port, LATE_MS).await;
        assert_eq!(site.launched(), 6);
        let paired = site.instances(&site.nodes[..6]).await;
        let mut ids: Vec<InstanceId> = paired.into_iter().filter_map(|(id, _)| id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6, "each has one of its own");
    });
}

#[test]
fn a_gang_whose_second_part_never_comes_fails_a_minute_later_and_keeps_nothing() {
    calm(async |port| {
        let mut site = Site::new(port.clone());
        let (first, second) = halves(&site);
        let all = hostlist::fold(&site.nodes[..6]);
        let list = hostlist::fold(&first);

        let asked_ms = port.now_ms();
        site.resume_for(&port, &list, vec![job(&list, &all)]).await;
        site.timers_fire(&port, PART_WAIT_MS - LATE_MS).await;
        let state = site.pairing(&first[0]).await.state;
        assert!(matches!(state, PairingState::Requested { .. }), "{state:?}");

        site.timers_fire(&port, 2 * LATE_MS).await;
        assert!(port.now_ms() - asked_ms > PART_WAIT_MS);
        for node in &first {
            let (reason, rests_until_ms) = site.failed(node).await;
            let words = format!("did not ask for {} of the job's nodes", second.len());
            assert!(reason.contains(&words), "{reason}");
            assert_eq!(rests_until_ms, None, "EC2 had enough");
        }
        let released: Vec<InstanceId> = port
            .receive(Inbox::Suspend)
            .iter()
            .flat_map(|message| {
                let body = Message::parse(&message.text, &site.control.cluster);
                match body.expect("our own") {
                    SuspendQueueBody::Release(release) => release.instance_ids,
                    SuspendQueueBody::Suspend(suspend) => panic!("{suspend:?}"),
                }
            })
            .collect();
        let mut launched: Vec<String> =
            port.with_ec2(|ec2| ec2.instances().map(|i| i.instance_id.clone()).collect());
        let mut released: Vec<String> = released.iter().map(ToString::to_string).collect();
        launched.sort();
        released.sort();
        released.dedup();
        assert_eq!(released, launched, "all of them are let go");
    });
}
