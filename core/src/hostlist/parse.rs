//! From text to a hostlist, in one pass from left to right.

use super::{Group, Hostlist, Item, MAX_NAME_LENGTH, MAX_NAMES, MAX_RANGE_LENGTH, Range};

/// Why a text is not a hostlist expression. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the message says they are")]
pub enum HostlistError {
    /// No name at all.
    #[error("the expression is empty: write at least one name, such as n1 or n[1-4]")]
    Empty,
    /// Nothing before, between or after commas.
    #[error("character {position}: a name is missing beside the comma: remove the comma")]
    EmptyItem { position: usize },
    /// `n[1-2`
    #[error("character {position}: this `[` is never closed: add `]` after the last number")]
    Unclosed { position: usize },
    /// `n]1[`
    #[error("character {position}: `]` without a `[` before it: remove it or open the bracket")]
    Unopened { position: usize },
    /// `n[[1-2]]`
    #[error(
        "character {position}: `[` inside a bracket: write the groups one after the other, as in n[1-2][3-4]"
    )]
    Nested { position: usize },
    /// `n[]`, `n[1,,2]`
    #[error(
        "character {position}: a number is missing here: write one, such as 4, or a range, such as 1-4"
    )]
    EmptyRange { position: usize },
    /// `n[1-]`
    #[error("character {position}: the range has no end: write both bounds, such as 1-4")]
    OpenRange { position: usize },
    /// `n[a-c]`, `n[1, 2]`
    #[error(
        "character {position}: {character:?} inside a bracket: only digits, `-` and `,` may stand there"
    )]
    NotANumber { position: usize, character: char },
    /// `n[5-3]`
    #[error("character {position}: the range {low}-{high} runs backwards: write {high}-{low}")]
    Backwards {
        position: usize,
        low: u64,
        high: u64,
    },
    /// `n[1-70000]`
    #[error(
        "character {position}: the range has {length} numbers: Slurm takes {MAX_RANGE_LENGTH}, split it"
    )]
    LongRange { position: usize, length: u64 },
    /// A number that Slurm would replace by its largest.
    #[error(
        "character {position}: the number is larger than Slurm can hold ({})",
        u64::MAX
    )]
    LargeNumber { position: usize },
    /// `n[1-2]x`
    #[error(
        "character {position}: text after the last bracket: Slurm takes none, a name must end in its number"
    )]
    AfterBracket { position: usize },
    /// A character that no node name has.
    #[error(
        "character {position}: {character:?} cannot be part of a name: use A-Z, a-z, 0-9, `_`, `.` and `-`"
    )]
    Character { position: usize, character: char },
    /// More than [`MAX_NAME_LENGTH`].
    #[error(
        "character {position}: the names that start here are longer than {MAX_NAME_LENGTH} characters"
    )]
    LongName { position: usize },
    /// More than [`MAX_NAMES`].
    #[error("the expression stands for more than {MAX_NAMES} names: split it")]
    TooManyNames,
}

pub(super) fn parse(expression: &str) -> Result<Hostlist, HostlistError> {
    let mut parser = Parser {
        text: expression,
        at: 0,
    };
    let mut items = Vec::new();
    let mut len = 0;
    loop {
        parser.skip_white_space();
        if parser.at == expression.len() && items.is_empty() {
            return Err(HostlistError::Empty);
        }
        let item = parser.item()?;
        len = item
            .count()
            .and_then(|count| count.checked_add(len))
            .ok_or(HostlistError::TooManyNames)?;
        if len > MAX_NAMES {
            return Err(HostlistError::TooManyNames);
        }
        items.push(item);
        parser.skip_white_space();
        if parser.at == expression.len() {
            let len = usize::try_from(len).map_err(|_| HostlistError::TooManyNames)?;
            return Ok(Hostlist { items, len });
        }
        parser.take(b',');
    }
}

impl Item {
    /// The number of names; none if it overflows.
    fn count(&self) -> Option<u64> {
        match self {
            Self::Name(_) => Some(1),
            Self::Product(groups) => groups.iter().try_fold(1_u64, |product, group| {
                let numbers = group
                    .ranges
                    .iter()
                    .map(Range::length)
                    .try_fold(0_u64, u64::checked_add)?;
                product.checked_mul(numbers)
            }),
        }
    }
}

impl Range {
    /// How many numbers it holds. Parsing has bounded it, so this cannot overflow.
    fn length(&self) -> u64 {
        self.high - self.low + 1
    }
}

/// A place in the expression. Everything left of it is ASCII, so bytes there are characters.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn position(&self) -> usize {
        self.at + 1
    }

    fn character(&self) -> char {
        self.text[self.at..].chars().next().unwrap_or_default()
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n')) {
            self.at += 1;
        }
    }

    /// One item: everything up to a comma or white space outside of brackets.
    fn item(&mut self) -> Result<Item, HostlistError> {
        let start = self.at;
        let mut groups = Vec::new();
        let mut name_length = 0;
        loop {
            let prefix = self.literal()?;
            name_length += prefix.len();
            if self.peek() != Some(b'[') {
                let item = self.end_of_item(prefix, groups)?;
                if name_length > MAX_NAME_LENGTH {
                    return Err(HostlistError::LongName {
                        position: start + 1,
                    });
                }
                return Ok(item);
            }
            let ranges = self.ranges()?;
            name_length += ranges.iter().map(Range::digits).max().unwrap_or_default();
            groups.push(Group {
                prefix: prefix.into(),
                ranges,
            });
        }
    }

    /// What follows the last bracket: nothing, unless there was no bracket at all.
    fn end_of_item(&self, rest: &str, groups: Vec<Group>) -> Result<Item, HostlistError> {
        let position = self.position() - rest.len();
        match (groups.is_empty(), rest.is_empty()) {
            (true, true) => Err(HostlistError::EmptyItem {
                position: position.min(self.text.len()),
            }),
            (true, false) if super::fold::split_number(rest).is_none() => {
                Err(HostlistError::LargeNumber { position })
            }
            (true, false) => Ok(Item::Name(rest.into())),
            (false, true) => Ok(Item::Product(groups)),
            (false, false) => Err(HostlistError::AfterBracket { position }),
        }
    }

    /// The characters of a name up to a bracket, a comma, white space or the end.
    fn literal(&mut self) -> Result<&'a str, HostlistError> {
        let start = self.at;
        loop {
            match self.peek() {
                None | Some(b'[' | b',' | b' ' | b'\t' | b'\n') => {
                    return Ok(&self.text[start..self.at]);
                }
                Some(b']') => {
                    return Err(HostlistError::Unopened {
                        position: self.position(),
                    });
                }
                Some(byte) if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) => {
                    self.at += 1;
                }
                Some(_) => {
                    return Err(HostlistError::Character {
                        position: self.position(),
                        character: self.character(),
                    });
                }
            }
        }
    }

    /// The inside of a bracket, from `[` to `]`.
    fn ranges(&mut self) -> Result<Vec<Range>, HostlistError> {
        let open = self.position();
        self.take(b'[');
        let mut ranges = Vec::new();
        loop {
            ranges.push(self.range(open)?);
            if self.take(b']') {
                return Ok(ranges);
            }
            if !self.take(b',') {
                return Err(self.not_a_number(open));
            }
        }
    }

    fn range(&mut self, open: usize) -> Result<Range, HostlistError> {
        let position = self.position();
        let (low, width) = match self.number()? {
            Some(number) => number,
            None if matches!(self.peek(), Some(b',' | b']')) => {
                return Err(HostlistError::EmptyRange { position });
            }
            None => return Err(self.not_a_number(open)),
        };
        if !self.take(b'-') {
            return Ok(Range {
                low,
                high: low,
                width,
            });
        }
        let high = match self.number()? {
            Some((high, _)) => high,
            None if matches!(self.peek(), Some(b',' | b']')) => {
                return Err(HostlistError::OpenRange { position });
            }
            None => return Err(self.not_a_number(open)),
        };
        let length = high
            .checked_sub(low)
            .ok_or(HostlistError::Backwards {
                position,
                low,
                high,
            })?
            .saturating_add(1);
        if length > MAX_RANGE_LENGTH {
            return Err(HostlistError::LongRange { position, length });
        }
        if high == u64::MAX {
            // Slurm counts past it and dies.
            return Err(HostlistError::LargeNumber { position });
        }
        Ok(Range { low, high, width })
    }

    /// A number and how many digits were written for it; none if there is no digit here.
    fn number(&mut self) -> Result<Option<(u64, usize)>, HostlistError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        if digits.is_empty() {
            return Ok(None);
        }
        let number = digits.parse().map_err(|_| HostlistError::LargeNumber {
            position: start + 1,
        })?;
        Ok(Some((number, digits.len())))
    }

    fn not_a_number(&self, open: usize) -> HostlistError {
        let position = self.position();
        match self.peek() {
            None => HostlistError::Unclosed { position: open },
            Some(b'[') => HostlistError::Nested { position },
            Some(_) => HostlistError::NotANumber {
                position,
                character: self.character(),
            },
        }
    }
}

impl Range {
    /// The most digits any of its numbers is printed with.
    fn digits(&self) -> usize {
        let digits = self.high.checked_ilog10().unwrap_or_default() as usize + 1;
        digits.max(self.width)
    }
}
