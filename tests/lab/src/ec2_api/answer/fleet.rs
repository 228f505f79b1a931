//! The answer of `CreateFleet`.

use spillway_world::ec2::{Fleet, FleetCandidate};

use super::super::writer::Writer;

/// The body of `CreateFleet`'s answer.
pub fn fleet(w: &mut Writer, fleet: &Fleet) {
    w.leaf("fleetId", &fleet.fleet_id);
    w.items("errorSet", &fleet.errors, |w, error| {
        candidate(w, &error.candidate);
        w.leaf("lifecycle", error.kind.as_str());
        w.leaf("errorCode", &error.code);
        w.leaf("errorMessage", &error.message);
    });
    w.items("fleetInstanceSet", &fleet.instances, |w, launched| {
        candidate(w, &launched.candidate);
        w.leaf("lifecycle", launched.kind.as_str());
        w.texts("instanceIds", &launched.instance_ids);
        w.leaf("instanceType", &launched.instance_type);
        w.leaf("availabilityZone", &launched.availability_zone);
        w.leaf("availabilityZoneId", &launched.availability_zone_id);
        w.leaf("subnetId", &launched.subnet_id);
    });
}

fn candidate(w: &mut Writer, candidate: &FleetCandidate) {
    w.element("launchTemplateAndOverrides", |w| {
        w.element("launchTemplateSpecification", |w| {
            w.leaf("launchTemplateId", &candidate.template_id);
            w.leaf("version", candidate.template_version);
        });
        let over = &candidate.over;
        w.element("overrides", |w| {
            w.optional("instanceType", over.instance_type.as_ref());
            w.optional("maxPrice", over.max_price.as_ref());
            w.optional("subnetId", over.subnet_id.as_ref());
            w.optional("availabilityZone", over.availability_zone.as_ref());
            w.optional("weightedCapacity", over.weighted_capacity.as_ref());
            w.optional("priority", over.priority.as_ref());
            w.optional("imageId", over.image_id.as_ref());
        });
    });
}
