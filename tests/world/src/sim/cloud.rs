//! EC2 behind its port (`port`): calls are mapped to the model as the adapter maps them to the SDK (`functions/ec2`).

mod port;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::{InstanceSeen, Terminated};
use spillway_control::record::{LaunchAnswer, Origin, Shortage};
use spillway_core::capacity::Reach;
use spillway_core::name::{InstanceId, NodeGroupName, RequestId};
use spillway_core::pairing::LaunchKey;
use spillway_core::plan::{Candidate, LaunchCall};
use spillway_core::tag;
use spillway_core::usage::Owner;

use super::names::{Call, Trouble};
use super::port::fault;
use super::world::{Due, World};
use crate::ec2;

/// EC2 shows everything after this; until then a look may lack what is new.
const SHOWN_AFTER_MS: u64 = 9_000;

/// EC2, and what is known of what runs.
#[derive(Debug)]
pub(crate) struct Cloud {
    pub ec2: ec2::Ec2,
    /// Instances that are pending or running.
    pub live: BTreeMap<String, Live>,
    /// Instances that no function launched, while they live.
    pub stray: BTreeSet<String>,
    /// Those that somebody holds.
    pub held: BTreeSet<String>,
    /// What was asked of it, and how often it said that it was asked too fast.
    pub asked: Asked,
    /// Instances of whose end EventBridge has told nobody.
    pub ended_untold: BTreeSet<String>,
    /// When EC2's own time is looked at next.
    look_ms: Option<u64>,
}

/// How EC2 was asked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asked {
    pub calls: usize,
    pub throttled: usize,
    /// Instances in its answers.
    pub launched: usize,
    /// When it last launched something.
    pub last_launch_ms: u64,
}

impl Asked {
    fn note(&mut self, throttled: bool) {
        self.calls += 1;
        self.throttled += usize::from(throttled);
    }
}

/// An instance that is not ended.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub launch: LaunchKey,
    pub chunk: u32,
    pub group: String,
}

impl Cloud {
    pub(crate) fn new(ec2: ec2::Ec2) -> Self {
        Self {
            ec2,
            live: BTreeMap::new(),
            stray: BTreeSet::new(),
            held: BTreeSet::new(),
            asked: Asked::default(),
            ended_untold: BTreeSet::new(),
            look_ms: None,
        }
    }
}

impl World {
    /// Carries out a launch.
    fn launch(
        &mut self,
        call: &LaunchCall,
        trouble: Option<Trouble>,
    ) -> Result<LaunchAnswer, Fault> {
        let short = matches!(trouble, Some(Trouble::ThrottledInside | Trouble::Partial));
        let before = short.then(|| self.limit_capacity(call));
        let now_ms = self.now_ms;
        let mut answer = launch_in(&mut self.cloud.ec2, now_ms, call);
        for (pool, free) in before.into_iter().flatten() {
            self.cloud.ec2.set_free_capacity(pool, free);
        }
        self.cloud.asked.note(is_throttled(&answer));
        if let Ok(LaunchAnswer { instances, .. }) = &answer
            && !instances.is_empty()
        {
            self.cloud.asked.launched += instances.len();
            self.cloud.asked.last_launch_ms = now_ms;
        }
        if trouble == Some(Trouble::ThrottledInside) {
            answer = answer.map(throttled_inside).map_err(|_| throttled());
        }
        self.tell(|| {
            let answer = match &answer {
                Ok(answer) => {
                    let ids = super::words::ids(&answer.instances);
                    format!("{ids}, faults {:?}", codes(answer))
                }
                Err(fault) => fault.to_string(),
            };
            let token = &call.client_token[..8];
            format!("   EC2 launches {} for token {token}: {answer}", call.count)
        });
        self.cloud_moved(Some(call));
        answer
    }

    /// Leaves each pool of a call fewer places than it asks for. Answers what they had.
    fn limit_capacity(&mut self, call: &LaunchCall) -> Vec<(ec2::Pool, Option<u32>)> {
        let mut left = self.rng.u32(0..call.count.max(1));
        let mut before = Vec::new();
        for candidate in &call.recipe.candidates {
            let pool = ec2::Pool {
                kind: requests::kind(call.recipe.capacity),
                instance_type: candidate.instance_type.clone(),
                availability_zone: candidate.zone.clone(),
            };
            let free = self.cloud.ec2.free_capacity(&pool);
            before.push((pool.clone(), (free != u32::MAX).then_some(free)));
            let given = free.min(left);
            self.cloud.ec2.set_free_capacity(pool, Some(given));
            left -= given;
        }
        // Given back in the other order, the first word on a pool named twice stands.
        before.reverse();
        before
    }

    /// What EC2 tells of itself is taken in. `call`: what has just been asked.
    pub(crate) fn cloud_moved(&mut self, call: Option<&LaunchCall>) {
        let mut new = Vec::new();
        for event in self.cloud.ec2.take_events() {
            self.event_bridge(&event);
            let ec2::Ec2Event::StateChange(change) = event else {
                continue;
            };
            match change.to {
                ec2::InstanceState::Pending => new.push(change.instance_id),
                ec2::InstanceState::Running if self.cloud.stray.contains(&change.instance_id) => {}
                ec2::InstanceState::Running => self.boots(change.instance_id),
                ec2::InstanceState::ShuttingDown => {
                    self.tell(|| format!("   {} is shutting down", change.instance_id));
                    self.cloud.live.remove(&change.instance_id);
                    self.stray_goes(&change.instance_id);
                    self.machines.stop(&change.instance_id);
                }
                _ => {}
            }
        }
        if let Some(call) = call {
            self.watch_launch(call, &new);
        }
        if let Some(next_ms) = self.cloud.ec2.next_due_ms()
            && self.cloud.look_ms.is_none_or(|look_ms| next_ms < look_ms)
        {
            self.cloud.look_ms = Some(next_ms);
            self.after(next_ms.saturating_sub(self.now_ms), Due::Cloud);
        }
    }

    /// EC2's own time passes.
    pub(crate) fn cloud_time(&mut self) {
        if self
            .cloud
            .look_ms
            .is_some_and(|look_ms| look_ms <= self.now_ms)
        {
            self.cloud.look_ms = None;
        }
        self.cloud.ec2.advance(self.now_ms);
        self.cloud_moved(None);
    }

    /// A launch that its caller has given up arrives after all.
    pub(crate) fn late_launch(&mut self, call: &LaunchCall) {
        self.tell(|| "   a launch that was given up arrives".to_owned());
        let _nobody_waits = self.launch(call, None);
    }

    /// Ends instances. Answers which, and which EC2 does not know or does not show yet: one such id refuses a whole
    /// call, and the adapter asks for the others again.
    fn terminate(&mut self, ids: &[InstanceId]) -> Terminated {
        self.watch_termination(ids);
        let now_ms = self.now_ms;
        let ec2 = &mut self.cloud.ec2;
        ec2.advance(now_ms);
        let is_shown = |id: &InstanceId| {
            let instance = ec2.instance(id.as_str());
            instance.is_some_and(|instance| ec2.is_visible(instance, now_ms))
        };
        let (done, unknown): (Vec<_>, Vec<_>) = ids.iter().cloned().partition(is_shown);
        let names: Vec<String> = done.iter().map(ToString::to_string).collect();
        let answer = if names.is_empty() {
            Ok(())
        } else {
            let answer = ec2.terminate_instances(now_ms, &names, false).map(drop);
            answer.map_err(|error| refusal(Call::Terminate, &error))
        };
        self.cloud
            .asked
            .note(answer.as_ref().is_err_and(is_too_fast));
        self.cloud_moved(None);
        match answer {
            Ok(()) => Terminated {
                done,
                unknown,
                fault: None,
            },
            Err(fault) => Terminated {
                done: Vec::new(),
                unknown,
                fault: Some(fault),
            },
        }
    }

    fn describe(&mut self, request: &ec2::DescribeInstances) -> Result<Vec<InstanceSeen>, Fault> {
        let answer = self.cloud.ec2.describe_instances(self.now_ms, request);
        self.cloud_moved(None);
        let answer = answer.map_err(|error| refusal(Call::Find, &error));
        self.cloud
            .asked
            .note(answer.as_ref().is_err_and(is_too_fast));
        let (reservations, _) = answer?;
        let instances = reservations.into_iter().flat_map(|r| r.instances);
        Ok(instances.filter_map(|instance| seen(&instance)).collect())
    }

    /// Leaves out some of what EC2 may not show yet.
    fn forget_some(&mut self, seen: &mut Vec<InstanceSeen>) {
        seen.retain(|instance| {
            let known = self.cloud.ec2.instance(instance.instance_id.as_str());
            let old = known.is_none_or(|i| i.launched_at_ms + SHOWN_AFTER_MS < self.now_ms);
            old || self.rng.bool()
        });
    }
}

/// Whether EC2 said that it was asked too fast, as a whole or in the answer.
fn is_throttled(answer: &Result<LaunchAnswer, Fault>) -> bool {
    match answer {
        Ok(answer) => answer.shortages.iter().any(|s| is_too_fast(&s.fault)),
        Err(fault) => is_too_fast(fault),
    }
}

fn is_too_fast(fault: &Fault) -> bool {
    fault.kind == FaultKind::Throttled
}

fn codes(answer: &LaunchAnswer) -> Vec<&str> {
    let shortages = answer.shortages.iter();
    shortages
        .map(|shortage| shortage.fault.code.as_str())
        .collect()
}

fn throttled() -> Fault {
    fault(Call::Launch, FaultKind::Throttled, "RequestLimitExceeded")
}

fn throttled_inside(answer: LaunchAnswer) -> LaunchAnswer {
    let shortage = Shortage {
        fault: throttled(),
        candidate: None,
    };
    LaunchAnswer {
        shortages: vec![shortage],
        ..answer
    }
}

fn launch_in(ec2: &mut ec2::Ec2, now_ms: u64, call: &LaunchCall) -> Result<LaunchAnswer, Fault> {
    let Some(only) = call.only_candidate() else {
        return launch_fleet(ec2, now_ms, call);
    };
    let answer = ec2.run_instances(now_ms, &requests::run_instances(call, only));
    let answer = answer.map_err(|error| refusal(Call::Launch, &error))?;
    let ids = answer.instances.into_iter().map(|i| i.instance_id);
    Ok(LaunchAnswer {
        instances: instance_ids(ids),
        launched_in: vec![only.clone()],
        shortages: Vec::new(),
    })
}

fn launch_fleet(ec2: &mut ec2::Ec2, now_ms: u64, call: &LaunchCall) -> Result<LaunchAnswer, Fault> {
    let answer = ec2.create_fleet(now_ms, &requests::create_fleet(call));
    let fleet = answer.map_err(|error| refusal(Call::Launch, &error))?;
    let launched: BTreeSet<Candidate> = fleet
        .instances
        .iter()
        .map(|launched| Candidate {
            instance_type: launched.instance_type.clone(),
            subnet_id: launched.subnet_id.clone(),
            zone: launched.availability_zone.clone(),
        })
        .collect();
    let shortages = fleet.errors.iter().map(|error| Shortage {
        fault: fault(Call::Launch, class_of(&error.code), &error.code),
        candidate: candidate_of(&error.candidate.over),
    });
    Ok(LaunchAnswer {
        instances: instance_ids(fleet.instance_ids().into_iter()),
        launched_in: launched.into_iter().collect(),
        shortages: shortages.collect(),
    })
}

fn candidate_of(over: &ec2::FleetOverride) -> Option<Candidate> {
    Some(Candidate {
        instance_type: over.instance_type.clone()?,
        subnet_id: over.subnet_id.clone()?,
        zone: over.availability_zone.clone()?,
    })
}

fn instance_ids(ids: impl Iterator<Item = String>) -> Vec<InstanceId> {
    ids.filter_map(|id| InstanceId::new(id).ok()).collect()
}

fn class_of(code: &str) -> FaultKind {
    match code {
        "RequestLimitExceeded" => FaultKind::Throttled,
        "InsufficientInstanceCapacity" | "UnfulfillableCapacity" => {
            FaultKind::Unfulfillable(Reach::Pool)
        }
        "InsufficientFreeAddressesInSubnet" => FaultKind::Unfulfillable(Reach::Subnet),
        "IdempotentParameterMismatch" => FaultKind::Conflict,
        "InvalidInstanceID.NotFound" => FaultKind::NotFound,
        _ => FaultKind::Invalid,
    }
}

fn refusal(call: Call, error: &ec2::Ec2Error) -> Fault {
    Fault {
        message: error.message.clone(),
        ..fault(call, class_of(&error.code), &error.code)
    }
}

fn seen(instance: &ec2::Instance) -> Option<InstanceSeen> {
    Some(InstanceSeen {
        instance_id: InstanceId::new(&instance.instance_id).ok()?,
        state: instance.state.as_str().to_owned(),
        state_reason: instance
            .state_reason
            .as_ref()
            .map(|reason| reason.message.to_owned()),
        address: instance.private_ip.map(IpAddr::V4),
        instance_type: instance.instance_type.clone(),
        zone: instance.availability_zone.clone(),
        launched_ms: instance.launched_at_ms,
        is_held: instance.tags.contains_key(tag::HOLD),
        origin: origin(&instance.tags),
    })
}

fn origin(tags: &ec2::Tags) -> Option<Origin> {
    Some(Origin {
        launch: LaunchKey {
            request_id: RequestId::new(tags.get(tag::REQUEST)?).ok()?,
            part: tags.get(tag::PART)?.parse().ok()?,
        },
        node_group: NodeGroupName::new(tags.get(tag::NODE_GROUP)?).ok()?,
        owner: Owner::default(),
    })
}
