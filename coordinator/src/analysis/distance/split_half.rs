//! ℓ1 distances between label distributions, and their expectation without a difference.
//!
//! Distributions that are estimated from n repeats of each of two cells differ even if the true
//! ones are equal, the more so the fewer repeats there are. So a distance is shown next to its
//! null, the distance between two halves of one cell. Both are taken in the same way: n/2 repeats
//! against n/2 others. The repeats are disjoint, because the same repeat has the same random
//! streams in both cells, which would bring these closer together than trials of one cell ever are.
//! If the true distributions are equal, distance and null have the same expectation.

use std::ops::Range;

use ergodic_common::random_streams::RandomStream;
use rayon::prelude::*;

use super::labels::{count_classes, point_ranges};

/// Number of random splits into halves that are averaged. The uncertainty from this choice is not
/// shown.
pub const SPLITS: usize = 32;

/// Distances between cells.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitHalfDistances {
    cells: usize,
    /// Sums of absolute differences of counts, `[cell][cell]`; the diagonal has those of the nulls.
    sums: Vec<u64>,
    /// The sum that corresponds to a distance of 1.
    unit: f64,
}

impl SplitHalfDistances {
    /// Splits repeats into halves at random. `cells` has one slice of classes below `classes` per
    /// repeat of each cell, for the same repeats in the same order, at least 2.
    pub fn from_random_splits(
        cells: &[Vec<&[u8]>],
        classes: usize,
        stream: &mut RandomStream,
    ) -> Option<Self> {
        let repeats = cells.first()?.len();
        let points = cells.first()?.first()?.len();
        if repeats < 2 || points == 0 {
            return None;
        }

        let mut order: Vec<u32> = (0..repeats as u32).collect();
        let splits: Vec<Vec<u32>> = (0..SPLITS)
            .map(|_| {
                stream.shuffle(&mut order);
                order[..repeats / 2 * 2].to_vec()
            })
            .collect();

        let sums = point_ranges(points)
            .into_par_iter()
            .map(|range| sum_point_range(cells, classes, &splits, &range));
        let sums = sums.reduce(|| vec![0; cells.len() * cells.len()], add_sums);
        Some(Self {
            cells: cells.len(),
            sums,
            unit: (SPLITS * (repeats / 2) * points) as f64,
        })
    }

    /// Mean over points of Σ|p − q| over classes, in [0, 2], between half of the repeats of `a` and
    /// the other half of `b`, over both ways and all splits. For a cell and itself, it is the null.
    pub fn distance_between(&self, a: usize, b: usize) -> f64 {
        let ways = if a == b { 1.0 } else { 2.0 };
        self.sums[a.min(b) * self.cells + a.max(b)] as f64 / (ways * self.unit)
    }
}

/// Adds sums of the same kind, element by element.
pub(super) fn add_sums(a: Vec<u64>, b: Vec<u64>) -> Vec<u64> {
    a.iter().zip(&b).map(|(a, b)| a + b).collect()
}

fn sum_point_range(
    cells: &[Vec<&[u8]>],
    classes: usize,
    splits: &[Vec<u32>],
    range: &Range<usize>,
) -> Vec<u64> {
    let mut sums = vec![0; cells.len() * cells.len()];
    let mut counts: Vec<[Vec<i32>; 2]> = vec![Default::default(); cells.len()];

    for split in splits {
        let (one, other) = split.split_at(split.len() / 2);
        for (cell, halves) in cells.iter().zip(&mut counts) {
            for (half, counts) in [one, other].into_iter().zip(halves) {
                count_classes(
                    half.iter().map(|repeat| cell[*repeat as usize]),
                    range,
                    classes,
                    counts,
                );
            }
        }

        for (a, [a_one, a_other]) in counts.iter().enumerate() {
            sums[a * cells.len() + a] += l1_difference(a_one, a_other);
            for (b, [b_one, b_other]) in counts.iter().enumerate().skip(a + 1) {
                sums[a * cells.len() + b] +=
                    l1_difference(a_one, b_other) + l1_difference(b_one, a_other);
            }
        }
    }

    sums
}

fn l1_difference(a: &[i32], b: &[i32]) -> u64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum()
}
