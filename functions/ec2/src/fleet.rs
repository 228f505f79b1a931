//! Launching where EC2 may choose: an instant fleet, which EC2 answers at once and does not follow up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::types::{
    CapacityReservationOptionsRequest, DefaultTargetCapacityType,
    FleetCapacityReservationUsageStrategy, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceType, LaunchTemplateAndOverridesResponse,
    OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy, SpotInstanceInterruptionBehavior,
    SpotOptionsRequest, TargetCapacitySpecificationRequest,
};
use spillway_control::fault::Fault;
use spillway_control::record::{LaunchAnswer, Shortage};
use spillway_core::config::{CapacityKind, OnDemandAllocation};
use spillway_core::plan::{Candidate, LaunchCall, MAX_CHUNK_NODES, Recipe};

use crate::launch::{instance_ids, tagged, to_i32, within};
use crate::{Ec2Client, classify};

const OPERATION: &str = "CreateFleet";

impl Ec2Client {
    /// All candidates in one call.
    pub(crate) async fn create_fleet(
        &self,
        call: &LaunchCall,
        limit: Duration,
    ) -> Result<LaunchAnswer, Fault> {
        let request = self.create_fleet_request(call).customize();
        let answer = request.config_override(within(limit)).send().await;
        let answer = answer.map_err(|error| classify::fault(OPERATION, &error))?;
        Ok(read(answer, &call.recipe.candidates))
    }

    fn create_fleet_request(&self, call: &LaunchCall) -> CreateFleetFluentBuilder {
        let kind = match call.recipe.capacity {
            CapacityKind::Spot => DefaultTargetCapacityType::Spot,
            CapacityKind::OnDemand | CapacityKind::Reserved => DefaultTargetCapacityType::OnDemand,
        };
        let target = TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(to_i32(call.count))
            .default_target_capacity_type(kind)
            .build();
        let request = self
            .client
            .create_fleet()
            .client_token(&call.client_token)
            .r#type(FleetType::Instant)
            .launch_template_configs(config(&call.recipe))
            .target_capacity_specification(target)
            // Not the spot requests: an instant fleet refuses their tags.
            .set_tag_specifications(Some(vec![
                tagged(ResourceType::Instance, &call.tags),
                tagged(ResourceType::Fleet, &call.tags),
            ]));
        match call.recipe.capacity {
            CapacityKind::Spot => request.spot_options(spot(call)),
            CapacityKind::OnDemand | CapacityKind::Reserved => {
                request.on_demand_options(on_demand(call))
            }
        }
    }
}

fn config(recipe: &Recipe) -> FleetLaunchTemplateConfigRequest {
    let template = FleetLaunchTemplateSpecificationRequest::builder()
        .launch_template_id(&recipe.launch_template_id)
        .version(&recipe.launch_template_version)
        .build();
    let in_order = recipe.capacity != CapacityKind::Spot
        && recipe.on_demand_allocation == OnDemandAllocation::Prioritized;
    let overrides = (0_u16..)
        .zip(&recipe.candidates)
        .map(|(rank, candidate)| overridden(candidate, in_order.then_some(rank)));
    FleetLaunchTemplateConfigRequest::builder()
        .launch_template_specification(template)
        .set_overrides(Some(overrides.collect()))
        .build()
}

/// The zone beside the subnet lets EC2's errors name it (CreateFleet takes both where they agree).
fn overridden(candidate: &Candidate, rank: Option<u16>) -> FleetLaunchTemplateOverridesRequest {
    FleetLaunchTemplateOverridesRequest::builder()
        .instance_type(InstanceType::from(candidate.instance_type.as_str()))
        .subnet_id(&candidate.subnet_id)
        .availability_zone(&candidate.zone)
        .set_priority(rank.map(f64::from))
        .build()
}

fn spot(call: &LaunchCall) -> SpotOptionsRequest {
    let minimum = Minimum::of(call);
    SpotOptionsRequest::builder()
        .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
        .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
        .set_min_target_capacity(minimum.instances)
        .set_single_instance_type(minimum.one_type)
        .set_single_availability_zone(minimum.one_zone)
        .build()
}

/// On-demand, and reservations before it: those that are open and match, or the group of reservations that the
/// launch template targets. What is missing of them EC2 launches as plain on-demand, unless the template's
/// preference is `capacity-reservations-only`.
///
/// Not supported: a fleet over several capacity blocks or interruptible reservations. EC2 wants another
/// `DefaultTargetCapacityType` for those (`capacity-block`, `reserved-capacity`), and a recipe does not say
/// what its template reserves. A block is of one type in one zone: as the only candidate it needs no fleet.
fn on_demand(call: &LaunchCall) -> OnDemandOptionsRequest {
    let recipe = &call.recipe;
    let strategy = match recipe.on_demand_allocation {
        OnDemandAllocation::Prioritized => FleetOnDemandAllocationStrategy::Prioritized,
        OnDemandAllocation::LowestPrice => FleetOnDemandAllocationStrategy::LowestPrice,
    };
    let reserved = (recipe.capacity == CapacityKind::Reserved).then(|| {
        CapacityReservationOptionsRequest::builder()
            .usage_strategy(FleetCapacityReservationUsageStrategy::UseCapacityReservationsFirst)
            .build()
    });
    let minimum = Minimum::of(call);
    OnDemandOptionsRequest::builder()
        .allocation_strategy(strategy)
        .set_capacity_reservation_options(reserved)
        .set_max_total_price(max_total_price(call))
        .set_min_target_capacity(minimum.instances)
        .set_single_instance_type(minimum.one_type)
        .set_single_availability_zone(minimum.one_zone)
        .build()
}

/// Dollars an hour for the whole fleet, the only price that EC2 watches on demand. An instance dearer than its
/// share is launched where cheaper ones leave it the room, the sum is kept.
fn max_total_price(call: &LaunchCall) -> Option<String> {
    let cents = call.recipe.max_on_demand_cents_per_hour?;
    let total_cents = u64::from(cents) * u64::from(call.count);
    let price = format!("{}.{:02}", total_cents / 100, total_cents % 100);
    call.recipe.watches_price().then_some(price)
}

/// What EC2 is held to where fewer instances are worth nothing. All three are absent where any number will do.
#[derive(Default)]
struct Minimum {
    instances: Option<i32>,
    one_type: Option<bool>,
    one_zone: Option<bool>,
}

impl Minimum {
    /// EC2 takes a minimum with one type or one zone only (CreateFleet, `MinTargetCapacity`). A plan asks for
    /// none else; if one did, what came would be counted and given back.
    fn of(call: &LaunchCall) -> Self {
        let candidates = &call.recipe.candidates;
        let all_share = |of: fn(&Candidate) -> &String| {
            let values: BTreeSet<&String> = candidates.iter().map(of).collect();
            values.len() == 1
        };
        let one_type = all_share(|candidate| &candidate.instance_type);
        let one_zone = all_share(|candidate| &candidate.zone);
        let fits = usize::try_from(call.at_least).is_ok_and(|count| count <= MAX_CHUNK_NODES);
        if call.at_least <= 1 || !fits || !(one_type || one_zone) {
            return Self::default();
        }
        Self {
            instances: Some(to_i32(call.at_least)),
            one_type: one_type.then_some(true),
            one_zone: one_zone.then_some(true),
        }
    }
}

/// EC2 repeats an error for each candidate that it concerns, and may say it more than once of one.
fn read(answer: CreateFleetOutput, candidates: &[Candidate]) -> LaunchAnswer {
    let mut launched_in = BTreeSet::new();
    let mut ids = Vec::new();
    for group in answer.instances.unwrap_or_default() {
        ids.extend(group.instance_ids.unwrap_or_default());
        launched_in.extend(named(candidates, group.launch_template_and_overrides));
    }
    let mut shortages: BTreeMap<(String, Option<&Candidate>), Fault> = BTreeMap::new();
    for error in answer.errors.unwrap_or_default() {
        let code = error.error_code.unwrap_or_else(|| "Unknown".to_owned());
        let message = error.error_message.unwrap_or_default();
        let candidate = named(candidates, error.launch_template_and_overrides);
        shortages
            .entry((code, candidate))
            .or_insert_with_key(|(code, _)| classify::fault_in_answer(OPERATION, code, &message));
    }
    let shortage = |((_, candidate), fault): ((String, Option<&Candidate>), Fault)| Shortage {
        fault,
        candidate: candidate.cloned(),
    };
    LaunchAnswer {
        instances: instance_ids(ids.into_iter()),
        launched_in: launched_in.into_iter().cloned().collect(),
        shortages: shortages.into_iter().map(shortage).collect(),
    }
}

/// The candidate that EC2 names by the override it tried: by its type and its subnet, or its zone where EC2
/// gives no subnet. A fleet has one subnet a zone.
fn named(
    candidates: &[Candidate],
    tried: Option<LaunchTemplateAndOverridesResponse>,
) -> Option<&Candidate> {
    let tried = tried?.overrides?;
    let instance_type = tried.instance_type()?.as_str();
    let is_there = |candidate: &Candidate| match (tried.subnet_id(), tried.availability_zone()) {
        (Some(subnet_id), _) => candidate.subnet_id == subnet_id,
        (None, Some(zone)) => candidate.zone == zone,
        (None, None) => false,
    };
    candidates
        .iter()
        .find(|candidate| candidate.instance_type == instance_type && is_there(candidate))
}
