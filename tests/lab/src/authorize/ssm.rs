//! The rights that calls of Systems Manager need: on parameters, and on commands.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssystemsmanager.html>

use serde_json::Value;

use super::ask::{Ask, arn};
use super::context::Context;
use crate::emulator::REGION;

/// A parameter that a call opens or seals. What its key is only Parameter Store knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Secret {
    /// The parameter's name.
    pub name: String,
    /// The right on its key.
    pub action: &'static str,
    /// The key as the call names it; none where the parameter's own is meant.
    pub key_id: Option<String>,
}

/// What a call needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Rights on parameters, documents and nodes.
    pub asks: Vec<Ask>,
    /// Parameters that need a right on their key too.
    pub secrets: Vec<Secret>,
}

/// What a call needs; none if the lab cannot read it.
pub(super) fn needs(operation: &str, body: &Value) -> Option<Needs> {
    let action = format!("ssm:{operation}");
    let names: Vec<&str> = match operation {
        "GetParameter" | "PutParameter" | "DeleteParameter" => vec![body["Name"].as_str()?],
        "GetParameters" => texts(&body["Names"])?,
        "GetParametersByPath" => vec![body["Path"].as_str()?],
        "SendCommand" => return send_command(&action, body),
        "GetCommandInvocation" => {
            return Some(Needs {
                asks: vec![Ask::new(&action, "*")],
                secrets: Vec::new(),
            });
        }
        _ => return None,
    };
    let asks = names
        .iter()
        .map(|name| Ask::new(&action, parameter_arn(name)));
    let decrypts = body["WithDecryption"] == true;
    let secrets = match operation {
        // Which keys lie below a path nobody has asked yet.
        "GetParametersByPath" if decrypts => return None,
        "PutParameter" if body["Type"] == "SecureString" => vec![sealed(names[0], body)],
        "GetParameter" | "GetParameters" if decrypts => {
            names.iter().map(|name| opened(name)).collect()
        }
        _ => Vec::new(),
    };
    Some(Needs {
        asks: asks.collect(),
        secrets,
    })
}

fn opened(name: &str) -> Secret {
    Secret {
        name: name.to_owned(),
        action: "kms:Decrypt",
        key_id: None,
    }
}

/// Standard parameters are encrypted by the key itself, advanced ones by a data key.
/// <https://docs.aws.amazon.com/kms/latest/developerguide/services-parameter-store.html>
fn sealed(name: &str, body: &Value) -> Secret {
    Secret {
        name: name.to_owned(),
        action: if body["Tier"] == "Advanced" {
            "kms:GenerateDataKey"
        } else {
            "kms:Encrypt"
        },
        key_id: Some(body["KeyId"].as_str().unwrap_or("alias/aws/ssm").to_owned()),
    }
}

/// The key that AWS manages for Parameter Store. Its own policy lets everyone in the account use it by way of
/// Parameter Store, but no policy can undo a Deny
/// (<https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html>).
pub(super) fn managed_key() -> String {
    arn("kms", "key/00000000-0000-0000-0000-000000000000")
}

/// The right on a key, given as its ARN.
pub(super) fn key_ask(secret: &Secret, key_arn: &str) -> Ask {
    let context = Context::default()
        .with("kms:ViaService", format!("ssm.{REGION}.amazonaws.com"))
        .with(
            "kms:EncryptionContext:PARAMETER_ARN",
            parameter_arn(&secret.name),
        );
    Ask::new(secret.action, key_arn).with(context)
}

/// A command needs the right to its document and to each node it is sent to. By tags the lab sends none.
fn send_command(action: &str, body: &Value) -> Option<Needs> {
    if body
        .get("Targets")
        .is_some_and(|targets| targets != &Value::Array(Vec::new()))
    {
        return None;
    }
    let document = body["DocumentName"].as_str()?;
    let document = match document.strip_prefix("arn:") {
        Some(_) => document.to_owned(),
        None => arn("ssm", &format!("document/{document}")),
    };
    let nodes = texts(&body["InstanceIds"])?.into_iter().map(|id| {
        if id.starts_with("mi-") {
            arn("ssm", &format!("managed-instance/{id}"))
        } else {
            arn("ec2", &format!("instance/{id}"))
        }
    });
    let resources = std::iter::once(document).chain(nodes);
    Some(Needs {
        asks: resources
            .map(|resource| Ask::new(action, resource))
            .collect(),
        secrets: Vec::new(),
    })
}

/// `/a/b` is `parameter/a/b`, and so is `a` `parameter/a`. A version or label is no part of the resource.
fn parameter_arn(name: &str) -> String {
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    let name = name.split(':').next().unwrap_or(name);
    arn(
        "ssm",
        &format!("parameter/{}", name.trim_start_matches('/')),
    )
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rights(operation: &str, body: &Value) -> Vec<String> {
        let asks = needs(operation, body).unwrap().asks;
        let start = "arn:aws:";
        let show = |ask: Ask| format!("{} {}", ask.action, ask.resource.trim_start_matches(start));
        asks.into_iter().map(show).collect()
    }

    #[test]
    fn parameters_are_named_by_their_paths() {
        let of =
            |name: &str| format!("ssm:GetParameter ssm:us-east-1:000000000000:parameter/{name}");
        for (name, expected) in [("/a/b", of("a/b")), ("a", of("a")), ("/a/b:3", of("a/b"))] {
            assert_eq!(rights("GetParameter", &json!({"Name": name})), [expected]);
        }
        let several = rights("GetParameters", &json!({"Names": ["/a", "/b"]}));
        assert_eq!(several.len(), 2);
    }

    #[test]
    fn a_command_needs_its_document_and_every_node() {
        let body = json!({"DocumentName": "d", "InstanceIds": ["mi-1", "i-2"]});
        let expected = [
            "ssm:SendCommand ssm:us-east-1:000000000000:document/d",
            "ssm:SendCommand ssm:us-east-1:000000000000:managed-instance/mi-1",
            "ssm:SendCommand ec2:us-east-1:000000000000:instance/i-2",
        ];
        assert_eq!(rights("SendCommand", &body), expected);
        let by_tag = json!({"DocumentName": "d", "Targets": [{"Key": "tag:a", "Values": ["b"]}]});
        assert_eq!(needs("SendCommand", &by_tag), None);
    }

    #[test]
    fn secrets_need_their_key_when_they_are_opened_or_sealed() {
        let secrets = |operation: &str, body: &Value| {
            let needs = needs(operation, body).unwrap();
            let show = |secret: Secret| (secret.action, secret.key_id);
            needs.secrets.into_iter().map(show).collect::<Vec<_>>()
        };
        let open = json!({"Name": "/a", "WithDecryption": true});
        assert_eq!(secrets("GetParameter", &open), [("kms:Decrypt", None)]);
        assert_eq!(secrets("GetParameter", &json!({"Name": "/a"})), []);
        let seal = json!({"Name": "/a", "Type": "SecureString", "KeyId": "k"});
        assert_eq!(
            secrets("PutParameter", &seal),
            [("kms:Encrypt", Some("k".to_owned()))]
        );
        let plain = json!({"Name": "/a", "Type": "String"});
        assert_eq!(secrets("PutParameter", &plain), []);
    }
}
