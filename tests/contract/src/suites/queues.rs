//! What the queues promise, seen by who reads them.

use std::future::Future;

use serde::de::DeserializeOwned;
use spillway_control::ports::{Clock, MAX_DELAY_SECONDS, Queues};
use spillway_core::message::{
    ContinueLaunch, JoinDeadline, Message, ReleaseInstances, ReportBody, ResumeQueueBody,
    SuspendQueueBody,
};
use spillway_core::name::{ClusterName, RequestId};
use spillway_world::sim::Inbox;

use super::promises;
use crate::sample::{DEADLINE_MS, generation, instance};

/// How often a queue is looked into, and how long after a message could come it must have come.
const LOOK_MS: u64 = 100;
const SOON_MS: u64 = 5_000;
/// Clocks of queue and test are read one after the other.
const MARGIN_MS: u64 = 20;

/// A message as its reader gets it.
#[derive(Debug)]
pub struct Letter {
    /// By which it is deleted.
    pub handle: String,
    /// Its body.
    pub text: String,
    /// How often it was received, with this time.
    pub receives: u32,
}

/// The queues from their readers' side.
pub trait Reader {
    /// Whose messages they are.
    fn cluster(&self) -> ClusterName;
    /// What can be received now.
    fn receive(&self, from: Inbox) -> impl Future<Output = Vec<Letter>>;
    /// Deletes what was received.
    fn delete(&self, from: Inbox, letter: Letter) -> impl Future<Output = ()>;
    /// Bodies that were received too often.
    fn dead_letters(&self, from: Inbox) -> impl Future<Output = Vec<String>>;
    /// How long a received message is not seen again.
    fn visibility_ms(&self) -> u64;
    /// How often a message is received.
    fn max_receives(&self, from: Inbox) -> u32;
}

/// All of it, on empty queues.
pub async fn suite<W: Queues + Reader + Clock>(world: &W) {
    promises!(
        what_is_sent_arrives_as_it_was_said,
        a_delayed_message_comes_no_sooner,
        a_delay_beyond_the_longest_is_taken,
        what_is_not_deleted_comes_again_after_its_time_out,
        what_is_received_too_often_is_set_aside => world
    );
}

/// The next message of a queue, which comes soon.
async fn next<W: Reader + Clock>(world: &W, from: Inbox) -> Letter {
    let begun_ms = world.now_ms();
    loop {
        let mut letters = world.receive(from).await;
        if let Some(letter) = letters.pop() {
            assert!(letters.is_empty(), "{letters:?}");
            return letter;
        }
        assert!(world.now_ms() < begun_ms + SOON_MS, "nothing in {from:?}");
        world.sleep_ms(LOOK_MS).await;
    }
}

/// Nothing comes for so long.
async fn nothing_for<W: Reader + Clock>(world: &W, from: Inbox, ms: u64) {
    let until_ms = world.now_ms() + ms;
    while world.now_ms() + MARGIN_MS < until_ms {
        let letters = world.receive(from).await;
        assert!(letters.is_empty(), "{letters:?}");
        world.sleep_ms(LOOK_MS).await;
    }
}

fn read<T: DeserializeOwned>(letter: &Letter, own: &ClusterName) -> T {
    Message::parse(&letter.text, own).expect("a message of this cluster")
}

fn timer(attempt: u32) -> ResumeQueueBody {
    ResumeQueueBody::Continue(ContinueLaunch {
        request_id: RequestId::new("request-1").expect("an id"),
        part: 1,
        attempt,
    })
}

fn deadline() -> ReportBody {
    ReportBody::JoinDeadline(JoinDeadline {
        nodes: "burst-[1-2]".to_owned(),
        generation: generation(1),
        deadline_ms: DEADLINE_MS,
        put_back: false,
    })
}

fn release(number: u32) -> SuspendQueueBody {
    SuspendQueueBody::Release(ReleaseInstances {
        instance_ids: vec![instance(number)],
    })
}

async fn what_is_sent_arrives_as_it_was_said<W: Queues + Reader + Clock>(world: &W) {
    let own = world.cluster();
    world.send_resume(timer(2), 0).await.expect("sent");
    let letter = next(world, Inbox::Resume).await;
    assert_eq!(read::<ResumeQueueBody>(&letter, &own), timer(2));
    assert_eq!(letter.receives, 1);
    world.delete(Inbox::Resume, letter).await;

    world.send_suspend(release(1), 0).await.expect("sent");
    let letter = next(world, Inbox::Suspend).await;
    assert_eq!(read::<SuspendQueueBody>(&letter, &own), release(1));
    world.delete(Inbox::Suspend, letter).await;

    world.send_report(deadline(), 0).await.expect("sent");
    let letter = next(world, Inbox::Reports).await;
    assert_eq!(read::<ReportBody>(&letter, &own), deadline());
    world.delete(Inbox::Reports, letter).await;

    let sealed = "spillway1.c2VhbGVk.c2lnbmVk";
    world.send_envelope(sealed).await.expect("sent");
    let letter = next(world, Inbox::Updates).await;
    assert_eq!(letter.text, sealed);
    world.delete(Inbox::Updates, letter).await;
    // What is deleted does not come again, and nothing is where it was not sent.
    for inbox in [
        Inbox::Resume,
        Inbox::Suspend,
        Inbox::Reports,
        Inbox::Updates,
    ] {
        nothing_for(world, inbox, world.visibility_ms() / 2 + LOOK_MS).await;
    }
}

async fn a_delayed_message_comes_no_sooner<W: Queues + Reader + Clock>(world: &W) {
    const DELAY_SECONDS: u64 = 2;
    world
        .send_resume(timer(3), DELAY_SECONDS)
        .await
        .expect("sent");
    nothing_for(world, Inbox::Resume, DELAY_SECONDS * 1000 - LOOK_MS).await;
    let letter = next(world, Inbox::Resume).await;
    world.delete(Inbox::Resume, letter).await;
    world
        .send_suspend(release(2), DELAY_SECONDS)
        .await
        .expect("sent");
    nothing_for(world, Inbox::Suspend, DELAY_SECONDS * 1000 - LOOK_MS).await;
    let letter = next(world, Inbox::Suspend).await;
    world.delete(Inbox::Suspend, letter).await;
    world
        .send_report(deadline(), DELAY_SECONDS)
        .await
        .expect("sent");
    nothing_for(world, Inbox::Reports, DELAY_SECONDS * 1000 - LOOK_MS).await;
    let letter = next(world, Inbox::Reports).await;
    world.delete(Inbox::Reports, letter).await;
}

/// SQS refuses a longer one. When it comes is seen where time is not real
/// ([`a_delay_beyond_the_longest_is_cut_to_it`]).
async fn a_delay_beyond_the_longest_is_taken<W: Queues + Reader + Clock>(world: &W) {
    world
        .send_suspend(release(3), MAX_DELAY_SECONDS + 100)
        .await
        .expect("sent");
    nothing_for(world, Inbox::Suspend, 1_000).await;
}

/// Takes a quarter of an hour.
pub async fn a_delay_beyond_the_longest_is_cut_to_it<W: Queues + Reader + Clock>(world: &W) {
    let longest_ms = MAX_DELAY_SECONDS * 1000;
    world
        .send_suspend(release(3), MAX_DELAY_SECONDS + 100)
        .await
        .expect("sent");
    nothing_for(world, Inbox::Suspend, longest_ms - LOOK_MS).await;
    let letter = next(world, Inbox::Suspend).await;
    world.delete(Inbox::Suspend, letter).await;
}

async fn what_is_not_deleted_comes_again_after_its_time_out<W: Queues + Reader + Clock>(world: &W) {
    world.send_report(deadline(), 0).await.expect("sent");
    let first = next(world, Inbox::Reports).await;
    nothing_for(world, Inbox::Reports, world.visibility_ms() - LOOK_MS).await;
    let second = next(world, Inbox::Reports).await;
    assert_eq!((first.receives, second.receives), (1, 2));
    assert_eq!(first.text, second.text);
    world.delete(Inbox::Reports, second).await;
    nothing_for(world, Inbox::Reports, world.visibility_ms() + LOOK_MS).await;
}

async fn what_is_received_too_often_is_set_aside<W: Queues + Reader + Clock>(world: &W) {
    let from = Inbox::Resume;
    world.send_resume(timer(4), 0).await.expect("sent");
    let mut text = String::new();
    for receives in 1..=world.max_receives(from) {
        let letter = next(world, from).await;
        assert_eq!(letter.receives, receives);
        assert_eq!(world.dead_letters(from).await, [""; 0]);
        text = letter.text;
        world.sleep_ms(world.visibility_ms()).await;
    }
    nothing_for(world, from, world.visibility_ms()).await;
    assert_eq!(world.dead_letters(from).await, [text]);
}
