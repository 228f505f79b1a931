//! The checks that scanners of templates (checkov, cfn-guard, cfn-nag) make and that matter here, each with the
//! resources that it does not hold for and the reason why.
//!
//! All that checkov 3.3.30 finds in the template is among the exceptions. It is not run itself: it needs a Python
//! environment of its own (290 MB, for it pins another boto3 than the emulator), and knows less of the queues.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};
use spillway_checks::template::{Template, list, target};

const QUEUE: &str = "AWS::SQS::Queue";
const TABLE: &str = "AWS::DynamoDB::Table";
const TOPIC: &str = "AWS::SNS::Topic";
const FUNCTION: &str = "AWS::Serverless::Function";
const LOG_GROUP: &str = "AWS::Logs::LogGroup";
const LAUNCH_TEMPLATE: &str = "AWS::EC2::LaunchTemplate";
const SECURITY_GROUP: &str = "AWS::EC2::SecurityGroup";
const ROLE: &str = "AWS::IAM::Role";
const MANAGED_POLICY: &str = "AWS::IAM::ManagedPolicy";
const ALARM: &str = "AWS::CloudWatch::Alarm";

/// A check, named after checkov's where that has it: whom it finds fault with.
struct Check {
    name: &'static str,
    /// Resources of this type are looked at.
    kind: &'static str,
    /// Whether the resource of this id with these properties is as it should be.
    holds: fn(&Template, &str, &Value) -> bool,
}

/// A resource that a check need not hold for.
struct Exception {
    check: &'static str,
    resource: &'static str,
    reason: &'static str,
}

const CHECKS: &[Check] = &[
    Check {
        name: "queues are encrypted",
        kind: QUEUE,
        holds: |_, _, queue| {
            queue["SqsManagedSseEnabled"] == true || !queue["KmsMasterKeyId"].is_null()
        },
    },
    Check {
        name: "CKV_AWS_27 queues are encrypted by a key of one's own",
        kind: QUEUE,
        holds: |_, _, queue| !queue["KmsMasterKeyId"].is_null(),
    },
    Check {
        name: "queues refuse whoever comes without TLS",
        kind: QUEUE,
        holds: |template, id, _| refuses_without_tls(template, id),
    },
    Check {
        name: "what a queue cannot deliver is kept in another",
        kind: QUEUE,
        holds: |template, id, queue| {
            !queue["RedrivePolicy"].is_null() || is_end_of_the_line(template, id)
        },
    },
    Check {
        name: "what ends up in a dead-letter queue raises an alarm",
        kind: QUEUE,
        holds: |template, id, _| !is_end_of_the_line(template, id) || has_alarm(template, id),
    },
    Check {
        name: "CKV_AWS_119 tables are encrypted by a key of one's own",
        kind: TABLE,
        holds: |_, _, table| !table["SSESpecification"]["KMSMasterKeyId"].is_null(),
    },
    Check {
        name: "tables are encrypted by a key of the account",
        kind: TABLE,
        holds: |_, _, table| table["SSESpecification"]["SSEEnabled"] == true,
    },
    Check {
        name: "CKV_AWS_28 tables can be put back to any second of the last days",
        kind: TABLE,
        holds: |_, _, table| {
            table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] == true
        },
    },
    Check {
        name: "tables are not deleted by mistake",
        kind: TABLE,
        holds: |template, _, table| {
            table["DeletionProtectionEnabled"] == json!({"Fn::If": ["DataProtected", true, false]})
                && template.at("/Parameters/ProtectData/Default") == "true"
        },
    },
    Check {
        name: "CKV_AWS_26 topics are encrypted",
        kind: TOPIC,
        holds: |_, _, topic| !topic["KmsMasterKeyId"].is_null(),
    },
    Check {
        name: "CKV_AWS_66 logs are not kept for ever",
        kind: LOG_GROUP,
        holds: |_, _, group| !group["RetentionInDays"].is_null(),
    },
    Check {
        name: "CKV_AWS_158 logs are encrypted by a key of one's own",
        kind: LOG_GROUP,
        holds: |_, _, group| !group["KmsKeyId"].is_null(),
    },
    Check {
        name: "functions write to a log group that the template makes",
        kind: FUNCTION,
        holds: |template, _, function| {
            let own = target(&function["LoggingConfig"]["LogGroup"]).unwrap_or_default();
            template.of_type(LOG_GROUP).any(|(id, _)| id == own)
        },
    },
    Check {
        name: "CKV_AWS_115 functions have a limit of concurrency, their own or their queue's",
        kind: FUNCTION,
        holds: |template, id, function| {
            let mut queues = template
                .events()
                .filter(|(of, event)| *of == id && event["Type"] == "SQS");
            !function["ReservedConcurrentExecutions"].is_null()
                || queues.any(|(_, event)| {
                    !event["Properties"]["ScalingConfig"]["MaximumConcurrency"].is_null()
                })
        },
    },
    Check {
        name: "CKV_AWS_116 what a function cannot handle is kept in a queue",
        kind: FUNCTION,
        holds: |template, id, _| {
            template
                .events()
                .filter(|(of, _)| *of == id)
                .all(|(_, event)| {
                    let source = &event["Properties"];
                    let queue = target(&source["Queue"]).unwrap_or_default();
                    let redrives = !property(template, queue, "RedrivePolicy").is_null();
                    redrives || !source["DestinationConfig"]["OnFailure"].is_null()
                })
        },
    },
    Check {
        name: "CKV_AWS_117 functions run inside a VPC",
        kind: FUNCTION,
        holds: |_, _, function| !function["VpcConfig"].is_null(),
    },
    Check {
        name: "CKV_AWS_45 functions hold no secret in their environment",
        kind: FUNCTION,
        holds: |_, _, function| {
            let variables = function["Environment"]["Variables"].as_object();
            variables.into_iter().flatten().all(|(name, value)| {
                let words = ["SECRET", "TOKEN", "PASSWORD", "PRIVATE"];
                words.iter().all(|word| !name.contains(word)) || value.is_object()
            })
        },
    },
    Check {
        name: "CKV_AWS_173 functions' environments are encrypted by a key of one's own",
        kind: FUNCTION,
        holds: |_, _, function| !function["KmsKeyArn"].is_null(),
    },
    Check {
        name: "functions have no address on the Internet",
        kind: FUNCTION,
        holds: |template, id, function| {
            let mut events = template.events().filter(|(of, _)| *of == id);
            function["FunctionUrlConfig"].is_null()
                && events.all(|(_, event)| event["Type"] == "SQS" || event["Type"] == "DynamoDB")
        },
    },
    Check {
        name: "CKV_AWS_341 instances answer metadata to version 2 only, and to nobody one hop away",
        kind: LAUNCH_TEMPLATE,
        holds: |_, _, template| {
            let metadata = &template["LaunchTemplateData"]["MetadataOptions"];
            metadata["HttpTokens"] == "required" && metadata["HttpPutResponseHopLimit"] == 1
        },
    },
    Check {
        name: "volumes are encrypted",
        kind: LAUNCH_TEMPLATE,
        holds: |_, _, template| {
            let mut devices =
                list(&template["LaunchTemplateData"]["BlockDeviceMappings"]).peekable();
            devices.peek().is_some() && devices.all(|device| device["Ebs"]["Encrypted"] == true)
        },
    },
    Check {
        name: "CKV_AWS_88 instances have no public address",
        kind: LAUNCH_TEMPLATE,
        holds: |_, _, template| {
            list(&template["LaunchTemplateData"]["NetworkInterfaces"])
                .all(|interface| interface["AssociatePublicIpAddress"] == false)
        },
    },
    Check {
        name: "CKV_AWS_260 nothing is open to everyone",
        kind: SECURITY_GROUP,
        holds: |_, _, group| list(&group["SecurityGroupIngress"]).all(|rule| !is_everywhere(rule)),
    },
    Check {
        name: "CKV_AWS_382 instances do not reach everything",
        kind: SECURITY_GROUP,
        holds: |_, _, group| list(&group["SecurityGroupEgress"]).all(|rule| !is_everywhere(rule)),
    },
    Check {
        name: "CKV_AWS_23 every rule of a security group says what it is for",
        kind: SECURITY_GROUP,
        holds: |_, _, group| {
            list(&group["SecurityGroupIngress"])
                .chain(list(&group["SecurityGroupEgress"]))
                .all(|rule| rule["Description"].is_string())
        },
    },
    Check {
        name: "CKV_AWS_60 roles are taken on by one service of AWS's",
        kind: ROLE,
        holds: |_, _, role| {
            list(&role["AssumeRolePolicyDocument"]["Statement"]).all(|statement| {
                statement["Principal"]
                    .as_object()
                    .is_some_and(|who| who.len() == 1 && who["Service"].is_string())
            })
        },
    },
    Check {
        name: "CKV_AWS_63 roles allow actions by name",
        kind: ROLE,
        holds: |template, id, _| allows_by_name(template, id),
    },
    Check {
        name: "CKV_AWS_63 policies allow actions by name",
        kind: MANAGED_POLICY,
        holds: |template, id, _| allows_by_name(template, id),
    },
    Check {
        name: "CKV_AWS_111 roles are allowed nothing on everything",
        kind: ROLE,
        holds: |template, id, _| allows_on_something(template, id),
    },
    Check {
        name: "CKV_AWS_111 policies allow nothing on everything",
        kind: MANAGED_POLICY,
        holds: |template, id, _| allows_on_something(template, id),
    },
];

const EXCEPTIONS: &[Exception] = &[
    Exception {
        check: "CKV_AWS_27 queues are encrypted by a key of one's own",
        resource: "*",
        reason: "costs money every month and for every call; SQS's own key keeps out whoever has no right to the queue",
    },
    Exception {
        check: "CKV_AWS_119 tables are encrypted by a key of one's own",
        resource: "Table",
        reason: "as for the queues; the account's key for DynamoDB is used, whose use CloudTrail shows",
    },
    Exception {
        check: "CKV_AWS_26 topics are encrypted",
        resource: "AlarmTopic",
        reason: "CloudWatch publishes only to topics under a key of one's own; an alarm names queues and metrics",
    },
    Exception {
        check: "CKV_AWS_158 logs are encrypted by a key of one's own",
        resource: "*",
        reason: "CloudWatch encrypts all logs; ours hold no secrets, which a test searches them for",
    },
    Exception {
        check: "CKV_AWS_115 functions have a limit of concurrency, their own or their queue's",
        resource: "CallbackFunction",
        reason: "a table's stream runs one copy a shard",
    },
    Exception {
        check: "CKV_AWS_115 functions have a limit of concurrency, their own or their queue's",
        resource: "PublishFunction",
        reason: "a table's stream runs one copy a shard",
    },
    Exception {
        check: "CKV_AWS_117 functions run inside a VPC",
        resource: "*",
        reason: "they call services of AWS's only; a VPC needs endpoints that are paid by the hour while nothing runs",
    },
    Exception {
        check: "CKV_AWS_173 functions' environments are encrypted by a key of one's own",
        resource: "*",
        reason: "Lambda encrypts them by its own key; they hold names and addresses of queues and of the table",
    },
    Exception {
        check: "CKV_AWS_260 nothing is open to everyone",
        resource: "BurstNodeSecurityGroup",
        reason: "ICMP 3/4 alone, which any router on the way may have to send",
    },
    Exception {
        check: "CKV_AWS_382 instances do not reach everything",
        resource: "BurstNodeSecurityGroup",
        reason: "what jobs may reach is for the site's routes and firewalls to say",
    },
    Exception {
        check: "CKV_AWS_111 roles are allowed nothing on everything",
        resource: "LaunchRole",
        reason: "ec2:DescribeInstances, for which EC2 has no narrower resource",
    },
    Exception {
        check: "CKV_AWS_111 roles are allowed nothing on everything",
        resource: "SweepRole",
        reason: "ec2:DescribeInstances and DescribeInstanceStatus, for which EC2 has no narrower resource",
    },
    Exception {
        check: "CKV_AWS_111 roles are allowed nothing on everything",
        resource: "ReportRole",
        reason: "ssm:GetCommandInvocation, for which SSM has no narrower resource; it tells what became of commands",
    },
    Exception {
        check: "CKV_AWS_111 roles are allowed nothing on everything",
        resource: "NoticeRole",
        reason: "ec2:DescribeInstances, for which EC2 has no narrower resource",
    },
    Exception {
        check: "CKV_AWS_111 policies allow nothing on everything",
        resource: "HeadNodePolicy",
        reason: "the SSM agent's own channel, whose actions have no narrower resource",
    },
];

#[test]
fn every_check_holds_but_for_the_exceptions() -> Result<()> {
    let template = Template::read()?;
    let mut wrong = Vec::new();
    for check in CHECKS {
        let looked_at = template.of_type(check.kind).count();
        assert!(looked_at > 0, "{} looks at nothing", check.name);
        let excepted = |id: &str| {
            let mut exceptions = EXCEPTIONS.iter().filter(|e| e.check == check.name);
            exceptions.any(|exception| exception.resource == "*" || exception.resource == id)
        };
        for (id, properties) in template.of_type(check.kind) {
            if !(check.holds)(&template, id, properties) && !excepted(id) {
                wrong.push(format!("{id}: {}", check.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// An exception is for what a check finds fault with now: `*` for all of its resources, a name for that one.
#[test]
fn no_exception_is_left_over() -> Result<()> {
    let template = Template::read()?;
    let mut seen = BTreeSet::new();
    for exception in EXCEPTIONS {
        let named = format!("{} of {}", exception.check, exception.resource);
        assert!(seen.insert(named.clone()), "twice: {named}");
        assert!(exception.reason.len() > 20, "say why: {named}");
        let check = CHECKS.iter().find(|check| check.name == exception.check);
        let check = check.unwrap_or_else(|| panic!("no such check: {named}"));
        let mut excepted = template
            .of_type(check.kind)
            .filter(|(id, _)| exception.resource == "*" || exception.resource == *id)
            .peekable();
        assert!(excepted.peek().is_some(), "no such resource: {named}");
        for (id, properties) in excepted {
            assert!(
                !(check.holds)(&template, id, properties),
                "{id} needs no exception: {named}"
            );
        }
    }
    Ok(())
}

fn property<'a>(template: &'a Template, id: &str, name: &str) -> &'a Value {
    template.at(&format!("/Resources/{id}/Properties/{name}"))
}

fn refuses_without_tls(template: &Template, queue: &str) -> bool {
    template
        .of_type("AWS::SQS::QueuePolicy")
        .any(|(_, policy)| {
            let mut statements = list(&policy["PolicyDocument"]["Statement"]);
            list(&policy["Queues"]).any(|of| target(of) == Some(queue))
                && statements.any(|statement| {
                    statement["Effect"] == "Deny"
                        && statement["Principal"] == "*"
                        && statement["Action"] == "sqs:*"
                        && statement["Condition"]
                            == json!({"Bool": {"aws:SecureTransport": "false"}})
                })
        })
}

/// Whether others put aside in it what they could not deliver.
fn is_end_of_the_line(template: &Template, queue: &str) -> bool {
    let by_queues = template
        .of_type(QUEUE)
        .any(|(_, other)| target(&other["RedrivePolicy"]["deadLetterTargetArn"]) == Some(queue));
    by_queues
        || template.events().any(|(_, event)| {
            let failures = &event["Properties"]["DestinationConfig"]["OnFailure"];
            target(&failures["Destination"]) == Some(queue)
        })
}

fn has_alarm(template: &Template, queue: &str) -> bool {
    template.of_type(ALARM).any(|(_, alarm)| {
        let mut dimensions = list(&alarm["Dimensions"]);
        dimensions.any(|dimension| target(&dimension["Value"]) == Some(queue))
            && list(&alarm["AlarmActions"]).count() > 0
    })
}

fn is_everywhere(rule: &Value) -> bool {
    rule["CidrIp"] == "0.0.0.0/0" || rule["CidrIpv6"] == "::/0"
}

fn allows_by_name(template: &Template, id: &str) -> bool {
    allowing(template, id).all(|statement| {
        let mut actions = list(&statement["Action"]).filter_map(Value::as_str);
        statement["NotAction"].is_null() && actions.all(|action| !action.contains('*'))
    })
}

fn allows_on_something(template: &Template, id: &str) -> bool {
    allowing(template, id).all(|statement| {
        statement["NotResource"].is_null()
            && list(&statement["Resource"]).all(|resource| resource != "*")
    })
}

fn allowing<'a>(template: &'a Template, id: &str) -> impl Iterator<Item = &'a Value> {
    let statements = template.statements(id).into_iter();
    statements.filter(|statement| statement["Effect"] == "Allow")
}
