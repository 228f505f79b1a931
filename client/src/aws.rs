//! The way to AWS: endpoint, proxy, authorities to trust, credentials and time-outs, from the
//! configuration alone; the environment counts only where the configuration is silent.

pub mod clock;
mod credentials;
pub mod dynamodb;
pub mod home;
pub mod imds;
pub mod sqs;
pub mod ssm;

use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use spillway_core::config::AwsAccess;

use credentials::FreshFile;

/// How long a connection may take to open. Across an ocean it takes a quarter of a second; what takes
/// longer than this is swallowed by a firewall.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one call may take. SQS answers in tens of milliseconds; with a margin of 10 s before Slurm's
/// ResumeTimeout one call may fail and there is still the time to say so.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why AWS cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// The authorities to trust cannot be used.
    #[error("cannot use the CA bundle {path}: {reason}", path = path.display())]
    CaBundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Not the URL of a proxy.
    #[error("cannot use the proxy {url}: {reason}")]
    Proxy {
        /// As configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The configuration of every AWS client in this program. `attempts`: how often the SDK tries a call;
/// whoever tries again by itself takes 1.
pub async fn sdk_config(
    access: &AwsAccess,
    region: &str,
    attempts: u32,
) -> Result<SdkConfig, AwsError> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .http_client(http_client(access)?)
        .retry_config(RetryConfig::standard().with_max_attempts(attempts))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(CALL_TIMEOUT)
                .operation_attempt_timeout(CALL_TIMEOUT)
                .build(),
        );
    if let Some(url) = &access.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let Some(file) = &access.credentials_file {
        let credentials = FreshFile::new(file.clone(), access.profile.clone());
        loader = loader.credentials_provider(credentials);
    } else if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    Ok(loader.load().await)
}

fn http_client(access: &AwsAccess) -> Result<SharedHttpClient, AwsError> {
    let tls = tls_context(access)?;
    let proxy = match &access.proxy {
        None => ProxyConfig::from_env(),
        Some(url) => ProxyConfig::all(url.clone()).map_err(|error| AwsError::Proxy {
            url: url.clone(),
            reason: error.to_string(),
        })?,
    };
    Ok(
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
                .tls_context(tls.clone())
                .proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
            connector.build()
        }),
    )
}

/// The authorities of the bundle, as configured or as `AWS_CA_BUNDLE` says, else the system's.
fn tls_context(access: &AwsAccess) -> Result<TlsContext, AwsError> {
    let bundle = access
        .ca_bundle
        .clone()
        .or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(PathBuf::from));
    let Some(path) = bundle else {
        return Ok(TlsContext::default());
    };
    let unusable = |reason: String| AwsError::CaBundle {
        path: path.clone(),
        reason,
    };
    let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
    // Checked here because the connector would panic.
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(unusable("it holds no PEM certificate".to_owned()));
    }
    TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(pem))
        .build()
        .map_err(|error| unusable(error.to_string()))
}
