//! The calls to EC2 as they go over the wire, and what is made of its answers.

mod endpoint;
mod fleets;
mod runs;

use std::collections::BTreeMap;

use endpoint::{Call, answered, client, refusal, under};
use spillway_control::fault::FaultKind;
use spillway_control::ports::{Ec2, Terminated};
use spillway_core::config::{CapacityKind, OnDemandAllocation};
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

fn recipe(capacity: CapacityKind, candidates: Vec<Candidate>) -> Recipe {
    Recipe {
        capacity,
        launch_template_id: "lt-0123456789abcdef0".into(),
        launch_template_version: "7".into(),
        on_demand_allocation: OnDemandAllocation::Prioritized,
        max_on_demand_cents_per_hour: None,
        candidates,
    }
}

/// Three instances, or any number of them.
fn call(recipe: Recipe) -> LaunchCall {
    LaunchCall {
        client_token: "token-1".into(),
        count: 3,
        at_least: 1,
        recipe,
        tags: BTreeMap::from([("spillway:cluster".into(), "lab".into())]),
    }
}

/// Two types, each in another zone.
fn two() -> Vec<Candidate> {
    vec![
        candidate("c7i.large", "subnet-a", "us-east-1a"),
        candidate("c6i.large", "subnet-b", "us-east-1b"),
    ]
}

fn one() -> Vec<Candidate> {
    two().drain(..1).collect()
}

/// What a launch sends.
async fn sent(call: &LaunchCall) -> Call {
    let (ec2, calls) = client(|_| refusal("DryRunOperation", "")).await;
    ec2.launch(call, LIMIT_MS).await.unwrap_err();
    calls.lock().unwrap().remove(0)
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

fn by_request() -> BTreeMap<String, String> {
    BTreeMap::from([("spillway:request".to_owned(), "r-1".to_owned())])
}

#[tokio::test]
async fn the_address_is_that_of_device_0_on_card_0() {
    let found = reservations(&item(1, "10.0.16.4"));
    let (ec2, _) = client(move |_| answered("DescribeInstances", &found)).await;
    let seen = ec2.find(&by_request()).await.unwrap();
    let [only] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (&only.instance_id, only.address),
        (&id(1), Some("10.0.16.4".parse().unwrap()))
    );
    assert!(only.is_alive());
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
    let seen = ec2.find(&by_request()).await.unwrap();
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

/// A burst's tag search is one call: throttling would make it minutes.
#[tokio::test]
async fn a_thousand_instances_are_found_in_one_call() {
    let (ec2, calls) = client(|_| {
        let items: String = (1..=1_000).map(|n| item(n, "10.0.16.4")).collect();
        answered("DescribeInstances", &reservations(&items))
    })
    .await;
    let tags = BTreeMap::from([
        ("spillway:attempt".to_owned(), "1".to_owned()),
        ("spillway:request".to_owned(), "r-1".to_owned()),
    ]);
    assert_eq!(ec2.find(&tags).await.unwrap().len(), 1_000);
    let calls = calls.lock().unwrap();
    let [only] = calls.as_slice() else {
        panic!("{} calls", calls.len())
    };
    assert_eq!(only["MaxResults"], "1000");
    assert_eq!(only["Filter.2.Name"], "tag:spillway:request");
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
