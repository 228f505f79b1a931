//! One model of EC2, as far as Spillway uses it: launch templates, subnets with real address space, pools of
//! capacity, instances with their life, tags, filters, paging, client tokens, API limits, interruptions.
//!
//! It is a plain struct: no async, no clock (every call is told `now_ms`, which must not go back) and no
//! randomness of its own (ids and drawn addresses come from the seed in [`Settings`]). Time passes only when
//! a call or [`Ec2::advance`] says so; what happened meanwhile is taken with [`Ec2::take_events`].
//!
//! Where AWS's behaviour is not documented the model takes the reading that is harder for the caller, and
//! the place says so.

mod catalogue;
mod describe;
mod error;
mod filter;
mod fleet;
mod instance;
mod launch;
mod lifecycle;
mod limits;
mod page;
mod request;
mod subnet;
mod tags;
mod template;
mod template_store;
mod token;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use catalogue::{
    DescribeInstanceTypes, DescribeSpotPriceHistory, InstanceType, SpotPrice, instance_type,
    instance_types, price_microdollars,
};
pub use describe::{ConsoleOutput, DescribeInstanceStatus, DescribeInstances, InstanceStatus};
pub use error::{Ec2Error, Ec2Result};
pub use fleet::{Fleet, FleetCandidate, FleetInstances, FleetShortage};
pub use instance::{
    Ec2Event, Instance, InstanceChange, InstanceState, Interruption, StateReason, timestamp,
};
pub use launch::Reservation;
pub use lifecycle::StateTransition;
pub use request::{
    AllocationStrategy, CapacityKind, CreateFleet, Filter, FleetConfig, FleetOptions,
    FleetOverride, LaunchTemplateSpecification, Page, Pool, RunInstances, TagSpecification, Tags,
};
pub use subnet::{AvailabilityZone, DescribeAvailabilityZones, DescribeSubnets, Subnet};
pub use tags::{DescribeTags, TagDescription};
pub use template::{
    BlockDeviceMapping, InstanceProfile, LaunchTemplate, LaunchTemplateData, MetadataOptions,
    NetworkInterfaceSpecification, ShutdownBehavior, SpotOptions,
};
pub use template_store::{
    DescribeLaunchTemplateVersions, DescribeLaunchTemplates, LaunchTemplateVersion,
};

/// What a caller may set, also while the model runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Region.
    pub region: String,
    /// Account id.
    pub account: String,
    /// From `pending` to `running`.
    pub pending_ms: u64,
    /// From `shutting-down` to `terminated`.
    pub shutting_down_ms: u64,
    /// From `stopping` to `stopped`.
    pub stopping_ms: u64,
    /// From `running` until the status checks say `ok`.
    pub status_checks_ms: u64,
    /// How long Describe and the tag calls do not see a new instance. EC2 is eventually consistent: an id asked
    /// for is `InvalidInstanceID.NotFound`, a filter just finds less.
    pub visibility_delay_ms: u64,
    /// How long Describe shows a terminated instance (AWS: about an hour).
    pub terminated_visible_ms: u64,
    /// From a spot interruption's warning to its act (AWS: two minutes).
    pub spot_notice_ms: u64,
    /// Whether the API's default token buckets apply.
    pub throttling: bool,
    /// In what order a subnet's addresses are given.
    pub address_order: AddressOrder,
    /// What a client token that was used before, with the same parameters, is answered.
    pub token_replay: TokenReplay,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            pending_ms: 2_000,
            shutting_down_ms: 2_000,
            stopping_ms: 2_000,
            status_checks_ms: 60_000,
            visibility_delay_ms: 0,
            terminated_visible_ms: 3_600_000,
            spot_notice_ms: 120_000,
            throttling: false,
            address_order: AddressOrder::Sequential,
            token_replay: TokenReplay::FirstAnswer,
        }
    }
}

/// In what order a subnet's addresses are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOrder {
    /// The next free one after the last one given.
    Sequential,
    /// Drawn from the seed.
    Random,
}

/// What a client token used before is answered when the parameters are the same. (With other parameters it
/// is always `IdempotentParameterMismatch`.) AWS documents that no second launch happens, and not whether an
/// instant fleet's instances are listed again; a caller must live with each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenReplay {
    /// The first answer once more.
    FirstAnswer,
    /// The same fleet id, without instances and without errors. `RunInstances` answers as the first time.
    FleetWithoutInstances,
    /// `IdempotentParameterMismatch`.
    Mismatch,
}

/// The model. See the module's text.
#[derive(Clone, Debug)]
pub struct Ec2 {
    /// What may be set at any time.
    pub settings: Settings,
    rng: fastrand::Rng,
    templates: BTreeMap<String, LaunchTemplate>,
    subnets: BTreeMap<String, Subnet>,
    instances: BTreeMap<String, Instance>,
    /// Fleets' own tags, by fleet id.
    fleets: BTreeMap<String, Tags>,
    /// Pools whose capacity was set: how many instances each can hold in all.
    pools: BTreeMap<Pool, u32>,
    tokens: BTreeMap<(&'static str, String), token::Remembered>,
    limits: limits::Limits,
    timers: BTreeSet<(u64, u64, String, lifecycle::Due)>,
    events: Vec<Ec2Event>,
    sequence: u64,
    now_ms: u64,
}

impl Ec2 {
    /// An empty EC2. The same seed and the same calls give the same ids and addresses.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            templates: BTreeMap::new(),
            subnets: BTreeMap::new(),
            instances: BTreeMap::new(),
            fleets: BTreeMap::new(),
            pools: BTreeMap::new(),
            tokens: BTreeMap::new(),
            limits: limits::Limits::default(),
            timers: BTreeSet::new(),
            events: Vec::new(),
            sequence: 0,
            now_ms: 0,
        }
    }

    /// Sets how many instances more a pool can launch from now on; none is unlimited, as every pool is at
    /// first. An instance terminated gives its place back.
    pub fn set_free_capacity(&mut self, pool: Pool, free: Option<u32>) {
        match free {
            Some(free) => {
                let held = self.held(&pool);
                self.pools.insert(pool, held + free);
            }
            None => {
                self.pools.remove(&pool);
            }
        }
    }

    /// How many instances more a pool can launch; `u32::MAX` if nothing limits it.
    #[must_use]
    pub fn free_capacity(&self, pool: &Pool) -> u32 {
        self.pools
            .get(pool)
            .map_or(u32::MAX, |total| total.saturating_sub(self.held(pool)))
    }

    fn held(&self, pool: &Pool) -> u32 {
        let held = self
            .instances
            .values()
            .filter(|i| i.is_held() && i.pool() == *pool)
            .count();
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// An instance, whatever Describe shows of it yet.
    #[must_use]
    pub fn instance(&self, instance_id: &str) -> Option<&Instance> {
        self.instances.get(instance_id)
    }

    /// All instances, terminated ones too while they are remembered, whatever Describe shows of them yet.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// What happened since the last time, in order.
    pub fn take_events(&mut self) -> Vec<Ec2Event> {
        std::mem::take(&mut self.events)
    }

    /// An id in AWS's form: the prefix and 17 hexadecimal digits.
    fn fresh_id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{:017x}", self.rng.u128(..) >> (128 - 17 * 4))
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}
