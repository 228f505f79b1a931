//! The adapters to DynamoDB, SQS, EventBridge and Systems Manager. No type of the SDK leaves this crate but the shared configuration,
//! which a Lambda loads once and hands to each client.

mod classify;
mod dynamo;
mod event_bus;
mod home;
mod sdk;
mod sqs;
mod ssm;

pub use dynamo::{DynamoTable, MAX_RECORD_BYTES, RECORD_RETENTION_SECONDS};
pub use event_bus::EventBridgeBus;
pub use home::{Home, HomeError};
pub use sdk::{DynamoClient, EventBridgeClient, SdkConfig, SqsClient, SsmClient, sdk_config};
pub use sqs::{QueueUrls, SqsQueues};
pub use ssm::{SsmCommands, SsmKeys, SsmOutcomes, ssm_client};
