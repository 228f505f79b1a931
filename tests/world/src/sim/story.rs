//! What happened, in words: kept only where somebody will read it.

use std::cell::RefCell;
use std::fmt::Write as _;

/// A line of the story.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Since the run began.
    pub at_ms: u64,
    pub text: String,
}

/// The story of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    /// In a cell: things are told while the world is being read.
    told: Option<RefCell<Vec<Line>>>,
}

impl Story {
    /// `told`: whether it is kept.
    pub(crate) fn new(told: bool) -> Self {
        Self {
            told: told.then(RefCell::default),
        }
    }

    pub(crate) fn tell(&self, at_ms: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &self.told {
            let text = text();
            lines.borrow_mut().push(Line { at_ms, text });
        }
    }

    /// The last `most` lines that name one of `names` (all lines if there are no names).
    pub(crate) fn about(&self, names: &[String], most: usize) -> String {
        let lines = self.told.as_ref().map(RefCell::borrow);
        let lines = lines.as_deref().map_or(&[][..], Vec::as_slice);
        let concerns =
            |line: &&Line| names.is_empty() || names.iter().any(|name| names_it(&line.text, name));
        let chosen: Vec<&Line> = lines.iter().filter(concerns).collect();
        let mut text = String::new();
        for line in &chosen[chosen.len().saturating_sub(most)..] {
            let (seconds, ms) = (line.at_ms / 1000, line.at_ms % 1000);
            let _ = writeln!(text, "{seconds:>6}.{ms:03}  {}", line.text);
        }
        text
    }
}

/// Whether `name` stands in `text` as a word of its own: `a1` is not in `a12`.
fn names_it(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_is_about_what_it_names() {
        let story = Story::new(true);
        story.tell(1_500, || "a1 is up".to_owned());
        story.tell(2_000, || "a12 is up".to_owned());
        story.tell(3_000, || "fail a1,a2".to_owned());
        let about = story.about(&["a1".to_owned()], 9);
        assert_eq!(about, "     1.500  a1 is up\n     3.000  fail a1,a2\n");
        assert_eq!(story.about(&[], 1), "     3.000  fail a1,a2\n");
    }
}
