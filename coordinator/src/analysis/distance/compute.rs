//! Computes distances from the stored predictions.

use std::collections::{BTreeMap, HashMap};

use ergodic_common::ids::CellIndex;
use ergodic_common::spec::Moment;
use ergodic_common::trial::{Outcome, Predictions};
use ergodic_common::{Spec, TrialKey};

use crate::analysis::distance::agreement::Agreement;
use crate::analysis::distance::labels::{PredictedLabels, find_common_repeats};
use crate::analysis::distance::permutation;
use crate::analysis::distance::query::{DistanceQuery, describe_moment};
use crate::analysis::distance::split_half::SplitHalfDistances;
use crate::analysis::distance::types::{CellDistance, CellPredictions};
use crate::analysis::error::AnalysisError;
use crate::analysis::row_source::RowSource;
use crate::records::OutcomeCounts;
use crate::store::TrialRange;

/// The agreement of two cells, or of a cell with itself.
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

impl DistanceQuery {
    /// Computes one distance per moment between two cells, or one for each cell and each pair of
    /// cells.
    ///
    /// # Errors
    /// The store failed, or there is nothing to compare.
    pub fn compute_distances(
        &self,
        rows: RowSource<'_>,
    ) -> Result<Vec<CellDistance>, AnalysisError> {
        let gathered = self.read_predictions(rows)?;
        let mut answer = Vec::new();

        for (at, moment) in self.moments.iter().enumerate() {
            match self.permutations {
                Some(permutations) => {
                    answer.push(self.test_pair(rows, &gathered, at, permutations))
                }
                None => answer.extend(self.compute_matrix(rows, &gathered, at)),
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

    pub(super) fn read_predictions(
        &self,
        rows: RowSource<'_>,
    ) -> Result<CellPredictions, AnalysisError> {
        let mut gathered = CellPredictions {
            labels: vec![
                vec![PredictedLabels::new(self.points); self.cells.len()];
                self.moments.len()
            ],
            counts: vec![OutcomeCounts::default(); self.cells.len()],
            present: vec![vec![OutcomeCounts::default(); self.cells.len()]; self.moments.len()],
            last_steps: None,
        };
        let mut diverged = HashMap::new();

        // The map merges both positions of a cell that is compared with itself.
        let places: BTreeMap<CellIndex, usize> = self
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
                    if let Outcome::Diverged { .. } = trial.outcome {
                        diverged.insert(trial.key, trial.outcome);
                    }
                }
            })?;

            reader.read_predictions(rows.sweep, &mut |key, predictions| {
                if let Some(at) = places.get(&key.cell) {
                    let outcome = diverged.get(&key).unwrap_or(&Outcome::Completed);
                    self.gather_trial(
                        &mut gathered,
                        (*at, &steps[*at]),
                        (key, outcome),
                        &predictions,
                    );
                }

                true
            })
        })?;

        Ok(gathered)
    }

    /// Adds the predictions of a trial of the cell at a position, with the step of each moment.
    fn gather_trial(
        &self,
        gathered: &mut CellPredictions,
        (cell, steps): (usize, &[u64]),
        (key, outcome): (TrialKey, &Outcome),
        predictions: &Predictions,
    ) {
        let has_diverged = *outcome != Outcome::Completed;
        for (at, (moment, step)) in self.moments.iter().zip(steps).enumerate() {
            let found = self.position_at(predictions, *moment, (*step, has_diverged));
            let Some(found) = found else {
                continue;
            };
            if let Some(classes) = predictions.classes.chunks_exact(self.points).nth(found) {
                gathered.labels[at][cell].push(key.repeat.0, classes);
                gathered.present[at][cell].add(outcome);
            }
            if *moment == Moment::Final && self.is_of_program {
                let step = predictions.steps[found];
                let (low, high) = gathered.last_steps.unwrap_or((step, step));
                gathered.last_steps = Some((low.min(step), high.max(step)));
            }
        }
    }

    /// The step of each moment in a cell's trials.
    fn moment_steps(&self, spec: &Spec, cell: CellIndex) -> Vec<u64> {
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
        moment: usize,
        permutations: u32,
    ) -> CellDistance {
        let labels = &gathered.labels[moment];
        let [a, b] = [&labels[0], &labels[1]];
        let shared = find_common_repeats(&[a, b]);
        let both = vec![a.rows_of_repeats(&shared), b.rows_of_repeats(&shared)];

        // Sorted, so that the draws do not depend on the order in which the user names the two
        // cells.
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
        let swaps = (enough && independent)
            .then(|| {
                permutation::run_permutation_test(&both[0], &both[1], permutations, &mut stream)
            })
            .flatten();
        CellDistance {
            a: 0,
            b: 1,
            n: shared.len() as u64,
            distance: halves.as_ref().map(|halves| halves.distance_between(0, 1)),
            null: halves.as_ref().map(|halves| {
                0.5 * (halves.distance_between(0, 0) + halves.distance_between(1, 1))
            }),
            permutation_test: swaps,
            note: self.describe_pair_caveats(
                rows.spec,
                (gathered, moment),
                shared.len(),
                permutations,
            ),
            ..agreement_of_pair(&Agreement::from_labels(&[a, b]), 0, 1)
        }
    }

    /// Compares all cells with predictions, over the repeats that all of them have, so that all
    /// figures use the same number.
    fn compute_matrix(
        &self,
        rows: RowSource<'_>,
        gathered: &CellPredictions,
        moment: usize,
    ) -> Vec<CellDistance> {
        let labels = &gathered.labels[moment];
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
        pairs
            .map(|(a, b)| {
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
                        true => self.describe_cell_caveats(rows.spec, (gathered, moment), a),
                        false => String::new(),
                    },
                    ..agreement_of_pair(&agreement, a, b)
                }
            })
            .collect()
    }
}
