//! Moments of a trial: when samples are taken, and when predictions are kept.

use std::fmt;

use crate::config::{Length, TrialConfig};
use crate::spec_file::error::SpecError;
use crate::spec_file::grammar::MOMENTS_GRAMMAR;
use crate::spec_file::node::SpecNode;
use crate::spec_file::reader::{TableReader, quote_value};

/// A moment of a trial, or several at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After a number of steps or epochs.
    After(Length),
    /// After the last step.
    Final,
    /// After a share of the trial.
    Share(Percent),
    /// At equal distances.
    Repeated(RepeatedMoment),
}

/// Moments at equal distances, within a window or in the whole trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepeatedMoment {
    /// The distance between two.
    pub every: TrialTime,
    /// The first moment, and a bound of the last one.
    pub window: Option<(TrialTime, TrialTime)>,
}

/// A time in a trial, from its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrialTime {
    /// A number of steps or epochs.
    Length(Length),
    /// A share of the trial.
    Share(Percent),
}

/// A percentage, in thousandths of a percent, at most 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u32);

/// The largest percentage, in thousandths.
const WHOLE: u32 = 100_000;
/// Number of steps of a list above which no more are listed: a curve has fewer samples.
const MAX_LISTED_STEPS: usize = 1_000_000;
/// The largest number of moments that one text means: more than a trial may have samples or predictions.
const MAX_MOMENTS: u64 = 1_000_000;
/// The largest number of steps in a moment.
const MAX_STEPS: u64 = 1_000_000_000;

/// The moments at which a trial is sampled; its last step is always one.
#[derive(Clone, PartialEq, Eq)]
pub enum SampleTimes {
    /// Every so many steps or epochs.
    Every(Length),
    /// At all moments of a list.
    At(Vec<RepeatedMoment>),
}

/// A single length is written as one: the text is part of the identity of checkpoints.
impl fmt::Debug for SampleTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(length) => length.fmt(f),
            Self::At(moments) => moments.fmt(f),
        }
    }
}

/// The steps after which a trial is sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleSteps {
    every: u64,
    total: u64,
    /// The steps in ascending order, the last one included; `None` if all multiples of `every` are.
    listed: Option<Vec<u64>>,
}

/// Reads an item of the list of moments under `key`.
///
/// # Errors
/// The item is no moment, or one that the version of the file does not have.
pub(super) fn read_moment(
    r: &TableReader<'_>,
    key: &'static str,
    item: &SpecNode,
) -> Result<Moment, SpecError> {
    let moment = item.value.as_str().and_then(Moment::parse_several);
    let moment = moment.ok_or_else(|| {
        let found = quote_value(&item.value);
        r.error_at(
            key,
            format!(
                "expected moments like \"20 epochs\", \"50 steps\", \"50 %\", \"every 10 %\" or \"final\", found {found}"
            ),
        )
    })?;

    if !moment.is_plain() {
        let path = r.path_to(key);
        r.reading_mode()
            .require_grammar(MOMENTS_GRAMMAR, &item.origin, &path)?;
    }
    Ok(moment)
}

/// The steps after which these moments are in a trial of this config, each once, in ascending order.
pub(super) fn steps_of_moments(moments: &[Moment], config: &TrialConfig) -> Vec<u64> {
    let steps = moments.iter();
    let mut steps: Vec<u64> = steps
        .flat_map(|moment| moment.steps_in_trial(config))
        .collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

impl Percent {
    /// Parses `12.5`; at most three decimals, above 0 and at most 100.
    fn parse(text: &str) -> Option<Self> {
        let thousandths = text.parse::<f64>().ok()? * 1000.0;
        let is_exact = (thousandths - thousandths.round()).abs() < 1e-6;
        (is_exact && (0.0..=f64::from(WHOLE)).contains(&thousandths))
            .then(|| Self(thousandths.round() as u32))
    }

    /// This many times the share of `steps`, to the nearest whole step.
    fn of_steps(self, times: u64, steps: u64) -> u64 {
        let product = u128::from(times) * u128::from(self.0) * u128::from(steps);
        let whole = u128::from(WHOLE);
        u64::try_from((product + whole / 2) / whole).unwrap_or(u64::MAX)
    }
}

/// `12.5 %`
impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 1000.0)
    }
}

impl TrialTime {
    /// Parses `"50 steps"`, `"2 epochs"` or `"10 %"`; a number alone has the unit of `like`.
    fn parse(text: &str, like: Option<Self>) -> Option<Self> {
        let text = text.trim();
        if let Some(number) = text.strip_suffix('%') {
            return Percent::parse(number.trim()).map(Self::Share);
        }
        if let Some((number, unit)) = text.split_once(char::is_whitespace) {
            let count: u64 = number.parse().ok().filter(|n| *n <= MAX_STEPS)?;
            return match unit.trim() {
                "epoch" | "epochs" => {
                    Some(Self::Length(Length::Epochs(u32::try_from(count).ok()?)))
                }
                "step" | "steps" => Some(Self::Length(Length::Steps(count))),
                _ => None,
            };
        }

        match like? {
            Self::Share(_) => Percent::parse(text).map(Self::Share),
            Self::Length(Length::Steps(_)) => Self::parse(&format!("{text} steps"), None),
            Self::Length(Length::Epochs(_)) => Self::parse(&format!("{text} epochs"), None),
        }
    }

    /// The number of steps after this many times the time, in a trial of this config.
    fn step_in_trial(self, times: u64, config: &TrialConfig) -> u64 {
        match self {
            Self::Length(length) => config.length_in_steps(length).saturating_mul(times),
            Self::Share(share) => share.of_steps(times, config.total_steps()),
        }
    }

    fn is_zero(self) -> bool {
        matches!(
            self,
            Self::Share(Percent(0)) | Self::Length(Length::Steps(0) | Length::Epochs(0))
        )
    }
}

impl RepeatedMoment {
    /// Parses `"10 steps"`, `"every 1 %"` or `"1 step from 990 to 1010"`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("every ").unwrap_or(text);
        let (every, window) = match text.split_once(" from ") {
            Some((every, window)) => (every, Some(window.split_once(" to ")?)),
            None => (text, None),
        };
        let every = TrialTime::parse(every, None).filter(|every| !every.is_zero())?;
        let window = match window {
            Some((from, to)) => Some((
                TrialTime::parse(from, Some(every))?,
                TrialTime::parse(to, Some(every))?,
            )),
            None => None,
        };
        Some(Self { every, window })
    }

    /// The single moments in a trial of this config: shares of it if all times are, and otherwise steps.
    fn single_moments(self, config: &TrialConfig) -> Vec<Moment> {
        if let Some((every, from, to)) = self.shares() {
            return (0..=MAX_MOMENTS)
                .map(|times| u64::from(from) + times * u64::from(every))
                .take_while(|share| *share <= u64::from(to))
                .filter(|share| *share > 0)
                .map(|share| Moment::Share(Percent(share as u32)))
                .collect();
        }

        let end = |time: TrialTime| time.step_in_trial(1, config);
        let (from, to) = self
            .window
            .map_or((0, config.total_steps()), |(from, to)| (end(from), end(to)));
        let to = to.min(config.total_steps());
        (0..=MAX_MOMENTS)
            .map(|times| from.saturating_add(self.every.step_in_trial(times, config)))
            .take_while(|step| *step <= to)
            .filter(|step| *step > 0)
            .map(|step| Moment::After(Length::Steps(step)))
            .collect()
    }

    /// The distance and the ends, if all are shares of the trial.
    fn shares(self) -> Option<(u32, u32, u32)> {
        match (self.every, self.window) {
            (TrialTime::Share(every), None) => Some((every.0, 0, WHOLE)),
            (TrialTime::Share(every), Some((TrialTime::Share(from), TrialTime::Share(to)))) => {
                Some((every.0, from.0, to.0))
            }
            _ => None,
        }
    }

    /// What is wrong with the window in a trial of this config.
    fn find_problem(self, config: &TrialConfig) -> Option<String> {
        let (from, to) = self.window?;
        let [from, to] = [from, to].map(|time| time.step_in_trial(1, config));
        let total = config.total_steps();
        if from > to {
            return Some(format!(
                "the window from step {from} to step {to} ends before it begins"
            ));
        }
        (from > total).then(|| {
            format!("the window begins at step {from}, after the end: a trial of this sweep has {total} steps")
        })
    }
}

impl Moment {
    /// Parses "20 epochs", "500 steps", "50 %" or "final".
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "final" {
            return Some(Self::Final);
        }
        match TrialTime::parse(text, None).filter(|time| !time.is_zero())? {
            TrialTime::Length(length) => Some(Self::After(length)),
            TrialTime::Share(share) => Some(Self::Share(share)),
        }
    }

    /// Parses what [`Moment::parse`] does, or several moments, as in "every 100 steps" or "1 step from 990 to 1010".
    pub fn parse_several(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| RepeatedMoment::parse(text).map(Self::Repeated))
    }

    /// The numbers of steps after which the moments are, in a trial of this config.
    pub fn steps_in_trial(self, config: &TrialConfig) -> Vec<u64> {
        match self {
            Self::After(length) => vec![config.length_in_steps(length)],
            Self::Final => vec![config.total_steps()],
            Self::Share(share) => vec![share.of_steps(1, config.total_steps()).max(1)],
            Self::Repeated(moments) => moments
                .single_moments(config)
                .into_iter()
                .map(|moment| moment.step_in_trial(config))
                .collect(),
        }
    }

    /// The number of steps after which a single moment is; the first one of several.
    pub fn step_in_trial(self, config: &TrialConfig) -> u64 {
        let first = self.steps_in_trial(config).first().copied();
        first.unwrap_or_else(|| config.total_steps())
    }

    /// The moment itself, or each one of several.
    pub fn expand(self, config: &TrialConfig) -> Vec<Self> {
        match self {
            Self::Repeated(moments) => moments.single_moments(config),
            single => vec![single],
        }
    }

    /// What is wrong with the moment in a trial of this config.
    pub(crate) fn find_problem(self, config: &TrialConfig) -> Option<String> {
        let total = config.total_steps();
        match self {
            Self::Repeated(moments) => moments.find_problem(config),
            _ => self
                .steps_in_trial(config)
                .into_iter()
                .find(|step| *step > total)
                .map(|step| {
                    format!("step {step} is after the end: a trial of this sweep has {total} steps")
                }),
        }
    }

    /// Whether trials have such a moment that report steps, of which no number is known before: a step, or the last one.
    pub fn is_of_reported_steps(self) -> bool {
        matches!(self, Self::After(Length::Steps(_)) | Self::Final)
    }

    /// Whether earlier versions of this program know such a moment.
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, Self::After(_) | Self::Final)
    }
}

/// The moment as a user writes it.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(length) => TrialTime::Length(*length).fmt(f),
            Self::Final => f.write_str("final"),
            Self::Share(share) => share.fmt(f),
            Self::Repeated(RepeatedMoment { every, window }) => {
                write!(f, "every {every}")?;
                match window {
                    Some((from, to)) => write!(f, " from {from} to {to}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// `1 step`, `20 epochs` or `12.5 %`
impl fmt::Display for TrialTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self {
            Self::Length(Length::Epochs(count)) => (u64::from(*count), "epoch"),
            Self::Length(Length::Steps(count)) => (*count, "step"),
            Self::Share(share) => return share.fmt(f),
        };
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural}")
    }
}

impl SampleTimes {
    /// The steps after which a trial of this config is sampled.
    pub fn steps_in_trial(&self, config: &TrialConfig) -> SampleSteps {
        let total = config.total_steps();
        match self {
            Self::Every(length) => SampleSteps {
                every: config.length_in_steps(*length).max(1),
                total,
                listed: None,
            },
            Self::At(moments) => {
                let mut steps = vec![total];
                for moments in moments {
                    steps.extend(Moment::Repeated(*moments).steps_in_trial(config));
                    steps.sort_unstable();
                    steps.dedup();
                    // More are refused when the file is read, and equal moments cost no memory.
                    if steps.len() > MAX_LISTED_STEPS {
                        break;
                    }
                }
                SampleSteps {
                    every: 1,
                    total,
                    listed: Some(steps),
                }
            }
        }
    }

    /// What is wrong with the moments in a trial of this config.
    pub(crate) fn find_problem(&self, config: &TrialConfig) -> Option<String> {
        match self {
            Self::Every(_) => None,
            Self::At(moments) => moments.iter().find_map(|m| m.find_problem(config)),
        }
    }
}

impl SampleSteps {
    /// Whether a sample is taken after `step` steps.
    pub fn is_due(&self, step: u64) -> bool {
        match &self.listed {
            None => step.is_multiple_of(self.every) || step == self.total,
            Some(steps) => steps.binary_search(&step).is_ok(),
        }
    }

    /// Number of samples.
    pub fn count(&self) -> u64 {
        match &self.listed {
            // A trial of no steps is sampled once.
            None => self.total.div_ceil(self.every).max(1),
            Some(steps) => steps.len() as u64,
        }
    }

    /// The first step after `step` at which a sample is taken; the last step behind the end.
    pub fn next_after(&self, step: u64) -> u64 {
        match &self.listed {
            None => (step / self.every + 1)
                .saturating_mul(self.every)
                .min(self.total),
            Some(steps) => {
                let next = steps.partition_point(|known| *known <= step);
                steps.get(next).copied().unwrap_or(self.total)
            }
        }
    }

    /// Whether both have the same steps.
    pub fn is_same_as(&self, other: &Self) -> bool {
        if (&self.listed, &other.listed) == (&None, &None) {
            return (self.every, self.total) == (other.every, other.total);
        }
        self.total == other.total && self.count() == other.count() && {
            let mut step = 0;
            (0..self.count()).all(|_| {
                let next = self.next_after(step);
                let agree = next == other.next_after(step);
                step = next;
                agree
            })
        }
    }
}
