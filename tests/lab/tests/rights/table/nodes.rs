//! Rows of burst nodes, and of those who have no place in the template.

use super::{Row, but, may, not_known, only};
use crate::principals::Principal::{
    BurstNode, Callback, Forger, HeadNode, KeylessReader, Launch, NoInstance, Operator, Reader,
    Report, Stranger, Terminate,
};
use crate::requests::{
    batch, command, describe, due, item, put, receive, run, secret, send, stored, terminated,
};
use crate::setting::{Setting, instance_arn};

pub(super) fn burst_node(s: &Setting) -> Vec<Row> {
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
            Callback,
            BurstNode,
            "read the signing key",
            "ssm:GetParameter",
            secret(&s.signing_key()),
        ),
    ]
}

/// What a burst node may know and say beside the table and the queues.
pub(super) fn burst_node_secrets(s: &Setting) -> Vec<Row> {
    vec![
        only(
            Callback,
            BurstNode,
            "command the head node",
            "ssm:SendCommand",
            command(s),
        ),
        may(BurstNode, "read what it joins with", secret(&s.munge_key())),
        only(
            Operator,
            BurstNode,
            "change what nodes join with",
            "ssm:PutParameter",
            stored(&s.new_key()),
        ),
    ]
}

/// Who has no place in the template.
pub(super) fn others(s: &Setting) -> Vec<Row> {
    let get = item(s, &instance_arn(&s.ours));
    vec![
        not_known(Launch, Stranger, "launch", run(s)),
        not_known(Terminate, Stranger, "terminate", terminated(&[&s.doomed])),
        not_known(HeadNode, Stranger, "ask for a resume", send(s, "Resume")),
        not_known(Operator, Stranger, "read the table", get),
        not_known(
            Callback,
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
