//! The numbers of one cell that a claim needs, in place of its curves.

use std::collections::BTreeMap;

use ergodic_common::quantity::evaluate::AveragedSeries;
use ergodic_common::quantity::program::NodeIndex;
use ergodic_common::quantity::{CellInputs, EventCorner, EventRounding, QuantityProgram};

use super::design::{RepeatDesign, RepeatDraws};
use super::jobs::{ClaimJob, ClaimJobs, JobKind, TrialValue, TrialValues, find_least_and_largest};
use super::references::{MissingReference, ReferenceCurves};

/// The number of a cell, with all that its uncertainty takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CellNumber {
    /// The number over all repeats; NaN if it is undefined.
    pub(super) full: f64,
    /// The number with its event at the sample before it, and after it; with several events, the least and the largest number.
    pub(super) rounded: [f64; 2],
    /// The number without each group of repeats, for each stream.
    pub(super) without: Vec<BTreeMap<usize, f64>>,
    /// The number in each resample.
    pub(super) draws: Vec<f64>,
    /// Whether the number of a mean curve is undefined without resamples.
    pub(super) is_resampled: bool,
    /// Whether the number of a trial is no smooth function of its samples, such as the step of an event.
    pub(super) counts_events: bool,
    /// Whether the number is made of accuracies, which are counts of images.
    pub(super) counts_images: bool,
    /// Whether trials differ at all.
    pub(super) trials_differ: bool,
    /// The numbers of trials by repeat, with their events between samples, before and after them.
    pub(super) trials: Vec<(u32, [f64; 3])>,
    /// Fingerprints of trials by repeat.
    pub(super) bits: BTreeMap<u32, u64>,
    /// Number of repeats with a number.
    pub(super) n: u64,
    /// Number of completed trials without one.
    pub(super) missing: u64,
    /// Number of completed trials whose reference diverged.
    pub(super) diverged_references: u64,
    /// Number of completed trials whose reference failed or has not ended.
    pub(super) absent_references: u64,
    /// Whether trials were sampled at different steps, so that a mean curve would be that of some of them.
    pub(super) steps_differ: bool,
}

impl CellNumber {
    /// The number of a mean curve of trials that were sampled at different steps: there is none.
    fn with_different_steps(sampled: usize, trials: usize) -> Self {
        Self {
            full: f64::NAN,
            n: sampled as u64,
            missing: (trials - sampled) as u64,
            steps_differ: true,
            ..Self::default()
        }
    }

    /// Whether trials may have the same number only because events and their counts lie far apart.
    fn is_of_events(&self) -> bool {
        self.counts_events && (self.rounded != [self.full; 2] || self.full.fract() == 0.0)
    }

    /// What the number counts, if trials may have the same one without being alike: then it shows nothing of its spread.
    pub(super) fn describe_counted(&self) -> Option<&'static str> {
        match (self.is_of_events(), self.counts_images) {
            (true, _) => Some("number of steps or events"),
            (false, true) => Some("number of images right"),
            (false, false) => None,
        }
    }
}

/// What a cell's numbers are computed with.
#[derive(Clone, Copy)]
pub(super) struct NumberContext<'a> {
    pub(super) jobs: &'a ClaimJobs<'a>,
    pub(super) design: &'a RepeatDesign,
    pub(super) draws: &'a RepeatDraws,
    pub(super) references: &'a ReferenceCurves,
}

impl NumberContext<'_> {
    /// The number of a cell for the claim at `place` among those about the cell.
    pub(super) fn summarize(
        self,
        job: &ClaimJob,
        cell: &CellInputs,
        trials: &[TrialValues],
        place: usize,
    ) -> CellNumber {
        let values = || {
            trials
                .iter()
                .map(|trial| (trial.repeat, &trial.values[place]))
        };
        match &job.kind {
            JobKind::Numbers => {
                let numbers = values().filter_map(|(repeat, value)| match value {
                    TrialValue::Numbers(numbers) => Some((repeat, *numbers)),
                    _ => None,
                });
                let [diverged, absent] = [MissingReference::Diverged, MissingReference::Absent]
                    .map(|why| count_without_reference(values().map(|(_, value)| value), why));
                CellNumber {
                    counts_events: !self.jobs.program.is_smooth(job.roots[0]),
                    counts_images: self.jobs.counts_images(job),
                    diverged_references: diverged,
                    absent_references: absent,
                    ..self.average_numbers(&numbers.collect::<Vec<_>>())
                }
            }
            JobKind::MeanCurves {
                series,
                is_resampled,
            } => {
                let curves = MeanCurves::new(series, values());
                // The trials of a program end where they do: those that end alike are no fair choice of them.
                let sampled = values().filter(|(_, value)| value.is_series()).count();
                if cell.is_of_program() && sampled > curves.repeats.len() {
                    return CellNumber::with_different_steps(sampled, trials.len());
                }
                CellNumber {
                    counts_images: self.jobs.counts_images(job),
                    missing: (trials.len() - curves.repeats.len()) as u64,
                    ..self.reduce_mean_curves(job, cell, &curves, *is_resampled)
                }
            }
            JobKind::Bits => {
                let bits = values().filter_map(|(repeat, value)| match value {
                    TrialValue::Bits(bits) => Some((repeat, *bits)),
                    _ => None,
                });
                let bits: BTreeMap<u32, u64> = bits.collect();
                CellNumber {
                    n: bits.len() as u64,
                    missing: (trials.len() - bits.len()) as u64,
                    bits,
                    ..CellNumber::default()
                }
            }
            JobKind::Ends => CellNumber::default(),
        }
    }

    /// The mean over trials.
    fn average_numbers(self, all: &[(u32, [f64; 3])]) -> CellNumber {
        let defined = all
            .iter()
            .filter(|(_, numbers)| numbers.iter().all(|x| x.is_finite()));
        let defined: Vec<(u32, [f64; 3])> = defined.copied().collect();
        let n = defined.len() as f64;
        // Sums of differences lose no digits where numbers are nearly equal, and equal numbers have themselves as their mean.
        let first = defined.first().map_or([f64::NAN; 3], |(_, x)| *x);
        let mean =
            |of: usize| first[of] + defined.iter().map(|(_, x)| x[of] - first[of]).sum::<f64>() / n;

        let full = mean(0);
        let without = (0..self.design.stream_count()).map(|stream| {
            let mut groups: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
            for (repeat, numbers) in &defined {
                let group = groups
                    .entry(self.design.group_of(stream, *repeat))
                    .or_default();
                group.0 += numbers[0] - full;
                group.1 += 1.0;
            }
            // Sums of differences from the mean lose no digits where numbers are nearly equal.
            groups
                .into_iter()
                .map(|(at, (apart, count))| (at, full - apart / (n - count)))
                .collect()
        });

        CellNumber {
            full,
            rounded: [mean(1), mean(2)],
            without: without.collect(),
            trials_differ: defined.iter().any(|(_, x)| x[0] != defined[0].1[0]),
            n: defined.len() as u64,
            missing: (all.len() - defined.len()) as u64,
            trials: defined,
            ..CellNumber::default()
        }
    }

    fn reduce_mean_curves(
        self,
        job: &ClaimJob,
        cell: &CellInputs,
        curves: &MeanCurves<'_>,
        is_resampled: bool,
    ) -> CellNumber {
        if curves.repeats.is_empty() {
            return CellNumber {
                full: f64::NAN,
                ..CellNumber::default()
            };
        }

        let between = &|_: NodeIndex| EventRounding::Between;
        let sums = curves.sum_trials();
        let means = curves.means_without(&sums, &[]);
        let context = CurveContext {
            program: self.jobs.program,
            root: job.roots[0],
            cell,
            curves,
        };
        let without = (0..self.design.stream_count()).map(|stream| {
            let groups = curves.group_trials(|repeat| self.design.group_of(stream, repeat));
            let deleted = groups.into_iter().map(|(group, trials)| {
                let means = curves.means_without(&sums, &trials);
                (group, context.reduce(&means, between))
            });
            deleted.collect()
        });
        let without: Vec<BTreeMap<usize, f64>> = without.collect();

        let resamples = self.draws.resamples().filter(|_| is_resampled);
        let draws = resamples.map(|times| context.reduce(&curves.weighted_means(times), between));
        CellNumber {
            full: context.reduce(&means, between),
            rounded: context.round_events(&means, &job.corners),
            draws: draws.collect(),
            without,
            is_resampled,
            trials_differ: curves.differ(),
            n: curves.repeats.len() as u64,
            ..CellNumber::default()
        }
    }
}

/// What a number of mean curves is computed with.
#[derive(Clone, Copy)]
struct CurveContext<'a> {
    program: &'a QuantityProgram,
    root: NodeIndex,
    cell: &'a CellInputs,
    curves: &'a MeanCurves<'a>,
}

impl CurveContext<'_> {
    /// The number with its event at the sample before it, and after it; with several events, the least and the largest number.
    fn round_events(self, means: &[Vec<f64>], corners: &[EventCorner]) -> [f64; 2] {
        if corners.is_empty() {
            return [EventRounding::Before, EventRounding::After]
                .map(|rounding| self.reduce(means, &|_| rounding));
        }
        let numbers = corners.iter();
        find_least_and_largest(
            numbers.map(|corner| self.reduce(means, &|event| corner.round_at(event))),
        )
    }

    fn reduce(self, means: &[Vec<f64>], round_at: &dyn Fn(NodeIndex) -> EventRounding) -> f64 {
        let mean = |of: AveragedSeries| self.curves.find(means, of);
        let steps = self.curves.steps;
        self.program
            .evaluate_mean(self.root, self.cell, steps, &mean, round_at)
    }
}

/// The series of a cell's trials, all sampled at the same steps.
struct MeanCurves<'a> {
    kinds: &'a [AveragedSeries],
    steps: &'a [f64],
    repeats: Vec<u32>,
    /// The series of each trial.
    trials: Vec<&'a [Vec<f64>]>,
}

impl<'a> MeanCurves<'a> {
    /// Takes the trials that were sampled as the first one.
    fn new(
        kinds: &'a [AveragedSeries],
        values: impl Iterator<Item = (u32, &'a TrialValue)>,
    ) -> Self {
        let mut curves = Self {
            kinds,
            steps: &[],
            repeats: Vec::new(),
            trials: Vec::new(),
        };
        for (repeat, value) in values {
            let TrialValue::Series { steps, series } = value else {
                continue;
            };
            if curves.repeats.is_empty() {
                curves.steps = steps;
            }
            if curves.steps == steps {
                curves.repeats.push(repeat);
                curves.trials.push(series);
            }
        }
        curves
    }

    /// The places of the trials in each group of repeats.
    fn group_trials(&self, group_of: impl Fn(u32) -> usize) -> BTreeMap<usize, Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, repeat) in self.repeats.iter().enumerate() {
            groups.entry(group_of(*repeat)).or_default().push(at);
        }
        groups
    }

    /// The sums of all series over trials, as differences from the first trial.
    fn sum_trials(&self) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; self.steps.len()]; self.kinds.len()];
        for trial in &self.trials {
            self.add_trial(&mut sums, trial, 1.0);
        }
        sums
    }

    /// The means of all series without the trials at some places, given the sums over all.
    fn means_without(&self, sums: &[Vec<f64>], trials: &[usize]) -> Vec<Vec<f64>> {
        let mut means = sums.to_vec();
        for at in trials {
            self.add_trial(&mut means, self.trials[*at], -1.0);
        }
        self.finish_means(&mut means, (self.trials.len() - trials.len()) as f64);
        means
    }

    /// Adds what the series of a trial are above those of the first one, times a weight. Sums of differences lose no digits where
    /// trials are nearly equal, and equal trials have themselves as their mean.
    fn add_trial(&self, sums: &mut [Vec<f64>], trial: &[Vec<f64>], weight: f64) {
        for ((sum, series), first) in sums.iter_mut().zip(trial).zip(self.trials[0]) {
            for ((sum, x), first) in sum.iter_mut().zip(series).zip(first) {
                *sum += weight * (x - find_origin(*first));
            }
        }
    }

    /// Makes means of sums of differences from the first trial.
    fn finish_means(&self, sums: &mut [Vec<f64>], total: f64) {
        for (sum, first) in sums.iter_mut().zip(self.trials[0]) {
            for (sum, first) in sum.iter_mut().zip(first) {
                *sum = find_origin(*first) + *sum / total;
            }
        }
    }

    /// The means of all series over trials, given how often each repeat counts.
    fn weighted_means(&self, times: &[u16]) -> Vec<Vec<f64>> {
        let mut means = vec![vec![0.0; self.steps.len()]; self.kinds.len()];
        let mut total = 0.0;
        for (trial, repeat) in self.trials.iter().zip(&self.repeats) {
            let weight = times.get(*repeat as usize).map_or(0.0, |n| f64::from(*n));
            if weight > 0.0 {
                self.add_trial(&mut means, trial, weight);
                total += weight;
            }
        }
        self.finish_means(&mut means, total);
        means
    }

    fn find<'b>(&self, means: &'b [Vec<f64>], of: AveragedSeries) -> &'b [f64] {
        let at = self.kinds.iter().position(|kind| *kind == of);
        at.map_or(&[], |at| &means[at])
    }

    /// Whether any trial differs from the first one.
    fn differ(&self) -> bool {
        let first = collect_bits(self.trials[0]);
        self.trials.iter().any(|trial| collect_bits(trial) != first)
    }
}

/// Counts the trials whose reference has no curve for this reason.
fn count_without_reference<'a>(
    values: impl Iterator<Item = &'a TrialValue>,
    why: MissingReference,
) -> u64 {
    let without =
        values.filter(|value| matches!(value, TrialValue::WithoutReference(x) if *x == why));
    without.count() as u64
}

/// The number from which differences are taken: no difference from an infinite one is a number.
fn find_origin(x: f64) -> f64 {
    if x.is_finite() { x } else { 0.0 }
}

fn collect_bits(trial: &[Vec<f64>]) -> Vec<u64> {
    trial.iter().flatten().map(|x| x.to_bits()).collect()
}
