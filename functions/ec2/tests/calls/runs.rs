//! RunInstances.

use std::collections::BTreeMap;

use spillway_control::fault::FaultKind;
use spillway_control::ports::Ec2;
use spillway_core::capacity::Reach;
use spillway_core::config::CapacityKind;
use spillway_core::plan::LaunchCall;

use crate::endpoint::{answered, client, client_of_three_tries, refusal, under};
use crate::{LIMIT_MS, call, id, one, recipe, sent};

#[tokio::test]
async fn one_candidate_is_launched_by_run_instances() {
    let sent = sent(&call(recipe(CapacityKind::Spot, one()))).await;
    assert_eq!(sent["Action"], "RunInstances");
    assert_eq!(
        (sent["MinCount"].as_str(), sent["MaxCount"].as_str()),
        ("1", "3")
    );
    assert_eq!(sent["ClientToken"], "token-1");
    assert_eq!(
        (sent["InstanceType"].as_str(), sent["SubnetId"].as_str()),
        ("c7i.large", "subnet-a")
    );
    assert_eq!(
        under(&sent, "LaunchTemplate."),
        BTreeMap::from([
            ("LaunchTemplateId", "lt-0123456789abcdef0"),
            ("Version", "7")
        ])
    );
    assert_eq!(
        under(&sent, "InstanceMarketOptions."),
        BTreeMap::from([
            ("MarketType", "spot"),
            ("SpotOptions.SpotInstanceType", "one-time"),
            ("SpotOptions.InstanceInterruptionBehavior", "terminate"),
        ])
    );
    let tagged: Vec<&str> = (1..=3)
        .map(|n| sent[&format!("TagSpecification.{n}.ResourceType")].as_str())
        .collect();
    assert_eq!(tagged, ["instance", "volume", "network-interface"]);
}

/// What the launch template says of the market and of reservations holds: a capacity block is named there.
#[tokio::test]
async fn what_is_reserved_is_left_to_the_launch_template() {
    for capacity in [CapacityKind::OnDemand, CapacityKind::Reserved] {
        let sent = sent(&call(recipe(capacity, one()))).await;
        assert_eq!(sent["Action"], "RunInstances");
        assert!(under(&sent, "InstanceMarketOptions").is_empty());
        assert!(under(&sent, "CapacityReservation").is_empty());
    }
}

#[tokio::test]
async fn a_gang_is_launched_whole_or_not_at_all() {
    let gang = LaunchCall {
        at_least: 3,
        ..call(recipe(CapacityKind::OnDemand, one()))
    };
    let sent = sent(&gang).await;
    assert_eq!(
        (sent["MinCount"].as_str(), sent["MaxCount"].as_str()),
        ("3", "3")
    );
}

#[tokio::test]
async fn what_was_launched_was_launched_in_the_only_candidate() {
    let content = |items: &str| format!("<instancesSet>{items}</instancesSet>");
    let item = |n| format!("<item><instanceId>{}</instanceId></item>", id(n));
    let two = content(&(item(1) + &item(2)));
    let (ec2, _) = client(move |_| answered("RunInstances", &two)).await;
    let wanted = call(recipe(CapacityKind::OnDemand, one()));
    let answer = ec2.launch(&wanted, LIMIT_MS).await.unwrap();
    assert_eq!(answer.instances, [id(1), id(2)]);
    assert_eq!(answer.launched_in, one());
    assert_eq!(answer.shortages, []);
    let none = content("");
    let (ec2, _) = client(move |_| answered("RunInstances", &none)).await;
    let answer = ec2.launch(&wanted, LIMIT_MS).await.unwrap();
    assert_eq!(answer, spillway_control::record::LaunchAnswer::default());
}

#[tokio::test]
async fn a_refusal_is_a_fault_with_its_class() {
    let wanted = call(recipe(CapacityKind::OnDemand, one()));
    for (code, kind) in [
        ("IdempotentParameterMismatch", FaultKind::Conflict),
        (
            "InsufficientInstanceCapacity",
            FaultKind::Unfulfillable(Reach::Pool),
        ),
        ("VcpuLimitExceeded", FaultKind::Unfulfillable(Reach::Type)),
        (
            "InsufficientFreeAddressesInSubnet",
            FaultKind::Unfulfillable(Reach::Subnet),
        ),
        ("RequestLimitExceeded", FaultKind::Throttled),
    ] {
        let (ec2, _) = client(move |_| refusal(code, "no")).await;
        let fault = ec2.launch(&wanted, LIMIT_MS).await.unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (kind, "no"), "{code}");
        assert_eq!(fault.operation, "RunInstances");
    }
}

/// EC2 has nothing more a second later; the account has five calls, and the candidates after it are waiting.
#[tokio::test]
async fn a_pool_without_capacity_is_asked_once_and_a_busy_ec2_thrice() {
    let wanted = call(recipe(CapacityKind::OnDemand, one()));
    for (code, status, tries) in [
        ("InsufficientInstanceCapacity", 500, 1),
        ("InsufficientInstanceCapacity", 503, 1),
        ("InternalError", 500, 3),
        ("RequestLimitExceeded", 503, 3),
    ] {
        let (ec2, calls) = client_of_three_tries(move |_| (status, refusal(code, "no").1)).await;
        let fault = ec2.launch(&wanted, LIMIT_MS).await.unwrap_err();
        assert_eq!(fault.code, code);
        assert_eq!(calls.lock().unwrap().len(), tries, "{code} with {status}");
    }
}
