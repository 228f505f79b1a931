//! AWS Systems Manager: the signing key in Parameter Store, and Run Command as a road to the head node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_ssm::types::DocumentHashType;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{CommandOutcome, CommandOutcomes, Commands, Keys};
use spillway_core::envelope::{KeyId, SigningKey};
use spillway_core::message::CommandSent;
use spillway_core::name::ClusterName;
use tokio::sync::Mutex;
use tracing::warn;

use crate::classify;
use crate::sdk::{SdkConfig, SsmClient};

const SERVICE: &str = "ssm";
const GET_PARAMETER: &str = "GetParameter";

/// How long a key is used without asking whether it is still the active one. Parameter Store answers 40 calls a second
/// for the whole account; a rotation waits this long before it revokes the old key.
const KEY_LIFE: Duration = Duration::from_mins(1);
/// How long a key goes on signing while Parameter Store cannot be asked: its limit of calls is the whole account's.
const KEY_GRACE: Duration = Duration::from_mins(10);

/// The template makes a new document for each content, so every document has one version.
const DOCUMENT_VERSION: &str = "1";
/// The document's one parameter.
const DOCUMENT_PARAMETER: &str = "Envelope";
/// How long SSM tries to deliver a command: the shortest it takes. A later envelope says what is due by then.
const DELIVERY_SECONDS: i32 = 30;
/// How much of what a command wrote is kept.
const MAX_ERROR_CHARS: usize = 500;

/// A client; make one per process.
#[must_use]
pub fn ssm_client(config: &SdkConfig) -> SsmClient {
    SsmClient::new(config)
}

/// The signing keys of one cluster. Lives as long as the process: it remembers the key it read last.
#[derive(Debug)]
pub struct SsmKeys {
    client: SsmClient,
    cluster: ClusterName,
    last: Mutex<Option<(Instant, Arc<SigningKey>)>>,
}

impl SsmKeys {
    /// The keys of `cluster`.
    #[must_use]
    pub fn new(client: SsmClient, cluster: ClusterName) -> Self {
        Self {
            client,
            cluster,
            last: Mutex::new(None),
        }
    }

    async fn read(&self) -> Result<SigningKey, Fault> {
        let active = self.name("active");
        let id: KeyId = self
            .parameter(&active, false)
            .await?
            .trim()
            .parse()
            .map_err(|_| unusable(&active, "it holds no key id"))?;
        let name = self.name(&id.to_string());
        let text = self.parameter(&name, true).await?;
        let key = SigningKey::from_secret_text(&text)
            .map_err(|error| unusable(&name, &error.to_string()))?;
        if key.id() != id {
            return Err(unusable(&name, "it holds another key"));
        }
        Ok(key)
    }

    fn name(&self, last: &str) -> String {
        format!("/spillway/{}/signing-key/{last}", self.cluster)
    }

    async fn parameter(&self, name: &str, decrypt: bool) -> Result<String, Fault> {
        let call = self.client.get_parameter().name(name);
        let answer = call.with_decryption(decrypt).send().await;
        let answer = answer.map_err(|error| {
            let fault = classify::fault(SERVICE, GET_PARAMETER, &error);
            let message = format!("parameter {name}: {}", fault.message);
            Fault { message, ..fault }
        })?;
        let value = answer.parameter.and_then(|parameter| parameter.value);
        value.ok_or_else(|| unusable(name, "it is empty"))
    }
}

impl Keys for SsmKeys {
    async fn signing_key(&self) -> Result<Arc<SigningKey>, Fault> {
        let mut last = self.last.lock().await;
        if let Some((read_at, key)) = last.as_ref()
            && read_at.elapsed() < KEY_LIFE
        {
            return Ok(Arc::clone(key));
        }
        match (self.read().await, last.as_ref()) {
            (Ok(key), _) => {
                let key = Arc::new(key);
                *last = Some((Instant::now(), Arc::clone(&key)));
                Ok(key)
            }
            (Err(fault), Some((read_at, key)))
                if fault.is_passing() && read_at.elapsed() < KEY_GRACE =>
            {
                warn!(%fault, "the key that was read before goes on signing");
                Ok(Arc::clone(key))
            }
            (Err(fault), _) => Err(fault),
        }
    }
}

fn unusable(name: &str, problem: &str) -> Fault {
    Fault {
        kind: FaultKind::Invalid,
        service: SERVICE.into(),
        operation: GET_PARAMETER.into(),
        code: "UnusableKey".to_owned(),
        message: format!("parameter {name}: {problem}; see `spillway keys list`"),
    }
}

/// Run Command, with one document, to the head nodes.
#[derive(Debug, Clone)]
pub struct SsmCommands {
    /// The client.
    pub client: SsmClient,
    /// The document's name.
    pub document: String,
    /// SHA-256 of its content in hex: a document that somebody changed is refused.
    pub document_hash: String,
    /// The managed nodes, `mi-…`, at most 50.
    pub head_nodes: Vec<String>,
}

impl Commands for SsmCommands {
    async fn send(&self, sealed: &str) -> Result<CommandSent, Fault> {
        let answer = self
            .client
            .send_command()
            .document_name(&self.document)
            .document_version(DOCUMENT_VERSION)
            .document_hash(&self.document_hash)
            .document_hash_type(DocumentHashType::Sha256)
            .set_instance_ids(Some(self.head_nodes.clone()))
            .timeout_seconds(DELIVERY_SECONDS)
            .parameters(DOCUMENT_PARAMETER, vec![sealed.to_owned()])
            .send()
            .await
            .map_err(|error| classify::fault(SERVICE, "SendCommand", &error))?;
        let command_id = answer.command.and_then(|command| command.command_id);
        Ok(CommandSent {
            command_id: command_id.unwrap_or_default(),
            head_nodes: self.head_nodes.clone(),
        })
    }
}

/// What SSM knows of commands.
#[derive(Debug, Clone)]
pub struct SsmOutcomes(pub SsmClient);

impl CommandOutcomes for SsmOutcomes {
    async fn outcome(&self, command_id: &str, head_node: &str) -> Result<CommandOutcome, Fault> {
        let call = self.0.get_command_invocation();
        let answer = call
            .command_id(command_id)
            .instance_id(head_node)
            .send()
            .await
            .map_err(|error| classify::fault(SERVICE, "GetCommandInvocation", &error))?;
        let written = answer.standard_error_content.unwrap_or_default();
        let line = written.lines().next().unwrap_or_default();
        Ok(CommandOutcome {
            status: answer.status_details.unwrap_or_default(),
            // -1 says that there is none (GetCommandInvocation, ResponseCode).
            exit_code: Some(answer.response_code).filter(|code| *code >= 0),
            error: line.chars().take(MAX_ERROR_CHARS).collect(),
        })
    }
}
