//! Tests of the model, by what a caller sees.

mod fleets;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000;
const SUBNET_A: &str = "subnet-a";
const SUBNET_B: &str = "subnet-b";

fn template() -> LaunchTemplate {
    let data = LaunchTemplateData {
        image_id: Some("ami-1".to_owned()),
        instance_type: Some("t3.micro".to_owned()),
        shutdown_behavior: Some(ShutdownBehavior::Terminate),
        ..LaunchTemplateData::default()
    };
    LaunchTemplate::new("lt-1", "burst", data)
}

fn ec2_with(settings: Settings) -> Ec2 {
    let mut ec2 = Ec2::new(settings, 7);
    ec2.put_launch_template(template());
    ec2.put_subnet(Subnet::new(SUBNET_A, "vpc-1", "us-east-1a", "10.0.0.0/24").unwrap());
    ec2.put_subnet(Subnet::new(SUBNET_B, "vpc-1", "us-east-1b", "10.0.1.0/28").unwrap());
    ec2
}

fn ec2() -> Ec2 {
    ec2_with(Settings::default())
}

fn run(count: u32) -> RunInstances {
    RunInstances {
        launch_template: Some(LaunchTemplateSpecification::by_name("burst")),
        subnet_id: Some(SUBNET_A.to_owned()),
        min_count: count,
        max_count: count,
        ..RunInstances::default()
    }
}

fn run_spot(count: u32) -> RunInstances {
    let spot = Some(SpotOptions::default());
    RunInstances {
        direct: LaunchTemplateData {
            spot,
            ..LaunchTemplateData::default()
        },
        ..run(count)
    }
}

fn pool(kind: CapacityKind, instance_type: &str, zone: &str) -> Pool {
    Pool {
        kind,
        instance_type: instance_type.to_owned(),
        availability_zone: zone.to_owned(),
    }
}

fn over(instance_type: &str, subnet_id: &str) -> FleetOverride {
    FleetOverride {
        instance_type: Some(instance_type.to_owned()),
        subnet_id: Some(subnet_id.to_owned()),
        ..FleetOverride::default()
    }
}

fn fleet(kind: CapacityKind, total: u32, overrides: Vec<FleetOverride>) -> CreateFleet {
    let launch_template = LaunchTemplateSpecification::by_id("lt-1");
    CreateFleet {
        configs: vec![FleetConfig {
            launch_template,
            overrides,
        }],
        total_target_capacity: total,
        default_target_capacity_type: Some(kind),
        ..CreateFleet::default()
    }
}

fn ids(reservation: &Reservation) -> Vec<String> {
    reservation
        .instances
        .iter()
        .map(|i| i.instance_id.clone())
        .collect()
}

fn states(ec2: &mut Ec2) -> Vec<(u64, InstanceState)> {
    let events = ec2.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Ec2Event::StateChange(change) => Some((change.at_ms, change.to)),
            _ => None,
        })
        .collect()
}

fn code<T: std::fmt::Debug>(answer: Ec2Result<T>) -> String {
    answer.unwrap_err().code
}

fn launched(fleet: &Fleet) -> Vec<(&str, &str, usize)> {
    let rows = fleet.instances.iter();
    rows.map(|i| {
        (
            i.instance_type.as_str(),
            i.subnet_id.as_str(),
            i.instance_ids.len(),
        )
    })
    .collect()
}

#[test]
fn an_instance_lives_and_dies_at_its_own_times() {
    use InstanceState::{Pending, Running, ShuttingDown, Terminated};

    let mut ec2 = ec2();
    let id = ids(&ec2.run_instances(0, &run(1)).unwrap());
    assert_eq!(ec2.next_due_ms(), Some(2 * SECOND));
    ec2.terminate_instances(5 * SECOND, &id, false).unwrap();
    ec2.advance(60 * SECOND);
    let expected = [
        (0, Pending),
        (2000, Running),
        (5000, ShuttingDown),
        (7000, Terminated),
    ];
    assert_eq!(states(&mut ec2), expected);
    ec2.advance(2 * 3600 * SECOND);
    assert!(
        ec2.instance(&id[0]).is_none(),
        "forgotten an hour after its end"
    );
}

#[test]
fn termination_repeated_changes_nothing_and_an_unknown_id_fails_all() {
    let mut ec2 = ec2();
    let mut id = ids(&ec2.run_instances(0, &run(1)).unwrap());
    ec2.terminate_instances(1, &id, false).unwrap();
    let again = ec2.terminate_instances(2, &id, false).unwrap();
    assert_eq!(again[0].previous, InstanceState::ShuttingDown);
    let mut two = ids(&ec2.run_instances(3, &run(1)).unwrap());
    two.push("i-00000000000000000".to_owned());
    assert_eq!(
        code(ec2.terminate_instances(4, &two, false)),
        "InvalidInstanceID.NotFound"
    );
    assert_eq!(ec2.instance(&two[0]).unwrap().state, InstanceState::Pending);
    id.clear();
    assert_eq!(
        code(ec2.terminate_instances(5, &id, false)),
        "MissingParameter"
    );
}

#[test]
fn a_terminated_pending_instance_never_runs() {
    let mut ec2 = ec2();
    let id = ids(&ec2.run_instances(0, &run(1)).unwrap());
    ec2.terminate_instances(1, &id, false).unwrap();
    ec2.advance(60 * SECOND);
    assert!(
        states(&mut ec2)
            .iter()
            .all(|(_, state)| *state != InstanceState::Running)
    );
}

#[test]
fn shutdown_from_inside_does_what_the_template_says() {
    let mut ec2 = ec2();
    let stop = RunInstances {
        direct: LaunchTemplateData {
            shutdown_behavior: Some(ShutdownBehavior::Stop),
            ..LaunchTemplateData::default()
        },
        ..run(1)
    };
    let dies = ids(&ec2.run_instances(0, &run(1)).unwrap()).remove(0);
    let stops = ids(&ec2.run_instances(0, &stop).unwrap()).remove(0);
    assert_eq!(
        ec2.shut_down_from_inside(10_000, &dies),
        Some(InstanceState::ShuttingDown)
    );
    assert_eq!(
        ec2.shut_down_from_inside(10_000, &stops),
        Some(InstanceState::Stopping)
    );
    assert_eq!(ec2.shut_down_from_inside(10_001, &dies), None);
    ec2.advance(20_000);
    assert_eq!(
        ec2.instance(&dies).unwrap().state,
        InstanceState::Terminated
    );
    let stopped = ec2.instance(&stops).unwrap();
    assert_eq!(
        (stopped.state, stopped.private_ip.is_some()),
        (InstanceState::Stopped, true)
    );
}

#[test]
fn a_subnet_gives_every_address_once_and_takes_it_back() {
    for address_order in [AddressOrder::Sequential, AddressOrder::Random] {
        let mut ec2 = ec2_with(Settings {
            address_order,
            ..Settings::default()
        });
        let in_b = |count| RunInstances {
            subnet_id: Some(SUBNET_B.to_owned()),
            ..run(count)
        };
        let all = ec2.run_instances(0, &in_b(11)).unwrap();
        let addresses: BTreeSet<_> = all.instances.iter().filter_map(|i| i.private_ip).collect();
        let usable: BTreeSet<_> = (4..15)
            .map(|n| std::net::Ipv4Addr::new(10, 0, 1, n))
            .collect();
        assert_eq!(
            addresses, usable,
            "AWS keeps four at the start and one at the end"
        );
        assert_eq!(
            code(ec2.run_instances(1, &in_b(1))),
            "InsufficientFreeAddressesInSubnet"
        );
        ec2.terminate_instances(2, &ids(&all)[..3], false).unwrap();
        assert_eq!(
            ec2.subnet(SUBNET_B).unwrap().available(),
            0,
            "held until terminated"
        );
        ec2.advance(10 * SECOND);
        assert_eq!(ec2.subnet(SUBNET_B).unwrap().available(), 3);
        assert_eq!(
            ec2.run_instances(10 * SECOND, &in_b(3))
                .unwrap()
                .instances
                .len(),
            3
        );
    }
}

#[test]
fn a_pool_runs_out_and_gets_back_what_was_terminated() {
    let mut ec2 = ec2();
    let micro = pool(CapacityKind::OnDemand, "t3.micro", "us-east-1a");
    ec2.set_free_capacity(micro.clone(), Some(2));
    assert_eq!(
        code(ec2.run_instances(0, &run(3))),
        "InsufficientInstanceCapacity"
    );
    let two = ec2
        .run_instances(
            0,
            &RunInstances {
                max_count: 9,
                ..run(1)
            },
        )
        .unwrap();
    assert_eq!((two.instances.len(), ec2.free_capacity(&micro)), (2, 0));
    ec2.run_instances(0, &run_spot(1))
        .expect("spot is a pool of its own");
    ec2.terminate_instances(1, &ids(&two)[..1], false).unwrap();
    ec2.advance(10 * SECOND);
    assert_eq!(ec2.free_capacity(&micro), 1);
}

#[test]
fn an_instance_is_neither_seen_nor_ended_before_its_time() {
    let mut ec2 = ec2_with(Settings {
        visibility_delay_ms: 5 * SECOND,
        ..Settings::default()
    });
    let id = ids(&ec2.run_instances(0, &run(1)).unwrap());
    let by_id = DescribeInstances {
        instance_ids: id.clone(),
        ..DescribeInstances::default()
    };
    assert_eq!(
        code(ec2.describe_instances(4999, &by_id)),
        "InvalidInstanceID.NotFound"
    );
    let (found, _) = ec2
        .describe_instances(4999, &DescribeInstances::default())
        .unwrap();
    assert_eq!(found, []);
    let tags = Tags::from([("a".to_owned(), "b".to_owned())]);
    assert_eq!(
        code(ec2.create_tags(4999, &id, &tags, false)),
        "InvalidInstanceID.NotFound"
    );
    assert_eq!(
        code(ec2.terminate_instances(4999, &id, false)),
        "InvalidInstanceID.NotFound"
    );
    assert_eq!(ec2.describe_instances(5000, &by_id).unwrap().0.len(), 1);
    assert_eq!(ec2.terminate_instances(5000, &id, false).unwrap().len(), 1);
}

#[test]
fn a_token_is_answered_in_each_way_and_never_launches_twice() {
    let request = CreateFleet {
        client_token: Some("t".to_owned()),
        ..fleet(CapacityKind::OnDemand, 2, vec![over("c7i.large", SUBNET_A)])
    };
    for replay in [
        TokenReplay::FirstAnswer,
        TokenReplay::FleetWithoutInstances,
        TokenReplay::Mismatch,
    ] {
        let mut ec2 = ec2_with(Settings {
            token_replay: replay,
            ..Settings::default()
        });
        let first = ec2.create_fleet(0, &request).unwrap();
        let second = ec2.create_fleet(1, &request);
        match replay {
            TokenReplay::FirstAnswer => assert_eq!(second.unwrap(), first),
            TokenReplay::FleetWithoutInstances => {
                let second = second.unwrap();
                assert_eq!(
                    (second.fleet_id, second.instances.len()),
                    (first.fleet_id, 0)
                );
            }
            TokenReplay::Mismatch => assert_eq!(code(second), "IdempotentParameterMismatch"),
        }
        let other = CreateFleet {
            total_target_capacity: 3,
            ..request.clone()
        };
        assert_eq!(
            code(ec2.create_fleet(2, &other)),
            "IdempotentParameterMismatch"
        );
        assert_eq!(ec2.instances().count(), 2);
    }
}

#[test]
fn a_token_of_a_failed_launch_may_be_used_again() {
    let mut ec2 = ec2();
    let request = RunInstances {
        client_token: Some("t".to_owned()),
        ..run(1)
    };
    let micro = pool(CapacityKind::OnDemand, "t3.micro", "us-east-1a");
    ec2.set_free_capacity(micro.clone(), Some(0));
    assert_eq!(
        code(ec2.run_instances(0, &request)),
        "InsufficientInstanceCapacity"
    );
    ec2.set_free_capacity(micro, None);
    let first = ec2.run_instances(1, &request).unwrap();
    assert_eq!(ids(&ec2.run_instances(2, &request).unwrap()), ids(&first));
}

#[test]
fn buckets_refuse_and_refill() {
    let mut ec2 = ec2_with(Settings {
        throttling: true,
        ..Settings::default()
    });
    ec2.put_subnet(Subnet::new("subnet-big", "vpc-1", "us-east-1a", "10.1.0.0/16").unwrap());
    let big = |count| RunInstances {
        subnet_id: Some("subnet-big".to_owned()),
        ..run(count)
    };
    ec2.run_instances(0, &big(999)).unwrap();
    assert_eq!(code(ec2.run_instances(0, &big(2))), "RequestLimitExceeded");
    ec2.run_instances(500, &big(2))
        .expect("one token of instances comes back in half a second");
    ec2.settings.throttling = false;
    ec2.run_instances(500, &big(500)).expect("switched off");
    ec2.settings.throttling = true;
    let overrides = vec![over("t3.micro", "subnet-big")];
    let answer = ec2
        .create_fleet(500, &fleet(CapacityKind::OnDemand, 5, overrides))
        .unwrap();
    assert_eq!(
        answer.errors[0].code, "RequestLimitExceeded",
        "fleets draw on the same bucket"
    );
}

#[test]
fn spot_is_warned_then_taken_back() {
    let mut ec2 = ec2();
    let id = ids(&ec2.run_instances(0, &run_spot(1)).unwrap()).remove(0);
    let own = ids(&ec2.run_instances(0, &run(1)).unwrap()).remove(0);
    ec2.take_events();
    ec2.recommend_rebalance(3_000, &id).unwrap();
    ec2.interrupt_spot(4_000, &id).unwrap();
    assert_eq!(
        code(ec2.interrupt_spot(4_000, &own)),
        "InvalidParameterValue"
    );
    ec2.advance(123_999);
    assert_eq!(ec2.instance(&id).unwrap().state, InstanceState::Running);
    ec2.advance(124_000);
    let instance = ec2.instance(&id).unwrap();
    assert_eq!(instance.state, InstanceState::ShuttingDown);
    assert_eq!(
        instance.state_reason.as_ref().unwrap().code,
        "Server.SpotInstanceTermination"
    );
    let events: Vec<_> = ec2
        .take_events()
        .iter()
        .filter(|event| event.instance_id() == id)
        .map(|event| event.to_event_bridge("e-1", "000000000000", "us-east-1"))
        .collect();
    let kinds: Vec<_> = events
        .iter()
        .map(|e| {
            (
                e["detail-type"].as_str().unwrap(),
                e["time"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (
            "EC2 Instance State-change Notification",
            "1970-01-01T00:00:02Z",
        ),
        (
            "EC2 Instance Rebalance Recommendation",
            "1970-01-01T00:00:03Z",
        ),
        (
            "EC2 Spot Instance Interruption Warning",
            "1970-01-01T00:00:04Z",
        ),
        (
            "EC2 Instance State-change Notification",
            "1970-01-01T00:02:04Z",
        ),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(events[2]["detail"]["instance-action"], "terminate");
    assert_eq!(events[3]["detail"]["state"], "shutting-down");
    let arn = format!("arn:aws:ec2:us-east-1:000000000000:instance/{id}");
    assert_eq!(events[3]["resources"], serde_json::json!([arn]));
}

#[test]
fn every_filter_in_the_list_is_answered_and_no_other() {
    let mut ec2 = ec2();
    let mut request = run_spot(1);
    request.direct.key_name = Some("key".to_owned());
    request.direct.placement_group = Some("group".to_owned());
    request.direct.security_group_ids = vec!["sg-1".to_owned()];
    request.direct.instance_profile = Some(InstanceProfile {
        arn: None,
        name: Some("profile".to_owned()),
    });
    let id = ids(&ec2.run_instances(0, &request).unwrap());
    ec2.place_in_reservation(&id[0], "cr-1");
    ec2.terminate_instances(0, &id, false).unwrap();
    let mut ask = |name: &str| {
        let filters = vec![Filter::new(name, &["*"])];
        let request = DescribeInstances {
            filters,
            ..DescribeInstances::default()
        };
        ec2.describe_instances(1, &request)
    };
    for name in describe::INSTANCE_FILTERS {
        let name = if *name == "tag" { "tag-key" } else { name };
        assert_eq!(ask(name).unwrap().0.len(), 1, "{name}");
    }
    assert_eq!(ask("tag:none").unwrap().0, []);
    assert_eq!(code(ask("mac")), "InvalidParameterValue");
    let many: Vec<String> = (0..201).map(|n| n.to_string()).collect();
    let filters = vec![Filter {
        name: "subnet-id".to_owned(),
        values: many,
    }];
    let request = DescribeInstances {
        filters,
        ..DescribeInstances::default()
    };
    assert_eq!(
        code(ec2.describe_instances(1, &request)),
        "FilterLimitExceeded"
    );
}

#[test]
fn a_template_version_is_found_by_each_name() {
    let mut ec2 = ec2();
    let mut two = template();
    two.versions.insert(
        2,
        LaunchTemplateData {
            instance_type: Some("c7i.large".to_owned()),
            ..two.versions[&1].clone()
        },
    );
    ec2.put_launch_template(two);
    for (version, expected) in [
        (None, "t3.micro"),
        (Some("$Default"), "t3.micro"),
        (Some("$Latest"), "c7i.large"),
        (Some("2"), "c7i.large"),
    ] {
        let by = LaunchTemplateSpecification {
            version: version.map(str::to_owned),
            ..LaunchTemplateSpecification::by_id("lt-1")
        };
        let request = RunInstances {
            launch_template: Some(by),
            ..run(1)
        };
        let answer = ec2.run_instances(0, &request).unwrap();
        assert_eq!(answer.instances[0].instance_type, expected, "{version:?}");
    }
}

proptest! {
    /// Pages hold every instance once, though instances come and go between them.
    #[test]
    fn pages_hold_each_lasting_instance_once(size in 5_usize..9, steps in prop::collection::vec(0_u32..4, 1..12)) {
        let mut ec2 = ec2_with(Settings { terminated_visible_ms: 0, ..Settings::default() });
        let lasting: BTreeSet<String> = ids(&ec2.run_instances(0, &run(20)).unwrap()).into_iter().collect();
        let mut passing = ids(&ec2.run_instances(0, &run(10)).unwrap());
        let mut seen = Vec::new();
        let mut page = Page { max_results: Some(size), next_token: None };
        for now_ms in (0..).step_by(10_000) {
            let request = DescribeInstances { page: page.clone(), ..DescribeInstances::default() };
            let (rows, token) = ec2.describe_instances(now_ms, &request).unwrap();
            seen.extend(rows.iter().flat_map(ids).filter(|id| lasting.contains(id)));
            let Some(token) = token else { break };
            page.next_token = Some(token);
            let step = steps[usize::try_from(now_ms / 10_000).unwrap() % steps.len()];
            if step > 0 {
                ec2.run_instances(now_ms, &run(step)).unwrap();
            }
            if let Some(id) = passing.pop() {
                ec2.terminate_instances(now_ms, &[id], false).unwrap();
            }
        }
        prop_assert_eq!(seen.len(), lasting.len());
        prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), lasting);
    }
}
