//! What is asked about instances: `DescribeInstances`, `DescribeInstanceStatus`, one instance's attributes
//! and its console.

use super::error::{Ec2Error, Ec2Result};
use super::instance::{Instance, InstanceState};
use super::launch::Reservation;
use super::lifecycle::check_ids;
use super::request::{CapacityKind, Filter, Page};
use super::{Ec2, filter, instance_type, page, timestamp};

/// The sizes of a page of instances (API reference).
const INSTANCE_PAGE: std::ops::RangeInclusive<usize> = 5..=1000;

/// The filters `DescribeInstances` knows here. AWS has more; one that is not in this list is refused.
pub(super) const INSTANCE_FILTERS: &[&str] = &[
    "instance-id",
    "subnet-id",
    "vpc-id",
    "availability-zone",
    "availability-zone-id",
    "private-ip-address",
    "private-dns-name",
    "instance-state-name",
    "instance-state-code",
    "instance-type",
    "image-id",
    "client-token",
    "instance-lifecycle",
    "spot-instance-request-id",
    "reservation-id",
    "capacity-reservation-id",
    "owner-id",
    "launch-time",
    "architecture",
    "state-reason-code",
    "iam-instance-profile.arn",
    "iam-instance-profile.name",
    "key-name",
    "placement-group-name",
    "tenancy",
    "instance.group-id",
    "group-id",
    "dns-name",
    "root-device-type",
    "network-interface.network-interface-id",
    "network-interface.subnet-id",
    "network-interface.vpc-id",
    "network-interface.availability-zone",
    "network-interface.group-id",
    "network-interface.mac-address",
    "network-interface.private-dns-name",
    "network-interface.owner-id",
    "network-interface.status",
    "network-interface.addresses.private-ip-address",
    "network-interface.addresses.primary",
    "network-interface.attachment.device-index",
    "network-interface.attachment.instance-id",
    "network-interface.attachment.status",
    "tag",
];

/// The filters `DescribeInstanceStatus` knows here.
const STATUS_FILTERS: &[&str] = &[
    "instance-state-name",
    "instance-state-code",
    "availability-zone",
    "availability-zone-id",
    "instance-status.status",
    "system-status.status",
];

/// `DescribeInstances`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeInstances {
    /// Only these; one that is unknown (or not visible yet) refuses the call.
    pub instance_ids: Vec<String>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Paging; a page's size counts instances. Not together with ids.
    pub page: Page,
}

/// `DescribeInstanceStatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DescribeInstanceStatus {
    /// Only these.
    pub instance_ids: Vec<String>,
    /// Filters.
    pub filters: Vec<Filter>,
    /// Also those that do not run.
    pub include_all: bool,
    /// Paging.
    pub page: Page,
}

/// One row of `DescribeInstanceStatus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// The instance.
    pub instance: Instance,
    /// `initializing`, `ok` or `not-applicable`; of instance and system alike.
    pub status: &'static str,
}

/// The answer of `GetConsoleOutput`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleOutput {
    /// `i-…`.
    pub instance_id: String,
    /// When it was last written, in ms since 1970: the last state change, or the call for a running one.
    pub at_ms: u64,
    /// The text, not encoded.
    pub output: String,
}

impl Ec2 {
    /// Whether Describe sees an instance yet.
    pub(crate) fn is_visible(&self, instance: &Instance, now_ms: u64) -> bool {
        now_ms >= instance.launched_at_ms + self.settings.visibility_delay_ms
    }

    /// `DescribeInstances`: the reservations with those of their instances that match, and the next page's
    /// token.
    pub fn describe_instances(
        &mut self,
        now_ms: u64,
        request: &DescribeInstances,
    ) -> Ec2Result<(Vec<Reservation>, Option<String>)> {
        let plain = request.instance_ids.is_empty() && request.filters.is_empty();
        self.begin_describe(
            "DescribeInstances",
            now_ms,
            plain && request.page.is_unpaged(),
        )?;
        page::refuse_ids_with_page(
            !request.instance_ids.is_empty(),
            &request.page,
            "instancesSet",
        )?;
        filter::check(&request.filters, INSTANCE_FILTERS)?;
        let rows: Vec<Instance> = self
            .visible(now_ms, &request.instance_ids)?
            .filter(|i| filter::all_match(&request.filters, |name| self.filter_values(i, name)))
            .cloned()
            .collect();
        let (rows, token) = page::cut(rows, &request.page, INSTANCE_PAGE, by_launch)?;
        let mut reservations: Vec<Reservation> = Vec::new();
        for instance in rows {
            match reservations
                .last_mut()
                .filter(|r| r.reservation_id == instance.reservation_id)
            {
                Some(reservation) => reservation.instances.push(instance),
                None => reservations.push(Reservation {
                    reservation_id: instance.reservation_id.clone(),
                    instances: vec![instance],
                }),
            }
        }
        Ok((reservations, token))
    }

    /// `DescribeInstanceStatus`: running instances, or all if asked.
    pub fn describe_instance_status(
        &mut self,
        now_ms: u64,
        request: &DescribeInstanceStatus,
    ) -> Ec2Result<(Vec<InstanceStatus>, Option<String>)> {
        let plain = request.instance_ids.is_empty() && request.filters.is_empty();
        self.begin_describe(
            "DescribeInstanceStatus",
            now_ms,
            plain && request.page.is_unpaged(),
        )?;
        page::refuse_ids_with_page(
            !request.instance_ids.is_empty(),
            &request.page,
            "instancesSet",
        )?;
        filter::check(&request.filters, STATUS_FILTERS)?;
        let rows: Vec<InstanceStatus> = self
            .visible(now_ms, &request.instance_ids)?
            .filter(|i| request.include_all || i.state == InstanceState::Running)
            .map(|i| InstanceStatus {
                instance: i.clone(),
                status: self.status(i, now_ms),
            })
            .filter(|row| {
                filter::all_match(&request.filters, |name| match name {
                    "instance-status.status" | "system-status.status" => {
                        vec![row.status.to_owned()]
                    }
                    other => self.filter_values(&row.instance, other),
                })
            })
            .collect();
        page::cut(rows, &request.page, INSTANCE_PAGE, |row| {
            by_launch(&row.instance)
        })
    }

    fn status(&self, instance: &Instance, now_ms: u64) -> &'static str {
        if instance.state != InstanceState::Running {
            "not-applicable"
        } else if now_ms < instance.state_since_ms + self.settings.status_checks_ms {
            "initializing"
        } else if instance.is_impaired {
            "impaired"
        } else {
            "ok"
        }
    }

    /// `DescribeInstanceAttribute`: the instance whose attribute is asked for.
    pub fn describe_instance_attribute(
        &mut self,
        now_ms: u64,
        instance_id: &str,
    ) -> Ec2Result<Instance> {
        self.begin_describe("DescribeInstanceAttribute", now_ms, false)?;
        self.one_visible(now_ms, instance_id)
    }

    /// `GetConsoleOutput`: what was put there with [`Ec2::append_console`].
    pub fn get_console_output(
        &mut self,
        now_ms: u64,
        instance_id: &str,
    ) -> Ec2Result<ConsoleOutput> {
        self.begin_describe("GetConsoleOutput", now_ms, false)?;
        let instance = self.one_visible(now_ms, instance_id)?;
        let running = instance.state == InstanceState::Running;
        Ok(ConsoleOutput {
            instance_id: instance.instance_id,
            at_ms: if running {
                now_ms
            } else {
                instance.state_since_ms
            },
            output: instance.console,
        })
    }

    /// Has an instance's status checks fail, or pass again.
    pub fn set_impaired(&mut self, instance_id: &str, is_impaired: bool) {
        if let Some(instance) = self.instances.get_mut(instance_id) {
            instance.is_impaired = is_impaired;
        }
    }

    /// Writes on an instance's console. Of more than 64 KB, EC2's limit, the oldest lines go.
    pub fn append_console(&mut self, instance_id: &str, text: &str) {
        const CONSOLE_BYTES_MAX: usize = 65_536;
        let Some(instance) = self.instances.get_mut(instance_id) else {
            return;
        };
        instance.console.push_str(text);
        while instance.console.len() > CONSOLE_BYTES_MAX {
            let line = instance
                .console
                .find('\n')
                .map_or(instance.console.len(), |at| at + 1);
            instance.console.drain(..line);
        }
    }

    fn one_visible(&self, now_ms: u64, instance_id: &str) -> Ec2Result<Instance> {
        let ids = [instance_id.to_owned()];
        let found = self.visible(now_ms, &ids)?.next().cloned();
        found.ok_or_else(|| Ec2Error::no_instances(&ids))
    }

    fn visible<'a>(
        &'a self,
        now_ms: u64,
        ids: &'a [String],
    ) -> Ec2Result<impl Iterator<Item = &'a Instance>> {
        check_ids(ids)?;
        let seen = |id: &&String| {
            self.instances
                .get(*id)
                .is_some_and(|i| self.is_visible(i, now_ms))
        };
        let unknown: Vec<String> = ids.iter().filter(|id| !seen(id)).cloned().collect();
        if !unknown.is_empty() {
            return Err(Ec2Error::no_instances(&unknown));
        }
        Ok(self
            .instances
            .values()
            .filter(move |i| ids.is_empty() || ids.contains(&i.instance_id))
            .filter(move |i| self.is_visible(i, now_ms)))
    }

    fn filter_values(&self, i: &Instance, name: &str) -> Vec<String> {
        let list = |value: Option<String>| value.into_iter().collect();
        let one = match name {
            "instance-id" | "network-interface.attachment.instance-id" => i.instance_id.clone(),
            "subnet-id" | "network-interface.subnet-id" => i.subnet_id.clone(),
            "vpc-id" | "network-interface.vpc-id" => i.vpc_id.clone(),
            "availability-zone" | "network-interface.availability-zone" => {
                i.availability_zone.clone()
            }
            "availability-zone-id" => i.availability_zone_id.clone(),
            "private-ip-address" | "network-interface.addresses.private-ip-address" => {
                return list(i.private_ip.map(|ip| ip.to_string()));
            }
            "private-dns-name" | "network-interface.private-dns-name" => {
                i.private_dns_name(&self.settings.region)
            }
            "instance-state-name" => i.state.as_str().to_owned(),
            "instance-state-code" => i.state.code().to_string(),
            "instance-type" => i.instance_type.clone(),
            "image-id" => i.image_id.clone(),
            "client-token" => i.client_token.clone(),
            "instance-lifecycle" => {
                return list((i.kind == CapacityKind::Spot).then(|| "spot".into()));
            }
            "spot-instance-request-id" => return list(i.spot_request_id.clone()),
            "reservation-id" => i.reservation_id.clone(),
            "capacity-reservation-id" => return list(i.capacity_reservation_id.clone()),
            "owner-id" | "network-interface.owner-id" => self.settings.account.clone(),
            "launch-time" => format!("{:.3}", timestamp(i.launched_at_ms)),
            "architecture" => {
                return list(instance_type(&i.instance_type).map(|t| t.architecture.to_owned()));
            }
            "state-reason-code" => return list(i.state_reason.as_ref().map(|r| r.code.to_owned())),
            "iam-instance-profile.arn" => return list(self.instance_profile_arn(i)),
            "iam-instance-profile.name" => {
                return list(
                    self.instance_profile_arn(i)
                        .and_then(|arn| arn.rsplit('/').next().map(str::to_owned)),
                );
            }
            "key-name" => return list(i.launch.key_name.clone()),
            "placement-group-name" => return list(i.launch.placement_group.clone()),
            "tenancy" => i
                .launch
                .tenancy
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            "instance.group-id" | "group-id" | "network-interface.group-id" => {
                return i.launch.effective_security_groups();
            }
            "dns-name" => String::new(),
            "root-device-type" => "ebs".to_owned(),
            "network-interface.network-interface-id" => i.network_interface_id.clone(),
            "network-interface.mac-address" => i.mac_address.clone(),
            "network-interface.status" => "in-use".to_owned(),
            "network-interface.addresses.primary" => "true".to_owned(),
            "network-interface.attachment.device-index" => "0".to_owned(),
            "network-interface.attachment.status" => "attached".to_owned(),
            other => return filter::tag_values(other, &i.tags),
        };
        // A terminated instance has no interface any more.
        if name.starts_with("network-interface.") && !i.is_held() {
            return Vec::new();
        }
        vec![one]
    }

    /// The ARN of an instance's profile, made from its name where only that was given.
    #[must_use]
    pub fn instance_profile_arn(&self, instance: &Instance) -> Option<String> {
        let profile = instance.launch.instance_profile.as_ref()?;
        profile.arn.clone().or_else(|| {
            let name = profile.name.as_ref()?;
            Some(format!(
                "arn:aws:iam::{}:instance-profile/{name}",
                self.settings.account
            ))
        })
    }
}

fn by_launch(instance: &Instance) -> String {
    format!("{:020}", instance.sequence)
}
