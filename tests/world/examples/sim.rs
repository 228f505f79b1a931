//! Runs seeds of the simulation: `sim COUNT [FIRST]`, or `sim --seed SEED` for one seed's whole story.
//! `make sim SEEDS=100000` and `make sim SEED=123` call it.

use std::process::ExitCode;
use std::time::Instant;

use spillway_world::sim::{Campaign, tell};

/// A third of the simulation's time is the C library's allocator's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Stories that are told of failing seeds.
const STORIES: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Option<Vec<u64>> = arguments
        .iter()
        .filter(|argument| *argument != "--seed")
        .map(|argument| argument.parse().ok())
        .collect();
    match (arguments.first().map(String::as_str), numbers.as_deref()) {
        (Some("--seed"), Some([seed])) => {
            print!("{}", tell(*seed, true));
            ExitCode::SUCCESS
        }
        (_, Some([count])) => campaign(*count, 0),
        (_, Some([count, first])) => campaign(*count, *first),
        _ => {
            eprintln!("usage: sim COUNT [FIRST] | sim --seed SEED");
            ExitCode::from(2)
        }
    }
}

fn campaign(count: u64, first: u64) -> ExitCode {
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign::run(first..first + count, threads);
    println!("{}", campaign.coverage);
    let [nodes, events, faults] = campaign.fewest;
    println!(
        "{} seeds in {:.1} s on {threads} threads: {nodes} to {} nodes, at least {events} events and {faults} faults each, {} faults in all",
        campaign.runs,
        begun.elapsed().as_secs_f64(),
        campaign.most_nodes,
        campaign.coverage.total(),
    );
    let missing = campaign.coverage.missing();
    for pair in &missing {
        println!("never seen: {pair}");
    }
    for (seed, violations) in &campaign.violations {
        for violation in violations {
            println!(
                "seed {seed} violates {}: {}",
                violation.invariant, violation.what
            );
        }
    }
    for (seed, _) in campaign.violations.iter().take(STORIES) {
        println!("\n{}", tell(*seed, false));
    }
    if missing.is_empty() && campaign.violations.is_empty() {
        println!("no violation");
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
