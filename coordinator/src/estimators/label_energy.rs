//! The energy distance of the laws from which two cells' predictions are drawn, estimated without bias.
//!
//! With independent X, X' of one law and Y, Y' of another, the energy distance is 2 E d(X, Y) − E d(X, X') − E d(Y, Y') (Székely and
//! Rizzo 2013). A repeat has a draw of both cells, and these two share random streams, so that pairs of *different* repeats are
//! compared alone: the estimate is a U-statistic of the repeats (Gretton et al. 2012, section 2.2), whose mean is the distance.
//!
//! *Point by point*, d is 1 if the labels of a probe point differ and 0 otherwise, averaged over points: the distance of a point is the
//! sum of the squared differences of the labels' probabilities. It sees each point alone. *Jointly*, d is the root of the share
//! of points whose labels differ, which is the Euclidean distance of predictions written as 0 and 1 per point and label, up to a
//! factor: this distance is 0 for equal laws of all labels together alone. Both lie between 0 and 2.

use super::sample::mean_of_finite_values;

/// Smallest number of repeats: without one of them, a pair must be left.
pub const MIN_REPEATS: usize = 3;

/// A distance over all repeats, and without each of them in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct EnergyDistance {
    /// The distance over all repeats.
    pub full: f64,
    /// The distance without each repeat.
    pub without: Vec<f64>,
}

impl EnergyDistance {
    /// The distance point by point. `a` and `b` have the labels of both cells, one slice per repeat, all of the same length above 0.
    /// `None` below [`MIN_REPEATS`] repeats.
    pub fn by_point(a: &[&[u8]], b: &[&[u8]]) -> Option<Self> {
        let points = a.first()?.len();
        let mut sums = vec![0_i64; a.len()];
        for point in 0..points {
            let counts = [count_labels(a, point), count_labels(b, point)];
            for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += agreement_of_repeat(&counts, usize::from(x[point]), usize::from(y[point]));
            }
        }

        let sums = sums.into_iter().map(|sum| sum as f64 / points as f64);
        Self::from_repeat_sums(&sums.collect::<Vec<_>>())
    }

    /// The joint distance, of the same arguments.
    pub fn of_all_points(a: &[&[u8]], b: &[&[u8]]) -> Option<Self> {
        let mut sums = vec![0.0; a.len()];
        for (i, (x, y)) in a.iter().zip(b).enumerate() {
            for (j, (other_x, other_y)) in a.iter().zip(b).enumerate().take(i) {
                let between = distance_of_labels(x, other_y) + distance_of_labels(other_x, y);
                let within = distance_of_labels(x, other_x) + distance_of_labels(y, other_y);
                sums[i] += between - within;
                sums[j] += between - within;
            }
        }
        Self::from_repeat_sums(&sums)
    }

    /// The distance from the sums of the kernel over all other repeats, for each repeat.
    fn from_repeat_sums(sums: &[f64]) -> Option<Self> {
        if sums.len() < MIN_REPEATS {
            return None;
        }

        let n = sums.len() as f64;
        let total: f64 = sums.iter().sum();
        // The pairs of a repeat stand in its own sum, and in those of the others.
        let without = sums
            .iter()
            .map(|sum| (total - 2.0 * sum) / ((n - 1.0) * (n - 2.0)));
        Some(Self {
            full: total / (n * (n - 1.0)),
            without: without.collect(),
        })
    }
}

/// The covariance of two numbers, given both without each of the same repeats; of a number and itself, its squared standard error.
pub fn jackknife_covariance(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    // Equal numbers have themselves as mean, so that they leave no spread.
    let means = [a, b].map(|numbers| mean_of_finite_values(numbers).unwrap_or(f64::NAN));
    let products = a
        .iter()
        .zip(b)
        .map(|(x, y)| (x - means[0]) * (y - means[1]));
    products.sum::<f64>() * (n - 1.0) / n
}

fn count_labels(cell: &[&[u8]], point: usize) -> [i64; 256] {
    let mut counts = [0; 256];
    for labels in cell {
        counts[usize::from(labels[point])] += 1;
    }
    counts
}

/// The agreement of a repeat's labels x and y with those of all others: within the cells, minus that between them.
fn agreement_of_repeat(counts: &[[i64; 256]; 2], x: usize, y: usize) -> i64 {
    let [a, b] = counts;
    // The repeat itself stands in all counts.
    let within = a[x] + b[y] - 2;
    let between = b[x] + a[y] - 2 * i64::from(x == y);
    within - between
}

/// The root of the share of points whose labels differ.
fn distance_of_labels(x: &[u8], y: &[u8]) -> f64 {
    let unequal = x.iter().zip(y).filter(|(x, y)| x != y).count();
    (unequal as f64 / x.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels of four repeats at two points.
    const A: [[u8; 2]; 4] = [[0, 1], [0, 2], [0, 1], [1, 1]];
    const B: [[u8; 2]; 4] = [[0, 1], [1, 2], [1, 1], [1, 0]];

    fn rows<const N: usize>(labels: &[[u8; 2]; N]) -> Vec<&[u8]> {
        labels.iter().map(|row| &row[..]).collect()
    }

    /// The distance as its definition says, over all pairs of different repeats.
    fn by_definition(a: &[&[u8]], b: &[&[u8]], d: fn(&[u8], &[u8]) -> f64) -> f64 {
        let mean = |x: &[&[u8]], y: &[&[u8]]| {
            let n = x.len();
            let pairs = (0..n).flat_map(|i| (0..n).map(move |j| (i, j)));
            let all = pairs.filter(|(i, j)| i != j).map(|(i, j)| d(x[i], y[j]));
            all.sum::<f64>() / (n * (n - 1)) as f64
        };
        2.0 * mean(a, b) - mean(a, a) - mean(b, b)
    }

    fn share_unequal(x: &[u8], y: &[u8]) -> f64 {
        let unequal = x.iter().zip(y).filter(|(x, y)| x != y).count();
        unequal as f64 / x.len() as f64
    }

    #[test]
    fn distances_and_those_without_a_repeat_are_what_the_definition_says() {
        let [a, b] = [rows(&A), rows(&B)];
        let root: fn(&[u8], &[u8]) -> f64 = |x, y| share_unequal(x, y).sqrt();
        for (found, d) in [
            (
                EnergyDistance::by_point(&a, &b),
                share_unequal as fn(&[u8], &[u8]) -> f64,
            ),
            (EnergyDistance::of_all_points(&a, &b), root),
        ] {
            let found = found.expect("four repeats");
            assert!(
                (found.full - by_definition(&a, &b, d)).abs() < 1e-12,
                "{found:?}"
            );
            for (at, without) in found.without.iter().enumerate() {
                let [mut a, mut b] = [a.clone(), b.clone()];
                a.remove(at);
                b.remove(at);
                assert!(
                    (without - by_definition(&a, &b, d)).abs() < 1e-12,
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn cells_with_the_same_labels_have_distance_0_and_other_ones_2() {
        let a = rows(&A);
        let same = EnergyDistance::by_point(&a, &a).expect("four repeats");
        assert_eq!((same.full, same.without), (0.0, vec![0.0; 4]));

        let [zeros, ones] = [[[0_u8; 2]; 3], [[1; 2]; 3]];
        for found in [
            EnergyDistance::by_point(&rows(&zeros), &rows(&ones)),
            EnergyDistance::of_all_points(&rows(&zeros), &rows(&ones)),
        ] {
            let found = found.expect("three repeats");
            assert_eq!((found.full, found.without), (2.0, vec![2.0; 3]));
        }
        assert_eq!(EnergyDistance::by_point(&a[..2], &a[..2]), None);
    }
}
