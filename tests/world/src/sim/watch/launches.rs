//! The invariants of launches: tokens, caps, and how many instances there are for how many nodes.

use spillway_core::hostlist::Hostlist;
use spillway_core::name::NodeGroupName;
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::LaunchCall;
use spillway_core::tag;

use super::{CAPS, LAUNCHED_ONCE, OWNED, TOKEN};
use crate::sim::cloud::Live;
use crate::sim::setting::START_MS;
use crate::sim::world::World;

/// While a run is younger than this, all it launched is within one hour.
const HOUR_MS: u64 = 3_500_000;

impl World {
    /// EC2 was asked to launch, and `new` is what it launched.
    pub(crate) fn watch_launch(&mut self, call: &LaunchCall, new: &[String]) {
        let known = self.watch.tokens.get(&call.client_token);
        let other = known.is_some_and(|(first, _)| first != call);
        let before = known.is_some_and(|(_, launched)| *launched);
        let twice = before && !new.is_empty();
        if other || twice {
            let what = format!("token {} stands for two launches", call.client_token);
            self.violate(TOKEN, new.to_vec(), what);
        }
        let launched = before || !new.is_empty();
        self.watch
            .tokens
            .insert(call.client_token.clone(), (call.clone(), launched));
        for id in new {
            let live = self
                .cloud
                .ec2
                .instance(id)
                .and_then(|instance| Live::of(&instance.tags));
            match live {
                Some(live) => {
                    self.cloud.live.insert(id.clone(), live);
                }
                None => self.violate(
                    OWNED,
                    new.to_vec(),
                    format!("{id} lacks the tags of a launch"),
                ),
            }
        }
        self.watch.launched += u32::try_from(new.len()).unwrap_or(u32::MAX);
        if !new.is_empty() {
            self.watch_caps(new);
            self.watch_counts(new);
        }
    }

    fn watch_caps(&mut self, new: &[String]) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let limits = &self.setting.policy.limits;
        let live = count(self.cloud.live.len());
        let mut over = Vec::new();
        if live > limits.max_nodes {
            over.push(format!("{live} nodes, {} allowed", limits.max_nodes));
        }
        if let Some(most) = limits.max_vcpus
            && live * 2 > most
        {
            over.push(format!("{} vCPUs, {most} allowed", live * 2));
        }
        if self.now_ms < START_MS + HOUR_MS && self.watch.launched > limits.launches_per_hour {
            let (launched, most) = (self.watch.launched, limits.launches_per_hour);
            over.push(format!(
                "{launched} launches within an hour, {most} allowed"
            ));
        }
        for group in &self.setting.policy.node_groups {
            let own = self
                .cloud
                .live
                .values()
                .filter(|live| live.group == group.name.as_str());
            let own = count(own.count());
            if own > group.max_nodes {
                over.push(format!(
                    "{own} nodes of {}, {} allowed",
                    group.name, group.max_nodes
                ));
            }
        }
        if !over.is_empty() {
            self.violate(CAPS, new.to_vec(), over.join("; "));
        }
    }

    /// No launch has more instances than nodes.
    fn watch_counts(&mut self, new: &[String]) {
        let Some(Live { launch, chunk, .. }) = self.cloud.live.get(&new[0]).cloned() else {
            return;
        };
        let of_chunk = |live: &&Live| live.launch == launch && live.chunk == chunk;
        let running = self.cloud.live.values().filter(of_chunk).count();
        let stored = self.records.requests.get(&launch);
        let plan = stored.and_then(|stored| stored.record.plan.as_ref());
        let planned = plan.and_then(|plan| plan.chunks.get(chunk as usize));
        let nodes = planned.and_then(|chunk| Hostlist::parse(&chunk.nodes).ok());
        let nodes = nodes.map_or(0, |list| list.len());
        if running > nodes {
            let id = &launch.request_id;
            let what = format!("{running} instances of {id} run for {nodes} nodes");
            self.violate(LAUNCHED_ONCE, new.to_vec(), what);
        }
    }
}

impl Live {
    /// What an instance's tags say.
    fn of(tags: &crate::ec2::Tags) -> Option<Self> {
        let group = NodeGroupName::new(tags.get(tag::NODE_GROUP)?).ok()?;
        Some(Self {
            launch: LaunchKey {
                request_id: tags.get(tag::REQUEST)?.parse().ok()?,
                part: tags.get(tag::PART)?.parse().ok()?,
            },
            chunk: tags.get(tag::CHUNK)?.parse().ok()?,
            group: group.to_string(),
        })
    }
}
