//! Numbers of cells, their digits by factor, and their positions in the order of shape classes.

use super::Grid;
use crate::grid::axis::Axis;
use crate::ids::{CellIndex, ShapeClass};

impl Grid {
    pub(super) fn cell_digits(&self, cell: CellIndex) -> Vec<u64> {
        let mut rest = cell.0;
        let mut digits = vec![0; self.factors.len()];
        for (digit, factor) in digits.iter_mut().zip(&self.factors).rev() {
            *digit = rest % factor.len;
            rest /= factor.len;
        }
        digits
    }

    pub(super) fn cell_from_digits(&self, digits: &[u64]) -> CellIndex {
        let with_digits = self.factors.iter().zip(digits);
        CellIndex(with_digits.fold(0, |n, (factor, digit)| n * factor.len + digit))
    }

    pub(super) fn cell_position(&self, cell: CellIndex) -> u64 {
        let digits = self.cell_digits(cell);
        self.factor_order
            .iter()
            .fold(0, |p, f| p * self.factors[*f].len + digits[*f])
    }

    pub(super) fn cell_at_position(&self, position: u64) -> CellIndex {
        let mut rest = position;
        let mut digits = vec![0; self.factors.len()];
        for f in self.factor_order.iter().rev() {
            digits[*f] = rest % self.factors[*f].len;
            rest /= self.factors[*f].len;
        }
        self.cell_from_digits(&digits)
    }

    pub(super) fn class_at_position(&self, position: u64) -> ShapeClass {
        ShapeClass((position / self.class_len()) as u32)
    }

    pub(super) fn class_len(&self) -> u64 {
        self.product / self.classes
    }

    /// Positions of the first cell of a class, and of the first one behind the class.
    pub(super) fn class_range(&self, class: ShapeClass) -> (u64, u64) {
        let len = self.class_len();
        let from = u64::from(class.0) * len;
        (from, from + len)
    }

    pub(super) fn axis_digits<'a>(
        &'a self,
        digits: &'a [u64],
    ) -> impl Iterator<Item = (&'a Axis, u64)> {
        self.axes
            .iter()
            .enumerate()
            .map(move |(at, axis)| (axis, digits[self.factor_index(at)]))
    }

    pub(super) fn factor_index(&self, axis: usize) -> usize {
        self.factors
            .iter()
            .position(|f| f.axes.contains(&axis))
            .expect("every axis belongs to a factor")
    }
}
