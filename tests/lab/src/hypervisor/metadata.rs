//! The instance metadata service (version 2) of one instance, as the EC2 User Guide ("Use instance metadata")
//! describes it: tokens, a tree of values with listings, the role's credentials, identity document, user data.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{AssumeRole, Instance, InstanceRole, SessionCredentials};
use crate::network::Network;

/// A token lives six hours at most (EC2 User Guide).
pub const METADATA_TOKEN_SECONDS_MAX: u64 = 21_600;
/// New credentials are fetched this long before the old ones end: EC2 makes them available at least five minutes
/// before (EC2 User Guide), and SDKs renew at five.
const RENEW_BEFORE_END: Duration = Duration::from_mins(10);
const TOKEN: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TOKEN_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
const SPOT_ACTION: &str = "meta-data/spot/instance-action";
const SPOT_TERMINATION: &str = "meta-data/spot/termination-time";
const REBALANCE: &str = "meta-data/events/recommendations/rebalance";

/// What `spot/instance-action` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpotAction {
    /// `terminate`, `stop` or `hibernate`.
    pub action: String,
    /// When, in ISO 8601 UTC.
    pub time: String,
}

/// The metadata of one instance.
pub(super) struct Metadata {
    instance_id: String,
    role: Option<InstanceRole>,
    assume_role: Arc<dyn AssumeRole>,
    /// Leaf path (without `/latest/`) to value; listings follow from the paths.
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    tokens: Mutex<HashMap<String, Instant>>,
    credentials: tokio::sync::Mutex<Option<(SessionCredentials, Instant)>>,
}

impl Metadata {
    pub(super) fn new(
        instance: &Instance,
        mac: &str,
        network: &Network,
        user_data: Option<Vec<u8>>,
        assume_role: Arc<dyn AssumeRole>,
    ) -> Self {
        let mut values = values_of(instance, mac, network);
        values.extend(user_data.map(|data| ("user-data".to_owned(), data)));
        Self {
            instance_id: instance.instance_id.clone(),
            role: instance.role.clone(),
            assume_role,
            values: Mutex::new(values),
            tokens: Mutex::default(),
            credentials: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn set_spot_action(&self, action: Option<&SpotAction>) {
        let mut values = lock(&self.values);
        values.remove(SPOT_ACTION);
        values.remove(SPOT_TERMINATION);
        let Some(SpotAction { action, time }) = action else {
            return;
        };
        values.insert(
            SPOT_ACTION.to_owned(),
            json!({"action": action, "time": time}).to_string().into(),
        );
        if action == "terminate" {
            values.insert(SPOT_TERMINATION.to_owned(), time.clone().into());
        }
    }

    pub(super) fn set_rebalance_notice(&self, notice_time: &str) {
        let notice = json!({"noticeTime": notice_time}).to_string();
        lock(&self.values).insert(REBALANCE.to_owned(), notice.into());
    }

    /// Serves until the task is aborted.
    pub(super) async fn serve(self: Arc<Self>, listener: tokio::net::TcpListener) {
        let instance_id = self.instance_id.clone();
        let router = Router::new().fallback(answer).with_state(self);
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, instance_id, "instance metadata ended");
        }
    }

    fn new_token(&self, headers: &HeaderMap) -> Response {
        // A request that came through a proxy gets no token.
        if headers.contains_key("x-forwarded-for") {
            return StatusCode::FORBIDDEN.into_response();
        }
        let ttl = headers
            .get(&TOKEN_TTL)
            .and_then(|ttl| ttl.to_str().ok()?.parse().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=METADATA_TOKEN_SECONDS_MAX).contains(ttl)) else {
            return StatusCode::BAD_REQUEST.into_response();
        };
        let token = uuid::Uuid::new_v4().simple().to_string();
        let now = Instant::now();
        let mut tokens = lock(&self.tokens);
        tokens.retain(|_, end| *end > now);
        tokens.insert(token.clone(), now + Duration::from_secs(ttl));
        ([(TOKEN_TTL, ttl.to_string())], token).into_response()
    }

    fn is_valid_token(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(&TOKEN).and_then(|token| token.to_str().ok());
        let end = token.and_then(|token| lock(&self.tokens).get(token).copied());
        end.is_some_and(|end| end > Instant::now())
    }

    async fn read(&self, path: &str) -> Response {
        if let Some(role) = &self.role
            && let Some(name) = path.strip_prefix("meta-data/iam/security-credentials/")
            && name == role.role_name
        {
            return self.role_credentials(role).await;
        }
        let values = lock(&self.values);
        if let Some(value) = values.get(path.trim_end_matches('/')) {
            return value.clone().into_response();
        }
        match listing(&values, path) {
            Some(listing) => listing.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }

    async fn role_credentials(&self, role: &InstanceRole) -> Response {
        let mut cached = self.credentials.lock().await;
        let usable = cached.take_if(|(_, end)| *end > Instant::now() + RENEW_BEFORE_END);
        let (credentials, end) = match usable {
            Some(usable) => usable,
            None => match self
                .assume_role
                .assume_role(&role.role_arn, &self.instance_id)
                .await
            {
                Ok(credentials) => {
                    let end = Instant::now() + credentials.lifetime;
                    (credentials, end)
                }
                Err(error) => {
                    tracing::error!(%error, instance_id = self.instance_id, "no credentials for the instance's role");
                    return StatusCode::INTERNAL_SERVER_ERROR.into_response();
                }
            },
        };
        let document = json!({
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": credentials.expiration,
        });
        *cached = Some((credentials, end));
        document.to_string().into_response()
    }
}

async fn answer(
    State(metadata): State<Arc<Metadata>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method == Method::PUT && uri.path() == "/latest/api/token" {
        return metadata.new_token(&headers);
    }
    if !metadata.is_valid_token(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if method != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    // Dated versions show the same tree in the lab.
    let path = uri.path().trim_start_matches('/');
    match path.split_once('/') {
        Some((_version, path)) => metadata.read(path).await,
        None => "latest".into_response(),
    }
}

/// The children of `path`, one a line, directories with a slash at the end; None if it is no directory.
fn listing(values: &BTreeMap<String, Vec<u8>>, path: &str) -> Option<String> {
    let directory = match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let children: BTreeSet<String> = values
        .keys()
        .filter_map(|key| key.strip_prefix(&directory))
        .map(|rest| match rest.split_once('/') {
            Some((child, _)) => format!("{child}/"),
            None => rest.to_owned(),
        })
        .collect();
    let mut text = String::new();
    for child in &children {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{child}");
    }
    (!children.is_empty()).then(|| text.trim_end().to_owned())
}

fn values_of(instance: &Instance, mac: &str, network: &Network) -> BTreeMap<String, Vec<u8>> {
    let private_ip = instance.private_ip.to_string();
    let interface = format!("network/interfaces/macs/{mac}");
    let mut meta_data: Vec<(String, String)> = [
        ("ami-id", instance.image_id.clone()),
        ("hostname", instance.private_dns_name()),
        ("instance-id", instance.instance_id.clone()),
        ("instance-life-cycle", instance.life_cycle.clone()),
        ("instance-type", instance.instance_type.clone()),
        ("local-hostname", instance.private_dns_name()),
        ("local-ipv4", private_ip.clone()),
        ("mac", mac.to_owned()),
        (
            "placement/availability-zone",
            instance.availability_zone.clone(),
        ),
        ("placement/region", instance.region.clone()),
        ("services/domain", "amazonaws.com".to_owned()),
        ("services/partition", "aws".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (key, value) in [
        ("device-number", "0".to_owned()),
        ("local-hostname", instance.private_dns_name()),
        ("local-ipv4s", private_ip.clone()),
        ("mac", mac.to_owned()),
        ("owner-id", instance.account_id.clone()),
        ("subnet-id", instance.subnet_id.clone()),
        ("vpc-id", instance.vpc_id.clone()),
        ("vpc-ipv4-cidr-block", network.vpc_cidr()),
    ] {
        meta_data.push((format!("{interface}/{key}"), value));
    }
    for (key, value) in instance.metadata_tags.iter().flatten() {
        meta_data.push((format!("tags/instance/{key}"), value.clone()));
    }
    if let Some(role) = &instance.role {
        let info = json!({"Code": "Success", "InstanceProfileArn": role.instance_profile_arn});
        meta_data.push(("iam/info".to_owned(), info.to_string()));
        // Never read: the credentials are made when asked for. It is here to be listed.
        meta_data.push((
            format!("iam/security-credentials/{}", role.role_name),
            String::new(),
        ));
    }
    let document = json!({
        "accountId": instance.account_id,
        "architecture": instance.architecture,
        "availabilityZone": instance.availability_zone,
        "imageId": instance.image_id,
        "instanceId": instance.instance_id,
        "instanceType": instance.instance_type,
        "privateIp": private_ip,
        "region": instance.region,
        "version": "2017-09-30",
    });
    let mut values: BTreeMap<String, Vec<u8>> = meta_data
        .into_iter()
        .map(|(key, value)| (format!("meta-data/{key}"), value.into()))
        .collect();
    values.insert(
        "dynamic/instance-identity/document".to_owned(),
        document.to_string().into(),
    );
    values
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
