//! Fleets.

use super::*;

#[test]
fn a_fleet_goes_on_to_the_next_pool_for_what_is_missing() {
    let mut ec2 = ec2();
    ec2.set_free_capacity(
        pool(CapacityKind::OnDemand, "c7i.large", "us-east-1a"),
        Some(2),
    );
    let overrides = vec![
        over("c7i.large", SUBNET_A),
        over("zz9.plural", SUBNET_A),
        over("m7i.large", SUBNET_B),
    ];
    let answer = ec2
        .create_fleet(0, &fleet(CapacityKind::OnDemand, 15, overrides))
        .unwrap();
    assert_eq!(
        launched(&answer),
        [("c7i.large", SUBNET_A, 2), ("m7i.large", SUBNET_B, 11)]
    );
    let codes: Vec<&str> = answer.errors.iter().map(|e| e.code.as_str()).collect();
    let expected = [
        "InvalidParameterValue",
        "InsufficientInstanceCapacity",
        "InsufficientFreeAddressesInSubnet",
    ];
    assert_eq!(codes, expected);
}

#[test]
fn strategies_choose_as_they_say() {
    use AllocationStrategy as S;
    let types = ["m7i.large", "c7i.large", "r7i.large"];
    let spot_prices =
        types.map(|t| price_microdollars(&pool(CapacityKind::Spot, t, "us-east-1a")).unwrap());
    let cheapest = types[(0..3).min_by_key(|i| spot_prices[*i]).unwrap()];
    let cases = [
        (
            CapacityKind::OnDemand,
            S::LowestPrice,
            vec![("c7i.large", 3)],
        ),
        (
            CapacityKind::OnDemand,
            S::Prioritized,
            vec![("r7i.large", 3)],
        ),
        (
            CapacityKind::Spot,
            S::CapacityOptimized,
            vec![("m7i.large", 3)],
        ),
        (
            CapacityKind::Spot,
            S::CapacityOptimizedPrioritized,
            vec![("r7i.large", 3)],
        ),
        (
            CapacityKind::Spot,
            S::PriceCapacityOptimized,
            vec![(cheapest, 3)],
        ),
        (
            CapacityKind::Spot,
            S::Diversified,
            vec![("m7i.large", 1), ("c7i.large", 1), ("r7i.large", 1)],
        ),
    ];
    for (kind, strategy, expected) in cases {
        let mut ec2 = ec2();
        ec2.set_free_capacity(
            pool(CapacityKind::Spot, "m7i.large", "us-east-1a"),
            Some(900),
        );
        ec2.set_free_capacity(
            pool(CapacityKind::Spot, "c7i.large", "us-east-1a"),
            Some(500),
        );
        ec2.set_free_capacity(
            pool(CapacityKind::Spot, "r7i.large", "us-east-1a"),
            Some(100),
        );
        let overrides = types.iter().enumerate().map(|(n, t)| FleetOverride {
            priority: Some((9 - n).to_string()),
            ..over(t, SUBNET_A)
        });
        let mut request = fleet(kind, 3, overrides.collect());
        match kind {
            CapacityKind::OnDemand => request.on_demand.allocation_strategy = Some(strategy),
            CapacityKind::Spot => request.spot.allocation_strategy = Some(strategy),
        }
        let answer = ec2.create_fleet(0, &request).unwrap();
        let got: Vec<(&str, usize)> = launched(&answer).iter().map(|(t, _, n)| (*t, *n)).collect();
        assert_eq!(got, expected, "{strategy:?}");
    }
}

#[test]
fn a_minimum_is_met_in_one_zone_or_nothing_is_launched() {
    let mut ec2 = ec2();
    ec2.set_free_capacity(
        pool(CapacityKind::OnDemand, "c7i.large", "us-east-1a"),
        Some(3),
    );
    let overrides = vec![over("c7i.large", SUBNET_A), over("c7i.large", SUBNET_B)];
    let gang = FleetOptions {
        single_availability_zone: true,
        min_target_capacity: Some(5),
        ..FleetOptions::default()
    };
    let request = CreateFleet {
        on_demand: gang,
        ..fleet(CapacityKind::OnDemand, 5, overrides)
    };
    let answer = ec2.create_fleet(0, &request).unwrap();
    assert_eq!(launched(&answer), [("c7i.large", SUBNET_B, 5)]);
    ec2.set_free_capacity(
        pool(CapacityKind::OnDemand, "c7i.large", "us-east-1b"),
        Some(4),
    );
    let answer = ec2.create_fleet(1, &request).unwrap();
    assert_eq!(answer.instance_ids(), Vec::<String>::new());
    assert!(
        answer
            .errors
            .iter()
            .any(|e| e.code == "UnfulfillableCapacity"),
        "{answer:?}"
    );
    assert_eq!(ec2.instances().count(), 5);
}

#[test]
fn a_minimum_wants_one_type_or_one_zone_and_at_most_a_thousand() {
    let mut ec2 = ec2();
    let mut ask = |min: u32, one_type: bool, one_zone: bool| {
        let spot = FleetOptions {
            min_target_capacity: Some(min),
            single_instance_type: one_type,
            single_availability_zone: one_zone,
            ..FleetOptions::default()
        };
        let request = CreateFleet {
            spot,
            ..fleet(CapacityKind::Spot, 2, vec![over("c7i.large", SUBNET_A)])
        };
        ec2.create_fleet(0, &request)
    };
    assert_eq!(code(ask(2, false, false)), "InvalidParameterCombination");
    assert_eq!(code(ask(1_001, true, true)), "InvalidParameterValue");
    assert_eq!(ask(2, true, false).unwrap().instance_ids().len(), 2);
    assert_eq!(ask(2, false, true).unwrap().instance_ids().len(), 2);
}

#[test]
fn a_minimum_is_met_by_one_type_or_nothing_is_launched() {
    let mut ec2 = ec2();
    for (instance_type, free) in [("c7i.large", 3), ("c6i.large", 4)] {
        let spot = pool(CapacityKind::Spot, instance_type, "us-east-1a");
        ec2.set_free_capacity(spot, Some(free));
    }
    let spot = FleetOptions {
        allocation_strategy: Some(AllocationStrategy::PriceCapacityOptimized),
        single_instance_type: true,
        min_target_capacity: Some(5),
        ..FleetOptions::default()
    };
    let types = ["c7i.large", "c6i.large"];
    let overrides = types.map(|t| over(t, SUBNET_A)).to_vec();
    let mut request = CreateFleet {
        spot,
        ..fleet(CapacityKind::Spot, 5, overrides)
    };
    let answer = ec2.create_fleet(0, &request).unwrap();
    assert_eq!(answer.instances, [], "seven are there, but of two types");
    assert_eq!(answer.errors[0].code, "UnfulfillableCapacity");
    request.spot.min_target_capacity = Some(4);
    let answer = ec2.create_fleet(1, &request).unwrap();
    assert_eq!(launched(&answer), [("c6i.large", SUBNET_A, 4)]);
    assert_eq!(ec2.instances().count(), 4);
}

#[test]
fn a_fleet_costs_no_more_than_its_price() {
    // On demand an hour of c7i.large costs 0.08925 dollars, of c7i.xlarge 0.1785.
    let priced = |price: &str, types: &[&str]| CreateFleet {
        on_demand: FleetOptions {
            allocation_strategy: Some(AllocationStrategy::Prioritized),
            max_total_price: Some(price.to_owned()),
            ..FleetOptions::default()
        },
        ..fleet(
            CapacityKind::OnDemand,
            3,
            types.iter().map(|t| over(t, SUBNET_A)).collect(),
        )
    };
    let both = ["c7i.xlarge", "c7i.large"];
    let mut ec2 = ec2();
    for (price, types, expected) in [
        ("0.26775", &both[1..], vec![("c7i.large", SUBNET_A, 3)]),
        ("0.26", &both[1..], vec![("c7i.large", SUBNET_A, 2)]),
        ("0.08", &both, vec![]),
        // The dear one as long as there is room for it, then the next.
        (
            "0.27",
            &both,
            vec![("c7i.xlarge", SUBNET_A, 1), ("c7i.large", SUBNET_A, 1)],
        ),
        ("100", &both, vec![("c7i.xlarge", SUBNET_A, 3)]),
    ] {
        let answer = ec2.create_fleet(0, &priced(price, types)).unwrap();
        assert_eq!(launched(&answer), expected, "{price}");
        let short = answer.instance_ids().len() < 3;
        assert_eq!(!answer.errors.is_empty(), short, "{price}");
    }
    for price in ["", "0", "-1", "1.", "1.2345678", "1e3", "cheap"] {
        let answer = ec2.create_fleet(0, &priced(price, &both));
        assert_eq!(code(answer), "InvalidParameterValue", "{price}");
    }
}

#[test]
fn a_fleet_that_runs_out_of_tokens_is_throttled_beside_what_it_launched() {
    let mut ec2 = ec2_with(Settings {
        throttling: true,
        ..Settings::default()
    });
    let types = ["c7i.large", "c6i.large"];
    let overrides = types.map(|t| FleetOverride {
        availability_zone: Some("us-east-1a".to_owned()),
        ..over(t, SUBNET_A)
    });
    let mut request = fleet(CapacityKind::OnDemand, 5, overrides.to_vec());
    ec2.leave_launch_tokens(0, 3);
    let answer = ec2.create_fleet(0, &request).unwrap();
    assert_eq!(answer.instance_ids().len(), 3);
    for (error, over) in answer.errors.iter().zip(&overrides) {
        assert_eq!(error.code, "RequestLimitExceeded");
        assert_eq!(
            error.candidate.over.availability_zone,
            over.availability_zone
        );
    }
    assert_eq!(answer.errors.len(), 2, "one a candidate");
    // A gang takes no part of what is left.
    request.on_demand.min_target_capacity = Some(5);
    request.on_demand.single_availability_zone = true;
    ec2.leave_launch_tokens(0, 4);
    let answer = ec2.create_fleet(0, &request).unwrap();
    assert_eq!(answer.instances, []);
    let answer = ec2.create_fleet(500, &request).unwrap();
    assert_eq!(answer.instance_ids().len(), 5, "one came back");
}

#[test]
fn two_subnets_of_one_zone_are_refused_in_a_fleet() {
    let mut ec2 = ec2();
    ec2.put_subnet(Subnet::new("subnet-c", "vpc-1", "us-east-1a", "10.0.2.0/24").unwrap());
    let overrides = vec![over("c7i.large", SUBNET_A), over("c7i.large", "subnet-c")];
    assert!(
        ec2.create_fleet(0, &fleet(CapacityKind::OnDemand, 1, overrides))
            .is_err()
    );
    assert_eq!(ec2.instances().count(), 0);
}
