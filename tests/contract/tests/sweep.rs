//! A sweep over 20,000 nodes, in memory: what is wrong is found among what is well, with few calls and little memory.

use std::collections::BTreeMap;
use std::time::Instant;

use spillway_control::launch::Budget;
use spillway_control::ports::{Clock, Control, InstanceWrite, PairingWrite, Table};
use spillway_control::record::{HeartbeatRecord, NodeStatesRecord, Origin};
use spillway_control::sweep::{LAST_REPORT, SweepReport, sweep};
use spillway_control::tally::{ORPHANS_ENDED, SWEEP_HEALED};
use spillway_core::hostlist;
use spillway_core::message::{NodesInState, SweepOrder};
use spillway_core::name::{
    ClusterName, Generation, InstanceId, NodeGroupName, NodeName, RequestId,
};
use spillway_core::pairing::{Event, LaunchKey, Pairing};
use spillway_core::tag;
use spillway_core::usage::Owner;
use spillway_world::ec2::{LaunchTemplateData, RunInstances, Subnet, TagSpecification};
use spillway_world::sim::{Inbox, Port, calm};

const NODES: usize = 20_000;
/// Instances with the cluster's tag that no node has.
const ORPHANS: usize = 8;
/// Nodes whose instance EC2 has ended.
const GONE: usize = 50;
/// Memory of the function, all of it: the world included.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;
const MINUTE_MS: u64 = 60_000;
const FOR_EVER_MS: u64 = 60 * MINUTE_MS;
/// EC2 launches at most so many at once.
const AT_ONCE: usize = 1_000;

#[test]
fn twenty_thousand_nodes_are_swept() {
    calm(|port| async move { swept(port).await });
}

async fn swept(port: Port) {
    let control = Control {
        cluster: ClusterName::new("sim").unwrap(),
        table: port.clone(),
        queues: port.clone(),
        clock: port.clone(),
    };
    let ids = launched(&port, NODES + ORPHANS);
    let owned = &ids[..NODES];
    pair(&port, owned).await;
    let gone: Vec<String> = owned[..GONE].iter().map(ToString::to_string).collect();
    let now_ms = port.now_ms();
    port.with_ec2(|ec2| ec2.terminate_instances(now_ms, &gone, false).unwrap());
    // Old enough to be orphans.
    port.sleep_ms(5 * MINUTE_MS).await;

    let mut healed = BTreeMap::new();
    for round in 0..2 {
        observed(&port).await;
        let begun = Instant::now();
        let budget = Budget {
            ends_ms: port.now_ms() + MINUTE_MS,
        };
        let order = SweepOrder {
            whole: round == 1,
            ..SweepOrder::default()
        };
        let tally = sweep(&control, &port, order, budget).await.unwrap();
        println!(
            "sweep {round} of {NODES} nodes took {:?}: {tally:?}",
            begun.elapsed()
        );
        for (name, count) in tally.iter() {
            *healed.entry(name).or_insert(0.0) += count;
        }
        port.sleep_ms(MINUTE_MS).await;
    }
    let report = port
        .shared::<Option<SweepReport>>(LAST_REPORT)
        .await
        .unwrap();
    let report = report.record.expect("a report");
    assert_eq!((report.instances, report.nodes), (NODES + ORPHANS, NODES));
    let counted = |name| format!("{:.0}", healed[name]);
    assert_eq!(counted(ORPHANS_ENDED), ORPHANS.to_string(), "{healed:?}");
    let all = (ORPHANS + GONE).to_string();
    assert_eq!(counted(SWEEP_HEALED), all, "{healed:?}");
    let releases = port.receive(Inbox::Suspend);
    assert!(!releases.is_empty(), "terminate is asked");

    let most = most_memory_bytes();
    println!(
        "at most {} MB of memory, the world included",
        most / 1_000_000
    );
    assert!(most < MEMORY_BYTES, "{most} bytes");
}

fn launched(port: &Port, count: usize) -> Vec<InstanceId> {
    // 65,531 addresses.
    let wide = Subnet::new("subnet-wide", "vpc-1", "us-east-1a", "10.64.0.0/16").unwrap();
    port.with_ec2(|ec2| ec2.put_subnet(wide));
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let most = u32::try_from((count - ids.len()).min(AT_ONCE)).unwrap();
        let request = RunInstances {
            launch_template: None,
            direct: LaunchTemplateData {
                image_id: Some("ami-1".to_owned()),
                instance_type: Some("c7i.large".to_owned()),
                tag_specifications: vec![TagSpecification {
                    resource_type: "instance".to_owned(),
                    tags: [(tag::CLUSTER.to_owned(), "sim".to_owned())].into(),
                }],
                ..LaunchTemplateData::default()
            },
            subnet_id: Some("subnet-wide".to_owned()),
            min_count: most,
            max_count: most,
            client_token: None,
            dry_run: false,
        };
        let now_ms = port.now_ms();
        let answer = port.with_ec2(|ec2| {
            ec2.settings.throttling = false;
            // Neither boots nor shutdowns are looked at here.
            ec2.settings.pending_ms = FOR_EVER_MS;
            ec2.settings.shutting_down_ms = FOR_EVER_MS;
            ec2.run_instances(now_ms, &request)
        });
        let instances = answer.unwrap().instances.into_iter();
        ids.extend(instances.map(|i| InstanceId::new(i.instance_id).unwrap()));
    }
    ids
}

fn name(n: usize) -> NodeName {
    NodeName::new(format!("a{n}")).unwrap()
}

/// All nodes have joined, each on its instance.
async fn pair(port: &Port, ids: &[InstanceId]) {
    let launch = LaunchKey {
        request_id: RequestId::new("all").unwrap(),
        part: 1,
    };
    let now_ms = port.now_ms();
    let generation = Generation::new(now_ms * 1000).unwrap();
    let address = "10.0.0.1".parse().unwrap();
    let writes: Vec<PairingWrite> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| {
            let events = [
                Event::Resume {
                    generation,
                    launch: launch.clone(),
                    deadline_ms: now_ms + MINUTE_MS,
                    launches_per_hour: 12,
                },
                Event::Launched {
                    launch: launch.clone(),
                    instance: id.clone(),
                    address,
                    note: None,
                },
                Event::Acknowledged {
                    generation,
                    number: 1,
                },
                Event::Ready {
                    instance: id.clone(),
                    generation,
                },
            ];
            let pairing = events.iter().fold(Pairing::new(name(n)), |pairing, event| {
                pairing.on(event, now_ms).next
            });
            PairingWrite {
                pairing,
                expected_version: 0,
                instance: Some(InstanceWrite::Pair {
                    instance_id: id.clone(),
                    address,
                    deadline_ms: now_ms + MINUTE_MS,
                    origin: Some(Origin {
                        launch: launch.clone(),
                        node_group: NodeGroupName::new("a").unwrap(),
                        owner: Owner::default(),
                    }),
                    pool: None,
                }),
            }
        })
        .collect();
    for writes in writes.chunks(AT_ONCE) {
        assert!(
            port.write_pairings(writes)
                .await
                .unwrap()
                .iter()
                .all(|written| *written)
        );
    }
}

/// The agent reports: all nodes run jobs.
async fn observed(port: &Port) {
    let now_ms = port.now_ms();
    let record = NodeStatesRecord {
        observed_ms: now_ms,
        states: vec![NodesInState {
            state: "ALLOCATED+CLOUD".to_owned(),
            nodes: hostlist::fold((0..NODES).map(name)),
            reason: None,
            set_by_hand: false,
            addresses: Vec::new(),
            generations: Vec::new(),
        }],
    };
    port.put_node_states(&record).await.unwrap();
    let heartbeat = HeartbeatRecord {
        received_ms: now_ms,
        sent_ms: now_ms,
        slurm_version: None,
        spooled: 0,
        oldest_spooled_ms: None,
    };
    port.put_heartbeat(&heartbeat).await.unwrap();
}

/// The most memory that this process has had resident.
fn most_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.unwrap().trim().parse::<u64>().unwrap() * 1024
}
