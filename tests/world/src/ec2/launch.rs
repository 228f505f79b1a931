//! `RunInstances`, and the making of instances that fleets share with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::catalogue::{instance_type, price_microdollars};
use super::error::{Ec2Error, Ec2Result};
use super::instance::{Ec2Event, Instance, InstanceChange, InstanceState};
use super::lifecycle::Due;
use super::request::{CapacityKind, Pool, RunInstances};
use super::tags::check_tags;
use super::template::LaunchTemplateData;
use super::token::Remembered;
use super::{Ec2, InstanceType, Subnet};

/// Raw user data may have 16 KB (EC2 guide).
const USER_DATA_BYTES_MAX: usize = 16_384;

/// The answer of `RunInstances`: the launch and its instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// `r-…`.
    pub reservation_id: String,
    /// The instances as they are now.
    pub instances: Vec<Instance>,
}

/// Everything settled that a launch needs: checked, and found in the model.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    pub data: LaunchTemplateData,
    pub image_id: String,
    pub instance_type: InstanceType,
    pub subnet_id: String,
    pub pool: Pool,
    /// Id and number of the launch template.
    pub template: Option<(String, u64)>,
    pub fleet_id: Option<String>,
}

impl Ec2 {
    /// `RunInstances`: `max_count` instances if they can be had, fewer down to `min_count`, else nothing.
    pub fn run_instances(&mut self, now_ms: u64, request: &RunInstances) -> Ec2Result<Reservation> {
        self.begin("RunInstances", now_ms)?;
        if request.min_count == 0 || request.max_count < request.min_count {
            return Err(Ec2Error::invalid_value(format!(
                "Value ({}) for parameter maxCount or ({}) for minCount is invalid.",
                request.max_count, request.min_count
            )));
        }
        if let Some(answer) = self.replayed_run(request)? {
            return Ok(answer);
        }
        let recipe = self.run_recipe(request)?;
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        let count = self.admitted(&recipe, request)?;
        self.take_launch_tokens(count, now_ms)?;
        let token = request.client_token.clone().unwrap_or_default();
        let reservation_id = self.fresh_id("r");
        let instance_ids = self.launch(now_ms, &recipe, count, &reservation_id, &token);
        let instances = instance_ids
            .iter()
            .map(|id| self.instances[id].clone())
            .collect();
        let call = Remembered::Run {
            request: Box::new(request.clone()),
            reservation_id: reservation_id.clone(),
            instance_ids,
        };
        self.remember(request.client_token.as_deref(), call);
        Ok(Reservation {
            reservation_id,
            instances,
        })
    }

    fn run_recipe(&self, request: &RunInstances) -> Ec2Result<Recipe> {
        let template = request
            .launch_template
            .as_ref()
            .map(|by| self.resolve_template(by))
            .transpose()?;
        let under = template
            .as_ref()
            .map(|t| t.data.clone())
            .unwrap_or_default();
        let data = under.overlaid(&request.direct);
        if request.subnet_id.is_some() && !data.network_interfaces.is_empty() {
            return Err(Ec2Error::invalid_combination(
                "Network interfaces and an instance-level subnet ID may not be specified on the same request",
            ));
        }
        let kind = if data.spot.is_some() {
            CapacityKind::Spot
        } else {
            CapacityKind::OnDemand
        };
        let template = template.map(|t| (t.id, t.version));
        self.recipe(data, request.subnet_id.as_deref(), kind, template, None)
    }

    /// How many of a `RunInstances` can be launched now, or why too few.
    fn admitted(&self, recipe: &Recipe, request: &RunInstances) -> Ec2Result<u32> {
        let addresses = self.subnets[&recipe.subnet_id].available();
        let capacity = self.free_capacity(&recipe.pool);
        if addresses < request.min_count {
            return Err(Ec2Error::no_addresses(&recipe.subnet_id));
        }
        if capacity < request.min_count {
            return Err(Ec2Error::no_capacity(
                &recipe.pool.instance_type,
                &recipe.pool.availability_zone,
            ));
        }
        Ok(request.max_count.min(addresses).min(capacity))
    }

    /// Settles what a launch needs, refusing what EC2 would refuse.
    pub(super) fn recipe(
        &self,
        data: LaunchTemplateData,
        subnet_id: Option<&str>,
        kind: CapacityKind,
        template: Option<(String, u64)>,
        fleet_id: Option<String>,
    ) -> Ec2Result<Recipe> {
        let image_id = data
            .image_id
            .clone()
            .ok_or_else(|| Ec2Error::missing("ImageId"))?;
        if !image_id.starts_with("ami-") {
            return Err(Ec2Error::client(
                "InvalidAMIID.Malformed",
                format!("Invalid id: \"{image_id}\" (expecting \"ami-...\")"),
            ));
        }
        // AWS would take m1.small where nothing is said; that type is not in the table.
        let name = data
            .instance_type
            .as_deref()
            .ok_or_else(|| Ec2Error::missing("InstanceType"))?;
        let instance_type = instance_type(name).ok_or_else(|| {
            Ec2Error::invalid_value(format!("Invalid value '{name}' for InstanceType."))
        })?;
        check_user_data(data.user_data.as_deref())?;
        for specification in &data.tag_specifications {
            check_tags(&specification.tags)?;
        }
        let subnet = self.launch_subnet(&data, subnet_id)?;
        let pool = Pool {
            kind,
            instance_type: name.to_owned(),
            availability_zone: subnet.availability_zone.clone(),
        };
        check_max_price(&data, &pool)?;
        let subnet_id = subnet.subnet_id.clone();
        Ok(Recipe {
            data,
            image_id,
            instance_type,
            subnet_id,
            pool,
            template,
            fleet_id,
        })
    }

    /// The subnet of a launch: the one named by the call or the primary interface; by a zone alone its
    /// first subnet, which stands for AWS's default subnet.
    fn launch_subnet(
        &self,
        data: &LaunchTemplateData,
        subnet_id: Option<&str>,
    ) -> Ec2Result<&Subnet> {
        let zone = data.availability_zone.as_deref();
        let primary = data.network_interfaces.iter().find(|i| i.device_index == 0);
        let named = subnet_id.or_else(|| primary.and_then(|i| i.subnet_id.as_deref()));
        if let Some(id) = named {
            let subnet = self
                .subnets
                .get(id)
                .ok_or_else(|| Ec2Error::no_subnet(id))?;
            if zone.is_some_and(|zone| zone != subnet.availability_zone) {
                return Err(Ec2Error::invalid_combination(format!(
                    "The subnet '{id}' is not in the availability zone '{}'",
                    zone.unwrap_or_default()
                )));
            }
            return Ok(subnet);
        }
        let Some(zone) = zone else {
            return Err(Ec2Error::client(
                "MissingInput",
                "No subnets found for the default VPC. Please specify a subnet.",
            ));
        };
        self.subnets
            .values()
            .find(|s| s.availability_zone == zone)
            .ok_or_else(|| Ec2Error::invalid_value(format!("Invalid availability zone: [{zone}]")))
    }

    /// Makes the instances. The caller has made sure that capacity and addresses are there.
    pub(super) fn launch(
        &mut self,
        now_ms: u64,
        recipe: &Recipe,
        count: u32,
        reservation_id: &str,
        client_token: &str,
    ) -> Vec<String> {
        let mut ids = Vec::new();
        for launch_index in 0..count {
            let Some(address) = self.take_address(&recipe.subnet_id) else {
                break;
            };
            let instance = self.made(
                now_ms,
                recipe,
                reservation_id,
                launch_index,
                client_token,
                address,
            );
            let id = instance.instance_id.clone();
            self.events.push(Ec2Event::StateChange(InstanceChange {
                instance_id: id.clone(),
                from: None,
                to: InstanceState::Pending,
                at_ms: now_ms,
                private_ip: address,
                subnet_id: instance.subnet_id.clone(),
                availability_zone: instance.availability_zone.clone(),
                instance_type: instance.instance_type.clone(),
            }));
            self.instances.insert(id.clone(), instance);
            self.schedule(now_ms + self.settings.pending_ms, &id, Due::Run);
            ids.push(id);
        }
        ids
    }

    fn made(
        &mut self,
        now_ms: u64,
        recipe: &Recipe,
        reservation_id: &str,
        launch_index: u32,
        client_token: &str,
        address: std::net::Ipv4Addr,
    ) -> Instance {
        let mut tags = recipe.data.tags_for("instance");
        if let Some((id, version)) = &recipe.template {
            tags.insert("aws:ec2launchtemplate:id".to_owned(), id.clone());
            tags.insert(
                "aws:ec2launchtemplate:version".to_owned(),
                version.to_string(),
            );
        }
        if let Some(fleet_id) = &recipe.fleet_id {
            tags.insert("aws:ec2:fleet-id".to_owned(), fleet_id.clone());
        }
        // Not the subnet itself: it knows each address that is taken.
        let Subnet {
            subnet_id,
            vpc_id,
            availability_zone,
            availability_zone_id,
            ..
        } = &self.subnets[&recipe.subnet_id];
        let [subnet_id, vpc_id, availability_zone, availability_zone_id] =
            [subnet_id, vpc_id, availability_zone, availability_zone_id].map(Clone::clone);
        let spot = recipe.pool.kind == CapacityKind::Spot;
        let [_, a, b, c] = address.octets();
        Instance {
            instance_id: self.fresh_id("i"),
            reservation_id: reservation_id.to_owned(),
            launch_index,
            sequence: self.next_sequence(),
            state: InstanceState::Pending,
            state_reason: None,
            launched_at_ms: now_ms,
            state_since_ms: now_ms,
            instance_type: recipe.instance_type.name.clone(),
            kind: recipe.pool.kind,
            image_id: recipe.image_id.clone(),
            subnet_id,
            vpc_id,
            availability_zone,
            availability_zone_id,
            private_ip: Some(address),
            network_interface_id: self.fresh_id("eni"),
            mac_address: format!("0a:ff:{a:02x}:{b:02x}:{c:02x}:01"),
            volume_id: self.fresh_id("vol"),
            spot_request_id: spot.then(|| format!("sir-{:08x}", self.rng.u32(..))),
            fleet_id: recipe.fleet_id.clone(),
            client_token: client_token.to_owned(),
            tags,
            volume_tags: recipe.data.tags_for("volume"),
            network_interface_tags: recipe.data.tags_for("network-interface"),
            launch: recipe.data.clone(),
            interruption: None,
            capacity_reservation_id: None,
            rebalance_at_ms: None,
            console: String::new(),
            is_impaired: false,
        }
    }
}

fn check_user_data(user_data: Option<&str>) -> Ec2Result<()> {
    let Some(text) = user_data else { return Ok(()) };
    let malformed = |message: &str| Ec2Error::client("InvalidUserData.Malformed", message);
    let raw = STANDARD
        .decode(text)
        .map_err(|_| malformed("Invalid BASE64 encoding of user data."))?;
    if raw.len() > USER_DATA_BYTES_MAX {
        return Err(malformed(&format!(
            "User data is limited to {USER_DATA_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn check_max_price(data: &LaunchTemplateData, pool: &Pool) -> Ec2Result<()> {
    let Some(text) = data.spot.as_ref().and_then(|s| s.max_price.as_deref()) else {
        return Ok(());
    };
    if pool.kind != CapacityKind::Spot {
        return Ok(());
    }
    let invalid = || Ec2Error::invalid_value(format!("Invalid value '{text}' for spot max price."));
    let max_price: f64 = text.parse().map_err(|_| invalid())?;
    let price = price_microdollars(pool).ok_or_else(invalid)?;
    let price = f64::from(u32::try_from(price).map_err(|_| invalid())?) / 1e6;
    if max_price < price {
        return Err(Ec2Error::client(
            "SpotMaxPriceTooLow",
            format!(
                "Your Spot request price of {text} is lower than the minimum required Spot request fulfillment \
                 price of {price}."
            ),
        ));
    }
    Ok(())
}
