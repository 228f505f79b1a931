//! What is wrong with a file, each with the place and what to write instead.

use std::fmt;
use std::ops::Range;

/// Everything that is wrong with one file, in the order of its lines; at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file's name, as given by the caller.
    pub file: String,
    /// The errors.
    pub errors: Vec<ConfigError>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key, such as `node_group[1].subnets[0].zone`, with elements counted from 0; empty for the
    /// file as a whole.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let ConfigError {
                line,
                column,
                key,
                problem,
                hint,
            } = error;
            let new_line = if index > 0 { "\n" } else { "" };
            let colon = if key.is_empty() { "" } else { ": " };
            write!(
                f,
                "{new_line}{}:{line}:{column}: {key}{colon}{problem}",
                self.file
            )?;
            if let Some(hint) = hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// A problem before its place is turned into line and column.
#[derive(Debug)]
pub(super) struct Problem {
    pub path: Path,
    /// Bytes of the text, where they are known already; else those of `path`.
    pub span: Option<Range<usize>>,
    pub what: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(path: &Path, what: impl Into<String>) -> Self {
        Self {
            path: path.clone(),
            span: None,
            what: what.into(),
            hint: None,
        }
    }

    pub fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The way from the root to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(pub Vec<Step>);

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let dot = if position == 0 { "" } else { "." };
            match step {
                Step::Key(key) if is_bare(key) => write!(f, "{dot}{key}")?,
                Step::Key(key) => write!(f, "{dot}{key:?}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Whether TOML takes the key without quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// Gives each problem its line and column, in the order of the file. `span_of` finds the place of a
/// path for those that have none yet.
pub(super) fn locate(
    problems: Vec<Problem>,
    text: &str,
    file: &str,
    span_of: impl Fn(&Path) -> Range<usize>,
) -> ConfigErrors {
    let mut errors: Vec<ConfigError> = problems
        .into_iter()
        .map(
            |Problem {
                 path,
                 span,
                 what,
                 hint,
             }| {
                let span = span.unwrap_or_else(|| span_of(&path));
                let (line, column) = line_and_column(text, span.start);
                ConfigError {
                    line,
                    column,
                    key: path.to_string(),
                    problem: what,
                    hint,
                }
            },
        )
        .collect();
    errors.sort_by_key(|error| (error.line, error.column));
    ConfigErrors {
        file: file.to_owned(),
        errors,
    }
}

/// Line and column of a byte, both from 1.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
