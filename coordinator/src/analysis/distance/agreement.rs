//! Agreement of trials: the share of pairs of trials that predict the same class, over all points.

use std::ops::Range;

use rayon::prelude::*;

use super::labels::{PredictedLabels, count_classes, find_common_repeats, point_ranges};
use super::split_half::add_sums;

/// Agreement between trials of some cells.
#[derive(Debug, Clone)]
pub struct Agreement<'a> {
    cells: Vec<&'a PredictedLabels>,
    /// Number of agreeing pairs of a trial of one cell and a trial of another, over all points:
    /// `[cell][cell]`, the second index not below the first.
    alike: Vec<u64>,
}

impl<'a> Agreement<'a> {
    /// Counts agreeing pairs of trials of these cells, which have the same points.
    pub fn from_labels(cells: &[&'a PredictedLabels]) -> Self {
        let classes = cells
            .iter()
            .map(|cell| cell.class_count())
            .max()
            .unwrap_or(0)
            .max(1);

        let points = cells.first().map_or(0, |cell| cell.points);
        let sums = point_ranges(points)
            .into_par_iter()
            .map(|range| count_alike_pairs(cells, classes, &range));
        let alike = sums.reduce(|| vec![0; cells.len() * cells.len()], add_sums);
        Self {
            cells: cells.to_vec(),
            alike,
        }
    }

    /// Probability that trials of two different repeats of a cell predict the same class; from 2
    /// repeats on.
    pub fn within_cell(&self, cell: usize) -> Option<f64> {
        let n = self.cells[cell].repeats().len() as u64;
        let points = self.cells[cell].points as u64;
        // Each trial agrees with itself at every point, which says nothing about the cell.
        let alike = self.alike[cell * self.cells.len() + cell] - n * points;
        (n > 1 && points > 0).then(|| alike as f64 / (n * (n - 1) * points) as f64)
    }

    /// Probability that trials of two cells predict the same class: for different repeats, and for
    /// the same repeat, which has the same streams. `None` without such pairs.
    pub fn between_cells(&self, a: usize, b: usize) -> (Option<f64>, Option<f64>) {
        let one = self.cells[a];
        let other = self.cells[b];
        let shared = find_common_repeats(&[one, other]);
        let same_repeat: u64 = one
            .rows_of_repeats(&shared)
            .iter()
            .zip(other.rows_of_repeats(&shared))
            .map(|(a, b)| count_equal(a, b))
            .sum();
        let alike = self.alike[a.min(b) * self.cells.len() + a.max(b)] - same_repeat;

        let pairs = one.repeats().len() * other.repeats().len() - shared.len();
        let share = |alike: u64, pairs: usize| {
            let all = pairs as u64 * one.points as u64;
            (all > 0).then(|| alike as f64 / all as f64)
        };
        (share(alike, pairs), share(same_repeat, shared.len()))
    }
}

fn sum_products(a: &[i32], b: &[i32]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.unsigned_abs()) * u64::from(b.unsigned_abs()))
        .sum()
}

fn count_alike_pairs(cells: &[&PredictedLabels], classes: usize, range: &Range<usize>) -> Vec<u64> {
    let mut counts = vec![Vec::new(); cells.len()];
    for (cell, counts) in cells.iter().zip(&mut counts) {
        count_classes(cell.repeat_rows().into_iter(), range, classes, counts);
    }

    let mut alike = vec![0; cells.len() * cells.len()];
    for a in 0..cells.len() {
        for b in a..cells.len() {
            alike[a * cells.len() + b] = sum_products(&counts[a], &counts[b]);
        }
    }

    alike
}

fn count_equal(a: &[u8], b: &[u8]) -> u64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as u64
}
