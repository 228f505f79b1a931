//! Rows of `launch`.

use serde_json::{Value, json};

use super::{Row, but, may, only};
use crate::principals::Principal::{BurstNode, Callback, Launch, Report, Terminate};
use crate::requests::{
    command, describe, due, fleet, put, run, secret, send, spot, tagged, tags, terminated,
};
use crate::setting::{OTHER_TEMPLATE, Setting};

/// `RunInstances` in all its forms. Each refused one is the allowed one with one thing changed.
pub(super) fn launch(s: &Setting) -> Vec<Row> {
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

pub(super) fn launch_fleets(s: &Setting) -> Vec<Row> {
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

pub(super) fn launch_tags(s: &Setting) -> Vec<Row> {
    let named = |ids: &[&str]| tagged(ids, "Name", "cloud-0");
    let refused = |what, call| but(Launch, what, "ec2:CreateTags", call, named(&[&s.ours]));
    let ours = tagged(&[&s.stray], "spillway:cluster", &s.cluster);
    vec![
        only(
            Callback,
            Launch,
            "command the head node",
            "ssm:SendCommand",
            command(s),
        ),
        only(
            BurstNode,
            Launch,
            "read what nodes join with",
            "ssm:GetParameter",
            secret(&s.munge_key()),
        ),
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
