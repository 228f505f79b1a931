//! Launch templates in EC2's XML. [`super::super::template_xml`] reads what this writes.

use spillway_world::ec2::{
    BlockDeviceMapping, LaunchTemplate, LaunchTemplateData, LaunchTemplateVersion, MetadataOptions,
    NetworkInterfaceSpecification, ShutdownBehavior,
};

use super::super::writer::Writer;
use super::{tag_set, time};

/// `DescribeLaunchTemplates`.
pub fn templates(w: &mut Writer, rows: &[LaunchTemplate], token: Option<String>) {
    w.items("launchTemplates", rows, |w, template| {
        w.leaf("launchTemplateId", &template.id);
        w.leaf("launchTemplateName", &template.name);
        w.leaf("createTime", time(template.created_at_ms));
        w.leaf("createdBy", &template.created_by);
        w.leaf("defaultVersionNumber", template.default_version);
        w.leaf("latestVersionNumber", template.latest_version());
        tag_set(w, &template.tags);
    });
    w.optional("nextToken", token);
}

/// `DescribeLaunchTemplateVersions`.
pub fn versions(w: &mut Writer, rows: &[LaunchTemplateVersion], token: Option<String>) {
    w.items("launchTemplateVersionSet", rows, |w, version| {
        w.leaf("launchTemplateId", &version.id);
        w.leaf("launchTemplateName", &version.name);
        w.leaf("versionNumber", version.version);
        w.leaf("createTime", time(version.created_at_ms));
        w.leaf("createdBy", &version.created_by);
        w.leaf("defaultVersion", version.is_default);
        w.element("launchTemplateData", |w| data(w, &version.data));
    });
    w.optional("nextToken", token);
}

fn data(w: &mut Writer, data: &LaunchTemplateData) {
    w.optional("imageId", data.image_id.as_ref());
    w.optional("instanceType", data.instance_type.as_ref());
    w.optional("userData", data.user_data.as_ref());
    w.optional("keyName", data.key_name.as_ref());
    w.optional("ebsOptimized", data.ebs_optimized);
    if let Some(profile) = &data.instance_profile {
        w.element("iamInstanceProfile", |w| {
            w.optional("arn", profile.arn.as_ref());
            w.optional("name", profile.name.as_ref());
        });
    }
    if !data.security_group_ids.is_empty() {
        w.texts("securityGroupIdSet", &data.security_group_ids);
    }
    if !data.network_interfaces.is_empty() {
        w.items(
            "networkInterfaceSet",
            &data.network_interfaces,
            network_interface,
        );
    }
    if !data.block_device_mappings.is_empty() {
        w.items(
            "blockDeviceMappingSet",
            &data.block_device_mappings,
            block_device,
        );
    }
    metadata_options(w, &data.metadata_options);
    w.optional(
        "instanceInitiatedShutdownBehavior",
        data.shutdown_behavior.map(ShutdownBehavior::as_str),
    );
    if let Some(spot) = &data.spot {
        w.element("instanceMarketOptions", |w| {
            w.leaf("marketType", "spot");
            w.element("spotOptions", |w| {
                w.optional("maxPrice", spot.max_price.as_ref());
                w.optional(
                    "instanceInterruptionBehavior",
                    spot.interruption_behavior.as_ref(),
                );
            });
        });
    }
    if !data.tag_specifications.is_empty() {
        w.items(
            "tagSpecificationSet",
            &data.tag_specifications,
            |w, specification| {
                w.leaf("resourceType", &specification.resource_type);
                tag_set(w, &specification.tags);
            },
        );
    }
    if let Some(enabled) = data.monitoring {
        w.element("monitoring", |w| w.leaf("enabled", enabled));
    }
    placement(w, data);
}

fn metadata_options(w: &mut Writer, options: &MetadataOptions) {
    if *options == MetadataOptions::default() {
        return;
    }
    w.element("metadataOptions", |w| {
        w.optional("httpTokens", options.http_tokens.as_ref());
        w.optional(
            "httpPutResponseHopLimit",
            options.http_put_response_hop_limit,
        );
        w.optional("httpEndpoint", options.http_endpoint.as_ref());
        w.optional("httpProtocolIpv6", options.http_protocol_ipv6.as_ref());
        w.optional(
            "instanceMetadataTags",
            options.instance_metadata_tags.as_ref(),
        );
    });
}

fn placement(w: &mut Writer, data: &LaunchTemplateData) {
    let placement = [
        ("availabilityZone", &data.availability_zone),
        ("groupName", &data.placement_group),
        ("tenancy", &data.tenancy),
    ];
    if placement.iter().any(|(_, value)| value.is_some()) {
        w.element("placement", |w| {
            for (name, value) in placement {
                w.optional(name, value.as_ref());
            }
        });
    }
}

fn network_interface(w: &mut Writer, interface: &NetworkInterfaceSpecification) {
    w.leaf("deviceIndex", interface.device_index);
    w.optional("subnetId", interface.subnet_id.as_ref());
    w.optional(
        "associatePublicIpAddress",
        interface.associate_public_ip_address,
    );
    w.optional("deleteOnTermination", interface.delete_on_termination);
    w.optional("description", interface.description.as_ref());
    if !interface.groups.is_empty() {
        w.element("groupSet", |w| {
            for id in &interface.groups {
                w.leaf("groupId", id);
            }
        });
    }
}

fn block_device(w: &mut Writer, device: &BlockDeviceMapping) {
    w.leaf("deviceName", &device.device_name);
    w.element("ebs", |w| {
        w.optional("volumeSize", device.volume_size);
        w.optional("volumeType", device.volume_type.as_ref());
        w.optional("encrypted", device.encrypted);
        w.optional("deleteOnTermination", device.delete_on_termination);
        w.optional("iops", device.iops);
        w.optional("throughput", device.throughput);
        w.optional("kmsKeyId", device.kms_key_id.as_ref());
        w.optional("snapshotId", device.snapshot_id.as_ref());
    });
}
