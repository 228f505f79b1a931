//! A reader for each kind of event that concerns us.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Event, Notice, NoticeError, ReservationEnds, Warning, WarningKind, reason, time};
use crate::name::InstanceId;

const EC2: &str = "aws.ec2";

/// How long after its warning EC2 takes a spot instance (EC2 user guide, "Spot Instance interruption notices"). A
/// hibernation begins at once.
const SPOT_WARNING_MS: u64 = 120_000;

/// How long before a capacity block's end EC2 begins to take its instances (EC2 user guide, "Monitor Capacity Blocks using
/// EventBridge"): the warning comes ten minutes before that.
const BLOCK_ENDS_EARLY_MS: u64 = 30 * 60_000;
const BLOCK_WARNING_MS: u64 = 10 * 60_000;

/// Longest id of a reservation: `cr-` and 17 digits.
const MAX_RESERVATION_CHARS: usize = 20;

type Read = fn(&Event) -> Result<Notice, NoticeError>;

/// Source, detail-type, and who reads it.
const READERS: [(&str, &str, Read); 8] = [
    (EC2, "EC2 Spot Instance Interruption Warning", spot),
    (EC2, "EC2 Instance Rebalance Recommendation", rebalance),
    (EC2, "EC2 Instance State-change Notification", state_change),
    ("aws.health", "AWS Health Event", health),
    (
        EC2,
        "EC2 Capacity Reservation Instance Interruption Warning",
        reservation,
    ),
    // The guide's pages have it with and without the second word.
    (EC2, "Capacity Block Reservation Expiration Warning", block),
    (EC2, "Capacity Block Expiration Warning", block),
    (EC2, "AWS Service Event via CloudTrail", cloud_trail),
];

pub(super) fn reader(source: &str, detail_type: &str) -> Option<Read> {
    let of_kind = |(from, kind, _): &&(&str, &str, Read)| *from == source && *kind == detail_type;
    READERS.iter().find(of_kind).map(|(_, _, read)| *read)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OfInstance {
    instance_id: InstanceId,
    #[serde(default)]
    instance_action: Option<String>,
    /// Of an interruption of a reservation's instance.
    #[serde(default)]
    instance_termination_time: Option<String>,
    /// Of a change of state.
    #[serde(default)]
    state: Option<String>,
}

fn spot(event: &Event) -> Result<Notice, NoticeError> {
    let detail: OfInstance = event.detail()?;
    let action = detail.instance_action.as_deref().unwrap_or("terminate");
    let lead_ms = if action == "hibernate" {
        0
    } else {
        SPOT_WARNING_MS
    };
    let until_ms = event.date("time", &event.time)?.saturating_add(lead_ms);
    Ok(Notice::of(event.warning(
        WarningKind::Interruption,
        detail.instance_id,
        Some(until_ms),
        &format!(": {action}"),
    )))
}

fn rebalance(event: &Event) -> Result<Notice, NoticeError> {
    let detail: OfInstance = event.detail()?;
    let kind = WarningKind::Rebalance;
    Ok(Notice::of(event.warning(
        kind,
        detail.instance_id,
        None,
        "",
    )))
}

/// An instance that stops serves no more than one that ends.
fn state_change(event: &Event) -> Result<Notice, NoticeError> {
    let detail: OfInstance = event.detail()?;
    match detail.state.as_deref() {
        Some(state @ ("stopping" | "stopped" | "shutting-down" | "terminated")) => {
            Ok(Notice::of(event.warning(
                WarningKind::Gone,
                detail.instance_id,
                None,
                &format!(": {state}"),
            )))
        }
        _ => Ok(Notice::default()),
    }
}

fn reservation(event: &Event) -> Result<Notice, NoticeError> {
    let detail: OfInstance = event.detail()?;
    let action = detail.instance_action.as_deref().unwrap_or("terminate");
    let at = detail.instance_termination_time.as_deref();
    let until_ms = at.map(|at| event.date("instance-termination-time", at));
    Ok(Notice::of(event.warning(
        WarningKind::Interruption,
        detail.instance_id,
        until_ms.transpose()?,
        &format!(": {action}"),
    )))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    #[serde(default)]
    service: String,
    #[serde(default)]
    event_type_category: String,
    #[serde(default)]
    event_type_code: String,
    /// `open`, `upcoming`, `closed`.
    #[serde(default)]
    status_code: String,
    #[serde(default)]
    start_time: Option<String>,
    #[serde(default)]
    affected_entities: Vec<Entity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entity {
    #[serde(default)]
    entity_value: String,
}

/// Entities of other kinds, such as volumes and dedicated hosts, are passed over.
fn health(event: &Event) -> Result<Notice, NoticeError> {
    let detail: Health = event.detail()?;
    let is_change = detail.service == "EC2" && detail.event_type_category == "scheduledChange";
    if !is_change || detail.status_code == "closed" {
        return Ok(Notice::default());
    }
    let at = detail.start_time.as_deref();
    let until_ms = at.map(|at| event.date("startTime", at)).transpose()?;
    let words = format!(": {}", detail.event_type_code);
    let entities = detail.affected_entities.iter();
    let ids = entities.filter_map(|entity| {
        let id = entity.entity_value.rsplit('/').next()?;
        InstanceId::new(id).ok()
    });
    let warning = |id| event.warning(WarningKind::Maintenance, id, until_ms, &words);
    Ok(Notice {
        warnings: ids.map(warning).collect(),
        reservation: None,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Block {
    capacity_reservation_id: String,
    #[serde(default)]
    end_date: Option<String>,
}

fn block(event: &Event) -> Result<Notice, NoticeError> {
    let Block {
        capacity_reservation_id: id,
        end_date,
    } = event.detail()?;
    let digits = id.strip_prefix("cr-").unwrap_or_default();
    let is_id = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_alphanumeric());
    if !is_id || id.len() > MAX_RESERVATION_CHARS {
        let found = id.chars().take(MAX_RESERVATION_CHARS).collect();
        let detail_type = event.detail_type.clone();
        return Err(NoticeError::Reservation { detail_type, found });
    }
    let until_ms = match end_date {
        Some(end) => event
            .date("end-date", &end)?
            .saturating_sub(BLOCK_ENDS_EARLY_MS),
        None => event
            .date("time", &event.time)?
            .saturating_add(BLOCK_WARNING_MS),
    };
    let words = format!("{}: {id}", event.detail_type);
    Ok(Notice {
        warnings: Vec::new(),
        reservation: Some(ReservationEnds {
            reservation_id: id,
            until_ms: Some(until_ms),
            reason: reason(&words, Some(until_ms)),
        }),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CloudTrail {
    #[serde(default)]
    event_source: String,
    #[serde(default)]
    event_name: String,
    #[serde(default)]
    service_event_details: Option<ServiceEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceEvent {
    #[serde(default)]
    instance_id_set: Vec<String>,
}

/// By the time that `CloudTrail` tells of an eviction it has happened.
fn cloud_trail(event: &Event) -> Result<Notice, NoticeError> {
    let detail: CloudTrail = event.detail()?;
    if detail.event_source != "ec2.amazonaws.com" || detail.event_name != "BidEvictedEvent" {
        return Ok(Notice::default());
    }
    let ids = detail.service_event_details.map(|set| set.instance_id_set);
    let words = format!(": {}", detail.event_name);
    let warning = |id: String| match InstanceId::new(id) {
        Ok(id) => Ok(event.warning(WarningKind::Gone, id, None, &words)),
        Err(source) => Err(NoticeError::Instance {
            detail_type: event.detail_type.clone(),
            source,
        }),
    };
    let warnings = ids.unwrap_or_default().into_iter().map(warning);
    Ok(Notice {
        warnings: warnings.collect::<Result<_, _>>()?,
        reservation: None,
    })
}

impl Event {
    fn detail<T: DeserializeOwned>(&self) -> Result<T, NoticeError> {
        T::deserialize(&self.detail).map_err(|source| NoticeError::Detail {
            detail_type: self.detail_type.clone(),
            source,
        })
    }

    fn date(&self, field: &'static str, text: &str) -> Result<u64, NoticeError> {
        /// Enough to recognise what stands there.
        const SHOWN_CHARS: usize = 64;
        time::read(text).ok_or_else(|| NoticeError::Time {
            detail_type: self.detail_type.clone(),
            field,
            found: text.chars().take(SHOWN_CHARS).collect(),
        })
    }

    fn warning(
        &self,
        kind: WarningKind,
        instance: InstanceId,
        until_ms: Option<u64>,
        words: &str,
    ) -> Warning {
        Warning {
            kind,
            instance,
            until_ms,
            reason: reason(&format!("{}{words}", self.detail_type), until_ms),
        }
    }
}
