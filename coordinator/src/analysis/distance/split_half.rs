//! ℓ1 distances between label distributions, and what they would be without a difference.
//!
//! Of n repeats of each of two cells, estimated distributions differ even when the laws are equal, the more so the fewer
//! repeats there are. So a distance is shown beside its null, the distance between two halves of one cell, and both are taken in
//! the same way: n/2 repeats against n/2 others. Repeats are disjoint, since the same repeat has the same random streams
//! in both cells, which would bring these closer together than trials of one cell ever are. When the laws are equal,
//! distance and null have the same expectation.

use std::ops::Range;

use ergodic_common::random_streams::RandomStream;
use rayon::prelude::*;

use super::labels::{count_classes, point_ranges};

/// Random splits into halves that are averaged. Others would give somewhat other distances; how much so is not shown.
pub const SPLITS: usize = 32;

/// Distances between cells.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitHalfDistances {
    cells: usize,
    /// Sums of absolute differences of counts, `[cell][cell]`; on the diagonal those of the nulls.
    sums: Vec<u64>,
    /// What a distance of 1 amounts to in such a sum.
    unit: f64,
}

impl SplitHalfDistances {
    /// Splits repeats into halves at random. `cells` holds for each cell one slice of classes below `classes` per
    /// repeat, the same repeats in the same order; at least 2.
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

    /// Mean over points of Σ|p − q| over classes, in [0, 2], of half of the repeats of `a` and the other half of `b`; over
    /// both ways round and all splits. Of a cell and itself, its null.
    pub fn distance_between(&self, a: usize, b: usize) -> f64 {
        let ways = if a == b { 1.0 } else { 2.0 };
        self.sums[a.min(b) * self.cells + a.max(b)] as f64 / (ways * self.unit)
    }
}

/// Sums of a range of points over all splits.
/// Adds sums of the same kind, one by one.
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
