//! A permutation test of whether two cells have the same distribution.
//!
//! Repeats are independent of each other, but the two trials of one repeat are not, because they
//! share their random streams. So cells are swapped within repeats, each with probability ½. If a
//! swap changes nothing about the joint distribution of the two trials of a repeat, as when the
//! cells are equal in all that matters, every pattern of swaps is as likely as the observed one,
//! and p is exact (Fisher 1935). If only the distributions of the two cells are equal, and not
//! their dependence, p is valid for many repeats, because a swap leaves the covariance of
//! differences as it is (Janssen 1997).
//!
//! The statistic is the ℓ1 distance over all common repeats, the same ones of both cells. It is a
//! function of the sum of differences; a swap flips the sign of a difference, and the common effect
//! of the streams cancels in it. Everything is counted in whole numbers, so that ties are exact.

use ergodic_common::random_streams::RandomStream;
use rayon::prelude::*;

use super::split_half::add_sums;

/// The result of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PermutationTest {
    /// Mean over points of Σ|p − q| over classes, in [0, 2], over all repeats of both cells.
    pub distance: f64,
    /// Share of swap patterns with at least this distance, including the observed one.
    pub p: f64,
    /// Whether p is over all patterns, rather than over random ones.
    pub exact: bool,
}

/// Maximum number of repeats of a test, because sums of differences have 16 bits.
pub const MAX_REPEATS: usize = i16::MAX as usize;

/// Number of repeats whose swaps are looked up together.
const REPEATS_PER_BLOCK: usize = 6;
/// Number of pairs of point and class that are added up together.
const ENTRIES_AT_ONCE: usize = 16;

/// Patterns of swapped repeats, by block of repeats, with one bit per repeat.
struct SwapPatterns {
    blocks: usize,
    words: Vec<u8>,
    exact: bool,
}

/// Differences of counts, by repeat.
type CountDifferences = Vec<[i16; ENTRIES_AT_ONCE]>;

/// Tests whether two cells differ. Each has one slice of classes per repeat, for the same repeats
/// in the same order, at least 1 and at most [`MAX_REPEATS`]. If there are at most `permutations`
/// patterns, all are used.
pub fn run_permutation_test(
    a: &[&[u8]],
    b: &[&[u8]],
    permutations: u32,
    stream: &mut RandomStream,
) -> Option<PermutationTest> {
    let n = a.len().min(b.len());
    let points = a.first()?.len();
    if points == 0 || n > MAX_REPEATS {
        return None;
    }

    let patterns = SwapPatterns::new(n, permutations, stream);
    let entries = find_differing_entries(a, b);
    let sums = entries
        .par_chunks(ENTRIES_AT_ONCE)
        .map(|entries| patterns.absolute_sums(&count_differences(a, b, entries)))
        .reduce(|| vec![0; patterns.len()], add_sums);

    // The first pattern swaps nothing, so its sum is the observed one.
    let at_least = sums.iter().filter(|sum| **sum >= sums[0]).count();
    Some(PermutationTest {
        distance: sums[0] as f64 / (n * points) as f64,
        p: at_least as f64 / patterns.len() as f64,
        exact: patterns.exact,
    })
}

/// Smallest p that a test of this many repeats can have.
pub fn smallest_p_value(repeats: usize, permutations: u32) -> f64 {
    let all = (repeats > 0 && repeats <= 32).then(|| 0.5_f64.powi(repeats as i32 - 1));
    all.unwrap_or(0.0)
        .max(1.0 / (f64::from(permutations) + 1.0))
}

impl SwapPatterns {
    /// Creates the pattern without swaps and then random ones, or all patterns if these are no
    /// more. Swapping the complement gives the same distance, so when all are used, the last repeat
    /// is never swapped.
    fn new(repeats: usize, permutations: u32, stream: &mut RandomStream) -> Self {
        let blocks = repeats.div_ceil(REPEATS_PER_BLOCK);
        let all = 1_u64
            .checked_shl(repeats as u32 - 1)
            .filter(|all| *all <= u64::from(permutations));
        let mut words = vec![0; blocks];

        match all {
            Some(all) => words.extend((1..all).flat_map(|swapped| {
                (0..blocks).map(move |block| {
                    (swapped >> (REPEATS_PER_BLOCK * block)) as u8 & ((1 << REPEATS_PER_BLOCK) - 1)
                })
            })),
            None => {
                let mut bytes = Vec::new();
                let wanted = blocks * permutations as usize;
                while bytes.len() < wanted {
                    bytes.extend(stream.next_bytes());
                }

                words.extend(
                    bytes[..wanted]
                        .iter()
                        .map(|byte| byte & ((1 << REPEATS_PER_BLOCK) - 1)),
                );
            }
        }

        Self {
            blocks,
            words,
            exact: all.is_some(),
        }
    }

    fn len(&self) -> usize {
        self.words.len() / self.blocks
    }

    /// Sum of the absolute values of swapped sums, for each pattern. The sums of a block are
    /// computed once per block pattern.
    fn absolute_sums(&self, differences: &CountDifferences) -> Vec<u64> {
        let tables: Vec<[[i16; ENTRIES_AT_ONCE]; 1 << REPEATS_PER_BLOCK]> = differences
            .chunks(REPEATS_PER_BLOCK)
            .map(block_sums_by_pattern)
            .collect();
        self.words
            .chunks_exact(self.blocks)
            .map(|pattern| {
                let mut sums = [0_i16; ENTRIES_AT_ONCE];
                for (table, word) in tables.iter().zip(pattern) {
                    let row = &table[usize::from(*word)];
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
                }

                sums.iter()
                    .map(|sum| u64::from(sum.unsigned_abs()))
                    .sum::<u64>()
            })
            .collect()
    }
}

/// Sums of a block's differences with the signs of each block pattern.
fn block_sums_by_pattern(
    block: &[[i16; ENTRIES_AT_ONCE]],
) -> [[i16; ENTRIES_AT_ONCE]; 1 << REPEATS_PER_BLOCK] {
    let mut table = [[0; ENTRIES_AT_ONCE]; 1 << REPEATS_PER_BLOCK];
    for row in block {
        table[0].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }

    for pattern in 1..table.len() {
        let swapped = block
            .get(pattern.trailing_zeros() as usize)
            .copied()
            .unwrap_or_default();
        let before = table[pattern & (pattern - 1)];
        for ((sum, before), x) in table[pattern].iter_mut().zip(before).zip(swapped) {
            *sum = before - 2 * x;
        }
    }

    table
}

/// Pairs of point and class in which the cells differ in some repeat; the others add nothing.
fn find_differing_entries(a: &[&[u8]], b: &[&[u8]]) -> Vec<(usize, u8)> {
    let points = a.first().map_or(0, |row| row.len());
    (0..points)
        .into_par_iter()
        .flat_map_iter(|point| {
            let mut seen = [false; 256];
            for (a, b) in a.iter().zip(b).filter(|(a, b)| a[point] != b[point]) {
                seen[usize::from(a[point])] = true;
                seen[usize::from(b[point])] = true;
            }

            (0..=u8::MAX)
                .filter(move |class| seen[usize::from(*class)])
                .map(move |class| (point, class))
        })
        .collect()
}

fn count_differences(a: &[&[u8]], b: &[&[u8]], entries: &[(usize, u8)]) -> CountDifferences {
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let mut row = [0; ENTRIES_AT_ONCE];
            for (x, (point, class)) in row.iter_mut().zip(entries) {
                *x = i16::from(a[*point] == *class) - i16::from(b[*point] == *class);
            }
            row
        })
        .collect()
}
