//! Launch templates and their versions. The model does not make them: the caller puts them in, as read
//! from wherever they were made (`CloudFormation` in the lab, a test's own in the simulation).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Ec2Error, Ec2Result};
use super::request::{TagSpecification, Tags};

/// What a launch is made from. The same type holds a template version's data and what a `RunInstances`
/// call says directly, because the second is laid over the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaunchTemplateData {
    /// AMI id.
    pub image_id: Option<String>,
    /// Instance type name.
    pub instance_type: Option<String>,
    /// User data, base64 as the API carries it.
    pub user_data: Option<String>,
    /// Instance profile.
    pub instance_profile: Option<InstanceProfile>,
    /// Security group ids of the instance (none when they stand in a network interface).
    pub security_group_ids: Vec<String>,
    /// Network interfaces asked for.
    pub network_interfaces: Vec<NetworkInterfaceSpecification>,
    /// Volumes asked for.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Instance metadata options.
    pub metadata_options: MetadataOptions,
    /// What a shutdown from inside does.
    pub shutdown_behavior: Option<ShutdownBehavior>,
    /// Spot options; none means on-demand.
    pub spot: Option<SpotOptions>,
    /// Tags for what the launch makes, by resource type.
    pub tag_specifications: Vec<TagSpecification>,
    /// Key pair.
    pub key_name: Option<String>,
    /// EBS optimisation.
    pub ebs_optimized: Option<bool>,
    /// Detailed monitoring.
    pub monitoring: Option<bool>,
    /// Availability zone asked for by name.
    pub availability_zone: Option<String>,
    /// Placement group.
    pub placement_group: Option<String>,
    /// Tenancy; `default` where nothing is said.
    pub tenancy: Option<String>,
}

/// Instance profile, by ARN or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceProfile {
    /// ARN of the profile.
    pub arn: Option<String>,
    /// Name of the profile.
    pub name: Option<String>,
}

/// One network interface of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkInterfaceSpecification {
    /// Device index; 0 is the primary interface.
    pub device_index: u32,
    /// Subnet.
    pub subnet_id: Option<String>,
    /// Security group ids.
    pub groups: Vec<String>,
    /// Whether a public address is wished. The model gives none, whatever is asked.
    pub associate_public_ip_address: Option<bool>,
    /// Whether the interface goes with the instance.
    pub delete_on_termination: Option<bool>,
    /// Text.
    pub description: Option<String>,
}

/// One volume of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockDeviceMapping {
    /// Device name, such as `/dev/xvda`.
    pub device_name: String,
    /// Size in GiB.
    pub volume_size: Option<u32>,
    /// Volume type, such as `gp3`.
    pub volume_type: Option<String>,
    /// Encryption.
    pub encrypted: Option<bool>,
    /// Whether the volume goes with the instance.
    pub delete_on_termination: Option<bool>,
    /// Provisioned operations a second.
    pub iops: Option<u32>,
    /// Provisioned MiB a second.
    pub throughput: Option<u32>,
    /// Key.
    pub kms_key_id: Option<String>,
    /// Snapshot.
    pub snapshot_id: Option<String>,
}

/// Instance metadata options, each as AWS spells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetadataOptions {
    /// `optional` or `required` (`IMDSv2` only).
    pub http_tokens: Option<String>,
    /// 1 to 64.
    pub http_put_response_hop_limit: Option<u32>,
    /// `enabled` or `disabled`.
    pub http_endpoint: Option<String>,
    /// `enabled` or `disabled`.
    pub http_protocol_ipv6: Option<String>,
    /// `enabled` or `disabled`.
    pub instance_metadata_tags: Option<String>,
}

/// What the instance does when it is shut down from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownBehavior {
    /// It stops (AWS's default).
    Stop,
    /// It is terminated.
    Terminate,
}

impl ShutdownBehavior {
    /// AWS's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Terminate => "terminate",
        }
    }

    /// Reads AWS's word.
    pub fn parse(word: &str) -> Ec2Result<Self> {
        match word {
            "stop" => Ok(Self::Stop),
            "terminate" => Ok(Self::Terminate),
            _ => Err(Ec2Error::invalid_value(format!(
                "Invalid value '{word}' for InstanceInitiatedShutdownBehavior."
            ))),
        }
    }
}

/// Spot options of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpotOptions {
    /// Highest price in dollars an hour, as text; none is the on-demand price.
    pub max_price: Option<String>,
    /// What an interruption does: `terminate` (default), `stop` or `hibernate`.
    pub interruption_behavior: Option<String>,
}

/// A launch template with its versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchTemplate {
    /// `lt-…`.
    pub id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// The version `$Default` means.
    pub default_version: u64,
    /// The versions by number; `$Latest` is the highest.
    pub versions: BTreeMap<u64, LaunchTemplateData>,
    /// When it was made, in ms since 1970.
    pub created_at_ms: u64,
    /// ARN of who made it.
    pub created_by: String,
    /// Tags of the template itself.
    pub tags: Tags,
}

impl LaunchTemplate {
    /// A template with one version, number 1, which is the default.
    #[must_use]
    pub fn new(id: &str, name: &str, data: LaunchTemplateData) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            default_version: 1,
            versions: BTreeMap::from([(1, data)]),
            created_at_ms: 0,
            created_by: "arn:aws:iam::000000000000:root".to_owned(),
            tags: Tags::new(),
        }
    }

    /// The number `$Latest` means.
    #[must_use]
    pub fn latest_version(&self) -> u64 {
        self.versions
            .keys()
            .next_back()
            .copied()
            .unwrap_or(self.default_version)
    }

    pub(super) fn version_number(&self, version: &str) -> Ec2Result<u64> {
        let number = match version {
            "$Latest" => self.latest_version(),
            "$Default" | "" => self.default_version,
            number => number.parse().map_err(|_| {
                Ec2Error::client(
                    "InvalidLaunchTemplateId.VersionNotFound",
                    format!("Could not find the specified version {number} for the launch template with ID {}.", self.id),
                )
            })?,
        };
        if self.versions.contains_key(&number) {
            return Ok(number);
        }
        Err(Ec2Error::client(
            "InvalidLaunchTemplateId.VersionNotFound",
            format!(
                "Could not find the specified version {number} for the launch template with ID {}.",
                self.id
            ),
        ))
    }
}

impl LaunchTemplateData {
    /// This data with everything `over` says laid on top; tags of one resource type are merged key by key,
    /// as `RunInstances` does with a template's tags and the call's.
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        fn list<T: Clone>(under: &[T], over: &[T]) -> Vec<T> {
            if over.is_empty() {
                under.to_vec()
            } else {
                over.to_vec()
            }
        }
        let pick =
            |under: &Option<String>, over: &Option<String>| over.clone().or_else(|| under.clone());
        let mut tag_specifications = self.tag_specifications.clone();
        for specification in &over.tag_specifications {
            match tag_specifications
                .iter_mut()
                .find(|t| t.resource_type == specification.resource_type)
            {
                Some(under) => under.tags.extend(specification.tags.clone()),
                None => tag_specifications.push(specification.clone()),
            }
        }
        Self {
            image_id: pick(&self.image_id, &over.image_id),
            instance_type: pick(&self.instance_type, &over.instance_type),
            user_data: pick(&self.user_data, &over.user_data),
            instance_profile: over
                .instance_profile
                .clone()
                .or_else(|| self.instance_profile.clone()),
            security_group_ids: list(&self.security_group_ids, &over.security_group_ids),
            network_interfaces: list(&self.network_interfaces, &over.network_interfaces),
            block_device_mappings: list(&self.block_device_mappings, &over.block_device_mappings),
            metadata_options: self.metadata_options.overlaid(&over.metadata_options),
            shutdown_behavior: over.shutdown_behavior.or(self.shutdown_behavior),
            spot: over.spot.clone().or_else(|| self.spot.clone()),
            tag_specifications,
            key_name: pick(&self.key_name, &over.key_name),
            ebs_optimized: over.ebs_optimized.or(self.ebs_optimized),
            monitoring: over.monitoring.or(self.monitoring),
            availability_zone: pick(&self.availability_zone, &over.availability_zone),
            placement_group: pick(&self.placement_group, &over.placement_group),
            tenancy: pick(&self.tenancy, &over.tenancy),
        }
    }

    /// The security groups that apply to the instance: its own, or those of its primary interface.
    #[must_use]
    pub fn effective_security_groups(&self) -> Vec<String> {
        match self.network_interfaces.iter().find(|i| i.device_index == 0) {
            Some(primary) if !primary.groups.is_empty() => primary.groups.clone(),
            _ => self.security_group_ids.clone(),
        }
    }

    /// The tags for one resource type.
    #[must_use]
    pub fn tags_for(&self, resource_type: &str) -> Tags {
        self.tag_specifications
            .iter()
            .filter(|s| s.resource_type == resource_type)
            .flat_map(|s| s.tags.clone())
            .collect()
    }
}

impl MetadataOptions {
    fn overlaid(&self, over: &Self) -> Self {
        let pick =
            |under: &Option<String>, over: &Option<String>| over.clone().or_else(|| under.clone());
        Self {
            http_tokens: pick(&self.http_tokens, &over.http_tokens),
            http_put_response_hop_limit: over
                .http_put_response_hop_limit
                .or(self.http_put_response_hop_limit),
            http_endpoint: pick(&self.http_endpoint, &over.http_endpoint),
            http_protocol_ipv6: pick(&self.http_protocol_ipv6, &over.http_protocol_ipv6),
            instance_metadata_tags: pick(
                &self.instance_metadata_tags,
                &over.instance_metadata_tags,
            ),
        }
    }
}
