//! From a call to the model and from the model's answer to EC2's XML.

mod fleet;
mod instance;
mod surroundings;
mod template;

use spillway_world::ec2::{Ec2, Ec2Error, Ec2Result};

use super::read::{Call, Request};
use super::writer::{Writer, response};

/// Does a call and writes its answer.
pub fn answer(
    ec2: &mut Ec2,
    now_ms: u64,
    request: &Request,
    request_id: &str,
) -> Ec2Result<String> {
    let done =
        |body: Box<dyn FnOnce(&mut Writer) + '_>| response(&request.action, request_id, body);
    match &request.call {
        Call::RunInstances(run) => {
            let reservation = ec2.run_instances(now_ms, run)?;
            Ok(done(Box::new(|w| {
                instance::reservation(w, ec2, &reservation);
            })))
        }
        Call::CreateFleet(create) => {
            let answered = ec2.create_fleet(now_ms, create)?;
            Ok(done(Box::new(|w| fleet::fleet(w, &answered))))
        }
        Call::TerminateInstances(ids) => {
            let rows = ec2.terminate_instances(now_ms, ids, request.dry_run)?;
            Ok(done(Box::new(|w| instance::transitions(w, &rows))))
        }
        Call::CreateTags(ids, tags) => {
            ec2.create_tags(now_ms, ids, tags, request.dry_run)?;
            Ok(done(Box::new(|w| w.leaf("return", true))))
        }
        Call::DeleteTags(ids, tags) => {
            ec2.delete_tags(now_ms, ids, tags, request.dry_run)?;
            Ok(done(Box::new(|w| w.leaf("return", true))))
        }
        _ if request.dry_run => Err(Ec2Error::dry_run()),
        _ => Ok(done(described(ec2, now_ms, &request.call)?)),
    }
}

type Body<'a> = Box<dyn FnOnce(&mut Writer) + 'a>;

fn described<'a>(ec2: &'a mut Ec2, now_ms: u64, call: &'a Call) -> Ec2Result<Body<'a>> {
    Ok(match call {
        Call::DescribeTags(describe) => {
            let (rows, token) = ec2.describe_tags(now_ms, describe)?;
            Box::new(move |w| surroundings::tags(w, &rows, token))
        }
        Call::DescribeInstances(describe) => {
            let (rows, token) = ec2.describe_instances(now_ms, describe)?;
            Box::new(move |w| instance::reservations(w, ec2, &rows, token))
        }
        Call::DescribeInstanceStatus(describe) => {
            let (rows, token) = ec2.describe_instance_status(now_ms, describe)?;
            Box::new(move |w| instance::statuses(w, &rows, token))
        }
        Call::DescribeInstanceAttribute(id, attribute) => {
            let found = ec2.describe_instance_attribute(now_ms, id)?;
            Box::new(move |w| instance::attribute(w, &found, *attribute))
        }
        Call::GetConsoleOutput(id) => {
            let output = ec2.get_console_output(now_ms, id)?;
            Box::new(move |w| instance::console(w, &output))
        }
        Call::DescribeSubnets(describe) => {
            let (rows, token) = ec2.describe_subnets(now_ms, describe)?;
            Box::new(move |w| surroundings::subnets(w, &ec2.settings, &rows, token))
        }
        Call::DescribeAvailabilityZones(describe) => {
            let rows = ec2.describe_availability_zones(now_ms, describe)?;
            Box::new(move |w| surroundings::zones(w, &ec2.settings.region, &rows))
        }
        Call::DescribeInstanceTypes(describe) => {
            let (rows, token) = ec2.describe_instance_types(now_ms, describe)?;
            Box::new(move |w| surroundings::instance_types(w, &rows, token))
        }
        Call::DescribeSpotPriceHistory(describe) => {
            let (rows, token) = ec2.describe_spot_price_history(now_ms, describe)?;
            Box::new(move |w| surroundings::spot_prices(w, now_ms, &rows, token))
        }
        Call::DescribeLaunchTemplates(describe) => {
            let (rows, token) = ec2.describe_launch_templates(now_ms, describe)?;
            Box::new(move |w| template::templates(w, &rows, token))
        }
        Call::DescribeLaunchTemplateVersions(describe) => {
            let (rows, token) = ec2.describe_launch_template_versions(now_ms, describe)?;
            Box::new(move |w| template::versions(w, &rows, token))
        }
        Call::RunInstances(_)
        | Call::CreateFleet(_)
        | Call::TerminateInstances(_)
        | Call::CreateTags(..)
        | Call::DeleteTags(..) => {
            return Err(Ec2Error::client("InternalError", "not a describing call"));
        }
    })
}

/// A moment as EC2 writes it, with milliseconds.
fn time(at_ms: u64) -> String {
    format!("{:.3}", spillway_world::ec2::timestamp(at_ms))
}

/// `<tagSet>`.
fn tag_set(w: &mut Writer, tags: &spillway_world::ec2::Tags) {
    w.items("tagSet", tags, |w, (key, value)| {
        w.leaf("key", key);
        w.leaf("value", value);
    });
}

/// Prices as EC2 writes them: dollars with six decimals.
fn dollars(microdollars: u64) -> String {
    format!(
        "{}.{:06}",
        microdollars / 1_000_000,
        microdollars % 1_000_000
    )
}
