//! What surrounds instances in EC2's XML: subnets, zones, instance types, prices, tags.

use spillway_world::ec2::{
    AvailabilityZone, InstanceType, Settings, SpotPrice, Subnet, TagDescription,
};

use super::super::writer::Writer;
use super::{dollars, tag_set, time};

/// `DescribeTags`.
pub fn tags(w: &mut Writer, rows: &[TagDescription], token: Option<String>) {
    w.items("tagSet", rows, |w, row| {
        w.leaf("resourceId", &row.resource_id);
        w.leaf("resourceType", row.resource_type);
        w.leaf("key", &row.key);
        w.leaf("value", &row.value);
    });
    w.optional("nextToken", token);
}

/// `DescribeSubnets`.
pub fn subnets(w: &mut Writer, settings: &Settings, rows: &[Subnet], token: Option<String>) {
    let Settings {
        region, account, ..
    } = settings;
    w.items("subnetSet", rows, |w, subnet| {
        w.leaf("subnetId", &subnet.subnet_id);
        w.leaf(
            "subnetArn",
            format!("arn:aws:ec2:{region}:{account}:subnet/{}", subnet.subnet_id),
        );
        w.leaf("state", "available");
        w.leaf("ownerId", account);
        w.leaf("vpcId", &subnet.vpc_id);
        w.leaf("cidrBlock", subnet.cidr());
        w.element("ipv6CidrBlockAssociationSet", |_| {});
        w.leaf("availableIpAddressCount", subnet.available());
        w.leaf("availabilityZone", &subnet.availability_zone);
        w.leaf("availabilityZoneId", &subnet.availability_zone_id);
        w.leaf("defaultForAz", false);
        w.leaf("mapPublicIpOnLaunch", false);
        w.leaf("assignIpv6AddressOnCreation", false);
        w.leaf("ipv6Native", false);
        tag_set(w, &subnet.tags);
    });
    w.optional("nextToken", token);
}

/// `DescribeAvailabilityZones`.
pub fn zones(w: &mut Writer, region: &str, rows: &[AvailabilityZone]) {
    w.items("availabilityZoneInfo", rows, |w, zone| {
        w.leaf("optInStatus", "opt-in-not-required");
        w.element("messageSet", |_| {});
        w.leaf("regionName", region);
        w.leaf("zoneName", &zone.name);
        w.leaf("zoneId", &zone.id);
        w.leaf("groupName", format!("{region}-zg-1"));
        w.leaf("networkBorderGroup", region);
        w.leaf("zoneType", "availability-zone");
        w.leaf("zoneState", "available");
    });
}

/// `DescribeInstanceTypes`.
pub fn instance_types(w: &mut Writer, rows: &[InstanceType], token: Option<String>) {
    w.items("instanceTypeSet", rows, |w, of_type| {
        w.leaf("instanceType", &of_type.name);
        w.leaf("currentGeneration", true);
        w.leaf("freeTierEligible", of_type.name == "t3.micro");
        w.texts("supportedUsageClasses", ["on-demand", "spot"]);
        w.texts("supportedRootDeviceTypes", ["ebs"]);
        w.texts("supportedVirtualizationTypes", ["hvm"]);
        w.leaf("bareMetal", false);
        w.leaf("hypervisor", "nitro");
        w.element("processorInfo", |w| {
            w.texts("supportedArchitectures", [of_type.architecture]);
            let clock = of_type.clock_tenths_ghz;
            w.leaf(
                "sustainedClockSpeedInGhz",
                format!("{}.{}", clock / 10, clock % 10),
            );
            let arm = of_type.architecture == "arm64";
            w.leaf("manufacturer", if arm { "AWS" } else { "Intel" });
        });
        w.element("vCpuInfo", |w| {
            w.leaf("defaultVCpus", of_type.vcpus);
            w.leaf("defaultCores", of_type.vcpus / of_type.threads_per_core);
            w.leaf("defaultThreadsPerCore", of_type.threads_per_core);
        });
        w.element("memoryInfo", |w| w.leaf("sizeInMiB", of_type.memory_mib));
        w.leaf("instanceStorageSupported", false);
        w.leaf("burstablePerformanceSupported", of_type.burstable);
        w.leaf("dedicatedHostsSupported", true);
        w.leaf("autoRecoverySupported", true);
        w.leaf("hibernationSupported", true);
    });
    w.optional("nextToken", token);
}

/// `DescribeSpotPriceHistory`.
pub fn spot_prices(w: &mut Writer, now_ms: u64, rows: &[SpotPrice], token: Option<String>) {
    w.items(
        "spotPriceHistorySet",
        rows,
        |w, SpotPrice { pool, microdollars }| {
            w.leaf("instanceType", &pool.instance_type);
            w.leaf("productDescription", "Linux/UNIX");
            w.leaf("spotPrice", dollars(*microdollars));
            w.leaf("timestamp", time(now_ms));
            w.leaf("availabilityZone", &pool.availability_zone);
        },
    );
    // EC2 answers an empty token here where others leave it out.
    w.leaf("nextToken", token.unwrap_or_default());
}
