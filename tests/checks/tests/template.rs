//! What the template must say and no emulator shows: there a wrong value deploys just as well.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use spillway_checks::template::{Template, list, target};

const QUEUE: &str = "AWS::SQS::Queue";
const FUNCTION: &str = "AWS::Serverless::Function";
const ALARM: &str = "AWS::CloudWatch::Alarm";
const LAUNCH_TEMPLATE: &str = "AWS::EC2::LaunchTemplate";

/// 14 days, the longest retention SQS offers.
const LONGEST_RETENTION_SECONDS: u64 = 1_209_600;
const CLUSTER_TAG: &str = "spillway:cluster";

/// Lambda refuses a mapping whose queue shows a message again before the function has timed out.
#[test]
fn a_message_stays_hidden_longer_than_a_function_runs() -> Result<()> {
    let template = Template::read()?;
    let default = |parameter: &str| {
        template
            .at(&format!("/Parameters/{parameter}/Default"))
            .as_u64()
    };
    let timeout = default("FunctionTimeoutSeconds").context("no default")?;
    let visibility = default("QueueVisibilitySeconds").context("no default")?;
    assert!(
        visibility > timeout,
        "visibility {visibility} s, time-out {timeout} s"
    );
    assert_eq!(
        template.at("/Globals/Function/Timeout"),
        &json!({"Ref": "FunctionTimeoutSeconds"})
    );
    for (id, function) in template.of_type(FUNCTION) {
        assert!(
            function["Timeout"].is_null(),
            "{id} has a time-out of its own"
        );
    }
    for (id, queue) in template
        .of_type(QUEUE)
        .filter(|(_, queue)| !queue["RedrivePolicy"].is_null())
    {
        assert_eq!(
            queue["VisibilityTimeout"],
            json!({"Ref": "QueueVisibilitySeconds"}),
            "{id}"
        );
    }
    Ok(())
}

/// A filter on an SQS mapping deletes what does not match; without a cap a flood of messages takes all of
/// the account's concurrency; without partial answers one bad message fails nine good ones.
#[test]
fn queue_mappings_are_capped_and_never_filter() -> Result<()> {
    let template = Template::read()?;
    let mut mappings = 0;
    for (id, event) in template.events() {
        let properties = &event["Properties"];
        assert_eq!(
            properties["FunctionResponseTypes"],
            json!(["ReportBatchItemFailures"]),
            "{id}"
        );
        if event["Type"] == "SQS" {
            mappings += 1;
            assert!(
                properties["FilterCriteria"].is_null(),
                "{id} filters its queue"
            );
            let most = properties["ScalingConfig"]["MaximumConcurrency"].as_u64();
            assert!(
                most.is_some_and(|most| (2..=10).contains(&most)),
                "{id}: {most:?}"
            );
            assert!(
                properties["BatchSize"]
                    .as_u64()
                    .is_some_and(|size| size <= 10),
                "{id}"
            );
        }
    }
    assert_eq!(mappings, 3, "launch, terminate and report have one each");
    Ok(())
}

/// Without an end to its retries one bad record holds up the table's stream for a day.
#[test]
fn the_stream_mapping_gives_up_in_the_end() -> Result<()> {
    let template = Template::read()?;
    let streams: Vec<_> = template
        .events()
        .filter(|(_, event)| event["Type"] == "DynamoDB")
        .collect();
    let [(id, event)] = streams[..] else {
        panic!("one function reads the stream, not {}", streams.len())
    };
    let properties = &event["Properties"];
    assert_eq!(id, "CallbackFunction");
    assert_eq!(properties["StartingPosition"], "LATEST");
    assert_eq!(properties["BisectBatchOnFunctionError"], true);
    assert_eq!(properties["MaximumRetryAttempts"], 3);
    assert_eq!(properties["MaximumRecordAgeInSeconds"], 600);
    assert_eq!(
        target(&properties["DestinationConfig"]["OnFailure"]["Destination"]),
        Some("CallbackFailuresQueue")
    );
    let pattern = properties["FilterCriteria"]["Filters"][0]["Pattern"]
        .as_str()
        .context("no filter")?;
    let pattern: Value = serde_json::from_str(pattern)?;
    assert_eq!(
        pattern,
        json!({"dynamodb": {"NewImage": {"kind": {"S": ["node"]}}}})
    );
    Ok(())
}

#[test]
fn every_queue_has_a_dead_letter_queue_an_alarm_and_speaks_tls_only() -> Result<()> {
    let template = Template::read()?;
    let alarms: BTreeSet<(&str, &str)> = template
        .of_type(ALARM)
        .filter(|(_, alarm)| target(&alarm["AlarmActions"][0]) == Some("AlarmTopic"))
        .filter_map(|(_, alarm)| {
            Some((
                target(&alarm["Dimensions"][0]["Value"])?,
                alarm["MetricName"].as_str()?,
            ))
        })
        .collect();
    let statements: Vec<_> =
        list(template.at("/Resources/TlsOnlyQueuePolicy/Properties/PolicyDocument/Statement"))
            .collect();
    let [statement] = statements[..] else {
        panic!("one statement")
    };
    assert_eq!(
        (
            &statement["Effect"],
            &statement["Principal"],
            &statement["Action"]
        ),
        (&json!("Deny"), &json!("*"), &json!("sqs:*"))
    );
    assert_eq!(
        statement["Condition"],
        json!({"Bool": {"aws:SecureTransport": "false"}})
    );
    let tls: BTreeSet<_> = list(template.at("/Resources/TlsOnlyQueuePolicy/Properties/Queues"))
        .filter_map(target)
        .collect();

    for (id, queue) in template.of_type(QUEUE) {
        assert!(tls.contains(id), "{id} can be used without TLS");
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{id}");
        if queue["RedrivePolicy"].is_null() {
            assert!(
                alarms.contains(&(id, "ApproximateNumberOfMessagesVisible")),
                "{id} fills unseen"
            );
            assert_eq!(
                queue["MessageRetentionPeriod"], LONGEST_RETENTION_SECONDS,
                "{id}"
            );
        } else {
            assert!(
                alarms.contains(&(id, "ApproximateAgeOfOldestMessage")),
                "{id} backs up unseen"
            );
            let dead =
                target(&queue["RedrivePolicy"]["deadLetterTargetArn"]).context("no target")?;
            assert_eq!(dead, id.replace("Queue", "DeadLetterQueue"));
            assert!(
                template
                    .at(&format!("/Resources/{dead}/Properties/RedrivePolicy"))
                    .is_null()
            );
        }
    }
    Ok(())
}

#[test]
fn every_function_has_a_role_and_a_log_of_its_own() -> Result<()> {
    let template = Template::read()?;
    for (id, function) in template.of_type(FUNCTION) {
        let name = id
            .strip_suffix("Function")
            .context("a function's id ends so")?;
        assert_eq!(
            target(&function["Role"]),
            Some(format!("{name}Role").as_str())
        );
        let log = format!("{name}LogGroup");
        assert_eq!(
            target(&function["LoggingConfig"]["LogGroup"]),
            Some(log.as_str())
        );
        let retention = template.at(&format!("/Resources/{log}/Properties/RetentionInDays"));
        assert_eq!(retention, &json!({"Ref": "LogRetentionDays"}));
        let trusted = template.at(&format!(
            "/Resources/{name}Role/Properties/AssumeRolePolicyDocument/Statement/0/Principal"
        ));
        assert_eq!(trusted, &json!({"Service": "lambda.amazonaws.com"}));
    }
    Ok(())
}

/// A queue's URL without the right to send is a fault in the field; the right without the URL is one too many.
#[test]
fn a_function_may_send_where_it_is_told_to_and_nowhere_else() -> Result<()> {
    let template = Template::read()?;
    for (id, function) in template.of_type(FUNCTION) {
        let variables = function["Environment"]["Variables"]
            .as_object()
            .context("no environment")?;
        let told: BTreeSet<&str> = variables.values().filter_map(target).collect();
        let mut may: BTreeSet<&str> = template
            .statements(&id.replace("Function", "Role"))
            .into_iter()
            .filter(|statement| statement["Action"] == "sqs:SendMessage")
            .flat_map(|statement| list(&statement["Resource"]).filter_map(target))
            .collect();
        if id == "CallbackFunction" {
            // Lambda itself sends there, with the function's role.
            assert!(may.remove("CallbackFailuresQueue"));
        }
        assert_eq!(told, may, "{id}");
    }
    Ok(())
}

#[test]
fn no_right_is_wider_than_it_must_be() -> Result<()> {
    let template = Template::read()?;
    let roles = template
        .of_type("AWS::IAM::Role")
        .chain(template.of_type("AWS::IAM::ManagedPolicy"));
    for (id, role) in roles {
        assert!(
            role["ManagedPolicyArns"].is_null(),
            "{id} takes policies made by others"
        );
        for statement in template.statements(id) {
            if statement["Effect"] == "Deny" {
                continue;
            }
            for action in list(&statement["Action"]).filter_map(Value::as_str) {
                assert!(!action.contains('*'), "{id} allows {action}");
                let everywhere = list(&statement["Resource"]).any(|resource| resource == "*");
                assert!(
                    !everywhere || action == "ec2:DescribeInstances",
                    "{id} allows {action} on everything"
                );
            }
        }
    }
    Ok(())
}

/// MiniStack evaluates none of these conditions as EC2 does, so what they say is held here.
#[test]
fn launches_and_terminations_need_our_tag_and_our_template() -> Result<()> {
    let template = Template::read()?;
    let ours = json!({"Ref": "ClusterName"});
    let by_sid: BTreeMap<&str, &Value> = template
        .statements("LaunchRole")
        .into_iter()
        .filter_map(|statement| Some((statement["Sid"].as_str()?, statement)))
        .collect();
    let request_tag = |sid: &str| {
        &by_sid[sid]["Condition"]["StringEquals"][format!("aws:RequestTag/{CLUSTER_TAG}")]
    };
    assert_eq!(request_tag("InstancesWithOurTag"), &ours);
    assert_eq!(request_tag("FleetsWithOurTag"), &ours);

    let never = by_sid["NeverWithoutOurTemplates"];
    assert_eq!(
        (&never["Effect"], &never["Resource"]),
        (&json!("Deny"), &json!("*"))
    );
    assert_eq!(
        never["Condition"]["ArnNotEquals"]["ec2:LaunchTemplate"],
        by_sid["LaunchFromOurTemplates"]["Resource"]
    );
    assert_eq!(
        by_sid["OnlyWhatTheTemplateNames"]["Condition"],
        json!({"Bool": {"ec2:IsLaunchTemplateResource": "true"}})
    );
    assert_eq!(
        by_sid["TagAtCreation"]["Condition"],
        json!({"StringEquals": {"ec2:CreateAction": ["CreateFleet", "RunInstances"]}})
    );

    let afterwards = &by_sid["NameAndJobTagsAfterwards"]["Condition"];
    assert_eq!(
        afterwards["StringEquals"][format!("aws:ResourceTag/{CLUSTER_TAG}")],
        ours
    );
    let keys = &afterwards["ForAllValues:StringEquals"]["aws:TagKeys"];
    assert!(
        list(keys).all(|key| key != CLUSTER_TAG),
        "the tag that says an instance is ours could be changed"
    );
    assert_eq!(afterwards["Null"]["aws:TagKeys"], "false");

    let passed = by_sid["GiveInstancesTheNodeRole"];
    assert_eq!(target(&passed["Resource"]), Some("BurstNodeRole"));
    assert_eq!(
        passed["Condition"],
        json!({"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})
    );

    for role in ["LaunchRole", "TerminateRole"] {
        for statement in template.statements(role) {
            if statement["Action"] == "ec2:TerminateInstances" {
                assert_eq!(
                    statement["Condition"]["StringEquals"]
                        [format!("aws:ResourceTag/{CLUSTER_TAG}")],
                    ours,
                    "{role}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn the_head_node_can_ask_and_nothing_more() -> Result<()> {
    let template = Template::read()?;
    let (denied, allowed): (Vec<_>, Vec<_>) = template
        .statements("HeadNodePolicy")
        .into_iter()
        .partition(|statement| statement["Effect"] == "Deny");
    let actions: BTreeSet<&str> = allowed
        .iter()
        .flat_map(|statement| list(&statement["Action"]))
        .filter_map(Value::as_str)
        .collect();
    assert!(
        actions.iter().all(|action| action.starts_with("sqs:")),
        "{actions:?}"
    );
    for statement in allowed
        .iter()
        .filter(|statement| list(&statement["Action"]).any(|action| action == "sqs:ReceiveMessage"))
    {
        assert_eq!(target(&statement["Resource"]), Some("UpdatesQueue"));
    }
    let denied: BTreeSet<&str> = denied
        .iter()
        .flat_map(|statement| list(&statement["Action"]))
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(
        denied,
        BTreeSet::from(["ssm:GetParameter*", "ssm:SendCommand", "secretsmanager:*"])
    );
    Ok(())
}

/// `ForAllValues` is true of a call that carries no key; `GetItem` is the one action that cannot be such a call.
#[test]
fn a_burst_node_reads_its_own_item_only() -> Result<()> {
    let template = Template::read()?;
    let statements = template.statements("BurstNodeRole");
    let table: Vec<_> = statements
        .iter()
        .filter(|statement| target(&statement["Resource"]) == Some("Table"))
        .collect();
    let [own] = table[..] else {
        panic!("one statement is about the table")
    };
    assert_eq!(own["Action"], "dynamodb:GetItem");
    assert_eq!(
        own["Condition"],
        json!({"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": "${ec2:SourceInstanceArn}"}})
    );
    Ok(())
}

#[test]
fn burst_nodes_guard_their_metadata_and_carry_no_key() -> Result<()> {
    let template = Template::read()?;
    for (id, properties) in template.of_type(LAUNCH_TEMPLATE) {
        let data = &properties["LaunchTemplateData"];
        assert_eq!(
            data["MetadataOptions"],
            json!({"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"}),
            "{id}"
        );
        assert!(data["KeyName"].is_null(), "{id}");
        assert_eq!(
            data["InstanceInitiatedShutdownBehavior"], "terminate",
            "{id}"
        );
        let mut volumes = list(&data["BlockDeviceMappings"]).peekable();
        assert!(
            volumes.peek().is_some() && volumes.all(|volume| volume["Ebs"]["Encrypted"] == true),
            "{id}"
        );
    }
    Ok(())
}

/// Every process of the instance that may read its metadata reads its user data.
#[test]
fn user_data_joins_and_holds_no_secret() -> Result<()> {
    const SECRET_WORDS: [&str; 9] = [
        "secret",
        "password",
        "token",
        "credential",
        "private",
        "munge",
        "aws_access",
        "ssm",
        "-----begin",
    ];
    let template = Template::read()?;
    for (id, properties) in template.of_type(LAUNCH_TEMPLATE) {
        let script = properties["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"][0]
            .as_str()
            .context("no user data")?;
        assert!(script.starts_with("#!/bin/bash\n"), "{id}");
        assert!(
            script.contains("exec /usr/bin/spillway node join --cluster ${ClusterName} "),
            "{id}"
        );
        let lower = script.to_lowercase();
        for word in SECRET_WORDS {
            assert!(
                !lower.contains(word),
                "the user data of {id} speaks of {word}"
            );
        }
    }
    // What the operator types ends up in that script.
    let allowed = template
        .at("/Parameters/SlurmdOptions/AllowedPattern")
        .as_str()
        .context("no pattern")?;
    for active in [
        '$', '`', ';', '&', '|', '<', '>', '(', ')', '\'', '"', '\\', '\n',
    ] {
        assert!(
            !allowed.trim_end_matches('$').contains(active),
            "SlurmdOptions may hold {active:?}"
        );
    }
    Ok(())
}
