//! Publishing what happens, for the site: the events of changes of the table's items.

use spillway_core::name::ClusterName;
use spillway_core::site_event::{Change, SiteEvent};
use tracing::warn;

use crate::fault::Fault;
use crate::ports::{Clock, EventBus, Table};
use crate::tally::{self, Tally};

/// How often an event is offered to the bus within one invocation. What it does not take then comes with the stream's
/// next delivery.
const MAX_TRIES: u32 = 3;
/// The wait before the second try; twice as long before the third.
const FIRST_WAIT_MS: u64 = 200;

/// What was published.
#[derive(Debug)]
pub struct Published {
    /// In numbers.
    pub tally: Tally,
    /// The first change of which an event was not taken, by its place, and why.
    pub failed: Option<(usize, Fault)>,
}

/// Publishes the events of `changes`, those first that happened first. An event may be published twice, with the same
/// `detail.id`; none is passed over.
pub async fn publish<T: Table, B: EventBus, C: Clock>(
    cluster: &ClusterName,
    table: &T,
    bus: &B,
    clock: &C,
    changes: &[Change],
) -> Result<Published, Fault> {
    let mut tally = Tally::default();
    let is_news = |change: &Change| !change.events(cluster, None).is_empty();
    if !changes.iter().any(is_news) {
        return Ok(Published {
            tally,
            failed: None,
        });
    }
    // Which group a node is in is the policy's to say, if it can be read: an event is worth more than its node's group.
    let policy = match table.policy().await {
        Ok(policy) => policy,
        Err(fault) if fault.is_passing() => return Err(fault),
        Err(fault) => {
            warn!(%fault, "the policy cannot be read; the events lack node groups");
            None
        }
    };
    let events = changes.iter().enumerate().flat_map(|(place, change)| {
        let events = change.events(cluster, policy.as_ref());
        events.into_iter().map(move |event| (place, event))
    });
    let events: Vec<(usize, SiteEvent)> = events.collect();
    let all = events.len();
    let refused = offer(bus, clock, events).await;
    tally.add(tally::EVENTS_PUBLISHED, all - refused.len());
    let failed = refused.into_iter().min_by_key(|(place, _)| *place);
    Ok(Published { tally, failed })
}

/// Offers events to the bus until it has taken them, or often enough. Answers those it did not take.
async fn offer<B: EventBus, C: Clock>(
    bus: &B,
    clock: &C,
    mut events: Vec<(usize, SiteEvent)>,
) -> Vec<(usize, Fault)> {
    let mut refused = Vec::new();
    for number in 0..MAX_TRIES {
        if number > 0 {
            clock.sleep_ms(FIRST_WAIT_MS << (number - 1)).await;
        }
        let (places, offered): (Vec<usize>, Vec<SiteEvent>) = events.into_iter().unzip();
        let answers = bus.publish(&offered).await;
        (events, refused) = (Vec::new(), Vec::new());
        for ((place, event), answer) in places.into_iter().zip(offered).zip(answers) {
            if let Err(fault) = answer {
                warn!(id = event.detail.id(), %fault, "the bus did not take an event");
                events.push((place, event));
                refused.push((place, fault));
            }
        }
        if events.is_empty() {
            break;
        }
    }
    refused
}
