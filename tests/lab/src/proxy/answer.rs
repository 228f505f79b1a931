//! Reads answers (error code, sessions handed out) and writes the ones that faults ask for.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::request::{Described, Protocol};
use crate::xml;

/// An answer whose body has been read.
pub(super) type Answer = Response<Bytes>;

/// An error in the shape that the called service gives its errors.
pub(super) fn error(call: &Described, status: StatusCode, code: &str, message: &str) -> Answer {
    let id = uuid::Uuid::new_v4();
    let (content_type, body) = match call.protocol {
        Protocol::Json => (
            "application/x-amz-json-1.0",
            serde_json::json!({"__type": code, "message": message}).to_string(),
        ),
        Protocol::RestJson => (
            "application/json",
            serde_json::json!({"message": message}).to_string(),
        ),
        Protocol::Query => ("text/xml", {
            let (code, message) = (xml::escape(code), xml::escape(message));
            format!(
                "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>\
                 </Error><RequestId>{id}</RequestId></ErrorResponse>"
            )
        }),
        Protocol::Ec2 => ("text/xml", {
            let (code, message) = (xml::escape(code), xml::escape(message));
            format!(
                "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
                 <RequestID>{id}</RequestID></Response>"
            )
        }),
        Protocol::RestXml => ("application/xml", {
            let (code, message) = (xml::escape(code), xml::escape(message));
            format!(
                "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>"
            )
        }),
    };
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let (Protocol::RestJson, Ok(value)) = (call.protocol, HeaderValue::from_str(code)) {
        headers.insert("x-amzn-errortype", value);
    }
    answer
}

/// The error code of an answer that is an error, wherever its protocol puts it.
pub(super) fn error_code(answer: &Answer) -> Option<String> {
    if answer.status().as_u16() < 400 {
        return None;
    }
    let in_header = answer
        .headers()
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let in_json = || {
        let body: serde_json::Value = serde_json::from_slice(answer.body()).ok()?;
        body.get("__type")?.as_str().map(str::to_owned)
    };
    let in_xml = || xml::text(std::str::from_utf8(answer.body()).ok()?, "Code");
    let code = in_header.or_else(in_json).or_else(in_xml)?;
    // com.amazonaws.sqs#QueueDoesNotExist, or ResourceNotFoundException:http://internal/…
    let code = code.rsplit('#').next().unwrap_or(&code);
    Some(code.split(':').next().unwrap_or(code).to_owned())
}

/// Changes every match of a regular expression in the body. A body that is not text stays as it is.
pub(super) fn replace(answer: &mut Answer, from: &str, to: &str) {
    let (Ok(pattern), Ok(body)) = (
        regex_lite::Regex::new(from),
        std::str::from_utf8(answer.body()),
    ) else {
        return;
    };
    let changed = pattern.replace_all(body, to).into_owned();
    *answer.body_mut() = Bytes::from(changed);
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    // DynamoDB's checksum of the body: absent it is not checked, wrong it is a failed call.
    answer.headers_mut().remove("x-amz-crc32");
}
