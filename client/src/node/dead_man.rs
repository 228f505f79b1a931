//! When a machine is of no use to anybody and nobody may know of it any more, so that it must turn itself off. Pure: the
//! watch tells what it saw, and each rule is in the table of its tests.
//!
//! A slurmctld that is away is no reason as long as the table answers: what becomes of the nodes then is the site's to
//! say (`head_node_away`), and the sweep's to do.

use std::time::Duration;

/// For how long an instance that serves no node is left alone. Longer than `node join` waits for a node (900 s), which
/// says why when it gives up; and than a termination takes that has to be asked for again.
pub const UNCLAIMED_LIMIT: Duration = Duration::from_mins(20);

/// For how long a machine is left alone that hears neither of slurmctld nor of AWS. Longer than a restart of a router or
/// a tunnel, and a small part of what a forgotten instance would cost.
pub const CUT_OFF_LIMIT: Duration = Duration::from_mins(30);

/// How long is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`UNCLAIMED_LIMIT`].
    pub unclaimed: Duration,
    /// See [`CUT_OFF_LIMIT`].
    pub cut_off: Duration,
}

/// What the table says of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It serves a node.
    Serving,
    /// It has never served one.
    Never,
    /// It was released.
    Released,
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// None if the table did not answer.
    pub claim: Option<Claim>,
    /// Whether slurmctld or AWS answered.
    pub is_heard: bool,
    /// Whether a job step runs.
    pub runs_step: bool,
}

/// Why the machine must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No node was ever assigned to it.
    #[error("no node was assigned to this instance for {} s", .0.as_secs())]
    NeverClaimed(Duration),
    /// The control plane let it go, and it still runs.
    #[error("this instance was released {} s ago and still runs", .0.as_secs())]
    Released(Duration),
    /// It hears of nobody.
    #[error("neither slurmctld nor AWS has answered for {} s", .0.as_secs())]
    CutOff(Duration),
}

/// Since when things are as they are. Times are counted from the start of the watch.
#[derive(Debug, Default)]
pub struct DeadMan {
    unclaimed: Option<(Claim, Duration)>,
    cut_off: Option<Duration>,
}

impl DeadMan {
    /// Takes what was seen `now`; why the machine must go, if it must.
    pub fn look(&mut self, look: Look, now: Duration, limits: Limits) -> Option<Cause> {
        // Time counts only while nothing runs: what a job leaves behind may have to be brought home after it.
        if look.runs_step {
            *self = Self::default();
            return None;
        }
        if look.is_heard {
            self.cut_off = None;
        }
        match look.claim {
            Some(Claim::Serving) => self.unclaimed = None,
            Some(claim) if self.unclaimed.is_none_or(|(before, _)| before != claim) => {
                self.unclaimed = Some((claim, now));
            }
            _ => {}
        }
        if let (Some(claim), Some((_, since))) = (look.claim, self.unclaimed) {
            let unclaimed = now.saturating_sub(since);
            if unclaimed >= limits.unclaimed {
                return Some(match claim {
                    Claim::Released => Cause::Released(unclaimed),
                    _ => Cause::NeverClaimed(unclaimed),
                });
            }
        }
        if look.is_heard {
            return None;
        }
        let silent = now.saturating_sub(*self.cut_off.get_or_insert(now));
        (silent >= limits.cut_off).then_some(Cause::CutOff(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        unclaimed: Duration::from_secs(20),
        cut_off: Duration::from_secs(30),
    };

    const SERVING: Look = Look {
        claim: Some(Claim::Serving),
        is_heard: true,
        runs_step: false,
    };
    const NEVER: Look = Look {
        claim: Some(Claim::Never),
        ..SERVING
    };
    const RELEASED: Look = Look {
        claim: Some(Claim::Released),
        ..SERVING
    };
    /// The table is away, slurmctld is not.
    const NO_TABLE: Look = Look {
        claim: None,
        ..SERVING
    };
    const CUT_OFF: Look = Look {
        claim: None,
        is_heard: false,
        runs_step: false,
    };

    fn working(look: Look) -> Look {
        Look {
            runs_step: true,
            ..look
        }
    }

    /// What is seen at these seconds.
    type Sights<'a> = &'a [(u64, Look)];

    /// What each of these sights, seen at these seconds, came to at last.
    fn end(looks: Sights) -> Option<Cause> {
        let mut dead_man = DeadMan::default();
        let mut end = None;
        for (at, look) in looks {
            assert_eq!(end, None, "it goes before {at} s: {looks:?}");
            end = dead_man.look(*look, Duration::from_secs(*at), LIMITS);
        }
        end
    }

    #[test]
    fn when_it_goes_and_when_not() {
        let seconds = Duration::from_secs;
        let never = |s| Some(Cause::NeverClaimed(seconds(s)));
        let released = |s| Some(Cause::Released(seconds(s)));
        let cut_off = |s| Some(Cause::CutOff(seconds(s)));
        let table: &[(Sights, Option<Cause>)] = &[
            // It serves a node, for however long.
            (&[(0, SERVING), (1_000_000, SERVING)], None),
            // Never claimed, just not long enough, and claimed at last.
            (&[(0, NEVER), (20, NEVER)], never(20)),
            (&[(5, NEVER), (24, NEVER)], None),
            (&[(0, NEVER), (19, SERVING), (25, NEVER)], None),
            // Released: counted from then.
            (&[(0, SERVING), (100, RELEASED), (119, RELEASED)], None),
            (
                &[(0, SERVING), (100, RELEASED), (120, RELEASED)],
                released(20),
            ),
            (&[(0, NEVER), (15, RELEASED), (30, RELEASED)], None),
            // In doubt nothing is decided, and nothing forgotten.
            (&[(0, NEVER), (15, NO_TABLE), (40, NO_TABLE)], None),
            (&[(0, NEVER), (15, NO_TABLE), (40, NEVER)], never(40)),
            // Not for a job's life.
            (&[(0, RELEASED), (30, working(RELEASED))], None),
            (
                &[(0, RELEASED), (30, working(RELEASED)), (49, RELEASED)],
                None,
            ),
            (
                &[(0, working(RELEASED)), (1, RELEASED), (21, RELEASED)],
                released(20),
            ),
            // Cut off.
            (&[(0, SERVING), (10, CUT_OFF), (39, CUT_OFF)], None),
            (&[(0, SERVING), (10, CUT_OFF), (40, CUT_OFF)], cut_off(30)),
            (&[(0, CUT_OFF), (30, CUT_OFF)], cut_off(30)),
            // Whoever answers once breaks it: slurmctld alone, or AWS alone.
            (&[(0, CUT_OFF), (29, NO_TABLE), (58, CUT_OFF)], None),
            (&[(0, CUT_OFF), (29, SERVING), (58, CUT_OFF)], None),
            (&[(0, CUT_OFF), (29, working(CUT_OFF)), (58, CUT_OFF)], None),
            (&[(0, working(CUT_OFF)), (1_000, working(CUT_OFF))], None),
            (
                &[(0, working(CUT_OFF)), (10, CUT_OFF), (40, CUT_OFF)],
                cut_off(30),
            ),
        ];
        for (looks, expected) in table {
            assert_eq!(end(looks), *expected, "{looks:?}");
        }
    }

    #[test]
    fn the_words_are_for_a_person() {
        assert_eq!(
            Cause::CutOff(CUT_OFF_LIMIT).to_string(),
            "neither slurmctld nor AWS has answered for 1800 s"
        );
    }
}
