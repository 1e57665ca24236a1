//! Converts rows to typed columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::Value;

use super::{TableData, format_unquoted, json_value};

/// The type of each axis: int64 if all its values in these rows are whole, float64 if they are
/// numbers, boolean, or else string.
pub fn infer_axis_types<'a>(
    axes: usize,
    rows: impl Iterator<Item = &'a [v1::AxisValue]> + Clone,
) -> Vec<DataType> {
    let mut types = Vec::with_capacity(axes);
    for axis in 0..axes {
        let values = rows.clone().filter_map(|row| row.get(axis));
        let common = values
            .map(json_value)
            .filter(|value| !value.is_null())
            .map(|value| infer_type(&value))
            .reduce(common_type);
        types.push(common.unwrap_or(DataType::Utf8));
    }

    types
}

fn infer_type(value: &Value) -> DataType {
    match value {
        Value::Bool(_) => DataType::Boolean,
        Value::Number(x) if x.is_i64() => DataType::Int64,
        Value::Number(_) => DataType::Float64,
        _ => DataType::Utf8,
    }
}

fn common_type(a: DataType, b: DataType) -> DataType {
    match (&a, &b) {
        _ if a == b => a,
        (DataType::Int64 | DataType::Float64, DataType::Int64 | DataType::Float64) => {
            DataType::Float64
        }
        _ => DataType::Utf8,
    }
}

/// The type of a column that is not an axis; statistics and metrics are numbers.
fn column_type(column: &str) -> DataType {
    match column {
        "cell" | "step" | "steps" | "n" | "diverged" | "failed" => DataType::Int64,
        "repeat" => DataType::Int32,
        "metric" | "outcome" | "worker" | "isa" | "numerics" | "digest" | "cause" | "note" => {
            DataType::Utf8
        }
        _ => DataType::Float64,
    }
}

impl TableData {
    /// Converts the rows to columns, the first of which are axes of these types. An axis with the
    /// name of another column becomes `axis.NAME`.
    ///
    /// # Errors
    /// A row has more or fewer values than there are columns.
    pub fn to_record_batch(&self, axes: &[DataType]) -> Result<RecordBatch, ArrowError> {
        let fields: Vec<Field> = (0..self.columns.len())
            .map(|at| self.build_field(at, axes))
            .collect();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let values = self.rows.iter().map(|row| &row[at]);
            columns.push(build_column(field.data_type(), values));
        }

        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    fn build_field(&self, at: usize, axes: &[DataType]) -> Field {
        let name = &self.columns[at];
        let others = self.columns.get(axes.len()..).unwrap_or_default();
        // Of several sweeps, one may lack an axis.
        let has_null = || self.rows.iter().any(|row| row[at].is_null());
        match axes.get(at) {
            Some(kind) if others.contains(name) => {
                Field::new(format!("axis.{name}"), kind.clone(), has_null())
            }
            Some(kind) => Field::new(name, kind.clone(), has_null()),
            None => Field::new(name, column_type(name), true),
        }
    }
}

fn build_column<'a>(kind: &DataType, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    match kind {
        DataType::Int64 => Arc::new(values.map(Value::as_i64).collect::<Int64Array>()),
        DataType::Int32 => Arc::new(
            values
                .map(|x| x.as_i64()?.try_into().ok())
                .collect::<Int32Array>(),
        ),
        DataType::Float64 => Arc::new(
            values
                .map(|x| x.as_f64().or_else(|| parse_infinity(x)))
                .collect::<Float64Array>(),
        ),
        DataType::Boolean => Arc::new(values.map(Value::as_bool).collect::<BooleanArray>()),
        _ => Arc::new(
            values
                .map(|x| (!x.is_null()).then(|| format_unquoted(x)))
                .collect::<StringArray>(),
        ),
    }
}

/// Parses an infinity, which JSON holds as a word.
fn parse_infinity(value: &Value) -> Option<f64> {
    value
        .as_str()?
        .parse()
        .ok()
        .filter(|x: &f64| x.is_infinite())
}

/// The error for rows that do not fit their columns.
pub fn column_error(error: &ArrowError) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("the answer cannot be put into columns: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::client::render::arrow::*;

    #[test]
    fn axes_have_the_narrowest_type_and_columns_their_own() {
        use v1::axis_value::Kind;
        let value = |kind: Kind| v1::AxisValue { kind: Some(kind) };
        let row = |lr: f64, batch: f64| vec![value(Kind::Number(lr)), value(Kind::Number(batch))];
        let rows = [row(0.1, 32.0), row(1.0, 64.0)];
        let axes = infer_axis_types(2, rows.iter().map(Vec::as_slice));
        assert_eq!(axes, [DataType::Float64, DataType::Int64]);

        let records = TableData {
            columns: ["mean", "batch_size", "n", "mean", "note"]
                .map(str::to_owned)
                .to_vec(),
            rows: vec![
                vec![json!(0.1), json!(32), json!(3), json!(1.0), Value::Null],
                vec![
                    json!(1),
                    json!(64),
                    json!(0),
                    Value::Null,
                    json!("all diverged"),
                ],
            ],
            key_columns: 2,
        };
        let batch = records
            .to_record_batch(&axes)
            .expect("columns of equal length");
        let schema = batch.schema();
        let fields = schema
            .fields()
            .iter()
            .map(|field| format!("{}: {}", field.name(), field.data_type()));

        let wanted = [
            "axis.mean: Float64",
            "batch_size: Int64",
            "n: Int64",
            "mean: Float64",
            "note: Utf8",
        ];
        assert_eq!(fields.collect::<Vec<_>>(), wanted);

        assert_eq!(
            batch
                .columns()
                .iter()
                .map(|column| column.null_count())
                .collect::<Vec<_>>(),
            [0, 0, 0, 1, 1]
        );
    }

    #[test]
    fn an_axis_that_some_rows_lack_keeps_its_type() {
        let value = |kind| v1::AxisValue { kind };
        let number = v1::axis_value::Kind::Number;
        let rows = [vec![value(None)], vec![value(Some(number(0.5)))]];
        let axes = infer_axis_types(1, rows.iter().map(Vec::as_slice));
        assert_eq!(axes, [DataType::Float64]);

        let records = TableData {
            columns: vec!["wd".to_owned()],
            rows: rows.iter().map(|row| vec![json_value(&row[0])]).collect(),
            key_columns: 1,
        };
        let batch = records.to_record_batch(&axes).expect("one column");
        assert_eq!(batch.column(0).null_count(), 1);
        assert_eq!(records.to_csv(), "wd\n\"\"\n0.5\n");
    }
}
