//! Rows of trials as columns and rows for machines.

use ergodic_proto::v1;
use serde_json::{Value, json};

use super::row_condition::SelectableRows;
use super::statistics_data::json_float;
use super::trial_rows::outcome_word;
use super::{TableData, TrialRows, json_number, json_value, non_empty};

/// Builds one row per trial: axes, repeat, outcome, step of divergence, steps, seconds, worker,
/// instruction set, numerics, metrics, digest.
pub fn build_trial_data(trials: &TrialRows) -> TableData {
    let mut columns = trials.axes.clone();
    columns.extend(trials.column_names().into_iter().map(str::to_owned));

    let rows = trials.rows.iter();
    TableData {
        columns,
        rows: rows
            .map(|row| build_trial_row(row, &trials.numerics))
            .collect(),
        key_columns: trials.axes.len(),
    }
}

fn build_trial_row(row: &v1::TrialRow, numerics: &str) -> Vec<Value> {
    let blank = v1::TrialResult::default();
    let result = row.result.as_ref().unwrap_or(&blank);
    let key = result.key.unwrap_or_default();
    let digest = hex::encode(&result.digest);

    let mut values: Vec<Value> = row.values.iter().map(json_value).collect();
    values.extend([json!(key.cell), json!(key.repeat)]);
    values.extend(outcome_values(result));
    values.extend([
        json!(result.steps),
        json_number(Some(result.seconds)),
        json!(row.worker),
        json!(non_empty(&result.isa)),
        json!(numerics),
    ]);
    values.extend(result.metrics.iter().map(|x| json_float(Some(*x))));
    values.extend([json!(digest), json!(non_empty(&result.cause))]);
    values
}

/// The outcome of a trial, and the step at which it diverged.
fn outcome_values(result: &v1::TrialResult) -> [Value; 2] {
    let outcome = result.outcome();
    let is_diverged = outcome == v1::OutcomeKind::Diverged;
    let step = is_diverged.then_some(result.diverged_at);
    [json!(outcome_word(outcome)), json!(step)]
}

#[cfg(test)]
mod tests {
    use crate::client::render::trial_data::*;

    #[test]
    fn an_outcome_is_one_word_and_the_step_of_divergence_a_number() {
        let row = |outcome: v1::OutcomeKind, diverged_at| {
            let result = v1::TrialResult {
                outcome: outcome.into(),
                diverged_at,
                steps: 9,
                ..Default::default()
            };
            v1::TrialRow {
                result: Some(result),
                ..Default::default()
            }
        };
        let rows = vec![
            row(v1::OutcomeKind::Diverged, 4),
            row(v1::OutcomeKind::Completed, 0),
        ];
        let records = build_trial_data(&TrialRows::from_pages(vec![v1::TrialsResponse {
            rows,
            ..Default::default()
        }]));
        let objects = records.to_json_objects();
        assert_eq!(
            (&objects[0]["outcome"], &objects[0]["step"]),
            (&json!("diverged"), &json!(4))
        );

        assert_eq!(
            (&objects[1]["outcome"], &objects[1]["step"]),
            (&json!("completed"), &Value::Null)
        );
        let csv = records.to_csv();
        assert!(
            csv.starts_with("cell,repeat,outcome,step,steps,")
                && csv.contains("\n0,0,diverged,4,9,"),
            "{csv}"
        );

        assert!(csv.contains("\n0,0,completed,,9,"), "{csv}");
        let batch = records
            .to_record_batch(&[])
            .expect("columns of equal length");
        let column = batch.column_by_name("step").expect("the step");
        assert_eq!(
            (column.data_type().to_string().as_str(), column.null_count()),
            ("Int64", 1)
        );
    }
}
