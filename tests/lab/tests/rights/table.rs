//! The rights table: who calls what, and whether it may.

use serde_json::{Value, json};

use crate::calls::{Asked, Call};
use crate::principals::Principal;
use crate::setting::{OTHER_TEMPLATE, Setting, instance_arn};
use Principal::{
    BurstNode, Callback, Forger, HeadNode, KeylessReader, Launch, NoInstance, Operator, Owner,
    Reader, Report, SsmAgent, Stranger, Terminate,
};

/// One row.
pub struct Row {
    /// What is tried, in words.
    pub what: &'static str,
    pub asked: Asked,
    pub expected: Expected,
}

/// What must come of it.
pub enum Expected {
    /// It is carried out.
    Allowed,
    /// It is refused, for the lack of a right.
    Refused {
        /// What the refusal says: the action that is not allowed, or why.
        lacks: &'static str,
        /// The same with one thing changed, which is carried out.
        but: Asked,
    },
    /// It is refused, for nobody known signed it.
    UnknownCaller {
        /// As above.
        but: Asked,
    },
}

impl Expected {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused { .. } => "refused",
            Self::UnknownCaller { .. } => "not known",
        }
    }
}

impl Row {
    /// The call that must pass where this one must not.
    pub fn counterpart(&self) -> Option<&Asked> {
        match &self.expected {
            Expected::Allowed => None,
            Expected::Refused { but, .. } | Expected::UnknownCaller { but } => Some(but),
        }
    }
}

fn asked(who: Principal, call: Call) -> Asked {
    Asked { who, call }
}

fn may(who: Principal, what: &'static str, call: Call) -> Row {
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Allowed,
    }
}

/// Refused, but another may.
fn only(
    may: Principal,
    who: Principal,
    what: &'static str,
    lacks: &'static str,
    call: Call,
) -> Row {
    let but = asked(may, call.clone());
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Refused { lacks, but },
    }
}

/// Refused, but the caller may do something that differs in one thing.
fn but(who: Principal, what: &'static str, lacks: &'static str, call: Call, allowed: Call) -> Row {
    let but = asked(who, allowed);
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::Refused { lacks, but },
    }
}

fn not_known(may: Principal, who: Principal, what: &'static str, call: Call) -> Row {
    let but = asked(may, call.clone());
    Row {
        what,
        asked: asked(who, call),
        expected: Expected::UnknownCaller { but },
    }
}

/// The table.
pub fn rows(setting: &Setting) -> Vec<Row> {
    [
        head_node(setting),
        operator(setting),
        launch(setting),
        launch_fleets(setting),
        launch_tags(setting),
        terminate(setting),
        callback(setting),
        report(setting),
        burst_node(setting),
        others(setting),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn head_node(s: &Setting) -> Vec<Row> {
    let (get, key) = (item(s, &instance_arn(&s.ours)), secret(&s.signing_key()));
    vec![
        may(HeadNode, "ask for a resume", send(s, "Resume")),
        may(HeadNode, "ask for a suspend", send(s, "Suspend")),
        may(HeadNode, "report", send(s, "Reports")),
        may(HeadNode, "receive updates", receive(s, "Updates")),
        only(
            Launch,
            HeadNode,
            "receive resumes",
            "sqs:receivemessage",
            receive(s, "Resume"),
        ),
        only(
            Callback,
            HeadNode,
            "send itself updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        only(Launch, HeadNode, "launch", "ec2:RunInstances", run(s)),
        only(
            Launch,
            HeadNode,
            "launch a fleet",
            "ec2:CreateFleet",
            fleet(s),
        ),
        only(
            Terminate,
            HeadNode,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(
            Launch,
            HeadNode,
            "look at instances",
            "ec2:DescribeInstances",
            describe(),
        ),
        only(
            Operator,
            HeadNode,
            "read the table",
            "dynamodb:GetItem",
            get,
        ),
        only(
            Owner,
            HeadNode,
            "read the signing key",
            "explicit deny",
            key.clone(),
        ),
        may(SsmAgent, "ask for a resume", send(s, "Resume")),
        only(
            Owner,
            SsmAgent,
            "read the signing key",
            "explicit deny",
            key,
        ),
    ]
}

fn operator(s: &Setting) -> Vec<Row> {
    vec![
        may(Operator, "read the table", item(s, "POLICY")),
        may(
            Operator,
            "push a policy",
            put(s, "POLICY#of-the-rights-table"),
        ),
        may(
            Operator,
            "look at what failed",
            receive(s, "ResumeDeadLetter"),
        ),
        only(Launch, Operator, "launch", "ec2:RunInstances", run(s)),
        only(
            Terminate,
            Operator,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(
            HeadNode,
            Operator,
            "ask for a resume",
            "sqs:sendmessage",
            send(s, "Resume"),
        ),
        only(
            Callback,
            Operator,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        only(
            Owner,
            Operator,
            "delete an item",
            "dynamodb:DeleteItem",
            delete(s, "POLICY#none"),
        ),
    ]
}

/// `RunInstances` in all its forms. Each refused one is the allowed one with one thing changed.
fn launch(s: &Setting) -> Vec<Row> {
    let refused = |what, lacks, change: &dyn Fn(&mut Value)| {
        let mut call = run(s);
        change(&mut call.arguments);
        but(Launch, what, lacks, call, run(s))
    };
    let on_instances =
        "ec2:RunInstances on resource: arn:aws:ec2:us-east-1:000000000000:instance/*";
    vec![
        may(Launch, "launch from our template with our tags", run(s)),
        may(Launch, "launch a spot instance", spot(s)),
        refused("launch without tags", on_instances, &|a| {
            a.as_object_mut().unwrap().remove("TagSpecifications");
        }),
        refused("launch for another cluster", on_instances, &|a| {
            a["TagSpecifications"] = tags(&["instance"], "other");
        }),
        refused("launch from another template", "launch-template/", &|a| {
            a["LaunchTemplate"] = json!({"LaunchTemplateId": OTHER_TEMPLATE, "Version": "1"});
        }),
        refused("launch from no template", "explicit deny", &|a| {
            a.as_object_mut().unwrap().remove("LaunchTemplate");
            a["ImageId"] = json!("ami-0123456789abcdef0");
        }),
        refused("launch another image", ":image/", &|a| {
            a["ImageId"] = json!("ami-0fedcba9876543210");
        }),
        refused(
            "launch into another security group",
            ":security-group/",
            &|a| {
                a["SecurityGroupIds"] = json!(["sg-0fedcba9876543210"]);
            },
        ),
        refused("launch with a key pair", ":key-pair/", &|a| {
            a["KeyName"] = json!("mine");
        }),
        refused("launch with another role", "iam:PassRole", &|a| {
            a["IamInstanceProfile"] = json!({"Name": s.other_profile});
        }),
    ]
}

fn launch_fleets(s: &Setting) -> Vec<Row> {
    let refused = |what, lacks, change: &dyn Fn(&mut Value)| {
        let mut call = fleet(s);
        change(&mut call.arguments);
        but(Launch, what, lacks, call, fleet(s))
    };
    vec![
        may(Launch, "launch a fleet", fleet(s)),
        refused("launch a fleet without our tag", "fleet/*", &|a| {
            a["TagSpecifications"] = tags(&["instance"], &s.cluster);
        }),
        refused(
            "launch a fleet of instances without our tag",
            "instance/*",
            &|a| {
                a["TagSpecifications"] = tags(&["fleet"], &s.cluster);
            },
        ),
        refused(
            "launch a fleet from another template",
            "launch-template/",
            &|a| {
                a["LaunchTemplateConfigs"][0]["LaunchTemplateSpecification"]["LaunchTemplateId"] =
                    json!(OTHER_TEMPLATE);
            },
        ),
        refused("launch a fleet of another image", ":image/", &|a| {
            a["LaunchTemplateConfigs"][0]["Overrides"][0]["ImageId"] =
                json!("ami-0fedcba9876543210");
        }),
    ]
}

fn launch_tags(s: &Setting) -> Vec<Row> {
    let named = |ids: &[&str]| tagged(ids, "Name", "cloud-0");
    let refused = |what, call| but(Launch, what, "ec2:CreateTags", call, named(&[&s.ours]));
    let ours = tagged(&[&s.stray], "spillway:cluster", &s.cluster);
    vec![
        may(Launch, "name an instance of ours", named(&[&s.ours])),
        may(Launch, "look at instances", describe()),
        may(
            Launch,
            "put a record",
            put(s, "REQUEST#of-the-rights-table"),
        ),
        refused("take a stray instance by our tag", ours),
        refused(
            "take ours by another's tag",
            tagged(&[&s.ours], "spillway:cluster", "other"),
        ),
        refused("name another cluster's instance", named(&[&s.theirs])),
        refused(
            "name one of ours and one of theirs",
            named(&[&s.ours, &s.theirs]),
        ),
        only(
            Terminate,
            Launch,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(
            Report,
            Launch,
            "look for what is due",
            "dynamodb:Query",
            due(s),
        ),
        only(
            Callback,
            Launch,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
    ]
}

fn terminate(s: &Setting) -> Vec<Row> {
    let refused = |what, ids: &[&str]| {
        let (call, ours) = (terminated(ids), terminated(&[&s.doomed]));
        but(Terminate, what, "ec2:TerminateInstances", call, ours)
    };
    let ours = tagged(&[&s.stray], "spillway:cluster", &s.cluster);
    vec![
        may(
            Terminate,
            "terminate an instance of ours",
            terminated(&[&s.doomed]),
        ),
        may(Terminate, "receive suspends", receive(s, "Suspend")),
        refused("terminate another cluster's instance", &[&s.theirs]),
        refused("terminate a stray instance", &[&s.stray]),
        refused(
            "terminate one of ours and one of theirs",
            &[&s.doomed, &s.theirs],
        ),
        // To tag it first helps nobody: who may terminate may not tag, and who may tag may not tag it (above).
        Row {
            what: "take a stray instance by our tag",
            asked: asked(Terminate, ours),
            expected: Expected::Refused {
                lacks: "ec2:CreateTags",
                but: asked(Owner, tagged(&[&s.ours], "spillway:cluster", &s.cluster)),
            },
        },
        only(Launch, Terminate, "launch", "ec2:RunInstances", run(s)),
        only(
            HeadNode,
            Terminate,
            "ask for a resume",
            "sqs:sendmessage",
            send(s, "Resume"),
        ),
    ]
}

fn callback(s: &Setting) -> Vec<Row> {
    vec![
        may(Callback, "read a record", item(s, "NODE#none")),
        may(Callback, "send updates", send(s, "Updates")),
        only(
            Report,
            Callback,
            "change a record",
            "dynamodb:PutItem",
            put(s, "NODE#of-the-rights-table"),
        ),
        only(
            Terminate,
            Callback,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(Launch, Callback, "launch", "ec2:RunInstances", run(s)),
        only(
            HeadNode,
            Callback,
            "ask for a resume",
            "sqs:sendmessage",
            send(s, "Resume"),
        ),
        only(
            Report,
            Callback,
            "look for what is due",
            "dynamodb:Query",
            due(s),
        ),
    ]
}

fn report(s: &Setting) -> Vec<Row> {
    vec![
        only(
            Callback,
            Report,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        may(
            Report,
            "change a record",
            put(s, "NODE#of-the-rights-table"),
        ),
        may(Report, "look for what is due", due(s)),
        may(Report, "receive reports", receive(s, "Reports")),
        only(
            Terminate,
            Report,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(Launch, Report, "launch", "ec2:RunInstances", run(s)),
        only(
            HeadNode,
            Report,
            "receive updates",
            "sqs:receivemessage",
            receive(s, "Updates"),
        ),
        only(
            Owner,
            Report,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
    ]
}

fn burst_node(s: &Setting) -> Vec<Row> {
    let own = instance_arn(&s.ours);
    let refused = |what, key: &str| {
        but(
            BurstNode,
            what,
            "dynamodb:GetItem",
            item(s, key),
            item(s, &instance_arn(&s.ours)),
        )
    };
    vec![
        may(BurstNode, "read its own item", item(s, &own)),
        may(BurstNode, "report", send(s, "Reports")),
        refused("read another instance's item", &instance_arn(&s.theirs)),
        refused("read a node's item", "NODE#lab#cloud-0"),
        refused("read the policy", "POLICY"),
        only(
            BurstNode,
            NoInstance,
            "read an instance's item",
            "dynamodb:GetItem",
            item(s, &own),
        ),
        only(
            Launch,
            BurstNode,
            "read items in a batch",
            "dynamodb:BatchGetItem",
            batch(s, &own),
        ),
        only(
            Launch,
            BurstNode,
            "change its own item",
            "dynamodb:PutItem",
            put(s, &own),
        ),
        only(
            Report,
            BurstNode,
            "look for what is due",
            "dynamodb:Query",
            due(s),
        ),
        only(
            HeadNode,
            BurstNode,
            "ask for a resume",
            "sqs:sendmessage",
            send(s, "Resume"),
        ),
        only(
            HeadNode,
            BurstNode,
            "ask for a suspend",
            "sqs:sendmessage",
            send(s, "Suspend"),
        ),
        only(
            Report,
            BurstNode,
            "receive reports",
            "sqs:receivemessage",
            receive(s, "Reports"),
        ),
        only(
            Launch,
            BurstNode,
            "look at instances",
            "ec2:DescribeInstances",
            describe(),
        ),
        only(
            Terminate,
            BurstNode,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(
            Owner,
            BurstNode,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
    ]
}

/// Who has no place in the template.
fn others(s: &Setting) -> Vec<Row> {
    let get = item(s, &instance_arn(&s.ours));
    vec![
        not_known(Launch, Stranger, "launch", run(s)),
        not_known(Terminate, Stranger, "terminate", terminated(&[&s.doomed])),
        not_known(HeadNode, Stranger, "ask for a resume", send(s, "Resume")),
        not_known(Operator, Stranger, "read the table", get),
        not_known(
            Owner,
            Stranger,
            "read the signing key",
            secret(&s.signing_key()),
        ),
        not_known(Launch, Forger, "launch", run(s)),
        not_known(HeadNode, Forger, "ask for a resume", send(s, "Resume")),
        but(
            Reader,
            "read a secret without its key",
            "kms:Decrypt",
            secret("/site/by-a-customer-key"),
            secret("/site/by-the-default-key"),
        ),
        only(
            Reader,
            KeylessReader,
            "read a secret in spite of a Deny on keys",
            "explicit deny",
            secret("/site/by-the-default-key"),
        ),
    ]
}

fn call(service: &'static str, method: &'static str, arguments: Value) -> Call {
    Call {
        service,
        method,
        arguments,
    }
}

fn send(s: &Setting, queue: &str) -> Call {
    // No message of ours: who receives it puts it aside.
    let arguments = json!({"QueueUrl": s.queue(queue), "MessageBody": "of the rights table"});
    call("sqs", "send_message", arguments)
}

fn receive(s: &Setting, queue: &str) -> Call {
    let arguments =
        json!({"QueueUrl": s.queue(queue), "WaitTimeSeconds": 0, "VisibilityTimeout": 0});
    call("sqs", "receive_message", arguments)
}

fn key_of(pk: &str) -> Value {
    json!({"pk": {"S": pk}})
}

fn item(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "get_item",
        json!({"TableName": s.table, "Key": key_of(pk)}),
    )
}

fn batch(s: &Setting, pk: &str) -> Call {
    let keys = json!({"Keys": [key_of(pk)]});
    call(
        "dynamodb",
        "batch_get_item",
        json!({"RequestItems": {s.table.as_str(): keys}}),
    )
}

fn put(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "put_item",
        json!({"TableName": s.table, "Item": key_of(pk)}),
    )
}

fn delete(s: &Setting, pk: &str) -> Call {
    call(
        "dynamodb",
        "delete_item",
        json!({"TableName": s.table, "Key": key_of(pk)}),
    )
}

fn due(s: &Setting) -> Call {
    let arguments = json!({
        "TableName": s.table,
        "IndexName": "due",
        "KeyConditionExpression": "due_shard = :shard",
        "ExpressionAttributeValues": {":shard": {"S": "0"}},
    });
    call("dynamodb", "query", arguments)
}

fn secret(name: &str) -> Call {
    call(
        "ssm",
        "get_parameter",
        json!({"Name": name, "WithDecryption": true}),
    )
}

fn describe() -> Call {
    call("ec2", "describe_instances", json!({}))
}

fn terminated(ids: &[&str]) -> Call {
    call("ec2", "terminate_instances", json!({"InstanceIds": ids}))
}

fn tagged(ids: &[&str], key: &str, value: &str) -> Call {
    let tags = json!([{"Key": key, "Value": value}]);
    call(
        "ec2",
        "create_tags",
        json!({"Resources": ids, "Tags": tags}),
    )
}

/// Our tag for these types of resource.
fn tags(types: &[&str], cluster: &str) -> Value {
    let tags = json!([{"Key": "spillway:cluster", "Value": cluster}]);
    let of = |kind: &&str| json!({"ResourceType": kind, "Tags": tags});
    types.iter().map(of).collect()
}

/// What `launch` says for one pool.
fn run(s: &Setting) -> Call {
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
fn spot(s: &Setting) -> Call {
    let mut call = run(s);
    call.arguments["InstanceMarketOptions"] = json!({"MarketType": "spot"});
    call
}

/// What it says for several.
fn fleet(s: &Setting) -> Call {
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
