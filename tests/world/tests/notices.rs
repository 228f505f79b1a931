//! Notices in a calm world: in whatever order and however often they come, what stands in the table in the end is the
//! same; and a flood of strangers' costs reads and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use spillway_control::notice::notices;
use spillway_control::ports::{
    Clock, CommandOutcome, CommandOutcomes, Control, InstanceWrite, PairingWrite, Table,
};
use spillway_control::record::Origin;
use spillway_control::report::report;
use spillway_control::sender::Sender;
use spillway_control::tally::NOTICES_OF_STRANGERS;
use spillway_core::capacity::{Capacity, Pool};
use spillway_core::config::CapacityKind;
use spillway_core::message::{Message, ReportBody, SuspendQueueBody};
use spillway_core::name::{Generation, InstanceId, NodeGroupName, NodeName, RequestId};
use spillway_core::notice::Notice;
use spillway_core::pairing::{DueAction, Event, LaunchKey, Pairing, PairingState};
use spillway_core::plan::InstanceState;
use spillway_core::usage::Owner;
use spillway_world::ec2;
use spillway_world::sim::{Inbox, Port, calm};

const SEEDS: u64 = 1_000;
/// The samples speak of instances 1 to 11; the capacity block's is made by the model.
const INSTANCES: std::ops::RangeInclusive<u64> = 1..=11;
const BLOCK: &str = "cr-00000000000000001";
const FAR_MS: u64 = 4_000_000_000_000;

type Sight = Control<Port, Port, Port>;

/// Nobody asks SSM here.
struct NoCommands;

impl CommandOutcomes for NoCommands {
    async fn outcome(
        &self,
        _: &str,
        _: &str,
    ) -> Result<CommandOutcome, spillway_control::fault::Fault> {
        unreachable!("no command was sent")
    }
}

fn control(port: &Port) -> Sight {
    Control {
        cluster: port.pushed_policy().cluster,
        table: port.clone(),
        queues: port.clone(),
        clock: port.clone(),
    }
}

fn instance(number: u64) -> InstanceId {
    InstanceId::new(format!("i-{number:017x}")).expect("an id")
}

fn node(number: u64) -> NodeName {
    NodeName::new(format!("burst-{number}")).expect("a name")
}

/// A node that has joined.
async fn serves(table: &Port, number: u64, instance: &InstanceId) {
    let launch = LaunchKey {
        request_id: RequestId::new(format!("request-{number}")).expect("an id"),
        part: 1,
    };
    let address = IpAddr::V4(Ipv4Addr::new(
        10,
        1,
        0,
        u8::try_from(number % 250).unwrap_or(0),
    ));
    let generation = Generation::new(1).expect("a generation");
    let events = [
        Event::Resume {
            generation,
            launch: launch.clone(),
            deadline_ms: FAR_MS,
            launches_per_hour: 1,
        },
        Event::Launched {
            launch: launch.clone(),
            instance: instance.clone(),
            address,
            note: None,
        },
        Event::Acknowledged {
            generation,
            number: 1,
        },
        Event::Ready {
            instance: instance.clone(),
            generation,
        },
    ];
    let new = Pairing::new(node(number));
    let pairing = events
        .iter()
        .fold(new, |pairing, event| pairing.on(event, 0).next);
    assert!(matches!(pairing.state, PairingState::Ready { .. }));
    let write = PairingWrite {
        pairing,
        expected_version: 0,
        instance: Some(InstanceWrite::Pair {
            instance_id: instance.clone(),
            address,
            deadline_ms: FAR_MS,
            origin: Some(Origin {
                launch,
                node_group: NodeGroupName::new("burst").expect("a name"),
                owner: Owner::default(),
            }),
            pool: Some(pool(number)),
        }),
    };
    assert_eq!(table.write_pairings(&[write]).await, Ok(vec![true]));
}

/// Two instances a pool.
fn pool(number: u64) -> Pool {
    Pool {
        capacity: CapacityKind::Spot,
        instance_type: format!("c{}i.large", number / 2),
        zone: "us-east-1a".to_owned(),
    }
}

/// An instance in a capacity block, which serves node 12.
async fn block_serves(port: &Port, cluster: &str) -> InstanceId {
    let now_ms = port.now_ms();
    let tags = BTreeMap::from([("spillway:cluster".to_owned(), cluster.to_owned())]);
    let id = port.with_ec2(|ec2| {
        let run = ec2::RunInstances {
            launch_template: Some(ec2::LaunchTemplateSpecification::by_name("burst")),
            subnet_id: Some("subnet-a".to_owned()),
            min_count: 2,
            max_count: 2,
            ..ec2::RunInstances::default()
        };
        let launched = ec2.run_instances(now_ms, &run).expect("a launch");
        let [ours, theirs] = launched.instances.as_slice() else {
            panic!("two were asked for")
        };
        for instance in [ours, theirs] {
            ec2.place_in_reservation(&instance.instance_id, BLOCK);
        }
        let ours = ours.instance_id.clone();
        let tagged = ec2.create_tags(now_ms, std::slice::from_ref(&ours), &tags, false);
        tagged.expect("tags");
        ours
    });
    // Until EC2 shows them.
    port.sleep_ms(30_000).await;
    let id = InstanceId::new(id).expect("an id");
    serves(port, 12, &id).await;
    id
}

fn samples() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events/notice");
    let files = fs::read_dir(directory).expect("the samples");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let texts = paths
        .iter()
        .map(|path| fs::read_to_string(path).expect("text"));
    texts.collect()
}

fn terminated(instance: &InstanceId) -> String {
    state_change(instance.as_str())
}

fn state_change(instance_id: &str) -> String {
    let event = serde_json::json!({
        "source": "aws.ec2",
        "detail-type": "EC2 Instance State-change Notification",
        "detail": {"instance-id": instance_id, "state": "terminated"},
    });
    event.to_string()
}

/// A node, but for what tells in which order things came.
#[derive(Debug, PartialEq, Eq)]
struct NodeEnd {
    is_free: bool,
    leaves: bool,
    until_ms: Option<u64>,
    requeued: bool,
    told: Option<&'static str>,
    released: Option<InstanceId>,
    item: InstanceState,
}

#[derive(Debug, PartialEq, Eq)]
struct End {
    nodes: BTreeMap<NodeName, NodeEnd>,
    capacity: Capacity,
    /// Whose end `terminate` was asked for.
    ending: BTreeSet<InstanceId>,
}

async fn end(control: &Sight, ids: &[(u64, InstanceId)]) -> End {
    let table = &control.table;
    let mut nodes = BTreeMap::new();
    for (number, id) in ids {
        let stored = table.pairings(&[node(*number)]).await.expect("a pairing");
        let pairing = &stored[0].record;
        let items = table.instances(std::slice::from_ref(id)).await;
        let leaving = pairing.leaving();
        let due = pairing.update_due.as_ref();
        let end = NodeEnd {
            is_free: pairing.state == PairingState::Free,
            leaves: leaving.is_some(),
            until_ms: leaving.and_then(|leaving| leaving.until_ms),
            requeued: leaving.is_some_and(|leaving| leaving.requeued),
            told: due.map(|due| match due.action {
                DueAction::Address { .. } => "address",
                DueAction::Fail { .. } => "fail",
                DueAction::Drain { .. } => "drain",
                DueAction::Requeue { .. } => "requeue",
                DueAction::Recover { .. } => "recover",
            }),
            released: pairing.released.clone(),
            item: items.expect("an item")[0].state,
        };
        nodes.insert(node(*number), end);
    }
    let mut ending = BTreeSet::new();
    for message in received(table, Inbox::Suspend) {
        let body = Message::parse(&message, &control.cluster).expect("ours");
        if let SuspendQueueBody::Release(release) = body {
            ending.extend(release.instance_ids);
        }
    }
    End {
        nodes,
        capacity: table
            .shared(spillway_control::shared::ONLY)
            .await
            .expect("a record")
            .record,
        ending,
    }
}

/// All that can be received now.
fn received(port: &Port, from: Inbox) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let messages = port.receive(from);
        if messages.is_empty() {
            return texts;
        }
        for message in messages {
            port.delete(from, message.id);
            texts.push(message.text);
        }
    }
}

async fn timers(control: &Sight) {
    control.clock.sleep_ms(100).await;
    for text in received(&control.table, Inbox::Reports) {
        let body = Message::<ReportBody>::parse(&text, &control.cluster).expect("ours");
        let done = report(control, &NoCommands, body, 0, &Sender::Other).await;
        done.expect("a timer");
    }
}

/// Every sample, duplicated and in some order, in batches of any size, with the timers that they set in between.
/// `all_end`: of every instance it is said as well that it was terminated.
fn outcome(seed: u64, all_end: bool) -> End {
    calm(move |port| async move {
        let mut rng = fastrand::Rng::with_seed(seed);
        let control = control(&port);
        let block = block_serves(&port, control.cluster.as_str()).await;
        let mut ids: Vec<(u64, InstanceId)> =
            INSTANCES.map(|number| (number, instance(number))).collect();
        for (number, id) in &ids {
            serves(&port, *number, id).await;
        }
        ids.push((12, block));
        let mut events = samples();
        if all_end {
            events.extend(ids.iter().map(|(_, id)| terminated(id)));
        }
        let twice: Vec<String> = events.iter().filter(|_| rng.f64() < 0.7).cloned().collect();
        events.extend(twice);
        rng.shuffle(&mut events);
        let mut events = events.as_slice();
        while !events.is_empty() {
            let (batch, rest) = events.split_at(rng.usize(1..=events.len().min(10)));
            events = rest;
            let batch = batch
                .iter()
                .map(|text| Notice::parse(text).expect("a sample"));
            notices(&control, &port, batch.collect())
                .await
                .expect("no fault");
            if rng.bool() {
                timers(&control).await;
            }
        }
        timers(&control).await;
        let mut end = end(&control, &ids).await;
        // Pools rest from when they were first told of, which differs by the time that went by.
        let rests = end.capacity.resting_count(control.clock.now_ms());
        assert_eq!(rests, 4, "those of 1, of 2 and 3, of 8 and 9, and of 12");
        end.capacity = Capacity::default();
        end
    })
}

#[test]
fn events_in_any_order_and_again_have_the_same_end() {
    for all_end in [false, true] {
        let first = outcome(0, all_end);
        let of = |number| &first.nodes[&node(number)];
        assert_eq!(of(4).told, Some("fail"), "{first:#?}");
        assert_eq!(of(1).told, Some(if all_end { "fail" } else { "requeue" }));
        assert_eq!(of(6).told, Some(if all_end { "fail" } else { "drain" }));
        assert_eq!(of(12).told, Some(if all_end { "fail" } else { "requeue" }));
        assert_eq!(first.ending.len(), if all_end { 12 } else { 4 });
        for seed in 1..SEEDS {
            assert_eq!(
                outcome(seed, all_end),
                first,
                "seed {seed}, all end: {all_end}"
            );
        }
    }
}

#[test]
fn a_flood_of_strangers_notices_costs_reads_and_nothing_else() {
    const NOTICES: u64 = 15_000;
    const OURS: u64 = 100;
    const BATCH: usize = 10;
    let (strangers, called, took) = calm(|port| async move {
        let control = control(&port);
        for number in 1..=OURS {
            serves(&port, number, &instance(number)).await;
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let mut events: Vec<String> = (1..=NOTICES)
            .map(|number| state_change(instance(number).as_str()))
            .collect();
        rng.shuffle(&mut events);
        let before = port.coverage();
        let begun = Instant::now();
        let mut strangers = 0.0;
        for batch in events.chunks(BATCH) {
            let batch = batch
                .iter()
                .map(|text| Notice::parse(text).expect("an event"));
            let tally = notices(&control, &port, batch.collect())
                .await
                .expect("no fault");
            let counted = tally.iter().find(|(name, _)| *name == NOTICES_OF_STRANGERS);
            strangers += counted.map_or(0.0, |(_, count)| count);
        }
        let took = begun.elapsed();
        let after = port.coverage();
        let called = [
            "ec2.",
            "table.instances",
            "table.policy",
            "table.pairings",
            "table.write",
            "queues.",
        ]
        .map(|prefix| (prefix, after.calls(prefix) - before.calls(prefix)));
        (strangers, BTreeMap::from(called), took)
    });
    println!("{NOTICES} notices in {took:?}: {called:?}");
    assert!((strangers - 14_900.0).abs() < 0.5, "{strangers}");
    assert_eq!(called["ec2."], 0);
    // One read a batch, and one more where something of ours was let go.
    let batches = NOTICES / BATCH as u64;
    assert!(
        (batches..=batches + OURS).contains(&called["table.instances"]),
        "{called:?}"
    );
    for read in ["table.policy", "table.pairings", "table.write"] {
        assert!(called[read] <= OURS, "{called:?}");
    }
    assert!(called["queues."] <= OURS, "{called:?}");
}
