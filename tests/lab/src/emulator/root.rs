//! A client with all rights, for what the lab itself needs of the emulator. It takes the place of the
//! account's owner and of AWS's own services (EC2's `AssumeRole` for instances, EventBridge's matching),
//! so it goes past the proxy and leaves no trace in the journal.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{REGION, ROOT_KEY};
use crate::{
    proxy::upstream::{HttpClient, drop_connection_headers},
    xml,
};

/// Why the emulator did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It did not answer.
    #[error("see the emulator's log: no answer to {operation}")]
    NoAnswer {
        /// The operation.
        operation: String,
        /// What the connection said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered with an error.
    #[error("correct the call: {operation} was answered {status}: {body}")]
    Refused {
        /// The operation.
        operation: String,
        /// HTTP status.
        status: StatusCode,
        /// The answer as it came.
        body: String,
    },
    /// The answer lacks something it must have.
    #[error("read the answer to {operation}: no {missing} in it")]
    Incomplete {
        /// The operation.
        operation: String,
        /// The field.
        missing: &'static str,
    },
}

/// Credentials of a user (no session token) or of an assumed role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `AKIA…` or `ASIA…`.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// Present for an assumed role.
    pub session_token: Option<String>,
    /// When they end, RFC 3339; present for an assumed role.
    pub expiration: Option<String>,
}

/// A rule of the default event bus and where it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRule {
    /// Its name.
    pub name: String,
    /// Its event pattern, JSON text.
    pub pattern: String,
    /// The ARNs of its targets.
    pub targets: Vec<String>,
}

/// A deployed function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its ARN, with the version where it is one.
    pub arn: String,
    /// Its role's ARN.
    pub role: String,
}

/// Who signed a call.
#[derive(Debug)]
pub enum Signed {
    /// The caller with this ARN.
    By(String),
    /// Nobody known, or not so: the called service's answer to that.
    Not(Response<Bytes>),
}

/// Asks the emulator, in place of carrying a call out, who signed it (`start.py` sees to that).
pub(crate) const WHO_SIGNED: HeaderName = HeaderName::from_static("x-lab-who-signed");

/// Tells the emulator that the proxy allowed the call, so that only the signature is left to check.
pub(crate) const AUTHORIZED: HeaderName = HeaderName::from_static("x-lab-authorized");

/// The client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RootClient {
    client: HttpClient,
    address: SocketAddr,
}

impl RootClient {
    pub(super) fn new(client: HttpClient, address: SocketAddr) -> Self {
        Self { client, address }
    }

    /// A call of a service that speaks Query; gives the answer's XML.
    pub async fn query(
        &self,
        service: &str,
        version: &str,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, RootError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("Action", action)
            .append_pair("Version", version)
            .extend_pairs(parameters)
            .finish();
        let request = self.request(Method::POST, "/", service).header(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        self.send(action, request, form).await
    }

    /// A call of a service that speaks JSON (`target` as in `AWSEvents.ListRules`); gives the answer.
    pub async fn json(
        &self,
        service: &str,
        target: &str,
        body: &Value,
    ) -> Result<Value, RootError> {
        let request = self
            .request(Method::POST, "/", service)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", target);
        let answer = self.send(target, request, body.to_string()).await?;
        parsed(target, &answer)
    }

    /// A session of a role, as EC2 makes one for an instance with `session_name` = instance id.
    pub async fn assume_role(
        &self,
        role_arn: &str,
        session_name: &str,
    ) -> Result<Credentials, RootError> {
        let parameters = [("RoleArn", role_arn), ("RoleSessionName", session_name)];
        let answer = self
            .query("sts", "2011-06-15", "AssumeRole", &parameters)
            .await?;
        Ok(Credentials {
            access_key_id: field("AssumeRole", &answer, "AccessKeyId")?,
            secret_access_key: field("AssumeRole", &answer, "SecretAccessKey")?,
            session_token: Some(field("AssumeRole", &answer, "SessionToken")?),
            expiration: Some(field("AssumeRole", &answer, "Expiration")?),
        })
    }

    /// Who signed a call that came to the proxy; the emulator checks the signature and does nothing else.
    pub async fn who_signed(&self, call: &Parts, body: &Bytes) -> Result<Signed, RootError> {
        let operation = "who signed";
        let path = call.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("https://{}{path}", self.address))
            .body(Full::new(body.clone()))
            .map_err(|error| no_answer(operation, error))?;
        request.headers_mut().extend(call.headers.clone());
        drop_connection_headers(request.headers_mut());
        request
            .headers_mut()
            .insert(WHO_SIGNED, HeaderValue::from_static("1"));
        let answer = self.client.call(request).await;
        let answer = answer.map_err(|error| no_answer(operation, error))?;
        if !answer.status().is_success() {
            return Ok(Signed::Not(answer));
        }
        let said = parsed(operation, &String::from_utf8_lossy(answer.body()))?;
        let arn = string(&said, "arn").ok_or_else(|| RootError::Incomplete {
            operation: operation.to_owned(),
            missing: "arn",
        })?;
        Ok(Signed::By(arn))
    }

    /// A new user with the given policies and no other right; gives its access key.
    pub async fn create_user(
        &self,
        name: &str,
        policy_arns: &[&str],
    ) -> Result<Credentials, RootError> {
        let user = ("UserName", name);
        self.iam("CreateUser", &[user]).await?;
        for policy_arn in policy_arns {
            let parameters = [user, ("PolicyArn", *policy_arn)];
            self.iam("AttachUserPolicy", &parameters).await?;
        }
        let answer = self.iam("CreateAccessKey", &[user]).await?;
        Ok(Credentials {
            access_key_id: field("CreateAccessKey", &answer, "AccessKeyId")?,
            secret_access_key: field("CreateAccessKey", &answer, "SecretAccessKey")?,
            session_token: None,
            expiration: None,
        })
    }

    /// A call of IAM; gives the answer's XML.
    pub async fn iam(
        &self,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, RootError> {
        self.query("iam", "2010-05-08", action, parameters).await
    }

    /// All versions of a launch template that CloudFormation made, as EC2's XML.
    pub async fn launch_template_versions(
        &self,
        launch_template_id: &str,
    ) -> Result<String, RootError> {
        let parameters = [("LaunchTemplateId", launch_template_id)];
        self.query(
            "ec2",
            "2016-11-15",
            "DescribeLaunchTemplateVersions",
            &parameters,
        )
        .await
    }

    /// The enabled rules of the default event bus that have a pattern.
    pub async fn event_rules(&self) -> Result<Vec<EventRule>, RootError> {
        let answer = self
            .json("events", "AWSEvents.ListRules", &json!({}))
            .await?;
        let mut rules = Vec::new();
        for rule in items(&answer, "Rules") {
            let (Some(name), Some(pattern)) = (string(rule, "Name"), string(rule, "EventPattern"))
            else {
                continue;
            };
            if rule["State"] == "DISABLED" {
                continue;
            }
            let targets = self
                .json(
                    "events",
                    "AWSEvents.ListTargetsByRule",
                    &json!({"Rule": name}),
                )
                .await?;
            rules.push(EventRule {
                name,
                pattern,
                targets: items(&targets, "Targets")
                    .iter()
                    .filter_map(|target| string(target, "Arn"))
                    .collect(),
            });
        }
        Ok(rules)
    }

    /// Whether an event matches a rule's pattern, by the emulator's own matching.
    pub async fn event_matches(&self, pattern: &str, event: &Value) -> Result<bool, RootError> {
        let operation = "AWSEvents.TestEventPattern";
        let body = json!({"EventPattern": pattern, "Event": event.to_string()});
        let answer = self.json("events", operation, &body).await?;
        answer["Result"]
            .as_bool()
            .ok_or_else(|| RootError::Incomplete {
                operation: operation.to_owned(),
                missing: "Result",
            })
    }

    /// Puts a message on a queue, as EventBridge does for a rule with that target.
    pub async fn send_message(&self, queue_url: &str, body: &str) -> Result<(), RootError> {
        let body = json!({"QueueUrl": queue_url, "MessageBody": body});
        self.json("sqs", "AmazonSQS.SendMessage", &body).await?;
        Ok(())
    }

    /// All attributes of a queue, such as `ApproximateNumberOfMessages`.
    pub async fn queue_attributes(&self, queue_url: &str) -> Result<Value, RootError> {
        let body = json!({"QueueUrl": queue_url, "AttributeNames": ["All"]});
        let mut answer = self
            .json("sqs", "AmazonSQS.GetQueueAttributes", &body)
            .await?;
        Ok(answer["Attributes"].take())
    }

    /// The deployed functions, each with all its versions.
    pub async fn functions(&self) -> Result<Vec<Function>, RootError> {
        let operation = "GET /2015-03-31/functions";
        let request = self.request(
            Method::GET,
            "/2015-03-31/functions?FunctionVersion=ALL",
            "lambda",
        );
        let answer = self.send(operation, request, String::new()).await?;
        let answer = parsed(operation, &answer)?;
        Ok(items(&answer, "Functions")
            .iter()
            .filter_map(|function| {
                Some(Function {
                    name: string(function, "FunctionName")?,
                    arn: string(function, "FunctionArn")?,
                    role: string(function, "Role")?,
                })
            })
            .collect())
    }

    /// A call by method and path with a body as it is (S3, Lambda); gives the answer's text.
    pub async fn rest(
        &self,
        service: &str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<String, RootError> {
        let operation = format!("{method} {path}");
        let request = self.request(method, path, service);
        self.send(&operation, request, body).await
    }

    /// A request that bears the root key. The signature is none: MiniStack does not check this key's.
    fn request(&self, method: Method, path: &str, service: &str) -> http::request::Builder {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={ROOT_KEY}/20260101/{REGION}/{service}/aws4_request, \
             SignedHeaders=host, Signature=none"
        );
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.address))
            .header(header::AUTHORIZATION, authorization)
    }

    async fn send(
        &self,
        operation: &str,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<String, RootError> {
        let request = request
            .body(Full::new(body.into()))
            .map_err(|error| no_answer(operation, error))?;
        let answer = self.client.call(request).await;
        let answer = answer.map_err(|error| no_answer(operation, error))?;
        let body = String::from_utf8_lossy(answer.body()).into_owned();
        if answer.status().is_success() {
            return Ok(body);
        }
        Err(RootError::Refused {
            operation: operation.to_owned(),
            status: answer.status(),
            body,
        })
    }
}

fn no_answer(
    operation: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RootError {
    RootError::NoAnswer {
        operation: operation.to_owned(),
        source: source.into(),
    }
}

fn parsed(operation: &str, answer: &str) -> Result<Value, RootError> {
    if answer.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(answer).map_err(|_| RootError::Incomplete {
        operation: operation.to_owned(),
        missing: "JSON",
    })
}

fn field(operation: &str, answer: &str, name: &'static str) -> Result<String, RootError> {
    xml::text(answer, name).ok_or_else(|| RootError::Incomplete {
        operation: operation.to_owned(),
        missing: name,
    })
}

fn items<'a>(answer: &'a Value, list: &str) -> &'a [Value] {
    answer[list].as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}
