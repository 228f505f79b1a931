//! Where a control plane is at home: partition, region and account, as its own functions' ARNs say.

use spillway_core::name::InstanceId;

/// Partition, region and account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    partition: String,
    region: String,
    account: String,
}

/// Why a text is not the ARN of a function.
#[derive(Debug, thiserror::Error)]
#[error(
    "{arn:?} is not the ARN of a Lambda function (arn:partition:lambda:region:account:function:name)"
)]
pub struct HomeError {
    arn: String,
}

impl Home {
    /// That of a function, from the ARN it was invoked by.
    pub fn of_function(arn: &str) -> Result<Self, HomeError> {
        match arn.split(':').collect::<Vec<_>>().as_slice() {
            [
                "arn",
                partition,
                "lambda",
                region,
                account,
                "function",
                _,
                ..,
            ] => Ok(Self {
                partition: (*partition).to_owned(),
                region: (*region).to_owned(),
                account: (*account).to_owned(),
            }),
            _ => Err(HomeError {
                arn: arn.to_owned(),
            }),
        }
    }

    /// The ARN of an instance here. It is the key of the instance's item, so that a policy can let an
    /// instance read its own item and no other (`dynamodb:LeadingKeys`, `ec2:SourceInstanceArn`).
    #[must_use]
    pub fn instance_arn(&self, id: &InstanceId) -> String {
        let Self {
            partition,
            region,
            account,
        } = self;
        format!("arn:{partition}:ec2:{region}:{account}:instance/{id}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_at_home_where_the_function_is() {
        let home =
            Home::of_function("arn:aws-cn:lambda:cn-north-1:123456789012:function:lab-launch:live")
                .unwrap();
        let id = InstanceId::new("i-0123456789abcdef0").unwrap();
        assert_eq!(
            home.instance_arn(&id),
            "arn:aws-cn:ec2:cn-north-1:123456789012:instance/i-0123456789abcdef0"
        );
    }

    #[test]
    fn other_arns_are_refused() {
        for arn in [
            "",
            "arn:aws:ec2:us-east-1:1:instance/i-1",
            "arn:aws:lambda:us-east-1:1:layer:x",
        ] {
            assert!(Home::of_function(arn).is_err(), "{arn}");
        }
    }
}
