//! Looking: by tags, in pages.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_sdk_ec2::types::{Filter, Instance};
use spillway_control::fault::Fault;
use spillway_control::ports::InstanceSeen;
use spillway_control::record::Origin;
use spillway_core::name::{InstanceId, NodeGroupName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::tag;
use spillway_core::usage::Owner;

use crate::{Ec2Client, classify};

const OPERATION: &str = "DescribeInstances";
const RESERVATION_FILTER: &str = "capacity-reservation-id";
/// The most a page holds (DescribeInstances, `MaxResults`).
const PAGE_SIZE: i32 = 1000;

impl Ec2Client {
    /// All pages: a search over no more instances than a page holds is one call.
    pub(crate) async fn find_by(
        &self,
        tags: &BTreeMap<String, String>,
        reservation_id: Option<&str>,
    ) -> Result<Vec<InstanceSeen>, Fault> {
        let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let by_tags = tags
            .iter()
            .map(|(key, value)| filter(&format!("tag:{key}"), value));
        let by_reservation = reservation_id.map(|id| filter(RESERVATION_FILTER, id));
        let filters = by_tags.chain(by_reservation);
        let call = self
            .client
            .describe_instances()
            .set_filters(Some(filters.collect()))
            .max_results(PAGE_SIZE);
        let mut pages = call.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| classify::fault(OPERATION, &error))?;
            let reservations = page.reservations.unwrap_or_default().into_iter();
            let instances = reservations.flat_map(|r| r.instances.unwrap_or_default());
            found.extend(instances.filter_map(look));
        }
        Ok(found)
    }
}

fn look(instance: Instance) -> Option<InstanceSeen> {
    let address = address(&instance);
    let origin = origin(&instance);
    let is_held = instance
        .tags()
        .iter()
        .any(|tag| tag.key() == Some(tag::HOLD));
    let launched_ms = instance
        .launch_time
        .and_then(|time| time.to_millis().ok())
        .and_then(|ms| u64::try_from(ms).ok());
    let state = instance.state.and_then(|state| state.name)?;
    // EC2's words begin with the code already, where it has any.
    let state_reason = instance
        .state_reason
        .and_then(|reason| reason.message.or(reason.code));
    Some(InstanceSeen {
        instance_id: InstanceId::new(instance.instance_id?).ok()?,
        state: state.as_str().to_owned(),
        state_reason,
        address,
        instance_type: instance
            .instance_type
            .map(|name| name.as_str().to_owned())
            .unwrap_or_default(),
        zone: instance
            .placement
            .and_then(|placement| placement.availability_zone)
            .unwrap_or_default(),
        launched_ms: launched_ms.unwrap_or_default(),
        is_held,
        origin,
    })
}

/// Which launch and node group its tags name.
fn origin(instance: &Instance) -> Option<Origin> {
    let value = |key: &str| {
        let tag = instance.tags().iter().find(|tag| tag.key() == Some(key));
        tag.and_then(|tag| tag.value())
    };
    Some(Origin {
        launch: LaunchKey {
            request_id: RequestId::new(value(tag::REQUEST)?).ok()?,
            part: value(tag::PART)?.parse().ok()?,
        },
        node_group: NodeGroupName::new(value(tag::NODE_GROUP)?).ok()?,
        owner: Owner::default(),
    })
}

/// The address of device 0 on network card 0: an instance with several cards has a device 0 on each, and
/// EC2 lists interfaces in no order.
fn address(instance: &Instance) -> Option<IpAddr> {
    let first = instance.network_interfaces().iter().find(|interface| {
        interface.attachment().is_some_and(|attachment| {
            attachment.device_index() == Some(0)
                && attachment.network_card_index().unwrap_or(0) == 0
        })
    });
    let text = match first {
        Some(interface) => interface.private_ip_address().or_else(|| {
            interface
                .ipv6_addresses()
                .first()
                .and_then(|address| address.ipv6_address())
        }),
        None => instance.private_ip_address(),
    };
    text?.parse().ok()
}
