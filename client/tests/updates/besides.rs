//! What comes with updates: a node group rests for a while, and jobs are told what was tried.

use spillway_core::envelope::{CoolOff, Envelope, JobNote, UpdateAction};
use spillway_core::name::{Generation, JobId, NodeGroupName};

use crate::head::{HeadNode, address, key, now_ms};

/// 1 and 2 power up; 3 and 4 are up, 5 is powered down, 6 is not shown, 7 comes for somebody else, 8 is on-premises,
/// 9 is of another group.
const NODES: [(u8, &str); 8] = [
    (1, "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP"),
    (2, "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP"),
    (3, "ALLOCATED+CLOUD"),
    (4, "IDLE+CLOUD"),
    (5, AT_REST),
    (7, "ALLOCATED+CLOUD+NOT_RESPONDING+POWERING_UP"),
    (8, "IDLE+POWERED_DOWN"),
    (9, AT_REST),
];
const AT_REST: &str = "IDLE+CLOUD+POWERED_DOWN";
const GROUP: &str = "cloud[1-8]";
const FAILED: &str =
    "NodeName=cloud1,cloud2 State=POWER_DOWN_FORCE Reason=InsufficientInstanceCapacity, all";

fn head() -> HeadNode {
    let head = HeadNode::new(&[key(1).public()]);
    head.write("nodes", &lines(&NODES));
    head
}

/// What `scontrol show nodes` prints of nodes by their numbers.
fn lines(nodes: &[(u8, &str)]) -> String {
    let line =
        |(n, state): &(u8, &str)| format!("NodeName=cloud{n} NodeAddr=x State={state} x=1\n");
    nodes.iter().map(line).collect()
}

/// A fail of these nodes that lets their group rest for so many seconds from now.
fn fail(id: &str, nodes: &str, generation: Generation, rest_seconds: i64) -> Envelope {
    let mut envelope = address(id, nodes, generation, 1, 7);
    let until_ms = now_ms().saturating_add_signed(rest_seconds.saturating_mul(1000));
    envelope.updates[0].action = UpdateAction::Fail {
        reason: "InsufficientInstanceCapacity, all".to_owned(),
        cool_off: Some(CoolOff {
            node_group: NodeGroupName::new("g.1").unwrap(),
            nodes: GROUP.to_owned(),
            until_ms,
        }),
    };
    envelope
}

/// How long the reservation was told to last, and what else was told of it.
fn told(line: &str) -> (u64, String) {
    let (before, rest) = line.split_once(" EndTime=now+").unwrap();
    let (seconds, after) = rest.split_once("seconds ").unwrap();
    (seconds.parse().unwrap(), format!("{before} {after}"))
}

#[test]
fn an_exhausted_group_rests_and_what_is_up_does_not() {
    let head = head();
    let generation = head.resume("cloud[1-2]");
    let (outcome, _) = head.applied(&fail("one", "cloud[1-2]", generation, 300));
    assert_eq!(outcome, "applied");
    let lines = head.told();
    assert_eq!(lines[0], FAILED);
    let (seconds, words) = told(&lines[1]);
    assert_eq!(
        words,
        "create reservation ReservationName=spillway-g.1 StartTime=now Users=root \
         Flags=MAINT,IGNORE_JOBS,OVERLAP Nodes=cloud[1-2,5-6] \
         Comment=InsufficientInstanceCapacity, all"
    );
    assert!((298..=301).contains(&seconds), "{seconds}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_rest_only_gets_longer_and_never_long() {
    let head = head();
    for (round, (rest_seconds, fifth, expected)) in [
        (-5, AT_REST, None),
        (300, AT_REST, Some(300)),
        (200, AT_REST, None),
        (200, "IDLE+CLOUD", Some(300)),
        (400, AT_REST, Some(400)),
        (i64::MAX, AT_REST, Some(31 * 60)),
    ]
    .into_iter()
    .enumerate()
    {
        let generation = head.resume("cloud1");
        let first = "ALLOCATED+CLOUD+POWERING_UP";
        let nodes = [(1, first), (4, "IDLE+CLOUD"), (5, fifth)];
        head.write("nodes", &lines(&nodes));
        let before = head.told().len();
        let envelope = fail(&format!("{round}"), "cloud1", generation, rest_seconds);
        assert_eq!(head.applied(&envelope).0, "applied", "{rest_seconds}");
        let lines = &head.told()[before..];
        assert!(lines[0].starts_with("NodeName=cloud1 State=POWER_DOWN_FORCE"));
        let told = lines.get(1).map(|line| told(line));
        let seconds = told.as_ref().map(|told| told.0);
        let is_near = match (seconds, expected) {
            (Some(seconds), Some(expected)) => (expected - 2..=expected + 1).contains(&seconds),
            (seconds, expected) => seconds == expected,
        };
        assert!(is_near, "{rest_seconds}: {seconds:?}");
        if let Some((_, words)) = told.filter(|_| round > 1) {
            // A node that came up in between is set free.
            let nodes = ["cloud[1-3,5-8]", "cloud[1-3,6-8]"][usize::from(fifth != AT_REST)];
            let update = format!("ReservationName=spillway-g.1 Nodes={nodes} Comment=");
            assert!(words.starts_with(&update), "{words}");
        }
    }
}

#[test]
fn the_failure_counts_even_if_the_group_cannot_rest() {
    for refused in ["ReservationName=", "reservation"] {
        let head = head();
        let complaint = "Error creating the reservation: Access/permission denied";
        head.write("refused", &format!("{refused}|{complaint}\n"));
        let generation = head.resume("cloud[1-2]");
        let (outcome, log) = head.applied(&fail("one", "cloud[1-2]", generation, 300));
        assert_eq!(outcome, "applied");
        assert_eq!(head.told(), [FAILED]);
        assert_eq!(log.matches("no cool-off").count(), 1, "{log}");
        assert!(log.contains(complaint), "{log}");
    }
    let head = head();
    let generation = head.resume("cloud[1-2]");
    let mut envelope = fail("one", "cloud[1-2]", generation, 300);
    if let UpdateAction::Fail { cool_off, .. } = &mut envelope.updates[0].action {
        cool_off.as_mut().unwrap().nodes = "cloud[1-".to_owned();
    }
    let (outcome, log) = head.applied(&envelope);
    assert_eq!((outcome, head.told().len()), ("applied".into(), 1));
    assert!(log.contains("no cool-off"), "{log}");
}

#[test]
fn an_older_slurm_is_spoken_to_in_its_words() {
    let head = head();
    head.write(
        "refused",
        "Comment=|scontrol: error: Unknown parameter Comment=x.  No reservation created.\n\
         cloud[1-2,5-6]|Error creating the reservation: Invalid node name specified\n",
    );
    let generation = head.resume("cloud[1-2]");
    let (_, log) = head.applied(&fail("one", "cloud[1-2]", generation, 300));
    assert!(!log.contains("no cool-off"), "{log}");
    // Without a comment; and cloud6, which is not shown, is not there at all.
    let (_, words) = told(&head.told()[1]);
    assert!(words.ends_with(" Nodes=cloud[1-2,5]"), "{words}");
}

/// A line of squeue's, as wide as the client asks for it.
fn job(number: &str, name: &str, comment: &str) -> String {
    format!("{number:<12}{name:<24}{comment:<1001}\n")
}

fn note(envelope: &mut Envelope, jobs: &[&str], text: &str) {
    envelope.updates[0].note = Some(JobNote {
        jobs: jobs.iter().map(|job| JobId::new(*job).unwrap()).collect(),
        text: text.to_owned(),
    });
}

#[test]
fn jobs_are_told_once_what_was_tried() {
    let head = head();
    let rows = [
        job("7", "7", "(null)"),
        job("9", "8_1", "(null)"),
        job("12", "11+1", "ticket 5"),
        job("13", "13", "ticket 6 | spillway: tried c5, 'full'"),
    ];
    head.write("jobs", &rows.concat());
    let generation = head.resume("cloud1");
    // With an address as with a failure.
    let mut envelope = address("one", "cloud1", generation, 1, 7);
    note(
        &mut envelope,
        &["7", "9", "12", "13", "99"],
        "tried c5, \"full\"",
    );
    assert_eq!(head.applied(&envelope).0, "applied");
    assert_eq!(
        head.told(),
        [
            "NodeName=cloud1 NodeAddr=10.0.0.7",
            "JobId=7,8_1 AdminComment=spillway: tried c5, 'full'",
            "JobId=11+1 AdminComment=ticket 5 | spillway: tried c5, 'full'",
        ]
    );
    let asked = std::fs::read_to_string(head.path("told/squeue")).unwrap();
    assert!(asked.contains("--jobs=7,9,12,13,99 "), "{asked}");
}

#[test]
fn jobs_that_are_gone_are_no_error() {
    let head = head();
    for (round, jobs) in [None, Some(job("7", "7", "(null)"))]
        .into_iter()
        .enumerate()
    {
        if let Some(jobs) = jobs {
            head.write("jobs", &jobs);
            head.write("refused", "JobId=|Job has already finished for job 7\n");
        }
        let generation = head.resume("cloud1");
        let mut envelope = address(&format!("{round}"), "cloud1", generation, 1, 7);
        note(&mut envelope, &["7"], "tried c5");
        let (outcome, log) = head.applied(&envelope);
        assert_eq!(outcome, "applied");
        assert!(!log.contains("not told"), "{log}");
        let told = head.told();
        assert!(
            told.iter().all(|line| line.starts_with("NodeName=")),
            "{told:?}"
        );
    }
}

#[test]
fn what_comes_with_a_stale_update_is_not_done() {
    let head = head();
    head.write("jobs", &job("7", "7", "(null)"));
    let older = head.resume("cloud[1-2]");
    head.resume("cloud[1-2]");
    let mut envelope = fail("one", "cloud[1-2]", older, 300);
    note(&mut envelope, &["7"], "tried c5");
    assert_eq!(head.applied(&envelope).0, "stale");
    assert_eq!(head.told(), [""; 0]);
}
