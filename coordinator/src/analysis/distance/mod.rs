//! How far what cells predict for the probe set is apart, as functions rather than as accuracies.

pub mod agreement;
pub mod labels;
pub mod permutation;
pub mod split_half;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use agreement::Agreement;
use ergodic_common::config::Length;
use ergodic_common::spec::Moment;
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::{Spec, TrialKey};
use labels::{PredictedLabels, find_common_repeats};
use permutation::PermutationTest;
use split_half::SplitHalfDistances;

use super::compare::find_value;
use super::table::{AnalysisError, RowSource, find_axis};
use crate::records::OutcomeCounts;
use crate::store::TrialRange;

/// A cell, as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CellSelector {
    /// By its number.
    Number(u64),
    /// By values of axes that no other cell has.
    Values(Vec<(String, String)>),
}

/// What is to be known.
#[derive(Debug, Clone, Copy)]
pub struct DistanceParams<'a> {
    /// Two cells, or none for any two of all.
    pub between: &'a [CellSelector],
    /// When; empty for every moment between two cells, and for the last one otherwise.
    pub at: &'a str,
    /// Random swaps of the test between two cells.
    pub permutations: u32,
}

/// A question that was checked against a sweep.
#[derive(Debug, Clone)]
pub struct DistanceQuery {
    cells: Vec<u64>,
    moments: Vec<Moment>,
    points: usize,
    /// Swaps, if there is a test.
    permutations: Option<u32>,
}

/// Two cells at a moment, or one beside itself. `None` where there are too few repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellDistance {
    /// Position of the one among the cells.
    pub a: usize,
    /// Position of the other.
    pub b: usize,
    /// The moment in words.
    pub at: String,
    /// Common repeats.
    pub n: u64,
    /// ℓ1 distance of halves, in [0, 2]; none of a cell to itself.
    pub distance: Option<f64>,
    /// The same between halves of one cell, averaged over both.
    pub null: Option<f64>,
    /// The permutation test.
    pub permutation_test: Option<PermutationTest>,
    /// Probability that trials of different repeats, one of each, predict the same class.
    pub agreement: Option<f64>,
    /// The same of the same repeat.
    pub agreement_same: Option<f64>,
    /// Within the one cell.
    pub agreement_a: Option<f64>,
    /// Within the other.
    pub agreement_b: Option<f64>,
    /// Why something is missing, or what else is to be known; empty if nothing is.
    pub note: String,
}

/// Predictions of the cells asked for, and what became of their trials.
struct CellPredictions {
    /// `[moment][cell]`
    labels: Vec<Vec<PredictedLabels>>,
    counts: Vec<OutcomeCounts>,
}

/// Most cells of which any two are looked at.
pub const MAX_CELLS: usize = 64;
/// Most bytes of predictions that are held at a time.
const MAX_BYTES: u64 = 64 << 20;
/// Most sums of one answer: a minute or so on two cores.
const MAX_SUMS: u64 = 400_000_000_000;
/// Most swaps of single repeats; a byte holds six.
const MAX_SWAPS: u64 = 400_000_000;
/// Fewest and most random swaps.
const PERMUTATION_LIMITS: std::ops::RangeInclusive<u32> = 99..=99_999;

/// What crossed streams do to distances.
const CROSSED_NOTE: &str = "repeats share crossed streams: halves and different repeats have some in common, so that distances are a little \
                       small, and there is no test";

impl DistanceQuery {
    /// Checks a question against a sweep.
    ///
    /// # Errors
    /// The sweep keeps no predictions, there is no such cell or moment, or it is too much.
    pub fn new(spec: &Spec, question: &DistanceParams<'_>) -> Result<Self, AnalysisError> {
        let Some(probe) = &spec.measure.probe else {
            let message = "the sweep keeps no predictions, which distances are between: set probe = { points = 1000 } \
                           under [measure] of the next one";
            return Err(AnalysisError::Unknown(message.into()));
        };

        let is_pair = !question.between.is_empty();
        let cells = if is_pair {
            find_pair(spec, question.between)?
        } else {
            list_all_cells(spec)?
        };
        let moments = match question.at.trim() {
            "" if is_pair => probe.at.clone(),
            "" => probe.at.last().copied().into_iter().collect(),
            at => vec![find_moment(spec, &probe.at, cells[0], at)?],
        };

        if is_pair && !PERMUTATION_LIMITS.contains(&question.permutations) {
            let low = PERMUTATION_LIMITS.start();
            let high = PERMUTATION_LIMITS.end();
            let message = format!(
                "permutations: expected a number from {low} to {high}, found {}",
                question.permutations
            );
            return Err(AnalysisError::Invalid(message));
        }

        let this = Self {
            cells,
            moments,
            points: probe.points as usize,
            permutations: is_pair.then_some(question.permutations),
        };
        this.check_size(spec)?;

        Ok(this)
    }

    fn check_size(&self, spec: &Spec) -> Result<(), AnalysisError> {
        let looks = self.cells.len() as u64 * self.moments.len() as u64 * u64::from(spec.repeats);
        if looks.saturating_mul(self.points as u64) > MAX_BYTES {
            let message = format!(
                "{} cells × {} repeats × {} points × {} moments are too many predictions to hold: at most {MAX_BYTES}; \
                 ask for one moment with --at, or between two cells",
                self.cells.len(),
                spec.repeats,
                self.points,
                self.moments.len()
            );

            return Err(AnalysisError::Invalid(message));
        }

        match self.permutations {
            Some(permutations) => self.check_swaps(spec, looks * self.points as u64, permutations),
            None => self.check_pairs(spec),
        }
    }

    fn check_swaps(
        &self,
        spec: &Spec,
        labels: u64,
        permutations: u32,
    ) -> Result<(), AnalysisError> {
        let sums = labels * u64::from(permutations);
        let swaps = u64::from(spec.repeats) * u64::from(permutations);
        if sums <= MAX_SUMS && swaps <= MAX_SWAPS {
            return Ok(());
        }

        let message = format!(
            "permutations: {permutations} swaps of {} repeats, of {labels} predictions in all, are too many: ask for fewer, \
             or for one moment with --at",
            spec.repeats
        );
        Err(AnalysisError::Invalid(message))
    }

    fn check_pairs(&self, spec: &Spec) -> Result<(), AnalysisError> {
        let classes = spec
            .grid
            .resolve_config(self.cells[0])
            .map_or(u64::from(u8::MAX), |c| c.data.dataset.class_count().into());
        let pairs = self.cells.len() as u64 * self.cells.len() as u64;
        if pairs * split_half::SPLITS as u64 * classes * self.points as u64 <= MAX_SUMS {
            return Ok(());
        }

        let message = format!(
            "any two of {} cells at {} points with {classes} classes are too many: name two of the cells with --between",
            self.cells.len(),
            self.points
        );
        Err(AnalysisError::Invalid(message))
    }

    /// Numbers of the cells, in the order in which [`Apart`] counts them.
    pub fn cells(&self) -> &[u64] {
        &self.cells
    }

    /// Between two cells one row per moment; otherwise one for each cell and for any two.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn compute_distances(
        &self,
        rows: RowSource<'_>,
    ) -> Result<Vec<CellDistance>, AnalysisError> {
        let gathered = self.read_predictions(rows)?;
        let mut answer = Vec::new();

        for (moment, labels) in self.moments.iter().zip(&gathered.labels) {
            match self.permutations {
                Some(permutations) => {
                    answer.push(self.test_pair(rows, &gathered, labels, permutations))
                }
                None => answer.extend(self.compute_matrix(rows, &gathered, labels)),
            }

            answer
                .iter_mut()
                .filter(|row| row.at.is_empty())
                .for_each(|row| row.at = describe_moment(*moment));
        }

        if !answer.iter().any(|row| row.null.is_some()) {
            return Err(self.nothing_to_compare(rows.spec, &gathered));
        }

        Ok(answer)
    }

    fn read_predictions(&self, rows: RowSource<'_>) -> Result<CellPredictions, AnalysisError> {
        let mut gathered = CellPredictions {
            labels: vec![
                vec![PredictedLabels::new(self.points); self.cells.len()];
                self.moments.len()
            ],
            counts: vec![OutcomeCounts::default(); self.cells.len()],
        };

        // Of a cell beside itself there is one position only.
        let places: BTreeMap<u64, usize> = self
            .cells
            .iter()
            .enumerate()
            .map(|(at, cell)| (*cell, at))
            .collect();
        let steps: Vec<Vec<u64>> = self
            .cells
            .iter()
            .map(|cell| self.moment_steps(rows.spec, *cell))
            .collect();
        rows.readers.with_reader(|reader| {
            reader.read_ended_trials(rows.sweep, TrialRange::ALL, &mut |trial| {
                if let Some(at) = places.get(&trial.key.cell) {
                    gathered.counts[*at].add(&trial.outcome);
                }
            })?;

            reader.read_predictions(rows.sweep, &mut |TrialKey { cell, repeat }, predictions| {
                let Some(at) = places.get(&cell) else {
                    return true;
                };
                for (labels, step) in gathered.labels.iter_mut().zip(&steps[*at]) {
                    let look = predictions.steps.binary_search(step).ok();
                    let classes = look
                        .and_then(|look| predictions.classes.chunks_exact(self.points).nth(look));
                    classes
                        .into_iter()
                        .for_each(|classes| labels[*at].push(repeat, classes));
                }

                true
            })
        })?;

        Ok(gathered)
    }

    /// The step of each moment in a cell.
    fn moment_steps(&self, spec: &Spec, cell: u64) -> Vec<u64> {
        let config = spec.grid.resolve_config(cell).ok();
        self.moments
            .iter()
            .map(|moment| {
                config
                    .as_ref()
                    .map_or(0, |config| moment.step_in_trial(config))
            })
            .collect()
    }

    fn test_pair(
        &self,
        rows: RowSource<'_>,
        gathered: &CellPredictions,
        labels: &[PredictedLabels],
        permutations: u32,
    ) -> CellDistance {
        let [a, b] = [&labels[0], &labels[1]];
        let shared = find_common_repeats(&[a, b]);
        let both = vec![a.rows_of_repeats(&shared), b.rows_of_repeats(&shared)];

        // The same draws whichever of the two is named first.
        let mut cells = self.cells.clone();
        cells.sort_unstable();
        let mut stream = rows.resampling_stream(&cells);
        let halves = SplitHalfDistances::from_random_splits(
            &both,
            a.class_count().max(b.class_count()),
            &mut stream,
        );
        let enough = halves.is_some();

        let independent = rows.spec.seeds.crossed.is_empty();
        let test =
            || permutation::run_permutation_test(&both[0], &both[1], permutations, &mut stream);
        let swaps = (enough && independent).then(test).flatten();
        CellDistance {
            a: 0,
            b: 1,
            n: shared.len() as u64,
            distance: halves.as_ref().map(|halves| halves.distance_between(0, 1)),
            null: halves.as_ref().map(|halves| {
                0.5 * (halves.distance_between(0, 0) + halves.distance_between(1, 1))
            }),
            permutation_test: swaps,
            note: self.describe_pair_caveats(rows.spec, gathered, shared.len(), permutations),
            ..agreement_of_pair(&Agreement::from_labels(&[a, b]), 0, 1)
        }
    }

    /// All cells with predictions, over the repeats that all of these have, so that all figures are of as many.
    fn compute_matrix(
        &self,
        rows: RowSource<'_>,
        gathered: &CellPredictions,
        labels: &[PredictedLabels],
    ) -> Vec<CellDistance> {
        let present: Vec<usize> = (0..labels.len())
            .filter(|at| !labels[*at].repeats().is_empty())
            .collect();
        let chosen: Vec<&PredictedLabels> = present.iter().map(|at| &labels[*at]).collect();
        let shared = find_common_repeats(&chosen);
        let aligned: Vec<Vec<&[u8]>> = chosen
            .iter()
            .map(|cell| cell.rows_of_repeats(&shared))
            .collect();

        let classes = chosen
            .iter()
            .map(|cell| cell.class_count())
            .max()
            .unwrap_or(0);
        let halves = SplitHalfDistances::from_random_splits(
            &aligned,
            classes,
            &mut rows.resampling_stream(&self.cells),
        );

        let agreement = Agreement::from_labels(&labels.iter().collect::<Vec<_>>());
        let pairs = (0..labels.len()).flat_map(|a| (a..labels.len()).map(move |b| (a, b)));
        let row = |(a, b): (usize, usize)| {
            let place = |cell| present.iter().position(|at| *at == cell);
            let places = place(a).zip(place(b));
            let halves = halves.as_ref().zip(places);
            CellDistance {
                a,
                b,
                n: places.map_or(0, |_| shared.len() as u64),
                distance: halves
                    .filter(|_| a != b)
                    .map(|(halves, (a, b))| halves.distance_between(a, b)),
                null: halves.map(|(halves, (a, b))| {
                    0.5 * (halves.distance_between(a, a) + halves.distance_between(b, b))
                }),
                note: match a == b {
                    true => self.describe_cell_caveats(rows.spec, gathered, a),
                    false => String::new(),
                },
                ..agreement_of_pair(&agreement, a, b)
            }
        };

        pairs.map(row).collect()
    }

    /// What is to be known of two cells.
    fn describe_pair_caveats(
        &self,
        spec: &Spec,
        gathered: &CellPredictions,
        n: usize,
        permutations: u32,
    ) -> String {
        let mut notes: Vec<String> = match n {
            0 => vec!["no repeat in common".to_owned()],
            1 => vec!["one repeat in common: it has no halves".to_owned()],
            _ => Vec::new(),
        };

        let independent = spec.seeds.crossed.is_empty();
        notes.extend((n > 1 && !independent).then(|| CROSSED_NOTE.to_owned()));
        let smallest = permutation::smallest_p_value(n, permutations);
        if n > 1 && smallest > 0.01 && independent {
            notes.push(format!(
                "with {n} repeats, no p below {smallest:.2} is possible"
            ));
        }

        if n > permutation::MAX_REPEATS {
            notes.push(format!(
                "no test of more than {} repeats",
                permutation::MAX_REPEATS
            ));
        }

        notes.extend(
            (0..self.cells.len())
                .map(|at| self.describe_left_out(spec, gathered, at))
                .filter(|note| !note.is_empty()),
        );

        notes.join("; ")
    }

    /// What is to be known of a cell beside itself.
    fn describe_cell_caveats(&self, spec: &Spec, gathered: &CellPredictions, at: usize) -> String {
        let crossed = (!spec.seeds.crossed.is_empty()).then(|| CROSSED_NOTE.to_owned());
        let left_out =
            Some(self.describe_left_out(spec, gathered, at)).filter(|note| !note.is_empty());
        crossed
            .into_iter()
            .chain(left_out)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Trials of a cell that are left out; empty if none is.
    fn describe_left_out(&self, spec: &Spec, gathered: &CellPredictions, at: usize) -> String {
        let counts = gathered.counts[at];
        let open = u64::from(spec.repeats).saturating_sub(counts.done());
        let left_out = [
            (counts.diverged, "diverged"),
            (counts.failed, "failed"),
            (open, "not done yet"),
        ];
        let words: Vec<String> = left_out
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}"))
            .collect();
        if words.is_empty() {
            return String::new();
        }

        format!(
            "left out of {}: {}",
            describe_cell(spec, self.cells[at]),
            words.join(", ")
        )
    }

    /// Why there is nothing to compare.
    fn nothing_to_compare(&self, spec: &Spec, gathered: &CellPredictions) -> AnalysisError {
        let notes = (0..self.cells.len())
            .map(|at| self.describe_left_out(spec, gathered, at))
            .filter(|note| !note.is_empty());
        let notes: Vec<String> = notes.take(5).collect();
        let why = match notes.is_empty() {
            true => {
                format!(
                    "the sweep has {} per cell",
                    if spec.repeats == 1 {
                        "one repeat"
                    } else {
                        "too few repeats"
                    }
                )
            }
            false => notes.join("; "),
        };

        AnalysisError::Unknown(format!(
            "a distance needs two repeats that the cells have in common, for two halves: {why}"
        ))
    }
}

/// The agreement of two cells, or of one with itself.
fn agreement_of_pair(agreement: &Agreement<'_>, a: usize, b: usize) -> CellDistance {
    let (of_different, of_same) = agreement.between_cells(a, b);
    let agreement_a = agreement.within_cell(a);
    let agreement_b = agreement.within_cell(b);
    CellDistance {
        agreement: if a == b { agreement_a } else { of_different },
        agreement_same: of_same.filter(|_| a != b),
        agreement_a,
        agreement_b,
        ..CellDistance::default()
    }
}

/// The values of a cell in words.
pub fn describe_cell(spec: &Spec, cell: u64) -> String {
    let values = spec.grid.axis_values(cell);
    let words: Vec<String> = spec
        .grid
        .axes()
        .iter()
        .zip(&values)
        .map(|(axis, v): (_, &SpecValue)| format!("{}={}", axis.name, axis.format_value(v)))
        .collect();

    if words.is_empty() {
        "the only cell".to_owned()
    } else {
        words.join(", ")
    }
}

fn find_pair(spec: &Spec, between: &[CellSelector]) -> Result<Vec<u64>, AnalysisError> {
    let cells = between
        .iter()
        .map(|choice| find_cell(spec, choice))
        .collect::<Result<Vec<u64>, AnalysisError>>()?;
    match cells[..] {
        [a, b] if a != b => Ok(cells),
        [a, _] => {
            let message = format!(
                "both cells are {}: its distance to itself is the null, which stands beside every distance",
                describe_cell(spec, a)
            );
            Err(AnalysisError::Invalid(message))
        }
        _ => Err(AnalysisError::Invalid(
            "between: expected two cells, or none for any two of all".into(),
        )),
    }
}

fn list_all_cells(spec: &Spec) -> Result<Vec<u64>, AnalysisError> {
    let cells: Vec<u64> = spec.grid.iter().take(MAX_CELLS + 1).collect();
    match cells.len() {
        ..=1 => Err(AnalysisError::Unknown(
            "the sweep has one cell: there is no other for a distance".into(),
        )),
        n if n > MAX_CELLS => {
            let message = format!(
                "any two of {} cells are too many: at most {MAX_CELLS} cells; name two of them, as in --between lr=0.1 \
                 lr=0.2",
                spec.grid.cell_count()
            );
            Err(AnalysisError::Invalid(message))
        }
        _ => Ok(cells),
    }
}

/// The one cell that a user means.
fn find_cell(spec: &Spec, choice: &CellSelector) -> Result<u64, AnalysisError> {
    let values = match choice {
        CellSelector::Number(cell) if spec.grid.has_cell(*cell) => return Ok(*cell),
        CellSelector::Number(cell) => {
            let message =
                format!("there is no cell {cell}: `ergodic trials` lists the numbers of cells");
            return Err(AnalysisError::Unknown(message));
        }
        CellSelector::Values(values) => values,
    };

    let axes = spec.grid.axes();
    let wanted = values.iter().map(|(name, text)| {
        let axis = find_axis(axes, name)?;
        Ok((axis, find_value(&axes[axis], text)?))
    });
    let wanted = wanted.collect::<Result<Vec<(usize, u64)>, AnalysisError>>()?;
    let fits = |cell: &u64| {
        let indices = spec.grid.value_indices(*cell);
        wanted.iter().all(|(axis, index)| indices[*axis] == *index)
    };
    let mut found = spec.grid.iter().filter(fits);

    let named = || {
        values
            .iter()
            .map(|(name, text)| format!("{name}={text}"))
            .collect::<Vec<_>>()
            .join(",")
    };

    match (found.next(), found.next()) {
        (Some(cell), None) => Ok(cell),
        (None, _) => Err(AnalysisError::Unknown(format!(
            "the sweep has no cell {}",
            named()
        ))),
        (Some(one), Some(other)) => Err(AnalysisError::Invalid(format!(
            "{} is not one cell: {} and {} are among them; name more axes",
            named(),
            describe_cell(spec, one),
            describe_cell(spec, other)
        ))),
    }
}

/// The moment that a user means, of those at which predictions are kept.
fn find_moment(spec: &Spec, kept: &[Moment], cell: u64, at: &str) -> Result<Moment, AnalysisError> {
    let config = spec.grid.resolve_config(cell).ok();
    let same = |a: Moment, b: Moment| {
        a == b
            || config
                .as_ref()
                .is_some_and(|c| a.step_in_trial(c) == b.step_in_trial(c))
    };

    let wanted = Moment::parse(at);
    let found = wanted.and_then(|wanted| kept.iter().find(|moment| same(**moment, wanted)));
    found.copied().ok_or_else(|| {
        let known: Vec<String> = kept
            .iter()
            .map(|moment| format!("\"{}\"", describe_moment(*moment)))
            .collect();
        AnalysisError::Unknown(format!(
            "no predictions are kept at '{at}', only at {}",
            known.join(", ")
        ))
    })
}

fn describe_moment(moment: Moment) -> String {
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    match moment {
        Moment::After(Length::Epochs(n)) => format!("{n} epoch{}", plural(n.into())),
        Moment::After(Length::Steps(n)) => format!("{n} step{}", plural(n)),
        Moment::Final => "final".to_owned(),
    }
}
