//! Who may do what: the template's roles and policies. MiniStack evaluates few of their conditions as AWS does.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use spillway_checks::template::{Template, list, target};

const FUNCTION: &str = "AWS::Serverless::Function";
const CLUSTER_TAG: &str = "spillway:cluster";

/// A queue's URL without the right to send is a fault in the field; the right without the URL is one too many.
#[test]
fn a_function_may_send_where_it_is_told_to_and_nowhere_else() -> Result<()> {
    let template = Template::read()?;
    for (id, function) in template.of_type(FUNCTION) {
        let variables = function["Environment"]["Variables"]
            .as_object()
            .context("no environment")?;
        let is_queue = |id: &&str| id.ends_with("Queue");
        let told = variables.values().filter_map(target).filter(is_queue);
        let told: BTreeSet<&str> = told.collect();
        let mut may: BTreeSet<&str> = template
            .statements(&id.replace("Function", "Role"))
            .into_iter()
            .filter(|statement| statement["Action"] == "sqs:SendMessage")
            .flat_map(|statement| list(&statement["Resource"]).filter_map(target))
            .collect();
        // Lambda itself sends there, with the function's role.
        match id {
            "CallbackFunction" => assert!(may.remove("CallbackFailuresQueue")),
            "PublishFunction" => assert!(may.remove("PublishFailuresQueue")),
            _ => {}
        }
        assert_eq!(told, may, "{id}");
    }
    Ok(())
}

/// Actions for which AWS knows no narrower resource.
const EVERYWHERE: [&str; 3] = [
    "ec2:DescribeInstances",
    "ec2:DescribeInstanceStatus",
    "ssm:GetCommandInvocation",
];

/// What the SSM agent needs to take commands and answer them. AWS knows no narrower resource for these.
const AGENT_CHANNEL: [&str; 9] = [
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:OpenControlChannel",
    "ec2messages:AcknowledgeMessage",
    "ec2messages:DeleteMessage",
    "ec2messages:FailMessage",
    "ec2messages:GetEndpoint",
    "ec2messages:GetMessages",
    "ec2messages:SendReply",
];

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
                    !everywhere
                        || EVERYWHERE.contains(&action)
                        || (id == "HeadNodePolicy" && AGENT_CHANNEL.contains(&action)),
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
    // Instances: no launch is without one, and other resources of a launch do not bear the key.
    let instances = "arn:${AWS::Partition}:ec2:${AWS::Region}:${AWS::AccountId}:instance/*";
    assert_eq!(never["Effect"], "Deny");
    assert_eq!(never["Resource"], json!({"Fn::Sub": instances}));
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

    for (role, _) in template.of_type("AWS::IAM::Role") {
        let terminates = template.statements(role).into_iter().find(|statement| {
            list(&statement["Action"]).any(|action| action == "ec2:TerminateInstances")
        });
        assert_eq!(terminates.is_some(), role == "TerminateRole", "{role}");
        if let Some(statement) = terminates {
            let tag =
                &statement["Condition"]["StringEquals"][format!("aws:ResourceTag/{CLUSTER_TAG}")];
            assert_eq!(tag, &ours, "{role}");
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
        actions
            .iter()
            .all(|action| action.starts_with("sqs:") || AGENT_CHANNEL.contains(action)),
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

/// Only `callback` reads a signing key or sends a command, and only its own document to the listed head nodes.
#[test]
fn only_callback_signs_and_commands() -> Result<()> {
    let template = Template::read()?;
    let may = |id: &str, action: &str| {
        let statements = template.statements(id).into_iter();
        let allowed = statements.filter(|statement| statement["Effect"] == "Allow");
        allowed
            .filter(|statement| list(&statement["Action"]).any(|allowed| allowed == action))
            .collect::<Vec<_>>()
    };
    for (id, _) in template.of_type("AWS::IAM::Role") {
        let is_callback = id == "CallbackRole";
        assert_eq!(
            may(id, "ssm:SendCommand").len(),
            usize::from(is_callback),
            "{id}"
        );
        let reads_keys = may(id, "ssm:GetParameter").iter().any(|statement| {
            list(&statement["Resource"]).any(|resource| {
                let name = resource.to_string();
                !["/munge-key\"", "/slurm-key\""]
                    .iter()
                    .any(|end| name.contains(end))
            })
        });
        assert_eq!(reads_keys, is_callback, "{id}");
    }
    let sent = may("CallbackRole", "ssm:SendCommand")[0];
    let to: Vec<&str> = list(&sent["Resource"])
        .filter_map(|resource| resource["Fn::Sub"][0].as_str())
        .collect();
    let arn = "arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:";
    let node = format!("{arn}managed-instance/${{Id}}");
    assert_eq!(to[0], format!("{arn}document/${{Name}}"));
    assert_eq!(to[1..], [node.as_str(); 4]);
    assert_eq!(list(&sent["Resource"]).count(), to.len());
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

/// What a burst node may read is what it joins with, by the names that the client gives them.
#[test]
fn a_burst_node_reads_the_secrets_it_joins_with_and_no_others() -> Result<()> {
    let template = Template::read()?;
    let named = |secret: &str| {
        let parameter = format!("parameter/spillway/${{ClusterName}}/{secret}");
        json!({"Fn::Sub": format!("arn:${{AWS::Partition}}:ssm:${{AWS::Region}}:${{AWS::AccountId}}:{parameter}")})
    };
    let secrets = json!([named("munge-key"), named("slurm-key")]);
    for id in ["BurstNodeRole", "OperatorPolicy"] {
        let statements = template.statements(id);
        let about = |service: &str, sid: &str| {
            let found: Vec<_> = statements
                .iter()
                .filter(|statement| statement["Sid"] == sid)
                .collect();
            let [statement] = found[..] else {
                panic!("{id} has one statement {sid}")
            };
            assert!(
                list(&statement["Action"])
                    .filter_map(Value::as_str)
                    .all(|action| action.starts_with(service))
            );
            (*statement).clone()
        };
        let decrypt = match id {
            "BurstNodeRole" => {
                assert_eq!(about("ssm:", "ReadWhatItJoinsWith")["Resource"], secrets);
                about("kms:", "DecryptWhatItJoinsWith")
            }
            _ => about("kms:", "OpenWhatNodesJoinWith"),
        };
        assert_eq!(target(&decrypt["Resource"]), Some("SecretsKeyArn"));
        let condition = &decrypt["Condition"]["StringEquals"];
        assert_eq!(condition["kms:EncryptionContext:PARAMETER_ARN"], secrets);
        assert_eq!(
            condition["kms:ViaService"],
            json!({"Fn::Sub": "ssm.${AWS::Region}.amazonaws.com"})
        );
    }
    let node = template.statements("BurstNodeRole");
    let actions: BTreeSet<&str> = node
        .iter()
        .flat_map(|statement| list(&statement["Action"]))
        .filter_map(Value::as_str)
        .collect();
    let may = [
        "dynamodb:GetItem",
        "kms:Decrypt",
        "sqs:SendMessage",
        "ssm:GetParameter",
    ];
    assert_eq!(actions, BTreeSet::from(may));
    Ok(())
}
