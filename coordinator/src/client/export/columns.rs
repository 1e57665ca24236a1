//! Converts rows of a sweep to columns: the schemas of a dataset's tables, and their record batches.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use ergodic_common::grid::reserved_names::name_metric_column;
use ergodic_common::ids::{CellIndex, DatasetHash};
use ergodic_common::spec_file::node::SpecValue;
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};

use super::axis_values::{axis_data_type, encode_axis_values};
use super::quantity_columns::QuantityColumns;

/// The columns of a sweep that not all sweeps have.
#[derive(Debug, Clone)]
pub(in crate::client) struct DatasetColumns {
    axes: Vec<AxisColumn>,
    /// Fields that `[derive]` computes.
    derived: Vec<String>,
    metrics: Vec<String>,
    pub(super) quantities: QuantityColumns,
}

#[derive(Debug, Clone)]
struct AxisColumn {
    name: String,
    data_type: DataType,
}

/// A trial with the values of its row in `trials`.
#[derive(Debug, Clone)]
pub(super) struct ExportRow {
    pub(super) result: TrialResult,
    pub(super) worker: String,
}

/// The probe images, with their labels.
#[derive(Debug, Clone, Default)]
pub(super) struct ProbeSet {
    pub(super) images: Vec<u32>,
    pub(super) labels: Vec<u8>,
}

impl ProbeSet {
    /// Numbers and labels of the images, repeated `times` times.
    fn build_columns(&self, times: usize) -> [ArrayRef; 2] {
        let mut images = Vec::with_capacity(times * self.images.len());
        let mut labels = Vec::with_capacity(times * self.labels.len());
        for _ in 0..times {
            images.extend(self.images.iter().map(|image| *image as i32));
            labels.extend(self.labels.iter().map(|label| i16::from(*label)));
        }

        [
            Arc::new(Int32Array::from(images)),
            Arc::new(Int16Array::from(labels)),
        ]
    }
}

/// Builders of the columns `cell` and `repeat`.
#[derive(Default)]
pub(super) struct KeyColumns {
    cells: Vec<i64>,
    repeats: Vec<i32>,
}

impl KeyColumns {
    fn with_capacity(rows: usize) -> Self {
        Self {
            cells: Vec::with_capacity(rows),
            repeats: Vec::with_capacity(rows),
        }
    }

    pub(super) fn push_times(&mut self, key: TrialKey, times: usize) {
        self.cells
            .resize(self.cells.len() + times, key.cell.0 as i64);
        self.repeats
            .resize(self.repeats.len() + times, key.repeat.0 as i32);
    }

    pub(super) fn into_columns(self) -> Vec<ArrayRef> {
        vec![
            Arc::new(Int64Array::from(self.cells)),
            Arc::new(Int32Array::from(self.repeats)),
        ]
    }
}

/// The columns of `trials` before the metrics, except the axes.
const TRIAL_COLUMNS: [&str; 11] = [
    "cell", "repeat", "outcome", "step", "cause", "steps", "seconds", "worker", "isa", "digest",
    "weights",
];

impl DatasetColumns {
    pub(super) fn from_spec(spec: &Spec) -> Self {
        let metrics: Vec<String> = spec
            .measure
            .metrics
            .iter()
            .map(|metric| {
                let name = metric.name();
                name_metric_column(&name, TRIAL_COLUMNS.contains(&&*name))
            })
            .collect();
        let derived: Vec<String> = spec.grid.iter().next().map_or_else(Vec::new, |cell| {
            spec.grid
                .derived_values_in(cell)
                .into_iter()
                .map(|(field, _)| field.to_owned())
                .collect()
        });
        let is_taken = |name: &String| {
            name == "hash"
                || TRIAL_COLUMNS.contains(&name.as_str())
                || metrics.contains(name)
                || derived.contains(name)
        };

        let mut axes = Vec::new();
        for axis in spec.grid.axes() {
            let name = match is_taken(&axis.name) {
                true => format!("axis.{}", axis.name),
                false => axis.name.clone(),
            };
            axes.push(AxisColumn {
                name,
                data_type: axis_data_type(axis),
            });
        }

        let others = TRIAL_COLUMNS.iter().map(|name| (*name).to_owned());
        let names = axes.iter().map(|axis: &AxisColumn| axis.name.clone());
        let taken = others.chain(names).chain(metrics.iter().cloned());
        Self {
            quantities: QuantityColumns::from_spec(spec, taken.collect()),
            axes,
            derived,
            metrics,
        }
    }

    /// Number of metrics at each point of a curve.
    pub(super) fn metric_count(&self) -> usize {
        self.metrics.len()
    }

    fn axis_fields(&self) -> impl Iterator<Item = Field> {
        self.axes
            .iter()
            .map(|axis| Field::new(&axis.name, axis.data_type.clone(), false))
    }

    fn metric_fields(&self) -> impl Iterator<Item = Field> {
        self.metrics
            .iter()
            .map(|metric| Field::new(metric, DataType::Float64, true))
    }

    /// The schema of `trials`: one row per trial.
    pub(super) fn trials_schema(&self) -> Arc<Schema> {
        let key = [int64_field("cell"), int32_field("repeat")];
        let about = [
            Field::new("outcome", DataType::Utf8, false),
            Field::new("step", DataType::Int64, true),
            Field::new("cause", DataType::Utf8, true),
            int64_field("steps"),
            Field::new("seconds", DataType::Float64, false),
            Field::new("worker", DataType::Utf8, false),
            Field::new("isa", DataType::Utf8, true),
            Field::new("digest", DataType::Utf8, false),
            Field::new("weights", DataType::Utf8, true),
        ];

        build_schema(
            key.into_iter()
                .chain(self.axis_fields())
                .chain(about)
                .chain(self.metric_fields())
                .chain(self.quantities.trial_fields()),
        )
    }

    /// The schema of `curves`: one row per trial and step.
    pub(super) fn curves_schema(&self) -> Arc<Schema> {
        build_schema(
            [
                int64_field("cell"),
                int32_field("repeat"),
                int64_field("step"),
            ]
            .into_iter()
            .chain(self.metric_fields())
            .chain(self.quantities.curve_fields()),
        )
    }

    /// The schema of `cells`: one row per cell.
    pub(super) fn cells_schema(&self) -> Arc<Schema> {
        let derived = self
            .derived
            .iter()
            .map(|field| Field::new(field, DataType::Float64, true));
        let identity = [
            int64_field("cell"),
            Field::new("hash", DataType::Utf8, false),
        ];

        build_schema(
            identity
                .into_iter()
                .chain(self.axis_fields())
                .chain(derived),
        )
    }

    /// The schema of `predictions`: one row per trial, step and image.
    pub(in crate::client) fn predictions_schema() -> Arc<Schema> {
        build_schema([
            int64_field("cell"),
            int32_field("repeat"),
            int64_field("step"),
            int32_field("image"),
            int16_field("label"),
            int16_field("class"),
        ])
    }

    /// Builds rows of `trials`.
    pub(super) fn build_trials_batch(
        &self,
        spec: &Spec,
        rows: &[ExportRow],
    ) -> Result<RecordBatch, ArrowError> {
        let keys = rows.iter().map(|row| row.result.key);
        let mut columns = build_key_columns(keys.clone());
        columns.extend(self.build_axis_columns(spec, keys.map(|key| key.cell)));
        columns.extend(build_outcome_columns(rows));
        columns.extend(build_origin_columns(rows));

        for at in 0..self.metrics.len() {
            let values = rows.iter().map(|row| row.result.metrics.get(at).copied());
            columns.push(build_number_column(values.collect()));
        }
        let results = rows.iter().map(|row| &row.result);
        let computed = self.quantities.evaluate_trials(spec, results).into_iter();
        columns.extend(computed.map(build_full_number_column));

        RecordBatch::try_new(self.trials_schema(), columns)
    }

    /// Builds rows of `curves`.
    pub(super) fn build_curves_batch(
        &self,
        spec: &Spec,
        rows: &[ExportRow],
    ) -> Result<RecordBatch, ArrowError> {
        let points = rows.iter().map(|row| row.result.curve.steps.len()).sum();
        let mut keys = KeyColumns::with_capacity(points);
        let mut steps = Vec::with_capacity(points);
        for TrialResult { key, curve, .. } in rows.iter().map(|row| &row.result) {
            keys.push_times(*key, curve.steps.len());
            steps.extend(curve.steps.iter().map(|step| *step as i64));
        }

        let mut columns = keys.into_columns();
        columns.push(Arc::new(Int64Array::from(steps)));
        let width = self.metrics.len().max(1);
        for at in 0..self.metrics.len() {
            let mut column = Vec::with_capacity(points);
            for curve in rows.iter().map(|row| &row.result.curve) {
                column.extend(curve.values.iter().skip(at).step_by(width));
            }
            columns.push(build_full_number_column(column));
        }
        let results = rows.iter().map(|row| &row.result);
        let computed = self.quantities.evaluate_curves(spec, results).into_iter();
        columns.extend(computed.map(build_full_number_column));

        RecordBatch::try_new(self.curves_schema(), columns)
    }

    /// Builds rows of `predictions`.
    pub(super) fn build_predictions_batch(
        rows: &[ExportRow],
        probe: &ProbeSet,
    ) -> Result<RecordBatch, ArrowError> {
        let images = probe.images.len();
        let mut keys = KeyColumns::default();
        let mut steps: Vec<i64> = Vec::new();
        let mut classes: Vec<i16> = Vec::new();
        for TrialResult {
            key, predictions, ..
        } in rows.iter().map(|row| &row.result)
        {
            let predicted = predictions.classes.chunks_exact(images.max(1));
            for (step, predicted) in predictions.steps.iter().zip(predicted) {
                keys.push_times(*key, images);
                steps.resize(steps.len() + images, *step as i64);
                classes.extend(predicted.iter().map(|class| i16::from(*class)));
            }
        }

        let times = steps.len() / images.max(1);
        let mut columns = keys.into_columns();
        columns.push(Arc::new(Int64Array::from(steps)));
        columns.extend(probe.build_columns(times));
        columns.push(Arc::new(Int16Array::from(classes)));
        RecordBatch::try_new(Self::predictions_schema(), columns)
    }

    /// Builds rows of `cells`.
    pub(super) fn build_cells_batch(
        &self,
        spec: &Spec,
        data: DatasetHash,
        cells: &[CellIndex],
    ) -> Result<RecordBatch, ArrowError> {
        let hashes = cells.iter().map(|cell| format_cell_hash(spec, data, *cell));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(
                cells.iter().map(|cell| cell.0 as i64),
            )),
            build_text_column(hashes),
        ];
        columns.extend(self.build_axis_columns(spec, cells.iter().copied()));

        let derived: Vec<Vec<f64>> = cells
            .iter()
            .map(|cell| derived_values(spec, *cell))
            .collect();
        for at in 0..self.derived.len() {
            let values = derived.iter().map(|values| values.get(at).copied());
            columns.push(build_number_column(values.collect()));
        }

        RecordBatch::try_new(self.cells_schema(), columns)
    }

    /// Builds one column per axis, with its values in these cells.
    fn build_axis_columns(
        &self,
        spec: &Spec,
        cells: impl Iterator<Item = CellIndex>,
    ) -> Vec<ArrayRef> {
        let mut columns: Vec<Vec<SpecValue>> = vec![Vec::new(); self.axes.len()];
        let mut last: (CellIndex, Vec<SpecValue>) = (CellIndex(u64::MAX), Vec::new());

        for cell in cells {
            if last.0 != cell {
                last = (cell, spec.grid.axis_values(cell));
            }

            columns
                .iter_mut()
                .zip(&last.1)
                .for_each(|(column, value)| column.push(value.clone()));
        }

        self.axes
            .iter()
            .zip(&columns)
            .map(|(axis, values)| encode_axis_values(&axis.data_type, values))
            .collect()
    }
}

pub(super) fn build_schema(fields: impl IntoIterator<Item = Field>) -> Arc<Schema> {
    Arc::new(Schema::new(fields.into_iter().collect::<Vec<_>>()))
}

pub(super) fn int64_field(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

pub(super) fn int32_field(name: &str) -> Field {
    Field::new(name, DataType::Int32, false)
}

pub(super) fn int16_field(name: &str) -> Field {
    Field::new(name, DataType::Int16, false)
}

fn build_key_columns(keys: impl Iterator<Item = TrialKey> + Clone) -> Vec<ArrayRef> {
    vec![
        Arc::new(Int64Array::from_iter_values(
            keys.clone().map(|key| key.cell.0 as i64),
        )),
        Arc::new(Int32Array::from_iter_values(
            keys.map(|key| key.repeat.0 as i32),
        )),
    ]
}

/// Builds the columns of `trials` from `outcome` to `seconds`.
fn build_outcome_columns(rows: &[ExportRow]) -> [ArrayRef; 5] {
    let results = || rows.iter().map(|row| &row.result);
    let steps_of_divergence = results().map(|result| match result.outcome {
        Outcome::Diverged { step } => Some(step as i64),
        _ => None,
    });
    let causes = results().map(|result| match &result.outcome {
        Outcome::Failed { cause } => Some(cause.as_str()),
        _ => None,
    });

    [
        build_text_column(results().map(|result| result.outcome.as_str())),
        Arc::new(steps_of_divergence.collect::<Int64Array>()),
        Arc::new(causes.collect::<StringArray>()),
        Arc::new(
            results()
                .map(|result| Some(result.steps as i64))
                .collect::<Int64Array>(),
        ),
        Arc::new(
            results()
                .map(|result| Some(result.seconds))
                .collect::<Float64Array>(),
        ),
    ]
}

/// Builds the columns of `trials` from `worker` to `weights`.
fn build_origin_columns(rows: &[ExportRow]) -> [ArrayRef; 4] {
    let results = || rows.iter().map(|row| &row.result);
    let isas = results().map(|result| Some(&result.isa).filter(|isa| !isa.is_empty()));
    let weights = results().map(|result| result.weights_hash.map(|hash| hash.to_string()));

    [
        build_text_column(rows.iter().map(|row| &row.worker)),
        Arc::new(isas.collect::<StringArray>()),
        build_text_column(results().map(|result| result.digest.to_string())),
        Arc::new(weights.collect::<StringArray>()),
    ]
}

/// The hash of a cell. Every cell of a launched sweep resolves to a config.
fn format_cell_hash(spec: &Spec, data: DatasetHash, cell: CellIndex) -> String {
    spec.grid
        .resolve_config(cell)
        .map(|config| spec.compute_cell_hash(&config, data).to_string())
        .unwrap_or_default()
}

fn derived_values(spec: &Spec, cell: CellIndex) -> Vec<f64> {
    spec.grid
        .derived_values_in(cell)
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

fn build_text_column(values: impl Iterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// Builds a column of numbers. Undefined values are NaN in a row and null in a table. Infinities stay, because a loss
/// may be infinite.
fn build_number_column(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from_iter(
        values
            .into_iter()
            .map(|value| value.filter(|x| !x.is_nan())),
    ))
}

/// Builds a column of numbers that are all present, and mostly defined.
fn build_full_number_column(values: Vec<f64>) -> ArrayRef {
    match values.iter().any(|x| x.is_nan()) {
        false => Arc::new(Float64Array::from(values)),
        true => build_number_column(values.into_iter().map(Some).collect()),
    }
}
