//! From EC2's errors to faults: one table of its codes. They come as errors of a call, and as `ErrorCode` in
//! the answer of a fleet that launched too few.

use std::error::Error;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use spillway_control::fault::Fault;
use spillway_control::fault::FaultKind::{
    self, Conflict, Denied, Invalid, NotFound, Throttled, Transient, Unfulfillable,
};
use spillway_core::capacity::Reach;

/// One type in one zone has not enough.
const POOL: FaultKind = Unfulfillable(Reach::Pool);
/// A quota of the type's family, which holds in every zone.
const TYPE: FaultKind = Unfulfillable(Reach::Type);
/// One subnet has no addresses left, whatever the type.
const SUBNET: FaultKind = Unfulfillable(Reach::Subnet);
/// Nothing more is to be had of the capacity kind, whatever the type and the zone.
const KIND: FaultKind = Unfulfillable(Reach::Kind);

/// EC2's codes (EC2 API reference, "Error codes"; CreateFleet's own errors). What is not here is judged by
/// its HTTP status.
const KINDS: &[(&str, FaultKind)] = &[
    ("RequestLimitExceeded", Throttled),
    ("Throttling", Throttled),
    ("ThrottlingException", Throttled),
    ("EC2ThrottledException", Throttled),
    ("InternalError", Transient),
    ("InternalFailure", Transient),
    ("Unavailable", Transient),
    ("ServiceUnavailable", Transient),
    ("ServerInternal", Transient),
    ("RequestTimeout", Transient),
    ("RequestExpired", Transient),
    ("ExpiredToken", Transient),
    ("InsufficientInstanceCapacity", POOL),
    ("InsufficientHostCapacity", POOL),
    ("InsufficientCapacityOnHost", POOL),
    ("InsufficientCapacity", POOL),
    ("InsufficientReservedInstanceCapacity", POOL),
    // Of EBS in the zone.
    ("InsufficientVolumeCapacity", POOL),
    ("UnfulfillableCapacity", POOL),
    ("SpotMaxPriceTooLow", POOL),
    // The type is not offered in the zone.
    ("Unsupported", POOL),
    ("UnsupportedOperation", POOL),
    // "Your requested instance type is not supported in your requested Availability Zone."
    ("InvalidFleetConfiguration", POOL),
    ("InstanceLimitExceeded", TYPE),
    ("VcpuLimitExceeded", TYPE),
    // A reservation is of one type in one zone.
    ("ReservationCapacityExceeded", POOL),
    ("InsufficientFreeAddressesInSubnet", SUBNET),
    ("MaxSpotInstanceCountExceeded", KIND),
    ("MaxFleetCountExceeded", KIND),
    ("MaxSpotFleetRequestCountExceeded", KIND),
    ("TargetCapacityLimitExceededException", KIND),
    ("ResourceLimitExceeded", KIND),
    // The service-linked role for spot is missing: another capacity kind may still go.
    ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", KIND),
    ("IdempotentParameterMismatch", Conflict),
    ("IdempotentParameterMismatchException", Conflict),
    ("InvalidInstanceID.NotFound", NotFound),
    ("InvalidLaunchTemplateId.NotFound", Invalid),
    ("InvalidLaunchTemplateId.VersionNotFound", Invalid),
    ("InvalidLaunchTemplateName.NotFoundException", Invalid),
    ("InvalidSubnetID.NotFound", Invalid),
    ("InvalidGroup.NotFound", Invalid),
    ("InvalidAMIID.NotFound", Invalid),
    ("InvalidAMIID.Malformed", Invalid),
    ("InvalidAMIID.Unavailable", Invalid),
    // The fleet as a whole, such as two subnets in one zone.
    ("InvalidFleetConfig", Invalid),
    ("InvalidParameter", Invalid),
    ("InvalidParameterCombination", Invalid),
    ("InvalidParameterValue", Invalid),
    ("InvalidUserData.Malformed", Invalid),
    ("OperationNotPermitted", Invalid),
    ("UnauthorizedOperation", Denied),
    ("AccessDenied", Denied),
    ("AuthFailure", Denied),
    ("Blocked", Denied),
    ("InvalidClientTokenId", Denied),
    ("OptInRequired", Denied),
    ("PendingVerification", Denied),
    ("SignatureDoesNotMatch", Denied),
];

/// What can be done about `code`, which came with HTTP `status` if it came as an error of the call.
pub(crate) fn kind_of(code: &str, status: Option<u16>) -> FaultKind {
    if let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == code) {
        return *kind;
    }
    match status {
        Some(429) => Throttled,
        Some(500..) => Transient,
        Some(403) => Denied,
        _ => Invalid,
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
        SdkError::TimeoutError(_) => (Transient, "Timeout", DisplayErrorContext(error).to_string()),
        SdkError::DispatchFailure(_) => (
            Transient,
            "Dispatch",
            DisplayErrorContext(error).to_string(),
        ),
        SdkError::ResponseError(_) => (
            Transient,
            "Response",
            DisplayErrorContext(error).to_string(),
        ),
        _ => (
            Invalid,
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
    use aws_sdk_ec2::operation::create_fleet::CreateFleetError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

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

    /// Each code, what is done about it, and the statuses that EC2 sends it with.
    const EXPECTED: &[(&str, FaultKind, &[u16])] = &[
        ("RequestLimitExceeded", Throttled, &[503]),
        ("Throttling", Throttled, &[400]),
        ("ThrottlingException", Throttled, &[400]),
        ("EC2ThrottledException", Throttled, &[400, 503]),
        ("InternalError", Transient, &[500]),
        ("InternalFailure", Transient, &[500]),
        ("Unavailable", Transient, &[503]),
        ("ServiceUnavailable", Transient, &[503]),
        ("ServerInternal", Transient, &[500]),
        ("RequestTimeout", Transient, &[400, 408]),
        ("RequestExpired", Transient, &[400]),
        ("ExpiredToken", Transient, &[400, 403]),
        ("InsufficientInstanceCapacity", POOL, &[500, 503]),
        ("InsufficientHostCapacity", POOL, &[500]),
        ("InsufficientCapacityOnHost", POOL, &[400]),
        ("InsufficientCapacity", POOL, &[500]),
        ("InsufficientReservedInstanceCapacity", POOL, &[500]),
        ("InsufficientVolumeCapacity", POOL, &[500]),
        ("UnfulfillableCapacity", POOL, &[400, 500]),
        ("SpotMaxPriceTooLow", POOL, &[400]),
        ("Unsupported", POOL, &[400]),
        ("UnsupportedOperation", POOL, &[400]),
        ("InvalidFleetConfiguration", POOL, &[400]),
        ("InstanceLimitExceeded", TYPE, &[400]),
        ("VcpuLimitExceeded", TYPE, &[400]),
        ("ReservationCapacityExceeded", POOL, &[400]),
        ("InsufficientFreeAddressesInSubnet", SUBNET, &[400]),
        ("MaxSpotInstanceCountExceeded", KIND, &[400]),
        ("MaxFleetCountExceeded", KIND, &[400]),
        ("MaxSpotFleetRequestCountExceeded", KIND, &[400]),
        ("TargetCapacityLimitExceededException", KIND, &[400]),
        ("ResourceLimitExceeded", KIND, &[400]),
        (
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            KIND,
            &[401, 403],
        ),
        ("IdempotentParameterMismatch", Conflict, &[400]),
        ("IdempotentParameterMismatchException", Conflict, &[400]),
        ("InvalidInstanceID.NotFound", NotFound, &[400]),
        ("InvalidLaunchTemplateId.NotFound", Invalid, &[400]),
        ("InvalidLaunchTemplateId.VersionNotFound", Invalid, &[400]),
        (
            "InvalidLaunchTemplateName.NotFoundException",
            Invalid,
            &[400],
        ),
        ("InvalidSubnetID.NotFound", Invalid, &[400]),
        ("InvalidGroup.NotFound", Invalid, &[400]),
        ("InvalidAMIID.NotFound", Invalid, &[400]),
        ("InvalidAMIID.Malformed", Invalid, &[400]),
        ("InvalidAMIID.Unavailable", Invalid, &[400]),
        ("InvalidFleetConfig", Invalid, &[400]),
        ("InvalidParameter", Invalid, &[400]),
        ("InvalidParameterCombination", Invalid, &[400]),
        ("InvalidParameterValue", Invalid, &[400]),
        ("InvalidUserData.Malformed", Invalid, &[400]),
        ("OperationNotPermitted", Invalid, &[400]),
        ("UnauthorizedOperation", Denied, &[403]),
        ("AccessDenied", Denied, &[403]),
        ("AuthFailure", Denied, &[401, 403]),
        ("Blocked", Denied, &[403]),
        ("InvalidClientTokenId", Denied, &[401, 403]),
        ("OptInRequired", Denied, &[403]),
        ("PendingVerification", Denied, &[400]),
        ("SignatureDoesNotMatch", Denied, &[403]),
    ];

    /// Throttling in a fleet's answer of status 200 is throttling.
    #[test]
    fn every_code_has_its_class_with_each_status_and_in_a_fleets_answer() {
        let listed: Vec<&str> = KINDS.iter().map(|(code, _)| *code).collect();
        let expected: Vec<&str> = EXPECTED.iter().map(|(code, ..)| *code).collect();
        assert_eq!(listed, expected);
        for (code, kind, statuses) in EXPECTED {
            for status in *statuses {
                assert_eq!(kind_of(code, Some(*status)), *kind, "{code} with {status}");
            }
            let in_answer = fault_in_answer("CreateFleet", code, "");
            assert_eq!(in_answer.kind, *kind, "{code} in an answer");
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

    fn response(status: u16) -> HttpResponse {
        HttpResponse::new(status.try_into().expect("a status"), SdkBody::empty())
    }

    fn seen(error: &SdkError<CreateFleetError, HttpResponse>) -> (FaultKind, String, String) {
        let fault = fault("CreateFleet", error);
        assert_eq!((&*fault.service, &*fault.operation), ("ec2", "CreateFleet"));
        (fault.kind, fault.code, fault.message)
    }

    #[test]
    fn an_answer_is_judged_by_its_code_or_else_by_its_status() {
        let refused = |metadata: ErrorMetadata, status| {
            let error = CreateFleetError::generic(metadata);
            seen(&SdkError::service_error(error, response(status)))
        };
        let known = ErrorMetadata::builder()
            .code("VcpuLimitExceeded")
            .message("too many");
        let known = refused(known.build(), 400);
        assert_eq!(known, (TYPE, "VcpuLimitExceeded".into(), "too many".into()));
        let bare = refused(ErrorMetadata::builder().build(), 503);
        assert_eq!(bare, (Transient, "Unknown".into(), String::new()));
    }

    /// A call that was never answered may have done what it asked for, and may be made again; one that could not be made
    /// will not go a second time.
    #[test]
    fn a_call_without_an_answer_is_transient_if_it_was_made() {
        let reset = ConnectorError::io("reset".into());
        let cases = [
            (SdkError::timeout_error("slow"), Transient, "Timeout"),
            (SdkError::dispatch_failure(reset), Transient, "Dispatch"),
            (
                SdkError::response_error("torn", response(200)),
                Transient,
                "Response",
            ),
            (
                SdkError::construction_failure("no region"),
                Invalid,
                "Construction",
            ),
        ];
        for (error, kind, code) in cases {
            let (class, named, message) = seen(&error);
            assert_eq!((class, &*named), (kind, code), "{message}");
        }
    }
}
