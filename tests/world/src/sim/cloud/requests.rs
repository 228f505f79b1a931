//! From a launch as the use-cases state it to EC2's requests.

use spillway_core::config::CapacityKind;
use spillway_core::plan::{Candidate, LaunchCall};

use crate::ec2;

pub(super) fn kind(capacity: CapacityKind) -> ec2::CapacityKind {
    match capacity {
        CapacityKind::Spot => ec2::CapacityKind::Spot,
        CapacityKind::OnDemand | CapacityKind::Reserved => ec2::CapacityKind::OnDemand,
    }
}

fn template(call: &LaunchCall) -> ec2::LaunchTemplateSpecification {
    ec2::LaunchTemplateSpecification {
        version: Some(call.recipe.launch_template_version.clone()),
        ..ec2::LaunchTemplateSpecification::by_id(&call.recipe.launch_template_id)
    }
}

fn tagged(call: &LaunchCall) -> Vec<ec2::TagSpecification> {
    vec![ec2::TagSpecification {
        resource_type: "instance".to_owned(),
        tags: call.tags.clone(),
    }]
}

pub(super) fn run_instances(call: &LaunchCall, only: &Candidate) -> ec2::RunInstances {
    let spot = (call.recipe.capacity == CapacityKind::Spot).then(ec2::SpotOptions::default);
    ec2::RunInstances {
        launch_template: Some(template(call)),
        direct: ec2::LaunchTemplateData {
            instance_type: Some(only.instance_type.clone()),
            spot,
            tag_specifications: tagged(call),
            ..ec2::LaunchTemplateData::default()
        },
        subnet_id: Some(only.subnet_id.clone()),
        min_count: call.at_least,
        max_count: call.count,
        client_token: Some(call.client_token.clone()),
        dry_run: false,
    }
}

pub(super) fn create_fleet(call: &LaunchCall) -> ec2::CreateFleet {
    let candidates = &call.recipe.candidates;
    let place = |(rank, candidate): (usize, &Candidate)| ec2::FleetOverride {
        instance_type: Some(candidate.instance_type.clone()),
        subnet_id: Some(candidate.subnet_id.clone()),
        availability_zone: Some(candidate.zone.clone()),
        priority: Some(rank.to_string()),
        ..ec2::FleetOverride::default()
    };
    let spot = call.recipe.capacity == CapacityKind::Spot;
    let one_type = candidates
        .iter()
        .all(|candidate| candidate.instance_type == candidates[0].instance_type);
    let is_strict = call.at_least > 1;
    let options = ec2::FleetOptions {
        allocation_strategy: Some(if spot {
            ec2::AllocationStrategy::PriceCapacityOptimized
        } else {
            ec2::AllocationStrategy::Prioritized
        }),
        single_instance_type: is_strict && one_type,
        single_availability_zone: is_strict && !one_type,
        min_target_capacity: is_strict.then_some(call.at_least),
        ..ec2::FleetOptions::default()
    };
    let (on_demand, spot) = if spot {
        (ec2::FleetOptions::default(), options)
    } else {
        (options, ec2::FleetOptions::default())
    };
    ec2::CreateFleet {
        configs: vec![ec2::FleetConfig {
            launch_template: template(call),
            overrides: candidates.iter().enumerate().map(place).collect(),
        }],
        total_target_capacity: call.count,
        default_target_capacity_type: Some(kind(call.recipe.capacity)),
        on_demand,
        spot,
        tag_specifications: tagged(call),
        client_token: Some(call.client_token.clone()),
        ..ec2::CreateFleet::default()
    }
}
