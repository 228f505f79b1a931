//! What a burst node tells the control plane: that it is ready, or why it cannot be, or that its end is near.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::DisplayErrorContext;
use spillway_core::envelope::MAX_REASON_CHARS;
use spillway_core::message::{Message, NodeFailed, NodeNotice, NodeReady, ReportBody};
use spillway_core::name::{ClusterName, InstanceId};
use tracing::{info, warn};

use crate::aws::dynamodb::Serving;
use crate::aws::imds::EndNotice;

/// How long a report is tried, at least, after the SDK's own retries.
const REPORT_PATIENCE: Duration = Duration::from_mins(1);

const PAUSE: Duration = Duration::from_secs(2);

/// The reports queue of one control plane.
#[derive(Debug)]
pub struct Reports {
    client: Client,
    queue_url: String,
    cluster: ClusterName,
    instance_id: InstanceId,
}

impl Reports {
    /// Sends in the name of this instance.
    pub fn new(
        client: Client,
        queue_url: String,
        cluster: ClusterName,
        instance_id: InstanceId,
    ) -> Self {
        Self {
            client,
            queue_url,
            cluster,
            instance_id,
        }
    }

    /// slurmctld has taken the node's registration. `time_left`: until its deadline, at which the control
    /// plane fails a node, running jobs and all, that it has not heard to be ready.
    pub async fn ready(&self, serving: &Serving, time_left: Duration) -> anyhow::Result<()> {
        let ready = NodeReady {
            instance_id: self.instance_id.clone(),
            node: serving.node.clone(),
            generation: serving.generation,
        };
        self.send(ReportBody::Ready(ready), patience(time_left))
            .await
    }

    /// The node will not join. What does not get through the join deadline says for us.
    pub async fn failed(&self, serving: Option<&Serving>, reason: &str) -> anyhow::Result<()> {
        let failed = NodeFailed {
            instance_id: self.instance_id.clone(),
            node: serving.map(|serving| serving.node.clone()),
            reason: fit_for_reason(reason),
        };
        self.send(ReportBody::Failed(failed), REPORT_PATIENCE).await
    }

    /// EC2 takes the instance. Tried once: whoever polls for notices comes again with it.
    pub async fn notice(&self, notice: &EndNotice) -> anyhow::Result<()> {
        let notice = NodeNotice {
            instance_id: self.instance_id.clone(),
            action: notice.action.clone(),
            until_ms: notice.until_ms,
        };
        self.send(ReportBody::Notice(notice), Duration::ZERO).await
    }

    async fn send(&self, body: ReportBody, patience: Duration) -> anyhow::Result<()> {
        let text = Message::new(self.cluster.clone(), body).to_json();
        let give_up = tokio::time::Instant::now() + patience;
        loop {
            let message = self.client.send_message().queue_url(&self.queue_url);
            let Err(error) = message.message_body(&text).send().await else {
                info!("reported: {text}");
                return Ok(());
            };
            let error = DisplayErrorContext(&error).to_string();
            if tokio::time::Instant::now() >= give_up {
                anyhow::bail!("the report was not sent: {error}");
            }
            warn!("the report was not sent, trying again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How long to try while this much time is left.
fn patience(time_left: Duration) -> Duration {
    time_left.max(REPORT_PATIENCE)
}

/// One line of at most [`MAX_REASON_CHARS`].
fn fit_for_reason(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_REASON_CHARS {
        return line;
    }
    let cut: String = line.chars().take(MAX_REASON_CHARS - 1).collect();
    cut + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_tried_until_the_deadline() {
        assert_eq!(patience(Duration::ZERO), REPORT_PATIENCE);
        let later = REPORT_PATIENCE * 9;
        assert_eq!(patience(later), later);
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(fit_for_reason("a\n  b\tc"), "a b c");
        let long = fit_for_reason(&"ü".repeat(1000));
        assert_eq!(long.chars().count(), MAX_REASON_CHARS);
        assert!(long.ends_with('…'));
    }
}
