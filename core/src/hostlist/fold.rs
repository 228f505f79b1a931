//! From names to one expression.

use std::fmt::Write as _;

use super::{MAX_RANGE_LENGTH, Range};

/// Writes node names as one expression, as `scontrol show hostlist` does: order and duplicates kept,
/// numbers that follow one another with the same padding as a range, neighbours with the same text
/// before the number in one bracket. Without names the result is empty.
pub fn fold<I>(names: I) -> String
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut expression = String::new();
    let mut run = Run::default();
    for name in names {
        let name = name.as_ref();
        if !run.take(name) {
            run.write_to(&mut expression);
            run.restart(name);
        }
    }
    run.write_to(&mut expression);
    expression
}

/// Neighbouring names that share the text before their number.
#[derive(Default)]
struct Run {
    prefix: String,
    ranges: Vec<Range>,
}

impl Run {
    /// Adds the name if it belongs here.
    fn take(&mut self, name: &str) -> bool {
        let Some((prefix, Some(number))) = split_number(name) else {
            return false;
        };
        let Some(last) = self.ranges.last_mut().filter(|_| self.prefix == prefix) else {
            return false;
        };
        let (value, width) = number;
        let follows = last.high.checked_add(1) == Some(value) && value < u64::MAX;
        if follows && value - last.low < MAX_RANGE_LENGTH && last.prints(value, width) {
            last.high = value;
        } else {
            self.ranges.push(Range {
                low: value,
                high: value,
                width,
            });
        }
        true
    }

    fn restart(&mut self, name: &str) {
        self.prefix.clear();
        self.ranges.clear();
        match split_number(name) {
            Some((prefix, Some((value, width)))) => {
                self.prefix.push_str(prefix);
                self.ranges.push(Range {
                    low: value,
                    high: value,
                    width,
                });
            }
            _ => self.prefix.push_str(name),
        }
    }

    fn write_to(&self, expression: &mut String) {
        if self.prefix.is_empty() && self.ranges.is_empty() {
            return;
        }
        if !expression.is_empty() {
            expression.push(',');
        }
        expression.push_str(&self.prefix);
        let brackets =
            self.ranges.len() > 1 || self.ranges.iter().any(|range| range.high > range.low);
        expression.push_str(if brackets { "[" } else { "" });
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(expression, "{comma}{range}").expect("writing to a string cannot fail");
        }
        expression.push_str(if brackets { "]" } else { "" });
    }
}

impl Range {
    /// Whether the range would print this number with exactly so many digits.
    fn prints(&self, number: u64, digits: usize) -> bool {
        let needed = number.checked_ilog10().unwrap_or_default() as usize + 1;
        digits == needed.max(self.width)
    }
}

/// A name as the text before its last digits, and those as number and count of digits, if it ends in
/// any. None if the number is larger than Slurm can hold.
pub(super) fn split_number(name: &str) -> Option<(&str, Option<(u64, usize)>)> {
    let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &name[prefix.len()..];
    if digits.is_empty() {
        return Some((name, None));
    }
    Some((prefix, Some((digits.parse().ok()?, digits.len()))))
}
