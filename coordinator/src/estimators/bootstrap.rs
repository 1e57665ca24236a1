//! The bootstrap interval of a mean.

use ergodic_common::random_streams::RandomStream;

use super::Sample;
use super::cluster::RepeatCluster;
use super::special::{normal_cdf, normal_quantile};

/// Number of resamples of each sample.
pub const RESAMPLES: usize = 9_999;

/// Confidence interval of the mean, bias-corrected and accelerated (Efron 1987): quantiles of the
/// means of [`RESAMPLES`] resamples, shifted for their bias and for the sample's skewness. Needs at
/// least 2 values. A pooled sample is resampled by whole repeats, of which it needs 2. Repeats that
/// share crossed streams are not independent draws, so they have no such interval.
pub fn bca_interval(sample: &Sample, level: f64, stream: &mut RandomStream) -> Option<(f64, f64)> {
    let mean = sample
        .mean()
        .filter(|mean| mean.is_finite() && !sample.is_crossed())?;
    // Trials of a repeat share random streams, so only whole repeats are independent draws.
    let drawn = sample.repeat_clusters().map_or_else(
        || {
            sample
                .values()
                .iter()
                .map(|x| RepeatCluster {
                    deviation_sum: x - mean,
                    n: 1,
                })
                .collect()
        },
        <[RepeatCluster]>::to_vec,
    );
    let n = u32::try_from(drawn.len()).ok()?;
    if n < 2 {
        return None;
    }

    let means = (0..RESAMPLES).map(|_| {
        let draws = (0..n).map(|_| drawn[stream.next_below(n) as usize]);
        let (above, values) = draws.fold((0.0, 0.0), |(above, n), x| {
            (above + x.deviation_sum, n + f64::from(x.n))
        });
        above / values
    });
    let means = Sample::new(means.collect());

    let [skew, squares] = [3, 2].map(|power| {
        drawn
            .iter()
            .map(|x| x.deviation_sum.powi(power))
            .sum::<f64>()
    });
    if squares == 0.0 {
        return Some((mean, mean));
    }

    // Summation order changes the last bits. Means that differ by no more than that count as ties.
    let largest = drawn
        .iter()
        .fold(0.0_f64, |most, x| most.max(x.deviation_sum.abs()));
    let rounding = 4.0 * f64::EPSILON * (mean.abs() + f64::from(n) * largest);
    let bias = normal_quantile(share_below_zero(means.values(), rounding));
    let acceleration = skew / (6.0 * squares.powf(1.5));
    let end = |z: f64| {
        let shifted = bias + (bias + z) / (1.0 - acceleration * (bias + z));
        means.quantile(normal_cdf(shifted)).map(|off| mean + off)
    };

    let z = normal_quantile(0.5 + 0.5 * level);
    Some((end(-z)?, end(z)?))
}

/// Confidence interval of any number from its values in resamples, bias-corrected and accelerated as above; `without` has the
/// number without each repeat. `None` if it is undefined in a resample, or there are fewer than two.
pub fn bca_interval_of_number(
    full: f64,
    resampled: &[f64],
    without: &[f64],
    level: f64,
) -> Option<(f64, f64)> {
    if resampled.len() < 2 || resampled.iter().any(|x| !x.is_finite()) {
        return None;
    }

    let apart: Vec<f64> = resampled.iter().map(|x| x - full).collect();
    let rounding = 4.0 * f64::EPSILON * full.abs();
    let bias = normal_quantile(share_below_zero(&apart, rounding));
    let mean = without.iter().sum::<f64>() / without.len() as f64;
    let [skew, squares] =
        [3, 2].map(|power| without.iter().map(|x| (mean - x).powi(power)).sum::<f64>());
    let acceleration = if squares > 0.0 {
        skew / (6.0 * squares.powf(1.5))
    } else {
        0.0
    };

    let draws = Sample::new(apart);
    let end = |z: f64| {
        let shifted = bias + (bias + z) / (1.0 - acceleration * (bias + z));
        draws.quantile(normal_cdf(shifted)).map(|off| full + off)
    };
    let z = normal_quantile(0.5 + 0.5 * level);
    Some((end(-z)?, end(z)?))
}

/// Share of resamples below the sample's mean. Those equal to it within rounding count half. Never
/// 0 or 1.
fn share_below_zero(means: &[f64], rounding: f64) -> f64 {
    let below = means.iter().filter(|x| **x < -rounding).count() as f64;
    let equal = means.iter().filter(|x| x.abs() <= rounding).count() as f64;
    let n = means.len() as f64;
    ((below + 0.5 * equal) / n).clamp(0.5 / n, 1.0 - 0.5 / n)
}
