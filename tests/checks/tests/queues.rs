//! What the template says of queues, of what fills them, and of who reads them and the table's stream.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use spillway_checks::repository;
use spillway_checks::template::{Template, list, target};

const QUEUE: &str = "AWS::SQS::Queue";
const FUNCTION: &str = "AWS::Serverless::Function";
const ALARM: &str = "AWS::CloudWatch::Alarm";

/// 14 days, the longest retention SQS offers.
const LONGEST_RETENTION_SECONDS: u64 = 1_209_600;

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
    assert_eq!(
        mappings, 5,
        "launch, terminate, report, notice and sweep have one each"
    );
    Ok(())
}

/// Without an end to its retries one bad record holds up the table's stream for a day. Two readers are the most that
/// DynamoDB advises.
#[test]
fn the_stream_mappings_give_up_in_the_end() -> Result<()> {
    let template = Template::read()?;
    let streams: Vec<_> = template
        .events()
        .filter(|(_, event)| event["Type"] == "DynamoDB")
        .collect();
    let readers: Vec<_> = streams.iter().map(|(id, _)| *id).collect();
    assert_eq!(readers, ["CallbackFunction", "PublishFunction"]);
    let expected = [
        (100, 600, "CallbackFailuresQueue", json!(["node"])),
        (
            1000,
            3600,
            "PublishFailuresQueue",
            json!(["node", "sweep-report"]),
        ),
    ];
    for ((id, event), (attempts, age_seconds, queue, kinds)) in streams.into_iter().zip(expected) {
        let properties = &event["Properties"];
        assert_eq!(properties["StartingPosition"], "LATEST", "{id}");
        assert_eq!(properties["BisectBatchOnFunctionError"], true, "{id}");
        // The age is the bound.
        assert_eq!(properties["MaximumRetryAttempts"], attempts, "{id}");
        assert_eq!(properties["MaximumRecordAgeInSeconds"], age_seconds, "{id}");
        assert_eq!(
            target(&properties["DestinationConfig"]["OnFailure"]["Destination"]),
            Some(queue),
            "{id}"
        );
        let pattern = properties["FilterCriteria"]["Filters"][0]["Pattern"]
            .as_str()
            .context("no filter")?;
        let pattern: Value = serde_json::from_str(pattern)?;
        assert_eq!(
            pattern,
            json!({"dynamodb": {"NewImage": {"kind": {"S": kinds}}}}),
            "{id}"
        );
    }
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
    // A queue has one policy: of two in the template the one made last would stand.
    let mut tls = BTreeSet::new();
    for (id, policy) in template.of_type("AWS::SQS::QueuePolicy") {
        let first = list(&policy["PolicyDocument"]["Statement"]).next();
        let first = first.with_context(|| format!("{id} says nothing"))?;
        assert_eq!(
            (&first["Effect"], &first["Principal"], &first["Action"]),
            (&json!("Deny"), &json!("*"), &json!("sqs:*")),
            "{id}"
        );
        assert_eq!(
            first["Condition"],
            json!({"Bool": {"aws:SecureTransport": "false"}}),
            "{id}"
        );
        for queue in list(&policy["Queues"]).filter_map(target) {
            assert!(tls.insert(queue), "{queue} has two policies");
        }
    }

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

/// Whoever could put a message there could have any node drained.
#[test]
fn only_our_rules_fill_the_notices_queue() -> Result<()> {
    let template = Template::read()?;
    let mut allowed = Vec::new();
    for (id, policy) in template.of_type("AWS::SQS::QueuePolicy") {
        let statements = list(&policy["PolicyDocument"]["Statement"]);
        let allows = statements.filter(|statement| statement["Effect"] != "Deny");
        allowed.extend(allows.map(|statement| (id, statement)));
    }
    let [("NoticesQueuePolicy", statement)] = allowed[..] else {
        panic!("one statement allows something: {allowed:?}")
    };
    assert_eq!(
        statement["Principal"],
        json!({"Service": "events.amazonaws.com"})
    );
    assert_eq!(statement["Action"], "sqs:SendMessage");
    assert_eq!(target(&statement["Resource"]), Some("NoticesQueue"));
    let named: BTreeSet<_> = list(&statement["Condition"]["ArnEquals"]["aws:SourceArn"])
        .filter_map(target)
        .collect();
    let rules: Vec<_> = template.of_type("AWS::Events::Rule").collect();
    assert_eq!(named, rules.iter().map(|(id, _)| *id).collect());
    for (id, rule) in rules {
        let to: Vec<_> = list(&rule["Targets"])
            .map(|to| target(&to["Arn"]))
            .collect();
        assert_eq!(to, [Some("NoticesQueue")], "{id}");
    }
    Ok(())
}

/// Samples of what AWS sends, and of the rules that let them through. Events that mean nothing may come through: the reader
/// passes them over.
#[test]
fn each_event_that_matters_comes_by_one_rule() -> Result<()> {
    const BY_NO_RULE: [&str; 7] = [
        "block-delivered",
        "cloudtrail-other",
        "health-issue",
        "health-other-service",
        // As a page of the guide prints it; no event of EventBridge is without its detail-type.
        "reservation-interruption-underscore",
        "scheduled-event",
        "state-running",
    ];
    let template = Template::read()?;
    let mut samples = 0;
    for file in fs::read_dir(repository().join("events/notice"))? {
        let path = file?.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = name.context("a name")?;
        let event: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let rules = template.of_type("AWS::Events::Rule");
        let by = rules.filter(|(_, rule)| matches(&rule["EventPattern"], &event));
        let expected = usize::from(!BY_NO_RULE.contains(&name));
        assert_eq!(by.count(), expected, "{name}");
        samples += 1;
    }
    assert!(samples > 20, "{samples}");
    Ok(())
}

/// Whether an event fits a pattern of exact values, the only ones used here (EventBridge user guide, "Event patterns").
fn matches(pattern: &Value, event: &Value) -> bool {
    match pattern {
        Value::Object(fields) => fields.iter().all(|(key, of)| matches(of, &event[key])),
        Value::Array(values) => {
            assert!(values.iter().all(Value::is_string), "{pattern}");
            values.contains(event)
        }
        other => panic!("no pattern: {other}"),
    }
}
