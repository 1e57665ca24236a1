//! Scales with their ticks, and axes of levels for cells.

use super::format_fixed;

/// A map from values to [0, 1].
#[derive(Debug, Clone, Copy)]
pub(super) struct AxisScale {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) log: bool,
}

impl AxisScale {
    /// Creates a scale over an interval, widened a little if it is empty.
    pub(super) fn from_range(from: f64, to: f64, log: bool) -> Self {
        if to > from {
            return Self { from, to, log };
        }

        let room = if from == 0.0 { 1.0 } else { from.abs() * 0.1 };
        if log {
            Self {
                from: from / 1.5,
                to: from * 1.5,
                log,
            }
        } else {
            Self {
                from: from - room,
                to: from + room,
                log,
            }
        }
    }

    /// Returns the scale with some space at both ends.
    pub(super) fn with_padding(self, share: f64) -> Self {
        if self.log {
            let factor = libm::pow(self.to / self.from, share);
            return Self {
                from: self.from / factor,
                to: self.to * factor,
                ..self
            };
        }

        let room = (self.to - self.from) * share;
        Self {
            from: self.from - room,
            to: self.to + room,
            ..self
        }
    }

    /// Position of a value in [0, 1], clipped at the ends.
    pub(super) fn position_of(&self, x: f64) -> f64 {
        self.free_position_of(x).clamp(0.0, 1.0)
    }

    /// Position of a value, where the scale takes [0, 1].
    pub(super) fn free_position_of(&self, x: f64) -> f64 {
        match self.log {
            true => {
                libm::log(x.max(f64::MIN_POSITIVE) / self.from) / libm::log(self.to / self.from)
            }
            false => (x - self.from) / (self.to - self.from),
        }
    }

    /// Whether the scale has a place for a value.
    pub(super) fn contains(&self, x: f64) -> bool {
        (self.from..=self.to).contains(&x)
    }

    /// Chooses at most `most` round values within the scale, with their labels.
    pub(super) fn choose_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let decades = if self.log {
            self.decade_ticks(most)
        } else {
            Default::default()
        };

        // A logarithmic axis with fewer than two decades labelled shows no scale.
        if decades.len() >= 2 {
            return decades;
        }

        // One number tells no scale, so a short axis may have a few more.
        (most..most + 3)
            .map(|most| self.linear_ticks(most))
            .find(|ticks| ticks.len() >= 2)
            .unwrap_or_else(|| self.linear_ticks(most))
    }

    fn linear_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let step = nice_step((self.to - self.from) / most.max(1) as f64);
        let first = libm::ceil(self.from / step - 1e-9) as i64;
        let last = libm::floor(self.to / step + 1e-9) as i64;
        let size = self.from.abs().max(self.to.abs());
        let decimals = (-libm::floor(libm::log10(step) + 1e-9)).max(0.0) as usize;

        // As many digits as distinguish one tick from the next.
        let digits =
            (libm::floor(libm::log10(size) + 1e-9) - libm::floor(libm::log10(step) + 1e-9) + 1.0)
                .max(3.0);
        (first..=last)
            .map(|i| i as f64 * step)
            .map(|x| {
                if (1e-3..1e6).contains(&size) {
                    (x, format_fixed(x, decimals))
                } else {
                    (x, format_scientific(x, digits as usize))
                }
            })
            .collect()
    }

    /// Powers of ten, with 2 and 5 times these if there are few, and only some of them if there are
    /// many.
    fn decade_ticks(&self, most: usize) -> Vec<(f64, String)> {
        let low = libm::floor(libm::log10(self.from)) as i32;
        let high = libm::ceil(libm::log10(self.to)) as i32;
        let values = |factors: &[f64], every: i32| -> Vec<f64> {
            let powers = (low..=high).filter(|power| power.rem_euclid(every) == 0);
            let all = powers.flat_map(|power| {
                factors
                    .iter()
                    .map(move |f| f * libm::exp10(f64::from(power)))
            });

            let near = 1e-9;
            all.filter(|x| *x >= self.from * (1.0 - near) && *x <= self.to * (1.0 + near))
                .collect()
        };

        let few = [&[1.0, 2.0, 5.0][..], &[1.0, 3.0]].map(|factors| (factors, 1));
        let many = [1, 2, 3, 6, 10, 20, 50, 100, 200].map(|every| (&[1.0][..], every));
        let mut choices = few
            .into_iter()
            .chain(many)
            .map(|(factors, every)| values(factors, every));
        let fitting = choices.find(|all| all.len() <= most);
        fitting
            .unwrap_or_default()
            .into_iter()
            .map(|x| (x, power_label(x)))
            .collect()
    }
}

/// The smallest number of the form 1, 2 or 5 times a power of ten that is at least `x`.
fn nice_step(x: f64) -> f64 {
    let power = libm::exp10(libm::floor(libm::log10(x)));
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|f| f * power)
        .find(|step| *step >= x * 0.85)
        .unwrap_or(10.0 * power)
}

fn power_label(x: f64) -> String {
    if (1e-4..1e6).contains(&x) {
        format_fixed(x, (-libm::floor(libm::log10(x) + 1e-9)).max(0.0) as usize)
    } else {
        format_scientific(x, 3)
    }
}

/// Formats a number as `5e−4`, with at most `digits` digits.
fn format_scientific(x: f64, digits: usize) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{x:.*e}", digits - 1);
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e{power}").replace('-', "−")
}

/// Keeps all labels, or every second, or every third …, so that they do not touch. Positions ascend
/// or descend; `half` is half the space of a label, including half the gap to the next.
pub(super) fn thin_labels(
    ticks: Vec<(f64, String)>,
    half: impl Fn(&str) -> f64,
) -> Vec<(f64, String)> {
    let every = (1..=ticks.len().max(1))
        .find(|every| {
            let labels: Vec<&(f64, String)> = ticks.iter().step_by(*every).collect();
            labels
                .windows(2)
                .all(|pair| (pair[0].0 - pair[1].0).abs() >= half(&pair[0].1) + half(&pair[1].1))
        })
        .unwrap_or(1);

    ticks.into_iter().step_by(every).collect()
}

/// A value of a factor.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisLevel {
    /// The text of the value.
    pub text: String,
    /// The number, if the value is one.
    pub number: Option<f64>,
}

/// An axis of a sweep with the levels that are shown, in ascending order if they are numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct PlotAxis {
    /// Name of the axis.
    pub name: String,
    /// Levels of the axis.
    pub levels: Vec<AxisLevel>,
}

/// The spacing of levels on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LevelSpacing {
    /// Positions are logarithms of the values.
    Log,
    /// Positions are the values.
    Linear,
    /// All levels are equally wide.
    Even,
}

impl PlotAxis {
    /// Creates an axis with these levels.
    pub fn new(name: &str, mut levels: Vec<AxisLevel>) -> Self {
        sort_levels(&mut levels, |level| level);
        Self {
            name: name.to_owned(),
            levels,
        }
    }

    /// Creates an axis with the levels of these rows, each once; also returns the index of each row's level.
    pub fn from_rows(name: &str, rows: impl IntoIterator<Item = AxisLevel>) -> (Self, Vec<usize>) {
        let mut groups: Vec<(AxisLevel, Vec<usize>)> = Vec::new();
        let mut count = 0;
        for level in rows {
            match groups.iter_mut().find(|(known, _)| *known == level) {
                Some((_, members)) => members.push(count),
                None => groups.push((level, vec![count])),
            }
            count += 1;
        }
        sort_levels(&mut groups, |(level, _)| level);

        let mut indices = vec![0; count];
        for (index, (_, members)) in groups.iter().enumerate() {
            members.iter().for_each(|row| indices[*row] = index);
        }
        let axis = Self {
            name: name.to_owned(),
            levels: groups.into_iter().map(|(level, _)| level).collect(),
        };
        (axis, indices)
    }

    fn level_numbers(&self) -> Option<Vec<f64>> {
        self.levels.iter().map(|level| level.number).collect()
    }

    /// Chooses between logarithms and values, whichever is more even, if no cell becomes too narrow
    /// to be seen.
    pub(super) fn choose_spacing(&self) -> LevelSpacing {
        let Some(numbers) = self.level_numbers().filter(|numbers| numbers.len() > 2) else {
            return LevelSpacing::Even;
        };
        let log = numbers[0] > 0.0;
        let by_log = if log {
            narrowest_gap(numbers.iter().map(|x| libm::log(*x)).collect())
        } else {
            0.0
        };

        let by_value = narrowest_gap(numbers);
        match by_log.max(by_value) {
            best if best < 0.4 => LevelSpacing::Even,
            _ if by_log >= by_value => LevelSpacing::Log,
            _ => LevelSpacing::Linear,
        }
    }

    /// The edges of the levels in [0, 1], one more than there are levels.
    pub(super) fn level_edges(&self) -> Vec<f64> {
        let n = self.levels.len();
        let spacing = self.choose_spacing();
        let numbers = self
            .level_numbers()
            .filter(|_| spacing != LevelSpacing::Even);
        let Some(numbers) = numbers else {
            return (0..=n).map(|i| i as f64 / n as f64).collect();
        };
        let at: Vec<f64> = match spacing {
            LevelSpacing::Log => numbers.iter().map(|x| libm::log(*x)).collect(),
            _ => numbers,
        };
        let inner = at.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);

        let first = at[0] - (at[1] - at[0]) / 2.0;
        let last = at[n - 1] + (at[n - 1] - at[n - 2]) / 2.0;
        let all: Vec<f64> = [first].into_iter().chain(inner).chain([last]).collect();
        all.iter().map(|x| (x - first) / (last - first)).collect()
    }

    /// The positions of the levels' labels in [0, 1], with their texts.
    pub(super) fn level_ticks(&self) -> Vec<(f64, String)> {
        let edges = self.level_edges();
        let middles = edges.windows(2).map(|ends| (ends[0] + ends[1]) / 2.0);
        middles
            .zip(&self.levels)
            .map(|(middle, level)| (middle, level.text.clone()))
            .collect()
    }

    /// Whether all levels are numbers, so that values between them exist.
    pub(super) fn is_numeric(&self) -> bool {
        self.levels.iter().all(|level| level.number.is_some())
    }

    /// The name of the axis, with the spacing of its levels if that is unusual.
    pub(super) fn axis_label(&self) -> String {
        match self.choose_spacing() {
            LevelSpacing::Log => format!("{} (log scale)", self.name),
            _ => self.name.clone(),
        }
    }
}

/// Sorts what has levels in ascending order if all of them are numbers, and leaves it as it is otherwise.
fn sort_levels<T>(all: &mut [T], level: impl Fn(&T) -> &AxisLevel) {
    if all.iter().all(|one| level(one).number.is_some()) {
        let number = |one: &T| level(one).number.unwrap_or(0.0);
        all.sort_by(|a, b| number(a).total_cmp(&number(b)));
    }
}

/// The smallest distance of neighbours, relative to the mean distance; `numbers` ascend.
fn narrowest_gap(numbers: Vec<f64>) -> f64 {
    let span = numbers[numbers.len() - 1] - numbers[0];
    let gaps = numbers.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.fold(f64::INFINITY, f64::min) * (numbers.len() - 1) as f64 / span
}
