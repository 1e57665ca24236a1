//! The uncertainty of a mean if repeats share crossed streams.
//!
//! With `seeds = { crossed = { init = 10, order = 20 } }`, two hundred repeats are not two hundred
//! independent draws: if all variance came from the initial weights, they would be ten. The
//! variance of a mean is σ²(init)/10 + σ²(order)/20 + σ²(init × order)/200. The components are
//! estimated from mean squares, and negative ones count as 0. Student's t uses the matching degrees
//! of freedom (Satterthwaite 1946). If combinations are missing, the variance between each stream's
//! levels counts in full, without subtracting what comes from the other streams. The interval is
//! then a little wide, and never too narrow for that reason.

use std::collections::BTreeMap;

use ergodic_common::Spec;

use super::cluster::RepeatCluster;
use crate::estimators::cluster::MeanUncertainty;
use crate::estimators::crossed_layout::CrossedLayout;

/// The crossed streams of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossing(CrossedLayout);

impl Crossing {
    /// The crossed streams of a sweep; `None` where it crosses none.
    pub fn from_spec(spec: &Spec) -> Option<Self> {
        (!spec.seeds.crossed.is_empty()).then(|| Self(CrossedLayout::from_spec(spec)))
    }

    /// Crosses `sizes` streams of each purpose, the one that changes slowest first.
    #[cfg(test)]
    pub(crate) fn new(sizes: &[usize]) -> Self {
        Self(CrossedLayout {
            names: sizes.iter().map(usize::to_string).collect(),
            sizes: sizes.to_vec(),
            replicates: 1,
        })
    }

    /// The uncertainty of the mean of these repeats, given in order with the deviations of their
    /// values from the mean. `None` if a stream has fewer than two levels, or one level that
    /// outweighs all others.
    pub fn estimate_uncertainty(
        &self,
        repeats: &[(u32, RepeatCluster)],
    ) -> Option<MeanUncertainty> {
        let combinations = self.0.sizes.iter().product::<usize>();
        let alike = repeats
            .iter()
            .all(|(_, cluster)| cluster.n == repeats[0].1.n);
        let whole = repeats.len().is_multiple_of(combinations)
            && (0..).zip(repeats).all(|(at, (repeat, _))| at == *repeat);
        if !repeats.is_empty() && alike && whole {
            let layout = CrossedLayout {
                replicates: repeats.len() / combinations,
                ..self.0.clone()
            };
            let values: Vec<f64> = repeats
                .iter()
                .map(|(_, cluster)| cluster.deviation_sum / f64::from(cluster.n))
                .collect();

            return Some(layout.uncertainty_of_mean(&values));
        }

        let streams =
            (0..self.0.sizes.len()).map(|stream| self.estimate_from_levels(stream, repeats));
        let streams: Vec<MeanUncertainty> = streams.collect::<Option<_>>()?;
        let variance = streams.iter().map(|spread| spread.variance).sum::<f64>();
        let squares = streams
            .iter()
            .map(|spread| spread.variance * spread.variance / spread.degrees)
            .sum::<f64>();

        let fewest = streams
            .iter()
            .map(|spread| spread.degrees)
            .fold(f64::INFINITY, f64::min);
        Some(MeanUncertainty {
            variance,
            degrees: if squares > 0.0 {
                variance * variance / squares
            } else {
                fewest
            },
        })
    }

    /// The uncertainty if only the levels of one stream were drawn, weighted by their numbers of
    /// trials.
    fn estimate_from_levels(
        &self,
        stream: usize,
        repeats: &[(u32, RepeatCluster)],
    ) -> Option<MeanUncertainty> {
        let mut levels: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for (repeat, cluster) in repeats {
            let (above, n) = levels
                .entry(self.0.level_of_repeat(stream, *repeat as usize))
                .or_default();
            *above += cluster.deviation_sum;
            *n += f64::from(cluster.n);
        }

        let n: f64 = levels.values().map(|(_, n)| n).sum();
        let squared: f64 = levels
            .values()
            .map(|(_, level)| (level / n) * (level / n))
            .sum();

        // Effective degrees of freedom of unequal weights (Kish), so that one dominant level does
        // not count as many.
        let degrees = 1.0 / squared - 1.0;
        if !degrees.is_finite() || degrees < 0.99 {
            return None;
        }

        let expected: f64 = levels
            .values()
            .map(|(_, level)| level / n)
            .map(|w| w * w * (1.0 - 2.0 * w + squared))
            .sum();
        let found: f64 = levels
            .values()
            .map(|(above, _)| (above / n) * (above / n))
            .sum();

        Some(MeanUncertainty {
            variance: found * squared / expected,
            degrees,
        })
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::random_streams::{RandomStream, fixed_stream};

    use crate::estimators::Sample;
    use crate::estimators::crossed::*;

    /// Values of a layout of two streams, with these deviations of what each does, and of the rest.
    fn draw(sizes: [usize; 2], deviations: [f64; 3], stream: &mut RandomStream) -> Vec<f64> {
        let a: Vec<f64> = (0..sizes[0])
            .map(|_| deviations[0] * stream.next_normal())
            .collect();
        let b: Vec<f64> = (0..sizes[1])
            .map(|_| deviations[1] * stream.next_normal())
            .collect();

        let mut rest = || deviations[2] * stream.next_normal();
        (0..sizes[0] * sizes[1])
            .map(|repeat| a[repeat / sizes[1]] + b[repeat % sizes[1]] + rest())
            .collect()
    }

    /// How often 95 % intervals of the mean contain the true one, 0, of the repeats that `keep` leaves.
    fn covered(sizes: [usize; 2], deviations: [f64; 3], keep: impl Fn(u32) -> bool) -> f64 {
        const ROUNDS: u64 = 2000;
        let crossing = Crossing::new(&sizes);
        let hits = (0..ROUNDS).filter(|round| {
            let values = draw(
                sizes,
                deviations,
                &mut fixed_stream("crossed means", *round),
            );
            let kept: Vec<(u32, f64)> = (0..)
                .zip(values)
                .filter(|(repeat, _)| keep(*repeat))
                .collect();
            let repeats: Vec<u32> = kept.iter().map(|(repeat, _)| *repeat).collect();
            let sample = Sample::from_crossed(
                kept.iter().map(|(_, value)| *value).collect(),
                &repeats,
                &crossing,
            );

            sample
                .t_interval(0.95)
                .is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high)
        });

        hits.count() as f64 / ROUNDS as f64
    }

    #[test]
    fn intervals_cover_with_all_variance_in_one_stream() {
        for sizes in [[4, 4], [10, 20], [3, 50]] {
            for deviations in [
                [1.0, 0.0, 0.0],
                [0.0, 1.0, 0.0],
                [0.0, 0.0, 1.0],
                [1.0, 0.0, 0.3],
            ] {
                let share = covered(sizes, deviations, |_| true);
                assert!(share >= 0.93, "{sizes:?} {deviations:?}: {share}");
                // A tenth of the trials, at random, diverged.
                let share = covered(sizes, deviations, |repeat| repeat % 11 != 3);
                assert!(
                    share >= 0.93,
                    "{sizes:?} {deviations:?}, some missing: {share}"
                );
            }
        }

        // What independent repeats would say is right for the rest alone.
        let plain = |deviations| {
            let hits = (0..400).filter(|round| {
                let sample = Sample::new(draw(
                    [10, 20],
                    deviations,
                    &mut fixed_stream("crossed means", *round),
                ));
                sample
                    .t_interval(0.95)
                    .is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high)
            });

            hits.count() as f64 / 400.0
        };

        assert!(plain([1.0, 0.0, 0.0]) < 0.5 && plain([0.0, 0.0, 1.0]) > 0.92);
    }

    #[test]
    fn one_level_of_a_stream_says_nothing_of_it() {
        let crossing = Crossing::new(&[10, 20]);
        let first: Vec<u32> = (0..20).collect();
        let sample = Sample::from_crossed((0..20).map(f64::from).collect(), &first, &crossing);
        assert_eq!(
            (sample.standard_error(), sample.t_interval(0.95), sample.n()),
            (None, None, 20)
        );

        // Nor does one that outweighs the others.
        let sample = Sample::from_crossed(
            (0..22).map(f64::from).collect(),
            &(0..22).collect::<Vec<_>>(),
            &crossing,
        );
        assert_eq!(sample.t_interval(0.95), None);
    }

    #[test]
    fn equal_values_are_known_exactly() {
        let crossing = Crossing::new(&[2, 3]);
        let sample = Sample::from_crossed(vec![0.1; 6], &[0, 1, 2, 3, 4, 5], &crossing);
        assert_eq!(sample.t_interval(0.95), Some((0.1, 0.1)));
        let sample = Sample::from_crossed(vec![0.1; 5], &[0, 1, 2, 3, 4], &crossing);
        assert_eq!(sample.t_interval(0.95), Some((0.1, 0.1)));
    }

    #[test]
    fn what_a_stream_that_does_all_says_is_said_by_the_means_of_its_levels() {
        // Four levels of the first stream, three of the second, which does nothing.
        let levels = [0.3, 1.7, 0.9, 2.2];
        let values: Vec<f64> = (0..12).map(|repeat| levels[repeat / 3]).collect();
        let sample = Sample::from_crossed(
            values,
            &(0..12).collect::<Vec<_>>(),
            &Crossing::new(&[4, 3]),
        );
        let (low, high) = sample.t_interval(0.95).expect("complete");

        let (wanted_low, wanted_high) = Sample::new(levels.to_vec())
            .t_interval(0.95)
            .expect("four values");
        assert!(
            (low - wanted_low).abs() < 1e-9 && (high - wanted_high).abs() < 1e-9,
            "{low} {high}"
        );
    }
}
