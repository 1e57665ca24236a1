//! Statistics by name, `--stat mean,ci95,q05,p_diverged`, and their values over a group of trials.

use ergodic_common::random_streams::RandomStream;
use ergodic_common::spec_file::suggest::suggest_nearest;

use super::sample::wilson_interval;
use super::{Sample, bootstrap, precision};
use crate::records::OutcomeCounts;

/// The reason why a statistic cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatisticError {
    /// There is no statistic with this name.
    #[error("{0}")]
    Unknown(String),
    /// The statistic cannot have these parameters, or there are too many of them.
    #[error("{0}")]
    Invalid(String),
}

/// A statistic, found by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistic {
    pub(super) name: String,
    pub(super) kind: StatisticKind,
    /// Whether diverged trials count too, with the value of [`chance`](super::chance).
    counts_diverged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum StatisticKind {
    N,
    Diverged,
    Failed,
    Mean,
    Std,
    Variance,
    StandardError,
    Interval(f64),
    Bootstrap(f64),
    Quantile(f64),
    Min,
    Max,
    Trimmed(f64),
    ShareDiverged(f64),
    DivergedAt,
    DivergedAtMedian,
}

/// Names without parameters.
const PLAIN_STATISTICS: [(&str, StatisticKind); 14] = [
    ("n", StatisticKind::N),
    ("diverged", StatisticKind::Diverged),
    ("failed", StatisticKind::Failed),
    ("mean", StatisticKind::Mean),
    ("std", StatisticKind::Std),
    ("var", StatisticKind::Variance),
    ("se", StatisticKind::StandardError),
    ("median", StatisticKind::Quantile(0.5)),
    ("min", StatisticKind::Min),
    ("max", StatisticKind::Max),
    ("iqm", StatisticKind::Trimmed(0.25)),
    ("p_diverged", StatisticKind::ShareDiverged(0.95)),
    ("diverged_at", StatisticKind::DivergedAt),
    ("diverged_at_median", StatisticKind::DivergedAtMedian),
];

/// Names with a percentage, the range of the percentage, and an example.
const STATISTIC_FAMILIES: [StatisticFamily; 5] = [
    StatisticFamily {
        prefix: "p_diverged",
        range: (50.0, 100.0),
        includes_end: false,
        example: "p_diverged99",
    },
    StatisticFamily {
        prefix: "boot",
        range: (50.0, 99.9),
        includes_end: true,
        example: "boot95",
    },
    StatisticFamily {
        prefix: "trim",
        range: (0.0, 49.9),
        includes_end: true,
        example: "trim10",
    },
    StatisticFamily {
        prefix: "ci",
        range: (50.0, 100.0),
        includes_end: false,
        example: "ci95",
    },
    StatisticFamily {
        prefix: "q",
        range: (0.0, 100.0),
        includes_end: true,
        example: "q05",
    },
];

struct StatisticFamily {
    prefix: &'static str,
    range: (f64, f64),
    includes_end: bool,
    example: &'static str,
}

/// Maximum number of statistics in one request.
pub const MAX_STATISTICS: usize = 32;

impl Statistic {
    /// Finds the statistic with this name.
    ///
    /// # Errors
    /// There is no such statistic, or its percentage is out of range.
    pub fn parse(name: &str) -> Result<Self, StatisticError> {
        if name.is_empty() {
            let message = "stat: expected names of statistics separated by commas, as in mean,ci95, found an empty name";
            return Err(StatisticError::Invalid(message.to_owned()));
        }

        let (base, all) = name
            .strip_suffix("_all")
            .map_or((name, false), |base| (base, true));
        let word = PLAIN_STATISTICS
            .iter()
            .find(|(word, _)| *word == base)
            .map(|(_, kind)| *kind);
        let kind = match word {
            Some(kind) => kind,
            None => parse_family(base).unwrap_or_else(|| Err(unknown_statistic(name)))?,
        };
        if all && !kind.is_of_values() {
            let message =
                format!("the statistic '{base}' counts all trials already: write it without _all");
            return Err(StatisticError::Invalid(message));
        }

        Ok(Self {
            name: name.to_owned(),
            kind,
            counts_diverged: all,
        })
    }

    /// Finds the statistics with these names, each once.
    ///
    /// # Errors
    /// A name is unknown, or there are too many.
    pub fn parse_list(names: &[String]) -> Result<Vec<Self>, StatisticError> {
        if names.len() > MAX_STATISTICS {
            return Err(StatisticError::Invalid(format!(
                "{} statistics are too many: ask for at most {MAX_STATISTICS}",
                names.len()
            )));
        }

        let mut list: Vec<Self> = Vec::new();
        for name in names {
            let statistic = Self::parse(name.trim())?;
            if !list.contains(&statistic) {
                list.push(statistic);
            }
        }

        Ok(list)
    }

    /// Names of the columns: an interval has two, a share with its interval three.
    pub fn column_names(&self) -> Vec<String> {
        let ends = || ["low", "high"].map(|end| format!("{}_{end}", self.name));
        match self.kind {
            StatisticKind::Interval(_) | StatisticKind::Bootstrap(_) => ends().to_vec(),
            StatisticKind::ShareDiverged(_) => {
                [self.name.clone()].into_iter().chain(ends()).collect()
            }
            _ => vec![self.name.clone()],
        }
    }

    /// Whether the statistic counts diverged trials with a value.
    pub fn counts_diverged(&self) -> bool {
        self.counts_diverged
    }

    /// Whether the statistic draws resamples.
    pub fn is_resampled(&self) -> bool {
        matches!(self.kind, StatisticKind::Bootstrap(_))
    }

    /// Whether the statistic needs at least two values.
    pub fn needs_two_values(&self) -> bool {
        use StatisticKind::{Bootstrap, Interval, StandardError, Std, Variance};
        matches!(
            self.kind,
            Std | Variance | StandardError | Interval(_) | Bootstrap(_)
        )
    }

    /// Computes the statistic of a group, one value per column; `None` if it is undefined.
    pub fn compute_values(&self, group: &StatisticInput<'_>) -> Vec<Option<f64>> {
        let columns = self.column_names().len();
        let Some(sample) = (if self.counts_diverged {
            group.with_diverged.as_ref()
        } else {
            Some(&group.completed)
        }) else {
            return vec![None; columns];
        };

        match self.kind {
            StatisticKind::N => count_column(sample.n() as u64),
            StatisticKind::Diverged => count_column(group.counts.diverged),
            StatisticKind::Failed => count_column(group.counts.failed),
            StatisticKind::Mean => vec![sample.mean()],
            StatisticKind::Std => vec![sample.std()],
            StatisticKind::Variance => vec![sample.variance()],
            StatisticKind::StandardError => vec![sample.standard_error()],
            StatisticKind::Interval(level) => {
                interval_columns(sample.t_interval(group.adjusted_level(level)))
            }
            StatisticKind::Bootstrap(level) => interval_columns(bootstrap::bca_interval(
                sample,
                level,
                &mut (group.open_resampling)(),
            )),
            StatisticKind::Quantile(share) => vec![sample.quantile(share)],
            StatisticKind::Min => vec![sample.min()],
            StatisticKind::Max => vec![sample.max()],
            StatisticKind::Trimmed(share) => vec![sample.trimmed_mean(share)],
            StatisticKind::ShareDiverged(level) => group.share_diverged(level),
            StatisticKind::DivergedAt => vec![group.diverged_at.mean()],
            StatisticKind::DivergedAtMedian => vec![group.diverged_at.quantile(0.5)],
        }
    }
}

fn count_column(n: u64) -> Vec<Option<f64>> {
    vec![Some(n as f64)]
}

fn interval_columns(ends: Option<(f64, f64)>) -> Vec<Option<f64>> {
    vec![ends.map(|ends| ends.0), ends.map(|ends| ends.1)]
}

impl StatisticKind {
    /// Whether the statistic is of the metric's values instead of numbers of trials.
    fn is_of_values(self) -> bool {
        !matches!(
            self,
            Self::Diverged
                | Self::Failed
                | Self::ShareDiverged(_)
                | Self::DivergedAt
                | Self::DivergedAtMedian
        )
    }
}

fn parse_family(name: &str) -> Option<Result<StatisticKind, StatisticError>> {
    let found = STATISTIC_FAMILIES
        .iter()
        .find_map(|family| Some((family, name.strip_prefix(family.prefix)?)));
    let (family, number) = found.filter(|(_, number)| {
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.')
    })?;
    let (low, high) = family.range;

    let percent: Option<f64> = number.parse().ok();
    Some(
        match percent.filter(|x| {
            if family.includes_end {
                (low..=high).contains(x)
            } else {
                low <= *x && *x < high
            }
        }) {
            None => {
                let upper = if family.includes_end {
                    "up to"
                } else {
                    "to below"
                };
                let message = format!(
                    "'{name}': expected a percentage from {low} {upper} {high} after {}, as in {}",
                    family.prefix, family.example
                );

                Err(StatisticError::Invalid(message))
            }
            Some(_) => {
                // Moves the point in the text instead of dividing, so that q99.9 is exactly 0.999.
                let share = format!("{number}e-2").parse().unwrap_or(f64::NAN);
                Ok(match family.prefix {
                    "ci" => StatisticKind::Interval(share),
                    "boot" => StatisticKind::Bootstrap(share),
                    "q" => StatisticKind::Quantile(share),
                    "trim" => StatisticKind::Trimmed(share),
                    _ => StatisticKind::ShareDiverged(share),
                })
            }
        },
    )
}

fn unknown_statistic(name: &str) -> StatisticError {
    let name = &name.chars().take(40).collect::<String>();
    let words = PLAIN_STATISTICS.iter().map(|(word, _)| *word);
    let examples = ["mean_all", "ci95_all", "median_all", "q95", "ci99"];
    let known = words
        .chain(STATISTIC_FAMILIES.iter().map(|family| family.example))
        .chain(examples);
    StatisticError::Unknown(format!(
        "there is no statistic '{name}', {}",
        suggest_nearest(name, known)
    ))
}

/// The inputs of the statistics of a group of trials.
pub struct StatisticInput<'a> {
    /// Values of completed trials.
    pub completed: Sample,
    /// The sample including diverged trials; `None` if one of them has no chance level.
    pub with_diverged: Option<Sample>,
    /// Steps at which trials diverged.
    pub diverged_at: Sample,
    /// Numbers of trials by outcome.
    pub counts: OutcomeCounts,
    /// Opens the random stream of resamples, which is the same for every statistic.
    pub open_resampling: &'a dyn Fn() -> RandomStream,
    /// Names of the random streams that are the same in all repeats; empty if there are none.
    pub fixed_streams: &'a str,
    /// Whether repeats end when the interval is narrow enough.
    pub stops_early: bool,
    /// For a row of several cells that have not all ended the same repeats: the number of repeats
    /// that all of them have ended, and that any has.
    pub complete_repeats: Option<[usize; 2]>,
    /// For a row that can have several cells: the number of repeats with a trial that has ended.
    pub pooled_repeats: Option<usize>,
}

impl StatisticInput<'_> {
    fn share_diverged(&self, level: f64) -> Vec<Option<f64>> {
        let hits = self.diverged_at.n() as u64;
        let n = self.counts.completed + self.counts.diverged;
        if n == 0 {
            return vec![None; 3];
        }

        let share = Some(hits as f64 / n as f64);
        if self.completed.is_crossed() {
            return vec![share, None, None];
        }

        let (low, high) = wilson_interval(hits, n, level);
        vec![share, Some(low), Some(high)]
    }

    /// The level at which Student's interval has coverage `level`.
    pub fn adjusted_level(&self, level: f64) -> f64 {
        if self.stops_early {
            precision::level_after_stopping(level)
        } else {
            level
        }
    }
}

impl std::fmt::Debug for StatisticInput<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figures")
            .field("completed", &self.completed)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::estimators::statistic::*;

    #[test]
    fn names_are_read_and_wrong_ones_answered() {
        let kind = |name| Statistic::parse(name).map(|s| s.kind);
        assert_eq!(kind("q05").ok(), Some(StatisticKind::Quantile(0.05)));
        assert_eq!(kind("q99.9").ok(), Some(StatisticKind::Quantile(0.999)));
        assert_eq!(kind("ci99").ok(), Some(StatisticKind::Interval(0.99)));
        assert_eq!(
            kind("p_diverged99").ok(),
            Some(StatisticKind::ShareDiverged(0.99))
        );

        assert!(Statistic::parse("trim10_all").is_ok_and(|s| s.counts_diverged));
        let words = |name| {
            Statistic::parse(name)
                .expect_err("no statistic")
                .to_string()
        };
        assert!(
            words("meen").contains("did you mean 'mean'"),
            "{}",
            words("meen")
        );

        assert!(words("p_divreged").contains("did you mean 'p_diverged'"));
        assert!(
            words("ci100").contains("as in ci95")
                && words("boot3").contains("boot95")
                && words("trim50").contains("49.9")
        );

        assert!(
            words("q-5").contains("no statistic 'q-5'")
                && words("failed_all").contains("without _all")
        );
        assert!(
            words("q1e1").contains("no statistic 'q1e1'") && words("q1.2.3").contains("as in q05")
        );

        assert!(words(&"x".repeat(1000)).len() < 300);
    }

    #[test]
    fn no_axis_of_a_new_sweep_has_the_name_of_a_statistic() {
        use ergodic_common::grid::reserved_names::explain_reserved_axis;
        let plain = PLAIN_STATISTICS.iter().map(|(name, _)| *name);
        let families = STATISTIC_FAMILIES.iter().map(|family| family.example);
        for name in plain.chain(families).chain(["mean_all", "ci95_all"]) {
            let statistic = Statistic::parse(name).expect(name);
            for column in statistic.column_names() {
                assert!(explain_reserved_axis(&column).is_some(), "{column}");
            }
        }
    }

    #[test]
    fn an_interval_has_two_columns_and_a_share_three() {
        let names = ["mean", "ci95", "mean", "p_diverged"].map(str::to_owned);
        let columns: Vec<String> = Statistic::parse_list(&names)
            .expect("known")
            .iter()
            .flat_map(Statistic::column_names)
            .collect();

        let wanted = [
            "mean",
            "ci95_low",
            "ci95_high",
            "p_diverged",
            "p_diverged_low",
            "p_diverged_high",
        ];
        assert_eq!(columns, wanted);

        assert!(Statistic::parse_list(&vec!["mean".to_owned(); MAX_STATISTICS + 1]).is_err());
    }
}
