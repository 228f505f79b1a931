//! Rows of those on the site: the head node and the operator.

use super::{Row, may, only};
use crate::principals::Principal::{
    BurstNode, Callback, HeadNode, Launch, Operator, Owner, SsmAgent, Terminate,
};
use crate::requests::{
    command, delete, describe, fleet, item, listed, put, receive, run, secret, send, stored,
    terminated,
};
use crate::setting::{Setting, instance_arn};

pub(super) fn head_node(s: &Setting) -> Vec<Row> {
    let (get, key) = (item(s, &instance_arn(&s.ours)), secret(&s.signing_key()));
    vec![
        only(
            Callback,
            HeadNode,
            "command itself",
            "explicit deny",
            command(s),
        ),
        only(
            Callback,
            SsmAgent,
            "command itself",
            "explicit deny",
            command(s),
        ),
        only(
            Operator,
            HeadNode,
            "store a key",
            "ssm:PutParameter",
            stored(&s.new_key()),
        ),
        only(
            BurstNode,
            HeadNode,
            "read what nodes join with",
            "explicit deny",
            secret(&s.munge_key()),
        ),
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
            Callback,
            HeadNode,
            "read the signing key",
            "explicit deny",
            key.clone(),
        ),
        may(SsmAgent, "ask for a resume", send(s, "Resume")),
        only(
            Callback,
            SsmAgent,
            "read the signing key",
            "explicit deny",
            key,
        ),
    ]
}

pub(super) fn operator(s: &Setting) -> Vec<Row> {
    vec![
        may(Operator, "store a key", stored(&s.new_key())),
        may(Operator, "list the keys", listed(s)),
        only(
            Callback,
            Operator,
            "read the signing key",
            "explicit deny",
            secret(&s.signing_key()),
        ),
        only(
            Callback,
            Operator,
            "command the head node",
            "ssm:SendCommand",
            command(s),
        ),
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
