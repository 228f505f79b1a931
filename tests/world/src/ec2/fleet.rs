//! `CreateFleet` with type `instant`: one attempt over many pools, answered with what came and, for each
//! candidate that failed, why.

mod allocation;
mod check;

use std::collections::BTreeMap;

use super::Ec2;
use super::catalogue::price_microdollars;
use super::error::{Ec2Error, Ec2Result};
use super::request::{CapacityKind, CreateFleet, FleetOptions, FleetOverride, Tags};
use super::template::{LaunchTemplateData, SpotOptions};
use super::token::Remembered;
use allocation::{Allocation, Place, Room, allocate, groups};

/// The answer of `CreateFleet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// `fleet-…`.
    pub fleet_id: String,
    /// What was launched, one entry a candidate and capacity kind, without addresses.
    pub instances: Vec<FleetInstances>,
    /// What was not, and why.
    pub errors: Vec<FleetShortage>,
}

impl Fleet {
    /// All instance ids.
    #[must_use]
    pub fn instance_ids(&self) -> Vec<String> {
        self.instances
            .iter()
            .flat_map(|i| i.instance_ids.clone())
            .collect()
    }
}

/// A launch template version and the override it was tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetCandidate {
    /// `lt-…`.
    pub template_id: String,
    /// Its number.
    pub template_version: u64,
    /// The override, as the caller gave it.
    pub over: FleetOverride,
}

/// Instances launched from one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetInstances {
    /// The candidate.
    pub candidate: FleetCandidate,
    /// On-demand or spot.
    pub kind: CapacityKind,
    /// Their ids.
    pub instance_ids: Vec<String>,
    /// Their type.
    pub instance_type: String,
    /// Their zone.
    pub availability_zone: String,
    /// Their zone's id.
    pub availability_zone_id: String,
    /// Their subnet.
    pub subnet_id: String,
}

/// Why a candidate gave less than was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetShortage {
    /// The candidate.
    pub candidate: FleetCandidate,
    /// On-demand or spot.
    pub kind: CapacityKind,
    /// AWS's code.
    pub code: String,
    /// AWS's sentence.
    pub message: String,
}

impl Ec2 {
    /// `CreateFleet` (instant).
    pub fn create_fleet(&mut self, now_ms: u64, request: &CreateFleet) -> Ec2Result<Fleet> {
        self.begin("CreateFleet", now_ms)?;
        check::check(request)?;
        if let Some(answer) = self.replayed_fleet(request)? {
            return Ok(answer);
        }
        let candidates = self.candidates(request)?;
        if request.dry_run {
            return Err(Ec2Error::dry_run());
        }
        let fleet_id = self.fresh_fleet_id();
        let mut fleet = Fleet {
            fleet_id: fleet_id.clone(),
            instances: Vec::new(),
            errors: Vec::new(),
        };
        let on_default = request.total_target_capacity
            - request.on_demand_target_capacity
            - request.spot_target_capacity;
        let default = request
            .default_target_capacity_type
            .unwrap_or(CapacityKind::OnDemand);
        for (kind, own, options) in [
            (
                CapacityKind::OnDemand,
                request.on_demand_target_capacity,
                &request.on_demand,
            ),
            (
                CapacityKind::Spot,
                request.spot_target_capacity,
                &request.spot,
            ),
        ] {
            let target = own + if kind == default { on_default } else { 0 };
            if target > 0 {
                self.fill(
                    now_ms,
                    &mut fleet,
                    request,
                    &candidates,
                    kind,
                    target,
                    options,
                )?;
            }
        }
        self.fleets.insert(fleet_id, tags_of(request, "fleet"));
        let call = Remembered::Fleet {
            request: Box::new(request.clone()),
            answer: fleet.clone(),
        };
        self.remember(request.client_token.as_deref(), call);
        Ok(fleet)
    }

    fn fresh_fleet_id(&mut self) -> String {
        let hex = format!("{:032x}", self.rng.u128(..));
        format!(
            "fleet-{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// Every template and override of the request, with the data it would be launched from.
    fn candidates(
        &self,
        request: &CreateFleet,
    ) -> Ec2Result<Vec<(FleetCandidate, LaunchTemplateData)>> {
        let mut candidates = Vec::new();
        for config in &request.configs {
            let template = self.resolve_template(&config.launch_template)?;
            if template.data.spot.is_some() {
                return Err(Ec2Error::invalid_combination(
                    "A launch template with InstanceMarketOptions cannot be used in a fleet.",
                ));
            }
            let no_override = [FleetOverride::default()];
            let overrides = if config.overrides.is_empty() {
                &no_override[..]
            } else {
                &config.overrides[..]
            };
            for over in overrides {
                let candidate = FleetCandidate {
                    template_id: template.id.clone(),
                    template_version: template.version,
                    over: over.clone(),
                };
                candidates.push((candidate, template.data.clone()));
            }
        }
        self.refuse_two_subnets_of_a_zone(&candidates)?;
        Ok(candidates)
    }

    /// A fleet may not use different subnets of one zone (EC2 guide, fleet quotas).
    fn refuse_two_subnets_of_a_zone(
        &self,
        candidates: &[(FleetCandidate, LaunchTemplateData)],
    ) -> Ec2Result<()> {
        let mut by_zone: BTreeMap<&str, &str> = BTreeMap::new();
        for id in candidates
            .iter()
            .filter_map(|(c, _)| c.over.subnet_id.as_deref())
        {
            let Some(subnet) = self.subnets.get(id) else {
                continue;
            };
            let first = by_zone.entry(&subnet.availability_zone).or_insert(id);
            if *first != id {
                return Err(Ec2Error::client(
                    "InvalidFleetConfig",
                    format!(
                        "The fleet configuration contains two subnets ({first}, {id}) in the same Availability Zone."
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Launches one capacity kind's share of a fleet and writes down what came of it.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing the share depends on"
    )]
    fn fill(
        &mut self,
        now_ms: u64,
        fleet: &mut Fleet,
        request: &CreateFleet,
        candidates: &[(FleetCandidate, LaunchTemplateData)],
        kind: CapacityKind,
        target: u32,
        options: &FleetOptions,
    ) -> Ec2Result<()> {
        let mut places = Vec::new();
        for (candidate, data) in candidates {
            match self.place(candidate, data, request, kind, options, &fleet.fleet_id)? {
                Ok(place) => places.push(place),
                Err(refused) => fleet.errors.push(shortage(candidate, kind, &refused)),
            }
        }
        let mut best: Option<Allocation> = None;
        for group in groups(&places, options) {
            let room = self.room(now_ms, &places, options)?;
            let allocation = allocate(&places, group, f64::from(target), options, kind, room);
            if best.as_ref().is_none_or(|b| allocation.units > b.units) {
                best = Some(allocation);
            }
        }
        let Some(mut best) = best else { return Ok(()) };
        if best.units < f64::from(options.min_target_capacity.unwrap_or(0)) {
            best.short = best
                .counts
                .keys()
                .map(|place| (*place, Ec2Error::unfulfillable()))
                .chain(best.short)
                .collect();
            best.counts.clear();
        }
        for (place, error) in &best.short {
            fleet
                .errors
                .push(shortage(&places[*place].candidate, kind, error));
        }
        for (place, count) in best.counts {
            let launched = self.launch_place(now_ms, fleet, &places[place], kind, count)?;
            fleet.instances.push(launched);
        }
        Ok(())
    }

    fn launch_place(
        &mut self,
        now_ms: u64,
        fleet: &Fleet,
        place: &Place,
        kind: CapacityKind,
        count: u32,
    ) -> Ec2Result<FleetInstances> {
        self.take_launch_tokens(count, now_ms)?;
        let reservation_id = self.fresh_id("r");
        // EC2 gives a fleet's instances tokens of the fleet's own, so the caller's token finds none of them.
        let token = format!("{}-{}", fleet.fleet_id, fleet.instances.len());
        let instance_ids = self.launch(now_ms, &place.recipe, count, &reservation_id, &token);
        let subnet = &self.subnets[&place.recipe.subnet_id];
        Ok(FleetInstances {
            candidate: place.candidate.clone(),
            kind,
            instance_ids,
            instance_type: place.recipe.instance_type.name.clone(),
            availability_zone: subnet.availability_zone.clone(),
            availability_zone_id: subnet.availability_zone_id.clone(),
            subnet_id: subnet.subnet_id.clone(),
        })
    }

    /// A candidate made ready for a capacity kind. The outer error refuses the fleet, the inner one the
    /// candidate alone.
    fn place(
        &self,
        candidate: &FleetCandidate,
        data: &LaunchTemplateData,
        request: &CreateFleet,
        kind: CapacityKind,
        options: &FleetOptions,
        fleet_id: &str,
    ) -> Ec2Result<Result<Place, Ec2Error>> {
        let over = &candidate.over;
        let weight = number(over.weighted_capacity.as_deref(), "WeightedCapacity", 1.0)?;
        let priority = number(over.priority.as_deref(), "Priority", f64::MAX)?;
        if weight <= 0.0 || priority < 0.0 {
            return Err(Ec2Error::invalid_value(
                "WeightedCapacity and Priority must not be negative.",
            ));
        }
        let spot = (kind == CapacityKind::Spot).then(|| SpotOptions {
            max_price: over.max_price.clone(),
            interruption_behavior: options.interruption_behavior.clone(),
        });
        let data = data.overlaid(&LaunchTemplateData {
            instance_type: over.instance_type.clone(),
            image_id: over.image_id.clone(),
            availability_zone: over.availability_zone.clone(),
            tag_specifications: request.tag_specifications.clone(),
            spot,
            ..LaunchTemplateData::default()
        });
        let template = Some((candidate.template_id.clone(), candidate.template_version));
        let recipe = self.recipe(
            data,
            over.subnet_id.as_deref(),
            kind,
            template,
            Some(fleet_id.to_owned()),
        );
        Ok(recipe.map(|recipe| Place {
            candidate: candidate.clone(),
            weight,
            priority,
            price: price_microdollars(&recipe.pool).unwrap_or(u64::MAX),
            recipe,
        }))
    }

    fn room(&mut self, now_ms: u64, places: &[Place], options: &FleetOptions) -> Ec2Result<Room> {
        let launch_tokens = self.launch_tokens(now_ms);
        let pools = places
            .iter()
            .map(|p| (p.recipe.pool.clone(), self.free_capacity(&p.recipe.pool)));
        let addresses = places.iter().map(|p| {
            let id = &p.recipe.subnet_id;
            (id.clone(), self.subnets[id].available())
        });
        Ok(Room {
            pools: pools.collect(),
            addresses: addresses.collect(),
            launch_tokens,
            microdollars: check::max_total_microdollars(options)?,
        })
    }
}

fn number(text: Option<&str>, name: &str, absent: f64) -> Ec2Result<f64> {
    text.map_or(Ok(absent), |text| {
        text.parse()
            .map_err(|_| Ec2Error::invalid_value(format!("Invalid value '{text}' for {name}.")))
    })
}

fn tags_of(request: &CreateFleet, resource_type: &str) -> Tags {
    LaunchTemplateData {
        tag_specifications: request.tag_specifications.clone(),
        ..LaunchTemplateData::default()
    }
    .tags_for(resource_type)
}

fn shortage(candidate: &FleetCandidate, kind: CapacityKind, error: &Ec2Error) -> FleetShortage {
    FleetShortage {
        candidate: candidate.clone(),
        kind,
        code: error.code.clone(),
        message: error.message.clone(),
    }
}
