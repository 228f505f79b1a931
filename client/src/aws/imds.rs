//! The instance metadata service (version 2): who this instance is.
//!
//! The endpoint is 169.254.169.254 unless `AWS_EC2_METADATA_SERVICE_ENDPOINT` says otherwise, as for every
//! AWS client.

use std::time::Duration;

use aws_config::imds::Client;
use aws_config::imds::client::error::ImdsError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Deserialize;
use spillway_core::name::{InstanceId, NameError};

/// Where EC2 keeps region, account and id of the instance, signed elsewhere, as one JSON document.
const IDENTITY_DOCUMENT: &str = "/latest/dynamic/instance-identity/document";

/// What EC2 does with a spot instance that it takes, and when; 404 before it knows (EC2 User Guide, "Spot Instance
/// interruption notices").
const SPOT_ACTION: &str = "/latest/meta-data/spot/instance-action";

/// When EC2 recommended to leave the instance; 404 before it does ("EC2 instance rebalance recommendations").
const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";

const NOT_FOUND: u16 = 404;

/// The service is on the same machine: what takes longer than this will not come.
const IMDS_TIMEOUT: Duration = Duration::from_secs(2);

/// Right after boot the network may still come up; the client waits between attempts.
const IMDS_ATTEMPTS: u32 = 5;

/// What EC2 says this machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceIdentity {
    /// Such as `i-0123456789abcdef0`.
    pub instance_id: InstanceId,
    /// Such as `us-east-1`.
    pub region: String,
    /// Twelve digits.
    pub account: String,
}

/// Why the identity is not known.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No answer: not an instance, metadata turned off, or blocked.
    #[error(
        "the instance metadata service gives no identity: is this an EC2 instance with IMDSv2 on?"
    )]
    Unanswered(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not the document EC2 serves.
    #[error("the instance identity document is malformed")]
    Malformed(#[from] serde_json::Error),
    /// An id of an unknown form.
    #[error("the instance identity document names no instance")]
    Name(#[from] NameError),
}

/// A client with time-outs fit for a service on the same machine.
#[must_use]
pub fn client() -> Client {
    Client::builder()
        .connect_timeout(IMDS_TIMEOUT)
        .read_timeout(IMDS_TIMEOUT)
        .max_attempts(IMDS_ATTEMPTS)
        .build()
}

/// What EC2 says of the instance's end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndNotice {
    /// `terminate`, `stop`, `hibernate`, or `rebalance` for the recommendation.
    pub action: String,
    /// When, Unix milliseconds; none for a recommendation.
    pub until_ms: Option<u64>,
}

/// Why it is not known whether there is a notice.
#[derive(Debug, thiserror::Error)]
pub enum NoticeError {
    /// No answer.
    #[error("the instance metadata service does not answer")]
    Unanswered(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Not the document EC2 serves.
    #[error("a notice in instance metadata is malformed: {0}")]
    Malformed(String),
}

/// The notices that are up now, the nearer end first.
pub async fn notices(client: &Client) -> Result<Vec<EndNotice>, NoticeError> {
    let mut notices = Vec::new();
    if let Some(document) = document(client, SPOT_ACTION).await? {
        notices.push(EndNotice::of_spot_action(&document)?);
    }
    if document(client, REBALANCE).await?.is_some() {
        let action = "rebalance".to_owned();
        let until_ms = None;
        notices.push(EndNotice { action, until_ms });
    }
    Ok(notices)
}

/// None if there is no such document.
async fn document(client: &Client, path: &'static str) -> Result<Option<String>, NoticeError> {
    match client.get(path).await {
        Ok(document) => Ok(Some(document.as_ref().to_owned())),
        Err(ImdsError::ErrorResponse(answer))
            if answer.response().status().as_u16() == NOT_FOUND =>
        {
            Ok(None)
        }
        Err(error) => Err(NoticeError::Unanswered(error.into())),
    }
}

impl EndNotice {
    fn of_spot_action(document: &str) -> Result<Self, NoticeError> {
        #[derive(Deserialize)]
        struct SpotAction {
            action: String,
            time: String,
        }
        let malformed = || NoticeError::Malformed(document.to_owned());
        let spot: SpotAction = serde_json::from_str(document).map_err(|_| malformed())?;
        let until = DateTime::from_str(&spot.time, Format::DateTime).map_err(|_| malformed())?;
        let until_ms = until.to_millis().ok().and_then(|ms| u64::try_from(ms).ok());
        Ok(Self {
            action: spot.action,
            until_ms: Some(until_ms.ok_or_else(malformed)?),
        })
    }
}

impl InstanceIdentity {
    /// Asks the metadata service.
    pub async fn read(client: &Client) -> Result<Self, IdentityError> {
        let document = client
            .get(IDENTITY_DOCUMENT)
            .await
            .map_err(|error| IdentityError::Unanswered(error.into()))?;
        Self::parse(document.as_ref())
    }

    fn parse(document: &str) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Document {
            instance_id: String,
            region: String,
            account_id: String,
        }
        let document: Document = serde_json::from_str(document)?;
        Ok(Self {
            instance_id: InstanceId::new(document.instance_id)?,
            region: document.region,
            account: document.account_id,
        })
    }

    /// The instance's ARN: the key of its item in the table.
    #[must_use]
    pub fn arn(&self) -> String {
        let partition = if self.region.starts_with("cn-") {
            "aws-cn"
        } else if self.region.starts_with("us-gov-") {
            "aws-us-gov"
        } else {
            "aws"
        };
        let Self {
            instance_id,
            region,
            account,
        } = self;
        format!("arn:{partition}:ec2:{region}:{account}:instance/{instance_id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arn_follows_from_the_identity_document() {
        let document = r#"{"accountId":"123456789012","architecture":"x86_64","availabilityZone":"us-east-1a",
            "billingProducts":null,"devpayProductCodes":null,"imageId":"ami-5fb8c835",
            "instanceId":"i-1234567890abcdef0","instanceType":"t2.micro","kernelId":null,
            "pendingTime":"2016-11-19T16:32:11Z","privateIp":"10.158.112.84","ramdiskId":null,
            "region":"us-gov-west-1","version":"2017-09-30"}"#;
        let identity = InstanceIdentity::parse(document).unwrap();
        assert_eq!(
            identity.arn(),
            "arn:aws-us-gov:ec2:us-gov-west-1:123456789012:instance/i-1234567890abcdef0"
        );
    }

    #[test]
    fn a_spot_action_says_what_and_when() {
        let document = r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#;
        let expected = EndNotice {
            action: "terminate".to_owned(),
            until_ms: Some(1_505_722_920_000),
        };
        assert_eq!(EndNotice::of_spot_action(document).unwrap(), expected);
        for document in [
            "",
            r#"{"action": "stop"}"#,
            r#"{"action": "stop", "time": "soon"}"#,
            r#"{"action": "stop", "time": "1960-01-01T00:00:00Z"}"#,
        ] {
            EndNotice::of_spot_action(document).unwrap_err();
        }
    }

    #[test]
    fn a_document_without_an_instance_is_refused() {
        for document in [
            "",
            "{}",
            r#"{"instanceId":"mi-1","region":"r","accountId":"1"}"#,
        ] {
            InstanceIdentity::parse(document).unwrap_err();
        }
    }
}
