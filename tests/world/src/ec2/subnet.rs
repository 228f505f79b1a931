//! Subnets and their address space: which private addresses are free, who gets the next one.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::error::{Ec2Error, Ec2Result};
use super::request::{Filter, Page, Tags};
use super::{AddressOrder, Ec2, filter, page};

/// AWS keeps the first four addresses (network, router, DNS, future use) and the last (broadcast) of every
/// subnet (VPC guide, "Subnet CIDR blocks").
const RESERVED_AT_START: u32 = 4;
const RESERVED_AT_END: u32 = 1;
/// The sizes a subnet may have (VPC guide): /16 to /28.
const PREFIX_LENGTHS: std::ops::RangeInclusive<u32> = 16..=28;
/// The most rows a page of subnets holds (API reference: 5 to 1000).
const SUBNET_PAGE: std::ops::RangeInclusive<usize> = 5..=1000;
/// The filters `DescribeSubnets` knows.
const SUBNET_FILTERS: &[&str] = &[
    "subnet-id",
    "vpc-id",
    "availability-zone",
    "availabilityZone",
    "availability-zone-id",
    "availabilityZoneId",
    "cidr-block",
    "cidr",
    "cidrBlock",
    "available-ip-address-count",
    "state",
    "owner-id",
    "tag",
];

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`.
    pub subnet_id: String,
    /// `vpc-…`.
    pub vpc_id: String,
    /// Zone name, such as `us-east-1a`.
    pub availability_zone: String,
    /// Zone id, such as `use1-az1`.
    pub availability_zone_id: String,
    /// Tags of the subnet.
    pub tags: Tags,
    network: u32,
    prefix_length: u32,
    taken: BTreeSet<u32>,
    cursor: u32,
}

impl Subnet {
    /// A subnet over `cidr`, such as `10.64.16.0/20`. Refused (`InvalidParameterValue`) if the block is
    /// malformed, has host bits set, or is not between /16 and /28.
    pub fn new(
        subnet_id: &str,
        vpc_id: &str,
        availability_zone: &str,
        cidr: &str,
    ) -> Ec2Result<Self> {
        let invalid = || {
            Ec2Error::invalid_value(format!(
                "Value ({cidr}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
            ))
        };
        let (address, length) = cidr.split_once('/').ok_or_else(invalid)?;
        let network = u32::from(address.parse::<Ipv4Addr>().map_err(|_| invalid())?);
        let prefix_length: u32 = length.parse().map_err(|_| invalid())?;
        if !PREFIX_LENGTHS.contains(&prefix_length) || network & (u32::MAX >> prefix_length) != 0 {
            return Err(invalid());
        }
        Ok(Self {
            subnet_id: subnet_id.to_owned(),
            vpc_id: vpc_id.to_owned(),
            availability_zone: availability_zone.to_owned(),
            availability_zone_id: zone_id(availability_zone),
            tags: Tags::new(),
            network,
            prefix_length,
            taken: BTreeSet::new(),
            cursor: 0,
        })
    }

    /// The block, as `10.64.16.0/20`.
    #[must_use]
    pub fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from(self.network), self.prefix_length)
    }

    /// How many addresses can still be given.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.usable()
            - u32::try_from(self.taken.len()).expect("a subnet has at most 65,536 addresses")
    }

    fn usable(&self) -> u32 {
        (1 << (32 - self.prefix_length)) - RESERVED_AT_START - RESERVED_AT_END
    }

    /// Takes a free address: the next after the last one given, or one drawn by `draw` (which answers a
    /// number below its argument). None when the subnet is full.
    pub(super) fn take(&mut self, draw: Option<&mut dyn FnMut(u32) -> u32>) -> Option<Ipv4Addr> {
        let usable = self.usable();
        if self.available() == 0 {
            return None;
        }
        let mut offset = draw.map_or(self.cursor, |draw| draw(usable));
        while self.taken.contains(&offset) {
            offset = (offset + 1) % usable;
        }
        self.taken.insert(offset);
        self.cursor = (offset + 1) % usable;
        Some(Ipv4Addr::from(self.network + RESERVED_AT_START + offset))
    }

    /// Gives an address back.
    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.taken
            .remove(&(u32::from(address) - self.network - RESERVED_AT_START));
    }
}

/// The zone id of a zone name, in AWS's form (`us-east-1a` is `use1-az1`). AWS shuffles the numbers between
/// accounts; here `a` is always 1.
fn zone_id(zone: &str) -> String {
    let mut parts = zone.split('-');
    let area = parts.next().unwrap_or_default();
    let direction: String = parts
        .next()
        .unwrap_or_default()
        .replace("north", "n")
        .replace("south", "s")
        .replace("east", "e")
        .replace("west", "w")
        .replace("central", "c");
    let last = parts.next().unwrap_or_default();
    let number = last.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let letter = last
        .chars()
        .last()
        .filter(char::is_ascii_lowercase)
        .unwrap_or('a');
    format!(
        "{area}{direction}{number}-az{}",
        u32::from(letter) - u32::from('a') + 1
    )
}

/// `DescribeSubnets`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeSubnets {
    /// Only these; one unknown refuses the call.
    pub subnet_ids: Vec<String>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Paging.
    pub page: Page,
}

/// A zone, as `DescribeAvailabilityZones` answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailabilityZone {
    /// Name, such as `us-east-1a`.
    pub name: String,
    /// Id, such as `use1-az1`.
    pub id: String,
}

/// `DescribeAvailabilityZones`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeAvailabilityZones {
    /// Only these names.
    pub names: Vec<String>,
    /// Only these ids.
    pub ids: Vec<String>,
    /// Filters: `zone-name`, `zone-id`, `region-name`, `state`.
    pub filters: Vec<Filter>,
}

impl Ec2 {
    /// Puts a subnet in. Its zone is a zone of the region from now on.
    pub fn put_subnet(&mut self, subnet: Subnet) {
        self.subnets.insert(subnet.subnet_id.clone(), subnet);
    }

    /// A subnet by its id.
    #[must_use]
    pub fn subnet(&self, subnet_id: &str) -> Option<&Subnet> {
        self.subnets.get(subnet_id)
    }

    pub(super) fn take_address(&mut self, subnet_id: &str) -> Option<Ipv4Addr> {
        let subnet = self.subnets.get_mut(subnet_id)?;
        match self.settings.address_order {
            AddressOrder::Sequential => subnet.take(None),
            AddressOrder::Random => subnet.take(Some(&mut |below| self.rng.u32(0..below))),
        }
    }

    /// `DescribeSubnets`: those asked for with their true free addresses, and the next page's token.
    pub fn describe_subnets(
        &mut self,
        now_ms: u64,
        request: &DescribeSubnets,
    ) -> Ec2Result<(Vec<Subnet>, Option<String>)> {
        let plain = request.subnet_ids.is_empty() && request.filters.is_empty();
        self.begin_describe(
            "DescribeSubnets",
            now_ms,
            plain && request.page.is_unpaged(),
        )?;
        page::refuse_ids_with_page(!request.subnet_ids.is_empty(), &request.page, "subnetIds")?;
        if let Some(id) = request
            .subnet_ids
            .iter()
            .find(|id| !self.subnets.contains_key(*id))
        {
            return Err(Ec2Error::no_subnet(id));
        }
        filter::check(&request.filters, SUBNET_FILTERS)?;
        let mut kept = Vec::new();
        for subnet in self.subnets.values() {
            let asked =
                request.subnet_ids.is_empty() || request.subnet_ids.contains(&subnet.subnet_id);
            let matches = filter::all_match(&request.filters, |name| {
                vec![match name {
                    "subnet-id" => subnet.subnet_id.clone(),
                    "vpc-id" => subnet.vpc_id.clone(),
                    "availability-zone" | "availabilityZone" => subnet.availability_zone.clone(),
                    "availability-zone-id" | "availabilityZoneId" => {
                        subnet.availability_zone_id.clone()
                    }
                    "cidr-block" | "cidr" | "cidrBlock" => subnet.cidr(),
                    "available-ip-address-count" => subnet.available().to_string(),
                    "state" => "available".to_owned(),
                    "owner-id" => self.settings.account.clone(),
                    other => return filter::tag_values(other, &subnet.tags),
                }]
            });
            if asked && matches {
                kept.push(subnet.clone());
            }
        }
        page::cut(kept, &request.page, SUBNET_PAGE, |s| s.subnet_id.clone())
    }

    /// `DescribeAvailabilityZones`: the zones of the subnets put in.
    pub fn describe_availability_zones(
        &mut self,
        now_ms: u64,
        request: &DescribeAvailabilityZones,
    ) -> Ec2Result<Vec<AvailabilityZone>> {
        self.begin_describe("DescribeAvailabilityZones", now_ms, false)?;
        let known: BTreeSet<(String, String)> = self
            .subnets
            .values()
            .map(|s| (s.availability_zone.clone(), s.availability_zone_id.clone()))
            .collect();
        let unknown_name = request
            .names
            .iter()
            .find(|n| !known.iter().any(|(name, _)| name == *n));
        let unknown_id = request
            .ids
            .iter()
            .find(|i| !known.iter().any(|(_, id)| id == *i));
        if let Some(zone) = unknown_name.or(unknown_id) {
            return Err(Ec2Error::invalid_value(format!(
                "Invalid availability zone: [{zone}]"
            )));
        }
        filter::check(
            &request.filters,
            &["zone-name", "zone-id", "region-name", "state"],
        )?;
        let mut zones = Vec::new();
        for (name, id) in known {
            let asked = (request.names.is_empty() && request.ids.is_empty())
                || request.names.contains(&name)
                || request.ids.contains(&id);
            let matches = filter::all_match(&request.filters, |filter| {
                vec![match filter {
                    "zone-name" => name.clone(),
                    "zone-id" => id.clone(),
                    "region-name" => self.settings.region.clone(),
                    "state" => "available".to_owned(),
                    _ => return Vec::new(),
                }]
            });
            if asked && matches {
                zones.push(AvailabilityZone { name, id });
            }
        }
        Ok(zones)
    }
}
