//! Caveats of distances, and reasons why there are none.

use ergodic_common::Spec;
use ergodic_common::spec::Moment;

use crate::analysis::distance::permutation;
use crate::analysis::distance::query::DistanceQuery;
use crate::analysis::distance::types::CellPredictions;
use crate::analysis::error::AnalysisError;

/// The effect of crossed streams on distances.
const CROSSED_NOTE: &str = "repeats share crossed streams, so halves and different repeats have streams in common: \
                       distances are slightly too small, and there is no test";

impl DistanceQuery {
    /// Describes the caveats of two cells.
    pub(super) fn describe_pair_caveats(
        &self,
        spec: &Spec,
        (gathered, moment): (&CellPredictions, usize),
        n: usize,
        permutations: u32,
    ) -> String {
        let mut notes: Vec<String> = match n {
            0 => vec!["no repeat in common".to_owned()],
            1 => vec!["one repeat in common: it cannot be split into halves".to_owned()],
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
                "no test with more than {} repeats",
                permutation::MAX_REPEATS
            ));
        }

        notes.extend(
            (0..self.cells.len())
                .map(|at| self.describe_left_out(spec, (gathered, moment), at))
                .filter(|note| !note.is_empty()),
        );
        notes.extend(self.describe_last_steps(gathered, moment));

        notes.join("; ")
    }

    /// Describes the caveats of a cell compared with itself.
    pub(super) fn describe_cell_caveats(
        &self,
        spec: &Spec,
        (gathered, moment): (&CellPredictions, usize),
        at: usize,
    ) -> String {
        let crossed = (!spec.seeds.crossed.is_empty()).then(|| CROSSED_NOTE.to_owned());
        let left_out = Some(self.describe_left_out(spec, (gathered, moment), at))
            .filter(|note| !note.is_empty());
        crossed
            .into_iter()
            .chain(left_out)
            .chain(self.describe_last_steps(gathered, moment))
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// The steps that the last predictions of a program are of, if they differ.
    fn describe_last_steps(&self, gathered: &CellPredictions, moment: usize) -> Option<String> {
        let is_last = self.moments.get(moment) == Some(&Moment::Final);
        let (low, high) = gathered
            .last_steps
            .filter(|(low, high)| is_last && low < high)?;
        Some(format!(
            "the last predictions of the trials are of steps {low} to {high}"
        ))
    }

    /// Describes the trials of a cell that are left out at a moment; empty without any.
    fn describe_left_out(
        &self,
        spec: &Spec,
        (gathered, moment): (&CellPredictions, usize),
        at: usize,
    ) -> String {
        let counts = gathered.counts[at];
        let present = gathered.present.get(moment).map(|present| present[at]);
        let present = present.unwrap_or_default();
        let open = u64::from(spec.repeats).saturating_sub(counts.done());
        // Of a sweep whose cells end by what they yield, these may never be run.
        let open_word = match spec.stopping_rule {
            Some(_) => "not run",
            None => "not done yet",
        };

        let left_out = [
            (counts.diverged.saturating_sub(present.diverged), "diverged"),
            (counts.failed, "failed"),
            (
                counts.completed.saturating_sub(present.completed),
                "without predictions",
            ),
            (open, open_word),
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
            spec.grid.describe_cell(self.cells[at]),
            words.join(", ")
        )
    }

    /// Explains why there is nothing to compare.
    pub(super) fn nothing_to_compare(
        &self,
        spec: &Spec,
        gathered: &CellPredictions,
    ) -> AnalysisError {
        let notes = (0..self.cells.len())
            .map(|at| self.describe_left_out(spec, (gathered, 0), at))
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
            "a distance needs two repeats that the cells have in common, one for each half: {why}"
        ))
    }
}
