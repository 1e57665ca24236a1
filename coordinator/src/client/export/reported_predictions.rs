//! The table `predictions` of a program, whose points are no images.

use std::sync::Arc;

use arrow_array::{Int16Array, Int32Array, Int64Array, RecordBatch};
use arrow_schema::{ArrowError, Schema};
use ergodic_common::TrialResult;

use super::columns::{ExportRow, KeyColumns, build_schema, int16_field, int32_field, int64_field};

/// The schema of `predictions` of a program: one row per trial, step and point, which is no image.
pub(super) fn reported_predictions_schema() -> Arc<Schema> {
    build_schema([
        int64_field("cell"),
        int32_field("repeat"),
        int64_field("step"),
        int32_field("point"),
        int16_field("class"),
    ])
}

/// Builds rows of `predictions` of a program, each of whose trials has as many points as it reported.
pub(super) fn build_reported_predictions_batch(
    rows: &[ExportRow],
) -> Result<RecordBatch, ArrowError> {
    let mut keys = KeyColumns::default();
    let mut steps: Vec<i64> = Vec::new();
    let mut points: Vec<i32> = Vec::new();
    let mut classes: Vec<i16> = Vec::new();
    for TrialResult {
        key, predictions, ..
    } in rows.iter().map(|row| &row.result)
    {
        let count = predictions
            .classes
            .len()
            .checked_div(predictions.steps.len());
        let predicted = predictions.classes.chunks_exact(count.unwrap_or(1).max(1));
        for (step, predicted) in predictions.steps.iter().zip(predicted) {
            keys.push_times(*key, predicted.len());
            steps.resize(steps.len() + predicted.len(), *step as i64);
            points.extend(0..predicted.len() as i32);
            classes.extend(predicted.iter().map(|class| i16::from(*class)));
        }
    }

    let mut columns = keys.into_columns();
    columns.push(Arc::new(Int64Array::from(steps)));
    columns.push(Arc::new(Int32Array::from(points)));
    columns.push(Arc::new(Int16Array::from(classes)));
    RecordBatch::try_new(reported_predictions_schema(), columns)
}
