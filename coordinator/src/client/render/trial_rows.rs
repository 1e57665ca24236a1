//! Rows of trials, and the selection among them.

use ergodic_common::ErrorCode;
use ergodic_common::grid::reserved_names::name_metric_column;
use ergodic_common::metric::Metric;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::row_condition::{ColumnValue, SelectableRows, sort_rows};
use super::row_selection::RowSelection;

/// Columns of a trial between its axes and its metrics.
const TRIAL_COLUMNS: [&str; 9] = [
    "cell", "repeat", "outcome", "step", "steps", "seconds", "worker", "isa", "numerics",
];
/// Columns of a trial after its metrics.
const LAST_COLUMNS: [&str; 2] = ["digest", "cause"];

/// Whether trials have a column of this name, whatever their sweep is and whatever it measures.
pub fn is_trial_column(name: &str) -> bool {
    TRIAL_COLUMNS.contains(&name)
        || LAST_COLUMNS.contains(&name)
        || Metric::from_name(name).is_some()
}

/// The trials of a sweep in the order (cell, repeat), without curves and predictions.
#[derive(Debug, Clone, Default)]
pub struct TrialRows {
    /// Names of the axes.
    pub axes: Vec<String>,
    /// Names of the metrics.
    pub metrics: Vec<String>,
    /// The numerics class.
    pub numerics: String,
    /// For each metric, whether larger values are better (1), smaller (-1), or neither (0); empty if that is not known.
    better: Vec<i32>,
    /// The trials.
    pub rows: Vec<v1::TrialRow>,
    /// Digests in hexadecimal, one for each row.
    digests: Vec<String>,
}

impl TrialRows {
    /// Joins the pages of a response.
    pub fn from_pages(pages: Vec<v1::TrialsResponse>) -> Self {
        let mut out = Self::default();
        for (at, page) in pages.into_iter().enumerate() {
            if at == 0 {
                out.axes = page.axes;
                out.metrics = page.metrics.iter().map(|name| name_column(name)).collect();
                out.numerics = page.numerics;
                out.better = page.better;
            }
            out.rows.extend(page.rows);
        }

        let digest = |row: &v1::TrialRow| {
            row.result
                .as_ref()
                .map(|result| hex::encode(&result.digest))
        };
        out.digests = out
            .rows
            .iter()
            .map(|row| digest(row).unwrap_or_default())
            .collect();
        out
    }

    /// Whether larger values of the first metric are better; `None` if neither larger nor smaller ones are.
    pub fn larger_is_better(&self) -> Option<bool> {
        match self.better.first() {
            Some(0) => None,
            Some(better) => Some(*better > 0),
            None => Metric::from_name(self.metrics.first()?)?.larger_is_better(),
        }
    }

    /// Keeps the rows at these positions, in this order.
    pub fn keep(&mut self, positions: &[usize]) {
        self.rows = positions.iter().map(|at| self.rows[*at].clone()).collect();
        self.digests = positions
            .iter()
            .map(|at| self.digests[*at].clone())
            .collect();
    }

    /// Keeps the selected rows. `--top` without `--sort` keeps the best ones by the first metric.
    ///
    /// # Errors
    /// A name is unknown, the condition cannot be parsed, no row fulfils it, or neither larger nor
    /// smaller values of the metric are better.
    pub fn select(&mut self, selection: &RowSelection) -> Result<(), UserError> {
        let mut kept = selection.filter_rows(self)?;
        match (&selection.sort, selection.top) {
            (Some(key), _) => sort_rows(self, key, &mut kept)?,
            (None, Some(_)) => self.keep_best_first(&mut kept)?,
            (None, None) => {}
        }

        kept.truncate(selection.top.map_or(usize::MAX, |n| n as usize));
        self.keep(&kept);
        Ok(())
    }

    fn keep_best_first(&self, positions: &mut Vec<usize>) -> Result<(), UserError> {
        let metric = self.metrics.first().map_or("", String::as_str);
        let Some(larger) = self.larger_is_better() else {
            let message = format!(
                "--top: for {metric}, neither larger nor smaller values are better: use --sort -NAME or --sort NAME"
            );
            return Err(UserError::new(ErrorCode::BadInput, message));
        };

        positions.retain(|at| !self.completed_value(*at).is_nan());
        if positions.is_empty() {
            let message = format!("--top: no completed trial has a value of {metric}");
            return Err(UserError::new(ErrorCode::NotFound, message));
        }

        positions.sort_by(|a, b| {
            let x = self.completed_value(*a);
            let y = self.completed_value(*b);
            if larger {
                y.total_cmp(&x)
            } else {
                x.total_cmp(&y)
            }
        });
        Ok(())
    }

    /// The first metric of a completed trial; NaN for any other.
    fn completed_value(&self, row: usize) -> f64 {
        let result = self.rows[row].result.as_ref();
        let completed = result.filter(|result| result.outcome() == v1::OutcomeKind::Completed);
        completed
            .and_then(|result| result.metrics.first().copied())
            .unwrap_or(f64::NAN)
    }
}

impl SelectableRows for TrialRows {
    fn missing_name(&self) -> &'static str {
        "trials have no axis or column"
    }

    fn axis_names(&self) -> &[String] {
        &self.axes
    }

    fn column_names(&self) -> Vec<&str> {
        let metrics = self.metrics.iter().map(String::as_str);
        TRIAL_COLUMNS
            .into_iter()
            .chain(metrics)
            .chain(LAST_COLUMNS)
            .collect()
    }

    fn row_count(&self) -> usize {
        self.rows.len()
    }

    fn axis_value(&self, row: usize, axis: usize) -> &v1::AxisValue {
        &self.rows[row].values[axis]
    }

    fn column_value(&self, row: usize, column: usize) -> ColumnValue<'_> {
        let trial = &self.rows[row];
        let Some(result) = &trial.result else {
            return ColumnValue::Number(f64::NAN);
        };
        if let Some(at) = column.checked_sub(TRIAL_COLUMNS.len()) {
            let last = at.checked_sub(self.metrics.len());
            return match last {
                None => ColumnValue::Number(result.metrics.get(at).copied().unwrap_or(f64::NAN)),
                Some(0) => ColumnValue::Word(&self.digests[row]),
                Some(_) => ColumnValue::Word(&result.cause),
            };
        }

        let key = result.key.unwrap_or_default();
        let is_diverged = result.outcome() == v1::OutcomeKind::Diverged;
        match TRIAL_COLUMNS[column] {
            "cell" => ColumnValue::Number(key.cell as f64),
            "repeat" => ColumnValue::Number(f64::from(key.repeat)),
            "outcome" => ColumnValue::Word(outcome_word(result.outcome())),
            "step" if is_diverged => ColumnValue::Number(result.diverged_at as f64),
            "step" => ColumnValue::Number(f64::NAN),
            "steps" => ColumnValue::Number(result.steps as f64),
            "seconds" => ColumnValue::Number(result.seconds),
            "worker" => ColumnValue::Word(&trial.worker),
            "isa" => ColumnValue::Word(&result.isa),
            _ => ColumnValue::Word(&self.numerics),
        }
    }
}

/// The name of a metric's column, which is that of no other one.
fn name_column(metric: &str) -> String {
    let is_taken = TRIAL_COLUMNS.contains(&metric) || LAST_COLUMNS.contains(&metric);
    name_metric_column(metric, is_taken)
}

/// An outcome in one word.
pub(super) fn outcome_word(outcome: v1::OutcomeKind) -> &'static str {
    match outcome {
        v1::OutcomeKind::Completed => "completed",
        v1::OutcomeKind::Diverged => "diverged",
        v1::OutcomeKind::Failed => "failed",
        v1::OutcomeKind::Unspecified => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use crate::client::render::trial_rows::*;

    fn trials() -> TrialRows {
        let trial = |(repeat, outcome, acc, cause): (u32, v1::OutcomeKind, f64, &str)| {
            let lr = v1::AxisValue {
                kind: Some(v1::axis_value::Kind::Number(0.1)),
            };
            let result = v1::TrialResult {
                key: Some(v1::TrialKey { cell: 0, repeat }),
                outcome: outcome.into(),
                metrics: vec![acc],
                cause: cause.to_owned(),
                digest: vec![repeat as u8; 2],
                ..v1::TrialResult::default()
            };
            v1::TrialRow {
                result: Some(result),
                values: vec![lr],
                worker: "desktop".to_owned(),
            }
        };
        let rows = [
            (0, v1::OutcomeKind::Completed, 0.5, ""),
            (1, v1::OutcomeKind::Diverged, 0.9, ""),
            (2, v1::OutcomeKind::Completed, 0.7, ""),
            (3, v1::OutcomeKind::Failed, f64::NAN, "too slow"),
        ];
        TrialRows::from_pages(vec![v1::TrialsResponse {
            axes: vec!["train.lr".into()],
            metrics: vec!["test_acc".into()],
            rows: rows.map(trial).to_vec(),
            ..v1::TrialsResponse::default()
        }])
    }

    fn repeats(condition: &str, sort: &str, top: u32) -> Result<Vec<u32>, String> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let selection = RowSelection {
            condition: given(condition),
            having: None,
            sort: given(sort),
            top: Some(top).filter(|n| *n > 0),
        };
        let mut all = trials();
        all.select(&selection).map_err(|e| e.message)?;
        let key = |row: &v1::TrialRow| row.result.as_ref().and_then(|result| result.key);
        Ok(all
            .rows
            .iter()
            .filter_map(key)
            .map(|key| key.repeat)
            .collect())
    }

    #[test]
    fn conditions_are_about_every_column_of_a_trial() {
        assert_eq!(repeats("outcome == \"failed\"", "", 0), Ok(vec![3]));
        assert_eq!(repeats("outcome != \"completed\"", "", 0), Ok(vec![1, 3]));
        assert_eq!(repeats("test_acc > 0.6 && lr < 1", "", 0), Ok(vec![1, 2]));
        assert_eq!(repeats("cause == \"too slow\"", "", 0), Ok(vec![3]));
        assert_eq!(repeats("digest == \"0202\"", "", 0), Ok(vec![2]));
        assert!(
            repeats("test_ac > 1", "", 0).is_err_and(|e| e.contains("did you mean 'test_acc'"))
        );
    }

    #[test]
    fn a_metric_that_is_called_as_another_column_has_a_prefix() {
        let mut page = v1::TrialsResponse {
            metrics: vec!["seconds".into(), "loss".into()],
            ..v1::TrialsResponse::default()
        };
        page.rows = trials().rows;
        let mut rows = TrialRows::from_pages(vec![page]);
        assert_eq!(rows.metrics, ["metric.seconds", "loss"]);

        let selection = RowSelection {
            condition: Some("metric.seconds > 0.6 && seconds == 0".into()),
            ..RowSelection::default()
        };
        assert_eq!(rows.select(&selection), Ok(()));
        assert_eq!(rows.rows.len(), 2);
    }

    #[test]
    fn no_axis_of_a_new_sweep_has_the_name_of_a_column() {
        use ergodic_common::grid::reserved_names::explain_reserved_axis;
        for name in trials().column_names() {
            assert!(explain_reserved_axis(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_best_trials_have_completed() {
        assert_eq!(repeats("", "", 3), Ok(vec![2, 0]));
        assert!(
            repeats("outcome == \"failed\"", "", 1)
                .is_err_and(|e| e.contains("no completed trial"))
        );
        assert_eq!(repeats("", "-test_acc", 2), Ok(vec![1, 2]));
        assert_eq!(repeats("", "outcome", 2), Ok(vec![0, 2]));
    }

    #[test]
    fn cells_are_chosen_by_values_as_printed() {
        let choose = |axis: &str, value: &str| {
            let choice = v1::AxisChoice {
                axis: axis.into(),
                value: value.into(),
            };
            crate::client::render::find_cell_rows(&trials(), &[choice]).map_err(|e| e.message)
        };
        assert_eq!(choose("lr", "1e-1"), Ok(vec![0, 1, 2, 3]));
        assert!(choose("lr", "0.2").is_err_and(|e| e.contains("no cell has lr = 0.2")));
        assert!(choose("wd", "0").is_err_and(|e| e.contains("--cell: trials have no axis")));
    }
}
