//! How a fleet chooses among its places: by strategy, within what is free, all in one type or zone if it must.

use std::collections::BTreeMap;

use super::super::error::{Ec2Error, Ec2Result};
use super::super::launch::Recipe;
use super::super::request::{AllocationStrategy, CapacityKind, FleetOptions, Pool};
use super::FleetCandidate;

/// A candidate for one capacity kind, ready to be launched.
pub(super) struct Place {
    pub(super) candidate: FleetCandidate,
    pub(super) recipe: Recipe,
    pub(super) weight: f64,
    pub(super) priority: f64,
    pub(super) price: u64,
}

/// What a choice among places comes to.
#[derive(Default)]
pub(super) struct Allocation {
    /// Instances by place.
    pub(super) counts: BTreeMap<usize, u32>,
    /// Places that ran short, in the order they were tried.
    pub(super) short: Vec<(usize, Ec2Error)>,
    /// Capacity units reached.
    pub(super) units: f64,
}

/// What is still free while places are filled; places may share a pool, a subnet, the API's limit and the price.
pub(super) struct Room {
    pub(super) pools: BTreeMap<Pool, u32>,
    pub(super) addresses: BTreeMap<String, u32>,
    pub(super) launch_tokens: u32,
    /// What may still be spent, in millionths of a dollar an hour.
    pub(super) microdollars: u64,
}

/// The sets of places that may be used together: all of them, or those of one type and/or zone.
pub(super) fn groups(places: &[Place], options: &FleetOptions) -> Vec<Vec<usize>> {
    /// The type and the zone, where they must be one.
    type Key<'a> = (Option<&'a str>, Option<&'a str>);
    let mut groups: Vec<(Key, Vec<usize>)> = Vec::new();
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
pub(super) fn allocate(
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
        // What a fleet says of candidates too dear for it is not documented.
        let Some(microdollars) = self.microdollars.checked_sub(place.price) else {
            return Err(Ec2Error::unfulfillable());
        };
        if self.launch_tokens == 0 {
            return Err(Ec2Error::throttled());
        }
        *capacity -= 1;
        *addresses -= 1;
        self.launch_tokens -= 1;
        self.microdollars = microdollars;
        Ok(())
    }
}
