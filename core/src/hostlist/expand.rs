//! From a hostlist to its names, one at a time.

use std::fmt::Write as _;

use super::{Group, Hostlist, Item, Range};

/// The names of a [`Hostlist`] in Slurm's order.
///
/// Slurm counts several bracket groups in an order of its own: the last group fastest, then the first,
/// the second and so on, the last but one slowest (`_push_range_list`, for every version read).
#[derive(Debug, Clone)]
pub struct Names<'a> {
    items: std::slice::Iter<'a, Item>,
    product: Option<Product<'a>>,
    left: usize,
}

impl<'a> Names<'a> {
    pub(super) fn new(hostlist: &'a Hostlist) -> Self {
        Self {
            items: hostlist.items.iter(),
            product: None,
            left: hostlist.len,
        }
    }
}

impl Iterator for Names<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.left = self.left.saturating_sub(1);
        loop {
            if let Some(name) = self.product.as_mut().and_then(Product::next) {
                return Some(name);
            }
            match self.items.next()? {
                Item::Name(name) => return Some(name.to_string()),
                Item::Product(groups) => self.product = Some(Product::new(groups)),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Names<'_> {}

/// Where the counting stands in each group of one item.
#[derive(Debug, Clone)]
struct Product<'a> {
    groups: &'a [Group],
    dials: Vec<Dial>,
    done: bool,
}

/// A place in a group: which of its ranges, and which number of that.
#[derive(Debug, Clone, Copy)]
struct Dial {
    range: usize,
    number: u64,
}

impl Dial {
    fn first(group: &Group) -> Self {
        Self {
            range: 0,
            number: group.ranges[0].low,
        }
    }

    /// Goes on by one; at the end starts again and says so.
    fn turn(&mut self, ranges: &[Range]) -> bool {
        if self.number < ranges[self.range].high {
            self.number += 1;
            return false;
        }
        self.range = (self.range + 1) % ranges.len();
        self.number = ranges[self.range].low;
        self.range == 0
    }
}

impl<'a> Product<'a> {
    fn new(groups: &'a [Group]) -> Self {
        Self {
            groups,
            dials: groups.iter().map(Dial::first).collect(),
            done: false,
        }
    }

    fn next(&mut self) -> Option<String> {
        if self.done {
            return None;
        }
        // A width hint for the usual name; longer ones grow.
        let mut name = String::with_capacity(24);
        for (group, dial) in self.groups.iter().zip(&self.dials) {
            name.push_str(&group.prefix);
            let width = group.ranges[dial.range].width;
            write!(name, "{:0width$}", dial.number).expect("writing to a string cannot fail");
        }
        self.done = self.turn();
        Some(name)
    }

    /// Goes on by one name; true when it was the last.
    fn turn(&mut self) -> bool {
        let last = self.groups.len() - 1;
        std::iter::once(last)
            .chain(0..last)
            .all(|index| self.dials[index].turn(&self.groups[index].ranges))
    }
}
