//! What the template's alarms watch.

use anyhow::{Context, Result};
use serde_json::json;
use spillway_checks::template::{Template, target};
use spillway_control::tally::OF_THE_CLUSTER;

const ALARM: &str = "AWS::CloudWatch::Alarm";

/// CloudWatch adds nothing up over dimensions: an alarm that names others than its metric has never sees a number.
#[test]
fn alarms_name_the_dimensions_of_their_metrics() -> Result<()> {
    let template = Template::read()?;
    let ours: Vec<_> = template
        .of_type(ALARM)
        .filter(|(_, alarm)| alarm["Namespace"] == "Spillway")
        .collect();
    assert!(ours.len() > 10, "{}", ours.len());
    for (id, alarm) in ours {
        let metric = alarm["MetricName"].as_str().context("no metric")?;
        let dimensions = alarm["Dimensions"].as_array().context("no dimensions")?;
        let names: Vec<_> = dimensions.iter().map(|of| of["Name"].as_str()).collect();
        let expected: &[Option<&str>] = if OF_THE_CLUSTER.contains(&metric) {
            &[Some("Cluster")]
        } else {
            &[Some("Cluster"), Some("Function")]
        };
        assert_eq!(names, expected, "{id} of {metric}");
    }
    Ok(())
}

/// What the caps refuse and what the policy does not name is a site's mistake or somebody's attempt; a protected group needs
/// somebody to look at its image.
#[test]
fn refusals_have_alarms() -> Result<()> {
    let template = Template::read()?;
    for metric in ["NodesOverLimit", "NodesUnknown", "GroupsProtected"] {
        let alarm = template
            .of_type(ALARM)
            .find(|(_, alarm)| alarm["MetricName"] == metric);
        let (id, alarm) = alarm.with_context(|| format!("no alarm on {metric}"))?;
        assert_eq!(
            (
                &alarm["Namespace"],
                &alarm["Statistic"],
                &alarm["Threshold"]
            ),
            (&json!("Spillway"), &json!("Sum"), &json!(0)),
            "{id}"
        );
        assert_eq!(
            alarm["Dimensions"],
            json!([{"Name": "Cluster", "Value": {"Ref": "ClusterName"}}]),
            "{id}"
        );
        assert_eq!(
            target(&alarm["AlarmActions"][0]),
            Some("AlarmTopic"),
            "{id}"
        );
    }
    Ok(())
}
