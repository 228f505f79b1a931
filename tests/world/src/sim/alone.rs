//! A calm world with one caller in it: nobody reads the queues, the stream or the table but this caller. For the
//! contract suites, which hold the ports in memory to what the adapters promise.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use spillway_core::config::Policy;
use spillway_core::message::Message;
use spillway_core::name::ClusterName;

use super::coverage::Coverage;
use super::executor::{TaskId, Tasks};
use super::port::Port;
use super::queue::{Body, VISIBILITY_MS};
use super::setting::Setting;
use super::world::{Due, MAX_RECEIVES, REPORTS, RESUME, SUSPEND, Shared, UPDATES, World};
use crate::ec2;

/// Nodes of the first group; the second has one.
const NODES: usize = 12;
/// The caller's task; invocations, of which there are none, count from 1.
const CALLER: TaskId = 0;

/// Lets `work` run to its end, in virtual time.
///
/// # Panics
///
/// Where `work` waits for something that never comes.
pub fn calm<F: Future + 'static>(work: impl FnOnce(Port) -> F) -> F::Output {
    let rng = fastrand::Rng::with_seed(1);
    let shared = Shared::new(World::of(Setting::calm(NODES), rng, 1, false));
    let work = work(Port {
        shared: shared.clone(),
        task: CALLER,
        skew_ms: 0,
        spared: false,
    });
    let result = Rc::new(RefCell::new(None));
    let end = Rc::clone(&result);
    let mut tasks = Tasks::default();
    let task = async move {
        let output = work.await;
        end.replace(Some(output));
    };
    tasks.spawn(CALLER, Box::pin(task));
    loop {
        tasks.run_woken();
        if let Some(output) = result.take() {
            return output;
        }
        shared.lock().time_passes();
    }
}

/// EC2 as a calm world has it: a launch template, two subnets, and capacity without end.
#[must_use]
pub fn calm_ec2() -> ec2::Ec2 {
    Setting::calm(NODES).make_ec2(1)
}

impl World {
    /// The next thing happens, if it is the caller's or EC2's.
    fn time_passes(&mut self) {
        let due = self
            .next()
            .expect("what the caller waits for is on the agenda");
        if matches!(due, Due::Wake(_) | Due::Cloud | Due::LateLaunch(_)) {
            self.happens(due);
        }
    }
}

/// A queue, as its reader names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inbox {
    /// Of `launch`.
    Resume,
    /// Of `terminate`.
    Suspend,
    /// Of `report`.
    Reports,
    /// Of the agent.
    Updates,
}

impl Inbox {
    /// How long a received message is not seen again, in milliseconds.
    pub const VISIBILITY_MS: u64 = VISIBILITY_MS;

    fn index(self) -> usize {
        match self {
            Self::Resume => RESUME,
            Self::Suspend => SUSPEND,
            Self::Reports => REPORTS,
            Self::Updates => UPDATES,
        }
    }

    /// How often a message is received before it is set aside.
    #[must_use]
    pub fn max_receives(self) -> u32 {
        MAX_RECEIVES[self.index()]
    }
}

/// A message as its reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// By which it is deleted.
    pub id: u64,
    /// As it would be on the wire.
    pub text: String,
    /// How often it was received, with this time.
    pub receives: u32,
}

/// What others than the use-cases see and do.
impl Port {
    /// The messages of a queue that can be received now, at most ten.
    #[must_use]
    pub fn receive(&self, from: Inbox) -> Vec<Received> {
        const BATCH: usize = 10;
        let mut world = self.shared.lock();
        let World {
            queues,
            rng,
            now_ms,
            setting,
            ..
        } = &mut *world;
        let received = queues[from.index()].receive(*now_ms, BATCH, rng, |_| false);
        let as_read = received.into_iter().map(|message| Received {
            id: message.id,
            text: text(message.body, &setting.cluster),
            receives: message.receives,
        });
        as_read.collect()
    }

    /// Deletes a message that was received.
    pub fn delete(&self, from: Inbox, id: u64) {
        self.shared.lock().queues[from.index()].messages.remove(&id);
    }

    /// The messages of a queue that were set aside.
    #[must_use]
    pub fn dead_letters(&self, from: Inbox) -> Vec<String> {
        let world = self.shared.lock();
        let dead = world.queues[from.index()].dead.iter();
        let texts = dead.map(|message| text(message.body.clone(), &world.setting.cluster));
        texts.collect()
    }

    /// Works on EC2 itself.
    pub fn with_ec2<R>(&self, act: impl FnOnce(&mut ec2::Ec2) -> R) -> R {
        act(&mut self.shared.lock().cloud.ec2)
    }

    /// How often what was called so far.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.shared.lock().coverage.clone()
    }

    /// The policy that the table has.
    #[must_use]
    pub fn pushed_policy(&self) -> Policy {
        self.shared.lock().setting.policy.clone()
    }

    /// The site pushes another.
    pub fn push_policy(&self, policy: Policy) {
        let mut world = self.shared.lock();
        world.records.policy.clone_from(&policy);
        world.setting.policy = policy;
    }
}

fn text(body: Body, cluster: &ClusterName) -> String {
    let cluster = cluster.clone();
    match body {
        Body::Resume(body) => Message::new(cluster, body).to_json(),
        Body::Suspend(body) => Message::new(cluster, body).to_json(),
        Body::Report(body) => Message::new(cluster, body).to_json(),
        Body::Envelope(text) | Body::Notice(text) => text,
    }
}
