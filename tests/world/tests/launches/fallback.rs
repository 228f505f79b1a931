//! What jobs are told where EC2 has not what their nodes were to have first: those concerned, and why.

use spillway_control::ports::Clock;
use spillway_core::config::CapacityKind::{OnDemand, Spot};
use spillway_core::config::NodeGroups;
use spillway_core::hostlist;
use spillway_core::name::NodeName;
use spillway_world::ec2::CapacityKind;
use spillway_world::sim::{Port, calm, pools};

use crate::site::{Site, job};

/// A site that wants spot first, where EC2 has spot for so many instances.
fn site(port: &Port, spot: u32) -> Site {
    let mut policy = port.pushed_policy();
    let groups = policy.node_groups.iter().cloned().map(|mut group| {
        group.capacity = vec![Spot, OnDemand];
        group
    });
    policy.node_groups = NodeGroups::new(groups.collect()).expect("the same groups");
    port.push_policy(policy);
    port.with_ec2(|ec2| {
        let mut left = spot;
        for pool in pools(CapacityKind::Spot) {
            ec2.set_free_capacity(pool, Some(std::mem::take(&mut left)));
        }
    });
    Site::new(port.clone())
}

/// Asks for nodes as jobs of one node each.
async fn resume_each(site: &mut Site, port: &Port, nodes: &[NodeName]) {
    let jobs = nodes.iter().map(|node| job(node.as_str(), node.as_str()));
    let jobs = jobs.zip(1..).map(|(mut job, id)| {
        job.job_id = id.to_string().parse().expect("a job id");
        job
    });
    let jobs = jobs.collect();
    site.resume_for(port, &hostlist::fold(nodes), jobs).await;
}

#[test]
fn of_four_the_two_that_got_no_spot_are_told() {
    calm(async |port| {
        let mut site = site(&port, 2);
        let nodes = site.nodes[..4].to_vec();
        resume_each(&mut site, &port, &nodes).await;
        let told: Vec<String> = site
            .instances(&nodes)
            .await
            .into_iter()
            .filter_map(|(instance, note)| instance.and(note))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        for note in told {
            // A fleet that is filled in part may come without an error.
            let says = "launched 2 on-demand, for EC2 launched fewer instances than asked for";
            assert!(note.contains(says), "{note}");
        }
    });
}

#[test]
fn those_that_come_while_spot_rests_are_told_too() {
    calm(async |port| {
        let mut site = site(&port, 0);
        let (first, second) = (site.nodes[..1].to_vec(), site.nodes[1..3].to_vec());
        resume_each(&mut site, &port, &first).await;
        let (_, told) = site.instances(&first).await.remove(0);
        let says = "launched 1 on-demand, for spot: InsufficientInstanceCapacity: ";
        assert!(
            told.as_ref().is_some_and(|note| note.contains(says)),
            "{told:?}"
        );
        let asked_ms = port.now_ms();
        resume_each(&mut site, &port, &second).await;
        assert!(port.now_ms() - asked_ms < 60_000, "spot still rests");
        for (instance, told) in site.instances(&second).await {
            assert!(instance.is_some());
            let note = told.expect("a note");
            let says = ["launched 2 on-demand, for spot: ", "is asked again in"];
            assert!(says.iter().all(|words| note.contains(words)), "{note}");
        }
    });
}

#[test]
fn who_gets_the_first_choice_is_told_nothing() {
    calm(async |port| {
        let mut site = site(&port, 4);
        let nodes = site.nodes[..4].to_vec();
        resume_each(&mut site, &port, &nodes).await;
        for (instance, told) in site.instances(&nodes).await {
            assert!(instance.is_some());
            assert_eq!(told, None);
        }
    });
}
