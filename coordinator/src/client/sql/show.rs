//! Answers of queries: written as they come, where the format allows it.

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

use super::Failure;
use crate::client::commands::render;
use crate::client::export::encode::properties;
use crate::client::output::{Format, Output, Records, RowFormat, Sink, grid_of, guarded};

/// Most rows of a table for people, who have other formats for more.
const ROWS_FOR_PEOPLE: usize = 1000;
/// Most rows of a table for a paper, which is made in memory.
const ROWS_FOR_PAPERS: usize = 100_000;

/// Writes an answer.
pub(super) async fn show(rows: SendableRecordBatchStream, names: Vec<String>, sink: &Sink) -> Result<(), Failure> {
    let answer = Answer { rows, names, sink };
    match sink.format {
        RowFormat::Csv => answer.csv().await,
        RowFormat::Json => answer.json().await,
        RowFormat::Parquet => answer.parquet().await,
        RowFormat::Table => answer.people().await,
        RowFormat::Md => answer.papers(Format::Md).await,
        RowFormat::Latex => answer.papers(Format::Latex).await,
    }
}

struct Answer<'a> {
    rows: SendableRecordBatchStream,
    names: Vec<String>,
    sink: &'a Sink,
}

/// How text says what no number of JSON is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NotFinite {
    /// `inf`, `-inf`, `NaN`.
    Word,
    /// Null, as everywhere in JSON.
    Null,
}

impl Answer<'_> {
    async fn next(&mut self, not_finite: NotFinite) -> Result<Option<Records>, DataFusionError> {
        let Some(batch) = self.rows.next().await.transpose()? else { return Ok(None) };
        let columns = batch.columns().iter().map(|column| values(column, not_finite));
        let mut columns: Vec<_> =
            columns.map(|column| Ok(column?.into_iter())).collect::<Result<_, DataFusionError>>()?;
        let row = |_| columns.iter_mut().filter_map(Iterator::next).collect();
        let rows = (0..batch.num_rows()).map(row).collect();
        Ok(Some(Records { columns: self.names.clone(), rows, axes: self.names.len() }))
    }

    async fn csv(mut self) -> Result<(), Failure> {
        let sink = self.sink;
        let mut writing = Writing::begin(sink);
        writing.put(&Records { columns: self.names.clone(), rows: Vec::new(), axes: self.names.len() }.csv());
        while writing.goes_on() {
            let Some(records) = self.next(NotFinite::Word).await? else { break };
            // Each piece has a header of its own, of one line unless a name has several.
            let header = Records { rows: Vec::new(), ..records.clone() }.csv().len();
            writing.put(&records.csv()[header..]);
        }
        Ok(sink.written(writing.finish())?)
    }

    async fn json(mut self) -> Result<(), Failure> {
        let sink = self.sink;
        let mut writing = Writing::begin(sink);
        let mut before = "[\n  ";
        while writing.goes_on() {
            let Some(records) = self.next(NotFinite::Null).await? else { break };
            for object in records.objects() {
                writing.put(&format!("{before}{object}"));
                before = ",\n  ";
            }
        }
        writing.put(if before == ",\n  " { "\n]\n" } else { "[]\n" });
        Ok(sink.written(writing.finish())?)
    }

    async fn parquet(mut self) -> Result<(), Failure> {
        let sink = self.sink;
        let fields = self.rows.schema().fields().iter().zip(&self.names).map(renamed).collect::<Vec<_>>();
        let schema = std::sync::Arc::new(Schema::new(fields));
        let output = match sink.open() {
            Ok(output) => output,
            Err(error) => return Ok(sink.written(Err(error))?),
        };
        let mut writer = ArrowWriter::try_new(output, schema.clone(), Some(properties(&schema).build()))
            .map_err(DataFusionError::from)?;
        while let Some(batch) = self.rows.next().await.transpose()? {
            let batch =
                RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).map_err(DataFusionError::from)?;
            if let Err(error) = writer.write(&batch) {
                return Ok(sink.written(Err(cause(error)))?);
            }
        }
        Ok(sink.written(writer.into_inner().map_err(cause).and_then(Output::finish))?)
    }

    async fn people(mut self) -> Result<(), Failure> {
        let (records, more) = self.first(ROWS_FOR_PEOPLE).await?;
        let mut text = grid_of(&records);
        if more {
            text += &format!("the first {ROWS_FOR_PEOPLE} rows: --format csv, json or parquet has all\n");
        }
        Ok(self.sink.text(&text)?)
    }

    async fn papers(mut self, format: Format) -> Result<(), Failure> {
        let (records, more) = self.first(ROWS_FOR_PAPERS).await?;
        if more {
            let message =
                format!("more than {ROWS_FOR_PAPERS} rows: too many for a table: write them with --format csv");
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }
        Ok(self.sink.text(&render(&records, format, |_| String::new()))?)
    }

    /// The first rows, and whether there are more.
    async fn first(&mut self, most: usize) -> Result<(Records, bool), DataFusionError> {
        let mut all = Records { columns: self.names.clone(), rows: Vec::new(), axes: self.names.len() };
        while all.rows.len() <= most
            && let Some(mut records) = self.next(NotFinite::Word).await?
        {
            all.rows.append(&mut records.rows);
        }
        let more = all.rows.len() > most;
        all.rows.truncate(most);
        Ok((all, more))
    }
}

/// Text that is written piece by piece, up to the first error.
struct Writing(io::Result<Output>);

impl Writing {
    fn begin(sink: &Sink) -> Self {
        Self(sink.open())
    }

    fn put(&mut self, text: &str) {
        let written = match &mut self.0 {
            Ok(output) => output.write_all(guarded(text, false).as_bytes()),
            Err(_) => Ok(()),
        };
        if let Err(error) = written {
            self.0 = Err(error);
        }
    }

    /// Whether what comes next is of use to anybody.
    fn goes_on(&self) -> bool {
        self.0.is_ok()
    }

    fn finish(self) -> io::Result<()> {
        self.0.and_then(Output::finish)
    }
}

fn renamed((field, name): (&std::sync::Arc<Field>, &String)) -> Field {
    field.as_ref().clone().with_name(name)
}

/// Most often, that the file cannot be written.
fn cause(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// The values of a column; what is neither a number, a truth value nor text is text as the engine writes it.
fn values(column: &ArrayRef, not_finite: NotFinite) -> Result<Vec<Value>, DataFusionError> {
    let kind = column.data_type();
    let number = |x: f64| match not_finite {
        NotFinite::Word if !x.is_finite() => json!(x.to_string()),
        _ => json!(x),
    };
    Ok(match kind {
        DataType::Null => vec![Value::Null; column.len()],
        DataType::Boolean => column.as_boolean().iter().map(Value::from).collect(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().iter().map(Value::from).collect(),
        kind if kind.is_integer() => {
            cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().iter().map(Value::from).collect()
        }
        kind if kind.is_floating() => {
            let floats = cast(column, &DataType::Float64)?;
            floats.as_primitive::<Float64Type>().iter().map(|x| x.map_or(Value::Null, number)).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            cast(column, &DataType::Utf8)?.as_string::<i32>().iter().map(Value::from).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(column, &options)?;
            let text = |row| if column.is_null(row) { Value::Null } else { json!(formatter.value(row).to_string()) };
            (0..column.len()).map(text).collect()
        }
    })
}
