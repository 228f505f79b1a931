//! Authorization on a call's way through the proxy, and refusals as AWS writes them.

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};

use super::answer::{self, Answer};
use super::request::{Described, Protocol};
use crate::authorize::scope::{self, Backend};
use crate::authorize::{AuthorizeError, Authorizer, Looked, Verdict};
use crate::emulator::root::{AUTHORIZED, WHO_SIGNED};
use crate::journal::Authorization;

/// A request that may go on, or the answer in its place; and what is to be noted of it.
pub(super) struct Authorized {
    pub request: Result<Request<Bytes>, Answer>,
    pub authorization: Option<Authorization>,
}

/// Lets a call go on if it is not left to the proxy, or if its caller has all the rights it needs.
pub(super) async fn authorized(
    authorizer: &Authorizer,
    call: &Described,
    request: Request<Bytes>,
) -> Authorized {
    let (mut parts, body) = request.into_parts();
    // Only the proxy says these.
    parts.headers.remove(WHO_SIGNED);
    parts.headers.remove(AUTHORIZED);
    let Some(left) = scope::find(&call.service, &call.operation) else {
        return Authorized {
            request: Ok(Request::from_parts(parts, body)),
            authorization: None,
        };
    };
    let refused = |answer: Answer, authorization| Authorized {
        request: Err(answer),
        authorization: Some(authorization),
    };
    if call.access_key_id.is_empty() {
        return refused(without_signature(call), Authorization::Unsigned);
    }
    let looked = authorizer
        .look(left, &call.operation, &call.access_key_id, &parts, &body)
        .await;
    let verdict = match looked {
        Ok(Looked::At(verdict)) => verdict,
        Ok(Looked::Unsigned(answer)) => return refused(answer, Authorization::Unsigned),
        Err(error) => return refused(unknown(call, &error), Authorization::Unknown),
    };
    let authorization = match verdict {
        Verdict::Allowed => Some(Authorization::Allowed),
        // The backend reads it as we do, and refuses it.
        Verdict::Malformed => None,
        Verdict::Refused(refusal) => {
            let answer = denied(call, &refusal.message);
            let (action, resource) = (refusal.action, refusal.resource);
            return refused(answer, Authorization::Refused { action, resource });
        }
    };
    if left.backend == Backend::EmulatorObeys {
        parts
            .headers
            .insert(AUTHORIZED, HeaderValue::from_static("1"));
    }
    Authorized {
        request: Ok(Request::from_parts(parts, body)),
        authorization,
    }
}

fn denied(call: &Described, message: &str) -> Answer {
    if call.protocol == Protocol::Ec2 {
        let message = format!("You are not authorized to perform this operation. {message}");
        return answer::error(
            call,
            StatusCode::FORBIDDEN,
            "UnauthorizedOperation",
            &message,
        );
    }
    answer::error(
        call,
        StatusCode::BAD_REQUEST,
        "AccessDeniedException",
        message,
    )
}

fn without_signature(call: &Described) -> Answer {
    let code = match call.protocol {
        Protocol::Ec2 => "MissingAuthenticationToken",
        _ => "MissingAuthenticationTokenException",
    };
    answer::error(
        call,
        StatusCode::FORBIDDEN,
        code,
        "Request is missing Authentication Token",
    )
}

/// No code of AWS's, so that nobody takes it for one.
fn unknown(call: &Described, error: &AuthorizeError) -> Answer {
    tracing::error!(
        error = error as &dyn std::error::Error,
        service = call.service,
        operation = call.operation,
        "the lab cannot say whether this is allowed"
    );
    let message = format!("the lab cannot say whether this is allowed: {error}");
    answer::error(
        call,
        StatusCode::BAD_REQUEST,
        "LabCannotAuthorize",
        &message,
    )
}
