//! Dates as AWS writes them: RFC 3339 in the envelope, RFC 2822 in what AWS Health says.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// AWS's own sample has a Sunday for a Saturday.
static RFC_2822: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// Unix milliseconds; none for what is no date, or one before 1970.
pub(super) fn read(text: &str) -> Option<u64> {
    let text = text.trim();
    let parsed = text
        .parse::<Timestamp>()
        .or_else(|_| RFC_2822.parse_timestamp(text));
    u64::try_from(parsed.ok()?.as_millisecond()).ok()
}

/// RFC 3339, to the second.
pub(super) fn words(at_ms: u64) -> Option<String> {
    let seconds = i64::try_from(at_ms / 1000).ok()?;
    let at = Timestamp::from_second(seconds).ok()?;
    Some(at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_both_kinds() {
        for (text, at_ms) in [
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01T01:00:00.250+01:00", 1_767_225_600_250),
            (" 2026-01-01T00:00:00Z ", 1_767_225_600_000),
            ("Thu, 01 Jan 2026 00:00:00 GMT", 1_767_225_600_000),
            ("Thu, 1 Jan 2026 01:00:00 +0100", 1_767_225_600_000),
            ("Mon, 01 Jan 2026 00:00:00 GMT", 1_767_225_600_000),
        ] {
            assert_eq!(read(text), Some(at_ms), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-01-01",
            "1969-12-31T23:59:59Z",
            "1767225600",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn words_are_to_the_second() {
        let words = words(1_767_225_600_999);
        assert_eq!(words.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(super::words(u64::MAX), None);
    }
}
