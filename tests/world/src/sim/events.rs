//! EventBridge: what EC2 tells of instances comes to the notices queue, unless it is lost; and what EC2 does of itself.

use spillway_control::sender::Sender;

use super::names::{Call, Trouble};
use super::queue::Body;
use super::world::{NOTICES, World};
use crate::ec2::{CapacityKind, Ec2Event, InstanceState};

const ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";
/// A capacity block.
const BLOCK: &str = "cr-00000000000000001";

impl World {
    /// An event that the template's rules let through is delivered, or not.
    pub(crate) fn event_bridge(&mut self, event: &Ec2Event) {
        let is_end = match event {
            Ec2Event::StateChange(change) => match change.to {
                InstanceState::Pending | InstanceState::Running => return,
                _ => true,
            },
            _ => false,
        };
        let id = event.instance_id().to_owned();
        let is_first_word = is_end && !self.watch.ended.contains(&id);
        if self.strike(Call::EventBridge, false) == Some(Trouble::Lost) {
            if is_first_word {
                self.cloud.ended_untold.insert(id);
            }
            return;
        }
        if is_end {
            self.cloud.ended_untold.remove(&id);
            self.watch.ended.insert(id);
        }
        let number = self.fresh_number();
        let text = event.to_event_bridge(&number.to_string(), ACCOUNT, REGION);
        self.send(NOTICES, Body::Notice(text.to_string()), Sender::Other, 0);
    }

    /// EC2 takes a spot instance back, or says that it may; or a capacity block ends.
    pub(crate) fn ec2_wants_back(&mut self) {
        let ids: Vec<String> = self.cloud.live.keys().cloned().collect();
        if ids.is_empty() {
            return;
        }
        let id = &ids[self.rng.usize(..ids.len())];
        let is_spot = self
            .cloud
            .ec2
            .instance(id)
            .is_some_and(|instance| instance.kind == CapacityKind::Spot);
        match (is_spot, self.rng.f64() < 0.7) {
            (true, true) => {
                self.tell(|| format!("== EC2 takes {id} back"));
                let _announced = self.cloud.ec2.interrupt_spot(self.now_ms, id);
            }
            (true, false) => {
                self.tell(|| format!("== EC2 may take {id} back"));
                let _said = self.cloud.ec2.recommend_rebalance(self.now_ms, id);
            }
            (false, _) => self.block_ends(id),
        }
        self.cloud_moved(None);
    }

    /// Only announced: that EC2 then takes the instance is no different from any other end.
    fn block_ends(&mut self, id: &str) {
        self.tell(|| format!("== the capacity block of {id} ends"));
        self.cloud.ec2.place_in_reservation(id, BLOCK);
        let at_ms = |ms| format!("{:.0}", crate::ec2::timestamp(ms));
        let event = serde_json::json!({
            "detail-type": "Capacity Block Reservation Expiration Warning",
            "source": "aws.ec2",
            "time": at_ms(self.now_ms),
            "detail": {"capacity-reservation-id": BLOCK, "end-date": at_ms(self.now_ms + 31 * 60_000)},
        });
        self.send(NOTICES, Body::Notice(event.to_string()), Sender::Other, 0);
    }
}
