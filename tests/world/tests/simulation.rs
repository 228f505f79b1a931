//! The simulation as part of every test run: the seeds that have found something, and some thousands more. The long
//! run is `make sim SEEDS=100000`; the broken code that each invariant must catch is in `mutants`.

use spillway_world::sim::{Campaign, INVARIANTS, run, tell};

/// Seeds of every test run: some seconds, and enough for every pair of fault and call.
const SEEDS: u64 = 3_000;
/// A seed and what it had found, a line each.
const REGRESSIONS: &str = include_str!("regressions.txt");

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn what_seeds_have_found_stays_found() {
    let lines = REGRESSIONS
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in lines {
        let (seed, what) = line.split_once(' ').expect("a seed and what it had found");
        let seed = seed.parse().expect("a seed is a number");
        let violations = run(seed).violations;
        assert!(
            violations.is_empty(),
            "{what}\n{violations:#?}\n{}",
            tell(seed, false)
        );
    }
}

#[test]
fn no_seed_violates_an_invariant_and_every_fault_is_seen() {
    let campaign = Campaign::run(0..SEEDS, threads());
    if let Some((seed, violations)) = campaign.violations.first() {
        panic!("{violations:#?}\n{}", tell(*seed, false));
    }
    assert_eq!(campaign.runs, SEEDS);
    assert_eq!(campaign.coverage.missing(), Vec::<String>::new());
    let [nodes, events, faults] = campaign.fewest;
    assert_eq!(nodes, 4, "the smallest clusters are among the seeds");
    assert!(campaign.most_nodes >= 60, "and so are large ones");
    assert!(
        events >= 20 && faults >= 3,
        "{events} events, {faults} faults"
    );
}

#[test]
fn a_seed_is_one_story() {
    for seed in 0..20 {
        let story = tell(seed, true);
        assert_eq!(story, tell(seed, true));
        assert!(story.lines().count() > 50, "{story}");
    }
    assert_ne!(tell(1, true), tell(2, true));
}

/// What each mutant breaks is named in its first line, and its patch fits the code as it is.
#[test]
fn every_invariant_has_a_mutant() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/mutants");
    let files = std::fs::read_dir(directory).expect("the directory of the mutants");
    let mut broken = Vec::new();
    for file in files {
        let path = file.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            let text = std::fs::read_to_string(&path).expect("a patch");
            fits(&text);
            let name = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("violates: "));
            broken.push(
                name.expect("the first line says what it violates")
                    .to_owned(),
            );
        }
    }
    broken.sort();
    broken.dedup();
    let mut invariants = INVARIANTS.map(str::to_owned);
    invariants.sort();
    assert_eq!(broken, invariants);
}

/// Whether the file has the lines that the patch expects, those that it keeps and those that it takes away.
fn fits(patch: &str) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    for of_file in patch.split("\n--- a/").skip(1) {
        let (name, hunks) = of_file.split_once('\n').expect("a path");
        let file = std::fs::read_to_string(format!("{root}{name}")).expect("the file");
        for hunk in hunks.split("\n@@ ").skip(1) {
            let lines = hunk
                .lines()
                .skip(1)
                .take_while(|line| !line.starts_with("diff "));
            let old = lines.filter_map(|line| line.strip_prefix([' ', '-']));
            let old: Vec<&str> = old.collect();
            assert!(file.contains(&old.join("\n")), "{name} has not: {old:#?}");
        }
    }
}
