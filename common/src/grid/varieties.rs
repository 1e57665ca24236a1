//! What cells differ by that decides what their loss is a value of, and which random streams they draw from. However many cells
//! there are, these are a few varieties, and one cell of each shows what there is among all of them.

use std::collections::HashMap;

use super::Grid;
use crate::axis::{Axis, Values};

/// More varieties than there are of values that fields accept; what they do not accept is refused later.
const MOST: usize = 4096;

/// Finds one cell of each variety.
pub(super) struct Varieties {
    says: Vec<Say>,
    found: HashMap<u64, u64>,
    last: Option<u64>,
}

/// A number that varies from cell to cell, and what of it has a say.
struct Say {
    of: Source,
    kind: Kind,
}

enum Source {
    /// The digit of a factor.
    Factor(usize),
    /// The bits of what `[derive]` yields.
    Derived(usize),
}

enum Kind {
    /// Which word it is.
    Each,
    /// Whether it is this one, if it can be.
    Is(Option<u64>),
    /// Whether it is the first one that was met.
    IsFirst(Option<u64>),
}

/// Of the fields that have a say, what of them has it.
fn kind_of(field: &str, zero: impl FnOnce() -> Option<u64>) -> Option<Kind> {
    match field {
        "model.kind" | "data.order" | "data.augment" | "train.loss" | "train.loss.kind" => Some(Kind::Each),
        // None draws nothing.
        "model.noise" => Some(Kind::Is(zero())),
        // Whether there are two is all that counts: losses with any two of them are two quantities.
        "train.loss.label_smoothing" => Some(Kind::IsFirst(None)),
        _ => None,
    }
}

/// The index of 0 on an axis whose numbers are none below it.
fn zero_of(axis: &Axis) -> Option<u64> {
    let is_zero = |i: &u64| axis.number(*i) == Some(0.0);
    match axis.values {
        Values::Listed(_) => (0..axis.len()).find(is_zero),
        _ => [0, axis.len() - 1].into_iter().find(is_zero),
    }
}

impl Varieties {
    pub(super) fn new(grid: &Grid) -> Self {
        let of_axis = |(at, axis): (usize, &Axis)| {
            let kind = kind_of(axis.field.as_deref()?, || zero_of(axis))?;
            Some(Say { of: Source::Factor(grid.factor_of(at)), kind })
        };
        let of_derived = |(at, field): (usize, &str)| {
            let kind = kind_of(field, || Some(0.0_f64.to_bits()))?;
            Some(Say { of: Source::Derived(at), kind })
        };
        let says = grid.axes.iter().enumerate().filter_map(of_axis);
        let says = says.chain(grid.derived_fields().enumerate().filter_map(of_derived)).collect();
        Self { says, found: HashMap::new(), last: None }
    }

    /// A kept cell has these digits and derived numbers.
    pub(super) fn note(&mut self, digits: &[u64], derived: &[f64], cell: impl FnOnce() -> u64) {
        let key = self.says.iter_mut().fold(0, |key, say| {
            let value = match say.of {
                Source::Factor(factor) => digits[factor],
                Source::Derived(at) => (derived[at] + 0.0).to_bits(),
            };
            key << 8 | say.kind.class(value)
        });
        // Neighbours are mostly of one variety.
        if self.last == Some(key) || self.found.len() == MOST {
            return;
        }
        self.last = Some(key);
        self.found.entry(key).or_insert_with(cell);
    }

    /// One cell of each, in the order of their numbers.
    pub(super) fn into_cells(self) -> Vec<u64> {
        let mut cells: Vec<u64> = self.found.into_values().collect();
        cells.sort_unstable();
        cells
    }

    /// One cell of each where all cells are kept and no number is derived: only what has a say is varied.
    pub(super) fn of_all(mut self, grid: &Grid) -> Vec<u64> {
        let factor = |say: &Say| if let Source::Factor(factor) = say.of { Some(factor) } else { None };
        let mut factors: Vec<usize> = self.says.iter().filter_map(factor).collect();
        factors.sort_unstable();
        factors.dedup();

        let mut digits = vec![0; grid.factors.len()];
        loop {
            self.note(&digits, &[], || grid.number(&digits));
            if !grid.advance(&factors, &mut digits) {
                return self.into_cells();
            }
        }
    }
}

impl Kind {
    /// One of at most 256.
    fn class(&mut self, value: u64) -> u64 {
        match self {
            Self::Each => value.min(255),
            Self::Is(wanted) => u64::from(*wanted == Some(value)),
            Self::IsFirst(first) => u64::from(*first.get_or_insert(value) == value),
        }
    }
}
