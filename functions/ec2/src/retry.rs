//! What is not tried again within a call.

use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::operation::run_instances::RunInstancesError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};
use spillway_control::fault::FaultKind;

use crate::classify;

/// EC2 answers RunInstances for a pool without capacity with status 500, which the SDK would try again: the pool has
/// no more a second later, another may have, and each try is a token of the five that the account has for this
/// call. A fleet's shortages come in its answer.
#[derive(Debug)]
pub(crate) struct NotWhereShort;

impl ClassifyRetry for NotWhereShort {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err);
        let code = error
            .and_then(|error| error.as_operation_error())
            .and_then(|error| error.downcast_ref::<RunInstancesError>())
            .and_then(ProvideErrorMetadata::code);
        match code.map(|code| classify::kind_of(code, None)) {
            Some(FaultKind::Unfulfillable(_)) => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "short of capacity"
    }

    /// After those of the SDK, which judge by the status.
    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
