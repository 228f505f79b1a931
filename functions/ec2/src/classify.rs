//! From EC2's errors to faults: one table of its codes. They come as errors of a call, and as `ErrorCode` in
//! the answer of a fleet that launched too few.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use spillway_control::fault::{Fault, FaultKind};

/// EC2's codes (EC2 API reference, "Error codes"; CreateFleet's own errors). What is not here is judged by
/// its HTTP status.
const KINDS: &[(&str, FaultKind)] = &[
    ("RequestLimitExceeded", FaultKind::Throttled),
    ("Throttling", FaultKind::Throttled),
    ("ThrottlingException", FaultKind::Throttled),
    ("EC2ThrottledException", FaultKind::Throttled),
    ("InternalError", FaultKind::Transient),
    ("InternalFailure", FaultKind::Transient),
    ("Unavailable", FaultKind::Transient),
    ("ServiceUnavailable", FaultKind::Transient),
    ("ServerInternal", FaultKind::Transient),
    ("RequestTimeout", FaultKind::Transient),
    ("RequestExpired", FaultKind::Transient),
    ("ExpiredToken", FaultKind::Transient),
    ("InsufficientInstanceCapacity", FaultKind::Unfulfillable),
    ("InsufficientHostCapacity", FaultKind::Unfulfillable),
    ("InsufficientCapacityOnHost", FaultKind::Unfulfillable),
    ("InsufficientCapacity", FaultKind::Unfulfillable),
    (
        "InsufficientReservedInstanceCapacity",
        FaultKind::Unfulfillable,
    ),
    (
        "InsufficientFreeAddressesInSubnet",
        FaultKind::Unfulfillable,
    ),
    ("ReservationCapacityExceeded", FaultKind::Unfulfillable),
    ("UnfulfillableCapacity", FaultKind::Unfulfillable),
    // The type is not offered in the zone.
    ("Unsupported", FaultKind::Unfulfillable),
    ("UnsupportedOperation", FaultKind::Unfulfillable),
    // "Your requested instance type is not supported in your requested Availability Zone."
    ("InvalidFleetConfiguration", FaultKind::Unfulfillable),
    ("InstanceLimitExceeded", FaultKind::Unfulfillable),
    ("VcpuLimitExceeded", FaultKind::Unfulfillable),
    ("MaxSpotInstanceCountExceeded", FaultKind::Unfulfillable),
    ("MaxFleetCountExceeded", FaultKind::Unfulfillable),
    ("MaxSpotFleetRequestCountExceeded", FaultKind::Unfulfillable),
    (
        "TargetCapacityLimitExceededException",
        FaultKind::Unfulfillable,
    ),
    ("ResourceLimitExceeded", FaultKind::Unfulfillable),
    ("SpotMaxPriceTooLow", FaultKind::Unfulfillable),
    // The service-linked role for spot is missing: another capacity kind may still go.
    (
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        FaultKind::Unfulfillable,
    ),
    ("IdempotentParameterMismatch", FaultKind::Conflict),
    ("IdempotentParameterMismatchException", FaultKind::Conflict),
    ("InvalidInstanceID.NotFound", FaultKind::NotFound),
    ("InvalidLaunchTemplateId.NotFound", FaultKind::Invalid),
    (
        "InvalidLaunchTemplateId.VersionNotFound",
        FaultKind::Invalid,
    ),
    (
        "InvalidLaunchTemplateName.NotFoundException",
        FaultKind::Invalid,
    ),
    ("InvalidSubnetID.NotFound", FaultKind::Invalid),
    ("InvalidGroup.NotFound", FaultKind::Invalid),
    ("InvalidAMIID.NotFound", FaultKind::Invalid),
    ("InvalidAMIID.Malformed", FaultKind::Invalid),
    ("InvalidAMIID.Unavailable", FaultKind::Invalid),
    ("InvalidParameter", FaultKind::Invalid),
    ("InvalidParameterCombination", FaultKind::Invalid),
    ("InvalidParameterValue", FaultKind::Invalid),
    ("InvalidUserData.Malformed", FaultKind::Invalid),
    ("OperationNotPermitted", FaultKind::Invalid),
    ("UnauthorizedOperation", FaultKind::Denied),
    ("AccessDenied", FaultKind::Denied),
    ("AuthFailure", FaultKind::Denied),
    ("Blocked", FaultKind::Denied),
    ("InvalidClientTokenId", FaultKind::Denied),
    ("OptInRequired", FaultKind::Denied),
    ("PendingVerification", FaultKind::Denied),
    ("SignatureDoesNotMatch", FaultKind::Denied),
];

/// What can be done about `code`, which came with HTTP `status` if it came as an error of the call.
pub(crate) fn kind_of(code: &str, status: Option<u16>) -> FaultKind {
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == code) {
        return *kind;
    }
    match status {
        Some(429) => FaultKind::Throttled,
        Some(500..) => FaultKind::Transient,
        Some(403) => FaultKind::Denied,
        _ => FaultKind::Invalid,
    }
}

/// The fault that a code in an answer stands for.
pub(crate) fn fault_in_answer(operation: &'static str, code: &str, message: &str) -> Fault {
    Fault {
        kind: kind_of(code, None),
        service: "ec2".into(),
        operation: operation.into(),
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// The fault that an SDK's error stands for.
pub(crate) fn fault<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> Fault
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
        SdkError::TimeoutError(_) => (
            FaultKind::Transient,
            "Timeout",
            DisplayErrorContext(error).to_string(),
        ),
        SdkError::DispatchFailure(_) => (
            FaultKind::Transient,
            "Dispatch",
            DisplayErrorContext(error).to_string(),
        ),
        SdkError::ResponseError(_) => (
            FaultKind::Transient,
            "Response",
            DisplayErrorContext(error).to_string(),
        ),
        _ => (
            FaultKind::Invalid,
            "Construction",
            DisplayErrorContext(error).to_string(),
        ),
    };
    Fault {
        kind,
        service: "ec2".into(),
        operation: operation.into(),
        code: code.to_owned(),
        message,
    }
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

    /// What operators of fleets have met (Karpenter's and GitHub's runners' lists among them), by what
    /// helped.
    #[test]
    fn every_code_met_in_practice_has_its_class() {
        let expected = [
            (
                FaultKind::Unfulfillable,
                "InsufficientInstanceCapacity InsufficientCapacityOnHost UnfulfillableCapacity Unsupported \
                 MaxSpotInstanceCountExceeded VcpuLimitExceeded MaxFleetCountExceeded \
                 MaxSpotFleetRequestCountExceeded TargetCapacityLimitExceededException ResourceLimitExceeded \
                 ReservationCapacityExceeded InsufficientFreeAddressesInSubnet \
                 AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            ),
            (
                FaultKind::Throttled,
                "RequestLimitExceeded Throttling ThrottlingException EC2ThrottledException",
            ),
            (
                FaultKind::Transient,
                "InternalError Unavailable ServiceUnavailable RequestTimeout",
            ),
            (
                FaultKind::Denied,
                "UnauthorizedOperation PendingVerification",
            ),
            (
                FaultKind::Invalid,
                "InvalidLaunchTemplateName.NotFoundException InvalidLaunchTemplateId.NotFound \
                 InvalidAMIID.NotFound InvalidAMIID.Malformed InvalidParameterValue InvalidUserData.Malformed",
            ),
            (FaultKind::Conflict, "IdempotentParameterMismatch"),
            (FaultKind::NotFound, "InvalidInstanceID.NotFound"),
        ];
        for (kind, codes) in expected {
            for code in codes.split_whitespace() {
                // EC2 sends most of them with 400, throttling and capacity with 503 or 500 as well.
                for status in [None, Some(400), Some(503)] {
                    assert_eq!(kind_of(code, status), kind, "{code} with {status:?}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_code_is_judged_by_its_status() {
        assert_eq!(kind_of("Brandnew", Some(400)), FaultKind::Invalid);
        assert_eq!(kind_of("Brandnew", Some(403)), FaultKind::Denied);
        assert_eq!(kind_of("Brandnew", Some(429)), FaultKind::Throttled);
        assert_eq!(kind_of("Brandnew", Some(500)), FaultKind::Transient);
        assert_eq!(kind_of("Brandnew", None), FaultKind::Invalid);
    }
}
