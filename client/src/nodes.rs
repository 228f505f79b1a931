//! The order of node names in what we write: by the text before the number, then by the number, so that
//! they fold into ranges.

use std::cmp::Ordering;

/// Sorts names so that `cloud2` stands before `cloud10` and neighbours fold into one range.
pub fn sort<T: AsRef<str>>(names: &mut [T]) {
    names.sort_by(|a, b| compare(a.as_ref(), b.as_ref()));
}

/// The order of two names.
pub fn compare(a: &str, b: &str) -> Ordering {
    key(a).cmp(&key(b))
}

fn key(name: &str) -> (&str, usize, &str) {
    let (text, digits) = name.split_at(name.trim_end_matches(|c: char| c.is_ascii_digit()).len());
    (text, digits.len(), digits)
}

#[cfg(test)]
mod tests {
    use spillway_core::hostlist::fold;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names = ["n10", "n9", "m1", "n01", "n1", "n", "n100", "n02"];
        super::sort(&mut names);
        assert_eq!(names, ["m1", "n", "n1", "n9", "n01", "n02", "n10", "n100"]);
        assert_eq!(fold(names), "m1,n,n[1,9,01-02,10,100]");
    }
}
