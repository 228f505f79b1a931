//! The calls of the table, with boto3's names and arguments.

use serde_json::{Value, json};

use crate::calls::Call;
use crate::setting::Setting;

fn call(service: &'static str, method: &'static str, arguments: Value) -> Call {
    Call {
        service,
        method,
        arguments,
    }
}

pub fn send(s: &Setting, queue: &str) -> Call {
    // No message of ours: who receives it puts it aside.
    let arguments = json!({"QueueUrl": s.queue(queue), "MessageBody": "of the rights table"});
    call("sqs", "send_message", arguments)
}

pub fn receive(s: &Setting, queue: &str) -> Call {
    let arguments =
        json!({"QueueUrl": s.queue(queue), "WaitTimeSeconds": 0, "VisibilityTimeout": 0});
    call("sqs", "receive_message", arguments)
}

pub fn published(bus: &str) -> Call {
    let entry = json!({
        "Source": "spillway", "DetailType": "of the rights table", "Detail": "{}", "EventBusName": bus,
    });
    call("events", "put_events", json!({"Entries": [entry]}))
}

pub fn key_of(pk: &str) -> Value {
    json!({"pk": {"S": pk}})
}

pub fn item(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "get_item",
        json!({"TableName": s.table, "Key": key_of(pk)}),
    )
}

pub fn batch(s: &Setting, pk: &str) -> Call {
    let keys = json!({"Keys": [key_of(pk)]});
    call(
        "dynamodb",
        "batch_get_item",
        json!({"RequestItems": {s.table.as_str(): keys}}),
    )
}

pub fn put(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "put_item",
        json!({"TableName": s.table, "Item": key_of(pk)}),
    )
}

pub fn delete(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "delete_item",
        json!({"TableName": s.table, "Key": key_of(pk)}),
    )
}

pub fn due(s: &Setting) -> Call {
    let arguments = json!({
        "TableName": s.table,
        "IndexName": "due",
        "KeyConditionExpression": "due_shard = :shard",
        "ExpressionAttributeValues": {":shard": {"S": "0"}},
    });
    call("dynamodb", "query", arguments)
}

pub fn secret(name: &str) -> Call {
    call(
        "ssm",
        "get_parameter",
        json!({"Name": name, "WithDecryption": true}),
    )
}

/// A key is stored as `spillway keys create` stores it.
pub fn stored(name: &str) -> Call {
    let arguments =
        json!({"Name": name, "Type": "SecureString", "Value": "throwaway", "Overwrite": true});
    call("ssm", "put_parameter", arguments)
}

pub fn listed(s: &Setting) -> Call {
    let path = format!("/spillway/{}/signing-key/", s.cluster);
    call("ssm", "get_parameters_by_path", json!({"Path": path}))
}

/// The template's command with an envelope that nobody signed: the head node refuses what is in it.
pub fn command(s: &Setting) -> Call {
    let envelope = format!("spillway1.{}.e30.{}", "0".repeat(16), "A".repeat(86));
    let arguments = json!({
        "DocumentName": s.document,
        "InstanceIds": [s.head_node],
        "TimeoutSeconds": 30,
        "Parameters": {"Envelope": [envelope]},
    });
    call("ssm", "send_command", arguments)
}

pub fn describe() -> Call {
    call("ec2", "describe_instances", json!({}))
}

pub fn terminated(ids: &[&str]) -> Call {
    call("ec2", "terminate_instances", json!({"InstanceIds": ids}))
}

pub fn tagged(ids: &[&str], key: &str, value: &str) -> Call {
    let tags = json!([{"Key": key, "Value": value}]);
    call(
        "ec2",
        "create_tags",
        json!({"Resources": ids, "Tags": tags}),
    )
}

/// Our tag for these types of resource.
pub fn tags(types: &[&str], cluster: &str) -> Value {
    let tags = json!([{"Key": "spillway:cluster", "Value": cluster}]);
    let of = |kind: &&str| json!({"ResourceType": kind, "Tags": tags});
    types.iter().map(of).collect()
}

/// What `launch` says for one pool.
pub fn run(s: &Setting) -> Call {
    let arguments = json!({
        "MinCount": 1,
        "MaxCount": 1,
        "LaunchTemplate": {"LaunchTemplateId": s.template, "Version": "1"},
        "InstanceType": "c7i.large",
        "SubnetId": s.subnet,
        "TagSpecifications": tags(&["instance", "volume", "network-interface"], &s.cluster),
    });
    call("ec2", "run_instances", arguments)
}

/// The same for spot capacity.
pub fn spot(s: &Setting) -> Call {
    let mut call = run(s);
    call.arguments["InstanceMarketOptions"] = json!({"MarketType": "spot"});
    call
}

/// What it says for several.
pub fn fleet(s: &Setting) -> Call {
    let template = json!({"LaunchTemplateId": s.template, "Version": "1"});
    let overrides = json!([{"InstanceType": "c7i.large", "SubnetId": s.subnet}]);
    let config = json!({"LaunchTemplateSpecification": template, "Overrides": overrides});
    let arguments = json!({
        "Type": "instant",
        "LaunchTemplateConfigs": [config],
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
        "TagSpecifications": tags(&["fleet", "instance"], &s.cluster),
    });
    call("ec2", "create_fleet", arguments)
}
