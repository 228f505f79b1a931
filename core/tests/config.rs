//! `spillway.toml`: the example is read as it says, every mistake is found with its place and a hint,
//! and the committed schema is the code's.

use std::collections::BTreeSet;

use spillway_core::config::{CapacityKind, ConfigErrors, Policy, Site, UpdateRoads, schema};
use spillway_core::envelope::SigningKey;
use spillway_core::name::{NodeName, OwnerName};

const EXAMPLE: &str = include_str!("../../infra/examples/spillway.toml");
const SCHEMA: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../events/schemas/spillway.schema.json"
);

fn errors(text: &str) -> ConfigErrors {
    Site::parse(text, "spillway.toml").expect_err("the file has an error")
}

/// The example with one text replaced; it must be there.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert!(EXAMPLE.contains(from), "{from:?} is not in the example");
    EXAMPLE.replacen(from, to, 1)
}

/// The example with one text replaced gives this message. Each `¦` in the new text marks a place, and is
/// not itself written; each `@` in the message stands for the next of these places.
#[track_caller]
fn check(from: &str, to: &str, message: &str) {
    let marked = changed(from, to);
    let mut message = message.to_owned();
    for (byte, _) in marked.match_indices('¦') {
        let before = marked[..byte].replace('¦', "");
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        message = message.replacen(
            '@',
            &format!(
                "spillway.toml:{}:{column}",
                before.matches('\n').count() + 1
            ),
            1,
        );
    }
    assert_eq!(errors(&marked.replace('¦', "")).to_string(), message);
}

#[test]
fn the_example_is_read_as_it_says() {
    let Site { client, policy } =
        Site::parse(EXAMPLE, "spillway.toml").unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(client.cluster.as_str(), "hpc");
    assert_eq!(client.aws.profile.as_deref(), Some("head-node"));
    assert_eq!(client.socket.to_str(), Some("/run/spillway/agent.sock"));
    assert_eq!(client.jobs_file.to_str(), Some("/run/spillway/jobs"));
    assert!(client.callback.trusted_keys.is_empty());
    assert_eq!(client.callback.roads, UpdateRoads::Both);
    assert_eq!(policy.limits.max_nodes, 300);
    assert_eq!(
        policy.resume_timeout_seconds,
        client.slurm.resume_timeout_seconds
    );
    assert_eq!(policy.node_groups.node_count(), 272);

    let cpu = policy
        .group_of(&NodeName::new("cloud007").unwrap())
        .unwrap();
    assert_eq!(
        (cpu.name.as_str(), cpu.max_nodes, cpu.join_timeout_seconds),
        ("cpu", 200, 585)
    );
    assert_eq!(
        (cpu.launch_template_id.as_str(), cpu.launch_template_version),
        ("lt-0a1b2c3d4e5f60718", 3)
    );
    assert_eq!(cpu.capacity, [CapacityKind::Spot, CapacityKind::OnDemand]);
    assert_eq!(cpu.subnets[1].zone.as_str(), "eu-central-1b");
    assert_eq!(cpu.tags["cost-center"], "4711");
    let gpu = policy.group_of(&NodeName::new("gpu16").unwrap()).unwrap();
    assert_eq!(
        (
            gpu.partitions[0].as_str(),
            gpu.max_nodes,
            gpu.join_timeout_seconds
        ),
        ("gpu", 16, 480)
    );
    assert!(policy.group_of(&NodeName::new("cloud7").unwrap()).is_none());
    assert!(policy.group_of(&NodeName::new("gpu17").unwrap()).is_none());
}

#[test]
fn errors_of_form_name_the_place_and_a_way_out() {
    check(
        "log_level",
        "¦loglevel",
        "@: client.loglevel: there is no such key\n  hint: did you mean `log_level`?",
    );
    check(
        "region = ",
        "¦colour = ",
        "spillway.toml:1:1: region: this key is missing\n  hint: add it: The AWS region of everything\n\
         @: colour: there is no such key\n  hint: known are `aws`, `callback`, `client`, `cluster`, \
         `limits`, `node_group`, `partition`, `queues`, `region`, `slurm`, `sweep`",
    );
    check(
        "[limits]\nmax_nodes = 300\n",
        "¦[limits]\n",
        "@: limits.max_nodes: this key is missing\n  \
         hint: add it: Most nodes that run, or are on their way, at once",
    );
    check(
        "cpus = 32",
        "cpus = ¦\"32\"",
        "@: node_group[0].cpus: invalid type: string \"32\", expected a whole number from 0 to 4294967295",
    );
    check(
        "\"reserved\", ",
        "¦\"reservd\", ",
        "@: node_group[1].capacity[0]: there is no such word: `reservd`\n  hint: did you mean `reserved`?",
    );
    check(
        "cluster = \"hpc\"",
        "cluster = ¦\"HPC\"",
        "@: cluster: cluster name \"HPC\" is not valid: 1 to 40 of a-z, 0-9 and -, with a letter or \
         digit first and last",
    );
    check(
        "\"cloud[001-256]\"",
        "¦\"cloud[001-256\"",
        "@: node_group[0].nodes: character 6: this `[` is never closed: add `]` after the last number",
    );
    check(
        "{ id = \"subnet-0a1b2c3d4e5f60002\", zone = ",
        "¦{ id = \"subnet-0a1b2c3d4e5f60002\", ¦zon = ",
        "@: node_group[0].subnets[1].zone: this key is missing\n  \
         hint: add it: The zone it is in, by name\n\
         @: node_group[0].subnets[1].zon: there is no such key\n  hint: did you mean `zone`?",
    );
    check(
        "[limits]",
        "[[¦limits]]",
        "@: limits: this must be one table and not a list\n  hint: write [limits], once",
    );
    check(
        "region = \"eu-central-1\"",
        "region = \"eu-central-1¦",
        "@: region: invalid basic string, expected `\"`",
    );
}

#[test]
fn trusted_keys_are_one_or_two_and_keys() {
    let key = |seed: u8| format!("\"{}\"", SigningKey::from_seed(&[seed; 32]).public());
    let list = |keys: &[String]| format!("trusted_keys = [{}]\nroads =", keys.join(", "));
    for count in 0..=2 {
        let keys: Vec<String> = (1..=count).map(key).collect();
        let site = Site::parse(&changed("roads =", &list(&keys)), "spillway.toml").unwrap();
        let read = &site.client.callback.trusted_keys;
        let written: Vec<String> = read.iter().map(|key| format!("\"{key}\"")).collect();
        assert_eq!(written, keys);
    }
    check(
        "roads =",
        &list(&[1, 2, 3].map(key)).replacen("trusted", "¦trusted", 1),
        "@: callback.trusted_keys: 3 keys: at most 2 may overlap\n  hint: remove those that \
         `spillway keys list` does not show, or shows as older than the active one",
    );
    check(
        "roads =",
        &list(&[key(1), format!("¦{}", key(1))]),
        &format!(
            "@: callback.trusted_keys[1]: {} is there twice\n  hint: remove one, or give it its own name",
            key(1).trim_matches('"')
        ),
    );
    for wrong in ["\"ed25519:abc\"", "\"key\""] {
        check(
            "roads =",
            &list(&[format!("¦{wrong}")]),
            "@: callback.trusted_keys[0]: a public key is \"ed25519:\" and 43 characters, as \
             `spillway keys create` prints it",
        );
    }
    check(
        "roads = \"both\"",
        "roads = ¦\"sqs\"",
        "@: callback.roads: there is no such word: `sqs`\n  hint: known are `both`, `queue`, `ssm`",
    );
    check(
        "roads =",
        "¦road =",
        "@: callback.road: there is no such key\n  hint: did you mean `roads`?",
    );
}

#[test]
fn a_version_that_changes_under_us_is_refused_with_the_reason() {
    for version in ["$Latest", "$Default"] {
        let text = changed("version = 3", &format!("version = \"{version}\""));
        let message = errors(&text).to_string();
        let start =
            format!("node_group[0].launch_template.version: {version} is not a fixed version");
        assert!(message.contains(&start), "{message}");
        assert!(
            message.contains("write the number of the version you tested"),
            "{message}"
        );
    }
    for version in ["0", "-1", "4294967296", "\"3\"", "3.0"] {
        let message = errors(&changed("version = 3", &format!("version = {version}"))).to_string();
        assert!(
            message.contains("expected a version number from 1, without quotes"),
            "{message}"
        );
    }
}

#[test]
fn errors_of_meaning_name_the_place_and_a_way_out() {
    check(
        "zone = \"eu-central-1b\"",
        "zone = ¦\"eu-central-1a\"",
        "@: node_group[0].subnets[1].zone: zone eu-central-1a has subnet subnet-0a1b2c3d4e5f60001 \
         already\n  hint: CreateFleet takes one subnet a zone: remove one, or make a second node group for it",
    );
    check(
        "zone = \"eu-central-1b\"",
        "zone = ¦\"eu-west-1b\"",
        "@: node_group[0].subnets[1].zone: zone eu-west-1b is not in region eu-central-1\n  \
         hint: write a zone's name, such as eu-central-1a",
    );
    check(
        "\"gpu[1-16]\"",
        "¦\"gpu[1-16],cloud[256-257]\"",
        "@: node_group[1].nodes: node cloud256 is already in node group cpu\n  \
         hint: a node belongs to one group, once: remove it here or there",
    );
    check(
        "node_groups = [\"cpu\"]",
        "node_groups = [\"cpu\", ¦\"gpus\"]",
        "@: partition[0].node_groups[1]: there is no node group gpus\n  hint: did you mean `gpu`?",
    );
    check(
        "name = \"gpu\"\nnodes",
        "name = ¦\"gpus\"\nnodes",
        "spillway.toml:46:16: partition[1].node_groups[0]: there is no node group gpu\n  hint: did you mean `gpus`?\n\
         @: node_group[1].name: node group gpus is in no partition\n  \
         hint: name it in the node_groups of a [[partition]]",
    );
    check(
        "poll_interval_seconds = 30",
        "poll_interval_seconds = ¦5",
        "@: slurm.poll_interval_seconds: 5 is out of bounds\n  hint: write a number from 30 to 3600",
    );
    check(
        "max_nodes = 200",
        "max_nodes = ¦257",
        "@: node_group[0].max_nodes: 257 is out of bounds\n  hint: write a number from 1 to 256",
    );
    check(
        "join_timeout_seconds = 480",
        "join_timeout_seconds = ¦590",
        "@: node_group[1].join_timeout_seconds: 590 is out of bounds\n  hint: write a number from \
         10 to 585: a node is failed with our reason 15 s before slurm.resume_timeout_seconds at the latest",
    );
    check(
        "spool_directory = \"/",
        "spool_directory = ¦\"",
        "@: client.spool_directory: var/spool/spillway is not an absolute path\n  \
         hint: slurmctld calls us from a directory of its own: start with /",
    );
    check(
        "project = ",
        "\"aws:project\" = ¦",
        "@: node_group[0].tags.\"aws:project\": the tag \"aws:project\" is not the site's to set\n  \
         hint: aws: belongs to AWS; spillway: and Name are written by Spillway",
    );
}

/// A change of the example, and the key at which it must be refused, whatever the words.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "name = \"gpu\"\nnodes",
        "name = \"cpu\"\nnodes",
        "node_group[1].name",
    ),
    (
        "name = \"gpu\"\nnode_groups",
        "name = \"burst\"\nnode_groups",
        "partition[1].name",
    ),
    (
        "node_groups = [\"cpu\"]",
        "node_groups = []",
        "partition[0].node_groups",
    ),
    (
        "node_groups = [\"cpu\"]",
        "node_groups = [\"cpu\", \"cpu\"]",
        "partition[0].node_groups[1]",
    ),
    ("\"gpu[1-16]\"", "\"gpu[1-16],ALL\"", "node_group[1].nodes"),
    ("\"gpu[1-16]\"", "\"gpu[1-16],gpu3\"", "node_group[1].nodes"),
    ("\"gpu[1-16]\"", "\"gpu[1-65281]\"", "node_group[1].nodes"),
    ("[\"g6.4xlarge\"]", "[]", "node_group[1].instance_types"),
    (
        "[\"g6.4xlarge\"]",
        "[\"g6.4xlarge\", \"g6.4xlarge\"]",
        "node_group[1].instance_types[1]",
    ),
    (
        "[\"g6.4xlarge\"]",
        "[\"g6\"]",
        "node_group[1].instance_types[0]",
    ),
    (
        "[\"reserved\", \"on-demand\"]",
        "[]",
        "node_group[1].capacity",
    ),
    (
        "[\"reserved\", \"on-demand\"]",
        "[\"spot\", \"spot\"]",
        "node_group[1].capacity[1]",
    ),
    (
        "[{ id = \"subnet-0a1b2c3d4e5f60001\", zone = \"eu-central-1a\" }]",
        "[]",
        "node_group[1].subnets",
    ),
    ("cpus = 16", "cpus = 0", "node_group[1].cpus"),
    (
        "memory_mb = 62000\ngres",
        "memory_mb = 0\ngres",
        "node_group[1].memory_mb",
    ),
    (
        "memory_mb = 62000\ngres",
        "memory_mb = -1\ngres",
        "node_group[1].memory_mb",
    ),
    (
        "launches_per_hour = 600",
        "launches_per_hour = 0",
        "limits.launches_per_hour",
    ),
    ("max_nodes = 300", "max_nodes = 65537", "limits.max_nodes"),
    (
        "resume_timeout_seconds = 600",
        "resume_timeout_seconds = 3601",
        "slurm.resume_timeout_seconds",
    ),
    (
        "suspend_timeout_seconds = 180",
        "suspend_timeout_seconds = 0",
        "slurm.suspend_timeout_seconds",
    ),
    (
        "spillway-hpc-reports",
        "spillway-hpc-updates",
        "queues.updates",
    ),
    (
        "https://sqs.eu-central-1.amazonaws.com/111122223333/spillway-hpc-resume",
        "sqs.example",
        "queues.resume",
    ),
    ("table = \"spillway-hpc\"", "table = \"a b\"", "aws.table"),
    (
        "project = \"weather\"",
        "project = \"a;b\"",
        "node_group[0].tags.project",
    ),
    (
        "project = ",
        "\"Spillway:x\" = ",
        "node_group[0].tags.\"Spillway:x\"",
    ),
    ("project = ", "Name = ", "node_group[0].tags.Name"),
    ("project = ", "\"a b\" = ", "node_group[0].tags.\"a b\""),
    (
        "log_level = \"info\"",
        "log_level = \"loud\"",
        "client.log_level",
    ),
    (
        "[client]",
        "[client]\nsocket = \"agent.sock\"",
        "client.socket",
    ),
    (
        "lt-0a1b2c3d4e5f60718",
        "my-template",
        "node_group[0].launch_template.id",
    ),
];

#[test]
fn what_does_not_go_together_is_refused_where_it_stands() {
    for (from, to, key) in REFUSED {
        let errors = errors(&changed(from, to));
        let keys: BTreeSet<&str> = errors
            .errors
            .iter()
            .map(|error| error.key.as_str())
            .collect();
        assert!(
            keys.contains(key),
            "{to:?} should be refused at {key}:\n{errors}"
        );
    }
}

#[test]
fn all_mistakes_of_form_are_found_in_one_run() {
    let text = EXAMPLE
        .replace("region = \"eu-central-1\"", "region = 7")
        .replace("[queues]", "[queus]")
        .replace("cpus = 16", "cpus = -16\ncolor = 'red'")
        .replace("version = 3", "version = '$Latest'")
        .replace("\"c6i.8xlarge\"", "\"c6i\"")
        .replace("gres = \"gpu:l4:1\"", "gres = 4");
    let errors = errors(&text);
    let keys: Vec<&str> = errors
        .errors
        .iter()
        .map(|error| error.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "queues",
            "region",
            "queus",
            "node_group[0].launch_template.version",
            "node_group[0].instance_types[2]",
            "node_group[1].cpus",
            "node_group[1].color",
            "node_group[1].gres",
        ],
        "{errors}"
    );
}

#[test]
fn all_mistakes_of_meaning_are_found_in_one_run() {
    let text = EXAMPLE
        .replace("eu-central-1b", "eu-central-1a")
        .replace("max_nodes = 200", "max_nodes = 1000");
    let text = text
        .replace("gpu[1-16]", "cloud[1-16],cloud001")
        .replace("poll_interval_seconds = 30", "poll_interval_seconds = 1");
    assert_eq!(errors(&text).errors.len(), 4, "{}", errors(&text));
}

#[test]
fn no_text_makes_the_reader_fail_otherwise_than_with_errors() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    for skipped in 0..lines.len() {
        let text: Vec<&str> = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != skipped)
            .map(|(_, line)| *line)
            .collect();
        let _ = Site::parse(&text.join("\n"), "spillway.toml");
    }
    for cut in (0..EXAMPLE.len()).step_by(7) {
        let _ = Site::parse(&EXAMPLE[..cut], "spillway.toml");
    }
    for text in [
        "",
        "\n",
        "a",
        "[a",
        "a=1",
        "[[node_group]]",
        "node_group = 1",
        "é = 'ü'",
        "[queues]\nresume = []",
    ] {
        assert!(!errors(text).errors.is_empty(), "{text:?}");
    }
}

#[test]
fn the_policy_is_stored_and_read_back() {
    let policy = Site::parse(EXAMPLE, "spillway.toml").unwrap().policy;
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
    let newer = policy
        .to_json()
        .replacen("\"version\":1", "\"version\":2", 1);
    assert!(
        Policy::from_json(&newer)
            .unwrap_err()
            .to_string()
            .contains("update this side first")
    );
    let with_more = policy.to_json().replacen('{', "{\"later\":true,", 1);
    assert_eq!(Policy::from_json(&with_more).unwrap(), policy);
    let twice = policy
        .to_json()
        .replacen("gpu[1-16]", "gpu[1-16],cloud001", 1);
    let error = Policy::from_json(&twice).unwrap_err();
    assert!(format!("{error:?}").contains("cloud001"), "{error:?}");
}

#[test]
fn ten_thousand_nodes_are_indexed() {
    let text = changed("cloud[001-256]", "cloud-[0001-9984]");
    let policy = Site::parse(&text, "spillway.toml").unwrap().policy;
    let names: Vec<NodeName> = (1..=9984)
        .map(|number| NodeName::new(format!("cloud-{number:04}")).unwrap())
        .collect();
    let start = std::time::Instant::now();
    assert!(names.iter().all(|name| {
        policy
            .group_of(name)
            .is_some_and(|group| group.name.as_str() == "cpu")
    }));
    println!("{} lookups took {:?}", names.len(), start.elapsed());
}

#[test]
fn caps_of_partitions_users_and_accounts_are_read_and_checked() {
    let limits = "launches_per_hour = 600\nmax_nodes_per_user = 50\nmax_vcpus_per_account = 900\n\
                  [limits.user.alice]\nmax_nodes = 80\n[limits.user.bob]\nmax_vcpus = 0\n\
                  [limits.account.\"a+b@c\"]\nmax_nodes = 0\n";
    let text = changed("launches_per_hour = 600\n", limits);
    let text = text.replace("name = \"burst\"\n", "name = \"burst\"\nmax_nodes = 90\n");
    let site = Site::parse(&text, "spillway.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let policy = site.policy;
    assert_eq!(Policy::from_json(&policy.to_json()).unwrap(), policy);
    let limits = &policy.limits;
    assert_eq!(
        (limits.per_user.max_nodes, limits.per_user.max_vcpus),
        (Some(50), None)
    );
    assert_eq!(limits.per_account.max_vcpus, Some(900));
    assert_eq!(limits.users[&OwnerName::new("alice")].max_nodes, Some(80));
    assert_eq!(limits.users[&OwnerName::new("bob")].max_vcpus, Some(0));
    assert_eq!(limits.accounts[&OwnerName::new("a+b@c")].max_nodes, Some(0));
    let partitions: Vec<Option<u32>> = policy
        .partitions
        .values()
        .map(|own| own.limits.max_nodes)
        .collect();
    assert_eq!(partitions, [Some(90), None]);

    check(
        "launches_per_hour = 600\n",
        "launches_per_hour = 600\nmax_nodes_per_user = ¦0\n",
        "@: limits.max_nodes_per_user: 0 is out of bounds\n  hint: write a number from 1 to 65536",
    );
    check(
        "launches_per_hour = 600\n",
        "launches_per_hour = 600\n[limits.user]\n¦bob = {}\n¦\"D\\\\eve\" = { max_nodes = 1 }\n",
        "@: limits.user.bob: nothing is written for it\n  \
         hint: write max_nodes or max_vcpus, or leave it out\n\
         @: limits.user.\"D\\\\eve\": no jobs are counted under this name\n  \
         hint: write \"D_eve\", as this name is counted",
    );
    check(
        "name = \"burst\"\n",
        "name = \"burst\"\nmax_vcpus = ¦0\n",
        "@: partition[0].max_vcpus: 0 is out of bounds\n  hint: write a number from 1 to 4294967295",
    );
}

#[test]
fn every_key_is_documented() {
    let guide = include_str!("../../docs/configuration.md");
    let schema = schema();
    let types = schema["$defs"]
        .as_object()
        .unwrap()
        .values()
        .chain([&schema]);
    let keys: BTreeSet<&str> = types
        .filter_map(|ty| ty["properties"].as_object())
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        let is_named = guide.contains(&format!("`{key}`")) || guide.contains(&format!("`[{key}]`"));
        let is_element = ["id", "zone", "version", "partition", "node_group"].contains(&key)
            && guide.contains(key);
        assert!(
            is_named || is_element,
            "docs/configuration.md does not name {key}"
        );
    }
}

/// `UPDATE_SCHEMAS=1` writes it.
#[test]
fn the_committed_schema_is_the_codes() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(SCHEMA, &text).unwrap();
    }
    let committed = std::fs::read_to_string(SCHEMA).unwrap_or_default();
    assert_eq!(
        committed, text,
        "run the tests once with UPDATE_SCHEMAS=1 and commit events/schemas"
    );
}
