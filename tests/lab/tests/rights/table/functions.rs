//! Rows of the other functions.

use serde_json::{Value, json};

use super::{Expected, Row, asked, but, may, only};
use crate::principals::Principal::{
    Callback, HeadNode, Launch, Notice, Operator, Owner, Publish, Report, Sweep, Terminate,
};
use crate::requests::{
    command, describe, due, item, published, put, receive, run, secret, send, tagged, terminated,
};
use crate::setting::Setting;

pub(super) fn terminate(s: &Setting) -> Vec<Row> {
    let refused = |what, ids: &[&str]| {
        let (call, ours) = (terminated(ids), terminated(&[&s.doomed]));
        but(Terminate, what, "ec2:TerminateInstances", call, ours)
    };
    let ours = tagged(&[&s.stray], "spillway:cluster", &s.cluster);
    vec![
        only(
            Callback,
            Terminate,
            "command the head node",
            "ssm:SendCommand",
            command(s),
        ),
        may(
            Terminate,
            "terminate an instance of ours",
            terminated(&[&s.doomed]),
        ),
        may(Terminate, "receive suspends", receive(s, "Suspend")),
        may(Terminate, "send itself a timer", send(s, "Suspend")),
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

pub(super) fn callback(s: &Setting) -> Vec<Row> {
    let other = |what, lacks, change: &dyn Fn(&mut Value)| {
        let mut call = command(s);
        change(&mut call.arguments);
        but(Callback, what, lacks, call, command(s))
    };
    vec![
        may(Callback, "read the signing key", secret(&s.signing_key())),
        may(Callback, "send the head node its document", command(s)),
        other(
            "send it another document",
            "document/AWS-RunShellScript",
            &|a| {
                a["DocumentName"] = json!("AWS-RunShellScript");
            },
        ),
        other(
            "send its document to another node",
            "managed-instance/mi-0fedcba",
            &|a| {
                a["InstanceIds"] = json!(["mi-0fedcba9876543210"]);
            },
        ),
        other("send it to a burst node", "instance/i-", &|a| {
            a["InstanceIds"] = json!([s.ours]);
        }),
        but(
            Callback,
            "read what nodes join with",
            "ssm:GetParameter",
            secret(&s.munge_key()),
            secret(&s.signing_key()),
        ),
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

pub(super) fn publish(s: &Setting) -> Vec<Row> {
    let on_ours = published(&s.bus);
    let policy = item(s, &s.policy());
    vec![
        may(Publish, "publish on the stack's bus", on_ours.clone()),
        but(
            Publish,
            "publish on another bus",
            "events:PutEvents",
            published("default"),
            on_ours.clone(),
        ),
        only(
            Publish,
            HeadNode,
            "publish on the stack's bus",
            "events:PutEvents",
            on_ours.clone(),
        ),
        only(
            Publish,
            Callback,
            "publish on the stack's bus",
            "events:PutEvents",
            on_ours,
        ),
        may(Publish, "read the policy", policy.clone()),
        but(
            Publish,
            "read a record",
            "dynamodb:GetItem",
            item(s, "NODE#none"),
            policy,
        ),
        only(
            Report,
            Publish,
            "change a record",
            "dynamodb:PutItem",
            put(s, "NODE#of-the-rights-table"),
        ),
        only(
            Callback,
            Publish,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        only(
            Callback,
            Publish,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
        only(
            Terminate,
            Publish,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
    ]
}

pub(super) fn report(s: &Setting) -> Vec<Row> {
    vec![
        only(
            Callback,
            Report,
            "command the head node",
            "ssm:SendCommand",
            command(s),
        ),
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
            Callback,
            Report,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
    ]
}

pub(super) fn notice(s: &Setting) -> Vec<Row> {
    vec![
        may(Notice, "receive notices", receive(s, "Notices")),
        may(Notice, "set a timer", send(s, "Reports")),
        may(Notice, "ask for a termination", send(s, "Suspend")),
        may(
            Notice,
            "change a record",
            put(s, "NODE#of-the-rights-table"),
        ),
        may(Notice, "look at instances", describe()),
        only(
            Terminate,
            Notice,
            "terminate",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(Launch, Notice, "launch", "ec2:RunInstances", run(s)),
        only(
            Callback,
            Notice,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        // EventBridge alone fills the queue: nobody else can make a node drain by it.
        only(
            Owner,
            HeadNode,
            "say that an instance goes",
            "sqs:sendmessage",
            send(s, "Notices"),
        ),
        only(
            Owner,
            Notice,
            "send itself a notice",
            "sqs:sendmessage",
            send(s, "Notices"),
        ),
        only(
            Callback,
            Notice,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
        only(
            Report,
            Notice,
            "look for what is due",
            "dynamodb:Query",
            due(s),
        ),
    ]
}

pub(super) fn sweep(s: &Setting) -> Vec<Row> {
    vec![
        may(Sweep, "receive what wakes it", receive(s, "Sweep")),
        may(Sweep, "wake a launch", send(s, "Resume")),
        may(Sweep, "ask for an end", send(s, "Suspend")),
        may(Sweep, "find what is due", due(s)),
        may(
            Sweep,
            "change a record",
            put(s, "NODE#of-the-rights-table-too"),
        ),
        only(
            Terminate,
            Sweep,
            "terminate itself",
            "ec2:TerminateInstances",
            terminated(&[&s.doomed]),
        ),
        only(Launch, Sweep, "launch", "ec2:RunInstances", run(s)),
        only(
            Callback,
            Sweep,
            "send updates",
            "sqs:sendmessage",
            send(s, "Updates"),
        ),
        only(
            Callback,
            Sweep,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
        may(Operator, "ask for a sweep", send(s, "Sweep")),
        only(
            Operator,
            HeadNode,
            "ask for a sweep",
            "sqs:sendmessage",
            send(s, "Sweep"),
        ),
    ]
}
