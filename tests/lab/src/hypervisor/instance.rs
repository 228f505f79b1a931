//! What EC2 tells the hypervisor of an instance.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The role of an instance profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRole {
    /// ARN of the role to assume.
    pub role_arn: String,
    /// Name of the role, as `iam/security-credentials/` lists it.
    pub role_name: String,
    /// ARN of the instance profile.
    pub instance_profile_arn: String,
}

/// What EC2 knows of an instance that is about to run.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Such as `i-0123456789abcdef0`.
    pub instance_id: String,
    /// Such as `ami-0123456789abcdef0`.
    pub image_id: String,
    /// Such as `c7i.large`.
    pub instance_type: String,
    /// `x86_64` or `arm64`.
    pub architecture: String,
    /// Its address in the VPC.
    pub private_ip: Ipv4Addr,
    /// Such as `us-east-1a`.
    pub availability_zone: String,
    /// Such as `us-east-1`.
    pub region: String,
    /// Twelve digits.
    pub account_id: String,
    /// Its subnet.
    pub subnet_id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// `spot` or `on-demand`, as `instance-life-cycle` says it.
    pub life_cycle: String,
    /// Its tags, when the launch lets instance metadata show them (`InstanceMetadataTags=enabled`).
    pub metadata_tags: Option<BTreeMap<String, String>>,
    /// Its role, if it has an instance profile.
    pub role: Option<InstanceRole>,
    /// User data in base64, as the EC2 API carries it. A script (`#!`) is run as root.
    pub user_data: Option<String>,
}

impl Instance {
    /// EC2's IP-based host name, such as `ip-10-64-16-5`.
    #[must_use]
    pub fn host_name(&self) -> String {
        let [a, b, c, d] = self.private_ip.octets();
        format!("ip-{a}-{b}-{c}-{d}")
    }

    /// Host name with EC2's private domain: `ec2.internal` in us-east-1, `<region>.compute.internal` elsewhere.
    #[must_use]
    pub fn private_dns_name(&self) -> String {
        let host = self.host_name();
        match self.region.as_str() {
            "us-east-1" => format!("{host}.ec2.internal"),
            region => format!("{host}.{region}.compute.internal"),
        }
    }
}
