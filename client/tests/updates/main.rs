//! Updates on their way home, and the keys that they are sealed with: the real binary as agent, as `spillway
//! apply` and as the operator's command, with SQS and SSM in memory and a `scontrol` that notes what it is told.

mod aws;
mod besides;
mod head;
mod keys;
mod leaving;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use serde_json::json;
use spillway_core::envelope::{ENVELOPE_LIFE_MS, SigningKey, UpdateAction, seal};
use spillway_core::name::ClusterName;

use head::{HeadNode, address, give, key, now_ms, stderr, stdout_json, wait_for};

const UPDATES: &str = "try-updates";

#[test]
fn one_envelope_on_both_roads_at_once_is_applied_once() {
    let head = HeadNode::new(&[key(1).public()]);
    let _agent = head.agent();
    for (round, node) in ["cloud1", "cloud2", "cloud3"].into_iter().enumerate() {
        let generation = head.resume(node);
        let id = format!("envelope-{round}");
        let sealed = head.seal(&address(&id, node, generation, 1, 7), 1);
        let applies: Vec<_> = (0..2)
            .map(|_| head.apply(&sealed).spawn().unwrap())
            .collect();
        head.aws.put(UPDATES, &sealed);
        for apply in applies {
            let output = apply.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let printed = stdout_json(&output);
            assert_eq!(printed["envelope_id"], id.as_str());
            assert_eq!(printed["results"][0]["outcome"]["outcome"], "applied");
        }
        wait_for("the queue's copy to be done with", || {
            head.aws.bodies(UPDATES).is_empty()
        });
        assert_eq!(head.told().len(), round + 1, "{:?}", head.told());
        assert_eq!(
            head.told()[round],
            format!("NodeName={node} NodeAddr=10.0.0.7")
        );
    }
    let acknowledged = head.aws.reports("acknowledge");
    for round in 0..3 {
        let id = format!("envelope-{round}");
        let told: Vec<_> = acknowledged
            .iter()
            .filter(|report| report["envelope_id"] == id.as_str())
            .collect();
        assert!(!told.is_empty());
        assert!(
            told.iter()
                .all(|report| report["results"] == told[0]["results"])
        );
    }
}

#[test]
fn a_second_copy_costs_nothing_and_is_answered_from_memory() {
    let head = HeadNode::new(&[key(1).public()]);
    let generation = head.resume("cloud1");
    let sealed = head.seal(&address("one", "cloud1", generation, 1, 7), 1);
    head.aws.refuse_sends(true);
    let unheard = head.apply(&sealed).output().unwrap();
    assert_eq!(unheard.status.code(), Some(1));
    assert!(stderr(&unheard).contains("not acknowledged"), "{unheard:?}");
    let printed = stdout_json(&unheard);
    assert_eq!(
        (&printed["acknowledged"], &printed["repeated"]),
        (&json!(false), &json!(false))
    );
    head.aws.refuse_sends(false);
    let again = head.apply_by_hand(&sealed);
    assert!(again.status.success(), "{again:?}");
    let repeated = stdout_json(&again);
    assert_eq!(
        (&repeated["acknowledged"], &repeated["repeated"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(repeated["results"], printed["results"]);
    // The agent finds it done, and the control plane told.
    let _agent = head.agent();
    head.aws.put(UPDATES, &sealed);
    wait_for("the queue's copy to be done with", || {
        head.aws.bodies(UPDATES).is_empty()
    });
    assert_eq!(head.told(), ["NodeName=cloud1 NodeAddr=10.0.0.7"]);
    assert_eq!(head.aws.reports("acknowledge").len(), 1);
}

#[test]
fn swapped_and_stale_envelopes_change_nothing_that_they_should_not() {
    let head = HeadNode::new(&[key(1).public()]);
    let older = head.resume("cloud1");
    let generation = head.resume("cloud1");
    assert!(generation > older);
    let envelopes = [
        address("second", "cloud1", generation, 2, 8),
        address("first", "cloud1", generation, 1, 7),
        address("stale", "cloud1", older, 3, 9),
        address("not-asked", "cloud2", generation, 1, 9),
    ];
    let outcomes = envelopes.map(|envelope| {
        let output = head.apply(&head.seal(&envelope, 1)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        stdout_json(&output)["results"][0]["outcome"]["outcome"].clone()
    });
    assert_eq!(outcomes, ["applied", "stale", "stale", "stale"]);
    assert_eq!(head.told(), ["NodeName=cloud1 NodeAddr=10.0.0.8"]);
    assert_eq!(head.aws.reports("acknowledge").len(), 4);
}

#[test]
fn whatever_is_refused_changes_nothing_and_is_counted() {
    let head = HeadNode::new(&[key(1).public()]);
    let _agent = head.agent();
    let generation = head.resume("cloud1");
    let envelope = |id: &str| address(id, "cloud1", generation, 1, 66);
    let good = head.seal(&envelope("forged"), 1);
    let other_key = SigningKey::from_seed(&[9; 32]);
    let stolen_name = head.seal(&envelope("stolen"), 9).replacen(
        other_key.id().as_str(),
        key(1).id().as_str(),
        1,
    );
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let middle = signed.len() / 2;
    let changed = if &signed[middle..=middle] == "A" {
        "B"
    } else {
        "A"
    };
    let altered = format!(
        "{}{changed}{}.{signature}",
        &signed[..middle],
        &signed[middle + 1..]
    );
    let mut late = envelope("late");
    (late.issued_ms, late.expires_ms) = (now_ms() - ENVELOPE_LIFE_MS - 1, now_ms() - 1);
    let mut early = envelope("early");
    early.issued_ms = now_ms() + 600_000;
    early.expires_ms = early.issued_ms + ENVELOPE_LIFE_MS;
    let elsewhere = ClusterName::new("elsewhere").unwrap();
    let bodies = [
        stolen_name,
        altered,
        format!("{signed}.{}", "A".repeat(86)),
        "{\"version\":1,\"cluster\":\"try\",\"body\":{}}".to_owned(),
        head.seal(&envelope("unknown"), 9),
        seal(&elsewhere, &envelope("elsewhere"), &key(1)).unwrap(),
        head.seal(&late, 1),
        head.seal(&early, 1),
    ];
    for body in &bodies {
        head.aws.put(UPDATES, body);
    }
    // By SSM, what has the form of a seal; the agent counts for both.
    for body in bodies.iter().filter(|body| body.starts_with("spillway1")) {
        let output = head.apply(body).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stdout_json(&output)["refused"].is_string(), "{output:?}");
    }
    let counted = || {
        let mut sum = std::collections::BTreeMap::<String, u64>::new();
        for heartbeat in head.aws.reports("heartbeat") {
            let refused = heartbeat["refused_envelopes"].as_object();
            for (reason, count) in refused.into_iter().flatten() {
                *sum.entry(reason.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        sum
    };
    wait_for("a heartbeat to tell of all", || {
        counted().values().sum::<u64>() >= 15
    });
    assert_eq!(
        serde_json::to_value(counted()).unwrap(),
        json!({"forged": 6, "malformed": 1, "unknown-key": 2, "other-cluster": 2, "expired": 2, "not-yet-valid": 2})
    );
    wait_for("what is left to come again", || {
        head.aws.receives(UPDATES).iter().all(|times| *times > 1)
    });
    assert_eq!(
        head.aws.bodies(UPDATES),
        [bodies[4].clone(), bodies[7].clone()]
    );
    assert!(head.told().is_empty());
    assert!(head.aws.reports("acknowledge").is_empty());
    let log = head.agent_log();
    assert_eq!(log.matches("reason=unknown-key").count(), 1, "{log}");
    for reason in [
        "forged",
        "malformed",
        "other-cluster",
        "expired",
        "not-yet-valid",
    ] {
        assert!(log.contains(&format!("reason={reason}")), "{log}");
    }
    assert!(
        head.aws
            .reports("heartbeat")
            .iter()
            .all(|beat| beat["clock_skew_ms"].is_null())
    );
}

#[test]
fn a_replay_is_counted_and_a_redelivery_is_not() {
    let head = HeadNode::new(&[key(1).public()]);
    let generation = head.resume("cloud1");
    let sealed = head.seal(&address("one", "cloud1", generation, 1, 7), 1);
    let _agent = head.agent();
    // Not acknowledged: the same message comes again.
    head.aws.refuse_sends(true);
    head.aws.put(UPDATES, &sealed);
    wait_for("a second delivery", || head.aws.receives(UPDATES) == [2]);
    head.aws.refuse_sends(false);
    wait_for("the first message to be done with", || {
        head.aws.bodies(UPDATES).is_empty()
    });
    assert!(
        !head.agent_log().contains("replayed"),
        "{}",
        head.agent_log()
    );
    let again = head.aws.put(UPDATES, &sealed);
    wait_for("the second message to be done with", || {
        head.aws.bodies(UPDATES).is_empty()
    });
    let log = head.agent_log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("reason=replayed"))
        .collect();
    assert!(
        told.len() == 1 && told[0].contains(&format!("message_id=\"{again}\"")),
        "{log}"
    );
    for (attempt, replayed) in [(1, false), (2, true)] {
        let output = head.apply(&sealed).output().unwrap();
        assert!(output.status.success(), "{attempt}: {output:?}");
        assert_eq!(stdout_json(&output)["replayed"], replayed, "{attempt}");
    }
    assert_eq!(head.told().len(), 1);
}

#[test]
fn a_key_that_is_added_or_removed_counts_without_a_restart() {
    let head = HeadNode::new(&[]);
    let _agent = head.agent();
    wait_for("the agent to say that it trusts nobody", || {
        head.agent_log()
            .contains("trusted_keys in [callback] is empty")
    });
    let generation = head.resume("cloud1");
    let first = head.seal(&address("first", "cloud1", generation, 1, 7), 1);
    head.aws.put(UPDATES, &first);
    wait_for("it to be refused", || {
        head.agent_log().contains("reason=unknown-key")
    });
    assert_eq!(head.told(), [""; 0]);
    // Left, and applied when it comes again.
    head.configure(&[key(1).public(), key(2).public()], "both");
    wait_for("the first to be applied", || head.told().len() == 1);
    let second = head.seal(&address("second", "cloud1", generation, 2, 8), 2);
    head.aws.put(UPDATES, &second);
    wait_for("the second to be applied", || head.told().len() == 2);
    // Revoked: key 1 is no longer believed, by neither road; key 2 is.
    head.configure(&[key(2).public()], "both");
    let third = head.seal(&address("third", "cloud1", generation, 3, 9), 1);
    head.aws.put(UPDATES, &third);
    let output = head.apply(&third).output().unwrap();
    assert_eq!(stdout_json(&output)["refused"], "unknown-key");
    wait_for("the revoked key's to be refused", || {
        head.agent_log().matches("reason=unknown-key").count() == 2
    });
    let fourth = head.seal(&address("fourth", "cloud1", generation, 4, 10), 2);
    head.aws.put(UPDATES, &fourth);
    wait_for("the fourth to be applied", || head.told().len() == 3);
    assert_eq!(head.told()[2], "NodeName=cloud1 NodeAddr=10.0.0.10");
}

#[test]
fn a_flood_of_forgeries_does_not_stop_what_is_ours() {
    const FORGERIES: usize = 2_000;
    let head = HeadNode::new(&[key(1).public()]);
    let generation = head.resume("cloud1");
    let forged = head.seal(&address("forged", "cloud1", generation, 1, 66), 9);
    let forged = forged.replacen(key(9).id().as_str(), key(1).id().as_str(), 1);
    for number in 0..FORGERIES {
        // The two kinds that anybody can make: one that is deleted and one that comes again.
        let body = if number % 2 == 0 {
            forged.clone()
        } else {
            head.seal(&address("x", "cloud1", generation, 1, 66), 9)
        };
        head.aws.put(UPDATES, &body);
    }
    head.aws.put(
        UPDATES,
        &head.seal(&address("one", "cloud1", generation, 1, 7), 1),
    );
    let start = Instant::now();
    let _agent = head.agent();
    wait_for("ours to be applied", || !head.told().is_empty());
    println!("behind {FORGERIES} forgeries after {:?}", start.elapsed());
    assert_eq!(head.told(), ["NodeName=cloud1 NodeAddr=10.0.0.7"]);
}

#[test]
fn each_road_can_be_left_out() {
    let head = HeadNode::new(&[key(1).public()]);
    head.configure(&[key(1).public()], "ssm");
    let _agent = head.agent();
    wait_for("the agent to say hello", || {
        !head.aws.reports("heartbeat").is_empty()
    });
    let generation = head.resume("cloud1");
    let sealed = head.seal(&address("one", "cloud1", generation, 1, 7), 1);
    let output = head.apply(&sealed).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!head.aws.was_asked("ReceiveMessage"));
    head.configure(&[key(1).public()], "queue");
    let refused = head.apply(&sealed).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("roads"), "{refused:?}");
    head.aws.put(
        UPDATES,
        &head.seal(&address("two", "cloud1", generation, 2, 8), 1),
    );
    wait_for("the agent to take up the queue", || head.told().len() == 2);
}

#[test]
fn what_is_no_seal_is_refused_before_anything() {
    let head = HeadNode::new(&[key(1).public()]);
    for wrong in [
        "",
        "spillway1.$(id)",
        "spillway1.a b.c",
        &"x".repeat(60_000),
    ] {
        let output = head.apply(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains("the envelope is"), "{output:?}");
        assert!(output.stdout.is_empty());
    }
    let unset = head.program().arg("apply").output().unwrap();
    assert!(
        stderr(&unset).contains("SSM_Envelope is not set"),
        "{unset:?}"
    );
    // Nobody was asked, and nothing is left behind.
    assert!(!head.aws.was_asked("SendMessage"));
    assert_eq!(fs::read_dir(head.path("spool")).unwrap().count(), 0);
}

#[test]
fn apply_becomes_slurm_user_for_good() {
    if !nix::unistd::geteuid().is_root() {
        println!("not tried: only root can become another user");
        return;
    }
    let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let head = HeadNode::new(&[key(1).public()]);
    let generation = head.resume("cloud1");
    head.write("slurm.conf", "ClusterName=try\nSlurmUser=nobody\n");
    give(&head.path("spool"), uid, gid);
    give(&head.path("told"), uid, gid);
    give(&head.path("credentials"), uid, gid);
    let sealed = head.seal(&address("one", "cloud1", generation, 1, 7), 1);
    // As SSM's agent does: root, its own home, and any working directory.
    let output = head
        .apply(&sealed)
        .env("HOME", "/root")
        .current_dir("/root")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(head.told(), ["NodeName=cloud1 NodeAddr=10.0.0.7"]);
    let who = fs::read_to_string(head.path("told/who")).unwrap();
    let mut lines = who.lines();
    let uid_text = uid.to_string();
    assert_eq!(lines.next(), Some(uid_text.as_str()));
    assert_eq!(lines.next(), Some(gid.to_string().as_str()));
    let groups = lines.next().unwrap();
    assert!(!groups.split(' ').any(|group| group == "0"), "{groups}");
    let effective = lines.find(|line| line.starts_with("CapEff")).unwrap();
    assert!(
        effective.trim_end().ends_with("0000000000000000"),
        "{effective}"
    );
    for file in fs::read_dir(head.path("spool")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().uid(), uid, "{:?}", file.path());
    }
    assert_eq!(head.aws.reports("acknowledge").len(), 1);
    // Root itself is no SlurmUser of this spool, and a SlurmUser that is not there is nobody.
    head.write("slurm.conf", "ClusterName=try\nSlurmUser=root\n");
    let root = head.apply(&sealed).output().unwrap();
    assert!(stderr(&root).contains("run it as the owner"), "{root:?}");
    head.write("slurm.conf", "ClusterName=try\nSlurmUser=no-such-user\n");
    let none = head.apply(&sealed).output().unwrap();
    assert!(stderr(&none).contains("there is no such user"), "{none:?}");
    assert_eq!(head.told().len(), 1);
}

#[test]
fn config_check_says_that_nobody_is_trusted() {
    let head = HeadNode::new(&[]);
    let check = || {
        head.program()
            .args(["config", "check", "--json"])
            .output()
            .unwrap()
    };
    let warnings = stdout_json(&check())["warnings"].clone();
    assert!(
        warnings[0]
            .as_str()
            .unwrap()
            .contains("spillway keys create"),
        "{warnings}"
    );
    head.configure(&[key(1).public()], "both");
    assert_eq!(stdout_json(&check())["warnings"], json!([]));
}

#[test]
fn a_failure_is_told_with_its_reason_by_either_road() {
    let head = HeadNode::new(&[key(1).public()]);
    let generation = head.resume("cloud[1-2]");
    let mut envelope = address("one", "cloud[1-2]", generation, 1, 7);
    envelope.updates[0].action = UpdateAction::Fail {
        reason: "no capacity; $(touch x)".to_owned(),
        cool_off: None,
    };
    let output = head.apply(&head.seal(&envelope, 1)).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        head.told(),
        ["NodeName=cloud1,cloud2 State=POWER_DOWN_FORCE Reason=no capacity; $(touch x)"]
    );
}
