//! Many seeds on several threads. Each run is made from its seed alone, so that it does not matter where it runs.

use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use super::coverage::Coverage;
use super::run::{Run, run};
use super::watch::Violation;

/// A campaign stops after so many seeds with violations: they are likely to be one.
const MOST_VIOLATIONS: u64 = 20;

/// What many seeds brought.
#[derive(Debug)]
pub struct Campaign {
    /// Runs made.
    pub runs: u64,
    /// Faults of all runs.
    pub coverage: Coverage,
    /// The fewest nodes, events and faults of a run.
    pub fewest: [usize; 3],
    /// The most nodes of a run.
    pub most_nodes: usize,
    /// Seeds with the invariants that did not hold, in the order of the seeds.
    pub violations: Vec<(u64, Vec<Violation>)>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            runs: 0,
            coverage: Coverage::default(),
            fewest: [usize::MAX; 3],
            most_nodes: 0,
            violations: Vec::new(),
        }
    }
}

impl Campaign {
    /// Runs `seeds` on so many threads.
    #[must_use]
    pub fn run(seeds: Range<u64>, threads: usize) -> Self {
        let next = AtomicU64::new(seeds.start);
        let failed = AtomicU64::new(0);
        let work = || {
            let mut own = Self::default();
            while failed.load(Ordering::Relaxed) < MOST_VIOLATIONS {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    break;
                }
                own.add(seed, &failed);
            }
            own
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut all = Self::default();
            for worker in workers {
                all.merge(worker.join().expect("a run's panic is caught"));
            }
            all.violations.sort_by_key(|(seed, _)| *seed);
            all
        })
    }

    fn add(&mut self, seed: u64, failed: &AtomicU64) {
        self.runs += 1;
        let violations = match catch_unwind(|| run(seed)) {
            Ok(run) => {
                self.measure(&run);
                run.violations
            }
            Err(_) => vec![Violation::panic()],
        };
        if !violations.is_empty() {
            failed.fetch_add(1, Ordering::Relaxed);
            self.violations.push((seed, violations));
        }
    }

    fn measure(&mut self, run: &Run) {
        self.coverage.merge(&run.coverage);
        self.most_nodes = self.most_nodes.max(run.nodes);
        let faults = usize::try_from(run.coverage.total()).unwrap_or(usize::MAX);
        let own = [run.nodes, run.events, faults];
        self.fewest
            .iter_mut()
            .zip(own)
            .for_each(|(least, own)| *least = (*least).min(own));
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.coverage.merge(&other.coverage);
        self.fewest
            .iter_mut()
            .zip(other.fewest)
            .for_each(|(a, b)| *a = (*a).min(b));
        self.most_nodes = self.most_nodes.max(other.most_nodes);
        self.violations.extend(other.violations);
    }
}
