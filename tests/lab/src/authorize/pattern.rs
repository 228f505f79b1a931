//! Texts of a policy that stand for many: wildcards and policy variables.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>

use super::context::{Context, is_known, is_multivalued};
use super::policy::PolicyError;

/// `arn:partition:service:region:account:resource`.
const ARN_PARTS: usize = 6;

/// A policy's text, its variables replaced: characters to be taken as they are, and wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Just(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// Which of a pattern's wildcards work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wild {
    /// None: `*` and `?` stand for themselves.
    Never,
    /// All, over any text.
    Text,
    /// All, but within one colon-delimited part of an ARN; only a `*` that ends its part may go on beyond
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>).
    Resource,
}

impl Pattern {
    /// Reads a text. `Ok(None)`: it has a variable that this request gives no value and the policy no default.
    pub(super) fn read(
        text: &str,
        variables: bool,
        context: &Context,
    ) -> Result<Option<Self>, PolicyError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if variables && let Some(after) = rest.strip_prefix("${") {
                let (variable, after) = after
                    .split_once('}')
                    .ok_or_else(|| PolicyError::Variable(text.to_owned()))?;
                let Some(value) = value_of(variable, text, context)? else {
                    return Ok(None);
                };
                // A wildcard that came in by a variable is none.
                pieces.extend(value.chars().map(Piece::Just));
                rest = after;
                continue;
            }
            pieces.push(match next {
                '*' => Piece::Any,
                '?' => Piece::One,
                other => Piece::Just(other),
            });
            rest = &rest[next.len_utf8()..];
        }
        Ok(Some(Self(pieces)))
    }

    /// The same in lower case.
    pub(super) fn to_lowercase(&self) -> Self {
        let lower = |piece: &Piece| match piece {
            Piece::Just(c) => c.to_lowercase().map(Piece::Just).collect(),
            wildcard => vec![*wildcard],
        };
        Self(self.0.iter().flat_map(lower).collect())
    }

    /// Whether an ARN is one of those that the pattern stands for: of the six parts each by itself, the last of
    /// which may hold colons.
    pub(super) fn matches_arn(&self, arn: &str) -> bool {
        let parts: Vec<&str> = arn.splitn(ARN_PARTS, ':').collect();
        let wanted: Vec<_> = self
            .0
            .splitn(ARN_PARTS, |piece| *piece == Piece::Just(':'))
            .collect();
        let is_part = |(wanted, part): (&&[Piece], &&str)| {
            let part: Vec<char> = part.chars().collect();
            match_from(wanted, &part, Wild::Text)
        };
        parts.len() == ARN_PARTS
            && wanted.len() == ARN_PARTS
            && wanted.iter().zip(&parts).all(is_part)
    }

    /// Whether `text` is one of those that the pattern stands for.
    pub(super) fn matches(&self, text: &str, wild: Wild) -> bool {
        let text: Vec<char> = text.chars().collect();
        match_from(&self.0, &text, wild)
    }
}

/// The value of what stands between `${` and `}`.
fn value_of(variable: &str, text: &str, context: &Context) -> Result<Option<String>, PolicyError> {
    // ${*}, ${?} and ${$} are how a policy writes these characters themselves.
    if matches!(variable, "*" | "?" | "$") {
        return Ok(Some(variable.to_owned()));
    }
    let (key, default) = match variable.split_once(',') {
        Some((key, default)) => {
            let default = default.trim();
            let quoted = default
                .strip_prefix('\'')
                .and_then(|default| default.strip_suffix('\''))
                .ok_or_else(|| PolicyError::Variable(text.to_owned()))?;
            (key.trim(), Some(quoted.to_owned()))
        }
        None => (variable.trim(), None),
    };
    if !is_known(key) {
        return Err(PolicyError::Key(key.to_owned()));
    }
    if is_multivalued(key) {
        // AWS puts single-valued keys into variables only.
        return Err(PolicyError::Variable(text.to_owned()));
    }
    let value = context.get(key).and_then(|values| values.first().cloned());
    Ok(value.or(default))
}

fn match_from(pieces: &[Piece], text: &[char], wild: Wild) -> bool {
    let Some((first, rest)) = pieces.split_first() else {
        return text.is_empty();
    };
    let literal =
        |wanted: char| text.first() == Some(&wanted) && match_from(rest, &text[1..], wild);
    let within_part = |c: char| wild != Wild::Resource || c != ':';
    match (first, wild) {
        (Piece::Just(c), _) => literal(*c),
        (Piece::One, Wild::Never) => literal('?'),
        (Piece::Any, Wild::Never) => literal('*'),
        (Piece::One, _) => {
            text.first().is_some_and(|c| within_part(*c)) && match_from(rest, &text[1..], wild)
        }
        (Piece::Any, _) => {
            let ends_part = matches!(rest.first(), None | Some(Piece::Just(':')));
            // How far the star may reach: to the end, or to the next colon.
            let reach = text
                .iter()
                .position(|c| !ends_part && !within_part(*c))
                .unwrap_or(text.len());
            (0..=reach).any(|taken| match_from(rest, &text[taken..], wild))
        }
    }
}
