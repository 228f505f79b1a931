//! Times as a person at this machine reads them. The zone is that of `TZ` or `/etc/localtime`, as for `date`.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The system's zone.
const LOCALTIME: &str = "/etc/localtime";
/// Where zones lie by name.
const ZONES: &str = "/usr/share/zoneinfo";

/// This machine's zone; UTC if it has none.
pub fn zone() -> TimeZone {
    let named = std::env::var("TZ").ok();
    match named.as_deref() {
        None => of_file(Path::new(LOCALTIME)),
        Some("") => None,
        Some(name) => {
            let name = name.trim_start_matches(':');
            // A path stays one.
            of_file(&Path::new(ZONES).join(name)).or_else(|| TimeZone::posix(name).ok())
        }
    }
    .unwrap_or(TimeZone::UTC)
}

fn of_file(path: &Path) -> Option<TimeZone> {
    let data = std::fs::read(path).ok()?;
    TimeZone::tzif(&path.display().to_string(), &data).ok()
}

/// Such as `2026-03-09 14:03:07`. `at_ms`: Unix milliseconds.
pub fn absolute(at_ms: u64, zone: &TimeZone) -> String {
    format_as("%Y-%m-%d %H:%M:%S", at_ms, zone)
}

/// The zone's name and offset at that time, such as `CET, UTC+01:00`.
pub fn describe(at_ms: u64, zone: &TimeZone) -> String {
    format_as("%Z, UTC%:z", at_ms, zone)
}

fn format_as(format: &str, at_ms: u64, zone: &TimeZone) -> String {
    let timestamp = i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok())
        .unwrap_or(Timestamp::MAX);
    timestamp
        .to_zoned(zone.clone())
        .strftime(format)
        .to_string()
}

/// How long, in the unit that a person would use: `40 s`, `12 min`, `3 h`, `2 days`.
pub fn duration(ms: u64) -> String {
    const MINUTE_S: u64 = 60;
    const HOUR_S: u64 = 60 * MINUTE_S;
    const DAY_S: u64 = 24 * HOUR_S;
    let seconds = ms / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / MINUTE_S),
        7_200..172_800 => format!("{} h", seconds / HOUR_S),
        _ => format!("{} days", seconds / DAY_S),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(absolute(1_767_225_600_000, &berlin), "2026-01-01 01:00:00");
        assert_eq!(describe(1_767_225_600_000, &berlin), "CET, UTC+01:00");
        assert_eq!(absolute(1_782_864_000_000, &berlin), "2026-07-01 02:00:00");
    }

    #[test]
    fn durations_are_short() {
        let cases = [
            (40_000, "40 s"),
            (720_000, "12 min"),
            (10_800_000, "3 h"),
            (172_800_000, "2 days"),
        ];
        for (ms, words) in cases {
            assert_eq!(duration(ms), words);
        }
    }
}
