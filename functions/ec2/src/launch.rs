//! Launching: RunInstances for one type in one subnet, an instant fleet where EC2 may choose.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    CapacityReservationOptionsRequest, DefaultTargetCapacityType,
    FleetCapacityReservationUsageStrategy, FleetLaunchTemplateConfigRequest,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceInterruptionBehavior,
    InstanceMarketOptionsRequest, InstanceType, LaunchTemplateSpecification, MarketType,
    OnDemandOptionsRequest, ResourceType, SpotAllocationStrategy, SpotInstanceInterruptionBehavior,
    SpotInstanceType, SpotMarketOptions, SpotOptionsRequest, TagSpecification,
    TargetCapacitySpecificationRequest,
};
use spillway_control::fault::Fault;
use spillway_control::record::LaunchAnswer;
use spillway_core::config::CapacityKind;
use spillway_core::name::InstanceId;
use spillway_core::plan::{Candidate, LaunchCall};
use tracing::warn;

use crate::{Ec2Client, TRY_TIMEOUT, classify, to_tags};

const RUN_INSTANCES: &str = "RunInstances";
const CREATE_FLEET: &str = "CreateFleet";

/// A call must end while its worker still has the time to write down what came of it.
fn within(limit: Duration) -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(TRY_TIMEOUT.min(limit))
        .operation_timeout(limit);
    aws_sdk_ec2::Config::builder().timeout_config(timeouts.build())
}

impl Ec2Client {
    /// One type in one subnet. Fewer instances than asked for are taken too.
    pub(crate) async fn run_instances(
        &self,
        call: &LaunchCall,
        only: &Candidate,
        limit: Duration,
    ) -> Result<LaunchAnswer, Fault> {
        let request = self.run_instances_request(call, only).customize();
        let answer = request.config_override(within(limit)).send().await;
        let answer = answer.map_err(|error| classify::fault(RUN_INSTANCES, &error))?;
        let ids = answer
            .instances
            .unwrap_or_default()
            .into_iter()
            .filter_map(|instance| instance.instance_id);
        Ok(LaunchAnswer {
            instances: instance_ids(ids),
            faults: Vec::new(),
        })
    }

    fn run_instances_request(
        &self,
        call: &LaunchCall,
        only: &Candidate,
    ) -> RunInstancesFluentBuilder {
        let recipe = &call.recipe;
        let template = LaunchTemplateSpecification::builder()
            .launch_template_id(&recipe.launch_template_id)
            .version(&recipe.launch_template_version)
            .build();
        // The subnet names the zone; EC2 takes both only where they agree.
        let request = self
            .client
            .run_instances()
            .client_token(&call.client_token)
            .min_count(1)
            .max_count(to_i32(call.count))
            .launch_template(template)
            .instance_type(InstanceType::from(only.instance_type.as_str()))
            .subnet_id(&only.subnet_id)
            .set_tag_specifications(Some(vec![
                tagged(ResourceType::Instance, &call.tags),
                tagged(ResourceType::Volume, &call.tags),
                tagged(ResourceType::NetworkInterface, &call.tags),
            ]));
        match recipe.capacity {
            CapacityKind::Spot => request.instance_market_options(one_time_spot()),
            // What is reserved is named by the launch template.
            CapacityKind::OnDemand | CapacityKind::Reserved => request,
        }
    }

    /// All candidates in one call, which EC2 answers at once and does not follow up.
    pub(crate) async fn create_fleet(
        &self,
        call: &LaunchCall,
        candidates: &[Candidate],
        limit: Duration,
    ) -> Result<LaunchAnswer, Fault> {
        let request = self.create_fleet_request(call, candidates).customize();
        let answer = request.config_override(within(limit)).send().await;
        let answer = answer.map_err(|error| classify::fault(CREATE_FLEET, &error))?;
        let groups = answer.instances.unwrap_or_default().into_iter();
        let instances =
            instance_ids(groups.flat_map(|group| group.instance_ids.unwrap_or_default()));
        // EC2 repeats an error for each candidate that it concerns.
        let mut faults: BTreeMap<String, Fault> = BTreeMap::new();
        for error in answer.errors.unwrap_or_default() {
            let code = error.error_code.unwrap_or_else(|| "Unknown".to_owned());
            let message = error.error_message.unwrap_or_default();
            faults
                .entry(code)
                .or_insert_with_key(|code| classify::fault_in_answer(CREATE_FLEET, code, &message));
        }
        Ok(LaunchAnswer {
            instances,
            faults: faults.into_values().collect(),
        })
    }

    fn create_fleet_request(
        &self,
        call: &LaunchCall,
        candidates: &[Candidate],
    ) -> CreateFleetFluentBuilder {
        let recipe = &call.recipe;
        let template = FleetLaunchTemplateSpecificationRequest::builder()
            .launch_template_id(&recipe.launch_template_id)
            .version(&recipe.launch_template_version)
            .build();
        let in_order = recipe.capacity != CapacityKind::Spot;
        let overrides = (0_u16..)
            .zip(candidates)
            .map(|(rank, candidate)| overridden(candidate, in_order.then_some(rank)));
        let config = FleetLaunchTemplateConfigRequest::builder()
            .launch_template_specification(template)
            .set_overrides(Some(overrides.collect()))
            .build();
        let kind = match recipe.capacity {
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
            .launch_template_configs(config)
            .target_capacity_specification(target)
            // Not the spot requests: an instant fleet refuses their tags.
            .set_tag_specifications(Some(vec![
                tagged(ResourceType::Instance, &call.tags),
                tagged(ResourceType::Fleet, &call.tags),
            ]));
        match recipe.capacity {
            CapacityKind::Spot => request.spot_options(
                SpotOptionsRequest::builder()
                    .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                    .instance_interruption_behavior(SpotInstanceInterruptionBehavior::Terminate)
                    .build(),
            ),
            CapacityKind::OnDemand => request.on_demand_options(prioritized().build()),
            CapacityKind::Reserved => {
                let reserved = CapacityReservationOptionsRequest::builder()
                    .usage_strategy(
                        FleetCapacityReservationUsageStrategy::UseCapacityReservationsFirst,
                    )
                    .build();
                request
                    .on_demand_options(prioritized().capacity_reservation_options(reserved).build())
            }
        }
    }
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

fn prioritized() -> aws_sdk_ec2::types::builders::OnDemandOptionsRequestBuilder {
    OnDemandOptionsRequest::builder()
        .allocation_strategy(FleetOnDemandAllocationStrategy::Prioritized)
}

fn one_time_spot() -> InstanceMarketOptionsRequest {
    let spot = SpotMarketOptions::builder()
        .spot_instance_type(SpotInstanceType::OneTime)
        .instance_interruption_behavior(InstanceInterruptionBehavior::Terminate)
        .build();
    InstanceMarketOptionsRequest::builder()
        .market_type(MarketType::Spot)
        .spot_options(spot)
        .build()
}

fn tagged(resource: ResourceType, tags: &BTreeMap<String, String>) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(to_tags(tags)))
        .build()
}

fn instance_ids(ids: impl Iterator<Item = String>) -> Vec<InstanceId> {
    ids.filter_map(|id| {
        InstanceId::new(id)
            .inspect_err(|error| warn!(%error, "EC2 answered no instance id"))
            .ok()
    })
    .collect()
}

fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
