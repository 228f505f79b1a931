//! Reads from a request what the journal, the faults and the routing go by.

use http::{HeaderMap, Method, Uri, request::Parts};

/// What is known of a call before it is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// The service of the credential scope; empty for an unsigned request.
    pub service: String,
    /// The operation's name, or method and path.
    pub operation: String,
    /// The access key id that signed; empty for an unsigned request.
    pub access_key_id: String,
    /// How the service writes its errors.
    pub protocol: Protocol,
}

/// The families of AWS's wire formats, as far as errors differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `X-Amz-Target` and JSON bodies: SQS, DynamoDB, SSM, EventBridge, logs.
    Json,
    /// `Action=` forms and XML answers: IAM, STS, CloudFormation, SNS.
    Query,
    /// Like Query with an envelope of its own.
    Ec2,
    /// Method and path, XML errors: S3.
    RestXml,
    /// Method and path, JSON errors: Lambda, Scheduler.
    RestJson,
}

/// Describes a request.
pub(super) fn describe(parts: &Parts, body: &[u8]) -> Described {
    let (access_key_id, service) = credential_scope(&parts.headers, &parts.uri).unwrap_or_default();
    let (operation, protocol) = operation(parts, &service, body);
    Described {
        service,
        operation,
        access_key_id,
        protocol,
    }
}

/// Access key id and service from the signature, in the header or (presigned) in the query string:
/// `AKID/20260101/us-east-1/sqs/aws4_request`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-signing-elements.html>
fn credential_scope(headers: &HeaderMap, uri: &Uri) -> Option<(String, String)> {
    let in_header = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once("Credential="))
        .map(|(_, rest)| rest.split(',').next().unwrap_or(rest).to_owned());
    let scope = in_header.or_else(|| form_value(uri.query()?.as_bytes(), "X-Amz-Credential"))?;
    let mut fields = scope.split('/');
    let access_key_id = fields.next()?.to_owned();
    let service = fields.nth(2)?.to_owned();
    Some((access_key_id, service))
}

fn operation(parts: &Parts, service: &str, body: &[u8]) -> (String, Protocol) {
    if let Some(target) = parts.headers.get("x-amz-target") {
        let target = target.to_str().unwrap_or_default();
        let name = target.rsplit('.').next().unwrap_or(target);
        return (name.to_owned(), Protocol::Json);
    }
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let action = form_value(query, "Action").or_else(|| {
        is_form(&parts.headers)
            .then(|| form_value(body, "Action"))
            .flatten()
    });
    if let Some(action) = action {
        let protocol = if service == "ec2" {
            Protocol::Ec2
        } else {
            Protocol::Query
        };
        return (action, protocol);
    }
    let protocol = if service == "s3" {
        Protocol::RestXml
    } else {
        Protocol::RestJson
    };
    (rest_operation(&parts.method, &parts.uri), protocol)
}

fn rest_operation(method: &Method, uri: &Uri) -> String {
    // Smithy's RPC v2 puts the name into the path: /service/NAME/operation/NAME.
    match uri.path().split_once("/operation/") {
        Some((before, name)) if before.starts_with("/service/") => name.to_owned(),
        _ => format!("{method} {}", uri.path()),
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            value
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        })
}

fn form_value(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SIGNED_SQS: &str = "AWS4-HMAC-SHA256 Credential=AKIAHEAD/20260101/us-east-1/sqs/aws4_request, \
                              SignedHeaders=host, Signature=0";

    fn check(request: http::request::Builder, body: &str, expected: [&str; 3], protocol: Protocol) {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let described = describe(&parts, body.as_bytes());
        assert_eq!(
            [
                described.service.as_str(),
                described.operation.as_str(),
                described.access_key_id.as_str()
            ],
            expected
        );
        assert_eq!(described.protocol, protocol);
    }

    #[test]
    fn each_protocol_names_its_operation() {
        check(
            Request::post("/")
                .header("authorization", SIGNED_SQS)
                .header("x-amz-target", "AmazonSQS.SendMessage"),
            "{}",
            ["sqs", "SendMessage", "AKIAHEAD"],
            Protocol::Json,
        );
        check(
            Request::post("/")
                .header("authorization", SIGNED_SQS.replace("/sqs/", "/ec2/"))
                .header(
                    "content-type",
                    "application/x-www-form-urlencoded; charset=utf-8",
                ),
            "Version=2016-11-15&Action=CreateFleet",
            ["ec2", "CreateFleet", "AKIAHEAD"],
            Protocol::Ec2,
        );
        check(
            Request::get("/2015-03-31/functions/a/code?x=1")
                .header("authorization", SIGNED_SQS.replace("/sqs/", "/lambda/")),
            "",
            ["lambda", "GET /2015-03-31/functions/a/code", "AKIAHEAD"],
            Protocol::RestJson,
        );
        check(
            Request::post("/service/GraniteServiceVersion20100801/operation/PutMetricData")
                .header("authorization", SIGNED_SQS.replace("/sqs/", "/monitoring/")),
            "",
            ["monitoring", "PutMetricData", "AKIAHEAD"],
            Protocol::RestJson,
        );
    }

    #[test]
    fn presigned_and_unsigned_requests_are_told_apart() {
        check(
            Request::get(
                "/bucket/key?X-Amz-Credential=AKIAHEAD%2F20260101%2Fus-east-1%2Fs3%2Faws4_request",
            ),
            "",
            ["s3", "GET /bucket/key", "AKIAHEAD"],
            Protocol::RestXml,
        );
        check(
            Request::get("/_ministack/health"),
            "",
            ["", "GET /_ministack/health", ""],
            Protocol::RestJson,
        );
    }
}
