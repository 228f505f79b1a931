//! How the SDK behaves: retries and time-outs, the same for every client.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;

/// The table's client; one per process, since making one costs milliseconds and a TLS handshake.
pub type DynamoClient = aws_sdk_dynamodb::Client;
/// The queues' client; one per process.
pub type SqsClient = aws_sdk_sqs::Client;
/// EventBridge's client; one per process.
pub type EventBridgeClient = aws_sdk_eventbridge::Client;
/// Systems Manager's client; one per process.
pub type SsmClient = aws_sdk_ssm::Client;
/// What clients are made from.
pub type SdkConfig = aws_config::SdkConfig;

/// First try and two more. What still fails is left to the queue's redelivery.
const MAX_TRIES: u32 = 3;
/// A connection inside a region takes milliseconds; a lost packet one second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// DynamoDB and SQS answer within milliseconds; a try that takes this long is lost.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// All tries together: well below a Lambda's minute, so that the fault is still handled.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Region, credentials and endpoint from the environment that Lambda sets.
pub async fn sdk_config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(TRY_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(MAX_TRIES))
        .timeout_config(timeouts)
        .load()
        .await
}
