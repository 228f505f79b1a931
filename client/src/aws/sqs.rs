//! The four queues, in our own words, and those that only operators use.

mod operator;

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use spillway_core::config::{ClientConfig, Queues};

use super::clock::ServiceClock;
use super::{AwsError, CALL_TIMEOUT, CONNECT_TIMEOUT};
use crate::spool::Target;

pub use operator::OperatorQueues;

/// How long SQS holds a receive open while the queue is empty: the most it takes.
const LONG_POLL_SECONDS: i32 = 20;
/// Envelopes taken at once: the most SQS gives.
const MAX_RECEIVED: i32 = 10;

/// A queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Resume requests.
    Resume,
    /// Suspend requests.
    Suspend,
    /// What the agent reports.
    Reports,
}

impl From<Target> for Queue {
    fn from(target: Target) -> Self {
        match target {
            Target::Resume => Self::Resume,
            Target::Suspend => Self::Suspend,
        }
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqsError {
    /// No answer: the network, a time-out, a proxy, TLS, or no credentials to ask with.
    #[error("SQS cannot be reached: {0}")]
    Unreachable(String),
    /// SQS said no.
    #[error("SQS refused: {code}: {message}")]
    Refused {
        /// AWS's code.
        code: String,
        /// AWS's words.
        message: String,
    },
}

/// What SQS answers to a message that it will never take: characters outside of XML's, or more bytes than
/// the queue lets pass (`SendMessage` in the API reference; the last name is that of the JSON protocol).
const FOR_GOOD: [&str; 3] = [
    "InvalidMessageContents",
    "InvalidParameterValue",
    "InvalidParameterValueException",
];

impl SqsError {
    /// Whether the message is at fault, so that sending it again would change nothing.
    pub fn is_for_good(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if FOR_GOOD.contains(&code.as_str()))
    }
}

/// A message as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// SQS's own id of it, for the logs.
    pub message_id: String,
    /// What is needed to delete it.
    pub receipt: String,
    /// Its text.
    pub body: String,
}

/// A warm connection.
#[derive(Debug, Clone)]
pub struct Sqs {
    client: Client,
    queues: Queues,
    clock: ServiceClock,
}

impl Sqs {
    /// A client as configured; nothing is connected yet. The SDK tries each call once: whoever calls
    /// has the spool or the queue to try again from.
    pub async fn connect(config: &ClientConfig) -> Result<Self, AwsError> {
        let sdk = super::sdk_config(&config.aws, config.region.as_str(), 1).await?;
        let clock = ServiceClock::default();
        let sqs = aws_sdk_sqs::config::Builder::from(&sdk).interceptor(clock.clone());
        Ok(Self {
            client: Client::from_conf(sqs.build()),
            clock,
            queues: config.queues.clone(),
        })
    }

    /// The clock of AWS, as its last answer told it.
    pub fn clock(&self) -> &ServiceClock {
        &self.clock
    }

    /// Sends one message.
    pub async fn send(&self, queue: Queue, body: &str) -> Result<(), SqsError> {
        let url = match queue {
            Queue::Resume => &self.queues.resume,
            Queue::Suspend => &self.queues.suspend,
            Queue::Reports => &self.queues.reports,
        };
        let call = self.client.send_message().queue_url(url).message_body(body);
        call.send().await.map(drop).map_err(classify)
    }

    /// Waits for updates, for at most [`LONG_POLL_SECONDS`].
    pub async fn receive(&self) -> Result<Vec<Received>, SqsError> {
        let patient = CALL_TIMEOUT + Duration::from_secs(LONG_POLL_SECONDS.unsigned_abs().into());
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(patient)
            .operation_attempt_timeout(patient)
            .build();
        let call = self
            .client
            .receive_message()
            .queue_url(&self.queues.updates)
            .max_number_of_messages(MAX_RECEIVED)
            .wait_time_seconds(LONG_POLL_SECONDS)
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(timeouts));
        let answer = call.send().await.map_err(classify)?;
        let received = answer.messages.unwrap_or_default().into_iter();
        Ok(received
            .map(|message| Received {
                message_id: message.message_id.unwrap_or_default(),
                receipt: message.receipt_handle.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
            })
            .collect())
    }

    /// Deletes messages that were received together from the updates queue; the first failure of them.
    pub async fn delete(&self, receipts: &[&str]) -> Result<(), SqsError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let entries = receipts.iter().enumerate().map(|(index, receipt)| {
            DeleteMessageBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(*receipt)
                .build()
                .expect("it has an id and a receipt")
        });
        let call = self
            .client
            .delete_message_batch()
            .queue_url(&self.queues.updates)
            .set_entries(Some(entries.collect()));
        let answer = call.send().await.map_err(classify)?;
        match answer.failed.into_iter().next() {
            None => Ok(()),
            Some(failed) => Err(SqsError::Refused {
                code: failed.code,
                message: failed.message.unwrap_or_default(),
            }),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn classify<E>(error: SdkError<E>) -> SqsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error.as_service_error() {
        Some(refusal) => SqsError::Refused {
            code: refusal.code().unwrap_or("unknown").to_owned(),
            message: refusal.message().unwrap_or("no message").to_owned(),
        },
        None => SqsError::Unreachable(innermost(&error)),
    }
}

/// What was wrong at the bottom of it ("Connection refused", "invalid peer certificate: `UnknownIssuer`"):
/// the layers above say "dispatch failure" and "io error".
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}
