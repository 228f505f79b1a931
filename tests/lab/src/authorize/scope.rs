//! What the lab leaves to the proxy: the operations whose authorization the emulator behind it gets wrong.
//! Everything else is for the emulator to allow or refuse. This list is meant to shrink.

/// Operations of a service that the proxy authorizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// The service as calls are signed for it.
    pub service: &'static str,
    /// The operations; one `*` at the end stands for any.
    pub operations: &'static [&'static str],
    /// Who carries the call out once it is allowed.
    pub backend: Backend,
    /// What the emulator gets wrong.
    pub why: &'static str,
}

/// Who carries out what the proxy has allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The emulator, which checks signature and policies too: both must allow.
    EmulatorAgrees,
    /// The emulator, which checks the signature only: by the policies it would refuse what AWS allows.
    EmulatorObeys,
    /// A service of the lab's own, which checks nothing: the proxy has the emulator check the signature.
    Lab,
}

/// The list.
pub const LEFT_TO_THE_PROXY: &[Left] = &[
    Left {
        service: "ec2",
        operations: &["*"],
        backend: Backend::Lab,
        why: "The lab has an EC2 of its own. The emulator knows no tags, templates or types in conditions, checks one \
              of a call's resources at most, and never asks for iam:PassRole or the rights a fleet needs.",
    },
    Left {
        service: "dynamodb",
        operations: &[
            "BatchGetItem",
            "BatchWriteItem",
            "DeleteItem",
            "GetItem",
            "PutItem",
            "Query",
            "TransactGetItems",
            "TransactWriteItems",
            "UpdateItem",
        ],
        backend: Backend::EmulatorAgrees,
        why: "The emulator gives dynamodb:LeadingKeys no value, so ForAllValues on it lets everyone read everything.",
    },
    Left {
        service: "ssm",
        operations: &["DeleteParameter", "GetParameter", "PutParameter"],
        backend: Backend::EmulatorAgrees,
        why: "The emulator asks for no right on the key behind a SecureString.",
    },
    Left {
        service: "ssm",
        operations: &["GetParameters", "GetParametersByPath"],
        backend: Backend::EmulatorObeys,
        why: "The emulator checks these on all resources at once, which no policy on parameters allows.",
    },
    Left {
        service: "ssm",
        operations: &["GetCommandInvocation", "SendCommand"],
        backend: Backend::Lab,
        why: "The emulator knows no documents and no managed nodes.",
    },
];

/// The entry that an operation falls under; none if the emulator decides on it.
#[must_use]
pub fn find(service: &str, operation: &str) -> Option<&'static Left> {
    LEFT_TO_THE_PROXY
        .iter()
        .find(|left| left.service == service && left.operations.iter().any(|o| is(o, operation)))
}

fn is(pattern: &str, operation: &str) -> bool {
    pattern
        .strip_suffix('*')
        .map_or(pattern == operation, |start| operation.starts_with(start))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;

    use super::*;

    /// The committed snapshot is the list as reviewed: what is added to it is taken from the emulator's judgement.
    #[test]
    fn the_list_is_the_committed_one() {
        let mut text = String::new();
        for left in LEFT_TO_THE_PROXY {
            let operations = left.operations.join(" ");
            writeln!(
                text,
                "{} {operations}\n    {:?}: {}",
                left.service, left.backend, left.why
            )
            .expect("a string takes all");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_is_not_on_the_list_is_the_emulator_s() {
        for (service, operation) in [
            ("sqs", "SendMessage"),
            ("dynamodb", "Scan"),
            ("dynamodb", "GetItems"),
            ("ssm", "DescribeParameters"),
            ("iam", "PassRole"),
            ("", "GetItem"),
        ] {
            assert_eq!(find(service, operation), None, "{service} {operation}");
        }
        assert_eq!(find("ec2", "RunInstances"), Some(&LEFT_TO_THE_PROXY[0]));
    }

    /// An operation on the list that the lab cannot read would be refused to everyone.
    #[test]
    fn everything_on_the_list_can_be_read() {
        use super::super::{dynamodb, ssm};
        let key = json!({"pk": {"S": "a"}});
        let body = json!({
            "TableName": "t", "Key": key, "Item": key,
            "KeyConditionExpression": "pk = :p", "ExpressionAttributeValues": {":p": {"S": "a"}},
            "RequestItems": {}, "TransactItems": [],
            "Name": "/a", "Names": ["/a"], "Path": "/a", "DocumentName": "d", "InstanceIds": ["mi-1"],
        });
        for left in LEFT_TO_THE_PROXY {
            for operation in left.operations {
                let is_read = match left.service {
                    "dynamodb" => dynamodb::tables(operation, &body).is_ok(),
                    "ssm" => ssm::needs(operation, &body).is_some(),
                    other => other == "ec2",
                };
                assert!(is_read, "{} {operation}", left.service);
            }
        }
    }
}
