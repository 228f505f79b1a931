//! Queues of the stack that an operator's commands use: by URL, with the operator's credentials.

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;

use super::{SqsError, classify};

/// SQS, for an operator.
#[derive(Debug, Clone)]
pub struct OperatorQueues {
    client: Client,
}

impl OperatorQueues {
    /// As configured.
    pub fn new(sdk: &SdkConfig) -> Self {
        Self {
            client: Client::new(sdk),
        }
    }

    /// Sends one message.
    pub async fn send(&self, url: &str, body: &str) -> Result<(), SqsError> {
        let call = self.client.send_message().queue_url(url).message_body(body);
        call.send().await.map(drop).map_err(classify)
    }

    /// About how many messages wait on a queue.
    pub async fn depth(&self, url: &str) -> Result<u64, SqsError> {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let call = self
            .client
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(name.clone());
        let answer = call.send().await.map_err(classify)?;
        let attributes = answer.attributes.unwrap_or_default();
        Ok(attributes
            .get(&name)
            .and_then(|count| count.parse().ok())
            .unwrap_or(0))
    }
}
