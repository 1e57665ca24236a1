//! What cells differ by that decides what their loss is a value of, and which random streams they draw from. However many cells
//! there are, these are a few varieties, and one cell of each shows what there is among all of them.

use std::collections::HashMap;

use super::Grid;
use crate::grid::axis::{Axis, AxisValues};

/// More varieties than there are of values that fields accept; what they do not accept is refused later.
const MAX_VARIETIES: usize = 4096;

/// Finds one cell of each variety.
pub(super) struct Varieties {
    inputs: Vec<VariedInput>,
    cells_by_key: HashMap<u64, u64>,
    last_key: Option<u64>,
}

/// A number that varies from cell to cell, and what of it has a say.
struct VariedInput {
    source: VariedSource,
    distinction: ValueDistinction,
}

enum VariedSource {
    /// The digit of a factor.
    Factor(usize),
    /// The bits of what `[derive]` yields.
    Derived(usize),
}

enum ValueDistinction {
    /// Which word it is.
    Each,
    /// Whether it is this one, if it can be.
    Equals(Option<u64>),
    /// Whether it is the first one that was met.
    EqualsFirst(Option<u64>),
}

/// Of the fields that have a say, what of them has it.
fn distinction_for_field(
    field: &str,
    zero: impl FnOnce() -> Option<u64>,
) -> Option<ValueDistinction> {
    match field {
        "model.kind" | "data.order" | "data.augment" | "train.loss" | "train.loss.kind" => {
            Some(ValueDistinction::Each)
        }
        // None draws nothing.
        "model.noise" => Some(ValueDistinction::Equals(zero())),
        // Whether there are two is all that counts: losses with any two of them are two quantities.
        "train.loss.label_smoothing" => Some(ValueDistinction::EqualsFirst(None)),
        _ => None,
    }
}

/// The index of 0 on an axis whose numbers are none below it.
fn zero_index(axis: &Axis) -> Option<u64> {
    let is_zero = |i: &u64| axis.number_at(*i) == Some(0.0);
    match axis.values {
        AxisValues::Listed(_) => (0..axis.len()).find(is_zero),
        _ => [0, axis.len() - 1].into_iter().find(is_zero),
    }
}

impl Varieties {
    pub(super) fn new(grid: &Grid) -> Self {
        let axes = grid.axes.iter().enumerate().filter_map(|(at, axis)| {
            Some(VariedInput {
                source: VariedSource::Factor(grid.factor_index(at)),
                distinction: distinction_for_field(axis.field.as_deref()?, || zero_index(axis))?,
            })
        });
        let derived = grid.derived_fields().enumerate().filter_map(|(at, field)| {
            Some(VariedInput {
                source: VariedSource::Derived(at),
                distinction: distinction_for_field(field, || Some(0.0_f64.to_bits()))?,
            })
        });
        let inputs = axes.chain(derived).collect();
        Self {
            inputs,
            cells_by_key: HashMap::new(),
            last_key: None,
        }
    }

    /// A kept cell has these digits and derived numbers.
    pub(super) fn record_cell(
        &mut self,
        digits: &[u64],
        derived: &[f64],
        cell: impl FnOnce() -> u64,
    ) {
        let key = self.inputs.iter_mut().fold(0, |key, say| {
            let value = match say.source {
                VariedSource::Factor(factor) => digits[factor],
                VariedSource::Derived(at) => (derived[at] + 0.0).to_bits(),
            };
            key << 8 | say.distinction.classify_value(value)
        });

        // Neighbours are mostly of one variety.
        if self.last_key == Some(key) || self.cells_by_key.len() == MAX_VARIETIES {
            return;
        }

        self.last_key = Some(key);
        self.cells_by_key.entry(key).or_insert_with(cell);
    }

    /// One cell of each, in the order of their numbers.
    pub(super) fn into_cells(self) -> Vec<u64> {
        let mut cells: Vec<u64> = self.cells_by_key.into_values().collect();
        cells.sort_unstable();
        cells
    }

    /// One cell of each where all cells are kept and no number is derived: only what has a say is varied.
    pub(super) fn into_unfiltered_cells(mut self, grid: &Grid) -> Vec<u64> {
        let mut factors: Vec<usize> = self
            .inputs
            .iter()
            .filter_map(|input| match input.source {
                VariedSource::Factor(factor) => Some(factor),
                VariedSource::Derived(_) => None,
            })
            .collect();
        factors.sort_unstable();
        factors.dedup();

        let mut digits = vec![0; grid.factors.len()];
        loop {
            self.record_cell(&digits, &[], || grid.cell_from_digits(&digits));
            if !grid.advance_digits(&factors, &mut digits) {
                return self.into_cells();
            }
        }
    }
}

impl ValueDistinction {
    /// One of at most 256.
    fn classify_value(&mut self, value: u64) -> u64 {
        match self {
            Self::Each => value.min(255),
            Self::Equals(wanted) => u64::from(*wanted == Some(value)),
            Self::EqualsFirst(first) => u64::from(*first.get_or_insert(value) == value),
        }
    }
}
