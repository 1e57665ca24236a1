//! How many repeats make a mean known well enough.
//!
//! Whoever stops when an interval has become narrow enough stops too early now and then: when the spread happens to look
//! small. For normal values that costs little, because their mean does not depend on their spread (Chow and Robbins 1965).
//! For skewed ones it costs several percent of coverage. So the interval that decides is wider than the one that is
//! promised: it is taken at [`LEVEL`], by simulation the lowest with which mean ± half-width covers the true mean in at
//! least 95 % of all cases for normal and for exponential values, on a ladder that grows by a quarter from
//! 20 repeats on. The price is 1.4 times as many repeats.

use super::Sample;
use super::special::t_quantile;

/// Level of the interval by Student's t that decides whether a cell is known well enough.
pub const LEVEL: f64 = 0.98;

/// Student's quantile for an interval of this level around the mean of `n` ≥ 2 values.
pub fn quantile(level: f64, n: u64) -> f64 {
    t_quantile(0.5 + 0.5 * level, (n.max(2) - 1) as f64)
}

/// Half the width of the interval around the mean of the finite ones of these values, with the quantile that belongs to
/// their number. `None` for fewer than two.
pub fn half_width(values: &[f64], quantile: impl FnOnce(u64) -> f64) -> Option<f64> {
    let sample = Sample::new(values.iter().copied().filter(|x| x.is_finite()).collect());
    Some(sample.standard_error()? * quantile(sample.n() as u64))
}

/// The least number of values with this standard deviation for which the interval of their mean, by Student's t at this
/// level, is ± `target` or narrower; at least 2, at most `most`, and `None` where that many are not enough.
pub fn needed(std: f64, target: f64, level: f64, most: u64) -> Option<u64> {
    let enough = |n: u64| quantile(level, n) * std <= target * (n as f64).sqrt();
    // The width falls as n grows: halve the range that the answer is in.
    let (mut low, mut high) = (2, most);
    if high < low || !enough(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use ergodic_common::repeats::{FIRST_LOOK, ladder};
    use ergodic_common::seed::{Stream, fixed_stream};

    use super::*;

    #[test]
    fn needed_is_the_first_number_that_is_enough() {
        for (std, target) in [(1.0, 0.1), (0.003, 0.001), (5.0, 4.0), (0.0, 1e-9)] {
            let n = needed(std, target, 0.95, 1_000_000).expect("that many are enough");
            let width = |n: u64| quantile(0.95, n) * std / (n as f64).sqrt();
            assert!(width(n) <= target && (n == 2 || width(n - 1) > target), "{std} {target}: {n}");
        }
        assert_eq!(needed(1.0, 0.1, 0.95, 386), None);
        // 1.96²·100 = 384, and Student's t asks for a few more.
        assert_eq!(needed(1.0, 0.1, 0.95, 387), Some(387));
        assert_eq!(needed(f64::NAN, 0.1, 0.95, 1000), None);
    }

    #[test]
    fn too_few_values_have_no_width() {
        let width = |values: &[f64]| half_width(values, |n| quantile(0.95, n));
        assert_eq!((width(&[]), width(&[1.0, f64::NAN])), (None, None));
        let two = width(&[1.0, 2.0, f64::INFINITY]).expect("two finite values");
        assert!((two - 12.706_204_736 * 0.5).abs() < 1e-8, "{two}");
    }

    /// Stops as a cell does; whether mean ± target covers 0, and how many values that took.
    fn stops(target: f64, quantiles: &[f64], rungs: &[u32], mut draw: impl FnMut() -> f64) -> (bool, u32) {
        let mut values: Vec<f64> = Vec::new();
        for rung in rungs {
            values.extend((values.len()..*rung as usize).map(|_| draw()));
            let width = half_width(&values, |n| quantiles[n as usize]).expect("more than one value");
            if width <= target {
                break;
            }
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean.abs() <= target, values.len() as u32)
    }

    #[test]
    fn stopped_means_are_as_good_as_promised() {
        let rungs: Vec<u32> = ladder(FIRST_LOOK, 1000).collect();
        let quantiles: Vec<f64> = (0..=1000).map(|n| quantile(LEVEL, n)).collect();
        // Mean 0 and variance 1, both; the second one's skewness is 2.
        let exponential = |s: &mut Stream| -libm::log1p(-s.uniform()) - 1.0;
        let draws: [&dyn Fn(&mut Stream) -> f64; 2] = [&Stream::normal, &exponential];
        let mut stream = fixed_stream("stopped means", 0);
        for (draw, name) in draws.iter().zip(["normal", "exponential"]) {
            for wanted in [30.0_f64, 60.0, 120.0, 240.0] {
                let (target, n) = (1.96 / wanted.sqrt(), 4000);
                let all: Vec<(bool, u32)> =
                    (0..n).map(|_| stops(target, &quantiles, &rungs, || draw(&mut stream))).collect();
                let covered = all.iter().filter(|(covered, _)| *covered).count() as f64 / f64::from(n);
                let repeats = all.iter().map(|(_, n)| f64::from(*n)).sum::<f64>() / f64::from(n);
                // Three standard errors of a share of 95 % below it.
                assert!(covered >= 0.95 - 3.0 * (0.95_f64 * 0.05 / f64::from(n)).sqrt(), "{name}, {wanted}: {covered}");
                assert!((wanted..2.0 * wanted).contains(&repeats), "{name}, {wanted}: {repeats} repeats");
            }
        }
    }
}
