//! The calls to EC2 as they go over the wire, and what is made of its answers.

mod endpoint;

use std::collections::BTreeMap;

use endpoint::{Call, answered, client, refusal, under};
use spillway_control::fault::FaultKind;
use spillway_control::ports::{Ec2, Terminated};
use spillway_core::config::CapacityKind;
use spillway_core::name::InstanceId;
use spillway_core::plan::{Candidate, LaunchCall, Recipe};

/// Far more than a loopback endpoint needs.
const LIMIT_MS: u64 = 10_000;

fn candidate(instance_type: &str, subnet: &str, zone: &str) -> Candidate {
    Candidate {
        instance_type: instance_type.into(),
        subnet_id: subnet.into(),
        zone: zone.into(),
    }
}

fn call(capacity: CapacityKind, candidates: Vec<Candidate>) -> LaunchCall {
    LaunchCall {
        client_token: "token-1".into(),
        count: 3,
        recipe: Recipe {
            capacity,
            launch_template_id: "lt-0123456789abcdef0".into(),
            launch_template_version: "7".into(),
            candidates,
        },
        tags: BTreeMap::from([("spillway:cluster".into(), "lab".into())]),
    }
}

fn two() -> Vec<Candidate> {
    vec![
        candidate("c7i.large", "subnet-a", "us-east-1a"),
        candidate("c6i.large", "subnet-b", "us-east-1b"),
    ]
}

fn one() -> Vec<Candidate> {
    two().drain(..1).collect()
}

fn id(number: u32) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).unwrap()
}

fn item(number: u32, address: &str) -> String {
    format!(
        "<item><instanceId>{}</instanceId><instanceState><code>16</code><name>running</name></instanceState>\
         <instanceType>c7i.large</instanceType><placement><availabilityZone>us-east-1a</availabilityZone></placement>\
         <networkInterfaceSet>\
         <item><privateIpAddress>10.9.9.9</privateIpAddress><attachment><deviceIndex>0</deviceIndex>\
         <networkCardIndex>1</networkCardIndex></attachment></item>\
         <item><privateIpAddress>{address}</privateIpAddress><attachment><deviceIndex>0</deviceIndex>\
         <networkCardIndex>0</networkCardIndex></attachment></item></networkInterfaceSet></item>",
        id(number)
    )
}

fn reservations(items: &str) -> String {
    format!("<reservationSet><item><instancesSet>{items}</instancesSet></item></reservationSet>")
}

async fn sent(call: &LaunchCall) -> Call {
    let (ec2, calls) = client(|_| refusal("DryRunOperation", "")).await;
    ec2.launch(call, LIMIT_MS).await.unwrap_err();
    calls.lock().unwrap().remove(0)
}

#[tokio::test]
async fn a_spot_fleet_leaves_the_choice_to_ec2() {
    let sent = sent(&call(CapacityKind::Spot, two())).await;
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

#[tokio::test]
async fn an_on_demand_fleet_keeps_the_order_of_the_candidates() {
    for (capacity, options) in [
        (
            CapacityKind::OnDemand,
            vec![("AllocationStrategy", "prioritized")],
        ),
        (
            CapacityKind::Reserved,
            vec![
                ("AllocationStrategy", "prioritized"),
                (
                    "CapacityReservationOptions.UsageStrategy",
                    "use-capacity-reservations-first",
                ),
            ],
        ),
    ] {
        let sent = sent(&call(capacity, two())).await;
        assert_eq!(
            sent["TargetCapacitySpecification.DefaultTargetCapacityType"],
            "on-demand"
        );
        assert_eq!(
            under(&sent, "OnDemandOptions."),
            options.into_iter().collect()
        );
        let priority = |n: u32| {
            sent[&format!("LaunchTemplateConfigs.1.Overrides.{n}.Priority")]
                .parse::<f64>()
                .unwrap()
        };
        assert!(priority(1) < priority(2));
    }
}

#[tokio::test]
async fn one_candidate_is_launched_by_run_instances() {
    let sent = sent(&call(CapacityKind::Spot, one())).await;
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
    let on_demand = self::sent(&call(CapacityKind::OnDemand, one())).await;
    assert!(under(&on_demand, "InstanceMarketOptions").is_empty());
}

#[tokio::test]
async fn a_fleet_that_launched_too_few_says_why_once_a_code() {
    let error = |code: &str| {
        format!("<item><errorCode>{code}</errorCode><errorMessage>of {code}</errorMessage></item>")
    };
    let shortage = error("InsufficientInstanceCapacity").repeat(2) + &error("RequestLimitExceeded");
    let content = format!(
        "<fleetId>fleet-1</fleetId><errorSet>{shortage}</errorSet><fleetInstanceSet>\
         <item><instanceIds><item>{}</item><item>{}</item></instanceIds></item></fleetInstanceSet>",
        id(1),
        id(2)
    );
    let (ec2, _) = client(move |_| answered("CreateFleet", &content)).await;
    let answer = ec2
        .launch(&call(CapacityKind::Spot, two()), LIMIT_MS)
        .await
        .unwrap();
    assert_eq!(answer.instances, [id(1), id(2)]);
    let faults: Vec<_> = answer
        .faults
        .iter()
        .map(|f| (f.code.as_str(), f.kind, f.message.as_str()))
        .collect();
    assert_eq!(
        faults,
        [
            (
                "InsufficientInstanceCapacity",
                FaultKind::Unfulfillable,
                "of InsufficientInstanceCapacity"
            ),
            (
                "RequestLimitExceeded",
                FaultKind::Throttled,
                "of RequestLimitExceeded"
            ),
        ]
    );
}

#[tokio::test]
async fn a_token_used_for_another_call_is_a_conflict() {
    let (ec2, _) = client(|_| refusal("IdempotentParameterMismatch", "differs")).await;
    let fault = ec2
        .launch(&call(CapacityKind::OnDemand, one()), LIMIT_MS)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.kind, fault.message.as_str()),
        (FaultKind::Conflict, "differs")
    );
}

#[tokio::test]
async fn the_address_is_that_of_device_0_on_card_0_also_where_an_id_is_not_shown_yet() {
    let (ec2, calls) = client(|call| match call.get("InstanceId.1") {
        Some(_) => refusal("InvalidInstanceID.NotFound", "not yet"),
        None => answered("DescribeInstances", &reservations(&item(1, "10.0.16.4"))),
    })
    .await;
    let seen = ec2.describe(&[id(1), id(2)]).await.unwrap();
    let [only] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (&only.instance_id, only.address),
        (&id(1), Some("10.0.16.4".parse().unwrap()))
    );
    assert!(only.is_alive());
    let calls = calls.lock().unwrap();
    assert_eq!(
        (
            calls[1]["Filter.1.Name"].as_str(),
            calls[1]["Filter.1.Value.2"].as_str()
        ),
        ("instance-id", id(2).as_str())
    );
}

#[tokio::test]
async fn all_pages_are_read() {
    let (ec2, calls) = client(|call| {
        let (number, next) = match call.get("NextToken") {
            None => (1, "<nextToken>more</nextToken>"),
            Some(_) => (2, ""),
        };
        answered(
            "DescribeInstances",
            &(reservations(&item(number, "10.0.16.4")) + next),
        )
    })
    .await;
    let tags = BTreeMap::from([("spillway:request".to_owned(), "r-1".to_owned())]);
    let seen = ec2.find(&tags).await.unwrap();
    assert_eq!(
        seen.iter()
            .map(|seen| seen.instance_id.clone())
            .collect::<Vec<_>>(),
        [id(1), id(2)]
    );
    let calls = calls.lock().unwrap();
    assert_eq!(calls[0]["Filter.1.Name"], "tag:spillway:request");
    assert_eq!(calls[0]["Filter.1.Value.1"], "r-1");
}

/// Answers as EC2 does: ids it does not know fail the call by name, protected ones without.
fn terminates(call: &Call) -> (u16, String) {
    let asked: Vec<&str> = under(call, "InstanceId.").into_values().collect();
    let unknown: Vec<&str> = asked
        .iter()
        .copied()
        .filter(|asked| [id(3).as_str(), id(4).as_str()].contains(asked))
        .collect();
    if !unknown.is_empty() {
        let message = format!("The instance IDs '{}' do not exist", unknown.join(", "));
        return refusal("InvalidInstanceID.NotFound", &message);
    }
    if asked.contains(&id(9).as_str()) {
        return refusal(
            "OperationNotPermitted",
            "modify its disableApiTermination first",
        );
    }
    answered("TerminateInstances", "<instancesSet></instancesSet>")
}

/// Of the instances 1 to 8.
fn assert_3_and_4_are_unknown(terminated: Terminated) {
    let Terminated {
        mut done,
        mut unknown,
        fault,
    } = terminated;
    assert_eq!(fault, None);
    done.sort();
    unknown.sort();
    assert_eq!(unknown, [id(3), id(4)]);
    assert_eq!(done, [1, 2, 5, 6, 7, 8].map(id));
}

#[tokio::test]
async fn what_ec2_does_not_know_is_told_apart_and_keeps_nothing_alive() {
    let (ec2, calls) = client(terminates).await;
    let all: Vec<InstanceId> = (1..=8).map(id).collect();
    assert_3_and_4_are_unknown(ec2.terminate(&all).await);
    let calls = calls.lock().unwrap();
    let last_of_others = calls
        .iter()
        .any(|call| under(call, "InstanceId.").len() == 6);
    assert!(
        last_of_others,
        "the six known ones were terminated in one call"
    );
}

#[tokio::test]
async fn an_unknown_id_is_found_also_where_ec2_does_not_name_it() {
    let (ec2, _) = client(|call| match terminates(call) {
        (400, _) => refusal("InvalidInstanceID.NotFound", "some do not exist"),
        done => done,
    })
    .await;
    let all: Vec<InstanceId> = (1..=8).map(id).collect();
    assert_3_and_4_are_unknown(ec2.terminate(&all).await);
}

#[tokio::test]
async fn a_protected_instance_is_reported_after_the_others_are_terminated() {
    let (ec2, calls) = client(terminates).await;
    let all: Vec<InstanceId> = (5..=12).map(id).collect();
    let terminated = ec2.terminate(&all).await;
    assert_eq!(terminated.unknown, []);
    let fault = terminated.fault.unwrap();
    assert_eq!(
        (fault.kind, fault.code.as_str()),
        (FaultKind::Invalid, "OperationNotPermitted")
    );
    let mut done: Vec<String> = Vec::new();
    for call in calls.lock().unwrap().iter() {
        if terminates(call).0 == 200 {
            done.extend(under(call, "InstanceId.").into_values().map(str::to_owned));
        }
    }
    done.sort();
    let others: Vec<String> = all
        .iter()
        .filter(|own| **own != id(9))
        .map(ToString::to_string)
        .collect();
    assert_eq!(done, others);
}
