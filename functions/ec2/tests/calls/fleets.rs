//! CreateFleet.

use std::collections::BTreeMap;

use spillway_control::fault::FaultKind;
use spillway_control::ports::Ec2;
use spillway_control::record::LaunchAnswer;
use spillway_core::capacity::Reach;
use spillway_core::config::{CapacityKind, OnDemandAllocation};
use spillway_core::plan::{Candidate, LaunchCall, Recipe};

use crate::endpoint::{Call, answered, client, under};
use crate::{LIMIT_MS, call, candidate, id, one, recipe, sent, two};

#[tokio::test]
async fn a_spot_fleet_leaves_the_choice_to_ec2() {
    let sent = sent(&call(recipe(CapacityKind::Spot, two()))).await;
    assert_eq!(sent["Action"], "CreateFleet");
    assert_eq!(sent["Type"], "instant");
    assert_eq!(sent["ClientToken"], "token-1");
    assert_eq!(
        under(&sent, "TargetCapacitySpecification."),
        BTreeMap::from([
            ("TotalTargetCapacity", "3"),
            ("DefaultTargetCapacityType", "spot")
        ])
    );
    assert_eq!(
        under(&sent, "SpotOptions."),
        BTreeMap::from([
            ("AllocationStrategy", "price-capacity-optimized"),
            ("InstanceInterruptionBehavior", "terminate")
        ])
    );
    assert_eq!(
        under(&sent, "LaunchTemplateConfigs.1."),
        BTreeMap::from([
            (
                "LaunchTemplateSpecification.LaunchTemplateId",
                "lt-0123456789abcdef0"
            ),
            ("LaunchTemplateSpecification.Version", "7"),
            ("Overrides.1.InstanceType", "c7i.large"),
            ("Overrides.1.SubnetId", "subnet-a"),
            ("Overrides.1.AvailabilityZone", "us-east-1a"),
            ("Overrides.2.InstanceType", "c6i.large"),
            ("Overrides.2.SubnetId", "subnet-b"),
            ("Overrides.2.AvailabilityZone", "us-east-1b"),
        ])
    );
    assert_eq!(
        under(&sent, "TagSpecification."),
        BTreeMap::from([
            ("1.ResourceType", "instance"),
            ("1.Tag.1.Key", "spillway:cluster"),
            ("1.Tag.1.Value", "lab"),
            ("2.ResourceType", "fleet"),
            ("2.Tag.1.Key", "spillway:cluster"),
            ("2.Tag.1.Value", "lab"),
        ])
    );
}

fn priorities(sent: &Call) -> Vec<f64> {
    let overrides = under(sent, "LaunchTemplateConfigs.1.Overrides.");
    let values = overrides
        .iter()
        .filter(|(name, _)| name.ends_with(".Priority"));
    values.map(|(_, value)| value.parse().unwrap()).collect()
}

#[tokio::test]
async fn an_on_demand_fleet_keeps_the_order_of_the_candidates_or_takes_the_cheapest() {
    let reservations_first = (
        "CapacityReservationOptions.UsageStrategy",
        "use-capacity-reservations-first",
    );
    for (capacity, allocation, expected, ranks) in [
        (
            CapacityKind::OnDemand,
            OnDemandAllocation::Prioritized,
            vec![("AllocationStrategy", "prioritized")],
            vec![0.0, 1.0],
        ),
        (
            CapacityKind::OnDemand,
            OnDemandAllocation::LowestPrice,
            vec![("AllocationStrategy", "lowest-price")],
            vec![],
        ),
        (
            CapacityKind::Reserved,
            OnDemandAllocation::Prioritized,
            vec![("AllocationStrategy", "prioritized"), reservations_first],
            vec![0.0, 1.0],
        ),
    ] {
        let recipe = Recipe {
            on_demand_allocation: allocation,
            ..recipe(capacity, two())
        };
        let sent = sent(&call(recipe)).await;
        assert_eq!(
            sent["TargetCapacitySpecification.DefaultTargetCapacityType"],
            "on-demand"
        );
        let options = under(&sent, "OnDemandOptions.");
        assert_eq!(options, expected.into_iter().collect());
        assert!(under(&sent, "SpotOptions").is_empty());
        assert_eq!(priorities(&sent), ranks);
    }
}

/// What a gang's call says of its minimum, under the options of its capacity kind.
async fn minimum(capacity: CapacityKind, candidates: Vec<Candidate>, at_least: u32) -> Call {
    let gang = LaunchCall {
        at_least,
        ..call(recipe(capacity, candidates))
    };
    let sent = sent(&gang).await;
    let options = match capacity {
        CapacityKind::Spot => "SpotOptions.",
        CapacityKind::OnDemand | CapacityKind::Reserved => "OnDemandOptions.",
    };
    let said = under(&sent, options).into_iter();
    said.filter(|(name, _)| name.starts_with("Single") || name.starts_with("Min"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_gang_is_held_together_by_the_one_type_or_zone_of_its_candidates() {
    let in_a = candidate("c7i.large", "subnet-a", "us-east-1a");
    let one_type = vec![
        in_a.clone(),
        candidate("c7i.large", "subnet-b", "us-east-1b"),
    ];
    let one_zone = vec![in_a, candidate("c6i.large", "subnet-a", "us-east-1a")];
    let expected = |single: &str| {
        Call::from([
            ("MinTargetCapacity".to_owned(), "3".to_owned()),
            (single.to_owned(), "true".to_owned()),
        ])
    };
    for capacity in [
        CapacityKind::Spot,
        CapacityKind::OnDemand,
        CapacityKind::Reserved,
    ] {
        assert_eq!(
            minimum(capacity, one_type.clone(), 3).await,
            expected("SingleInstanceType")
        );
        assert_eq!(
            minimum(capacity, one_zone.clone(), 3).await,
            expected("SingleAvailabilityZone")
        );
        assert_eq!(minimum(capacity, one_type.clone(), 1).await, Call::new());
        // EC2 would refuse it: it is launched, counted and given back.
        assert_eq!(minimum(capacity, two(), 3).await, Call::new());
    }
    assert_eq!(
        minimum(CapacityKind::Spot, one_type, 1_001).await,
        Call::new()
    );
}

#[tokio::test]
async fn a_price_is_watched_by_a_fleet_also_for_one_candidate_and_on_demand_only() {
    let priced = |capacity, candidates| Recipe {
        max_on_demand_cents_per_hour: Some(235),
        ..recipe(capacity, candidates)
    };
    for candidates in [one(), two()] {
        let sent = sent(&call(priced(CapacityKind::OnDemand, candidates))).await;
        assert_eq!(sent["Action"], "CreateFleet");
        assert_eq!(sent["OnDemandOptions.MaxTotalPrice"], "7.05");
    }
    let largest = LaunchCall {
        count: 1_000,
        ..call(Recipe {
            max_on_demand_cents_per_hour: Some(u32::MAX),
            ..priced(CapacityKind::OnDemand, two())
        })
    };
    let large = sent(&largest).await;
    assert_eq!(large["OnDemandOptions.MaxTotalPrice"], "42949672950.00");
    for capacity in [CapacityKind::Spot, CapacityKind::Reserved] {
        let single = sent(&call(priced(capacity, one()))).await;
        assert_eq!(single["Action"], "RunInstances");
        let fleet = sent(&call(priced(capacity, two()))).await;
        assert!(
            !fleet.keys().any(|name| name.contains("Price")),
            "{fleet:?}"
        );
    }
}

fn tried(instance_type: &str, place: &str) -> String {
    let over = format!("<instanceType>{instance_type}</instanceType>{place}");
    format!(
        "<launchTemplateAndOverrides><overrides>{over}</overrides></launchTemplateAndOverrides>"
    )
}

fn error(code: &str, tried: &str) -> String {
    format!(
        "<item>{tried}<errorCode>{code}</errorCode><errorMessage>of {code}</errorMessage></item>"
    )
}

fn launched(number: u32, tried: &str) -> String {
    format!(
        "<item>{tried}<instanceIds><item>{}</item></instanceIds></item>",
        id(number)
    )
}

async fn answer(errors: &str, instances: &str) -> LaunchAnswer {
    let content = format!(
        "<fleetId>fleet-1</fleetId><errorSet>{errors}</errorSet><fleetInstanceSet>{instances}</fleetInstanceSet>"
    );
    let (ec2, _) = client(move |_| answered("CreateFleet", &content)).await;
    let wanted = call(recipe(CapacityKind::Spot, two()));
    ec2.launch(&wanted, LIMIT_MS).await.unwrap()
}

#[tokio::test]
async fn a_fleet_that_launched_too_few_says_why_once_a_code_and_candidate() {
    let first = tried("c7i.large", "<subnetId>subnet-a</subnetId>");
    let second = tried(
        "c6i.large",
        "<availabilityZone>us-east-1b</availabilityZone>",
    );
    let errors = [
        error("InsufficientInstanceCapacity", &first),
        error("InsufficientInstanceCapacity", &second),
        error("InsufficientInstanceCapacity", &first),
        error("RequestLimitExceeded", &first),
        error("MaxSpotInstanceCountExceeded", ""),
    ];
    let answer = answer(&errors.concat(), &launched(1, &first)).await;
    let [a, b] = &two()[..] else { unreachable!() };
    let shortages: Vec<_> = answer
        .shortages
        .iter()
        .map(|s| (s.fault.code.as_str(), s.fault.kind, s.candidate.as_ref()))
        .collect();
    let pool = FaultKind::Unfulfillable(Reach::Pool);
    let kind = FaultKind::Unfulfillable(Reach::Kind);
    assert_eq!(
        shortages,
        [
            ("InsufficientInstanceCapacity", pool, Some(b)),
            ("InsufficientInstanceCapacity", pool, Some(a)),
            ("MaxSpotInstanceCountExceeded", kind, None),
            ("RequestLimitExceeded", FaultKind::Throttled, Some(a)),
        ]
    );
    let fault = &answer.shortages[3].fault;
    assert_eq!(fault.message, "of RequestLimitExceeded");
    assert_eq!(fault.operation, "CreateFleet");
}

#[tokio::test]
async fn each_candidate_that_launched_is_named_once() {
    let first = tried("c7i.large", "<subnetId>subnet-a</subnetId>");
    let other = tried("m5.large", "<subnetId>subnet-a</subnetId>");
    let groups = [
        launched(1, &first),
        launched(2, &first),
        launched(3, &other),
        launched(4, ""),
    ];
    let answer = answer("", &groups.concat()).await;
    assert_eq!(answer.instances, [id(1), id(2), id(3), id(4)]);
    assert_eq!(answer.launched_in, one());
    assert_eq!(answer.shortages, []);
}
