//! Imports run one way: core ← control ← aws, ec2; core, control ← runtime ← each Lambda; core ← client;
//! control ← world ← lab; aws, lab ← contract; control ← checks. What is not written here is forbidden.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use anyhow::Result;
use spillway_checks::crates::Crates;
use spillway_checks::repository;

const CORE: &str = "spillway-core";
const CONTROL: &str = "spillway-control";
const AWS: &str = "spillway-aws";
const EC2: &str = "spillway-ec2";
const RUNTIME: &str = "spillway-runtime";
const WORLD: &str = "spillway-world";

/// Each crate with all it may take of the house.
const MAY_TAKE: [(&str, &[&str]); 17] = [
    (CORE, &[]),
    (CONTROL, &[CORE]),
    (AWS, &[CORE, CONTROL]),
    (EC2, &[CORE, CONTROL]),
    (RUNTIME, &[CORE, CONTROL]),
    ("spillway-launch", &[CORE, CONTROL, AWS, EC2, RUNTIME]),
    ("spillway-terminate", &[CORE, CONTROL, AWS, EC2, RUNTIME]),
    ("spillway-sweep", &[CORE, CONTROL, AWS, EC2, RUNTIME]),
    ("spillway-callback", &[CORE, CONTROL, AWS, RUNTIME]),
    ("spillway-publish", &[CORE, CONTROL, AWS, RUNTIME]),
    ("spillway-report", &[CORE, CONTROL, AWS, RUNTIME]),
    ("spillway-notice", &[CORE, CONTROL, AWS, EC2, RUNTIME]),
    ("spillway-client", &[CORE]),
    (WORLD, &[CORE, CONTROL]),
    ("spillway-lab", &[CORE, CONTROL, WORLD]),
    // The suites run on every adapter there is.
    (
        "spillway-contract",
        &[CORE, CONTROL, AWS, EC2, RUNTIME, WORLD, "spillway-lab"],
    ),
    // The template's alarms are held to the names of the metrics.
    ("spillway-checks", &[CONTROL]),
];

/// Crates whose tests run on the in-memory world too.
const TESTED_ON_THE_WORLD: [&str; 3] = [CONTROL, AWS, EC2];

#[test]
fn every_crate_takes_only_what_it_may() -> Result<()> {
    let crates = Crates::read()?;
    let listed: BTreeSet<&str> = MAY_TAKE.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        crates.members(),
        listed,
        "a crate without a rule, or a rule without a crate"
    );
    for (name, may) in MAY_TAKE {
        let may: BTreeSet<&str> = may.iter().copied().collect();
        let (shipped, in_tests) = crates.imports(name);
        let excess: Vec<_> = shipped.difference(&may).collect();
        assert!(excess.is_empty(), "{name} may not take {excess:?}");
        let mut may_in_tests = may;
        if TESTED_ON_THE_WORLD.contains(&name) {
            may_in_tests.insert(WORLD);
        }
        let excess: Vec<_> = in_tests.difference(&may_in_tests).collect();
        assert!(excess.is_empty(), "tests of {name} may not take {excess:?}");
    }
    Ok(())
}

/// The EC2 SDK takes minutes to compile and gives the power to launch: four Lambdas link it, of which `notice` and `sweep`
/// may only look, nobody else that is shipped.
#[test]
fn four_lambdas_link_ec2() -> Result<()> {
    let crates = Crates::read()?;
    let linking: BTreeSet<&str> = crates
        .members()
        .into_iter()
        .filter(|name| *name != "spillway-contract")
        .filter(|name| crates.links(name).contains("aws-sdk-ec2"))
        .collect();
    assert_eq!(
        linking,
        BTreeSet::from([
            EC2,
            "spillway-launch",
            "spillway-sweep",
            "spillway-terminate",
            "spillway-notice"
        ])
    );
    Ok(())
}

/// Decisions are made without AWS, without an async runtime, and in core without clock and chance as well.
#[test]
fn what_decides_is_pure() -> Result<()> {
    let crates = Crates::read()?;
    let links_none = |name: &str, banned: &[&str]| {
        let linked = crates.links(name);
        let found: Vec<_> = linked
            .iter()
            .filter(|taken| banned.iter().any(|ban| is_of_family(taken, ban)))
            .collect();
        assert!(found.is_empty(), "{name} links {found:?}");
    };
    links_none(
        CORE,
        &[
            "aws",
            "tokio",
            "hyper",
            "chrono",
            "time",
            "rand",
            "getrandom",
            "fastrand",
            "uuid",
        ],
    );
    links_none(CONTROL, &["aws", "tokio", "hyper", "lambda_runtime"]);
    links_none(WORLD, &["aws", "tokio", "hyper"]);
    Ok(())
}

/// The standard library brings a clock and an environment too; `cargo metadata` does not show their use.
#[test]
fn core_asks_nobody_for_the_time_or_the_environment() -> Result<()> {
    const BANNED: [&str; 7] = [
        "SystemTime::now",
        "Instant::now",
        "std::env",
        "std::fs",
        "TcpStream",
        "std::process",
        "async fn",
    ];
    for (file, text) in sources(&repository().join("core/src"))? {
        // Tests at the end of a file may read fixtures.
        let shipped = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<&str> = shipped
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        for banned in BANNED {
            let found = code.iter().find(|line| line.contains(banned));
            assert!(found.is_none(), "{file} uses {banned}: {found:?}");
        }
    }
    Ok(())
}

fn is_of_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

fn sources(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}
