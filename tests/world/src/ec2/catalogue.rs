//! The instance types the model knows: a small table of real ones (on-demand prices of us-east-1, Linux),
//! and `DescribeInstanceTypes`, `DescribeSpotPriceHistory`. Any other name is refused, as EC2 does.

use std::sync::LazyLock;

use super::error::{Ec2Error, Ec2Result};
use super::request::{CapacityKind, Filter, Page, Pool};
use super::{Ec2, filter, page};

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// Name, such as `c7i.2xlarge`.
    pub name: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Threads a core has: 2 on Intel, 1 on Graviton.
    pub threads_per_core: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// `x86_64` or `arm64`.
    pub architecture: &'static str,
    /// Whether CPU time comes in credits.
    pub burstable: bool,
    /// Sustained clock in tenths of a GHz.
    pub clock_tenths_ghz: u32,
    /// On-demand price in millionths of a dollar an hour.
    pub price_microdollars: u64,
}

/// A family whose sizes all have the same memory and price for a vCPU.
struct Family {
    name: &'static str,
    vcpus_max: u32,
    memory_mib_per_vcpu: u64,
    price_microdollars_per_vcpu: u64,
    threads_per_core: u32,
    architecture: &'static str,
    clock_tenths_ghz: u32,
}

const fn intel(
    name: &'static str,
    vcpus_max: u32,
    gib_per_vcpu: u64,
    price: u64,
    clock: u32,
) -> Family {
    Family {
        name,
        vcpus_max,
        memory_mib_per_vcpu: gib_per_vcpu * 1024,
        price_microdollars_per_vcpu: price,
        threads_per_core: 2,
        architecture: "x86_64",
        clock_tenths_ghz: clock,
    }
}

const fn graviton(name: &'static str, gib_per_vcpu: u64, price: u64) -> Family {
    Family {
        name,
        vcpus_max: 64,
        memory_mib_per_vcpu: gib_per_vcpu * 1024,
        price_microdollars_per_vcpu: price,
        threads_per_core: 1,
        architecture: "arm64",
        clock_tenths_ghz: 26,
    }
}

const FAMILIES: &[Family] = &[
    intel("c6i", 128, 2, 42_500, 35),
    intel("m6i", 128, 4, 48_000, 35),
    intel("r6i", 128, 8, 63_000, 35),
    intel("c7i", 192, 2, 44_625, 32),
    intel("m7i", 192, 4, 50_400, 32),
    intel("r7i", 192, 8, 66_150, 32),
    graviton("c7g", 2, 36_250),
    graviton("m7g", 4, 40_800),
    graviton("r7g", 8, 53_550),
];

/// Sizes of those families by vCPUs. Sixth generation Intel has 32xlarge and no 48xlarge.
const SIZES: &[(&str, u32)] = &[
    ("large", 2),
    ("xlarge", 4),
    ("2xlarge", 8),
    ("4xlarge", 16),
    ("8xlarge", 32),
    ("12xlarge", 48),
    ("16xlarge", 64),
    ("24xlarge", 96),
    ("32xlarge", 128),
    ("48xlarge", 192),
];

/// t3 and t4g: size, vCPUs, MiB, price of t3 in millionths of a dollar an hour (t4g costs 42/52 of it).
const BURSTABLE: &[(&str, u32, u64, u64)] = &[
    ("nano", 2, 512, 5_200),
    ("micro", 2, 1024, 10_400),
    ("small", 2, 2048, 20_800),
    ("medium", 2, 4096, 41_600),
    ("large", 2, 8192, 83_200),
    ("xlarge", 4, 16_384, 166_400),
    ("2xlarge", 8, 32_768, 332_800),
];

/// The table, made once: every launch and every described instance looks into it.
static TYPES: LazyLock<Vec<InstanceType>> = LazyLock::new(table);

/// All instance types the model knows.
#[must_use]
pub fn instance_types() -> Vec<InstanceType> {
    TYPES.clone()
}

fn table() -> Vec<InstanceType> {
    let mut types = Vec::new();
    for family in FAMILIES {
        let seventh = family.name.contains('7');
        let sizes = SIZES.iter().filter(|(size, vcpus)| {
            *vcpus <= family.vcpus_max && !(seventh && *size == "32xlarge")
        });
        types.extend(sizes.map(|(size, vcpus)| InstanceType {
            name: format!("{}.{size}", family.name),
            vcpus: *vcpus,
            threads_per_core: family.threads_per_core,
            memory_mib: family.memory_mib_per_vcpu * u64::from(*vcpus),
            architecture: family.architecture,
            burstable: false,
            clock_tenths_ghz: family.clock_tenths_ghz,
            price_microdollars: family.price_microdollars_per_vcpu * u64::from(*vcpus),
        }));
    }
    for (size, vcpus, memory_mib, price) in BURSTABLE {
        for (family, threads_per_core, architecture, price_microdollars) in [
            ("t3", 2, "x86_64", *price),
            ("t4g", 1, "arm64", price * 42 / 52),
        ] {
            types.push(InstanceType {
                name: format!("{family}.{size}"),
                vcpus: *vcpus,
                threads_per_core,
                memory_mib: *memory_mib,
                architecture,
                burstable: true,
                clock_tenths_ghz: 25,
                price_microdollars,
            });
        }
    }
    types
}

/// One instance type by its name.
#[must_use]
pub fn instance_type(name: &str) -> Option<InstanceType> {
    TYPES.iter().find(|t| t.name == name).cloned()
}

/// The price of a pool in millionths of a dollar an hour. A spot price is between 30 and 49 percent of the
/// on-demand price, fixed for each type and zone, so that strategies by price have something to choose.
#[must_use]
pub fn price_microdollars(pool: &Pool) -> Option<u64> {
    let on_demand = instance_type(&pool.instance_type)?.price_microdollars;
    Some(match pool.kind {
        CapacityKind::OnDemand => on_demand,
        CapacityKind::Spot => {
            let text = pool
                .instance_type
                .bytes()
                .chain(pool.availability_zone.bytes());
            let spread = text.fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 20);
            on_demand * (30 + spread) / 100
        }
    })
}

/// The present price of a spot pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpotPrice {
    /// The pool.
    pub pool: Pool,
    /// Millionths of a dollar an hour.
    pub microdollars: u64,
}

/// `DescribeInstanceTypes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeInstanceTypes {
    /// Only these; one unknown refuses the call.
    pub instance_types: Vec<String>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Paging.
    pub page: Page,
}

/// `DescribeSpotPriceHistory`, of which the model knows the present price only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeSpotPriceHistory {
    /// Only these; none is all.
    pub instance_types: Vec<String>,
    /// Only this zone.
    pub availability_zone: Option<String>,
    /// Paging.
    pub page: Page,
}

/// The most names one `DescribeInstanceTypes` takes (API reference).
const TYPE_NAMES_MAX: usize = 100;
/// The sizes of its pages (API reference).
const TYPE_PAGE: std::ops::RangeInclusive<usize> = 5..=100;
/// The filters it knows here.
const TYPE_FILTERS: &[&str] = &[
    "instance-type",
    "vcpu-info.default-vcpus",
    "vcpu-info.default-cores",
    "vcpu-info.default-threads-per-core",
    "memory-info.size-in-mib",
    "processor-info.supported-architecture",
    "burstable-performance-supported",
    "current-generation",
    "bare-metal",
    "supported-usage-class",
];

impl Ec2 {
    /// `DescribeInstanceTypes`.
    pub fn describe_instance_types(
        &mut self,
        now_ms: u64,
        request: &DescribeInstanceTypes,
    ) -> Ec2Result<(Vec<InstanceType>, Option<String>)> {
        self.begin_describe("DescribeInstanceTypes", now_ms, false)?;
        let names = &request.instance_types;
        page::refuse_ids_with_page(!names.is_empty(), &request.page, "InstanceTypes")?;
        filter::check(&request.filters, TYPE_FILTERS)?;
        if names.len() > TYPE_NAMES_MAX {
            return Err(Ec2Error::invalid_value(format!(
                "The number of instance types must not exceed {TYPE_NAMES_MAX}."
            )));
        }
        let all = instance_types();
        let unknown: Vec<&str> = names
            .iter()
            .filter(|n| !all.iter().any(|t| &t.name == *n))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            return Err(Ec2Error::client(
                "InvalidInstanceType",
                format!(
                    "The following supplied instance types do not exist: [{}]",
                    unknown.join(", ")
                ),
            ));
        }
        let kept = all
            .into_iter()
            .filter(|t| names.is_empty() || names.contains(&t.name))
            .filter(|t| filter::all_match(&request.filters, |name| t.filter_values(name)))
            .collect();
        page::cut(kept, &request.page, TYPE_PAGE, |t: &InstanceType| {
            t.name.clone()
        })
    }

    /// `DescribeSpotPriceHistory`: one row a type and zone, with its price.
    pub fn describe_spot_price_history(
        &mut self,
        now_ms: u64,
        request: &DescribeSpotPriceHistory,
    ) -> Ec2Result<(Vec<SpotPrice>, Option<String>)> {
        self.begin_describe("DescribeSpotPriceHistory", now_ms, false)?;
        let mut zones: Vec<&String> = self
            .subnets
            .values()
            .map(|s| &s.availability_zone)
            .collect();
        zones.sort();
        zones.dedup();
        let mut rows = Vec::new();
        for instance_type in instance_types() {
            for zone in &zones {
                let wanted_type = request.instance_types.is_empty()
                    || request.instance_types.contains(&instance_type.name);
                let wanted_zone = request
                    .availability_zone
                    .as_ref()
                    .is_none_or(|z| z == *zone);
                let pool = Pool {
                    kind: CapacityKind::Spot,
                    instance_type: instance_type.name.clone(),
                    availability_zone: (*zone).clone(),
                };
                if let Some(price) = price_microdollars(&pool)
                    && wanted_type
                    && wanted_zone
                {
                    rows.push(SpotPrice {
                        pool,
                        microdollars: price,
                    });
                }
            }
        }
        page::cut(rows, &request.page, 1..=1000, |row| {
            format!("{} {}", row.pool.instance_type, row.pool.availability_zone)
        })
    }
}

impl InstanceType {
    fn filter_values(&self, name: &str) -> Vec<String> {
        let one = match name {
            "instance-type" => self.name.clone(),
            "vcpu-info.default-vcpus" => self.vcpus.to_string(),
            "vcpu-info.default-cores" => (self.vcpus / self.threads_per_core).to_string(),
            "vcpu-info.default-threads-per-core" => self.threads_per_core.to_string(),
            "memory-info.size-in-mib" => self.memory_mib.to_string(),
            "processor-info.supported-architecture" => self.architecture.to_owned(),
            "burstable-performance-supported" => self.burstable.to_string(),
            "current-generation" => "true".to_owned(),
            "bare-metal" => "false".to_owned(),
            "supported-usage-class" => return vec!["on-demand".to_owned(), "spot".to_owned()],
            _ => return Vec::new(),
        };
        vec![one]
    }
}
