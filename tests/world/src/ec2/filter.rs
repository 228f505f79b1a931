//! EC2's filters: any of a filter's values, all of the filters, `*` and `?` as wildcards with `\` before a
//! literal one (EC2 guide, "Filter your resources"). A name the call does not know refuses the call.

use super::error::{Ec2Error, Ec2Result};
use super::request::{Filter, Tags};

/// The most values in all filters of one call together (EC2 guide: 200; error `FilterLimitExceeded`).
const FILTER_VALUES_MAX: usize = 200;

/// Refuses filters that are wrong whatever the resources: too many values, none, or a name that is not
/// among `known`, where `tag` stands for `tag:KEY`, `tag-key` and `tag-value`.
pub(super) fn check(filters: &[Filter], known: &[&str]) -> Ec2Result<()> {
    if filters.iter().map(|f| f.values.len()).sum::<usize>() > FILTER_VALUES_MAX {
        return Err(Ec2Error::client(
            "FilterLimitExceeded",
            format!(
                "The maximum number of filter values specified on a single call is {FILTER_VALUES_MAX}"
            ),
        ));
    }
    for filter in filters {
        let name = filter.name.as_str();
        let is_tag = name.starts_with("tag:") || name == "tag-key" || name == "tag-value";
        if !known.contains(&if is_tag { "tag" } else { name }) {
            return Err(Ec2Error::invalid_value(format!(
                "The filter '{name}' is invalid"
            )));
        }
        if filter.values.is_empty() {
            return Err(Ec2Error::invalid_value("The filter 'null' is invalid"));
        }
    }
    Ok(())
}

/// Whether every filter matches a resource whose values of an attribute `values_of` answers (an empty list
/// if it has none). The names have been checked before.
pub(super) fn all_match(filters: &[Filter], values_of: impl Fn(&str) -> Vec<String>) -> bool {
    filters.iter().all(|filter| {
        let values = values_of(&filter.name);
        filter
            .values
            .iter()
            .any(|pattern| values.iter().any(|value| matches(pattern, value)))
    })
}

/// The values for `tag:KEY`, `tag-key` and `tag-value`; nothing for any other name.
pub(super) fn tag_values(name: &str, tags: &Tags) -> Vec<String> {
    match name {
        "tag-key" => tags.keys().cloned().collect(),
        "tag-value" => tags.values().cloned().collect(),
        _ => name
            .strip_prefix("tag:")
            .and_then(|key| tags.get(key))
            .cloned()
            .into_iter()
            .collect(),
    }
}

/// Whether `text` fits `pattern`.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Where the last `*` stood, and how much of the text it has swallowed so far: on a mismatch it swallows
    // one character more. This is linear enough for any length and needs no recursion.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            None if t == text.len() => return true,
            Some('?') if t < text.len() => {
                p += 1;
                t += 1;
                continue;
            }
            Some('\\') if t < text.len() && pattern.get(p + 1) == text.get(t) => {
                p += 2;
                t += 1;
                continue;
            }
            Some(c) if *c != '?' && *c != '\\' && text.get(t) == Some(c) => {
                p += 1;
                t += 1;
                continue;
            }
            _ => {}
        }
        match star {
            Some((after, swallowed)) if swallowed < text.len() => {
                star = Some((after, swallowed + 1));
                p = after;
                t = swallowed + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_the_ec2_guide_says() {
        let cases = [
            ("web", "web", true),
            ("web", "Web", false),
            ("*", "", true),
            ("?", "", false),
            ("n-*", "n-12", true),
            ("n-??", "n-1", false),
            ("*a*b", "xxaxxbxxb", true),
            ("*a*b", "xxaxxbxxc", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            (r"a\\b", r"a\b", true),
            ("", "", true),
            ("", "x", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }
}
