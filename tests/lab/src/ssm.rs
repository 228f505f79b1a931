//! The lab's Run Command of AWS Systems Manager: `SendCommand` and `GetCommandInvocation`, as strict as AWS's. The
//! emulator has neither documents nor managed nodes of a site's own. Parameter Store stays with the emulator.
//!
//! Requests are not authenticated here: the proxy in front decides who may do what.

mod agent;
mod document;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use agent::NodeAgent;
pub use document::{Document, DocumentError};

/// What the lab's own service answers; the rest of SSM is the emulator's.
pub const OPERATIONS: [&str; 2] = ["SendCommand", "GetCommandInvocation"];

/// A command names at most this many nodes (API reference, `SendCommand`).
const MAX_NODES: usize = 50;
/// The least and the most of `TimeoutSeconds` (the same).
const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 30..=2_592_000;
/// How long SSM does not know yet of a command it has taken.
const UNKNOWN_FOR: Duration = Duration::from_millis(300);

/// The service. Cheap to clone; all clones see the same commands.
#[derive(Debug, Clone, Default)]
pub struct Ssm(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    documents: HashMap<String, Document>,
    /// Managed nodes and the channels of their agents.
    nodes: HashMap<String, mpsc::UnboundedSender<Delivery>>,
    /// By command and node.
    invocations: BTreeMap<(String, String), Invocation>,
}

/// A command on its way to one node's agent.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// SSM's id.
    pub command_id: String,
    /// What to run. The agent does not trust that it was checked.
    pub document: Document,
    /// The hash that the sender named, if any.
    pub document_hash: Option<String>,
    /// The values of the document's parameters.
    pub parameters: BTreeMap<String, String>,
}

/// What became of a command on one node.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The command.
    pub command_id: String,
    /// `StatusDetails`: `Pending`, `InProgress`, `Success`, `Failed`, `ExecutionTimedOut`, `DeliveryTimedOut`,
    /// `Undeliverable`.
    pub status: &'static str,
    /// -1 while there is none.
    pub exit_code: i32,
    /// What the command wrote.
    pub output: String,
    /// What it wrote to standard error.
    pub error: String,
    /// How large the parameters were, in bytes.
    pub parameter_bytes: usize,
    document: String,
    sent: Instant,
    deliver_within: Duration,
}

/// An error as SSM answers it.
#[derive(Debug)]
struct Refusal(&'static str, String);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct SendCommand {
    document_name: String,
    document_version: Option<String>,
    document_hash: Option<String>,
    document_hash_type: Option<String>,
    #[serde(default)]
    instance_ids: Vec<String>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    parameters: BTreeMap<String, Vec<String>>,
    comment: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetCommandInvocation {
    command_id: String,
    instance_id: String,
}

impl Ssm {
    /// Adds a document, as version 1.
    pub fn put_document(&self, document: Document) {
        let name = document.name.clone();
        self.lock().documents.insert(name, document);
    }

    /// Adds a managed node; gives what its agent receives. While nobody receives, commands to it are not delivered.
    #[must_use]
    pub fn register(&self, node_id: &str) -> mpsc::UnboundedReceiver<Delivery> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.lock().nodes.insert(node_id.to_owned(), sender);
        receiver
    }

    /// Everything that was sent, by command and node.
    #[must_use]
    pub fn invocations(&self) -> Vec<Invocation> {
        self.lock().invocations.values().cloned().collect()
    }

    /// The service over HTTP.
    pub fn router(self) -> Router {
        Router::new().route("/", post(answer)).with_state(self)
    }

    /// Changes what is known of a command, as its agent reports it.
    fn set(&self, command_id: &str, node_id: &str, change: impl FnOnce(&mut Invocation)) {
        let key = (command_id.to_owned(), node_id.to_owned());
        if let Some(invocation) = self.lock().invocations.get_mut(&key) {
            change(invocation);
        }
    }

    /// Whether a command may still be delivered; if so it is in progress from now on.
    fn begin(&self, command_id: &str, node_id: &str) -> bool {
        let mut begun = false;
        self.set(command_id, node_id, |invocation| {
            begun = invocation.sent.elapsed() < invocation.deliver_within;
            invocation.status = if begun {
                "InProgress"
            } else {
                "DeliveryTimedOut"
            };
        });
        begun
    }

    fn send(&self, ask: &SendCommand) -> Result<Value, Refusal> {
        let mut registry = self.lock();
        let document = checked(ask, &registry)?;
        let (parameters, bytes) = document
            .values(&ask.parameters)
            .map_err(|problem| Refusal("InvalidParameters", problem))?;
        let command_id = uuid::Uuid::new_v4().to_string();
        let timeout_seconds = ask.timeout_seconds.unwrap_or(3600);
        for node_id in &ask.instance_ids {
            let delivery = Delivery {
                command_id: command_id.clone(),
                document: document.clone(),
                document_hash: ask.document_hash.clone(),
                parameters: parameters.clone(),
            };
            let is_heard = registry.nodes[node_id].send(delivery).is_ok();
            let invocation = Invocation {
                command_id: command_id.clone(),
                status: if is_heard { "Pending" } else { "Undeliverable" },
                exit_code: -1,
                output: String::new(),
                error: String::new(),
                parameter_bytes: bytes,
                document: document.name.clone(),
                sent: Instant::now(),
                deliver_within: Duration::from_secs(timeout_seconds),
            };
            let key = (command_id.clone(), node_id.clone());
            registry.invocations.insert(key, invocation);
        }
        Ok(json!({"Command": {
            "CommandId": command_id,
            "DocumentName": document.name,
            "DocumentVersion": "1",
            "InstanceIds": ask.instance_ids,
            "Status": "Pending",
            "StatusDetails": "Pending",
            "TimeoutSeconds": timeout_seconds,
        }}))
    }

    fn invocation(&self, ask: &GetCommandInvocation) -> Result<Value, Refusal> {
        let registry = self.lock();
        let key = (ask.command_id.clone(), ask.instance_id.clone());
        let known = registry.invocations.get(&key);
        let Some(known) = known.filter(|known| known.sent.elapsed() >= UNKNOWN_FOR) else {
            return Err(Refusal("InvocationDoesNotExist", String::new()));
        };
        let is_late = known.status == "Pending" && known.sent.elapsed() >= known.deliver_within;
        let details = if is_late {
            "DeliveryTimedOut"
        } else {
            known.status
        };
        let status = match details {
            "DeliveryTimedOut" | "ExecutionTimedOut" => "TimedOut",
            "Undeliverable" => "Failed",
            same => same,
        };
        Ok(json!({
            "CommandId": ask.command_id,
            "InstanceId": ask.instance_id,
            "DocumentName": known.document,
            "DocumentVersion": "1",
            "PluginName": "apply",
            "ResponseCode": known.exit_code,
            "Status": status,
            "StatusDetails": details,
            "StandardOutputContent": known.output,
            "StandardErrorContent": known.error,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The document of a call that AWS would take.
fn checked(ask: &SendCommand, registry: &Registry) -> Result<Document, Refusal> {
    let refuse = |code, why: &str| Err(Refusal(code, why.to_owned()));
    if ask.instance_ids.is_empty() || ask.instance_ids.len() > MAX_NODES {
        return refuse("ValidationException", "1 to 50 instance ids");
    }
    if ask
        .timeout_seconds
        .is_some_and(|seconds| !TIMEOUT_SECONDS.contains(&seconds))
    {
        return refuse("ValidationException", "timeoutSeconds is out of range");
    }
    if ask
        .comment
        .as_ref()
        .is_some_and(|comment| comment.chars().count() > 100)
    {
        return refuse("ValidationException", "comment is too long");
    }
    let Some(document) = registry.documents.get(&ask.document_name) else {
        return refuse("InvalidDocument", "Document with this name does not exist.");
    };
    let version = ask.document_version.as_deref().unwrap_or("$DEFAULT");
    if !["1", "$DEFAULT", "$LATEST"].contains(&version) {
        return refuse("InvalidDocumentVersion", "Document version does not exist.");
    }
    if let Some(hash) = &ask.document_hash {
        let kind = ask.document_hash_type.as_deref().unwrap_or("Sha256");
        if kind != "Sha256" || *hash != document.hash {
            return refuse("InvalidDocument", "Document hash does not match.");
        }
    }
    for (index, node_id) in ask.instance_ids.iter().enumerate() {
        if !registry.nodes.contains_key(node_id) {
            return refuse(
                "InvalidInstanceId",
                "Instances not in a valid state for account",
            );
        }
        if ask.instance_ids[..index].contains(node_id) {
            return refuse("DuplicateInstanceId", "");
        }
    }
    Ok(document.clone())
}

async fn answer(State(ssm): State<Ssm>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok());
    let operation = target.and_then(|target| target.rsplit('.').next());
    let answered = match operation {
        Some("SendCommand") => parsed(&body).and_then(|ask| ssm.send(&ask)),
        Some("GetCommandInvocation") => parsed(&body).and_then(|ask| ssm.invocation(&ask)),
        _ => Err(Refusal("UnknownOperationException", String::new())),
    };
    let (status, body) = match answered {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(code, message)) => (
            StatusCode::BAD_REQUEST,
            json!({"__type": code, "message": message}),
        ),
    };
    let kind = [(header::CONTENT_TYPE, "application/x-amz-json-1.1")];
    (status, kind, body.to_string()).into_response()
}

fn parsed<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal("ValidationException", error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use spillway_core::envelope::{Envelope, MAX_SEALED_BYTES, SigningKey, seal};
    use spillway_core::name::ClusterName;

    use super::*;

    const CONTENT: &str = r#"{"schemaVersion":"2.2","parameters":{"Envelope":{"type":"String","allowedPattern":"^[a-z.]+$","maxChars":10,"interpolationType":"ENV_VAR"}},"mainSteps":[{"action":"aws:runShellScript","name":"apply","inputs":{"timeoutSeconds":"30","runCommand":["/usr/bin/true"]}}]}"#;

    fn service() -> (Ssm, mpsc::UnboundedReceiver<Delivery>) {
        let ssm = Ssm::default();
        ssm.put_document(Document::parse("apply", CONTENT).unwrap());
        let receiver = ssm.register("mi-1");
        (ssm, receiver)
    }

    fn ask() -> Value {
        let hash = Document::parse("apply", CONTENT).unwrap().hash;
        json!({"DocumentName": "apply", "DocumentVersion": "1", "DocumentHash": hash, "DocumentHashType": "Sha256",
               "InstanceIds": ["mi-1"], "TimeoutSeconds": 30, "Parameters": {"Envelope": ["a.b"]}})
    }

    fn code(ssm: &Ssm, field: &str, value: Value) -> &'static str {
        let mut ask = ask();
        ask[field] = value;
        let ask = serde_json::from_value(ask).unwrap();
        ssm.send(&ask).err().map_or("taken", |refusal| refusal.0)
    }

    #[test]
    fn what_aws_would_refuse_is_refused() {
        let (ssm, _receiver) = service();
        let many: Vec<String> = (0..51).map(|n| format!("mi-{n}")).collect();
        for (field, value, expected) in [
            ("Comment", json!("ours"), "taken"),
            ("Comment", json!("a".repeat(101)), "ValidationException"),
            (
                "DocumentName",
                json!("AWS-RunShellScript"),
                "InvalidDocument",
            ),
            ("DocumentVersion", json!("2"), "InvalidDocumentVersion"),
            ("DocumentHash", json!("0".repeat(64)), "InvalidDocument"),
            ("InstanceIds", json!(["mi-2"]), "InvalidInstanceId"),
            (
                "InstanceIds",
                json!(["mi-1", "mi-1"]),
                "DuplicateInstanceId",
            ),
            ("InstanceIds", json!([]), "ValidationException"),
            ("InstanceIds", json!(many), "ValidationException"),
            ("TimeoutSeconds", json!(29), "ValidationException"),
            ("Parameters", json!({}), "InvalidParameters"),
            (
                "Parameters",
                json!({"Envelope": ["a"], "Command": ["b"]}),
                "InvalidParameters",
            ),
            (
                "Parameters",
                json!({"Envelope": ["a", "b"]}),
                "InvalidParameters",
            ),
            (
                "Parameters",
                json!({"Envelope": ["a b"]}),
                "InvalidParameters",
            ),
            (
                "Parameters",
                json!({"Envelope": ["$(a)"]}),
                "InvalidParameters",
            ),
            (
                "Parameters",
                json!({"Envelope": ["aaaaaaaaaaa"]}),
                "InvalidParameters",
            ),
        ] {
            assert_eq!(
                code(&ssm, field, value.clone()),
                expected,
                "{field} {value}"
            );
        }
    }

    #[test]
    fn the_templates_document_takes_what_we_seal_and_nothing_longer() {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/sam/template.yaml");
        let document = Document::of_template("apply", &template, "ApplyDocument").unwrap();
        let envelope = Envelope {
            envelope_id: "one".to_owned(),
            issued_ms: 0,
            expires_ms: 1,
            updates: Vec::new(),
        };
        let key = SigningKey::from_seed(&[7; 32]);
        let sealed = seal(&ClusterName::new("lab").unwrap(), &envelope, &key).unwrap();
        let check = |text: &str| document.check("Envelope", text);
        assert_eq!(check(&sealed), Ok(()));
        let (head, tail) = sealed.rsplit_once('.').unwrap();
        let stretched = |bytes: usize| {
            let room = bytes - head.len() - tail.len() - 1;
            format!("{head}{}.{tail}", "A".repeat(room))
        };
        assert_eq!(check(&stretched(MAX_SEALED_BYTES)), Ok(()));
        assert!(check(&stretched(MAX_SEALED_BYTES + 1)).is_err());
        for wrong in [
            "",
            "spillway1",
            &sealed[1..],
            &format!("{sealed}A"),
            &format!("{sealed}\n"),
            &format!("$(id){sealed}"),
            &sealed.replace('.', ";"),
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_is_not_known_at_once() {
        let (ssm, _receiver) = service();
        let sent = ssm.send(&serde_json::from_value(ask()).unwrap()).unwrap();
        let ask = GetCommandInvocation {
            command_id: sent["Command"]["CommandId"].as_str().unwrap().to_owned(),
            instance_id: "mi-1".to_owned(),
        };
        assert_eq!(
            ssm.invocation(&ask).unwrap_err().0,
            "InvocationDoesNotExist"
        );
        ssm.set(&ask.command_id, "mi-1", |invocation| {
            invocation.sent -= UNKNOWN_FOR;
        });
        assert_eq!(ssm.invocation(&ask).unwrap()["StatusDetails"], "Pending");
        ssm.set(&ask.command_id, "mi-1", |invocation| {
            invocation.sent -= Duration::from_secs(30);
        });
        assert_eq!(
            ssm.invocation(&ask).unwrap()["StatusDetails"],
            "DeliveryTimedOut"
        );
    }
}
