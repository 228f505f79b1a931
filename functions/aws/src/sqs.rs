//! The queues in SQS, and the dead-letter queue into which messages are set aside that stay wrong.

use aws_sdk_sqs::types::MessageAttributeValue;
use serde::Serialize;
use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{MAX_DELAY_SECONDS, Queues};
use spillway_core::message::{
    MAX_BODY_BYTES, Message, ReportBody, ResumeQueueBody, SuspendQueueBody,
};
use spillway_core::name::ClusterName;

use crate::classify;
use crate::sdk::{SdkConfig, SqsClient};

const SERVICE: &str = "sqs";
const OPERATION: &str = "SendMessage";

/// The attribute of a message set aside that says why.
const REASON: &str = "Reason";
/// How much of a reason is kept.
const MAX_REASON_CHARS: usize = 500;

/// Where the queues are. A function is given those that it sends to.
#[derive(Debug, Clone, Default)]
pub struct QueueUrls {
    /// Of `launch`.
    pub resume: Option<String>,
    /// Of `terminate`.
    pub suspend: Option<String>,
    /// Of `report`.
    pub reports: Option<String>,
    /// Of the agent.
    pub updates: Option<String>,
    /// Where the function sets messages aside.
    pub dead_letter: Option<String>,
}

/// The queues of one cluster.
#[derive(Debug, Clone)]
pub struct SqsQueues {
    client: SqsClient,
    cluster: ClusterName,
    urls: QueueUrls,
}

impl SqsQueues {
    /// A client; make one per process.
    #[must_use]
    pub fn client(config: &SdkConfig) -> SqsClient {
        SqsClient::new(config)
    }

    /// The queues at `urls`, for messages of `cluster`.
    #[must_use]
    pub fn new(client: SqsClient, cluster: ClusterName, urls: QueueUrls) -> Self {
        Self {
            client,
            cluster,
            urls,
        }
    }

    /// Sets a message aside: its body word for word, and the reason as attribute `Reason`. A body that
    /// leaves no room for the reason is cut at its end.
    pub async fn quarantine(&self, body: &str, reason: &str) -> Result<(), Fault> {
        let reason = printable(reason);
        let room = MAX_BODY_BYTES - REASON.len() - "String".len() - reason.len();
        let body = if body.is_empty() {
            "(empty)"
        } else {
            &body[..body.floor_char_boundary(room)]
        };
        let attribute = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(reason)
            .build()
            .map_err(|error| invalid("Construction", &error.to_string()))?;
        let url = url(
            self.urls.dead_letter.as_ref(),
            "SPILLWAY_DEAD_LETTER_QUEUE_URL",
        )?;
        let message = self
            .client
            .send_message()
            .queue_url(url)
            .message_body(body)
            .message_attributes(REASON, attribute);
        message
            .send()
            .await
            .map_err(|error| classify::fault(SERVICE, OPERATION, &error))?;
        Ok(())
    }

    async fn send<T: Serialize>(
        &self,
        url: Result<&str, Fault>,
        body: T,
        delay_seconds: u64,
    ) -> Result<(), Fault> {
        let text = Message::new(self.cluster.clone(), body).to_json();
        self.send_text(url, text, delay_seconds).await
    }

    async fn send_text(
        &self,
        url: Result<&str, Fault>,
        text: String,
        delay_seconds: u64,
    ) -> Result<(), Fault> {
        // At most 900, so it fits.
        let delay_seconds = i32::try_from(delay_seconds.min(MAX_DELAY_SECONDS)).unwrap_or_default();
        let message = self
            .client
            .send_message()
            .queue_url(url?)
            .message_body(text)
            .delay_seconds(delay_seconds);
        message
            .send()
            .await
            .map_err(|error| classify::fault(SERVICE, OPERATION, &error))?;
        Ok(())
    }
}

impl Queues for SqsQueues {
    async fn send_resume(&self, body: ResumeQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        self.send(
            url(self.urls.resume.as_ref(), "SPILLWAY_RESUME_QUEUE_URL"),
            body,
            delay_seconds,
        )
        .await
    }

    async fn send_suspend(&self, body: SuspendQueueBody, delay_seconds: u64) -> Result<(), Fault> {
        self.send(
            url(self.urls.suspend.as_ref(), "SPILLWAY_SUSPEND_QUEUE_URL"),
            body,
            delay_seconds,
        )
        .await
    }

    async fn send_report(&self, body: ReportBody, delay_seconds: u64) -> Result<(), Fault> {
        self.send(
            url(self.urls.reports.as_ref(), "SPILLWAY_REPORTS_QUEUE_URL"),
            body,
            delay_seconds,
        )
        .await
    }

    async fn send_envelope(&self, sealed: &str) -> Result<(), Fault> {
        let url = url(self.urls.updates.as_ref(), "SPILLWAY_UPDATES_QUEUE_URL");
        self.send_text(url, sealed.to_owned(), 0).await
    }
}

fn url<'a>(url: Option<&'a String>, variable: &str) -> Result<&'a str, Fault> {
    url.map(String::as_str)
        .ok_or_else(|| invalid("NoQueueUrl", &format!("the function lacks {variable}")))
}

fn invalid(code: &str, message: &str) -> Fault {
    Fault {
        kind: FaultKind::Invalid,
        service: SERVICE.into(),
        operation: OPERATION.into(),
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// A reason as SQS takes it in an attribute: no control characters, not empty, bounded.
fn printable(reason: &str) -> String {
    let shown: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_REASON_CHARS)
        .collect();
    if shown.is_empty() {
        "unknown".to_owned()
    } else {
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(printable("a\nb"), "a b");
        assert_eq!(printable(""), "unknown");
        assert_eq!(
            printable(&"ä".repeat(2 * MAX_REASON_CHARS)).chars().count(),
            MAX_REASON_CHARS
        );
    }
}
