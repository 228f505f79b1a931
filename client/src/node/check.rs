//! The checks before slurmd may start. Each failure is one sentence fit for Slurm's Reason.

use std::time::Duration;

use serde::Serialize;
use spillway_core::name::NodeName;
use tokio::process::Command;

use super::slurm::{Settings, Slurm};
use super::version::SlurmVersion;
use super::{command, metadata, secrets};
use crate::aws::clock::{MAX_CLOCK_SKEW, ServiceClock};

/// munge answers within milliseconds, or its daemon is not there.
const MUNGE_TIMEOUT: Duration = Duration::from_secs(10);

/// What starts with the machine (munged, chronyd) may need this long until it works.
const SETTLE_TIME: Duration = Duration::from_mins(1);

/// A check and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should be.
    Passed {
        /// What was seen.
        seen: String,
    },
    /// Not as it should be.
    Failed {
        /// In words for Slurm's Reason.
        reason: String,
        /// Whether it may still come right.
        #[serde(skip)]
        patience: Patience,
    },
    /// Not looked at.
    Skipped {
        /// Why.
        why: String,
    },
}

/// How long a failure is looked at again before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It will not go away.
    None,
    /// Services of this machine may still be starting.
    Settle,
    /// Another machine is concerned: as long as there is time to join.
    UntilDeadline,
}

impl Patience {
    /// Whether a failure counts after so much time.
    pub fn is_over(self, since_start: Duration) -> bool {
        match self {
            Self::None => true,
            Self::Settle => since_start >= SETTLE_TIME,
            Self::UntilDeadline => false,
        }
    }
}

/// All checks of one round.
#[derive(Debug, Clone)]
pub struct Checks {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// slurmctld's settings, if it was asked.
    pub settings: Option<Settings>,
}

impl Checks {
    /// Looks at everything a slurmd for `node` needs.
    pub async fn run(slurm: &Slurm, clock: &ServiceClock, node: &NodeName) -> Self {
        let mut all = Self {
            checks: Vec::new(),
            settings: None,
        };
        all.push("clock", check_clock(clock));
        all.push("metadata", metadata::check().await);
        all.push("munge", check_munge(slurm).await);
        if slurm.is_fetched_by_slurmd() {
            let why = "slurmd fetches its configuration and meets slurmctld itself".to_owned();
            all.push("slurmctld", Outcome::Skipped { why });
            return all;
        }
        if !slurm.conf().exists() {
            let reason = format!(
                "there is no {} on the instance and no --conf-server among slurmd's options",
                slurm.conf().display()
            );
            all.push("slurmctld", failed(reason, Patience::None));
            return all;
        }
        let installed = slurm.slurmd_version().await;
        let settings = match slurm.settings().await {
            Ok(settings) => settings,
            Err(error) => {
                let with = installed.unwrap_or_else(|error| error.words());
                let reason = format!("slurmctld does not answer {with}: {}", error.words());
                all.push("slurmctld", unanswered(reason));
                return all;
            }
        };
        let controller = settings
            .value("SLURM_VERSION")
            .unwrap_or_default()
            .to_owned();
        all.push(
            "slurmctld",
            passed(format!("answers, version {controller}")),
        );
        let installed = installed.map_err(|error| error.words());
        all.push("version", check_version(&controller, installed));
        all.push("node", check_node(slurm, node).await);
        all.settings = Some(settings);
        all
    }

    /// The first failure: its reason and how long it may be borne.
    pub fn failure(&self) -> Option<(&str, Patience)> {
        let failures = self.checks.iter().filter_map(|check| match &check.outcome {
            Outcome::Failed { reason, patience } => Some((reason.as_str(), *patience)),
            _ => None,
        });
        // One that will not go away says more than one that may.
        failures.min_by_key(|(_, patience)| *patience != Patience::None)
    }

    /// Adds one.
    pub fn push(&mut self, name: &'static str, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }
}

/// A check that passed.
pub fn passed(seen: String) -> Outcome {
    Outcome::Passed { seen }
}

/// A check that failed.
pub fn failed(reason: String, patience: Patience) -> Outcome {
    Outcome::Failed { reason, patience }
}

/// slurmctld hangs up on whom munge does not vouch for, and Slurm's programs then say no more than this.
const HUNG_UP: &str = "Zero Bytes were transmitted or received";

fn unanswered(reason: String) -> Outcome {
    if reason.contains(HUNG_UP) {
        let reason = format!("{reason} (is its munge key the cluster's?)");
        return failed(reason, Patience::Settle);
    }
    failed(reason, Patience::UntilDeadline)
}

fn check_clock(clock: &ServiceClock) -> Outcome {
    let Some(ahead_ms) = clock.ahead_ms() else {
        let why = "no answer from AWS bore a date".to_owned();
        return Outcome::Skipped { why };
    };
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    let direction = if ahead_ms > 0 { "behind" } else { "ahead of" };
    let seconds = off.as_secs();
    if off <= MAX_CLOCK_SKEW {
        return passed(format!("{seconds} s {direction} AWS's"));
    }
    let reason = format!(
        "the clock is {seconds} s {direction} AWS's, at most {} s are allowed: does chrony run?",
        MAX_CLOCK_SKEW.as_secs()
    );
    failed(reason, Patience::Settle)
}

/// A credential made here must be readable here: the daemon runs and has a key. That the key is also
/// slurmctld's shows when slurmctld answers.
async fn check_munge(slurm: &Slurm) -> Outcome {
    if secrets::munge_is_not_used(slurm) {
        let why = "the key is that of auth/slurm".to_owned();
        return Outcome::Skipped { why };
    }
    let mut munge = Command::new("munge");
    munge.arg("-n");
    let credential = match command::run(munge, b"", MUNGE_TIMEOUT).await {
        Ok(credential) => credential,
        Err(error) => {
            let reason = format!("munge does not work: {}", error.words());
            return failed(reason, Patience::Settle);
        }
    };
    let unmunge = Command::new("unmunge");
    match command::run(unmunge, credential.as_bytes(), MUNGE_TIMEOUT).await {
        Ok(_) => passed("makes and reads credentials".to_owned()),
        Err(error) => failed(
            format!("munge does not read its own credential: {}", error.words()),
            Patience::Settle,
        ),
    }
}

fn check_version(controller: &str, installed: Result<String, String>) -> Outcome {
    let installed = match installed {
        Ok(text) => text.parse::<SlurmVersion>(),
        Err(reason) => return failed(reason, Patience::None),
    };
    match (controller.parse::<SlurmVersion>(), installed) {
        (Ok(controller), Ok(slurmd)) => match controller.refusal_of(&slurmd) {
            Some(reason) => failed(reason, Patience::None),
            None => passed(format!("slurmd {slurmd}")),
        },
        (Err(error), _) => failed(format!("slurmctld's version: {error}"), Patience::None),
        (_, Err(error)) => failed(format!("slurmd's version: {error}"), Patience::None),
    }
}

async fn check_node(slurm: &Slurm, node: &NodeName) -> Outcome {
    match slurm.node(node).await {
        Ok(view) => passed(format!("slurmctld has it as {}", view.state.join("+"))),
        Err(command::CommandError::Failed { said, .. }) if said.contains("not found") => failed(
            format!("slurmctld knows no node {node}: is it in slurm.conf?"),
            Patience::None,
        ),
        Err(error) => failed(
            format!("slurmctld does not tell of node {node}: {}", error.words()),
            Patience::UntilDeadline,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lasting_failure_comes_before_one_that_may_pass() {
        let mut checks = Checks {
            checks: Vec::new(),
            settings: None,
        };
        checks.push("clock", failed("off".to_owned(), Patience::Settle));
        assert_eq!(checks.failure(), Some(("off", Patience::Settle)));
        checks.push("node", failed("unknown".to_owned(), Patience::None));
        assert_eq!(checks.failure(), Some(("unknown", Patience::None)));
    }

    #[test]
    fn who_is_hung_up_on_is_told_to_look_at_the_key() {
        let Outcome::Failed { reason, patience } = unanswered(HUNG_UP.to_owned()) else {
            panic!("it is a failure");
        };
        assert!(reason.ends_with("(is its munge key the cluster's?)"));
        assert_eq!(patience, Patience::Settle);
    }

    #[test]
    fn the_version_check_says_both_versions() {
        let outcome = check_version("22.05.8", Ok("slurm 24.11.5".to_owned()));
        let Outcome::Failed { reason, patience } = outcome else {
            panic!("{outcome:?}");
        };
        assert!(
            reason.starts_with("slurmd is 24.11.5 but slurmctld is 22.05.8"),
            "{reason}"
        );
        assert_eq!(patience, Patience::None);
        assert_eq!(
            check_version("24.11.5", Ok("slurm-wlm 23.02.7".to_owned())),
            passed("slurmd 23.02.7".to_owned())
        );
    }
}
