//! The rights that EC2's calls need.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>

mod launch;

use std::collections::BTreeMap;

use spillway_world::ec2::{Ec2, InstanceProfile};

use super::ask::{Ask, arn};
use super::context::Context;
use crate::ec2_api::read::{Call, Request};

/// What an EC2 call needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Rights on EC2's resources.
    pub asks: Vec<Ask>,
    /// Instance profiles whose roles it passes to instances.
    pub profiles: Vec<InstanceProfile>,
}

/// What the call needs, as the model's instances and templates are now.
pub(super) fn needs(ec2: &Ec2, request: &Request) -> Needs {
    let action = format!("ec2:{}", request.action);
    let each = |ids: &[String], context: &Context| Needs {
        asks: ids
            .iter()
            .filter_map(|id| on_resource(ec2, &action, id, context))
            .collect(),
        profiles: Vec::new(),
    };
    match &request.call {
        Call::RunInstances(run) => launch::run_instances(ec2, run),
        Call::CreateFleet(fleet) => launch::create_fleet(ec2, fleet),
        Call::TerminateInstances(ids) => each(ids, &Context::default()),
        Call::CreateTags(ids, tags) => each(ids, &request_tags(tags)),
        Call::DeleteTags(ids, tags) => {
            let named = tags.iter().map(|(key, _)| key.clone());
            each(ids, &Context::default().with_all("aws:TagKeys", named))
        }
        Call::DescribeInstanceAttribute(id, _) | Call::GetConsoleOutput(id) => {
            each(std::slice::from_ref(id), &Context::default())
        }
        Call::DescribeTags(_)
        | Call::DescribeInstances(_)
        | Call::DescribeInstanceStatus(_)
        | Call::DescribeSubnets(_)
        | Call::DescribeAvailabilityZones(_)
        | Call::DescribeInstanceTypes(_)
        | Call::DescribeSpotPriceHistory(_)
        | Call::DescribeLaunchTemplates(_)
        | Call::DescribeLaunchTemplateVersions(_) => Needs {
            asks: vec![Ask::new(&action, "*")],
            profiles: Vec::new(),
        },
    }
}

/// The right on one resource that there is. For one that there is not EC2 refuses the whole call by itself,
/// whoever calls, and has no tags to decide by.
fn on_resource(ec2: &Ec2, action: &str, id: &str, context: &Context) -> Option<Ask> {
    let kind = match id.split_once('-')?.0 {
        "i" => "instance",
        "vol" => "volume",
        "eni" => "network-interface",
        "fleet" => "fleet",
        "sir" => "spot-instances-request",
        "lt" => "launch-template",
        "subnet" => "subnet",
        _ => return Some(Ask::new(action, arn("ec2", &format!("unknown/{id}")))),
    };
    let mut context = context.clone();
    if kind == "instance" {
        let instance = ec2.instance(id)?;
        context.set("ec2:InstanceType", &instance.instance_type);
        for (key, value) in &instance.tags {
            context.set(&format!("aws:ResourceTag/{key}"), value);
            context.set(&format!("ec2:ResourceTag/{key}"), value);
        }
    }
    Some(Ask::new(action, arn("ec2", &format!("{kind}/{id}"))).with(context))
}

/// The keys of the tags that a call gives to a resource.
fn request_tags(tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::default().with_all("aws:TagKeys", tags.keys().cloned());
    for (key, value) in tags {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    context
}
