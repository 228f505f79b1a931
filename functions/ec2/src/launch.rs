//! Launching: RunInstances for one type in one subnet; what it shares with `fleet`, which launches where EC2
//! may choose.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::{
    InstanceInterruptionBehavior, InstanceMarketOptionsRequest, InstanceType,
    LaunchTemplateSpecification, MarketType, ResourceType, SpotInstanceType, SpotMarketOptions,
    TagSpecification,
};
use spillway_control::fault::Fault;
use spillway_control::record::LaunchAnswer;
use spillway_core::config::CapacityKind;
use spillway_core::name::InstanceId;
use spillway_core::plan::{Candidate, LaunchCall};
use tracing::warn;

use crate::{Ec2Client, TRY_TIMEOUT, classify, to_tags};

const OPERATION: &str = "RunInstances";

impl Ec2Client {
    /// One type in one subnet: as many as there are up to `count`, or nothing if they are fewer than `at_least`.
    pub(crate) async fn run_instances(
        &self,
        call: &LaunchCall,
        only: &Candidate,
        limit: Duration,
    ) -> Result<LaunchAnswer, Fault> {
        let request = self.run_instances_request(call, only).customize();
        let answer = request.config_override(within(limit)).send().await;
        let answer = answer.map_err(|error| classify::fault(OPERATION, &error))?;
        let ids = answer
            .instances
            .unwrap_or_default()
            .into_iter()
            .filter_map(|instance| instance.instance_id);
        let instances = instance_ids(ids);
        let launched_in = instances.first().map(|_| only.clone());
        Ok(LaunchAnswer {
            instances,
            launched_in: launched_in.into_iter().collect(),
            shortages: Vec::new(),
        })
    }

    /// What is reserved is named by the launch template, and nothing here overrides it: a capacity reservation by
    /// its `CapacityReservationSpecification`; a capacity block (or an interruptible reservation) by that and its
    /// `InstanceMarketOptions` with `MarketType` `capacity-block`
    /// (`interruptible-capacity-reservation`). A block that has not begun is short of capacity.
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
            .min_count(to_i32(call.at_least))
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
            CapacityKind::OnDemand | CapacityKind::Reserved => request,
        }
    }
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

/// A call must end while its worker still has the time to write down what came of it.
pub(crate) fn within(limit: Duration) -> aws_sdk_ec2::config::Builder {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(TRY_TIMEOUT.min(limit))
        .operation_timeout(limit);
    aws_sdk_ec2::Config::builder().timeout_config(timeouts.build())
}

pub(crate) fn tagged(resource: ResourceType, tags: &BTreeMap<String, String>) -> TagSpecification {
    TagSpecification::builder()
        .resource_type(resource)
        .set_tags(Some(to_tags(tags)))
        .build()
}

pub(crate) fn instance_ids(ids: impl Iterator<Item = String>) -> Vec<InstanceId> {
    ids.filter_map(|id| {
        InstanceId::new(id)
            .inspect_err(|error| warn!(%error, "EC2 answered no instance id"))
            .ok()
    })
    .collect()
}

pub(crate) fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
