//! Writes rows as parts. Several parts are encoded and written at a time, while further rows
//! arrive.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use ergodic_common::ids::{CellIndex, DatasetHash};
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::columns::{DatasetColumns, ExportRow, ProbeSet};
use super::encode::encode_part;
use super::location::DatasetLocation;
use super::manifest::{DatasetPart, Manifest};
use super::reported_predictions::{build_reported_predictions_batch, reported_predictions_schema};

/// Maximum bytes of curves and predictions in a part, uncompressed: large enough to read fast,
/// small enough to hold several in memory.
const MAX_PART_BYTES: usize = 64 << 20;
/// Maximum number of rows in a part of `trials` or `cells`.
const MAX_PART_ROWS: usize = 250_000;

/// The inputs that all parts of an export share.
#[derive(Clone)]
pub(super) struct WriteContext {
    pub(super) location: Arc<DatasetLocation>,
    pub(super) spec: Arc<Spec>,
    pub(super) columns: Arc<DatasetColumns>,
    pub(super) probe: Arc<ProbeSet>,
    /// Prefix of the names of parts.
    pub(super) prefix: String,
}

/// Writes rows in parts, several at a time.
pub(super) struct DatasetWriter {
    context: WriteContext,
    /// Rows of the next parts, and their bytes in memory.
    rows: Vec<ExportRow>,
    bytes: usize,
    /// Rows of the next part of `trials`.
    trials: Vec<RecordBatch>,
    tasks: JoinSet<Result<WrittenPart, UserError>>,
    written: Vec<WrittenPart>,
    /// Number of parts that were started. The names of parts count up in the order of their rows.
    started_parts: usize,
    received: u64,
    hosts: BTreeMap<String, u64>,
}

struct WrittenPart {
    table: &'static str,
    schema: Arc<Schema>,
    part: DatasetPart,
}

/// The parts that an export has written.
pub(super) struct WrittenParts {
    written: Vec<WrittenPart>,
    hosts: BTreeMap<String, u64>,
    pub(super) received: u64,
}

impl WrittenParts {
    /// Adds the parts, and the numbers of trials by worker, to a manifest.
    pub(super) fn add_to_manifest(self, manifest: &mut Manifest) {
        for WrittenPart {
            table,
            schema,
            part,
        } in self.written
        {
            manifest.add_part(table, &schema, Some(part));
        }

        for (host, trials) in self.hosts {
            *manifest.hosts.entry(host).or_default() += trials;
        }
    }
}

impl DatasetWriter {
    pub(super) fn new(context: WriteContext) -> Self {
        Self {
            context,
            rows: Vec::new(),
            bytes: 0,
            trials: Vec::new(),
            tasks: JoinSet::new(),
            written: Vec::new(),
            started_parts: 0,
            received: 0,
            hosts: BTreeMap::new(),
        }
    }

    /// Writes the table of cells.
    pub(super) async fn write_cells(&mut self, data: DatasetHash) -> Result<(), UserError> {
        let cells: Vec<CellIndex> = self.context.spec.grid.iter().collect();
        for cells in cells.chunks(MAX_PART_ROWS) {
            let cells = cells.to_vec();
            let spec = self.context.spec.clone();
            let columns = self.context.columns.clone();
            let schema = columns.cells_schema();
            self.start_part("cells", schema, 1, move || {
                Ok(vec![columns.build_cells_batch(&spec, data, &cells)?])
            })
            .await?;
        }

        Ok(())
    }

    /// Adds a row, which follows all others in order of cell and repeat.
    pub(super) async fn add_row(&mut self, row: ExportRow) -> Result<(), UserError> {
        let result = &row.result;
        if result.metrics.len() != self.context.columns.metric_count() {
            let message = format!(
                "the row of {} does not have the metrics of its sweep",
                result.key
            );
            return Err(UserError::new(ErrorCode::Internal, message));
        }

        let computed = result.curve.steps.len() * self.context.columns.quantities.curve_count();
        let values = result.curve.values.len() + computed + result.predictions.classes.len();
        self.bytes += 8 * values;
        self.received += 1;

        match self.hosts.get_mut(&row.worker) {
            Some(trials) => *trials += 1,
            // A trial that was given up has no worker.
            None if row.worker.is_empty() => {}
            None => drop(self.hosts.insert(row.worker.clone(), 1)),
        }

        self.rows.push(row);
        if self.bytes >= MAX_PART_BYTES || self.rows.len() >= MAX_PART_ROWS {
            self.flush_parts().await
        } else {
            Ok(())
        }
    }

    /// Ends the current parts, and starts to write them.
    async fn flush_parts(&mut self) -> Result<(), UserError> {
        let rows = Arc::new(std::mem::take(&mut self.rows));
        self.bytes = 0;
        let trials = self
            .context
            .columns
            .build_trials_batch(&self.context.spec, &rows)
            .map_err(|e| parquet_error(&e))?;
        self.trials.push(trials);

        if self.trials.iter().map(RecordBatch::num_rows).sum::<usize>() >= MAX_PART_ROWS {
            self.flush_trials().await?;
        }

        if !self.context.probe.images.is_empty() {
            self.start_predictions_part(rows.clone()).await?;
        }
        let has_predictions = |row: &ExportRow| !row.result.predictions.steps.is_empty();
        if self.context.spec.program().is_some() && rows.iter().any(has_predictions) {
            self.start_reported_part(rows.clone()).await?;
        }

        self.start_curves_part(rows).await
    }

    async fn start_predictions_part(&mut self, rows: Arc<Vec<ExportRow>>) -> Result<(), UserError> {
        let probe = self.context.probe.clone();
        let schema = DatasetColumns::predictions_schema();
        self.start_part("predictions", schema, 3, move || {
            Ok(vec![DatasetColumns::build_predictions_batch(
                &rows, &probe,
            )?])
        })
        .await
    }

    async fn start_reported_part(&mut self, rows: Arc<Vec<ExportRow>>) -> Result<(), UserError> {
        let schema = reported_predictions_schema();
        self.start_part("predictions", schema, 3, move || {
            Ok(vec![build_reported_predictions_batch(&rows)?])
        })
        .await
    }

    async fn start_curves_part(&mut self, rows: Arc<Vec<ExportRow>>) -> Result<(), UserError> {
        let columns = self.context.columns.clone();
        let spec = self.context.spec.clone();
        let schema = columns.curves_schema();
        self.start_part("curves", schema, 3, move || {
            Ok(vec![columns.build_curves_batch(&spec, &rows)?])
        })
        .await
    }

    async fn flush_trials(&mut self) -> Result<(), UserError> {
        let batches = std::mem::take(&mut self.trials);
        self.start_part(
            "trials",
            self.context.columns.trials_schema(),
            2,
            move || Ok(batches),
        )
        .await
    }

    /// Waits until everything is written. With `even_empty`, tables without rows are written too,
    /// so that they can be read.
    pub(super) async fn finish(mut self, even_empty: bool) -> Result<WrittenParts, UserError> {
        if !self.rows.is_empty() || (even_empty && self.received == 0) {
            self.flush_parts().await?;
        }
        if !self.trials.is_empty() {
            self.flush_trials().await?;
        }

        while self.join_next_part().await? {}
        self.written.sort_by(|a, b| a.part.path.cmp(&b.part.path));
        Ok(WrittenParts {
            written: self.written,
            hosts: self.hosts,
            received: self.received,
        })
    }

    /// Starts to write a part, once fewer others are being written than there are processors.
    async fn start_part(
        &mut self,
        table: &'static str,
        schema: Arc<Schema>,
        order: usize,
        batches: impl FnOnce() -> Result<Vec<RecordBatch>, ArrowError> + Send + 'static,
    ) -> Result<(), UserError> {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        while self.tasks.len() >= most {
            self.join_next_part().await?;
        }

        let path = format!(
            "{table}/{}-{:05}.parquet",
            self.context.prefix, self.started_parts
        );
        self.started_parts += 1;
        let location = self.context.location.clone();
        self.tasks.spawn(async move {
            let encoded_schema = schema.clone();
            let encoded = tokio::task::spawn_blocking(move || {
                EncodedPart::encode(batches, &encoded_schema, order)
            });
            let encoded = encoded.await.map_err(|e| parquet_error(&e))??;
            let part = DatasetPart {
                path,
                rows: encoded.rows,
                bytes: encoded.bytes.len() as u64,
                sha256: encoded.sha256,
            };

            location.write_part(&part.path, encoded.bytes).await?;
            Ok(WrittenPart {
                table,
                schema,
                part,
            })
        });

        Ok(())
    }

    /// Waits for one part; returns whether there was one.
    async fn join_next_part(&mut self) -> Result<bool, UserError> {
        match self.tasks.join_next().await {
            None => Ok(false),
            Some(written) => {
                self.written.push(written.map_err(|e| parquet_error(&e))??);
                Ok(true)
            }
        }
    }
}

struct EncodedPart {
    rows: u64,
    sha256: String,
    bytes: Vec<u8>,
}

impl EncodedPart {
    /// Encodes rows that are sorted by their first `order` columns.
    fn encode(
        batches: impl FnOnce() -> Result<Vec<RecordBatch>, ArrowError>,
        schema: &Schema,
        order: usize,
    ) -> Result<Self, UserError> {
        let batches = batches().map_err(|e| parquet_error(&e))?;
        let bytes = encode_part(&batches, schema, order).map_err(|e| parquet_error(&e))?;

        Ok(Self {
            rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            sha256: hex::encode(Sha256::digest(&bytes)),
            bytes,
        })
    }
}

fn parquet_error(error: &dyn std::fmt::Display) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("rows cannot be written as Parquet: {error}"),
    )
}
