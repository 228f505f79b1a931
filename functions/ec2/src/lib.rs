//! The adapter to EC2, apart from the others because its SDK takes minutes to compile and because it alone
//! gives the power to launch.

mod classify;
mod describe;
mod fleet;
mod health;
mod launch;
mod retry;
mod terminate;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::Tag;
use spillway_control::fault::Fault;
use spillway_control::ports::{Ec2, InstanceSeen, Terminated};
use spillway_control::record::LaunchAnswer;
use spillway_core::name::InstanceId;
use spillway_core::plan::LaunchCall;

/// A launch of hundreds of instances takes EC2 many seconds to answer; a try that takes longer than this is
/// lost, and its outcome found by its tags.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
/// All tries together: half of a Lambda's minute, so that the other half is left to find out what happened.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// EC2 of one region.
#[derive(Debug, Clone)]
pub struct Ec2Client {
    client: Client,
}

impl Ec2Client {
    /// A client with the shared settings but EC2's own time-outs. Make one per process.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        let mut timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(TRY_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT);
        timeouts.set_connect_timeout(
            config
                .timeout_config()
                .and_then(TimeoutConfig::connect_timeout),
        );
        let config = aws_sdk_ec2::config::Builder::from(config)
            .timeout_config(timeouts.build())
            .retry_classifier(retry::NotWhereShort)
            .build();
        Self {
            client: Client::from_conf(config),
        }
    }
}

impl Ec2 for Ec2Client {
    async fn launch(&self, call: &LaunchCall, limit_ms: u64) -> Result<LaunchAnswer, Fault> {
        let limit = CALL_TIMEOUT.min(Duration::from_millis(limit_ms));
        match call.only_candidate() {
            Some(only) => self.run_instances(call, only, limit).await,
            None => self.create_fleet(call, limit).await,
        }
    }

    async fn find(&self, tags: &BTreeMap<String, String>) -> Result<Vec<InstanceSeen>, Fault> {
        self.find_by(tags, None).await
    }

    async fn find_in_reservation(
        &self,
        reservation_id: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        self.find_by(tags, Some(reservation_id)).await
    }

    async fn terminate(&self, ids: &[InstanceId]) -> Terminated {
        self.terminate_ids(ids).await
    }

    async fn impaired(&self) -> Result<Vec<InstanceId>, Fault> {
        self.failing_checks().await
    }

    async fn console(&self, id: &InstanceId) -> Result<String, Fault> {
        self.console_of(id).await
    }

    async fn tag(&self, ids: &[InstanceId], tags: &BTreeMap<String, String>) -> Result<(), Fault> {
        let ids = ids.iter().map(ToString::to_string).collect();
        let call = self
            .client
            .create_tags()
            .set_resources(Some(ids))
            .set_tags(Some(to_tags(tags)));
        call.send()
            .await
            .map(drop)
            .map_err(|error| classify::fault("CreateTags", &error))
    }
}

fn to_tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| Tag::builder().key(key).value(value).build())
        .collect()
}
