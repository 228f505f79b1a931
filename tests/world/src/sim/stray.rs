//! Instances that somebody launches with the cluster's tag, past every function: the sweep must find them, and leave
//! them alone while somebody holds them.

use std::collections::BTreeMap;

use spillway_control::tally::Tally;
use spillway_core::tag;

use super::watch::RUNS;
use super::world::{Due, World};

impl World {
    pub(crate) fn stray_comes(&mut self) {
        let request = self.setting.stray();
        let launched = self.cloud.ec2.run_instances(self.now_ms, &request);
        let instances = launched.map(|answer| answer.instances).unwrap_or_default();
        for id in instances.into_iter().map(|instance| instance.instance_id) {
            self.tell(|| format!("== somebody launches {id}"));
            self.cloud.stray.insert(id.clone());
            if self.rng.bool() {
                self.hold(&id, true);
                let after_ms = self.rng.u64(60_000..=400_000);
                self.after(after_ms, Due::HoldEnds(id));
            }
        }
        self.cloud_moved(None);
    }

    pub(crate) fn hold_ends(&mut self, id: &str) {
        self.hold(id, false);
    }

    fn hold(&mut self, id: &str, held: bool) {
        let (ids, now_ms) = ([id.to_owned()], self.now_ms);
        let ec2 = &mut self.cloud.ec2;
        let done = if held {
            let tags = BTreeMap::from([(tag::HOLD.to_owned(), "why".to_owned())]);
            ec2.create_tags(now_ms, &ids, &tags, false)
        } else {
            ec2.delete_tags(now_ms, &ids, &[(tag::HOLD.to_owned(), None)], false)
        };
        // EC2 may not show it yet; then it is not held.
        if held && done.is_ok() {
            self.cloud.held.insert(id.to_owned());
        } else {
            self.cloud.held.remove(id);
        }
        let what = if held { "holds" } else { "lets go of" };
        self.tell(|| format!("== somebody {what} {id}: {:?}", done.err()));
    }

    /// An instance is shutting down.
    pub(crate) fn stray_goes(&mut self, id: &str) {
        if self.cloud.stray.remove(id) && self.cloud.held.remove(id) {
            let what = format!("{id} is ended although somebody holds it");
            self.violate(RUNS, vec![id.to_owned()], what);
        }
    }

    /// Whether nothing is left for the sweep.
    pub(crate) fn is_swept(&self) -> bool {
        self.cloud.stray.is_empty()
            && (!self.setting.sweeps || self.stream.lost.is_empty() || self.all_told())
    }

    fn all_told(&self) -> bool {
        let mut pairings = self.records.pairings.iter();
        pairings.all(|(_, pairing)| pairing.update_due.is_none())
    }

    /// A sweep has ended.
    pub(crate) fn watch_sweep(&mut self, tally: &Tally) {
        let counts: Vec<_> = tally.iter().collect();
        self.tell(|| format!("   swept: {counts:?}"));
    }
}
