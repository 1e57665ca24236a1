//! The one pass over the cells, and the checks that every cell of the grid can be run.

use super::Grid;
use super::kept::Kept;
use crate::axis::{Axis, Values};
use crate::config::range_of;
use crate::error::SpecError;
use crate::reader::quoted;
use crate::tree::Place;

impl Grid {
    /// The one pass over the cells: evaluates `[where]` and `[derive]`, and looks for cells that are equal.
    ///
    /// Returns, for each value of each factor, a kept cell that has it.
    pub(super) fn pass_over_cells(&mut self) -> Result<Witnesses, SpecError> {
        let mut witnesses = Witnesses::default();
        if self.keep.is_none() && self.derived.is_empty() {
            return Ok(witnesses);
        }
        let numbers = self.numbers_used();
        let free = self.axes.iter().any(|a| a.field.is_none());
        let mut kept = self.keep.is_some().then(|| Kept::new(self.product));
        let mut prints: Vec<(u64, u32)> = Vec::new();
        let mut digits = vec![0_u64; self.factors.len()];
        let homes: Vec<usize> = (0..self.axes.len()).map(|a| self.factor_of(a)).collect();
        let ranges: Vec<_> = self.derived.iter().map(|d| range_of(&d.field)).collect();
        witnesses.0 = self.factors.iter().map(|f| vec![None; f.len as usize]).collect();
        for position in 0..self.product {
            let axis = |a: usize| numbers[a][digits[homes[a]] as usize];
            let derived = self.derived_values(&axis);
            let holds = match &self.keep {
                None => true,
                Some(keep) => {
                    let value = keep.eval(&axis, &derived);
                    if value.is_nan() {
                        return Err(self.cell_error(&keep.place, "where.keep", &digits, "the expression has no value"));
                    }
                    value != 0.0
                }
            };
            if holds {
                for ((d, x), range) in self.derived.iter().zip(&derived).zip(&ranges) {
                    if let Some(range) = range.filter(|r| !r.holds(*x)) {
                        let message = format!("expected {}, found {x}", range.describe());
                        return Err(self.cell_error(&d.formula.place, &d.field, &digits, &message));
                    }
                }
                if let Some(kept) = &mut kept {
                    kept.set(position);
                }
                witnesses.note(&digits, self.number(&digits));
                if free {
                    prints.push((self.fingerprint(&digits, &homes, &derived), position as u32));
                }
            }
            self.advance(&mut digits);
        }
        if let Some(kept) = &mut kept {
            kept.index();
            if kept.count == 0 {
                let place = self.keep.as_ref().map_or(Place::Default, |k| k.place.clone());
                return Err(SpecError::new(place, "where.keep", "this keeps no cell at all"));
            }
        }
        self.kept = kept;
        self.refuse_equal_cells(prints)?;
        Ok(witnesses)
    }

    /// The numbers of each axis that an expression uses.
    fn numbers_used(&self) -> Vec<Vec<f64>> {
        let mut used = vec![false; self.axes.len()];
        self.formulas().for_each(|f| self.mark_inputs(f, &mut used));
        let all = |axis: &Axis| (0..axis.len()).map(|i| axis.number(i).unwrap_or(f64::NAN)).collect();
        self.axes.iter().zip(used).map(|(axis, used)| if used { all(axis) } else { Vec::new() }).collect()
    }

    /// The digits of the next position.
    fn advance(&self, digits: &mut [u64]) {
        for f in self.order.iter().rev() {
            digits[*f] += 1;
            if digits[*f] < self.factors[*f].len {
                return;
            }
            digits[*f] = 0;
        }
    }

    /// Equal for cells that resolve to the same config: what fields' axes and derived fields say.
    fn fingerprint(&self, digits: &[u64], homes: &[usize], derived: &[f64]) -> u64 {
        let mix = |h: u64, x: u64| (h ^ x).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let fields = self.axes.iter().zip(homes).filter(|(axis, _)| axis.field.is_some());
        let h = fields.fold(0x1234_5678_u64, |h, (_, home)| mix(h, digits[*home] + 1));
        derived.iter().fold(h, |h, x| mix(h, (x + 0.0).to_bits()))
    }

    fn refuse_equal_cells(&self, mut prints: Vec<(u64, u32)>) -> Result<(), SpecError> {
        prints.sort_unstable();
        for pair in prints.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let [a, b] = [pair[0].1, pair[1].1].map(|position| self.cell_at(u64::from(position)));
            if self.config(a)? == self.config(b)? {
                let message = format!(
                    "the cells {} and {} resolve to the same trial: drop one, or derive another field as well",
                    self.describe(&self.digits(a)),
                    self.describe(&self.digits(b))
                );
                return Err(SpecError::new(Place::Default, "grid", message));
            }
        }
        Ok(())
    }

    /// Every value of every axis, tried in a cell that has it.
    pub(super) fn check_values(&self, witnesses: &Witnesses) -> Result<(), SpecError> {
        for (at, axis) in self.axes.iter().enumerate() {
            let Some(field) = &axis.field else { continue };
            let factor = self.factor_of(at);
            let range = range_of(field);
            let continuous = range.is_some_and(|r| !r.whole);
            for i in axis.representatives(continuous) {
                if let Some(range) = range {
                    let node = axis.node(i);
                    if !node.value.as_f64().is_some_and(|x| range.holds(x)) {
                        let message = format!("expected {}, found {}", range.describe(), quoted(&node.value));
                        return Err(SpecError::new(node.place, format!("grid.{}", axis.name), message));
                    }
                    if !matches!(axis.values, Values::Listed(_)) {
                        continue;
                    }
                }
                if let Some(cell) = self.witness(witnesses, factor, i) {
                    self.config(cell).map_err(|e| self.blame(e, axis, i))?;
                }
            }
        }
        Ok(())
    }

    fn witness(&self, witnesses: &Witnesses, factor: usize, digit: u64) -> Option<u64> {
        match witnesses.0.get(factor) {
            Some(cells) => cells[digit as usize],
            None => {
                let mut digits = vec![0; self.factors.len()];
                digits[factor] = digit;
                Some(self.number(&digits))
            }
        }
    }

    /// An unknown key set by an axis is that axis' fault, wherever the reader found it.
    fn blame(&self, error: SpecError, axis: &Axis, i: u64) -> SpecError {
        if error.place == axis.node(i).place {
            SpecError { path: format!("grid.{}", axis.name), ..error }
        } else {
            error
        }
    }

    /// One cell of every shape class: whether batch, data and length go together.
    pub(super) fn check_classes(&self) -> Result<(), SpecError> {
        for class in 0..self.classes() {
            if self.class_cells(class) > 0 {
                self.config(self.class_cell(class, 0))?;
            }
        }
        Ok(())
    }

    fn cell_error(&self, place: &Place, path: &str, digits: &[u64], message: &str) -> SpecError {
        SpecError::new(place.clone(), path, format!("{message} (in the cell {})", self.describe(digits)))
    }

    fn describe(&self, digits: &[u64]) -> String {
        let parts: Vec<String> =
            self.axis_digits(digits).map(|(axis, digit)| format!("{}={}", axis.name, axis.value(digit))).collect();
        parts.join(", ")
    }
}

/// For each value of each factor, a kept cell that has it; empty when every cell is kept.
#[derive(Default)]
pub(super) struct Witnesses(Vec<Vec<Option<u64>>>);

impl Witnesses {
    fn note(&mut self, digits: &[u64], cell: u64) {
        for (cells, digit) in self.0.iter_mut().zip(digits) {
            cells[*digit as usize].get_or_insert(cell);
        }
    }
}
