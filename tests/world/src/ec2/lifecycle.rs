//! The life of instances: what time does to them, and what ends them.

use super::Ec2;
use super::error::{Ec2Error, Ec2Result};
use super::instance::{
    Ec2Event, INSTANCE_INITIATED, InstanceChange, InstanceState, Interruption, SPOT_SHUTDOWN,
    SPOT_TERMINATION, StateReason, USER_INITIATED,
};
use super::request::CapacityKind;
use super::template::ShutdownBehavior;

/// The most ids one `TerminateInstances` takes (EC2 guide: 1000).
const TERMINATE_IDS_MAX: usize = 1000;

/// What a timer does when it is due. Each looks at the state first, so none needs to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Run,
    Interrupt,
    Terminated,
    Stopped,
    Forget,
}

/// One row of `TerminateInstances`' answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTransition {
    /// `i-…`.
    pub instance_id: String,
    /// State before the call.
    pub previous: InstanceState,
    /// State after it.
    pub current: InstanceState,
}

impl Ec2 {
    /// Lets time pass until `now_ms`: everything due happens, each at its own time and in order.
    pub fn advance(&mut self, now_ms: u64) {
        while let Some((due_ms, _, instance_id, due)) = self.timers.first().cloned() {
            if due_ms > now_ms {
                break;
            }
            self.timers.pop_first();
            self.now_ms = self.now_ms.max(due_ms);
            self.fire(&instance_id, due, due_ms);
        }
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// When something happens next by itself, if anything does.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        self.timers.first().map(|(due_ms, ..)| *due_ms)
    }

    pub(super) fn schedule(&mut self, due_ms: u64, instance_id: &str, due: Due) {
        let sequence = self.next_sequence();
        self.timers
            .insert((due_ms, sequence, instance_id.to_owned(), due));
    }

    fn fire(&mut self, instance_id: &str, due: Due, at_ms: u64) {
        let Some(instance) = self.instances.get(instance_id) else {
            return;
        };
        match (due, instance.state) {
            (Due::Run, InstanceState::Pending) => {
                self.change(instance_id, InstanceState::Running, None, at_ms);
            }
            (Due::Interrupt, InstanceState::Pending | InstanceState::Running) => {
                let stops = instance
                    .interruption
                    .as_ref()
                    .is_some_and(|i| i.action != "terminate");
                if stops {
                    self.stop(instance_id, SPOT_SHUTDOWN, at_ms);
                } else {
                    self.shut_down(instance_id, SPOT_TERMINATION, at_ms);
                }
            }
            (Due::Terminated, InstanceState::ShuttingDown) => {
                self.change(instance_id, InstanceState::Terminated, None, at_ms);
                self.release_address(instance_id);
                self.schedule(
                    at_ms + self.settings.terminated_visible_ms,
                    instance_id,
                    Due::Forget,
                );
            }
            (Due::Stopped, InstanceState::Stopping) => {
                self.change(instance_id, InstanceState::Stopped, None, at_ms);
            }
            (Due::Forget, InstanceState::Terminated) => {
                self.instances.remove(instance_id);
            }
            _ => {}
        }
    }

    /// Brings an instance into a state and tells of it. A reason once given stays.
    pub(super) fn change(
        &mut self,
        instance_id: &str,
        to: InstanceState,
        reason: Option<StateReason>,
        at_ms: u64,
    ) {
        let Some(instance) = self.instances.get_mut(instance_id) else {
            return;
        };
        let Some(private_ip) = instance.private_ip else {
            return;
        };
        let from = Some(instance.state);
        instance.state = to;
        instance.state_since_ms = at_ms;
        instance.state_reason = reason.or(instance.state_reason.take());
        let change = InstanceChange {
            instance_id: instance_id.to_owned(),
            from,
            to,
            at_ms,
            private_ip,
            subnet_id: instance.subnet_id.clone(),
            availability_zone: instance.availability_zone.clone(),
            instance_type: instance.instance_type.clone(),
        };
        self.events.push(Ec2Event::StateChange(change));
    }

    fn release_address(&mut self, instance_id: &str) {
        let Some(instance) = self.instances.get_mut(instance_id) else {
            return;
        };
        if let Some(address) = instance.private_ip.take()
            && let Some(subnet) = self.subnets.get_mut(&instance.subnet_id)
        {
            subnet.give_back(address);
        }
    }

    fn shut_down(&mut self, instance_id: &str, reason: StateReason, at_ms: u64) {
        self.change(
            instance_id,
            InstanceState::ShuttingDown,
            Some(reason),
            at_ms,
        );
        self.schedule(
            at_ms + self.settings.shutting_down_ms,
            instance_id,
            Due::Terminated,
        );
    }

    fn stop(&mut self, instance_id: &str, reason: StateReason, at_ms: u64) {
        self.change(instance_id, InstanceState::Stopping, Some(reason), at_ms);
        self.schedule(at_ms + self.settings.stopping_ms, instance_id, Due::Stopped);
    }

    /// `TerminateInstances`. One id that is unknown, or not visible yet, refuses them all; one that is already going is
    /// left as it is.
    pub fn terminate_instances(
        &mut self,
        now_ms: u64,
        instance_ids: &[String],
        dry_run: bool,
    ) -> Ec2Result<Vec<StateTransition>> {
        self.begin("TerminateInstances", now_ms)?;
        if instance_ids.is_empty() {
            return Err(Ec2Error::missing("InstanceId"));
        }
        if instance_ids.len() > TERMINATE_IDS_MAX {
            return Err(Ec2Error::invalid_value(format!(
                "The number of instances to terminate must not exceed {TERMINATE_IDS_MAX}."
            )));
        }
        check_ids(instance_ids)?;
        let unknown: Vec<String> = instance_ids
            .iter()
            .filter(|id| {
                let instance = self.instances.get(*id);
                !instance.is_some_and(|instance| self.is_visible(instance, now_ms))
            })
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(Ec2Error::no_instances(&unknown));
        }
        if dry_run {
            return Err(Ec2Error::dry_run());
        }
        self.take_terminate_tokens(instance_ids.len(), now_ms)?;
        let mut answer: Vec<StateTransition> = Vec::new();
        for id in instance_ids {
            if answer.iter().any(|row| &row.instance_id == id) {
                continue;
            }
            let previous = self.instances[id].state;
            if !matches!(
                previous,
                InstanceState::ShuttingDown | InstanceState::Terminated
            ) {
                self.shut_down(id, USER_INITIATED, now_ms);
            }
            let current = self.instances[id].state;
            answer.push(StateTransition {
                instance_id: id.clone(),
                previous,
                current,
            });
        }
        Ok(answer)
    }

    /// The instance shuts itself down: it is terminated or stopped as its shutdown behaviour says. Answers
    /// the state it goes to, none if it was not running.
    pub fn shut_down_from_inside(
        &mut self,
        now_ms: u64,
        instance_id: &str,
    ) -> Option<InstanceState> {
        self.advance(now_ms);
        let instance = self.instances.get(instance_id)?;
        if !matches!(
            instance.state,
            InstanceState::Pending | InstanceState::Running
        ) {
            return None;
        }
        match instance.shutdown_behavior() {
            ShutdownBehavior::Terminate => self.shut_down(instance_id, INSTANCE_INITIATED, now_ms),
            ShutdownBehavior::Stop => self.stop(instance_id, INSTANCE_INITIATED, now_ms),
        }
        self.instances.get(instance_id).map(|i| i.state)
    }

    /// EC2 announces that it takes a spot instance back, and does so [`super::Settings::spot_notice_ms`]
    /// later. Refused (`InvalidParameterValue`) for an instance that is not spot or not alive.
    pub fn interrupt_spot(&mut self, now_ms: u64, instance_id: &str) -> Ec2Result<Interruption> {
        self.advance(now_ms);
        self.require_live_spot(instance_id)?;
        let at_ms = now_ms + self.settings.spot_notice_ms;
        let Some(instance) = self.instances.get_mut(instance_id) else {
            return Err(Ec2Error::no_instances(&[instance_id.to_owned()]));
        };
        let action = instance
            .launch
            .spot
            .as_ref()
            .and_then(|s| s.interruption_behavior.clone());
        let action = action.unwrap_or_else(|| "terminate".to_owned());
        let interruption = Interruption { action, at_ms };
        instance.interruption = Some(interruption.clone());
        self.events.push(Ec2Event::SpotInterruptionWarning {
            instance_id: instance_id.to_owned(),
            interruption: interruption.clone(),
            at_ms: now_ms,
        });
        self.schedule(at_ms, instance_id, Due::Interrupt);
        Ok(interruption)
    }

    /// An instance runs in a capacity reservation from now on. Which one a launch would have chosen the model does not
    /// know.
    pub fn place_in_reservation(&mut self, instance_id: &str, reservation_id: &str) {
        if let Some(instance) = self.instances.get_mut(instance_id) {
            instance.capacity_reservation_id = Some(reservation_id.to_owned());
        }
    }

    /// EC2 recommends to rebalance a spot instance. Nothing happens to it.
    pub fn recommend_rebalance(&mut self, now_ms: u64, instance_id: &str) -> Ec2Result<()> {
        self.advance(now_ms);
        self.require_live_spot(instance_id)?;
        if let Some(instance) = self.instances.get_mut(instance_id) {
            instance.rebalance_at_ms = Some(now_ms);
        }
        let instance_id = instance_id.to_owned();
        self.events.push(Ec2Event::RebalanceRecommendation {
            instance_id,
            at_ms: now_ms,
        });
        Ok(())
    }

    fn require_live_spot(&self, instance_id: &str) -> Ec2Result<()> {
        let Some(instance) = self.instances.get(instance_id) else {
            return Err(Ec2Error::no_instances(&[instance_id.to_owned()]));
        };
        let alive = matches!(
            instance.state,
            InstanceState::Pending | InstanceState::Running
        );
        if !alive || instance.kind != CapacityKind::Spot {
            return Err(Ec2Error::invalid_value(format!(
                "The instance {instance_id} is not a live spot instance."
            )));
        }
        Ok(())
    }
}

/// Refuses ids that cannot be instance ids.
pub(super) fn check_ids(ids: &[String]) -> Ec2Result<()> {
    for id in ids {
        let digits = id.strip_prefix("i-").unwrap_or_default();
        let hexadecimal = digits.chars().all(|c| c.is_ascii_hexdigit());
        if !hexadecimal || !matches!(digits.len(), 8 | 17) {
            return Err(Ec2Error::client(
                "InvalidInstanceID.Malformed",
                format!("Invalid id: \"{id}\""),
            ));
        }
    }
    Ok(())
}
