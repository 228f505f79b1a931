//! The rights that a launch needs: on everything it makes and everything it uses, to tag, and to pass a role.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-fleet-prerequisites.html>
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html>

use spillway_world::ec2::{
    CapacityKind, CreateFleet, Ec2, FleetOverride, LaunchTemplateData, LaunchTemplateSpecification,
    RunInstances, SpotOptions, TagSpecification,
};

use super::{Needs, request_tags};
use crate::authorize::ask::{Ask, arn};
use crate::authorize::context::Context;
use crate::emulator::REGION;

/// What a launch makes.
const MADE: [&str; 3] = ["instance", "volume", "network-interface"];

/// A launch template and what the call says beside it.
struct Launch {
    /// The template's ARN and data; none for a launch without template.
    template: Option<(String, LaunchTemplateData)>,
    direct: LaunchTemplateData,
    subnet_id: Option<String>,
}

pub(super) fn run_instances(ec2: &Ec2, run: &RunInstances) -> Needs {
    let launch = Launch {
        template: run.launch_template.as_ref().and_then(|by| named(ec2, by)),
        direct: run.direct.clone(),
        subnet_id: run.subnet_id.clone(),
    };
    launch.needs()
}

/// A fleet needs the right to itself and to all it uses, and what each of its launches needs.
pub(super) fn create_fleet(ec2: &Ec2, fleet: &CreateFleet) -> Needs {
    let own = tags_for(&fleet.tag_specifications, "fleet");
    let mut needs = Needs::default();
    needs.add(Ask::new("ec2:CreateFleet", arn("ec2", "fleet/*")).with(own.clone()));
    tag("CreateFleet", "fleet", &own, &mut needs);
    let instances = tags_for(&fleet.tag_specifications, "instance");
    tag("CreateFleet", "instance", &instances, &mut needs);
    let anywhere = [FleetOverride::default()];
    for config in &fleet.configs {
        let overrides = match config.overrides.as_slice() {
            [] => &anywhere[..],
            some => some,
        };
        for over in overrides {
            let launch = Launch {
                template: named(ec2, &config.launch_template),
                direct: direct(fleet, over),
                subnet_id: over.subnet_id.clone(),
            };
            let launch = launch.needs();
            for ask in &launch.asks {
                // A spot request is RunInstances' own.
                if ask.action == "ec2:RunInstances"
                    && !ask.resource.contains(":spot-instances-request/")
                {
                    needs.add(Ask {
                        action: "ec2:CreateFleet".to_owned(),
                        ..ask.clone()
                    });
                }
            }
            launch.asks.into_iter().for_each(|ask| needs.add(ask));
            needs.profiles.extend(launch.profiles);
        }
    }
    needs
}

/// What a fleet says to `RunInstances` for one of its overrides.
fn direct(fleet: &CreateFleet, over: &FleetOverride) -> LaunchTemplateData {
    let is_spot = fleet.spot_target_capacity > 0
        || fleet.default_target_capacity_type == Some(CapacityKind::Spot);
    LaunchTemplateData {
        image_id: over.image_id.clone(),
        instance_type: over.instance_type.clone(),
        spot: is_spot.then(SpotOptions::default),
        tag_specifications: fleet
            .tag_specifications
            .iter()
            .filter(|specification| specification.resource_type != "fleet")
            .cloned()
            .collect(),
        ..LaunchTemplateData::default()
    }
}

/// The template that a launch names. One that EC2 does not know EC2 refuses by itself; until then it is a
/// template like any other that is not ours.
fn named(ec2: &Ec2, by: &LaunchTemplateSpecification) -> Option<(String, LaunchTemplateData)> {
    let Some(template) = ec2.launch_template(by) else {
        let id = by.id.as_ref().or(by.name.as_ref())?;
        return Some((template_arn(id), LaunchTemplateData::default()));
    };
    let number = match by.version.as_deref().unwrap_or("$Default") {
        "$Latest" => template.latest_version(),
        "$Default" | "" => template.default_version,
        number => number.parse().unwrap_or_default(),
    };
    let data = template.versions.get(&number).cloned();
    Some((template_arn(&template.id), data.unwrap_or_default()))
}

fn template_arn(id: &str) -> String {
    arn("ec2", &format!("launch-template/{id}"))
}

impl Launch {
    fn needs(&self) -> Needs {
        let all = match &self.template {
            Some((_, template)) => template.overlaid(&self.direct),
            None => self.direct.clone(),
        };
        let mut needs = Needs::default();
        if let Some((template, _)) = &self.template {
            self.run(template.clone(), true, &mut needs);
        }
        self.makes(&all, &mut needs);
        self.uses(&all, &mut needs);
        for kind in MADE.into_iter().chain(["spot-instances-request"]) {
            let tags = tags_for(&all.tag_specifications, kind);
            tag("RunInstances", kind, &tags, &mut needs);
        }
        needs.profiles.extend(all.instance_profile);
        needs
    }

    /// What comes into being: it bears the tags that the call or the template gives it.
    fn makes(&self, all: &LaunchTemplateData, needs: &mut Needs) {
        for kind in MADE {
            let mut context = self.template_keys(self.template.is_some());
            if kind == "instance"
                && let Some(instance_type) = &all.instance_type
            {
                context.set("ec2:InstanceType", instance_type);
            }
            let tags = tags_for(&all.tag_specifications, kind);
            let resource = arn("ec2", &format!("{kind}/*"));
            needs.add(Ask::new("ec2:RunInstances", resource).with(context.and(&tags)));
        }
        if all.spot.is_some() {
            // The one resource of a launch without the template's keys.
            let tags = tags_for(&all.tag_specifications, "spot-instances-request");
            let resource = arn("ec2", "spot-instances-request/*");
            needs.add(Ask::new("ec2:RunInstances", resource).with(tags));
        }
    }

    /// What there is already: the template's own, unless the call says another.
    fn uses(&self, all: &LaunchTemplateData, needs: &mut Needs) {
        let direct = &self.direct;
        let mut own = |resource: String, is_said: bool| {
            self.run(resource, !is_said, needs);
        };
        if let Some(image) = &all.image_id {
            own(unowned("image", image), direct.image_id.is_some());
        }
        let groups_are_said =
            !direct.security_group_ids.is_empty() || !direct.network_interfaces.is_empty();
        for group in all.effective_security_groups() {
            own(
                arn("ec2", &format!("security-group/{group}")),
                groups_are_said,
            );
        }
        let interfaces = all.network_interfaces.iter();
        let subnets = interfaces.filter_map(|interface| interface.subnet_id.as_ref());
        for subnet in subnets.chain(&self.subnet_id) {
            let is_said = self.subnet_id.is_some() || !direct.network_interfaces.is_empty();
            own(arn("ec2", &format!("subnet/{subnet}")), is_said);
        }
        if let Some(key) = &all.key_name {
            own(
                arn("ec2", &format!("key-pair/{key}")),
                direct.key_name.is_some(),
            );
        }
        if let Some(group) = &all.placement_group {
            let is_said = direct.placement_group.is_some();
            own(arn("ec2", &format!("placement-group/{group}")), is_said);
        }
        for device in &all.block_device_mappings {
            if let Some(snapshot) = &device.snapshot_id {
                let is_said = direct.block_device_mappings.contains(device);
                own(unowned("snapshot", snapshot), is_said);
            }
        }
    }

    fn run(&self, resource: String, is_template_s: bool, needs: &mut Needs) {
        let context = self.template_keys(is_template_s && self.template.is_some());
        needs.add(Ask::new("ec2:RunInstances", resource).with(context));
    }

    fn template_keys(&self, is_template_s: bool) -> Context {
        let context =
            Context::default().with("ec2:IsLaunchTemplateResource", is_template_s.to_string());
        match &self.template {
            Some((template, _)) => context.with("ec2:LaunchTemplate", template),
            None => context,
        }
    }
}

/// What bears tags from the start needs the right to tag it, at this creation.
fn tag(creation: &str, kind: &str, tags: &Context, needs: &mut Needs) {
    if tags.get("aws:TagKeys").is_some() {
        let context = tags.clone().with("ec2:CreateAction", creation);
        needs.add(Ask::new("ec2:CreateTags", arn("ec2", &format!("{kind}/*"))).with(context));
    }
}

fn tags_for(specifications: &[TagSpecification], kind: &str) -> Context {
    let tags = specifications
        .iter()
        .filter(|specification| specification.resource_type == kind)
        .flat_map(|specification| specification.tags.clone())
        .collect();
    request_tags(&tags)
}

/// Images and snapshots have no account in their ARNs.
fn unowned(kind: &str, id: &str) -> String {
    format!("arn:aws:ec2:{REGION}::{kind}/{id}")
}

impl Needs {
    /// A fleet's overrides ask for much the same.
    fn add(&mut self, ask: Ask) {
        if !self.asks.contains(&ask) {
            self.asks.push(ask);
        }
    }
}
