//! Telling slurmctld: the present updates of nodes, packed into envelopes, sent until acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use spillway_core::config::Policy;
use spillway_core::envelope::{
    CoolOff, ENVELOPE_LIFE_MS, Envelope, JobNote, MAX_ENVELOPE_BYTES, Update, UpdateAction,
};
use spillway_core::hostlist::{self, Hostlist};
use spillway_core::message::{HEARTBEAT_STALE_MS, RESEND_SECONDS, ReportBody, Resend};
use spillway_core::name::{Generation, NodeGroupName, NodeName, RequestId};
use spillway_core::pairing::{DueAction, DueCoolOff, Pairing};
use tracing::{info, warn};

use crate::fault::Fault;
use crate::ports::{Clock, Commands, Control, Keys, Queues, Table};
use crate::roads::{self, Roads};
use crate::tally::{self, Tally};

/// How many nodes an update names at most: an address takes at most 42 bytes as JSON (IPv6), a name of
/// usual length 20 in a hostlist that does not fold, so that 300 stay below [`MAX_ENVELOPE_BYTES`].
const MAX_UPDATE_NODES: usize = 300;

/// How many nodes one resend timer names: timers are small messages.
const MAX_TIMER_NODES: usize = 2_000;

/// Sends what is due for `nodes` now. The timer that looks whether it was acknowledged is set first: whatever
/// happens to the envelope, what is due is looked at again. While the agent is away an update is sent once and then
/// only its timers go on; the agent says hello when it is back.
pub async fn deliver<T: Table, Q: Queues, C: Clock, K: Keys, S: Commands>(
    control: &Control<T, Q, C>,
    roads: &Roads<K, S>,
    nodes: &BTreeSet<NodeName>,
) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let nodes: Vec<NodeName> = nodes.iter().cloned().collect();
    let stored = control.table.pairings(&nodes).await?;
    let mut due: Vec<Pairing> = stored
        .into_iter()
        .map(|s| s.record)
        .filter(|p| p.update_due.is_some())
        .collect();
    set_timers(control, &due).await?;
    if due.iter().any(|p| attempt(p) > 0) && agent_is_away(control).await? {
        due.retain(|p| attempt(p) == 0);
        warn!(
            nodes = nodes.len() - due.len(),
            "updates wait for the agent, which has not been heard of"
        );
    }
    let policy = if due.iter().any(is_about_its_group) {
        control.table.policy().await?
    } else {
        None
    };
    let envelopes = pack(updates(&due, policy.as_ref())).into_iter();
    let envelopes: Vec<Envelope> = envelopes
        .map(|updates| envelope(&control.clock, updates))
        .collect();
    tally.merge(&roads::send(control, roads, &envelopes).await?);
    tally.add(tally::UPDATES_SENT, due.len());
    Ok(tally)
}

/// Whether what is due speaks of the node's whole group, which the policy names.
fn is_about_its_group(pairing: &Pairing) -> bool {
    let action = pairing.update_due.as_ref().map(|due| &due.action);
    matches!(
        action,
        Some(
            DueAction::Fail {
                cool_off: Some(_),
                ..
            } | DueAction::Drain { replace: true, .. }
        )
    )
}

fn attempt(pairing: &Pairing) -> u32 {
    pairing.update_due.as_ref().map_or(0, |due| due.attempt)
}

/// Sets the timers that look whether what is due is acknowledged, each for nodes at one attempt.
async fn set_timers<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
    due: &[Pairing],
) -> Result<(), Fault> {
    let mut by_attempt: BTreeMap<u32, Vec<&NodeName>> = BTreeMap::new();
    for pairing in due {
        let nodes = by_attempt.entry(attempt(pairing)).or_default();
        nodes.push(&pairing.node);
    }
    for (attempt, nodes) in by_attempt {
        for nodes in nodes.chunks(MAX_TIMER_NODES) {
            let nodes = hostlist::fold(nodes);
            let timer = ReportBody::Resend(Resend { nodes, attempt });
            control.queues.send_report(timer, RESEND_SECONDS).await?;
        }
    }
    Ok(())
}

/// An agent not heard of for long is away. Reports that wait in a long queue make it look so too.
async fn agent_is_away<T: Table, Q: Queues, C: Clock>(
    control: &Control<T, Q, C>,
) -> Result<bool, Fault> {
    let now_ms = control.clock.now_ms();
    let heartbeat = control.table.heartbeat().await?;
    Ok(heartbeat.is_none_or(|heard| now_ms.saturating_sub(heard.received_ms) > HEARTBEAT_STALE_MS))
}

/// An envelope of now, for a bundle of updates.
fn envelope<C: Clock>(clock: &C, updates: Vec<Update>) -> Envelope {
    let issued_ms = clock.now_ms();
    let envelope = Envelope {
        envelope_id: clock.fresh_id(),
        issued_ms,
        expires_ms: issued_ms + ENVELOPE_LIFE_MS,
        updates,
    };
    for update in &envelope.updates {
        info!(
            request_id = update.request_id.as_ref().map(RequestId::as_str),
            envelope_id = envelope.envelope_id,
            generation = %update.generation,
            nodes = update.nodes,
            "update {} for {}",
            verb(&update.action),
            update.nodes,
        );
    }
    envelope
}

fn verb(action: &UpdateAction) -> &'static str {
    match action {
        UpdateAction::Address { .. } => "address",
        UpdateAction::Fail { .. } => "fail",
        UpdateAction::Drain { .. } => "drain",
        UpdateAction::Requeue { .. } => "requeue",
        UpdateAction::Recover { .. } => "recover",
    }
}

/// The due updates, nodes with the same one together, at most [`MAX_UPDATE_NODES`] in each.
fn updates(due: &[Pairing], policy: Option<&Policy>) -> Vec<Update> {
    /// What the nodes of one update share: of addresses each has its own, and of what speaks of a group they share it.
    type Key<'a> = (
        Generation,
        u64,
        Option<&'a RequestId>,
        Option<(&'a DueAction, Option<&'a NodeGroupName>)>,
        Option<&'a JobNote>,
    );
    let mut groups: BTreeMap<Key<'_>, Vec<&Pairing>> = BTreeMap::new();
    for (pairing, update) in due.iter().filter_map(|p| Some((p, p.update_due.as_ref()?))) {
        let group = is_about_its_group(pairing)
            .then(|| policy?.group_of(&pairing.node))
            .flatten();
        let action = match &update.action {
            DueAction::Address { .. } => None,
            action => Some((action, group.map(|group| &group.name))),
        };
        let request_id = pairing.request_id.as_ref();
        let note = update.note.as_ref();
        let key = (pairing.generation, update.number, request_id, action, note);
        groups.entry(key).or_default().push(pairing);
    }
    let mut updates = Vec::new();
    for ((generation, number, request_id, action, note), members) in groups {
        for members in members.chunks(MAX_UPDATE_NODES) {
            updates.push(Update {
                nodes: hostlist::fold(members.iter().map(|pairing| &pairing.node)),
                generation,
                number,
                request_id: request_id.cloned(),
                action: match action {
                    Some((action, group)) => told(action, group, policy),
                    None => UpdateAction::Address {
                        addresses: members.iter().filter_map(|p| address(p)).collect(),
                    },
                },
                note: note.cloned(),
            });
        }
    }
    updates
}

/// What is due, as it is told. `group`: the node group that it speaks of, where it speaks of one.
fn told(
    action: &DueAction,
    group: Option<&NodeGroupName>,
    policy: Option<&Policy>,
) -> UpdateAction {
    match action {
        DueAction::Address { address } => UpdateAction::Address {
            addresses: vec![*address],
        },
        DueAction::Fail { reason, cool_off } => UpdateAction::Fail {
            reason: reason.clone(),
            cool_off: cool_off.as_ref().and_then(|due| rest(due, policy?)),
        },
        DueAction::Drain {
            reason,
            signal,
            replace: _,
        } => UpdateAction::Drain {
            reason: reason.clone(),
            signal: signal.clone(),
            replace_from: group.and_then(|name| Some(nodes_of(name, policy?)?.to_string())),
        },
        DueAction::Requeue { reason } => UpdateAction::Requeue {
            reason: reason.clone(),
        },
        DueAction::Recover { reason } => UpdateAction::Recover {
            reason: reason.clone(),
        },
    }
}

fn nodes_of<'a>(name: &NodeGroupName, policy: &'a Policy) -> Option<&'a Hostlist> {
    policy.node_groups.get(name).map(|group| &group.nodes)
}

/// The whole group rests; none if the policy does not name it any more.
fn rest(due: &DueCoolOff, policy: &Policy) -> Option<CoolOff> {
    Some(CoolOff {
        node_group: due.node_group.clone(),
        nodes: nodes_of(&due.node_group, policy)?.to_string(),
        until_ms: due.until_ms,
    })
}

fn address(pairing: &Pairing) -> Option<std::net::IpAddr> {
    match pairing.update_due.as_ref()?.action {
        DueAction::Address { address } => Some(address),
        _ => None,
    }
}

/// Fills envelopes up to [`MAX_ENVELOPE_BYTES`]; an update too large by itself is halved.
fn pack(updates: Vec<Update>) -> Vec<Vec<Update>> {
    /// Room for the message's and the envelope's own fields.
    const FRAME_BYTES: usize = 1_000;
    let mut envelopes: Vec<Vec<Update>> = Vec::new();
    let mut used = 0;
    let mut open = updates;
    open.reverse();
    while let Some(update) = open.pop() {
        let bytes =
            serde_json::to_string(&update).map_or(MAX_ENVELOPE_BYTES, |text| text.len() + 1);
        if bytes + FRAME_BYTES > MAX_ENVELOPE_BYTES
            && let Some((first, second)) = halves(&update)
        {
            open.push(second);
            open.push(first);
            continue;
        }
        match envelopes.last_mut() {
            Some(last) if used + bytes + FRAME_BYTES <= MAX_ENVELOPE_BYTES => {
                last.push(update);
                used += bytes;
            }
            _ => {
                envelopes.push(vec![update]);
                used = bytes;
            }
        }
    }
    envelopes
}

/// The same update for the first and the second half of its nodes; none for a single node.
fn halves(update: &Update) -> Option<(Update, Update)> {
    let names: Vec<String> = Hostlist::parse(&update.nodes).ok()?.iter().collect();
    let middle = names.len() / 2;
    if middle == 0 {
        return None;
    }
    let part = |range: std::ops::Range<usize>| {
        let action = match &update.action {
            UpdateAction::Address { addresses } => UpdateAction::Address {
                addresses: addresses[range.clone()].to_vec(),
            },
            action => action.clone(),
        };
        Update {
            nodes: hostlist::fold(&names[range]),
            action,
            ..update.clone()
        }
    };
    Some((part(0..middle), part(middle..names.len())))
}
