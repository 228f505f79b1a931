//! The requests that change something, and the small types several requests share. A request is compared
//! whole with an earlier one of the same client token, so everything a caller may say stands in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::template::LaunchTemplateData;

/// Tags by key, in the order of their keys.
pub type Tags = BTreeMap<String, String>;

/// Tags for one type of resource, given at its creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagSpecification {
    /// `instance`, `volume`, `network-interface`, `spot-instances-request` or `fleet`.
    pub resource_type: String,
    /// The tags.
    pub tags: Tags,
}

/// Which launch template, and which version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchTemplateSpecification {
    /// `lt-…`; either this or the name.
    pub id: Option<String>,
    /// Its name; either this or the id.
    pub name: Option<String>,
    /// A number, `$Latest` or `$Default`; none is `$Default`.
    pub version: Option<String>,
}

impl LaunchTemplateSpecification {
    /// The default version of the template with this id.
    #[must_use]
    pub fn by_id(id: &str) -> Self {
        Self {
            id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    /// The default version of the template with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

/// A filter: the attribute's name and the values of which one must match (`*` and `?` are wildcards).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Name, such as `subnet-id` or `tag:cluster`.
    pub name: String,
    /// Values; one must match.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter on `name` for any of `values`.
    #[must_use]
    pub fn new(name: &str, values: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        }
    }
}

/// `MaxResults` and `NextToken`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The most rows wanted; none is all.
    pub max_results: Option<usize>,
    /// Where the last answer left off.
    pub next_token: Option<String>,
}

impl Page {
    pub(super) fn is_unpaged(&self) -> bool {
        self.max_results.is_none() && self.next_token.is_none()
    }
}

/// On-demand or spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityKind {
    /// On-demand.
    OnDemand,
    /// Spot.
    Spot,
}

impl CapacityKind {
    /// AWS's word in fleets.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }
}

/// Where capacity comes from: one capacity kind of one instance type in one availability zone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pool {
    /// On-demand or spot.
    pub kind: CapacityKind,
    /// Instance type name.
    pub instance_type: String,
    /// Zone name, such as `us-east-1a`.
    pub availability_zone: String,
}

/// `RunInstances`: one type in one subnet, all of `min_count` or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunInstances {
    /// The launch template, if any.
    pub launch_template: Option<LaunchTemplateSpecification>,
    /// What the call says directly; it is laid over the template.
    pub direct: LaunchTemplateData,
    /// Subnet.
    pub subnet_id: Option<String>,
    /// The fewest instances worth launching.
    pub min_count: u32,
    /// The most instances wanted.
    pub max_count: u32,
    /// Client token, at most 64 ASCII characters.
    pub client_token: Option<String>,
    /// Ask only whether it would be done.
    pub dry_run: bool,
}

/// `CreateFleet` with type `instant`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreateFleet {
    /// Launch templates with their overrides.
    pub configs: Vec<FleetConfig>,
    /// Target capacity, all kinds together, in instances or weighted units.
    pub total_target_capacity: u32,
    /// Of which on-demand, at least.
    pub on_demand_target_capacity: u32,
    /// Of which spot, at least.
    pub spot_target_capacity: u32,
    /// What the rest is.
    pub default_target_capacity_type: Option<CapacityKind>,
    /// On-demand options.
    pub on_demand: FleetOptions,
    /// Spot options.
    pub spot: FleetOptions,
    /// Tags; resource types `instance` and `fleet`.
    pub tag_specifications: Vec<TagSpecification>,
    /// Client token, at most 64 ASCII characters.
    pub client_token: Option<String>,
    /// Ask only whether it would be done.
    pub dry_run: bool,
}

/// One launch template of a fleet and the places it may be launched in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetConfig {
    /// The template; AWS wants the version stated here.
    pub launch_template: LaunchTemplateSpecification,
    /// Overrides; none means the template alone.
    pub overrides: Vec<FleetOverride>,
}

/// One candidate of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetOverride {
    /// Instance type; none is the template's.
    pub instance_type: Option<String>,
    /// Subnet.
    pub subnet_id: Option<String>,
    /// Zone.
    pub availability_zone: Option<String>,
    /// Highest spot price in dollars an hour.
    pub max_price: Option<String>,
    /// AMI id.
    pub image_id: Option<String>,
    /// What one instance counts for, as text (AWS: a double). None is 1.
    pub weighted_capacity: Option<String>,
    /// Lower is tried first, as text (AWS: a double). None is last.
    pub priority: Option<String>,
}

/// How a fleet chooses among its candidates for one capacity kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FleetOptions {
    /// Allocation strategy; none is `lowest-price`, AWS's default.
    pub allocation_strategy: Option<AllocationStrategy>,
    /// All instances of one type.
    pub single_instance_type: bool,
    /// All instances in one zone.
    pub single_availability_zone: bool,
    /// Launch nothing at all if fewer than this can be had. At most 1000, and only with one of the two above.
    pub min_target_capacity: Option<u32>,
    /// The most that all instances together may cost, in dollars an hour, as text. What would exceed it is not
    /// launched.
    pub max_total_price: Option<String>,
    /// On-demand only: unused capacity reservations first. The model's account has none, so it is all the same.
    pub capacity_reservations_first: bool,
    /// Spot only: what an interruption does.
    pub interruption_behavior: Option<String>,
}

/// How a fleet chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocationStrategy {
    /// The cheapest pool, then the next.
    LowestPrice,
    /// In the order of `Priority` (on-demand only).
    Prioritized,
    /// Spread evenly (spot only).
    Diversified,
    /// The pool with the most free capacity (spot only).
    CapacityOptimized,
    /// Pools that have enough, in the order of `Priority` (spot only).
    CapacityOptimizedPrioritized,
    /// Pools that have enough, cheapest first (spot only).
    PriceCapacityOptimized,
}
