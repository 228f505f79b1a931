//! Nodes whose instances are about to go or are gone: drained, their jobs signalled and queued again, others powered up
//! in their place; and wedged ones recovered.

use std::fs;

use spillway_core::envelope::{Envelope, UpdateAction};
use spillway_core::name::{Generation, Signal};

use crate::head::{HeadNode, address, key};

const SPOT: &str = "spillway: spot interruption";

fn head(nodes: &[(u8, &str)]) -> HeadNode {
    let head = HeadNode::new(&[key(1).public()]);
    write_nodes(&head, nodes);
    head.write("running", "");
    head
}

/// What follows a state's blank is the node's reason.
fn write_nodes(head: &HeadNode, nodes: &[(u8, &str)]) {
    let line = |(n, state): &(u8, &str)| {
        let (state, reason) = state.split_once(' ').unwrap_or((state, ""));
        format!(
            "NodeName=cloud{n} NodeAddr=10.0.0.{n} State={state} x=1 Reason={reason} [root@1]\n"
        )
    };
    head.write("nodes", &nodes.iter().map(line).collect::<String>());
}

fn update(
    id: &str,
    nodes: &str,
    generation: Generation,
    number: u64,
    action: UpdateAction,
) -> Envelope {
    let mut envelope = address(id, nodes, generation, number, 7);
    envelope.updates[0].action = action;
    envelope
}

fn drain(signal: Option<&str>, replace_from: Option<&str>) -> UpdateAction {
    UpdateAction::Drain {
        reason: SPOT.to_owned(),
        signal: signal.map(|name| Signal::new(name).unwrap()),
        replace_from: replace_from.map(str::to_owned),
    }
}

fn requeue() -> UpdateAction {
    let reason = SPOT.to_owned();
    UpdateAction::Requeue { reason }
}

fn recover() -> UpdateAction {
    let reason = "spillway: it was down".to_owned();
    UpdateAction::Recover { reason }
}

#[test]
fn a_node_is_drained_and_its_jobs_get_a_signal_once() {
    let head = head(&[(1, "MIXED+CLOUD"), (2, "MIXED+CLOUD"), (3, "IDLE+CLOUD")]);
    // 7 runs on both, 8_1 has no script, 9 is about to end.
    head.write(
        "running",
        "cloud1 7 RUNNING 1 1 100\ncloud2 7 RUNNING 1 1 100\ncloud2 8_1 RUNNING 0 0 100\ncloud1 9 COMPLETING 1 1 100\n",
    );
    let generation = head.resume("cloud[1-3]");
    let first = update("one", "cloud1", generation, 1, drain(Some("USR1"), None));
    assert_eq!(head.applied(&first).0, "applied");
    let second = update(
        "two",
        "cloud[2-3]",
        generation,
        1,
        drain(Some("USR1"), None),
    );
    assert_eq!(head.applied(&second).0, "applied");
    let told = [
        "NodeName=cloud1 State=DRAIN Reason=spillway: spot interruption",
        "scancel --quiet --signal=USR1 --batch 7",
        "scancel --quiet --signal=USR1 7",
        "NodeName=cloud2,cloud3 State=DRAIN Reason=spillway: spot interruption",
        "scancel --quiet --signal=USR1 8_1",
    ];
    assert_eq!(head.told(), told);
    // The same update in another envelope; and a later one, of which the jobs have heard.
    for (id, number) in [("three", 1), ("four", 2)] {
        let again = update(id, "cloud1", generation, number, drain(Some("USR1"), None));
        assert_eq!(head.applied(&again).0, "applied");
    }
    assert_eq!(head.told()[told.len()..], [told[0]]);
}

#[test]
fn an_administrators_drain_stays_his() {
    let head = head(&[
        (1, "IDLE+CLOUD+DRAIN disk"),
        (2, "MIXED+CLOUD+DRAIN spillway: rebalance"),
        (3, "IDLE+CLOUD+POWERED_DOWN"),
        (4, "IDLE+CLOUD+POWERING_DOWN"),
    ]);
    head.write("running", "cloud1 7 RUNNING 1 1 100\n");
    let generation = head.resume("cloud[1-4]");
    for (id, node, outcome) in [
        ("one", "cloud1", "applied"),
        ("two", "cloud2", "applied"),
        ("three", "cloud3", "stale"),
        ("four", "cloud4", "stale"),
    ] {
        let envelope = update(id, node, generation, 1, drain(Some("TERM"), None));
        assert_eq!(head.applied(&envelope).0, outcome, "{node}");
    }
    // The job goes all the same.
    assert_eq!(
        head.told(),
        [
            "scancel --quiet --signal=TERM --batch 7",
            "scancel --quiet --signal=TERM 7",
            "NodeName=cloud2 State=DRAIN Reason=spillway: spot interruption",
        ]
    );
}

#[test]
fn as_many_as_drain_are_powered_up_once() {
    let head = head(&[
        (0, "IDLE+CLOUD+DRAIN+POWERED_DOWN disk"),
        (1, "MIXED+CLOUD"),
        (2, "MIXED+CLOUD"),
        (3, "IDLE+CLOUD+MAINTENANCE+POWERED_DOWN+RESERVED"),
        (4, "IDLE+CLOUD+POWERED_DOWN"),
        (5, "ALLOCATED+CLOUD+POWER_UP+POWERED_DOWN"),
        (8, "IDLE+POWERED_DOWN"),
        (9, "IDLE+CLOUD+POWERED_DOWN"),
    ]);
    head.write(
        "reservation",
        "ReservationName=x EndTime=9 Nodes=cloud6 State=ACTIVE\n",
    );
    let generation = head.resume("cloud[1-2]");
    // 6 and 7 are not shown: powered down, and 6 reserved; 9 is of another group.
    let action = || drain(None, Some("cloud[0-8]"));
    for id in ["one", "two"] {
        let envelope = update(id, "cloud[1-2]", generation, 1, action());
        assert_eq!(head.applied(&envelope).0, "applied");
    }
    let drained = "NodeName=cloud1,cloud2 State=DRAIN Reason=spillway: spot interruption";
    assert_eq!(
        head.told(),
        [drained, "NodeName=cloud4,cloud7 State=POWER_UP"]
    );
    // None is left: what is not to be had is not asked for.
    write_nodes(
        &head,
        &[(1, "MIXED+CLOUD"), (4, "IDLE+CLOUD"), (7, "IDLE+CLOUD")],
    );
    let none = drain(None, Some("cloud[4,7]"));
    let envelope = update("three", "cloud1", generation, 2, none);
    assert_eq!(head.applied(&envelope).0, "applied");
    assert_eq!(head.told().len(), 3);
}

#[test]
fn jobs_are_queued_again_once_though_each_of_their_nodes_goes() {
    let head = head(&[(1, "MIXED+CLOUD+DRAIN spillway: spot"), (2, "MIXED+CLOUD")]);
    let running = "cloud1 7 RUNNING 1 1 100\ncloud2 7 RUNNING 1 1 100\ncloud2 8 RUNNING 0 1 100\n\
                   cloud1 9 RUNNING 1 0 100\ncloud1 10_3 RUNNING 1 1 100\ncloud2 11 PENDING 1 1 N/A\n\
                   cloud2 12+1 RUNNING 0 1 100\n";
    head.write("running", running);
    let job = |number: &str, name: &str| format!("{number:<12}{name:<24}{:<1001}\n", "(null)");
    head.write("jobs", &[job("7", "7"), job("13", "10_3")].concat());
    let generation = head.resume("cloud[1-2]");
    let both = update("one", "cloud[1-2]", generation, 1, requeue());
    let (outcome, log) = head.applied(&both);
    assert_eq!(outcome, "applied");
    let told = [
        "NodeName=cloud2 State=DRAIN Reason=spillway: spot interruption",
        "requeue 10_3,12,7",
        "JobId=10_3,7 AdminComment=spillway: spot interruption",
    ];
    assert_eq!(head.told(), told);
    assert!(log.contains("jobs=\"8,9\" cannot be queued again"), "{log}");
    // A second update, for one of its nodes: it runs there no more.
    let second = update("two", "cloud2", generation, 2, requeue());
    assert_eq!(head.applied(&second).0, "applied");
    let left = head.told()[told.len()..].to_vec();
    assert_eq!(left, [told[0]]);
    // It has started anew, and on a node that goes: that is another run.
    fs::write(head.path("running"), "cloud2 7 RUNNING 1 1 300\n").unwrap();
    let third = update("three", "cloud2", generation, 3, requeue());
    assert_eq!(head.applied(&third).0, "applied");
    assert!(head.told().contains(&"requeue 7".to_owned()));
}

#[test]
fn one_job_that_slurm_refuses_keeps_no_other_running() {
    let head = head(&[(1, "MIXED+CLOUD+DRAIN spillway: spot")]);
    head.write(
        "running",
        "cloud1 7 RUNNING 1 1 100\ncloud1 8 RUNNING 1 1 100\n",
    );
    head.write(
        "refused",
        "requeue 7|Requested operation is presently disabled for job 7\n",
    );
    let generation = head.resume("cloud1");
    let (outcome, log) = head.applied(&update("one", "cloud1", generation, 1, requeue()));
    assert_eq!(
        (outcome, head.told()),
        ("applied".into(), vec!["requeue 8".to_owned()])
    );
    assert!(
        log.contains("not queued again: Requested operation"),
        "{log}"
    );
}

#[test]
fn a_wedged_node_is_recovered_also_after_a_suspend() {
    let head = head(&[
        (1, "DOWN+CLOUD+NOT_RESPONDING Not responding"),
        (2, "DOWN+CLOUD+POWERED_DOWN ResumeTimeout reached"),
        (3, "IDLE+CLOUD+DRAIN spillway: spot"),
        (4, "IDLE+CLOUD+POWERED_DOWN"),
        (5, "MIXED+CLOUD+DRAIN spillway: spot"),
        (6, "IDLE+CLOUD+DRAIN disk"),
        (7, "IDLE+CLOUD"),
    ]);
    head.resume("cloud[1-7]");
    let generation = head.suspend("cloud[1-7]");
    let envelope = update("one", "cloud[1-7]", generation, 1, recover());
    let output = head.apply(&head.seal(&envelope, 1)).output().unwrap();
    let printed = crate::head::stdout_json(&output);
    let outcomes: Vec<(String, String)> = printed["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (text(&result["nodes"]), text(&result["outcome"]["outcome"]))
        })
        .collect();
    let stale = |nodes: &str| (nodes.to_owned(), "stale".to_owned());
    assert_eq!(outcomes[0], ("cloud[1-4]".to_owned(), "applied".to_owned()));
    for nodes in ["cloud5", "cloud6", "cloud7"] {
        assert!(outcomes.contains(&stale(nodes)), "{outcomes:?}");
    }
    assert_eq!(
        head.told(),
        [
            "NodeName=cloud1,cloud3 State=POWER_DOWN_FORCE Reason=spillway: it was down",
            "NodeName=cloud2 State=IDLE",
            "NodeName=cloud2,cloud4 NodeAddr=cloud2,cloud4",
            // The forced power-down leaves it down.
            "NodeName=cloud1 State=IDLE",
        ]
    );
    let older = update("two", "cloud1", Generation::new(5).unwrap(), 2, recover());
    assert_eq!(head.applied(&older).0, "stale");
}

#[test]
fn a_failure_takes_our_drain_with_it() {
    let head = head(&[(1, "MIXED+CLOUD")]);
    let generation = head.resume("cloud1");
    let drain = update("one", "cloud1", generation, 1, drain(None, None));
    assert_eq!(head.applied(&drain).0, "applied");
    write_nodes(&head, &[(1, "MIXED+CLOUD+DRAIN spillway: spot")]);
    let reason = "spillway: i-0123 was reclaimed".to_owned();
    let cool_off = None;
    let fail = UpdateAction::Fail { reason, cool_off };
    assert_eq!(
        head.applied(&update("two", "cloud1", generation, 2, fail))
            .0,
        "applied"
    );
    // slurmctld drops the drain once it powers down (seen on 22.05 to 26.05): no undrain, which wedges the node.
    assert_eq!(
        head.told()[1..],
        ["NodeName=cloud1 State=POWER_DOWN_FORCE Reason=spillway: i-0123 was reclaimed"]
    );
}
