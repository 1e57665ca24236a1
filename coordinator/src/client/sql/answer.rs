//! Writes the answers of queries, as they arrive if the format allows it.

use std::io::{self, Write as _};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use datafusion::arrow::compute::cast;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::errors::SqlQueryError;
use crate::client::export::encode::writer_properties;
use crate::client::render::{
    OutputTarget, OutputWriter, RowFormat, TableData, TextFormat, escape_terminal_controls,
    render_human_data, render_table_data,
};

/// Maximum number of rows of a table for people, who have other formats for more.
const MAX_HUMAN_ROWS: usize = 1000;
/// Maximum number of rows of a table for a paper, which is built in memory.
const MAX_MARKUP_ROWS: usize = 100_000;

/// Writes an answer.
pub(super) async fn write_answer(
    rows: SendableRecordBatchStream,
    names: Vec<String>,
    sink: &OutputTarget,
) -> Result<(), SqlQueryError> {
    let answer = QueryAnswer { rows, names, sink };
    match sink.format {
        RowFormat::Csv => answer.write_csv().await,
        RowFormat::Json => answer.write_json().await,
        RowFormat::Parquet => answer.write_parquet().await,
        RowFormat::Table => answer.write_human().await,
        RowFormat::Md => answer.write_markup(TextFormat::Md).await,
        RowFormat::Latex => answer.write_markup(TextFormat::Latex).await,
    }
}

struct QueryAnswer<'a> {
    rows: SendableRecordBatchStream,
    names: Vec<String>,
    sink: &'a OutputTarget,
}

/// The text of numbers that JSON lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NonFinite {
    /// `inf`, `-inf`, `NaN`.
    Word,
    /// Null, as everywhere in JSON.
    Null,
}

impl QueryAnswer<'_> {
    async fn read_next_rows(
        &mut self,
        not_finite: NonFinite,
    ) -> Result<Option<TableData>, DataFusionError> {
        let Some(batch) = self.rows.next().await.transpose()? else {
            return Ok(None);
        };
        let columns = batch
            .columns()
            .iter()
            .map(|column| column_to_json(column, not_finite));
        let mut columns: Vec<_> = columns
            .map(|column| Ok(column?.into_iter()))
            .collect::<Result<_, DataFusionError>>()?;
        let row = |_| columns.iter_mut().filter_map(Iterator::next).collect();
        let rows = (0..batch.num_rows()).map(row).collect();

        Ok(Some(TableData {
            columns: self.names.clone(),
            rows,
            key_columns: self.names.len(),
        }))
    }

    async fn write_csv(mut self) -> Result<(), SqlQueryError> {
        let sink = self.sink;
        let mut writing = AnswerWriter::open(sink);
        writing.write_text(
            &TableData {
                columns: self.names.clone(),
                rows: Vec::new(),
                key_columns: self.names.len(),
            }
            .to_csv(),
        );

        while writing.can_write() {
            let Some(records) = self.read_next_rows(NonFinite::Word).await? else {
                break;
            };

            // Each piece repeats the header, which takes several lines if a name contains a line
            // break.
            let header = TableData {
                rows: Vec::new(),
                ..records.clone()
            }
            .to_csv()
            .len();
            writing.write_text(&records.to_csv()[header..]);
        }

        Ok(sink.check_write_result(writing.finish())?)
    }

    async fn write_json(mut self) -> Result<(), SqlQueryError> {
        let sink = self.sink;
        let mut writing = AnswerWriter::open(sink);
        let mut before = "[\n  ";

        while writing.can_write() {
            let Some(records) = self.read_next_rows(NonFinite::Null).await? else {
                break;
            };
            for object in records.to_json_objects() {
                writing.write_text(&format!("{before}{object}"));
                before = ",\n  ";
            }
        }

        writing.write_text(if before == ",\n  " { "\n]\n" } else { "[]\n" });
        Ok(sink.check_write_result(writing.finish())?)
    }

    async fn write_parquet(mut self) -> Result<(), SqlQueryError> {
        let sink = self.sink;
        let fields = self
            .rows
            .schema()
            .fields()
            .iter()
            .zip(&self.names)
            .map(rename_field)
            .collect::<Vec<_>>();
        let schema = std::sync::Arc::new(Schema::new(fields));

        let output = match sink.open_writer() {
            Ok(output) => output,
            Err(error) => return Ok(sink.check_write_result(Err(error))?),
        };
        let mut writer = ArrowWriter::try_new(
            output,
            schema.clone(),
            Some(writer_properties(&schema).build()),
        )
        .map_err(DataFusionError::from)?;

        while let Some(batch) = self.rows.next().await.transpose()? {
            let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec())
                .map_err(DataFusionError::from)?;
            if let Err(error) = writer.write(&batch) {
                return Ok(sink.check_write_result(Err(into_io_error(error)))?);
            }
        }

        Ok(sink.check_write_result(
            writer
                .into_inner()
                .map_err(into_io_error)
                .and_then(OutputWriter::finish),
        )?)
    }

    async fn write_human(mut self) -> Result<(), SqlQueryError> {
        let (records, more) = self.read_first_rows(MAX_HUMAN_ROWS).await?;
        let mut text = render_human_data(&records, self.sink.table_layout(false));
        if more {
            text += &format!(
                "the first {MAX_HUMAN_ROWS} rows: --format csv, json or parquet has all\n"
            );
        }
        Ok(self.sink.write_text(&text, true)?)
    }

    async fn write_markup(mut self, format: TextFormat) -> Result<(), SqlQueryError> {
        let (records, more) = self.read_first_rows(MAX_MARKUP_ROWS).await?;
        if more {
            let message = format!(
                "more than {MAX_MARKUP_ROWS} rows: too many for a table: write them with --format csv"
            );
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }

        Ok(self.sink.write_text(
            &render_table_data(&records, format, |_| String::new()),
            true,
        )?)
    }

    /// Reads the first rows, and whether there are more.
    async fn read_first_rows(&mut self, most: usize) -> Result<(TableData, bool), DataFusionError> {
        let mut all = TableData {
            columns: self.names.clone(),
            rows: Vec::new(),
            key_columns: self.names.len(),
        };
        while all.rows.len() <= most
            && let Some(mut records) = self.read_next_rows(NonFinite::Word).await?
        {
            all.rows.append(&mut records.rows);
        }

        let more = all.rows.len() > most;
        all.rows.truncate(most);
        Ok((all, more))
    }
}

/// Writes text in pieces, up to the first error.
struct AnswerWriter(io::Result<OutputWriter>);

impl AnswerWriter {
    fn open(sink: &OutputTarget) -> Self {
        Self(sink.open_writer())
    }

    fn write_text(&mut self, text: &str) {
        let written = match &mut self.0 {
            Ok(output) => output.write_all(escape_terminal_controls(text, false).as_bytes()),
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            self.0 = Err(error);
        }
    }

    /// Whether further pieces can be written.
    fn can_write(&self) -> bool {
        self.0.is_ok()
    }

    fn finish(self) -> io::Result<()> {
        self.0.and_then(OutputWriter::finish)
    }
}

fn rename_field((field, name): (&std::sync::Arc<Field>, &String)) -> Field {
    field.as_ref().clone().with_name(name)
}

/// Converts an error of Parquet, which is mostly one of writing the file.
fn into_io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// Converts the values of a column to JSON. Values other than numbers, booleans and text become
/// text as DataFusion writes it.
fn column_to_json(column: &ArrayRef, not_finite: NonFinite) -> Result<Vec<Value>, DataFusionError> {
    let kind = column.data_type();
    let number = |x: f64| match not_finite {
        NonFinite::Word if !x.is_finite() => json!(x.to_string()),
        _ => json!(x),
    };
    Ok(match kind {
        DataType::Null => vec![Value::Null; column.len()],
        DataType::Boolean => column.as_boolean().iter().map(Value::from).collect(),
        DataType::UInt64 => column
            .as_primitive::<UInt64Type>()
            .iter()
            .map(Value::from)
            .collect(),
        kind if kind.is_integer() => cast(column, &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .iter()
            .map(Value::from)
            .collect(),
        kind if kind.is_floating() => {
            let floats = cast(column, &DataType::Float64)?;
            floats
                .as_primitive::<Float64Type>()
                .iter()
                .map(|x| x.map_or(Value::Null, number))
                .collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => cast(column, &DataType::Utf8)?
            .as_string::<i32>()
            .iter()
            .map(Value::from)
            .collect(),
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let text = |row| {
                if column.is_null(row) {
                    Value::Null
                } else {
                    json!(formatter.value(row).to_string())
                }
            };

            (0..column.len()).map(text).collect()
        }
    })
}
