//! Varieties of cells: the differences that decide which quantity their loss is, and which random
//! streams they draw from. There are few varieties, however many cells there are, and one cell of
//! each represents it.

use std::collections::HashMap;

use super::Grid;
use crate::grid::axis::{Axis, AxisValues};
use crate::grid::cases::CASE_AXIS;
use crate::ids::CellIndex;

/// More varieties than the accepted values of fields can form. Values that fields do not accept are
/// refused later.
const MAX_VARIETIES: usize = 4096;

/// Finds one cell of each variety.
pub(super) struct Varieties {
    inputs: Vec<VariedInput>,
    cells_by_key: HashMap<u64, CellIndex>,
    last_key: Option<u64>,
}

/// A number that varies from cell to cell, and the distinction among its values that matters.
struct VariedInput {
    source: VariedSource,
    distinction: ValueDistinction,
}

enum VariedSource {
    /// The digit of a factor.
    Factor(usize),
    /// The bits of a value that `[derive]` computes.
    Derived(usize),
}

enum ValueDistinction {
    /// All values are distinct, such as words.
    Each,
    /// Only equality with this value matters; `None` if no cell has it.
    Equals(Option<u64>),
    /// Only equality with the first value that occurred matters.
    EqualsFirst(Option<u64>),
}

/// The distinction among the values of a field that matters; `None` for fields that do not matter.
fn distinction_for_field(
    field: &str,
    zero: impl FnOnce() -> Option<u64>,
) -> Option<ValueDistinction> {
    match field {
        "model.kind" | "data.order" | "data.augment" | "train.loss" | "train.loss.kind" => {
            Some(ValueDistinction::Each)
        }
        // All that matters is whether there is noise: a sweep without noise draws no random numbers
        // for it.
        "model.noise" => Some(ValueDistinction::Equals(zero())),
        // Only whether two values occur matters: cells with two different smoothings measure
        // different losses.
        "train.loss.label_smoothing" => Some(ValueDistinction::EqualsFirst(None)),
        _ => None,
    }
}

/// The index of 0 on an axis without negative numbers.
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
        let derived = grid
            .computed_fields()
            .enumerate()
            .filter_map(|(at, field)| {
                Some(VariedInput {
                    source: VariedSource::Derived(at),
                    distinction: distinction_for_field(field, || Some(0.0_f64.to_bits()))?,
                })
            });
        let inputs = axes.chain(derived).chain(Self::case_input(grid)).collect();
        Self {
            inputs,
            cells_by_key: HashMap::new(),
            last_key: None,
        }
    }

    /// The case, if cases set what matters: each is a variety.
    fn case_input(grid: &Grid) -> Option<VariedInput> {
        let matters = |field: &str| {
            matches!(field, "model" | "train.loss")
                || distinction_for_field(field, || None).is_some()
        };
        grid.case_fields().any(matters).then(|| VariedInput {
            source: VariedSource::Factor(grid.factor_index(CASE_AXIS)),
            distinction: ValueDistinction::Each,
        })
    }

    /// Records a kept cell with these digits and derived numbers.
    pub(super) fn record_cell(
        &mut self,
        digits: &[u64],
        derived: &[f64],
        cell: impl FnOnce() -> CellIndex,
    ) {
        let key = self.inputs.iter_mut().fold(0, |key, say| {
            let value = match say.source {
                VariedSource::Factor(factor) => digits[factor],
                VariedSource::Derived(at) => (derived[at] + 0.0).to_bits(),
            };
            key << 8 | say.distinction.classify_value(value)
        });

        // Neighbouring cells are mostly of one variety, so comparing with the last key saves a
        // look-up.
        if self.last_key == Some(key) || self.cells_by_key.len() == MAX_VARIETIES {
            return;
        }

        self.last_key = Some(key);
        self.cells_by_key.entry(key).or_insert_with(cell);
    }

    /// One cell of each variety, in the order of their numbers.
    pub(super) fn into_cells(self) -> Vec<CellIndex> {
        let mut cells: Vec<CellIndex> = self.cells_by_key.into_values().collect();
        cells.sort_unstable();
        cells
    }

    /// One cell of each variety, if all cells are kept and no number is derived. Varies only the
    /// factors that matter.
    pub(super) fn into_unfiltered_cells(mut self, grid: &Grid) -> Vec<CellIndex> {
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
    /// Maps a value to one of at most 256 distinctions.
    fn classify_value(&mut self, value: u64) -> u64 {
        match self {
            Self::Each => value.min(255),
            Self::Equals(wanted) => u64::from(*wanted == Some(value)),
            Self::EqualsFirst(first) => u64::from(*first.get_or_insert(value) == value),
        }
    }
}
