//! What is refused of a fleet request whatever the model holds.

use super::super::error::{Ec2Error, Ec2Result};
use super::super::request::{AllocationStrategy, CapacityKind, CreateFleet, FleetOptions};
use super::super::tags::check_tags;

/// The most capacity of one fleet (EC2 quotas).
const TARGET_CAPACITY_MAX: u32 = 10_000;
/// The most launch template configs of one fleet (API reference).
const CONFIGS_MAX: usize = 50;
/// The highest `MinTargetCapacity` (API reference).
const MIN_TARGET_CAPACITY_MAX: u32 = 1000;

/// Refuses what is wrong with a fleet request whatever the model holds.
pub(super) fn check(request: &CreateFleet) -> Ec2Result<()> {
    if request.configs.is_empty() {
        return Err(Ec2Error::missing("LaunchTemplateConfigs"));
    }
    if request.configs.len() > CONFIGS_MAX {
        return Err(Ec2Error::invalid_value(format!(
            "At most {CONFIGS_MAX} LaunchTemplateConfigs are allowed."
        )));
    }
    let total = request.total_target_capacity;
    let split = request
        .on_demand_target_capacity
        .saturating_add(request.spot_target_capacity);
    if total == 0 || total > TARGET_CAPACITY_MAX || split > total {
        return Err(Ec2Error::client(
            "InvalidTargetCapacitySpecification",
            format!(
                "TotalTargetCapacity must be between 1 and {TARGET_CAPACITY_MAX} and cover the on-demand and spot target capacities."
            ),
        ));
    }
    for specification in &request.tag_specifications {
        if !matches!(specification.resource_type.as_str(), "instance" | "fleet") {
            return Err(Ec2Error::invalid_value(format!(
                "'{}' is not a valid taggable resource type for this operation.",
                specification.resource_type
            )));
        }
        check_tags(&specification.tags)?;
    }
    check_options(&request.on_demand, CapacityKind::OnDemand)?;
    check_options(&request.spot, CapacityKind::Spot)
}

fn check_options(options: &FleetOptions, kind: CapacityKind) -> Ec2Result<()> {
    use AllocationStrategy::{LowestPrice, Prioritized};
    let single = options.single_instance_type || options.single_availability_zone;
    match options.min_target_capacity {
        Some(min) if min > MIN_TARGET_CAPACITY_MAX => {
            return Err(Ec2Error::invalid_value(format!(
                "MinTargetCapacity must not exceed {MIN_TARGET_CAPACITY_MAX}."
            )));
        }
        Some(_) if !single => {
            return Err(Ec2Error::invalid_combination(
                "MinTargetCapacity requires SingleAvailabilityZone or SingleInstanceType.",
            ));
        }
        _ => {}
    }
    max_total_microdollars(options)?;
    if options.capacity_reservations_first && kind == CapacityKind::Spot {
        return Err(Ec2Error::invalid_combination(
            "CapacityReservationOptions are valid for on-demand capacity only.",
        ));
    }
    let fits = match options.allocation_strategy {
        None | Some(LowestPrice) => true,
        Some(Prioritized) => kind == CapacityKind::OnDemand,
        Some(_) => kind == CapacityKind::Spot,
    };
    if fits {
        Ok(())
    } else {
        Err(Ec2Error::invalid_combination(format!(
            "The allocation strategy is not valid for {} capacity.",
            kind.as_str()
        )))
    }
}

/// `MaxTotalPrice` in millionths of a dollar an hour; without it anything may be spent.
pub(super) fn max_total_microdollars(options: &FleetOptions) -> Ec2Result<u64> {
    let Some(text) = options.max_total_price.as_deref() else {
        return Ok(u64::MAX);
    };
    let price = microdollars(text).filter(|price| *price > 0);
    price.ok_or_else(|| {
        Ec2Error::invalid_value(format!("Invalid value '{text}' for MaxTotalPrice."))
    })
}

/// A price as AWS writes it: digits, and at most six of them behind a point.
fn microdollars(text: &str) -> Option<u64> {
    let (dollars, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(dollars) || !is_number(part) || part.len() > 6 {
        return None;
    }
    let part: u64 = format!("{part:0<6}").parse().ok()?;
    let dollars: u64 = dollars.parse().ok()?;
    dollars.checked_mul(1_000_000)?.checked_add(part)
}
