//! From errors of the SDK to faults: one table of DynamoDB's, SQS's, EventBridge's and Systems Manager's codes.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use spillway_control::fault::{Fault, FaultKind};

/// DynamoDB's, SQS's, EventBridge's and Systems Manager's codes (API references, "Common Errors" and each operation's own). What is not
/// here is judged by its HTTP status.
const KINDS: [(&str, FaultKind); 45] = [
    (
        "ProvisionedThroughputExceededException",
        FaultKind::Throttled,
    ),
    ("ProvisionedThroughputExceeded", FaultKind::Throttled),
    ("RequestLimitExceeded", FaultKind::Throttled),
    ("RequestThrottled", FaultKind::Throttled),
    ("Throttling", FaultKind::Throttled),
    ("ThrottlingError", FaultKind::Throttled),
    ("ThrottlingException", FaultKind::Throttled),
    ("ThrottledException", FaultKind::Throttled),
    ("TooManyRequestsException", FaultKind::Throttled),
    ("OverLimit", FaultKind::Throttled),
    ("KmsThrottled", FaultKind::Throttled),
    ("InternalError", FaultKind::Transient),
    ("InternalException", FaultKind::Transient),
    ("InternalFailure", FaultKind::Transient),
    ("InternalServerError", FaultKind::Transient),
    ("ServiceUnavailable", FaultKind::Transient),
    ("ReplicatedWriteConflictException", FaultKind::Transient),
    ("TransactionConflict", FaultKind::Transient),
    ("TransactionConflictException", FaultKind::Transient),
    ("TransactionInProgressException", FaultKind::Transient),
    ("RequestExpired", FaultKind::Transient),
    ("RequestTimeout", FaultKind::Transient),
    ("ExpiredToken", FaultKind::Transient),
    ("ExpiredTokenException", FaultKind::Transient),
    ("ConditionalCheckFailedException", FaultKind::Conflict),
    ("IdempotentParameterMismatchException", FaultKind::Conflict),
    ("ResourceNotFoundException", FaultKind::NotFound),
    ("QueueDoesNotExist", FaultKind::NotFound),
    ("ParameterNotFound", FaultKind::NotFound),
    ("InvocationDoesNotExist", FaultKind::NotFound),
    (
        "AWS.SimpleQueueService.NonExistentQueue",
        FaultKind::NotFound,
    ),
    ("AccessDenied", FaultKind::Denied),
    ("AccessDeniedException", FaultKind::Denied),
    ("AuthFailure", FaultKind::Denied),
    ("InvalidClientTokenId", FaultKind::Denied),
    ("InvalidSecurity", FaultKind::Denied),
    ("KmsAccessDenied", FaultKind::Denied),
    ("NotAuthorizedForSourceException", FaultKind::Denied),
    ("MissingAuthenticationToken", FaultKind::Denied),
    ("OptInRequired", FaultKind::Denied),
    ("SignatureDoesNotMatch", FaultKind::Denied),
    ("UnrecognizedClientException", FaultKind::Denied),
    ("ValidationException", FaultKind::Invalid),
    ("InvalidMessageContents", FaultKind::Invalid),
    ("MalformedDetail", FaultKind::Invalid),
];

/// What can be done about `code`, which came with HTTP `status` if it came from the service.
pub(crate) fn kind_of(code: &str, status: Option<u16>) -> FaultKind {
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == code) {
        return *kind;
    }
    match status {
        Some(429) => FaultKind::Throttled,
        Some(500..) | None => FaultKind::Transient,
        Some(403) => FaultKind::Denied,
        Some(_) => FaultKind::Invalid,
    }
}

/// The fault that an SDK's error stands for.
pub(crate) fn fault<E>(
    service: &'static str,
    operation: &'static str,
    error: &SdkError<E, HttpResponse>,
) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let (kind, code, message) = match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("Unknown");
            let message = answer.err().message().unwrap_or_default().to_owned();
            (
                kind_of(code, Some(answer.raw().status().as_u16())),
                code,
                message,
            )
        }
        SdkError::TimeoutError(_) => (FaultKind::Transient, "Timeout", chain(error)),
        SdkError::DispatchFailure(_) => (FaultKind::Transient, "Dispatch", chain(error)),
        SdkError::ResponseError(_) => (FaultKind::Transient, "Response", chain(error)),
        _ => (FaultKind::Invalid, "Construction", chain(error)),
    };
    Fault {
        kind,
        service: service.into(),
        operation: operation.into(),
        code: code.to_owned(),
        message,
    }
}

fn chain<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    DisplayErrorContext(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_listed_once() {
        for (index, (code, _)) in KINDS.iter().enumerate() {
            assert!(
                KINDS[..index].iter().all(|(other, _)| other != code),
                "{code}"
            );
        }
    }

    #[test]
    fn a_code_beats_its_status() {
        // DynamoDB throttles with 400, which by itself would be a wrong call.
        assert_eq!(
            kind_of("ThrottlingException", Some(400)),
            FaultKind::Throttled
        );
        assert_eq!(
            kind_of("ProvisionedThroughputExceededException", Some(400)),
            FaultKind::Throttled
        );
        assert_eq!(
            kind_of("AccessDeniedException", Some(400)),
            FaultKind::Denied
        );
    }

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        assert_eq!(kind_of("Brandnew", Some(400)), FaultKind::Invalid);
        assert_eq!(kind_of("Brandnew", Some(403)), FaultKind::Denied);
        assert_eq!(kind_of("Brandnew", Some(429)), FaultKind::Throttled);
        assert_eq!(kind_of("Brandnew", Some(503)), FaultKind::Transient);
        assert_eq!(kind_of("Brandnew", None), FaultKind::Transient);
    }
}
