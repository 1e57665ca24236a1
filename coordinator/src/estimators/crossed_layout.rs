//! Variance components of repeats that combine crossed random streams.

use ergodic_common::Spec;
use ergodic_common::random_streams::NAMED_PURPOSES;

use crate::estimators::cluster::MeanUncertainty;
use crate::estimators::special::chi_squared_quantile;

/// A layout of crossed streams.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossedLayout {
    /// Names of the streams' purposes; the one that changes slowest from repeat to repeat comes
    /// first.
    pub names: Vec<String>,
    /// Number of streams of each purpose.
    pub sizes: Vec<usize>,
    /// Number of times that each combination occurs.
    pub replicates: usize,
}

/// A component of a variance.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentEstimate {
    /// The stream, combination of streams, or rest that the component comes from.
    pub name: String,
    /// Degrees of freedom of its mean square.
    pub df: u64,
    /// The estimate, which may be negative.
    pub variance: f64,
    /// Share of the sum of all components; `None` if all values are equal.
    pub share: Option<f64>,
    /// Confidence interval of the variance; `None` if the estimate is not above 0.
    pub interval: Option<(f64, f64)>,
}

impl ComponentEstimate {
    /// Clips the interval at the largest variance that values within their range can have.
    pub(crate) fn clip_interval(&mut self, most: Option<f64>) {
        if let (Some((low, high)), Some(most)) = (self.interval, most) {
            self.interval = (low < most).then_some((low, high.min(most)));
        }
    }
}

pub(crate) fn describe_caveats(components: &[ComponentEstimate]) -> String {
    if components.iter().all(|component| component.variance == 0.0) {
        return "all values are equal".into();
    }

    let mut notes = Vec::new();
    if components.iter().any(|component| component.variance < 0.0) {
        notes.push("a negative estimate means that the component is too small to be detected with so few streams");
    }

    if components
        .iter()
        .any(|component| component.variance > 0.0 && component.interval.is_none())
    {
        notes.push("a component without an interval is a small difference of large squares, and practically unknown");
    }

    notes.join("; ")
}

impl CrossedLayout {
    /// The layout of a sweep that crosses streams.
    pub(crate) fn from_spec(spec: &Spec) -> Self {
        let crossed = &spec.seeds.crossed;
        Self {
            names: crossed
                .iter()
                .map(|(purpose, _)| {
                    NAMED_PURPOSES
                        .iter()
                        .find(|(_, named)| named == purpose)
                        .map_or("", |(word, _)| word)
                        .to_owned()
                })
                .collect(),
            sizes: crossed.iter().map(|(_, count)| *count as usize).collect(),
            replicates: (u64::from(spec.repeats) / spec.seeds.combination_count()) as usize,
        }
    }

    pub(crate) fn combination_count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The level of a stream in a repeat; the last stream changes fastest.
    pub(crate) fn level_of_repeat(&self, stream: usize, repeat: usize) -> usize {
        let faster: usize = self.sizes[stream + 1..].iter().product();
        repeat / faster % self.sizes[stream]
    }

    /// The uncertainty of the mean of these values, one for each repeat in order: the sum of all
    /// components, each divided by the number of its draws, without negative ones.
    pub(crate) fn uncertainty_of_mean(&self, values: &[f64]) -> MeanUncertainty {
        let squares = self.mean_squares(values);
        let all = (1 << self.sizes.len()) - 1;
        let mut factors = vec![0.0; 1 << self.sizes.len()];

        for set in 1..=all {
            let combination = self.component_terms(set, &squares);
            if linear_combination(combination.iter().map(|(_, term)| *term)) > 0.0 {
                combination.iter().for_each(|(of, (factor, ..))| {
                    factors[*of] += factor / self.combinations_in_set(set) as f64
                });
            }
        }

        factors[0] += 1.0 / values.len() as f64;
        let terms = factors
            .iter()
            .zip(&squares)
            .filter_map(|(factor, square)| Some((*factor, (*square)?)));
        let terms: Vec<(f64, f64)> = terms
            .map(|(factor, (square, df))| (factor * square, df))
            .collect();
        let variance = terms.iter().map(|(term, _)| term).sum::<f64>().max(0.0);

        let spread = terms.iter().map(|(term, df)| term * term / df).sum::<f64>();
        MeanUncertainty {
            variance,
            degrees: if spread > 0.0 {
                variance * variance / spread
            } else {
                1.0
            },
        }
    }

    /// Estimates the components of these values, one for each repeat in order.
    pub fn estimate_components(&self, values: &[f64], level: f64) -> Vec<ComponentEstimate> {
        let squares = self.mean_squares(values);
        let all = (1 << self.sizes.len()) - 1;
        let mut components: Vec<ComponentEstimate> = (1..=all)
            .map(|set| {
                let combination: Vec<_> = self
                    .component_terms(set, &squares)
                    .into_iter()
                    .map(|(_, term)| term)
                    .collect();
                estimate_component(self.set_name(set), &combination, level)
            })
            .collect();

        if let Some((rest, df)) = squares[0] {
            let combination = [(1.0, rest, df)];
            components.push(estimate_component("residual".into(), &combination, level));
        }

        let total: f64 = components.iter().map(|component| component.variance).sum();
        if total > 0.0 {
            components
                .iter_mut()
                .for_each(|component| component.share = Some(component.variance / total));
        }

        components
    }

    /// Mean square and degrees of freedom of each set of streams, with a bit for each stream. The
    /// empty set stands for the differences within combinations.
    fn mean_squares(&self, values: &[f64]) -> Vec<Option<(f64, f64)>> {
        let count = self.sizes.len();
        let middle = values.iter().sum::<f64>() / values.len() as f64;
        // Effects below this are rounding errors.
        let noise = ROUNDING_NOISE * values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        let centred: Vec<f64> = values.iter().map(|x| x - middle).collect();
        let means: Vec<Vec<f64>> = (0..1 << count)
            .map(|set| self.combination_means(set, &centred))
            .collect();
        (0..1 << count)
            .map(|set| match set {
                0 => self.mean_square_within(values),
                _ => Some(self.mean_square_between(set, &means, values.len(), noise)),
            })
            .collect()
    }

    /// Mean of each combination of the streams in a set.
    fn combination_means(&self, set: usize, values: &[f64]) -> Vec<f64> {
        let groups = self.combinations_in_set(set);
        let mut sums = vec![0.0; groups];
        values
            .iter()
            .enumerate()
            .for_each(|(repeat, x)| sums[self.combination_index(set, repeat)] += x);
        let each = (values.len() / groups) as f64;
        sums.iter().map(|sum| sum / each).collect()
    }

    fn contains_stream(set: usize, stream: usize) -> bool {
        set >> stream & 1 == 1
    }

    /// Number of combinations of the streams in a set.
    fn combinations_in_set(&self, set: usize) -> usize {
        (0..self.sizes.len())
            .filter(|stream| Self::contains_stream(set, *stream))
            .map(|stream| self.sizes[stream])
            .product()
    }

    /// Index of a repeat's combination of the streams in a set; the last stream changes fastest.
    fn combination_index(&self, set: usize, repeat: usize) -> usize {
        let mut rest = repeat % self.combination_count();
        let mut place = 0;
        let mut step = 1;

        for stream in (0..self.sizes.len()).rev() {
            if Self::contains_stream(set, stream) {
                place += step * (rest % self.sizes[stream]);
                step *= self.sizes[stream];
            }
            rest /= self.sizes[stream];
        }

        place
    }

    /// Mean square of the interaction of a set of streams, from means with alternating signs.
    fn mean_square_between(
        &self,
        set: usize,
        means: &[Vec<f64>],
        n: usize,
        noise: f64,
    ) -> (f64, f64) {
        let mut squares = 0.0;
        // The first `combination_count` repeats visit each combination exactly once.
        for repeat in 0..self.combination_count() {
            let parts = (0..=set).filter(|part| part & set == *part);
            let signed = parts.map(|part: usize| {
                let odd = (set.count_ones() - part.count_ones()) % 2 == 1;
                if odd {
                    -means[part][self.combination_index(part, repeat)]
                } else {
                    means[part][self.combination_index(part, repeat)]
                }
            });
            let effect = zero_if_rounding(signed.sum(), noise);

            squares += effect * effect;
        }

        let streams = (0..self.sizes.len()).filter(|stream| Self::contains_stream(set, *stream));
        let df = streams
            .map(|stream| self.sizes[stream] as f64 - 1.0)
            .product();
        (squares * (n / self.combination_count()) as f64 / df, df)
    }

    /// Mean square of the differences between repeats of the same combination. Rounding is judged
    /// by each combination's own values, however large others are.
    fn mean_square_within(&self, values: &[f64]) -> Option<(f64, f64)> {
        let all = (1 << self.sizes.len()) - 1;
        // Centred on the combination's first repeat, so that equal values give exactly 0.
        let centred: Vec<f64> = values
            .iter()
            .enumerate()
            .map(|(repeat, x)| x - values[repeat % self.combination_count()])
            .collect();
        let means = self.combination_means(all, &centred);
        let mut largest = vec![0.0_f64; means.len()];

        for (repeat, x) in values.iter().enumerate() {
            let most = &mut largest[self.combination_index(all, repeat)];
            *most = most.max(x.abs());
        }

        let off = |(repeat, x): (usize, &f64)| {
            let place = self.combination_index(all, repeat);
            zero_if_rounding(x - means[place], ROUNDING_NOISE * largest[place])
        };
        let squares: f64 = centred
            .iter()
            .enumerate()
            .map(off)
            .map(|off| off * off)
            .sum();
        let df = (values.len() - self.combination_count()) as f64;

        (self.replicates > 1).then_some((squares / df, df))
    }

    /// The component of a set of streams as a linear combination of mean squares: each set that
    /// contains it, with factor, mean square and degrees of freedom.
    fn component_terms(
        &self,
        set: usize,
        squares: &[Option<(f64, f64)>],
    ) -> Vec<(usize, (f64, f64, f64))> {
        let all = (1 << self.sizes.len()) - 1;
        // Mean squares contain this set's variance as often as its effect occurs among the trials.
        let each = (self.replicates * self.combinations_in_set(all & !set)) as f64;
        let larger = (set..=all).filter(|larger| larger & set == set);
        let mut combination: Vec<(usize, (f64, f64, f64))> = larger
            .filter_map(|larger| {
                let sign = if (larger.count_ones() - set.count_ones()) % 2 == 1 {
                    -1.0
                } else {
                    1.0
                };
                squares[larger].map(|(square, df)| (larger, (sign / each, square, df)))
            })
            .collect();

        // The full interaction has no larger set to subtract; replicates within combinations take
        // that place.
        if set == all {
            combination.extend(squares[0].map(|(square, df)| (0, (-1.0 / each, square, df))));
        }

        combination
    }

    fn set_name(&self, set: usize) -> String {
        let names = (0..self.sizes.len()).filter(|stream| Self::contains_stream(set, *stream));
        let name = names
            .map(|stream| self.names[stream].as_str())
            .collect::<Vec<_>>()
            .join(" × ");
        let is_last = set == (1 << self.sizes.len()) - 1 && self.replicates == 1;
        if is_last {
            format!("{name}, with the residual")
        } else {
            name
        }
    }
}

/// Largest difference that rounding can make between equal means, relative to the largest value in
/// them.
const ROUNDING_NOISE: f64 = 1e-14;

/// A difference of means, or 0 if it is within rounding.
pub(crate) fn zero_if_rounding(difference: f64, noise: f64) -> f64 {
    if difference.abs() <= noise {
        0.0
    } else {
        difference
    }
}

/// Largest rounding error of terms that cancel, relative to their size.
const CANCELLATION_TOLERANCE: f64 = 1e-12;

/// The combination Σ factor·square, or 0 if it is within rounding.
fn linear_combination(combination: impl Iterator<Item = (f64, f64, f64)> + Clone) -> f64 {
    let size: f64 = combination
        .clone()
        .map(|(factor, square, _)| (factor * square).abs())
        .sum();
    let value: f64 = combination.map(|(factor, square, _)| factor * square).sum();
    if value.abs() <= CANCELLATION_TOLERANCE * size {
        0.0
    } else {
        value
    }
}

/// Estimates a component from a combination of mean squares. Its degrees of freedom are those of
/// the first one.
fn estimate_component(
    name: String,
    combination: &[(f64, f64, f64)],
    level: f64,
) -> ComponentEstimate {
    let variance = linear_combination(combination.iter().copied());
    let df = variance * variance
        / combination
            .iter()
            .map(|(factor, square, df)| (factor * square) * (factor * square) / df)
            .sum::<f64>();
    let end = |tail: f64| df * variance / chi_squared_quantile(tail, df);

    // Below this, the interval of a difference of two mean squares spans many orders of magnitude.
    let ends = (variance > 0.0 && df >= MIN_DEGREES)
        .then(|| (end(0.5 + 0.5 * level), end(0.5 - 0.5 * level)));
    let ends = ends.filter(|(low, high)| low.is_finite() && high.is_finite());
    ComponentEstimate {
        name,
        df: combination.first().map_or(0, |first| first.2 as u64),
        variance,
        share: None,
        interval: ends,
    }
}

/// Minimum degrees of freedom for an interval. Below it, the ends are many orders of magnitude
/// apart.
const MIN_DEGREES: f64 = 1.0;

#[cfg(test)]
mod tests {
    use ergodic_common::metric::Metric;
    use ergodic_common::random_streams::fixed_stream;
    use serde_json::Value;

    use crate::estimators::crossed_layout::*;

    fn fixture(key: &str) -> Vec<Value> {
        let fixture: Value =
            serde_json::from_str(include_str!("../../../tests/oracles/analysis.json"))
                .expect("the fixture is JSON");
        fixture[key].as_array().expect("a list").clone()
    }

    fn layout(sizes: &[usize], replicates: usize) -> CrossedLayout {
        let names = ["init", "order", "augment"].map(str::to_owned);
        CrossedLayout {
            names: names[..sizes.len()].to_vec(),
            sizes: sizes.to_vec(),
            replicates,
        }
    }

    #[test]
    fn quantiles_agree_with_scipy() {
        for case in fixture("chi_squared") {
            let [p, df, wanted] = serde_json::from_value(case.clone()).expect("three numbers");
            let found = chi_squared_quantile(p, df);
            assert!(
                (found - wanted).abs() <= 1e-9 * wanted,
                "{found} is not {wanted}: {case}"
            );
        }
    }

    #[test]
    fn components_are_what_mean_squares_by_statsmodels_say() {
        let cases = fixture("components");
        assert_eq!(cases.len(), 4);

        for case in cases {
            let sizes: Vec<usize> = serde_json::from_value(case["sizes"].clone()).expect("sizes");
            let values: Vec<f64> = serde_json::from_value(case["values"].clone()).expect("values");
            let wanted: Vec<f64> =
                serde_json::from_value(case["components"].clone()).expect("components");
            let replicates = case["replicates"].as_u64().expect("a number") as usize;
            let found = layout(&sizes, replicates).estimate_components(&values, 0.95);
            assert_eq!(found.len(), wanted.len());

            for (found, wanted) in found.iter().zip(&wanted) {
                assert!(
                    (found.variance - wanted).abs() < 1e-9,
                    "{found:?} is not {wanted}"
                );
            }

            let df: u64 = found.iter().map(|component| component.df).sum();
            assert_eq!(df as usize, values.len() - 1);
        }
    }

    #[test]
    fn estimates_are_unbiased_and_intervals_cover() {
        const ROUNDS: u64 = 400;
        let layout = layout(&[12, 10], 1);
        let deviations = [1.0, 0.5, 0.7];
        let mut sums = [0.0; 3];
        let mut covered = [0.0; 3];

        for round in 0..ROUNDS {
            let mut stream = fixed_stream("components", round);
            let mut draw = |n: usize, deviation: f64| {
                (0..n)
                    .map(|_| deviation * stream.next_normal())
                    .collect::<Vec<f64>>()
            };
            let a = draw(12, deviations[0]);

            let b = draw(10, deviations[1]);
            let rest = draw(120, deviations[2]);
            let values: Vec<f64> = (0..120)
                .map(|repeat| 5.0 + a[repeat / 10] + b[repeat % 10] + rest[repeat])
                .collect();
            for (at, component) in layout.estimate_components(&values, 0.95).iter().enumerate() {
                let truth = deviations[at] * deviations[at];
                sums[at] += component.variance / truth / ROUNDS as f64;
                let covers = component
                    .interval
                    .is_some_and(|(low, high)| low <= truth && truth <= high);
                covered[at] += f64::from(u8::from(covers)) / ROUNDS as f64;
            }
        }

        assert!(sums.iter().all(|mean| (mean - 1.0).abs() < 0.1), "{sums:?}");
        assert!(
            covered.iter().all(|share| (0.92..=0.98).contains(share)),
            "{covered:?}"
        );
    }

    #[test]
    fn what_rounding_leaves_is_nothing() {
        // What the first stream does is exactly what the two do together: two equal squares, which round differently.
        let values: Vec<f64> = [
            0.931, 0.927, 0.924, 0.930, 0.925, 0.929, 0.926, 0.928, 0.9275, 0.9285, 0.9265, 0.9295,
        ]
        .into();

        for scale in [1.0, 1e-3, 3e7, 1.0 / 3.0] {
            let scaled: Vec<f64> = values.iter().map(|x| x * scale).collect();
            for component in layout(&[3, 4], 1).estimate_components(&scaled, 0.95) {
                let ends = component.interval.unwrap_or((1.0, 1.0));
                assert!(ends.1 / ends.0 < 1e5, "{component:?}");
            }
        }

        let of = |squares: [f64; 2]| {
            estimate_component(
                String::new(),
                &[(0.25, squares[0], 3.0), (-0.25, squares[1], 9.0)],
                0.95,
            )
        };
        let rounded = of([1.06e-7, 1.06e-7 * (1.0 - 4.0 * f64::EPSILON)]);
        assert_eq!((rounded.variance, rounded.interval), (0.0, None));

        // Nearly equal squares say as good as nothing of their difference.
        let small = of([1.0, 0.99]);
        assert!(
            small.variance > 0.0
                && small.interval.is_none()
                && describe_caveats(&[small]).contains("practically unknown")
        );

        // Of equal means, rounding makes no effects.
        let noisy: Vec<f64> = (0..12)
            .map(|i| if i % 2 == 0 { 0.3 } else { 0.1 + 0.2 })
            .collect();
        assert!(
            layout(&[3, 4], 1)
                .estimate_components(&noisy, 0.95)
                .iter()
                .all(|c| c.variance == 0.0 && c.interval.is_none())
        );
    }

    #[test]
    fn a_combination_that_is_far_off_hides_no_residual() {
        let first = [1e12, 2.0, 5.0, 6.0];
        let second = [1e12, 2.001, 5.001, 6.001];
        let found = layout(&[2, 2], 2).estimate_components(&[first, second].concat(), 0.95);

        // Three pairs that differ by 1e-3, over four degrees of freedom.
        assert!(
            (found[3].variance - 3.0 * 0.5e-6 / 4.0).abs() < 1e-12,
            "{:?}",
            found[3]
        );
    }

    #[test]
    fn equal_values_have_no_residual_however_many_they_are() {
        for x in [0.9812, 0.93, 0.1, 1e12 + 0.3] {
            let found = layout(&[2, 2], 2000).estimate_components(&vec![x; 8000], 0.95);
            assert!(
                found.iter().all(|component| component.variance == 0.0),
                "{x}: {found:?}"
            );
        }
    }

    #[test]
    fn no_interval_of_an_accuracy_is_above_a_quarter() {
        let mut wide = ComponentEstimate {
            name: String::new(),
            df: 1,
            variance: 0.01,
            share: None,
            interval: Some((1e-3, 2.5e19)),
        };
        wide.clip_interval(
            Metric::TestAcc
                .bounded_range()
                .map(|(low, high)| 0.25 * (high - low) * (high - low)),
        );

        assert_eq!(wide.interval, Some((1e-3, 0.25)));
        wide.clip_interval(Metric::TestLoss.bounded_range().map(|_| 0.0));
        assert_eq!(wide.interval, Some((1e-3, 0.25)), "a loss has no bound");
    }

    #[test]
    fn what_cannot_be_seen_is_said_and_never_nan() {
        let equal = layout(&[2, 3], 1).estimate_components(&[0.5; 6], 0.95);
        assert!(
            equal
                .iter()
                .all(|c| c.variance == 0.0 && c.interval.is_none() && c.share.is_none())
        );

        assert_eq!(describe_caveats(&equal), "all values are equal");
        // All the variance is in what the two do together: their own parts come out negative.
        let checkered = layout(&[2, 2], 1).estimate_components(&[1.0, -1.0, -1.0, 1.0], 0.95);
        assert!(
            checkered[0].variance < 0.0
                && checkered[0].interval.is_none()
                && checkered[2].variance == 4.0
        );

        assert!(describe_caveats(&checkered).contains("negative"));
        assert_eq!(checkered[2].name, "init × order, with the residual");
        // Streams that decide everything leave nothing to the rest.
        let twice =
            layout(&[2, 2], 2).estimate_components(&[1.0, 2.0, 5.0, 6.0, 1.0, 2.0, 5.0, 6.0], 0.95);
        assert_eq!(
            (twice[3].name.as_str(), twice[3].variance, twice[2].variance),
            ("residual", 0.0, 0.0)
        );

        assert!(twice[0].share > Some(0.9));
    }
}
