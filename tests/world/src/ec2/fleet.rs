//! `CreateFleet` with type `instant`: one attempt over many pools, answered with what came and, for each
//! candidate that failed, why.

use std::collections::BTreeMap;

use super::Ec2;
use super::catalogue::price_microdollars;
use super::error::{Ec2Error, Ec2Result};
use super::launch::Recipe;
use super::request::{
    AllocationStrategy, CapacityKind, CreateFleet, FleetOptions, FleetOverride, Pool, Tags,
};
use super::tags::check_tags;
use super::template::{LaunchTemplateData, SpotOptions};
use super::token::Remembered;

/// The most capacity of one fleet (EC2 quotas).
const TARGET_CAPACITY_MAX: u32 = 10_000;
/// The most launch template configs of one fleet (API reference).
const CONFIGS_MAX: usize = 50;
/// The highest `MinTargetCapacity` (API reference).
const MIN_TARGET_CAPACITY_MAX: u32 = 1000;

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

/// A candidate for one capacity kind, ready to be launched.
struct Place {
    candidate: FleetCandidate,
    recipe: Recipe,
    weight: f64,
    priority: f64,
    price: u64,
}

/// What a choice among places comes to.
#[derive(Default)]
struct Allocation {
    /// Instances by place.
    counts: BTreeMap<usize, u32>,
    /// Places that ran short, in the order they were tried.
    short: Vec<(usize, Ec2Error)>,
    /// Capacity units reached.
    units: f64,
}

/// What is still free while places are filled; places may share a pool, a subnet and the API's limit.
struct Room {
    pools: BTreeMap<Pool, u32>,
    addresses: BTreeMap<String, u32>,
    launch_tokens: u32,
}

impl Ec2 {
    /// `CreateFleet` (instant).
    pub fn create_fleet(&mut self, now_ms: u64, request: &CreateFleet) -> Ec2Result<Fleet> {
        self.begin("CreateFleet", now_ms)?;
        check(request)?;
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
            request: request.clone(),
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
            let room = self.room(now_ms, &places);
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

    fn room(&mut self, now_ms: u64, places: &[Place]) -> Room {
        let launch_tokens = self.launch_tokens(now_ms);
        let pools = places
            .iter()
            .map(|p| (p.recipe.pool.clone(), self.free_capacity(&p.recipe.pool)));
        let addresses = places.iter().map(|p| {
            let id = &p.recipe.subnet_id;
            (id.clone(), self.subnets[id].available())
        });
        Room {
            pools: pools.collect(),
            addresses: addresses.collect(),
            launch_tokens,
        }
    }
}

/// Refuses what is wrong with a fleet request whatever the model holds.
fn check(request: &CreateFleet) -> Ec2Result<()> {
    if request.configs.is_empty() {
        return Err(Ec2Error::missing("LaunchTemplateConfigs"));
    }
    if request.configs.len() > CONFIGS_MAX {
        return Err(Ec2Error::invalid_value(format!(
            "At most {CONFIGS_MAX} LaunchTemplateConfigs are allowed."
        )));
    }
    let total = request.total_target_capacity;
    let split = request
        .on_demand_target_capacity
        .saturating_add(request.spot_target_capacity);
    if total == 0 || total > TARGET_CAPACITY_MAX || split > total {
        return Err(Ec2Error::client(
            "InvalidTargetCapacitySpecification",
            format!(
                "TotalTargetCapacity must be between 1 and {TARGET_CAPACITY_MAX} and cover the on-demand and spot target capacities."
            ),
        ));
    }
    for specification in &request.tag_specifications {
        if !matches!(specification.resource_type.as_str(), "instance" | "fleet") {
            return Err(Ec2Error::invalid_value(format!(
                "'{}' is not a valid taggable resource type for this operation.",
                specification.resource_type
            )));
        }
        check_tags(&specification.tags)?;
    }
    check_options(&request.on_demand, CapacityKind::OnDemand)?;
    check_options(&request.spot, CapacityKind::Spot)
}

fn check_options(options: &FleetOptions, kind: CapacityKind) -> Ec2Result<()> {
    use AllocationStrategy::{LowestPrice, Prioritized};
    let single = options.single_instance_type || options.single_availability_zone;
    match options.min_target_capacity {
        Some(min) if min > MIN_TARGET_CAPACITY_MAX => {
            return Err(Ec2Error::invalid_value(format!(
                "MinTargetCapacity must not exceed {MIN_TARGET_CAPACITY_MAX}."
            )));
        }
        Some(_) if !single => {
            return Err(Ec2Error::invalid_combination(
                "MinTargetCapacity requires SingleAvailabilityZone or SingleInstanceType.",
            ));
        }
        _ => {}
    }
    let fits = match options.allocation_strategy {
        None | Some(LowestPrice) => true,
        Some(Prioritized) => kind == CapacityKind::OnDemand,
        Some(_) => kind == CapacityKind::Spot,
    };
    if fits {
        Ok(())
    } else {
        Err(Ec2Error::invalid_combination(format!(
            "The allocation strategy is not valid for {} capacity.",
            kind.as_str()
        )))
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

/// The sets of places that may be used together: all of them, or those of one type and/or zone.
fn groups(places: &[Place], options: &FleetOptions) -> Vec<Vec<usize>> {
    let mut groups: Vec<((Option<&str>, Option<&str>), Vec<usize>)> = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let pool = &place.recipe.pool;
        let key = (
            options
                .single_instance_type
                .then_some(pool.instance_type.as_str()),
            options
                .single_availability_zone
                .then_some(pool.availability_zone.as_str()),
        );
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push(index),
            None => groups.push((key, vec![index])),
        }
    }
    groups.into_iter().map(|(_, members)| members).collect()
}

/// Chooses among the places of a group. Ties keep the caller's order.
fn allocate(
    places: &[Place],
    mut group: Vec<usize>,
    target: f64,
    options: &FleetOptions,
    kind: CapacityKind,
    mut room: Room,
) -> Allocation {
    use AllocationStrategy as S;
    let strategy = options.allocation_strategy.unwrap_or(S::LowestPrice);
    let free = |index: &usize| room.pools[&places[*index].recipe.pool];
    let lacks = |index: &usize| f64::from(free(index)) * places[*index].weight < target;
    let per_unit = |index: &usize| {
        let price = u32::try_from(places[*index].price).unwrap_or(u32::MAX);
        f64::from(price) / places[*index].weight
    };
    let by_price = |a: &usize, b: &usize| per_unit(a).total_cmp(&per_unit(b));
    let by_priority = |a: &usize, b: &usize| places[*a].priority.total_cmp(&places[*b].priority);
    group.sort_by(|a, b| match strategy {
        S::LowestPrice => by_price(a, b),
        S::Prioritized => by_priority(a, b),
        S::Diversified => std::cmp::Ordering::Equal,
        S::CapacityOptimized => free(b).cmp(&free(a)),
        S::CapacityOptimizedPrioritized => lacks(a).cmp(&lacks(b)).then_with(|| by_priority(a, b)),
        S::PriceCapacityOptimized => lacks(a).cmp(&lacks(b)).then_with(|| by_price(a, b)),
    });
    let mut allocation = Allocation::default();
    let mut open = group;
    while allocation.units < target && !open.is_empty() {
        let round = std::mem::take(&mut open);
        for index in round {
            let place = &places[index];
            // Diversified takes one from each in turn; the others take all they can of each.
            while allocation.units < target {
                if let Err(error) = room.take(place) {
                    allocation.short.push((index, error));
                    break;
                }
                *allocation.counts.entry(index).or_insert(0) += 1;
                allocation.units += place.weight;
                if strategy == S::Diversified && kind == CapacityKind::Spot {
                    open.push(index);
                    break;
                }
            }
        }
    }
    allocation
}

impl Room {
    /// Takes one instance's room, or says what is lacking.
    fn take(&mut self, place: &Place) -> Ec2Result<()> {
        let recipe = &place.recipe;
        let (Some(capacity), Some(addresses)) = (
            self.pools.get_mut(&recipe.pool),
            self.addresses.get_mut(&recipe.subnet_id),
        ) else {
            return Err(Ec2Error::unfulfillable());
        };
        if *capacity == 0 {
            return Err(Ec2Error::no_capacity(
                &recipe.pool.instance_type,
                &recipe.pool.availability_zone,
            ));
        }
        if *addresses == 0 {
            return Err(Ec2Error::no_addresses(&recipe.subnet_id));
        }
        if self.launch_tokens == 0 {
            return Err(Ec2Error::throttled());
        }
        *capacity -= 1;
        *addresses -= 1;
        self.launch_tokens -= 1;
        Ok(())
    }
}
