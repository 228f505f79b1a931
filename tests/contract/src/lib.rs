//! Where the ports' contracts are tested. `suites` says what they promise; `memory` is the world in memory and `emulator`
//! the adapters on an emulator of AWS, each as the suites look at it. [`Place`] is that emulator behind the lab's proxy,
//! which can be told to refuse calls, to lose answers and to change them.

pub mod clock;
pub mod emulator;
pub mod memory;
pub mod sample;
pub mod suites;

use std::net::Ipv4Addr;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::config::Credentials;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType,
};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use spillway_aws::{DynamoTable, Home, QueueUrls, SdkConfig, SqsQueues};
use spillway_core::name::ClusterName;
use spillway_lab::cloud::Cloud;
use spillway_lab::emulator::{ACCOUNT, REGION, ROOT_KEY};
use spillway_lab::install;

/// The table's name.
pub const TABLE: &str = "lab-state";

/// A table and queues like the template's, alone in an emulator of their own.
#[derive(Debug)]
pub struct Place {
    /// The emulator and the proxy in front of it.
    pub cloud: Cloud,
    /// What its clients are made of.
    pub config: SdkConfig,
    /// The adapter under test.
    pub table: DynamoTable,
    /// The adapter under test.
    pub queues: SqsQueues,
    /// The same table by its own API.
    pub dynamo: aws_sdk_dynamodb::Client,
    /// The same queues by their own API.
    pub sqs: aws_sdk_sqs::Client,
    /// The queues' addresses.
    pub urls: QueueUrls,
    _state: tempfile::TempDir,
}

impl Place {
    /// Starts it all. A test that cannot is a test that fails.
    pub async fn start() -> Self {
        let venv = install::ensure_installed(|line| eprintln!("{line}"))
            .expect("the emulator is installed");
        let state = tempfile::tempdir().expect("a directory");
        let cloud = Cloud::start(&venv, state.path(), Ipv4Addr::LOCALHOST, 0)
            .await
            .expect("the emulator starts");
        let config = sdk_config(&cloud).await;
        let (dynamo, sqs) = (DynamoTable::client(&config), SqsQueues::client(&config));
        create_table(&dynamo).await;
        let urls = QueueUrls {
            resume: Some(create_queue(&sqs, "lab-resume").await),
            suspend: Some(create_queue(&sqs, "lab-suspend").await),
            reports: Some(create_queue(&sqs, "lab-reports").await),
            updates: Some(create_queue(&sqs, "lab-updates").await),
            dead_letter: Some(create_queue(&sqs, "lab-dead-letter").await),
        };
        let cluster = ClusterName::new("lab").expect("a name");
        let arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:lab-report");
        let home = Home::of_function(&arn).expect("an ARN");
        let table = DynamoTable::new(dynamo.clone(), TABLE.to_owned(), cluster.clone(), home);
        let queues = SqsQueues::new(sqs.clone(), cluster, urls.clone());
        Self {
            cloud,
            config,
            table,
            queues,
            dynamo,
            sqs,
            urls,
            _state: state,
        }
    }
}

/// The functions' own settings, with the lab's endpoint, certificate and root key.
async fn sdk_config(cloud: &Cloud) -> SdkConfig {
    let own = spillway_aws::sdk_config().await;
    let pem = std::fs::read(&cloud.certificates.ca).expect("the lab's certificate");
    let tls = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(pem))
        .build();
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls.expect("a certificate"))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(own.retry_config().expect("set by the adapter").clone())
        .timeout_config(own.timeout_config().expect("set by the adapter").clone())
        .region(Region::new(REGION))
        .endpoint_url(cloud.proxy.url())
        .credentials_provider(Credentials::new(ROOT_KEY, ROOT_KEY, None, None, "lab"))
        .http_client(http)
        .load()
        .await
}

async fn create_table(dynamo: &aws_sdk_dynamodb::Client) {
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(kind)
            .build()
            .expect("complete")
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder()
            .attribute_name(name)
            .key_type(kind)
            .build()
            .expect("complete")
    };
    let due = GlobalSecondaryIndex::builder()
        .index_name("due")
        .key_schema(key("due_shard", KeyType::Hash))
        .key_schema(key("due_at_ms", KeyType::Range))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        )
        .build()
        .expect("complete");
    let active = GlobalSecondaryIndex::builder()
        .index_name("active")
        .key_schema(key("active_shard", KeyType::Hash))
        .key_schema(key("pk", KeyType::Range))
        .projection(
            Projection::builder()
                .projection_type(ProjectionType::KeysOnly)
                .build(),
        )
        .build()
        .expect("complete");
    dynamo
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk", ScalarAttributeType::S))
        .attribute_definitions(attribute("due_shard", ScalarAttributeType::S))
        .attribute_definitions(attribute("due_at_ms", ScalarAttributeType::N))
        .attribute_definitions(attribute("active_shard", ScalarAttributeType::S))
        .key_schema(key("pk", KeyType::Hash))
        .global_secondary_indexes(due)
        .global_secondary_indexes(active)
        .send()
        .await
        .expect("the table is made");
}

async fn create_queue(sqs: &aws_sdk_sqs::Client, name: &str) -> String {
    let answer = sqs
        .create_queue()
        .queue_name(name)
        .send()
        .await
        .expect("the queue is made");
    answer.queue_url.expect("a queue has a URL")
}
