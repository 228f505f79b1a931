//! What a seed decides before anything happens: the cluster, its policy, how slow and how faulty its world is.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::config::{
    CapacityKind, Limits, NodeGroup, NodeGroups, NoticeAction, NoticePolicy, OnDemandAllocation,
    OwnerLimits, POLICY_VERSION, PartitionPolicy, Policy, Strategy, Subnet, SweepPolicy,
};
use spillway_core::hostlist::Hostlist;
use spillway_core::name::{
    ClusterName, InstanceType, LaunchTemplateId, NodeGroupName, NodeName, PartitionName, Region,
    SubnetId, Zone,
};
use spillway_core::tag;

use super::names::Service;
use crate::ec2;

/// When every run begins: 2027-01-15, Unix milliseconds.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

/// The fewest and the most nodes of a seed.
const NODES: std::ops::RangeInclusive<usize> = 4..=64;
/// What happens from outside in a run, at least and at most.
const EVENTS: std::ops::RangeInclusive<usize> = 20..=40;
/// Faults that strike whatever the chance is.
pub(crate) const FORCED_FAULTS: usize = 3;
/// The first calls, among which the forced faults strike.
const FORCED_AMONG: u64 = 60;

const MINUTE_MS: u64 = 60_000;
pub(crate) const CPUS: u32 = 2;
const TEMPLATE: &str = "lt-1";
const TYPES: [&str; 2] = ["c7i.large", "m7i.large"];
const ZONES: [&str; 2] = ["us-east-1a", "us-east-1b"];
const SUBNETS: [&str; 2] = ["subnet-a", "subnet-b"];

/// A seed's world.
#[derive(Debug)]
pub(crate) struct Setting {
    pub cluster: ClusterName,
    pub policy: Policy,
    /// Nodes and their group's index.
    pub nodes: Vec<(NodeName, usize)>,
    pub events: usize,
    /// Faults and events are over after this.
    pub storm_ends_ms: u64,
    /// Chance of a fault at each call.
    pub fault_rate: f64,
    /// The forced faults strike at or after these calls.
    pub forced: BTreeSet<u64>,
    pub resume_timeout_ms: u64,
    pub suspend_time_ms: u64,
    pub suspend_timeout_ms: u64,
    /// Whether Run Command is a road.
    pub commands: bool,
    /// The head node's clock against the truth.
    pub head_skew_ms: i64,
    pub ec2: ec2::Settings,
    /// A service that is away for a while, and from when to when.
    pub outages: Vec<(Service, u64, u64)>,
    /// Spot capacity of each pool, where it is limited.
    pub spot: Option<u32>,
    /// Whether there is a sweep.
    pub sweeps: bool,
}

impl Setting {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        // Small clusters are as good as large ones at most things, and cheaper.
        let count = rng.usize(NODES).min(rng.usize(NODES));
        let first = rng.usize(1..count);
        let resume_timeout_seconds = rng.u32(120..=400);
        let groups = [first, count - first];
        let node_groups = [
            group(rng, 0, groups[0], resume_timeout_seconds),
            group(rng, 1, groups[1], resume_timeout_seconds),
        ];
        let nodes = node_groups.iter().enumerate().flat_map(|(index, group)| {
            let names = group.nodes.node_names().expect("made of node names");
            names.into_iter().map(move |name| (name, index))
        });
        let nodes = nodes.collect();
        let cluster = ClusterName::new("sim").expect("a name");
        let policy = Policy {
            version: POLICY_VERSION,
            cluster: cluster.clone(),
            region: Region::new("us-east-1").expect("a region"),
            resume_timeout_seconds,
            suspend_timeout_seconds: 60,
            limits: limits(rng, count),
            sweep: SweepPolicy::default(),
            partitions: ["a", "b"].map(|name| partition(rng, name)).into(),
            node_groups: NodeGroups::new(node_groups.into()).expect("disjoint"),
        };
        Self {
            cluster,
            policy,
            nodes,
            events: rng.usize(EVENTS),
            storm_ends_ms: START_MS + rng.u64(3..=10) * MINUTE_MS,
            fault_rate: *pick(rng, &[0.003, 0.006, 0.015, 0.03, 0.06]),
            forced: forced(rng),
            resume_timeout_ms: u64::from(resume_timeout_seconds) * 1000,
            suspend_time_ms: rng.u64(20_000..=120_000),
            suspend_timeout_ms: rng.u64(20_000..=90_000),
            commands: rng.f64() < 0.7,
            head_skew_ms: rng.i64(-2_000..=2_000),
            outages: outages(rng),
            ec2: ec2_settings(rng),
            sweeps: fork(rng, 2).f64() < 0.4,
            spot: (rng.f64() < 0.3).then(|| rng.u32(0..8)),
        }
    }

    /// A cluster of two groups, the first of so many nodes, in a world without faults, where EC2's default token
    /// buckets apply and capacity has no end.
    pub(crate) fn calm(count: usize) -> Self {
        /// Long enough for what the buckets take: 1,000 at once, then 2 a second.
        const RESUME_TIMEOUT_SECONDS: u32 = 1_800;
        let mut rng = fastrand::Rng::with_seed(0);
        let drawn = Self::draw(&mut rng);
        let groups = [count, 1].map(|size| size.max(1));
        let mut node_groups = [0, 1].map(|i| group(&mut rng, i, groups[i], RESUME_TIMEOUT_SECONDS));
        for group in &mut node_groups {
            group.capacity = vec![CapacityKind::OnDemand];
            group.one_zone = false;
            group.max_nodes = u32::MAX;
            group.join_timeout_seconds = RESUME_TIMEOUT_SECONDS - 15;
        }
        let nodes = node_groups.iter().enumerate().flat_map(|(index, group)| {
            let names = group.nodes.node_names().expect("made of node names");
            names.into_iter().map(move |name| (name, index))
        });
        Self {
            nodes: nodes.collect(),
            policy: Policy {
                resume_timeout_seconds: RESUME_TIMEOUT_SECONDS,
                limits: Limits::default(),
                partitions: BTreeMap::new(),
                node_groups: NodeGroups::new(node_groups.into()).expect("disjoint"),
                ..drawn.policy
            },
            events: 0,
            storm_ends_ms: START_MS,
            fault_rate: 0.0,
            forced: BTreeSet::new(),
            resume_timeout_ms: u64::from(RESUME_TIMEOUT_SECONDS) * 1000,
            head_skew_ms: 0,
            outages: Vec::new(),
            ec2: ec2::Settings {
                throttling: true,
                ..ec2::Settings::default()
            },
            spot: None,
            sweeps: false,
            ..drawn
        }
    }

    /// What somebody launches past every function.
    pub(crate) fn stray(&self) -> ec2::RunInstances {
        let tags = [(tag::CLUSTER.to_owned(), self.cluster.to_string())];
        let tagged = ec2::TagSpecification {
            resource_type: "instance".to_owned(),
            tags: tags.into(),
        };
        ec2::RunInstances {
            launch_template: Some(ec2::LaunchTemplateSpecification::by_id(TEMPLATE)),
            direct: ec2::LaunchTemplateData {
                instance_type: Some(TYPES[0].to_owned()),
                tag_specifications: vec![tagged],
                ..ec2::LaunchTemplateData::default()
            },
            subnet_id: Some(SUBNETS[0].to_owned()),
            min_count: 1,
            max_count: 1,
            client_token: None,
            dry_run: false,
        }
    }

    /// EC2 with the launch template, the subnets and the capacity of this seed.
    pub(crate) fn make_ec2(&self, seed: u64) -> ec2::Ec2 {
        let mut ec2 = ec2::Ec2::new(self.ec2.clone(), seed);
        let data = ec2::LaunchTemplateData {
            image_id: Some("ami-1".to_owned()),
            instance_type: Some(TYPES[0].to_owned()),
            shutdown_behavior: Some(ec2::ShutdownBehavior::Terminate),
            ..ec2::LaunchTemplateData::default()
        };
        ec2.put_launch_template(ec2::LaunchTemplate::new(TEMPLATE, "burst", data));
        for (index, (subnet, zone)) in SUBNETS.iter().zip(ZONES).enumerate() {
            // 4,091 addresses each: more than any cluster here has nodes.
            let cidr = format!("10.{index}.0.0/20");
            let subnet = ec2::Subnet::new(subnet, "vpc-1", zone, &cidr).expect("a subnet");
            ec2.put_subnet(subnet);
        }
        if self.spot.is_some() {
            for pool in pools(ec2::CapacityKind::Spot) {
                ec2.set_free_capacity(pool, self.spot);
            }
        }
        ec2
    }
}

/// All pools of one kind that a policy here may use.
#[must_use]
pub fn pools(kind: ec2::CapacityKind) -> Vec<ec2::Pool> {
    let places = TYPES
        .iter()
        .flat_map(|name| ZONES.map(|zone| (*name, zone)));
    let pool = |(name, zone): (&str, &str)| ec2::Pool {
        kind,
        instance_type: name.to_owned(),
        availability_zone: zone.to_owned(),
    };
    places.map(pool).collect()
}

pub(crate) fn pick<'a, T>(rng: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

fn group(rng: &mut fastrand::Rng, index: usize, count: usize, timeout_seconds: u32) -> NodeGroup {
    let name = ["a", "b"][index];
    let kinds: &[&[CapacityKind]] = &[
        &[CapacityKind::Spot, CapacityKind::OnDemand],
        &[CapacityKind::OnDemand],
        &[CapacityKind::Spot],
    ];
    let places = rng.usize(1..=2);
    let zone = |index: usize| Subnet {
        subnet_id: SubnetId::new(SUBNETS[index]).expect("an id"),
        zone: Zone::new(ZONES[index]).expect("a zone"),
    };
    let most = u32::try_from(count).unwrap_or(u32::MAX);
    NodeGroup {
        name: NodeGroupName::new(name).expect("a name"),
        partitions: vec![PartitionName::new(name).expect("a name")],
        nodes: Hostlist::parse(&format!("{name}[1-{count}]")).expect("a hostlist"),
        launch_template_id: LaunchTemplateId::new(TEMPLATE).expect("an id"),
        launch_template_version: 1,
        instance_types: TYPES[..rng.usize(1..=2)]
            .iter()
            .map(|name| InstanceType::new(*name).expect("a type"))
            .collect(),
        subnets: (0..places).map(zone).collect(),
        capacity: pick(rng, kinds).to_vec(),
        on_demand_allocation: OnDemandAllocation::default(),
        max_on_demand_cents_per_hour: None,
        one_zone: rng.f64() < 0.2,
        max_nodes: if rng.f64() < 0.3 {
            rng.u32(1..=most)
        } else {
            2 * most
        },
        cpus: CPUS,
        memory_mb: 1_000,
        gres: None,
        join_timeout_seconds: timeout_seconds - rng.u32(20..=60),
        tags: BTreeMap::new(),
    }
}

fn partition(rng: &mut fastrand::Rng, name: &str) -> (PartitionName, PartitionPolicy) {
    let strategies = [
        Strategy::AllOrNothing,
        Strategy::AllOrNothing,
        Strategy::Greedy,
        Strategy::BestEffort,
    ];
    let strategy = *pick(rng, &strategies);
    let name = PartitionName::new(name).expect("a name");
    let limits = owner_limits(&mut fork(rng, 1), 8);
    let policy = PartitionPolicy {
        strategy,
        limits,
        notices: notice_policy(&mut fork(rng, 2)),
    };
    (name, policy)
}

fn notice_policy(rng: &mut fastrand::Rng) -> NoticePolicy {
    use NoticeAction::{Drain, Ignore, Requeue};
    let actions = [Ignore, Drain, Requeue, Requeue];
    NoticePolicy {
        interruption: *pick(rng, &actions),
        rebalance: *pick(rng, &actions),
        requeue_before_seconds: rng.u32(5..=120),
        ..NoticePolicy::default()
    }
}

fn forced(rng: &mut fastrand::Rng) -> BTreeSet<u64> {
    let mut forced = BTreeSet::new();
    while forced.len() < FORCED_FAULTS {
        forced.insert(rng.u64(0..FORCED_AMONG));
    }
    forced
}

/// Up to two services are away, each for up to a minute and a half.
fn outages(rng: &mut fastrand::Rng) -> Vec<(Service, u64, u64)> {
    let mut outage = || {
        let from_ms = START_MS + rng.u64(0..5 * MINUTE_MS);
        let service = *pick(rng, Service::ALL);
        (service, from_ms, from_ms + rng.u64(500..90_000))
    };
    match outage().1 % 4 {
        0 => vec![outage(), outage()],
        1 => vec![outage()],
        _ => Vec::new(),
    }
}

fn limits(rng: &mut fastrand::Rng, count: usize) -> Limits {
    let most = u32::try_from(count).unwrap_or(u32::MAX);
    let tight = |rng: &mut fastrand::Rng| rng.f64() < 0.2;
    let per_user = owner_limits(&mut fork(rng, 2), most);
    let per_account = owner_limits(&mut fork(rng, 3), most);
    Limits {
        max_nodes: if tight(rng) {
            rng.u32(1..=most)
        } else {
            2 * most
        },
        max_vcpus: tight(rng).then(|| CPUS * rng.u32(1..=most)),
        launches_per_hour: if tight(rng) {
            rng.u32(1..=2 * most)
        } else {
            40 * most
        },
        launches_per_hour_per_node: if tight(rng) { 2 } else { 12 },
        ec2_instances_at_once: if tight(rng) { rng.u32(4..=16) } else { 1_000 },
        ec2_instances_per_second: 2,
        capacity_rest_seconds: *pick(rng, &[20, 180]),
        per_user,
        per_account,
        users: BTreeMap::new(),
        accounts: BTreeMap::new(),
    }
}

/// Other numbers than `rng` draws next, which it draws all the same: a seed stays what it was before these were drawn.
fn fork(rng: &fastrand::Rng, which: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(rng.clone().u64(..) ^ which)
}

fn owner_limits(rng: &mut fastrand::Rng, most: u32) -> OwnerLimits {
    let mut cap = |unit: u32| (rng.f64() < 0.2).then(|| unit * rng.u32(1..=most));
    OwnerLimits {
        max_nodes: cap(1),
        max_vcpus: cap(CPUS),
    }
}

fn ec2_settings(rng: &mut fastrand::Rng) -> ec2::Settings {
    ec2::Settings {
        pending_ms: rng.u64(500..=8_000),
        shutting_down_ms: rng.u64(500..=30_000),
        // Below the ten seconds after which what is not shown counts as not launched.
        visibility_delay_ms: *pick(rng, &[0, 0, 400, 3_000, 8_000]),
        terminated_visible_ms: *pick(rng, &[60_000, 600_000, 3_600_000]),
        token_replay: *pick(
            rng,
            &[
                ec2::TokenReplay::FirstAnswer,
                ec2::TokenReplay::FleetWithoutInstances,
                ec2::TokenReplay::Mismatch,
            ],
        ),
        throttling: rng.f64() < 0.2,
        ..ec2::Settings::default()
    }
}
