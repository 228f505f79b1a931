//! The caps on nodes and vCPUs: whom each is on, how much it allows, and where the site wrote it.

use std::collections::BTreeMap;

use super::{Owner, Usage, over_limit};
use crate::config::{Limits, OwnerLimits, Policy};
use crate::name::{NodeGroupName, OwnerName, PartitionName};

/// Whom a cap is on, the narrowest first: where several stand in the way, that one is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Group(NodeGroupName),
    User(OwnerName),
    Account(OwnerName),
    Partition(PartitionName),
    Cluster,
}

/// What is held, or wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    nodes: u64,
    vcpus: u64,
}

/// What a cap counts: its key in `spillway.toml`, its name, how much a cap allows, how much an amount has.
type Measure = (
    &'static str,
    &'static str,
    fn(&OwnerLimits) -> Option<u32>,
    fn(&Amount) -> u64,
);

const MEASURES: [Measure; 2] = [
    (
        "max_nodes",
        "nodes",
        |caps| caps.max_nodes,
        |amount| amount.nodes,
    ),
    (
        "max_vcpus",
        "vCPUs",
        |caps| caps.max_vcpus,
        |amount| amount.vcpus,
    ),
];

/// Amounts, each counted for everyone whom it concerns.
#[derive(Debug, Default)]
pub(super) struct Amounts(BTreeMap<Holder, Amount>);

impl Amounts {
    /// What the record holds.
    pub fn held(usage: &Usage) -> Self {
        let mut held = Self::default();
        for (name, group) in &usage.node_groups {
            for (owner, launches) in &group.owners {
                held.add(name, group.cpus, owner, launches.nodes());
            }
        }
        held
    }

    /// Adds `count` nodes of a group, of `cpus` vCPUs each.
    pub fn add(&mut self, group: &NodeGroupName, cpus: u32, owner: &Owner, count: u32) {
        let partition = owner.partition.iter().cloned();
        let holders = [
            Holder::Group(group.clone()),
            Holder::User(owner.user.clone()),
            Holder::Account(owner.account.clone()),
            Holder::Cluster,
        ];
        let amount = Amount {
            nodes: count.into(),
            vcpus: u64::from(count) * u64::from(cpus),
        };
        for holder in holders.into_iter().chain(partition.map(Holder::Partition)) {
            self.0.entry(holder).or_default().add(amount);
        }
    }

    /// Whether the caps leave room for `wanted`; says which does not.
    pub fn fit(&self, wanted: &Self, policy: &Policy) -> Result<(), String> {
        for (holder, wanted) in &wanted.0 {
            let mut all = self.0.get(holder).copied().unwrap_or_default();
            all.add(*wanted);
            holder.allows(all, policy)?;
        }
        Ok(())
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: Self) {
        for (holder, amount) in others.0 {
            self.0.entry(holder).or_default().add(amount);
        }
    }
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.vcpus += other.vcpus;
    }
}

impl Holder {
    fn allows(&self, amount: Amount, policy: &Policy) -> Result<(), String> {
        let caps = self.caps(policy);
        for (key, what, most_of, amount_of) in MEASURES {
            let most = most_of(&caps).filter(|most| amount_of(&amount) > u64::from(*most));
            if let Some(most) = most {
                let what = format!("{most} {what}{}", self.whose());
                return Err(over_limit(&what, &self.key(key, most_of, &policy.limits)));
            }
        }
        Ok(())
    }

    fn caps(&self, policy: &Policy) -> OwnerLimits {
        let limits = &policy.limits;
        match self {
            Self::Cluster => OwnerLimits {
                max_nodes: Some(limits.max_nodes),
                max_vcpus: limits.max_vcpus,
            },
            Self::Group(name) => OwnerLimits {
                max_nodes: policy.node_groups.get(name).map(|group| group.max_nodes),
                max_vcpus: None,
            },
            Self::Partition(name) => {
                let partition = policy.partitions.get(name);
                partition.map(|own| own.limits).unwrap_or_default()
            }
            Self::User(_) => self.named(limits).or(limits.per_user),
            Self::Account(_) => self.named(limits).or(limits.per_account),
        }
    }

    /// What the site says of this very user or account.
    fn named(&self, limits: &Limits) -> OwnerLimits {
        let own = match self {
            Self::User(name) => limits.users.get(name),
            Self::Account(name) => limits.accounts.get(name),
            _ => None,
        };
        own.copied().unwrap_or_default()
    }

    fn whose(&self) -> String {
        match self {
            Self::Cluster => String::new(),
            Self::Group(name) => format!(" of node group {name}"),
            Self::Partition(name) => format!(" of partition {name}"),
            Self::User(name) => format!(" of user {name}"),
            Self::Account(name) => format!(" of account {name}"),
        }
    }

    /// Where the cap was written.
    fn key(&self, key: &str, most: fn(&OwnerLimits) -> Option<u32>, limits: &Limits) -> String {
        let is_named = most(&self.named(limits)).is_some();
        match self {
            Self::Cluster => format!("limits.{key}"),
            Self::Group(_) => format!("node_group.{key}"),
            Self::Partition(_) => format!("partition.{key}"),
            Self::User(name) if is_named => format!("limits.user.{name}.{key}"),
            Self::User(_) => format!("limits.{key}_per_user"),
            Self::Account(name) if is_named => format!("limits.account.{name}.{key}"),
            Self::Account(_) => format!("limits.{key}_per_account"),
        }
    }
}
