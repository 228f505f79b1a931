//! The ports of one invocation. Every call is two steps on a road, there and back: others go on meanwhile, and on
//! each of them the worker may die.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use spillway_control::fault::{Fault, FaultKind};
use spillway_control::ports::Clock;

use super::executor::TaskId;
use super::names::{Call, Trouble};
use super::world::{Due, Shared, World};

/// How long a slow call takes at most.
const SLOW_MS: u64 = 45_000;

/// What an invocation sees of the world.
#[derive(Debug, Clone)]
pub struct Port {
    pub(crate) shared: Shared,
    pub(crate) task: TaskId,
    /// By how much its clock is off.
    pub(crate) skew_ms: i64,
    /// No more faults: a message of its batch was struck often enough.
    pub(crate) spared: bool,
}

/// How a call goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub trouble: Option<Trouble>,
    pub there_ms: u64,
    pub back_ms: u64,
}

impl Port {
    /// Begins a call.
    pub(crate) fn way(&self, call: Call) -> Way {
        let mut world = self.shared.lock();
        let trouble = world.strike(call, self.spared);
        let mut there_ms = world.rng.u64(1..=8);
        if trouble == Some(Trouble::Slow) {
            there_ms += world.rng.u64(100..=SLOW_MS);
        }
        let back_ms = world.rng.u64(1..=4);
        Way {
            trouble,
            there_ms,
            back_ms,
        }
    }

    /// The way there, with what may happen on it.
    pub(crate) async fn there(&self, call: Call, way: Way) -> Result<(), Fault> {
        self.pause(way.there_ms).await;
        match way.trouble {
            Some(Trouble::CrashBefore) => self.die().await,
            Some(Trouble::Refused) => Err(fault(call, FaultKind::Transient, "ServiceUnavailable")),
            Some(Trouble::Throttled) => {
                Err(fault(call, FaultKind::Throttled, "RequestLimitExceeded"))
            }
            _ => Ok(()),
        }
    }

    /// The way back, with what may happen on it.
    pub(crate) async fn back(&self, call: Call, way: Way) -> Result<(), Fault> {
        self.pause(way.back_ms).await;
        match way.trouble {
            Some(Trouble::CrashAfter) => self.die().await,
            Some(Trouble::LostAnswer) => Err(fault(call, FaultKind::Transient, "Timeout")),
            _ => Ok(()),
        }
    }

    /// A call whose `effect` is told whether it is the SDK's second try.
    pub(crate) async fn call<R: Send>(
        &self,
        call: Call,
        mut effect: impl FnMut(&mut World, bool) -> R + Send,
    ) -> Result<R, Fault> {
        let way = self.way(call);
        self.there(call, way).await?;
        let mut answer = effect(&mut self.shared.lock(), false);
        if way.trouble == Some(Trouble::Repeated) {
            self.pause(way.there_ms).await;
            answer = effect(&mut self.shared.lock(), true);
        }
        self.back(call, way).await?;
        Ok(answer)
    }

    /// The worker is gone.
    async fn die<R>(&self) -> R {
        self.shared.lock().crash(self.task);
        std::future::pending().await
    }

    pub(crate) fn pause(&self, ms: u64) -> Pause {
        let due_ms = self.shared.lock().now_ms + ms;
        Pause {
            shared: self.shared.clone(),
            due_ms,
            waits: false,
        }
    }
}

impl Clock for Port {
    fn now_ms(&self) -> u64 {
        self.shared
            .lock()
            .now_ms
            .saturating_add_signed(self.skew_ms)
    }

    async fn sleep_ms(&self, ms: u64) {
        self.pause(ms).await;
    }

    fn fresh_id(&self) -> String {
        format!("{:032x}", self.shared.lock().rng.u128(..))
    }
}

/// A wait in virtual time.
#[derive(Debug)]
pub(crate) struct Pause {
    shared: Shared,
    due_ms: u64,
    waits: bool,
}

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waits = self.waits;
        self.waits = true;
        let mut world = self.shared.lock();
        let left_ms = self.due_ms.saturating_sub(world.now_ms);
        if left_ms == 0 {
            return Poll::Ready(());
        }
        if !waits {
            world.after(left_ms, Due::Wake(context.waker().clone()));
        }
        Poll::Pending
    }
}

/// A call that failed.
pub(crate) fn fault(call: Call, kind: FaultKind, code: &str) -> Fault {
    let (service, operation) = call
        .as_str()
        .split_once('.')
        .unwrap_or(("ec2", call.as_str()));
    let service = match service {
        "table" => "dynamodb",
        "queues" => "sqs",
        "ec2" => "ec2",
        _ => "ssm",
    };
    Fault {
        kind,
        service: service.into(),
        operation: operation.into(),
        code: code.to_owned(),
        message: "as the simulation has it".to_owned(),
    }
}
