//! How often which trouble struck which call.

use std::fmt;

use super::names::{Call, Trouble};

/// Counts of one run or of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    struck: Vec<u64>,
    called: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            struck: vec![0; Call::ALL.len() * Trouble::ALL.len()],
            called: vec![0; Call::ALL.len()],
        }
    }
}

fn place(trouble: Trouble, call: Call) -> usize {
    call as usize * Trouble::ALL.len() + trouble as usize
}

fn pairs() -> impl Iterator<Item = (Trouble, Call)> {
    let calls = Call::ALL.iter();
    calls.flat_map(|call| Trouble::of(*call).iter().map(|trouble| (*trouble, *call)))
}

impl Coverage {
    pub(crate) fn call(&mut self, call: Call) {
        self.called[call as usize] += 1;
    }

    pub(crate) fn strike(&mut self, trouble: Trouble, call: Call) {
        self.struck[place(trouble, call)] += 1;
    }

    /// Takes in another run's counts.
    pub fn merge(&mut self, other: &Self) {
        let add = |own: &mut Vec<u64>, other: &[u64]| {
            own.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        };
        add(&mut self.struck, &other.struck);
        add(&mut self.called, &other.called);
    }

    /// How often calls were made whose names begin so, such as `ec2.` or `table.instances`.
    #[must_use]
    pub fn calls(&self, prefix: &str) -> u64 {
        let calls = Call::ALL.iter().filter(|c| c.as_str().starts_with(prefix));
        calls.map(|call| self.called[*call as usize]).sum()
    }

    /// How often anything went wrong.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.struck.iter().sum()
    }

    /// Pairs of the declared list that never fired, as `trouble at call`.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        pairs()
            .filter(|(trouble, call)| self.struck[place(*trouble, *call)] == 0)
            .map(|(trouble, call)| format!("{} at {}", trouble.as_str(), call.as_str()))
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for call in Call::ALL {
            write!(
                f,
                "{:30} {:>12}",
                call.as_str(),
                self.called[*call as usize]
            )?;
            for trouble in Trouble::of(*call) {
                let count = self.struck[place(*trouble, *call)];
                write!(f, "  {} {count}", trouble.as_str())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
