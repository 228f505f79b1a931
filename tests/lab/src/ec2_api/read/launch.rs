//! Reading `RunInstances` and `CreateFleet`.

use spillway_world::ec2::{
    AllocationStrategy, BlockDeviceMapping, CapacityKind, CreateFleet, Ec2Error, Ec2Result,
    FleetConfig, FleetOptions, FleetOverride, InstanceProfile, LaunchTemplateData,
    LaunchTemplateSpecification, MetadataOptions, NetworkInterfaceSpecification, RunInstances,
    ShutdownBehavior, SpotOptions, TagSpecification,
};

use super::super::params::{Params, invalid};
use super::tags;

/// `RunInstances`.
pub fn run_instances(params: &mut Params, dry_run: bool) -> Ec2Result<RunInstances> {
    let min_count = params
        .number("MinCount")?
        .ok_or_else(|| Ec2Error::missing("MinCount"))?;
    let max_count = params
        .number("MaxCount")?
        .ok_or_else(|| Ec2Error::missing("MaxCount"))?;
    let specification = template_specification(params.section("LaunchTemplate"));
    let named = specification != LaunchTemplateSpecification::default();
    Ok(RunInstances {
        launch_template: named.then_some(specification),
        subnet_id: params.text("SubnetId"),
        min_count,
        max_count,
        client_token: params.text("ClientToken"),
        dry_run,
        direct: direct(params)?,
    })
}

fn template_specification(params: &mut Params) -> LaunchTemplateSpecification {
    LaunchTemplateSpecification {
        id: params.text("LaunchTemplateId"),
        name: params.text("LaunchTemplateName"),
        version: params.text("Version"),
    }
}

fn direct(params: &mut Params) -> Ec2Result<LaunchTemplateData> {
    let profile = params.section("IamInstanceProfile");
    let profile = InstanceProfile {
        arn: profile.text("Arn"),
        name: profile.text("Name"),
    };
    let shutdown_behavior = params.text("InstanceInitiatedShutdownBehavior");
    let metadata = params.section("MetadataOptions");
    let metadata_options = MetadataOptions {
        http_tokens: metadata.text("HttpTokens"),
        http_put_response_hop_limit: metadata.number("HttpPutResponseHopLimit")?,
        http_endpoint: metadata.text("HttpEndpoint"),
        http_protocol_ipv6: metadata.text("HttpProtocolIpv6"),
        instance_metadata_tags: metadata.text("InstanceMetadataTags"),
    };
    let interfaces = params
        .list("NetworkInterface")
        .into_iter()
        .map(network_interface);
    let network_interfaces = interfaces.collect::<Ec2Result<Vec<_>>>()?;
    let devices = params
        .list("BlockDeviceMapping")
        .into_iter()
        .map(block_device);
    let block_device_mappings = devices.collect::<Ec2Result<Vec<_>>>()?;
    let placement = params.section("Placement");
    let availability_zone = placement.text("AvailabilityZone");
    let placement_group = placement.text("GroupName");
    let tenancy = placement.text("Tenancy");
    Ok(LaunchTemplateData {
        image_id: params.text("ImageId"),
        instance_type: params.text("InstanceType"),
        user_data: params.text("UserData"),
        instance_profile: (profile != InstanceProfile::default()).then_some(profile),
        security_group_ids: params.texts("SecurityGroupId"),
        network_interfaces,
        block_device_mappings,
        metadata_options,
        shutdown_behavior: shutdown_behavior
            .as_deref()
            .map(ShutdownBehavior::parse)
            .transpose()?,
        spot: market(params.section("InstanceMarketOptions"))?,
        tag_specifications: tag_specifications(params)?,
        key_name: params.text("KeyName"),
        ebs_optimized: params.boolean("EbsOptimized")?,
        monitoring: params.section("Monitoring").boolean("Enabled")?,
        availability_zone,
        placement_group,
        tenancy,
    })
}

fn network_interface(params: &mut Params) -> Ec2Result<NetworkInterfaceSpecification> {
    Ok(NetworkInterfaceSpecification {
        device_index: params
            .number("DeviceIndex")?
            .ok_or_else(|| Ec2Error::missing("DeviceIndex"))?,
        subnet_id: params.text("SubnetId"),
        groups: params.texts("SecurityGroupId"),
        associate_public_ip_address: params.boolean("AssociatePublicIpAddress")?,
        delete_on_termination: params.boolean("DeleteOnTermination")?,
        description: params.text("Description"),
    })
}

fn block_device(params: &mut Params) -> Ec2Result<BlockDeviceMapping> {
    let device_name = params.required("DeviceName")?;
    let volume = params.section("Ebs");
    Ok(BlockDeviceMapping {
        device_name,
        volume_size: volume.number("VolumeSize")?,
        volume_type: volume.text("VolumeType"),
        encrypted: volume.boolean("Encrypted")?,
        delete_on_termination: volume.boolean("DeleteOnTermination")?,
        iops: volume.number("Iops")?,
        throughput: volume.number("Throughput")?,
        kms_key_id: volume.text("KmsKeyId"),
        snapshot_id: volume.text("SnapshotId"),
    })
}

fn market(params: &mut Params) -> Ec2Result<Option<SpotOptions>> {
    let market_type = params.text("MarketType");
    let options = params.section("SpotOptions");
    let once = options.text("SpotInstanceType");
    let spot = SpotOptions {
        max_price: options.text("MaxPrice"),
        interruption_behavior: interruption_behavior(options)?,
    };
    match (market_type.as_deref(), once.as_deref()) {
        (None, _) => Ok(None),
        (Some("spot"), None | Some("one-time")) => Ok(Some(spot)),
        (Some("spot"), Some(other)) => Err(invalid(other, "SpotInstanceType")),
        (Some(other), _) => Err(invalid(other, "MarketType")),
    }
}

fn interruption_behavior(params: &mut Params) -> Ec2Result<Option<String>> {
    match params.text("InstanceInterruptionBehavior") {
        Some(other) if !matches!(other.as_str(), "terminate" | "stop" | "hibernate") => {
            Err(invalid(&other, "InstanceInterruptionBehavior"))
        }
        behavior => Ok(behavior),
    }
}

fn tag_specifications(params: &mut Params) -> Ec2Result<Vec<TagSpecification>> {
    let specifications = params.list("TagSpecification").into_iter();
    specifications
        .map(|specification| {
            let resource_type = specification.required("ResourceType")?;
            Ok(TagSpecification {
                resource_type,
                tags: tags(specification)?,
            })
        })
        .collect()
}

/// `CreateFleet`.
pub fn create_fleet(params: &mut Params, dry_run: bool) -> Ec2Result<CreateFleet> {
    let kind = params.text("Type");
    if kind.as_deref() != Some("instant") {
        // AWS's default is `maintain`; such fleets launch by themselves, and Spillway uses none.
        return Err(invalid(kind.as_deref().unwrap_or("maintain"), "Type"));
    }
    let configs = params.list("LaunchTemplateConfigs").into_iter().map(config);
    let configs = configs.collect::<Ec2Result<Vec<_>>>()?;
    let on_demand = params.section("OnDemandOptions");
    let capacity_reservations_first = capacity_reservations_first(on_demand)?;
    let on_demand = FleetOptions {
        capacity_reservations_first,
        ..options(on_demand)?
    };
    let spot = params.section("SpotOptions");
    let interruption_behavior = interruption_behavior(spot)?;
    let spot = FleetOptions {
        interruption_behavior,
        ..options(spot)?
    };
    let target = params.section("TargetCapacitySpecification");
    let unit = target.text("TargetCapacityUnitType");
    if let Some(unit) = unit.filter(|unit| unit != "units") {
        return Err(invalid(&unit, "TargetCapacityUnitType"));
    }
    let default = target.text("DefaultTargetCapacityType");
    Ok(CreateFleet {
        configs,
        total_target_capacity: target
            .number("TotalTargetCapacity")?
            .ok_or_else(|| Ec2Error::missing("TotalTargetCapacity"))?,
        on_demand_target_capacity: target.number("OnDemandTargetCapacity")?.unwrap_or(0),
        spot_target_capacity: target.number("SpotTargetCapacity")?.unwrap_or(0),
        default_target_capacity_type: default.as_deref().map(capacity_kind).transpose()?,
        on_demand,
        spot,
        tag_specifications: tag_specifications(params)?,
        client_token: params.text("ClientToken"),
        dry_run,
    })
}

fn capacity_kind(word: &str) -> Ec2Result<CapacityKind> {
    match word {
        "on-demand" => Ok(CapacityKind::OnDemand),
        "spot" => Ok(CapacityKind::Spot),
        other => Err(invalid(other, "DefaultTargetCapacityType")),
    }
}

fn config(params: &mut Params) -> Ec2Result<FleetConfig> {
    let launch_template = template_specification(params.section("LaunchTemplateSpecification"));
    if launch_template.version.is_none() {
        // The API reference: a fleet must state the version.
        return Err(Ec2Error::missing("LaunchTemplateSpecification.Version"));
    }
    let overrides = params
        .list("Overrides")
        .into_iter()
        .map(|over| FleetOverride {
            instance_type: over.text("InstanceType"),
            subnet_id: over.text("SubnetId"),
            availability_zone: over.text("AvailabilityZone"),
            max_price: over.text("MaxPrice"),
            image_id: over.text("ImageId"),
            weighted_capacity: over.text("WeightedCapacity"),
            priority: over.text("Priority"),
        });
    Ok(FleetConfig {
        launch_template,
        overrides: overrides.collect(),
    })
}

fn capacity_reservations_first(params: &mut Params) -> Ec2Result<bool> {
    let strategy = params
        .section("CapacityReservationOptions")
        .text("UsageStrategy");
    match strategy.as_deref() {
        None => Ok(false),
        Some("use-capacity-reservations-first") => Ok(true),
        Some(other) => Err(invalid(other, "UsageStrategy")),
    }
}

fn options(params: &mut Params) -> Ec2Result<FleetOptions> {
    use AllocationStrategy as S;
    let strategy = params.text("AllocationStrategy");
    let allocation_strategy = strategy
        .map(|word| match word.as_str() {
            "lowest-price" => Ok(S::LowestPrice),
            "prioritized" => Ok(S::Prioritized),
            "diversified" => Ok(S::Diversified),
            "capacity-optimized" => Ok(S::CapacityOptimized),
            "capacity-optimized-prioritized" => Ok(S::CapacityOptimizedPrioritized),
            "price-capacity-optimized" => Ok(S::PriceCapacityOptimized),
            other => Err(invalid(other, "AllocationStrategy")),
        })
        .transpose()?;
    Ok(FleetOptions {
        allocation_strategy,
        single_instance_type: params.boolean("SingleInstanceType")?.unwrap_or(false),
        single_availability_zone: params.boolean("SingleAvailabilityZone")?.unwrap_or(false),
        min_target_capacity: params.number("MinTargetCapacity")?,
        max_total_price: params.text("MaxTotalPrice"),
        capacity_reservations_first: false,
        interruption_behavior: None,
    })
}
