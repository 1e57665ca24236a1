//! Reducers: pure functions that make one number of samples.

/// A function from the samples of a window, or around a moment, to one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reducer {
    /// `at(q, moment)`: the value at the last sample at or before the moment.
    At,
    /// `mean(q, window)`: the mean.
    Mean,
    /// `min(q, window)`: the smallest value.
    Min,
    /// `max(q, window)`: the largest value.
    Max,
    /// `sd(q, window)`: the standard deviation, n − 1 in the denominator.
    Sd,
    /// `quantile(q, p, window)`: the p-quantile, linear between order statistics.
    Quantile,
    /// `jump(q, moment)`: the first value after the moment over the last one at or before it.
    Jump,
    /// `first(condition, window)`: the first sampled step at which a condition holds.
    First,
    /// `count(condition, window)`: the number of times that a condition becomes true; true at the first sample counts.
    Count,
    /// `settle(q, tolerance)`: the step after which |ln q − ln q̄| stays below the tolerance times its first value, linear between
    /// samples. q̄ is the mean over the last 40 % of the trial.
    Settle,
    /// `slope(y, x, window)`: the slope of y over x by least squares.
    Slope,
}

/// How the last argument of a reducer is read, and the number of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReducerArguments {
    /// A series, and a moment.
    Moment,
    /// A series, and a window, which may be absent.
    Window,
    /// A series, a number, and a window, which may be absent.
    NumberAndWindow,
    /// Two series, and a window, which may be absent.
    SeriesAndWindow,
    /// A series, and a number.
    Number,
}

/// Share of a trial at whose end a quantity counts as settled.
const SETTLED_SHARE: f64 = 0.4;

impl Reducer {
    /// The reducers by name.
    pub const NAMES: [(&str, Self); 11] = [
        ("at", Self::At),
        ("mean", Self::Mean),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sd", Self::Sd),
        ("quantile", Self::Quantile),
        ("jump", Self::Jump),
        ("first", Self::First),
        ("count", Self::Count),
        ("settle", Self::Settle),
        ("slope", Self::Slope),
    ];

    /// The reducer with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::NAMES.iter();
        all.find(|(known, _)| *known == name).map(|(_, r)| *r)
    }

    /// The name as written.
    pub fn name(self) -> &'static str {
        let mut all = Self::NAMES.iter();
        all.find(|(_, r)| *r == self).map_or("?", |(name, _)| name)
    }

    /// Whether expressions have a function of this name, too.
    pub(super) fn is_also_function(self) -> bool {
        matches!(self, Self::Min | Self::Max)
    }

    /// The arguments that it takes.
    pub fn arguments(self) -> ReducerArguments {
        match self {
            Self::At | Self::Jump => ReducerArguments::Moment,
            Self::Quantile => ReducerArguments::NumberAndWindow,
            Self::Slope => ReducerArguments::SeriesAndWindow,
            Self::Settle => ReducerArguments::Number,
            _ => ReducerArguments::Window,
        }
    }

    /// The number that it yields, in words.
    pub fn definition(self) -> &'static str {
        match self {
            Self::At => "Value at the last sample at or before the moment.",
            Self::Mean => "Mean of the samples in the window.",
            Self::Min => "Smallest of the samples in the window.",
            Self::Max => "Largest of the samples in the window.",
            Self::Sd => {
                "Standard deviation of the samples in the window, n − 1 in the denominator."
            }
            Self::Quantile => {
                "p-quantile of the samples in the window, linear between order statistics."
            }
            Self::Jump => "First value after the moment over the last one at or before it.",
            Self::First => "First sampled step in the window at which the condition holds.",
            Self::Count => {
                "How often the condition becomes true in the window; true at the first sample counts."
            }
            Self::Settle => {
                "Step after which the distance of ln q from ln q̄ stays below the tolerance times its first value. q̄ is the mean of q over \
                 the last 40 % of the trial."
            }
            Self::Slope => "Slope of y over x in the window, by least squares.",
        }
    }

    /// An example of a call.
    pub fn example(self) -> &'static str {
        match self {
            Self::At => "at(test_acc, end)",
            Self::Mean => "mean(test_acc, last 20 %)",
            Self::Min => "min(train_acc, 50 %..)",
            Self::Max => "max(train_acc, 50 %..)",
            Self::Sd => "sd(train_loss, last 20 %)",
            Self::Quantile => "quantile(train_loss, 0.9, last 20 %)",
            Self::Jump => "jump(effective_lr, decay)",
            Self::First => "first(train_acc > 0.5)",
            Self::Count => "count(train_acc < 0.9, 50 %..)",
            Self::Settle => "settle(effective_lr, 0.1)",
            Self::Slope => "slope(ln(weight_norm_sq), ln(step), 50 %..)",
        }
    }

    /// Whether it reduces a condition.
    pub fn takes_condition(self) -> bool {
        matches!(self, Self::First | Self::Count)
    }

    /// Whether it yields a step, which lies between two samples.
    pub fn is_event(self) -> bool {
        matches!(self, Self::First | Self::Settle)
    }

    /// Whether a small change of the samples changes the number by little. The jackknife is right for such reducers alone.
    pub fn is_smooth(self) -> bool {
        matches!(
            self,
            Self::At | Self::Mean | Self::Sd | Self::Jump | Self::Slope
        )
    }
}

/// A number that lies between two samples: the number itself, and the steps of the samples around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventStep {
    /// The step, between samples.
    pub between: f64,
    /// The step of the last sample before the event, or of the first sample.
    pub before: f64,
    /// The step of the first sample at or after the event.
    pub after: f64,
}

/// Samples of a quantity at ascending steps.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a> {
    /// The steps.
    pub steps: &'a [f64],
    /// The values; NaN where the quantity is undefined.
    pub values: &'a [f64],
}

impl<'a> Samples<'a> {
    /// The samples with `from` ≤ step ≤ `to`.
    #[must_use]
    pub fn within(self, from: f64, to: f64) -> Self {
        let start = self.steps.partition_point(|step| *step < from);
        let end = self.steps.partition_point(|step| *step <= to).max(start);
        Self {
            steps: &self.steps[start..end],
            values: &self.values[start..end],
        }
    }

    fn defined(self) -> impl Iterator<Item = f64> + 'a {
        self.values.iter().copied().filter(|x| !x.is_nan())
    }

    /// The value at the last sample at or before a step; NaN without one.
    pub fn value_at(self, step: f64) -> f64 {
        let behind = self.steps.partition_point(|s| *s <= step);
        behind.checked_sub(1).map_or(f64::NAN, |at| self.values[at])
    }

    /// The mean; NaN without a defined sample.
    pub fn mean(self) -> f64 {
        // Differences from the first sample, so that equal samples have themselves as mean.
        let first = self.defined().next().unwrap_or(f64::NAN);
        let origin = if first.is_finite() { first } else { 0.0 };
        let (sum, n) = self
            .defined()
            .fold((0.0, 0.0), |(s, n), x| (s + (x - origin), n + 1.0));
        origin + sum / n
    }

    /// The smallest value; NaN without one.
    pub fn min(self) -> f64 {
        self.defined().fold(f64::NAN, f64::min)
    }

    /// The largest value; NaN without one.
    pub fn max(self) -> f64 {
        self.defined().fold(f64::NAN, f64::max)
    }

    /// The standard deviation, n − 1 in the denominator; NaN below two values.
    pub fn sd(self) -> f64 {
        let mean = self.mean();
        let n = self.defined().count() as f64;
        let squares: f64 = self.defined().map(|x| (x - mean) * (x - mean)).sum();
        if n < 2.0 {
            return f64::NAN;
        }
        (squares / (n - 1.0)).sqrt()
    }

    /// The `p`-quantile, linear between order statistics; NaN without a value.
    pub fn quantile(self, p: f64) -> f64 {
        let mut sorted: Vec<f64> = self.defined().collect();
        if sorted.is_empty() || !(0.0..=1.0).contains(&p) {
            return f64::NAN;
        }

        sorted.sort_by(f64::total_cmp);
        let place = p * (sorted.len() - 1) as f64;
        let low = place.floor() as usize;
        let high = (low + 1).min(sorted.len() - 1);
        sorted[low] + (place - low as f64) * (sorted[high] - sorted[low])
    }

    /// The first value after a step over the last one at or before it; NaN if either is missing.
    pub fn jump(self, step: f64) -> f64 {
        let behind = self.steps.partition_point(|s| *s <= step);
        match (behind.checked_sub(1), self.values.get(behind)) {
            (Some(before), Some(after)) => after / self.values[before],
            _ => f64::NAN,
        }
    }

    /// The first sample whose value is true.
    pub fn first(self) -> Option<EventStep> {
        let at = self.values.iter().position(|x| is_true(*x))?;
        Some(EventStep {
            between: self.steps[at],
            before: self.steps[at.saturating_sub(1)],
            after: self.steps[at],
        })
    }

    /// The number of times that the value becomes true; NaN without a sample.
    pub fn count(self) -> f64 {
        if self.values.is_empty() {
            return f64::NAN;
        }

        let before = std::iter::once(false).chain(self.values.iter().map(|x| is_true(*x)));
        let turns = before
            .zip(self.values)
            .filter(|(was, x)| !was && is_true(**x));
        turns.count() as f64
    }

    /// The step after which the value stays near its mean over the last part of a trial that ends at step `end`.
    pub fn settle(self, tolerance: f64, end: f64) -> Option<EventStep> {
        let settled = self.within((1.0 - SETTLED_SHARE) * end, f64::INFINITY);
        let level = libm::log(settled.mean());
        let apart: Vec<f64> = self
            .values
            .iter()
            .map(|x| (libm::log(*x) - level).abs())
            .collect();
        let first = *apart.first()?;
        if apart.iter().any(|x| x.is_nan()) {
            return None;
        }

        let bound = tolerance * first;
        if !bound.is_finite() {
            return None;
        }
        let Some(last_apart) = apart.iter().rposition(|x| *x > bound) else {
            let step = self.steps[0];
            return Some(EventStep {
                between: step,
                before: step,
                after: step,
            });
        };
        let after = *self.steps.get(last_apart + 1)?;
        let before = self.steps[last_apart];
        let share = (apart[last_apart] - bound) / (apart[last_apart] - apart[last_apart + 1]);
        Some(EventStep {
            between: before + share * (after - before),
            before,
            after,
        })
    }

    /// The slope of these samples over those of `x` at the same steps, by least squares; NaN without two different x.
    pub fn slope_over(self, x: Self) -> f64 {
        let pairs = x.values.iter().zip(self.values);
        let pairs: Vec<(f64, f64)> = pairs
            .map(|(x, y)| (*x, *y))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        least_squares_slope(&pairs)
    }
}

/// The slope of y over x by least squares; NaN without two different x.
pub fn least_squares_slope(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let mean_x = pairs.iter().map(|(x, _)| x).sum::<f64>() / n;
    // Differences from the first y, so that equal ones have a slope of 0.
    let first = pairs.first().map_or(f64::NAN, |(_, y)| *y);
    let mean_y = first + pairs.iter().map(|(_, y)| y - first).sum::<f64>() / n;
    let products = pairs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y));
    let squares = pairs.iter().map(|(x, _)| (x - mean_x) * (x - mean_x));
    products.sum::<f64>() / squares.sum::<f64>()
}

fn is_true(x: f64) -> bool {
    x != 0.0 && !x.is_nan()
}
