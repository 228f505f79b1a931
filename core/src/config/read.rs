//! From text to [`SiteFile`], with every error of form found in one run: first keys against the schema
//! (unknown, missing, table or list), then values by serde, each refused one taken out and noted until
//! the rest is read.

use std::ops::Range;

use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::error::{Path, Problem, Step};
use super::file::SiteFile;

/// Errors noted before reading stops: more help nobody.
const MAX_PROBLEMS: usize = 50;
/// How like a known word an unknown one must be to be taken for it (Jaro-Winkler, 1 is equal).
const MIN_SIMILARITY: f64 = 0.8;

/// The JSON Schema of `spillway.toml`; `inline` writes each type where it is used instead of once.
pub(super) fn schema(inline: bool) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = inline);
    settings
        .into_generator()
        .into_root_schema_for::<SiteFile>()
        .to_value()
}

/// The file's text and its tree, to find the place of a value.
pub(super) struct Document<'a> {
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses the TOML; all errors of syntax.
    pub fn parse(text: &'a str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self { root });
        }
        let document = Self { root };
        let problem = |error: &toml::de::Error| {
            let span = error.span().unwrap_or_default();
            Problem::new(&document.path_at(&span), error.message()).at(span)
        };
        Err(errors.iter().take(MAX_PROBLEMS).map(problem).collect())
    }

    /// Forgets a table of the file, whatever is in it.
    pub fn leave_out(&mut self, key: &str) {
        self.root.get_mut().remove(key);
    }

    /// Reads the whole file; all errors of form.
    pub fn read(&self) -> Result<SiteFile, Vec<Problem>> {
        let schema = schema(true);
        let mut problems = Vec::new();
        let mut rest = self.root.clone();
        Shape {
            problems: &mut problems,
        }
        .table(rest.get_mut(), &schema, &Path::default(), &(0..0));
        loop {
            match SiteFile::deserialize(Deserializer::from(rest.clone())) {
                Ok(file) if problems.is_empty() => return Ok(file),
                Ok(_) => return Err(problems),
                Err(_) if problems.len() >= MAX_PROBLEMS => return Err(problems),
                Err(error) => {
                    let span = error.span().unwrap_or_default();
                    // Missing keys are noted already, or were taken out: their table is only in the way.
                    if !error.message().starts_with("missing field") {
                        problems.push(value_problem(&self.path_at(&span), &span, error.message()));
                    }
                    if span.is_empty() || !remove_from_table(rest.get_mut(), &span) {
                        return Err(problems);
                    }
                }
            }
        }
    }

    /// Where the value at a path is, or the nearest value around it.
    pub fn span_of(&self, path: &Path) -> Range<usize> {
        let mut span = self.root.span();
        let Some((Step::Key(key), rest)) = path.0.split_first() else {
            return span;
        };
        let Some((name, mut value)) = self.root.get_ref().get_key_value(key.as_str()) else {
            return span;
        };
        span = key_or_header(name.span(), value);
        for step in rest {
            let next = match (step, value.get_ref()) {
                (Step::Key(key), DeValue::Table(table)) => table
                    .get_key_value(key.as_str())
                    .map(|(name, value)| (name.span(), value)),
                (Step::Index(index), DeValue::Array(array)) => {
                    array.get(*index).map(|value| (value.span(), value))
                }
                _ => None,
            };
            let Some((name, next)) = next else {
                return span;
            };
            span = key_or_header(name, next);
            value = next;
        }
        span
    }

    /// The path of the innermost key or value that holds these bytes.
    fn path_at(&self, span: &Range<usize>) -> Path {
        path_in_table(self.root.get_ref(), &Path::default(), span).unwrap_or_default()
    }
}

/// A value is shown at itself, a table at its header or opening brace.
fn key_or_header(name: Range<usize>, value: &Spanned<DeValue<'_>>) -> Range<usize> {
    if value.get_ref().is_table() || value.get_ref().is_array() {
        name
    } else {
        value.span()
    }
}

fn holds(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && outer.start < outer.end
}

fn path_in_table(table: &DeTable<'_>, path: &Path, span: &Range<usize>) -> Option<Path> {
    table.iter().find_map(|(name, value)| {
        let path = path.key(name.get_ref());
        path_in_value(value, &path, span).or_else(|| holds(&name.span(), span).then_some(path))
    })
}

fn path_in_value(value: &Spanned<DeValue<'_>>, path: &Path, span: &Range<usize>) -> Option<Path> {
    let inner = match value.get_ref() {
        DeValue::Table(table) => path_in_table(table, path, span),
        DeValue::Array(array) => {
            let mut elements = array.iter().enumerate();
            elements.find_map(|(index, element)| path_in_value(element, &path.index(index), span))
        }
        _ => None,
    };
    inner.or_else(|| holds(&value.span(), span).then(|| path.clone()))
}

/// Takes out the innermost entry that holds these bytes; false if there is none.
fn remove_from_table(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    if table
        .iter_mut()
        .any(|(_, value)| remove_from_value(value.get_mut(), span))
    {
        return true;
    }
    let is_here = |name: &Range<usize>, value: &Spanned<DeValue<'_>>| {
        holds(name, span) || holds(&value.span(), span)
    };
    let name = table
        .iter()
        .find_map(|(name, value)| is_here(&name.span(), value).then(|| name.get_ref().to_string()));
    name.is_some_and(|name| table.remove(name.as_str()).is_some())
}

fn remove_from_value(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => remove_from_table(table, span),
        DeValue::Array(array) => {
            if array
                .iter_mut()
                .any(|element| remove_from_value(element.get_mut(), span))
            {
                return true;
            }
            let before = array.len();
            *array = array
                .iter()
                .filter(|element| !holds(&element.span(), span))
                .cloned()
                .collect();
            array.len() < before
        }
        _ => false,
    }
}

/// The walk along the schema: the keys of each table, and what must be a table or a list of tables.
/// What is wrong is noted and taken out.
struct Shape<'p> {
    problems: &'p mut Vec<Problem>,
}

impl Shape<'_> {
    fn table(
        &mut self,
        table: &mut DeTable<'_>,
        schema: &Value,
        path: &Path,
        header: &Range<usize>,
    ) {
        // Without named keys it is a map such as `tags`: any key will do.
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        let required = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        for key in required.filter(|key| !table.contains_key(*key)) {
            let description = properties[key]["description"].as_str().unwrap_or_default();
            let hint = format!(
                "add it: {}",
                description.trim_end_matches('.').replace('\n', " ")
            );
            self.problems.push(
                Problem::new(&path.key(key), "this key is missing")
                    .at(header.clone())
                    .hint(hint),
            );
        }
        let mut wrong = Vec::new();
        for (name, value) in table.iter_mut() {
            let key = name.get_ref().to_string();
            let path = path.key(&key);
            let is_wrong = if let Some(schema) = properties.get(&key) {
                self.value(value, schema, &path, &name.span())
            } else {
                let hint = known_words(&key, properties.keys().map(String::as_str));
                self.problems.push(
                    Problem::new(&path, "there is no such key")
                        .at(name.span())
                        .hint(hint),
                );
                true
            };
            wrong.extend(is_wrong.then_some(key));
        }
        for key in wrong {
            table.remove(key.as_str());
        }
    }

    /// True if this is a table where a list must be, or a list where a table must be.
    fn value(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        schema: &Value,
        path: &Path,
        name: &Range<usize>,
    ) -> bool {
        let span = value.span();
        let (problem, hint) = match value.get_mut() {
            DeValue::Table(_) if schema["type"] == "array" => (
                "this must be a list of tables",
                format!("write [[{path}]], once for each"),
            ),
            DeValue::Array(_) if schema["properties"].is_object() => (
                "this must be one table and not a list",
                format!("write [{path}], once"),
            ),
            DeValue::Table(table) => {
                self.table(table, schema, path, &span);
                return false;
            }
            DeValue::Array(array) => {
                for (index, element) in array.iter_mut().enumerate() {
                    let span = element.span();
                    self.value(element, &schema["items"], &path.index(index), &span);
                }
                return false;
            }
            _ => return false,
        };
        self.problems
            .push(Problem::new(path, problem).at(name.clone()).hint(hint));
        true
    }
}

/// What serde said of a value, in words for a person.
fn value_problem(path: &Path, span: &Range<usize>, message: &str) -> Problem {
    // "unknown variant `x`, expected one of `a`, `b`"
    let mut words = message.split('`').skip(1).step_by(2);
    match words
        .next()
        .filter(|_| message.starts_with("unknown variant "))
    {
        Some(word) => {
            let problem = format!("there is no such word: `{word}`");
            Problem::new(path, problem)
                .at(span.clone())
                .hint(known_words(word, words))
        }
        None => Problem::new(path, plain_words(message)).at(span.clone()),
    }
}

/// Rust's names of types, which serde prints, in words.
fn plain_words(message: &str) -> String {
    message
        .replace(
            "expected u32",
            "expected a whole number from 0 to 4294967295",
        )
        .replace("expected u64", "expected a whole number from 0")
        .replace("expected a sequence", "expected a list in brackets")
        .replace("expected path string", "expected a path in quotes")
}

/// The nearest known word if one is near, and all of them if not.
pub(super) fn known_words<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> String {
    let known: Vec<&str> = known.collect();
    let similarity = |candidate: &str| strsim::jaro_winkler(&word.to_lowercase(), candidate);
    let nearest = known
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|nearest| similarity(nearest) >= MIN_SIMILARITY) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!(
            "known are {}",
            known
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    }
}
