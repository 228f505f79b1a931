//! What slurmctld shows of a node's state: `+`-joined flags. Versions add flags, so whole sets are never compared.

/// A state as scontrol prints it, such as `IDLE+CLOUD+POWERED_DOWN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeState<'a>(pub &'a str);

impl NodeState<'_> {
    /// Whether a flag is set.
    #[must_use]
    pub fn has(self, flag: &str) -> bool {
        let marks = ['*', '#', '~', '%', '$', '@', '^', '!'];
        let mut flags = self.0.split('+').map(|set| set.trim_end_matches(marks));
        flags.any(|set| set == flag)
    }

    fn any(self, flags: &[&str]) -> bool {
        flags.iter().any(|flag| self.has(flag))
    }

    /// Whether Slurm has let it go.
    #[must_use]
    pub fn is_let_go(self) -> bool {
        self.any(&["POWERED_DOWN", "POWERING_DOWN"])
    }

    /// Whether Slurm waits for it to come.
    #[must_use]
    pub fn is_coming(self) -> bool {
        self.any(&["POWERING_UP", "POWER_UP"])
    }

    /// Whether a job holds it, also one that is just ending.
    #[must_use]
    pub fn has_job(self) -> bool {
        self.any(&["ALLOCATED", "MIXED", "COMPLETING"])
    }

    /// Whether it is powered down and nobody wants it.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        self.has("POWERED_DOWN") && !self.has_job() && !self.is_coming()
    }

    /// Whether no job can be given to it, whatever its power state.
    #[must_use]
    pub fn is_unusable(self) -> bool {
        self.any(&[
            "DOWN",
            "DRAIN",
            "DRAINED",
            "DRAINING",
            "FAIL",
            "NOT_RESPONDING",
            "INVALID_REG",
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_looked_at_one_by_one() {
        for (state, let_go, coming, job, rest, unusable) in [
            ("IDLE+CLOUD+POWERED_DOWN", true, false, false, true, false),
            (
                "DOWN+CLOUD+POWERED_DOWN+NOT_RESPONDING",
                true,
                false,
                false,
                true,
                true,
            ),
            (
                "IDLE+CLOUD+POWER_UP+POWERED_DOWN",
                true,
                true,
                false,
                false,
                false,
            ),
            (
                "ALLOCATED+CLOUD+POWERED_DOWN",
                true,
                false,
                true,
                false,
                false,
            ),
            ("MIXED#+CLOUD+POWERING_UP", false, true, true, false, false),
            ("IDLE*+CLOUD+DRAIN", false, false, false, false, true),
            ("POWERED", false, false, false, false, false),
        ] {
            let seen = NodeState(state);
            assert_eq!(
                (
                    seen.is_let_go(),
                    seen.is_coming(),
                    seen.has_job(),
                    seen.is_at_rest(),
                    seen.is_unusable()
                ),
                (let_go, coming, job, rest, unusable),
                "{state}"
            );
        }
    }
}
