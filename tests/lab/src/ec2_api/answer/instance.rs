//! Instances in EC2's XML: reservations, statuses, state changes, attributes, console.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spillway_world::ec2::{
    CapacityKind, ConsoleOutput, Ec2, Instance, InstanceState, InstanceStatus, Reservation,
    StateTransition, instance_type,
};

use super::super::read::Attribute;
use super::super::writer::Writer;
use super::{tag_set, time};

/// `DescribeInstances`.
pub fn reservations(w: &mut Writer, ec2: &Ec2, rows: &[Reservation], token: Option<String>) {
    w.items("reservationSet", rows, |w, row| reservation(w, ec2, row));
    w.optional("nextToken", token);
}

/// One reservation, which is also the body of `RunInstances`' answer.
pub fn reservation(w: &mut Writer, ec2: &Ec2, reservation: &Reservation) {
    w.leaf("reservationId", &reservation.reservation_id);
    w.leaf("ownerId", &ec2.settings.account);
    w.element("groupSet", |_| {});
    w.items("instancesSet", &reservation.instances, |w, instance| {
        described(w, ec2, instance);
    });
}

fn described(w: &mut Writer, ec2: &Ec2, i: &Instance) {
    let dns_name = i.private_dns_name(&ec2.settings.region);
    w.leaf("instanceId", &i.instance_id);
    w.leaf("imageId", &i.image_id);
    w.element("instanceState", |w| state(w, i.state));
    w.leaf("privateDnsName", &dns_name);
    w.leaf("dnsName", "");
    w.leaf("reason", transition_reason(i));
    w.optional("keyName", i.launch.key_name.as_ref());
    w.leaf("amiLaunchIndex", i.launch_index);
    w.element("productCodes", |_| {});
    w.leaf("instanceType", &i.instance_type);
    w.leaf("launchTime", time(i.launched_at_ms));
    w.element("placement", |w| {
        w.leaf("availabilityZone", &i.availability_zone);
        w.leaf("availabilityZoneId", &i.availability_zone_id);
        w.leaf(
            "groupName",
            i.launch.placement_group.as_deref().unwrap_or_default(),
        );
        w.leaf("tenancy", i.launch.tenancy.as_deref().unwrap_or("default"));
    });
    let monitoring = if i.launch.monitoring == Some(true) {
        "enabled"
    } else {
        "disabled"
    };
    w.element("monitoring", |w| w.leaf("state", monitoring));
    if let Some(address) = i.private_ip {
        w.leaf("subnetId", &i.subnet_id);
        w.leaf("vpcId", &i.vpc_id);
        w.leaf("privateIpAddress", address);
    }
    w.leaf("sourceDestCheck", true);
    groups(w, i);
    if let Some(reason) = &i.state_reason {
        w.element("stateReason", |w| {
            w.leaf("code", reason.code);
            w.leaf("message", reason.message);
        });
    }
    hardware(w, i);
    w.leaf("clientToken", &i.client_token);
    tag_set(w, &i.tags);
    if i.kind == CapacityKind::Spot {
        w.leaf("instanceLifecycle", "spot");
    }
    w.optional("spotInstanceRequestId", i.spot_request_id.as_ref());
    interfaces(w, ec2, i, &dns_name);
    profile(w, ec2, i);
    metadata_options(w, i);
}

fn hardware(w: &mut Writer, i: &Instance) {
    let architecture = instance_type(&i.instance_type).map_or("x86_64", |t| t.architecture);
    w.leaf("architecture", architecture);
    w.leaf("rootDeviceType", "ebs");
    w.leaf("rootDeviceName", root_device(i));
    w.items("blockDeviceMapping", i.is_held().then_some(()), |w, ()| {
        w.leaf("deviceName", root_device(i));
        w.element("ebs", |w| {
            w.leaf("volumeId", &i.volume_id);
            w.leaf("status", "attached");
            w.leaf("attachTime", time(i.launched_at_ms));
            let root = i.launch.block_device_mappings.first();
            w.leaf(
                "deleteOnTermination",
                root.and_then(|d| d.delete_on_termination).unwrap_or(true),
            );
        });
    });
    w.leaf("virtualizationType", "hvm");
    w.leaf("hypervisor", "xen");
    w.leaf("ebsOptimized", i.launch.ebs_optimized.unwrap_or(false));
    w.leaf("enaSupport", true);
    if let Some(of_type) = instance_type(&i.instance_type) {
        w.element("cpuOptions", |w| {
            w.leaf("coreCount", of_type.vcpus / of_type.threads_per_core);
            w.leaf("threadsPerCore", of_type.threads_per_core);
        });
    }
}

fn root_device(i: &Instance) -> &str {
    i.launch
        .block_device_mappings
        .first()
        .map_or("/dev/xvda", |d| &d.device_name)
}

fn interfaces(w: &mut Writer, ec2: &Ec2, i: &Instance, dns_name: &str) {
    w.items("networkInterfaceSet", i.private_ip, |w, address| {
        w.leaf("networkInterfaceId", &i.network_interface_id);
        w.leaf("subnetId", &i.subnet_id);
        w.leaf("vpcId", &i.vpc_id);
        let wanted = i
            .launch
            .network_interfaces
            .iter()
            .find(|n| n.device_index == 0);
        w.leaf(
            "description",
            wanted
                .and_then(|n| n.description.as_deref())
                .unwrap_or_default(),
        );
        w.leaf("ownerId", &ec2.settings.account);
        w.leaf("status", "in-use");
        w.leaf("macAddress", &i.mac_address);
        w.leaf("privateIpAddress", address);
        w.leaf("privateDnsName", dns_name);
        w.leaf("sourceDestCheck", true);
        w.leaf("interfaceType", "interface");
        groups(w, i);
        w.element("attachment", |w| {
            w.leaf(
                "attachmentId",
                i.network_interface_id.replacen("eni-", "eni-attach-", 1),
            );
            w.leaf("deviceIndex", 0);
            w.leaf("networkCardIndex", 0);
            w.leaf("status", "attached");
            w.leaf("attachTime", time(i.launched_at_ms));
            w.leaf("deleteOnTermination", true);
        });
        w.items("privateIpAddressesSet", [address], |w, address| {
            w.leaf("privateIpAddress", address);
            w.leaf("privateDnsName", dns_name);
            w.leaf("primary", true);
        });
    });
}

/// Security groups. Their names are not known here; the id stands for the name.
fn groups(w: &mut Writer, i: &Instance) {
    w.items("groupSet", i.launch.effective_security_groups(), |w, id| {
        w.leaf("groupId", &id);
        w.leaf("groupName", &id);
    });
}

fn profile(w: &mut Writer, ec2: &Ec2, i: &Instance) {
    if let Some(arn) = ec2.instance_profile_arn(i) {
        w.element("iamInstanceProfile", |w| {
            w.leaf("arn", arn);
            w.leaf("id", "AIPASPILLWAYLAB000000");
        });
    }
}

fn metadata_options(w: &mut Writer, i: &Instance) {
    let options = &i.launch.metadata_options;
    w.element("metadataOptions", |w| {
        let state = if i.state == InstanceState::Pending {
            "pending"
        } else {
            "applied"
        };
        w.leaf("state", state);
        w.leaf(
            "httpTokens",
            options.http_tokens.as_deref().unwrap_or("optional"),
        );
        w.leaf(
            "httpPutResponseHopLimit",
            options.http_put_response_hop_limit.unwrap_or(1),
        );
        w.leaf(
            "httpEndpoint",
            options.http_endpoint.as_deref().unwrap_or("enabled"),
        );
        w.leaf(
            "httpProtocolIpv6",
            options.http_protocol_ipv6.as_deref().unwrap_or("disabled"),
        );
        w.leaf(
            "instanceMetadataTags",
            options
                .instance_metadata_tags
                .as_deref()
                .unwrap_or("disabled"),
        );
    });
}

fn state(w: &mut Writer, state: InstanceState) {
    w.leaf("code", state.code());
    w.leaf("name", state.as_str());
}

/// EC2 writes the reason and the moment in words, such as `User initiated (2026-01-01 00:00:00 GMT)`.
fn transition_reason(i: &Instance) -> String {
    i.state_reason.as_ref().map_or(String::new(), |reason| {
        let what = if reason.code == "Client.UserInitiatedShutdown" {
            "User initiated"
        } else {
            reason.code
        };
        let at = time(i.state_since_ms);
        let (date, clock) = at.split_once('T').unwrap_or((&at, ""));
        format!("{what} ({date} {} GMT)", clock.get(..8).unwrap_or(clock))
    })
}

/// `TerminateInstances`.
pub fn transitions(w: &mut Writer, rows: &[StateTransition]) {
    w.items("instancesSet", rows, |w, row| {
        w.leaf("instanceId", &row.instance_id);
        w.element("currentState", |w| state(w, row.current));
        w.element("previousState", |w| state(w, row.previous));
    });
}

/// `DescribeInstanceStatus`.
pub fn statuses(w: &mut Writer, rows: &[InstanceStatus], token: Option<String>) {
    w.items("instanceStatusSet", rows, |w, row| {
        w.leaf("instanceId", &row.instance.instance_id);
        w.leaf("availabilityZone", &row.instance.availability_zone);
        w.leaf("availabilityZoneId", &row.instance.availability_zone_id);
        w.element("instanceState", |w| state(w, row.instance.state));
        let check = match row.status {
            "ok" => Some("passed"),
            "initializing" => Some("initializing"),
            "impaired" => Some("failed"),
            _ => None,
        };
        for element in ["systemStatus", "instanceStatus", "attachedEbsStatus"] {
            w.element(element, |w| {
                w.leaf("status", row.status);
                w.items("details", check, |w, check| {
                    w.leaf("name", "reachability");
                    w.leaf("status", check);
                });
            });
        }
    });
    w.optional("nextToken", token);
}

/// `DescribeInstanceAttribute`.
pub fn attribute(w: &mut Writer, i: &Instance, attribute: Attribute) {
    w.leaf("instanceId", &i.instance_id);
    match attribute {
        Attribute::UserData => {
            w.element("userData", |w| w.optional("value", i.user_data()));
        }
        Attribute::ShutdownBehavior => {
            let behavior = i.shutdown_behavior().as_str();
            w.element("instanceInitiatedShutdownBehavior", |w| {
                w.leaf("value", behavior);
            });
        }
        Attribute::InstanceType => {
            w.element("instanceType", |w| w.leaf("value", &i.instance_type));
        }
        Attribute::Groups => groups(w, i),
    }
}

/// `GetConsoleOutput`.
pub fn console(w: &mut Writer, console: &ConsoleOutput) {
    w.leaf("instanceId", &console.instance_id);
    w.leaf("timestamp", time(console.at_ms));
    w.leaf("output", STANDARD.encode(&console.output));
}
