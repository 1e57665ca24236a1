//! Statistics by name, `--stat mean,ci95,q05,p_diverged`, and their values over a group of trials.

use ergodic_common::error::suggest_nearest;
use ergodic_common::figures::format_significant;
use ergodic_common::seed::RandomStream;

use super::sample::wilson;
use super::{Sample, TableError, bootstrap, precision};
use crate::core::Counts;

/// A statistic that was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistic {
    name: String,
    kind: Kind,
    /// Whether diverged trials count too, by the rule of [`chance`](super::chance).
    all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
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

/// Names that stand for themselves.
const WORDS: [(&str, Kind); 14] = [
    ("n", Kind::N),
    ("diverged", Kind::Diverged),
    ("failed", Kind::Failed),
    ("mean", Kind::Mean),
    ("std", Kind::Std),
    ("var", Kind::Variance),
    ("se", Kind::StandardError),
    ("median", Kind::Quantile(0.5)),
    ("min", Kind::Min),
    ("max", Kind::Max),
    ("iqm", Kind::Trimmed(0.25)),
    ("p_diverged", Kind::ShareDiverged(0.95)),
    ("diverged_at", Kind::DivergedAt),
    ("diverged_at_median", Kind::DivergedAtMedian),
];

/// Names that a percentage follows, with what it must lie between, and an example.
const FAMILIES: [Family; 5] = [
    Family { prefix: "p_diverged", range: (50.0, 100.0), ends: false, example: "p_diverged99" },
    Family { prefix: "boot", range: (50.0, 99.9), ends: true, example: "boot95" },
    Family { prefix: "trim", range: (0.0, 49.9), ends: true, example: "trim10" },
    Family { prefix: "ci", range: (50.0, 100.0), ends: false, example: "ci95" },
    Family { prefix: "q", range: (0.0, 100.0), ends: true, example: "q05" },
];

struct Family {
    prefix: &'static str,
    range: (f64, f64),
    ends: bool,
    example: &'static str,
}

/// Most statistics of one request.
pub const MOST: usize = 32;

impl Statistic {
    /// The statistic of this name.
    ///
    /// # Errors
    /// There is none, or its percentage is impossible.
    pub fn named(name: &str) -> Result<Self, TableError> {
        if name.is_empty() {
            let message =
                "stat: expected names of statistics with commas between them, as in mean,ci95, found an empty one";
            return Err(TableError::Bad(message.to_owned()));
        }
        let (base, all) = name.strip_suffix("_all").map_or((name, false), |base| (base, true));
        let word = WORDS.iter().find(|(word, _)| *word == base).map(|(_, kind)| *kind);
        let kind = match word {
            Some(kind) => kind,
            None => family(base).unwrap_or_else(|| Err(unknown(name)))?,
        };
        if all && !kind.is_of_values() {
            let message = format!("the statistic '{base}' is of all trials as it is: write it without _all");
            return Err(TableError::Bad(message));
        }
        Ok(Self { name: name.to_owned(), kind, all })
    }

    /// Statistics of these names, each once.
    ///
    /// # Errors
    /// One of them is none, or they are too many.
    pub fn list(names: &[String]) -> Result<Vec<Self>, TableError> {
        if names.len() > MOST {
            return Err(TableError::Bad(format!("{} statistics are too many: ask for at most {MOST}", names.len())));
        }
        let mut list: Vec<Self> = Vec::new();
        for name in names {
            let statistic = Self::named(name.trim())?;
            if !list.contains(&statistic) {
                list.push(statistic);
            }
        }
        Ok(list)
    }

    /// Its columns: an interval has two, a share with its interval three.
    pub fn columns(&self) -> Vec<String> {
        let ends = || ["low", "high"].map(|end| format!("{}_{end}", self.name));
        match self.kind {
            Kind::Interval(_) | Kind::Bootstrap(_) => ends().to_vec(),
            Kind::ShareDiverged(_) => [self.name.clone()].into_iter().chain(ends()).collect(),
            _ => vec![self.name.clone()],
        }
    }

    /// Whether it counts diverged trials with a value.
    pub fn counts_diverged(&self) -> bool {
        self.all
    }

    /// Whether it draws resamples.
    pub fn resamples(&self) -> bool {
        matches!(self.kind, Kind::Bootstrap(_))
    }

    /// Whether one value is too few for it.
    pub fn needs_two(&self) -> bool {
        use Kind::{Bootstrap, Interval, StandardError, Std, Variance};
        matches!(self.kind, Std | Variance | StandardError | Interval(_) | Bootstrap(_))
    }

    /// Its values over a group, one per column; `None` where it is not defined.
    pub fn of(&self, group: &Figures<'_>) -> Vec<Option<f64>> {
        let columns = self.columns().len();
        let Some(sample) = (if self.all { group.all.as_ref() } else { Some(&group.completed) }) else {
            return vec![None; columns];
        };
        let count = |n: u64| vec![Some(n as f64)];
        let pair = |ends: Option<(f64, f64)>| vec![ends.map(|e| e.0), ends.map(|e| e.1)];
        match self.kind {
            Kind::N => count(sample.n() as u64),
            Kind::Diverged => count(group.counts.diverged),
            Kind::Failed => count(group.counts.failed),
            Kind::Mean => vec![sample.mean()],
            Kind::Std => vec![sample.std()],
            Kind::Variance => vec![sample.variance()],
            Kind::StandardError => vec![sample.standard_error()],
            Kind::Interval(level) => pair(sample.t_interval(group.level(level))),
            Kind::Bootstrap(level) => pair(bootstrap::interval(sample, level, &mut (group.resampling)())),
            Kind::Quantile(share) => vec![sample.quantile(share)],
            Kind::Min => vec![sample.min()],
            Kind::Max => vec![sample.max()],
            Kind::Trimmed(share) => vec![sample.trimmed_mean(share)],
            Kind::ShareDiverged(level) => group.share_diverged(level),
            Kind::DivergedAt => vec![group.diverged_at.mean()],
            Kind::DivergedAtMedian => vec![group.diverged_at.quantile(0.5)],
        }
    }
}

impl Kind {
    /// Whether it is of the metric's values, rather than of trials.
    fn is_of_values(self) -> bool {
        !matches!(
            self,
            Self::Diverged | Self::Failed | Self::ShareDiverged(_) | Self::DivergedAt | Self::DivergedAtMedian
        )
    }
}

fn family(name: &str) -> Option<Result<Kind, TableError>> {
    let found = FAMILIES.iter().find_map(|family| Some((family, name.strip_prefix(family.prefix)?)));
    let plain = |number: &str| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    let (family, number) = found.filter(|(_, number)| plain(number))?;
    let (low, high) = family.range;
    let percent: Option<f64> = number.parse().ok();
    let fits = |x: &f64| if family.ends { (low..=high).contains(x) } else { low <= *x && *x < high };
    Some(match percent.filter(fits) {
        None => {
            let upper = if family.ends { "up to" } else { "to below" };
            let message = format!(
                "'{name}': expected a percentage from {low} {upper} {high} after {}, as in {}",
                family.prefix, family.example
            );
            Err(TableError::Bad(message))
        }
        Some(_) => {
            // Shifted in the text, so that q99.9 means what 0.999 means.
            let share = format!("{number}e-2").parse().unwrap_or(f64::NAN);
            Ok(match family.prefix {
                "ci" => Kind::Interval(share),
                "boot" => Kind::Bootstrap(share),
                "q" => Kind::Quantile(share),
                "trim" => Kind::Trimmed(share),
                _ => Kind::ShareDiverged(share),
            })
        }
    })
}

fn unknown(name: &str) -> TableError {
    let name = &name.chars().take(40).collect::<String>();
    let words = WORDS.iter().map(|(word, _)| *word);
    let examples = ["mean_all", "ci95_all", "median_all", "q95", "ci99"];
    let known = words.chain(FAMILIES.iter().map(|family| family.example)).chain(examples);
    TableError::Unknown(format!("there is no statistic '{name}', {}", suggest_nearest(name, known)))
}

/// What the statistics of a group of trials are computed from.
pub struct Figures<'a> {
    /// Values of completed trials.
    pub completed: Sample,
    /// The same with diverged trials counted; `None` if one of them has no value by the rule.
    pub all: Option<Sample>,
    /// Steps at which trials diverged.
    pub diverged_at: Sample,
    /// Trials by outcome.
    pub counts: Counts,
    /// Opens the stream of resamples, the same for every statistic.
    pub resampling: &'a dyn Fn() -> RandomStream,
    /// Random streams that are the same in all repeats, in words; empty if none is.
    pub fixed: &'a str,
    /// Whether repeats end when the interval looks narrow.
    pub stops: bool,
    /// Of a row of several cells that have not all ended the same repeats: how many all of them have ended, and how many any.
    pub whole: Option<[usize; 2]>,
}

impl Figures<'_> {
    fn share_diverged(&self, level: f64) -> Vec<Option<f64>> {
        let (hits, n) = (self.diverged_at.n() as u64, self.counts.completed + self.counts.diverged);
        if n == 0 {
            return vec![None; 3];
        }
        let share = Some(hits as f64 / n as f64);
        if self.completed.is_crossed() {
            return vec![share, None, None];
        }
        let (low, high) = wilson(hits, n, level);
        vec![share, Some(low), Some(high)]
    }

    /// The level at which Student's interval covers in the share of cases asked for.
    pub fn level(&self, level: f64) -> f64 {
        if self.stops { precision::stopped(level) } else { level }
    }

    /// What is to be known where statistics are missing or degenerate; empty if there is nothing.
    pub fn note(&self, asked: &[Statistic]) -> String {
        let mut notes = Vec::new();
        let (n, counts) = (self.completed.n() as u64, &self.counts);
        let spread = asked.iter().any(Statistic::needs_two);
        let intervals = asked.is_empty() || spread;
        if counts.done() == 0 {
            notes.push("no trial has ended yet".to_owned());
        } else if counts.diverged == counts.done() {
            notes.push(if counts.diverged == 1 {
                "the one trial diverged".into()
            } else {
                format!("all {} diverged", counts.diverged)
            });
        } else if counts.completed == 0 {
            notes.push("no trial completed".to_owned());
        } else if n < counts.completed {
            notes.push(format!("{} completed trials have no value here", counts.completed - n));
        }
        let repeats = self.completed.repeats().map(<[_]>::len);
        match self.whole.filter(|_| n > 1 && intervals) {
            Some([whole @ ..=1, all]) => {
                notes.push(format!("the cells of the row have ended {whole} of {all} repeats together: no interval"))
            }
            Some([whole, all]) => {
                notes.push(format!(
                    "the interval is that of {whole} of {all} repeats, which all cells of the row have ended"
                ));
            }
            None if n > 1 && spread && repeats == Some(1) => notes.push("values of one repeat: no interval".to_owned()),
            None => {}
        }
        let of_shares = asked.iter().any(|statistic| matches!(statistic.kind, Kind::ShareDiverged(_)));
        notes.extend(self.on_what_terms(asked, intervals, of_shares));
        if of_shares && !self.completed.is_crossed() && repeats.is_some_and(|repeats| (repeats as u64) < n) {
            notes.push("the interval of p_diverged takes trials of one repeat as independent".to_owned());
        }
        if n == 1 && spread {
            notes.push("one value: no spread, no interval".to_owned());
        }
        if n > 1 && spread && self.completed.min() == self.completed.max() {
            notes.push("all values are equal".to_owned());
        }
        if self.completed.values().iter().any(|x| x.is_infinite()) {
            notes.push("a value is infinite, and so is the mean".to_owned());
        }
        if self.all.is_none() && asked.iter().any(Statistic::counts_diverged) {
            notes.push("a diverged trial has no value of this metric".to_owned());
        }
        notes.join("; ")
    }
}

impl Figures<'_> {
    /// At what level intervals are Student's, each by its name; those of resamples stay as they are called.
    fn how_widened(&self, asked: &[Statistic]) -> String {
        let words = |name: &str, level: f64| {
            format!("{name} is Student's at {} %", format_significant(100.0 * self.level(level), 4))
        };
        let of = |statistic: &Statistic| match statistic.kind {
            Kind::Interval(level) => Some(words(&statistic.name, level)),
            Kind::Bootstrap(_) => Some(format!("{} is not widened", statistic.name)),
            _ => None,
        };
        let all: Vec<String> = asked.iter().filter_map(of).collect();
        if all.is_empty() { words("ci95", 0.95) } else { all.join(", ") }
    }

    /// What intervals presuppose, and which there cannot be.
    fn on_what_terms(&self, asked: &[Statistic], intervals: bool, of_shares: bool) -> Vec<String> {
        let (mut notes, sample) = (Vec::new(), &self.completed);
        let resampled = asked.iter().any(Statistic::resamples);
        if intervals && sample.n() > 1 && !self.fixed.is_empty() {
            notes.push(format!("given the fixed {}", self.fixed));
        }
        if intervals && sample.n() > 1 && self.stops {
            notes.push(format!("repeats ended when the mean looked known: {}", self.how_widened(asked)));
        }
        if !sample.is_crossed() {
            return notes;
        }
        if intervals && sample.n() > 1 && sample.standard_error().is_none() {
            notes.push("too few levels of a crossed stream: no interval".into());
        }
        if resampled {
            notes.push("repeats that share crossed streams cannot be resampled: no boot, use ci".into());
        }
        if of_shares {
            notes.push("trials share crossed streams: no interval of p_diverged".into());
        }
        notes
    }
}

impl std::fmt::Debug for Figures<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figures")
            .field("completed", &self.completed)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_wrong_ones_answered() {
        let kind = |name| Statistic::named(name).map(|s| s.kind);
        assert_eq!(kind("q05").ok(), Some(Kind::Quantile(0.05)));
        assert_eq!(kind("q99.9").ok(), Some(Kind::Quantile(0.999)));
        assert_eq!(kind("ci99").ok(), Some(Kind::Interval(0.99)));
        assert_eq!(kind("p_diverged99").ok(), Some(Kind::ShareDiverged(0.99)));
        assert!(Statistic::named("trim10_all").is_ok_and(|s| s.all));
        let words = |name| Statistic::named(name).expect_err("no statistic").to_string();
        assert!(words("meen").contains("did you mean 'mean'"), "{}", words("meen"));
        assert!(words("p_divreged").contains("did you mean 'p_diverged'"));
        assert!(
            words("ci100").contains("as in ci95")
                && words("boot3").contains("boot95")
                && words("trim50").contains("49.9")
        );
        assert!(words("q-5").contains("no statistic 'q-5'") && words("failed_all").contains("without _all"));
        assert!(words("q1e1").contains("no statistic 'q1e1'") && words("q1.2.3").contains("as in q05"));
        assert!(words(&"x".repeat(1000)).len() < 300);
    }

    #[test]
    fn an_interval_has_two_columns_and_a_share_three() {
        let names = ["mean", "ci95", "mean", "p_diverged"].map(str::to_owned);
        let columns: Vec<String> =
            Statistic::list(&names).expect("known").iter().flat_map(Statistic::columns).collect();
        let wanted = ["mean", "ci95_low", "ci95_high", "p_diverged", "p_diverged_low", "p_diverged_high"];
        assert_eq!(columns, wanted);
        assert!(Statistic::list(&vec!["mean".to_owned(); MOST + 1]).is_err());
    }
}
