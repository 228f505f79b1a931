//! Where the stack is at home, as the URLs of its queues say: `https://sqs.REGION.…/ACCOUNT/CLUSTER-suspend`.
//!
//! The template gives its queues fixed names, `CLUSTER-suspend` beside `CLUSTER-sweep` and
//! `CLUSTER-suspend-dead-letter`. So an operator's command finds the others from the one that every site configures, and a
//! site that was configured by an older version needs no new line.

use spillway_core::config::ClientConfig;
use spillway_core::name::InstanceId;

/// What the name of the suspend queue ends with.
const SUSPEND: &str = "-suspend";

/// Partitions by how their regions begin, `aws` if none does (AWS's own list of partitions, partitions.json).
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-isof-", "aws-iso-f"),
    ("eusc-", "aws-eusc"),
];

/// The URL of the suspend queue is not as SQS gives it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// It names no account.
    #[error("{url} (queues.suspend) names no AWS account: copy the stack's output SuspendQueueUrl")]
    NoAccount {
        /// As configured.
        url: String,
    },
    /// The template's queue has another name.
    #[error(
        "{url} (queues.suspend) does not end with {SUSPEND}: copy the stack's output SuspendQueueUrl"
    )]
    OtherName {
        /// As configured.
        url: String,
    },
}

/// The ARN of an instance: the key of its item.
pub fn instance_arn(site: &ClientConfig, id: &InstanceId) -> Result<String, HomeError> {
    let url = &site.queues.suspend;
    let account = url.rsplit('/').nth(1);
    let is_account = |text: &&str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    let Some(account) = account.filter(is_account) else {
        return Err(HomeError::NoAccount { url: url.clone() });
    };
    let region = site.region.as_str();
    let of_region = PARTITIONS
        .iter()
        .find(|(begin, _)| region.starts_with(begin));
    let partition = of_region.map_or("aws", |(_, partition)| partition);
    Ok(format!(
        "arn:{partition}:ec2:{region}:{account}:instance/{id}"
    ))
}

/// The URL of the stack's queue whose name ends with this, such as `sweep` or `reports-dead-letter`.
pub fn queue(site: &ClientConfig, name: &str) -> Result<String, HomeError> {
    let url = &site.queues.suspend;
    let stem = url.strip_suffix(SUSPEND);
    let stem = stem.ok_or_else(|| HomeError::OtherName { url: url.clone() })?;
    Ok(format!("{stem}-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../infra/examples/spillway.toml");

    fn site(change: impl Fn(&str) -> String) -> ClientConfig {
        ClientConfig::parse(&change(EXAMPLE), "example").unwrap()
    }

    #[test]
    fn all_follows_from_the_suspend_queue() {
        let site = site(str::to_owned);
        let id = InstanceId::new("i-0123456789abcdef0").unwrap();
        assert_eq!(
            instance_arn(&site, &id).unwrap(),
            "arn:aws:ec2:eu-central-1:111122223333:instance/i-0123456789abcdef0"
        );
        let sweep = "https://sqs.eu-central-1.amazonaws.com/111122223333/spillway-hpc-sweep";
        assert_eq!(queue(&site, "sweep").unwrap(), sweep);
    }

    #[test]
    fn other_partitions_have_other_arns() {
        for (region, partition) in [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")] {
            let site = site(|text| text.replace("eu-central-1", region));
            let id = InstanceId::new("i-12345678").unwrap();
            let arn = instance_arn(&site, &id).unwrap();
            assert!(
                arn.starts_with(&format!("arn:{partition}:ec2:{region}:")),
                "{arn}"
            );
        }
    }

    #[test]
    fn a_url_of_another_form_is_an_error() {
        let site = site(|text| text.replace("111122223333/spillway-hpc-suspend", "mine"));
        let id = InstanceId::new("i-12345678").unwrap();
        assert!(matches!(
            instance_arn(&site, &id),
            Err(HomeError::NoAccount { .. })
        ));
        assert!(matches!(
            queue(&site, "sweep"),
            Err(HomeError::OtherName { .. })
        ));
    }
}
