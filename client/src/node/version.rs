//! Which slurmd a slurmctld accepts.
//!
//! A daemon understands those of its own major release and of the ones before it: two of them up to 24.05,
//! three from 24.11 on; never a newer one. (`SchedMD`, "Upgrade Guide", compatibility window;
//! `SLURM_MIN_PROTOCOL_VERSION` in `src/common/slurm_protocol_common.h`.)

use std::fmt;
use std::str::FromStr;

/// Major releases before they came every May and November, oldest first.
const EARLY_RELEASES: [(u16, u16); 7] = [
    (19, 5),
    (20, 2),
    (20, 11),
    (21, 8),
    (22, 5),
    (23, 2),
    (23, 11),
];

/// First year of the half-yearly releases, which begin with 24.05.
const HALF_YEARLY_SINCE: u16 = 24;

/// First release that understands three older ones.
const THREE_BACK_SINCE: SlurmRelease = SlurmRelease {
    year: 24,
    month: 11,
};

/// A major release, such as 24.11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct SlurmRelease {
    year: u16,
    month: u16,
}

/// A version as Slurm's programs print it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmVersion {
    release: SlurmRelease,
    text: String,
}

/// A text in which no version stands.
#[derive(Debug, thiserror::Error)]
#[error("no Slurm version in {text:?}")]
pub struct NoVersion {
    text: String,
}

impl SlurmRelease {
    /// Its place in the order of releases; none for a number that was never released.
    fn position(self) -> Option<u16> {
        let early = u16::try_from(EARLY_RELEASES.len()).expect("a handful");
        let half = match self.month {
            5 => 0,
            11 => 1,
            _ => return self.early_position(),
        };
        match self.year.checked_sub(HALF_YEARLY_SINCE) {
            Some(years) => Some(early + 2 * years + half),
            None => self.early_position(),
        }
    }

    fn early_position(self) -> Option<u16> {
        let index = EARLY_RELEASES
            .iter()
            .position(|&(year, month)| (year, month) == (self.year, self.month))?;
        u16::try_from(index).ok()
    }
}

impl SlurmVersion {
    /// Why a slurmctld of version `self` does not take a `slurmd`, in words for Slurm's Reason; none if
    /// it does.
    #[must_use]
    pub fn refusal_of(&self, slurmd: &Self) -> Option<String> {
        if slurmd.release == self.release {
            return None;
        }
        let is = format!("slurmd is {slurmd} but slurmctld is {self}");
        if slurmd.release > self.release {
            return Some(format!("{is}: slurmctld takes no newer release"));
        }
        let back = if self.release >= THREE_BACK_SINCE {
            3
        } else {
            2
        };
        match (self.release.position(), slurmd.release.position()) {
            (Some(own), Some(theirs)) if own - theirs <= back => None,
            _ => Some(format!(
                "{is}: slurmctld takes {back} older releases at most"
            )),
        }
    }
}

impl FromStr for SlurmVersion {
    type Err = NoVersion;

    /// Takes `22.05.8`, `slurm 24.11.5` and `slurm-wlm 22.05.8` alike.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let parse = |word: &str| -> Option<Self> {
            let mut parts = word.split('.');
            let year = parts.next()?.parse().ok()?;
            let month = parts.next()?.parse().ok()?;
            Some(Self {
                release: SlurmRelease { year, month },
                text: word.to_owned(),
            })
        };
        text.split_whitespace()
            .find_map(parse)
            .ok_or_else(|| NoVersion {
                text: text.chars().take(80).collect(),
            })
    }
}

impl fmt::Display for SlurmVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> SlurmVersion {
        text.parse().unwrap()
    }

    #[test]
    fn a_controller_takes_its_window_of_releases() {
        // The table of SchedMD's Upgrade Guide: each release with the oldest it understands.
        let windows = [
            ("22.05.8", "20.11.9", "20.02.7"),
            ("23.02.0", "21.08.8", "20.11.9"),
            ("23.11.1", "22.05.8", "21.08.8"),
            ("24.05.0", "23.02.7", "22.05.8"),
            ("24.11.5", "23.02.7", "22.05.8"),
            ("25.05.0", "23.11.1", "23.02.7"),
            ("25.11.0", "24.05.0", "23.11.1"),
            ("26.05.5", "24.11.5", "24.05.0"),
        ];
        for (controller, oldest, too_old) in windows {
            let controller = version(controller);
            assert_eq!(controller.refusal_of(&controller), None);
            assert_eq!(controller.refusal_of(&version(oldest)), None, "{oldest}");
            assert!(
                controller.refusal_of(&version(too_old)).is_some(),
                "{too_old}"
            );
            let newer = version(oldest).refusal_of(&controller);
            assert!(newer.is_some_and(|text| text.contains("no newer release")));
        }
    }

    #[test]
    fn the_refusal_names_both_versions() {
        assert_eq!(
            version("22.05.8")
                .refusal_of(&version("slurm 24.11.5"))
                .unwrap(),
            "slurmd is 24.11.5 but slurmctld is 22.05.8: slurmctld takes no newer release"
        );
    }

    #[test]
    fn maintenance_releases_do_not_matter() {
        assert_eq!(
            version("22.05.2").refusal_of(&version("slurm-wlm 22.05.8")),
            None
        );
    }

    #[test]
    fn a_release_that_never_was_is_refused_unless_it_is_the_same() {
        assert!(version("24.11.0").refusal_of(&version("24.08.0")).is_some());
        assert_eq!(version("24.08.0").refusal_of(&version("24.08.1")), None);
    }

    #[test]
    fn what_is_no_version_is_said() {
        for text in ["", "slurm", "slurmd: error 5", "x.y"] {
            text.parse::<SlurmVersion>().unwrap_err();
        }
    }
}
