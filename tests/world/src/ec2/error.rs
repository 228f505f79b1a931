//! What EC2 answers when it refuses: AWS's code, message and HTTP status. Codes are those of the
//! "Error codes for the Amazon EC2 API" page; a message is worded as EC2 words it where that is known.

use thiserror::Error;

/// A refusal, as the EC2 API states it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct Ec2Error {
    /// AWS's error code, such as `InvalidInstanceID.NotFound`.
    pub code: String,
    /// AWS's sentence. For people; programs read the code.
    pub message: String,
    /// The HTTP status EC2 answers with: 400 for the caller's faults, 412 for a dry run that would have
    /// succeeded, 500 and 503 for EC2's own (capacity, throttling).
    pub status: u16,
}

/// The result of an EC2 call.
pub type Ec2Result<T> = Result<T, Ec2Error>;

impl Ec2Error {
    /// A fault of the caller's (status 400).
    pub fn client(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status: 400,
        }
    }

    /// A fault of EC2's: capacity (500) or throttling (503).
    pub fn server(code: &str, message: impl Into<String>, status: u16) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            status,
        }
    }

    /// `InvalidParameterValue`.
    pub fn invalid_value(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    /// `InvalidParameterCombination`.
    pub fn invalid_combination(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterCombination", message)
    }

    /// `MissingParameter`, for one parameter.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::client(
            "MissingParameter",
            format!("The request must contain the parameter {parameter}"),
        )
    }

    /// `DryRunOperation`: the call would have been done. Status 412, as EC2.
    #[must_use]
    pub fn dry_run() -> Self {
        Self::server(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
            412,
        )
    }

    /// `RequestLimitExceeded`, status 503 as EC2.
    #[must_use]
    pub fn throttled() -> Self {
        Self::server("RequestLimitExceeded", "Request limit exceeded.", 503)
    }

    /// `IdempotentParameterMismatch`.
    #[must_use]
    pub fn token_mismatch() -> Self {
        Self::client(
            "IdempotentParameterMismatch",
            "The client token you have provided is associated with a resource, and the parameters do not \
             match the parameters that were used to create it.",
        )
    }

    /// `InsufficientInstanceCapacity` in one pool. Status 500, so an SDK retries it by itself.
    #[must_use]
    pub fn no_capacity(instance_type: &str, zone: &str) -> Self {
        Self::server(
            "InsufficientInstanceCapacity",
            format!(
                "We currently do not have sufficient {instance_type} capacity in the Availability Zone you \
                 requested ({zone}). Our system will be working on provisioning additional capacity."
            ),
            500,
        )
    }

    /// `UnfulfillableCapacity`: a fleet's own conditions cannot be met.
    #[must_use]
    pub fn unfulfillable() -> Self {
        Self::client(
            "UnfulfillableCapacity",
            "Unable to fulfill capacity due to your request configuration. Please adjust your request and \
             try again.",
        )
    }

    /// `InsufficientFreeAddressesInSubnet`.
    #[must_use]
    pub fn no_addresses(subnet_id: &str) -> Self {
        Self::client(
            "InsufficientFreeAddressesInSubnet",
            format!(
                "There are not enough free addresses in subnet '{subnet_id}' to satisfy the requested number of instances."
            ),
        )
    }

    /// `InvalidInstanceID.NotFound` for one or more ids.
    #[must_use]
    pub fn no_instances(ids: &[String]) -> Self {
        let message = match ids {
            [id] => format!("The instance ID '{id}' does not exist"),
            _ => format!("The instance IDs '{}' do not exist", ids.join(", ")),
        };
        Self::client("InvalidInstanceID.NotFound", message)
    }

    /// `InvalidSubnetID.NotFound`.
    #[must_use]
    pub fn no_subnet(id: &str) -> Self {
        Self::client(
            "InvalidSubnetID.NotFound",
            format!("The subnet ID '{id}' does not exist"),
        )
    }
}
