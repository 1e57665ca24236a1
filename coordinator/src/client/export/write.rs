//! Rows into parts: several are encoded and written at a time, while further rows come.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::columns::{Columns, ProbeSet, Row};
use super::encode::parquet;
use super::manifest::{Manifest, Part};
use super::place::Place;

/// Bytes of curves and predictions, uncompressed, after which a part ends: large enough to read fast, small enough to hold several.
const PART: usize = 64 << 20;
/// Rows after which a part of `trials` or `cells` ends.
const SMALL_ROWS: usize = 250_000;

/// What parts are made with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) place: Arc<Place>,
    pub(super) spec: Arc<Spec>,
    pub(super) columns: Arc<Columns>,
    pub(super) probe: Arc<ProbeSet>,
    /// How the names of parts begin.
    pub(super) prefix: String,
}

/// Parts that are being written.
pub(super) struct Writing {
    tools: Tools,
    /// Rows of the next parts, and their bytes.
    rows: Vec<Row>,
    bytes: usize,
    /// Rows of the next part of `trials`.
    trials: Vec<RecordBatch>,
    tasks: JoinSet<Result<Written, UserError>>,
    written: Vec<Written>,
    /// How many parts were begun: their names are in the order of their rows.
    begun: usize,
    received: u64,
    hosts: BTreeMap<String, u64>,
}

struct Written {
    table: &'static str,
    schema: Arc<Schema>,
    part: Part,
}

/// What was written.
pub(super) struct Parts {
    written: Vec<Written>,
    hosts: BTreeMap<String, u64>,
    pub(super) received: u64,
}

impl Parts {
    /// Adds them to a manifest.
    pub(super) fn enter(self, manifest: &mut Manifest) {
        for Written { table, schema, part } in self.written {
            manifest.add(table, &schema, Some(part));
        }
        for (host, trials) in self.hosts {
            *manifest.hosts.entry(host).or_default() += trials;
        }
    }
}

impl Writing {
    pub(super) fn new(tools: Tools) -> Self {
        Self {
            tools,
            rows: Vec::new(),
            bytes: 0,
            trials: Vec::new(),
            tasks: JoinSet::new(),
            written: Vec::new(),
            begun: 0,
            received: 0,
            hosts: BTreeMap::new(),
        }
    }

    /// Writes the table of cells.
    pub(super) async fn cells(&mut self, data: [u8; 32]) -> Result<(), UserError> {
        let cells: Vec<u64> = self.tools.spec.grid.iter().collect();
        for cells in cells.chunks(SMALL_ROWS) {
            let (tools, cells) = (self.tools.clone(), cells.to_vec());
            let batches = move || Ok(vec![tools.columns.cells_of(&tools.spec, &data, &cells)?]);
            self.begin("cells", self.tools.columns.cells(), 1, batches).await?;
        }
        Ok(())
    }

    /// Takes a row, which comes after all others in the order (cell, repeat).
    pub(super) async fn take(&mut self, row: Row) -> Result<(), UserError> {
        let result = &row.result;
        if result.metrics.len() != self.tools.columns.metrics() {
            let message = format!("the row of {} has other metrics than its sweep", result.key);
            return Err(UserError::new(ErrorCode::Internal, message));
        }
        self.bytes += 8 * result.curve.values.len() + 8 * result.predictions.classes.len();
        self.received += 1;
        match self.hosts.get_mut(&row.worker) {
            Some(trials) => *trials += 1,
            // Trials that nobody lived to tell of have no worker.
            None if row.worker.is_empty() => {}
            None => drop(self.hosts.insert(row.worker.clone(), 1)),
        }
        self.rows.push(row);
        if self.bytes >= PART || self.rows.len() >= SMALL_ROWS { self.cut().await } else { Ok(()) }
    }

    /// Ends the parts at hand.
    async fn cut(&mut self) -> Result<(), UserError> {
        let (rows, tools) = (Arc::new(std::mem::take(&mut self.rows)), self.tools.clone());
        self.bytes = 0;
        let trials = tools.columns.trials_of(&tools.spec, &rows).map_err(|e| unfit(&e))?;
        self.trials.push(trials);
        if self.trials.iter().map(RecordBatch::num_rows).sum::<usize>() >= SMALL_ROWS {
            self.cut_trials().await?;
        }
        if !self.tools.probe.images.is_empty() {
            let (rows, tools) = (rows.clone(), tools.clone());
            let batches = move || Ok(vec![Columns::predictions_of(&rows, &tools.probe)?]);
            self.begin("predictions", Columns::predictions(), 3, batches).await?;
        }
        let batches = move || Ok(vec![tools.columns.curves_of(&rows)?]);
        self.begin("curves", self.tools.columns.curves(), 3, batches).await
    }

    async fn cut_trials(&mut self) -> Result<(), UserError> {
        let batches = std::mem::take(&mut self.trials);
        self.begin("trials", self.tools.columns.trials(), 2, move || Ok(batches)).await
    }

    /// Waits until everything is written. Without a row, tables are written too if `even_empty`, so that they can be read.
    pub(super) async fn finish(mut self, even_empty: bool) -> Result<Parts, UserError> {
        if !self.rows.is_empty() || (even_empty && self.received == 0) {
            self.cut().await?;
        }
        if !self.trials.is_empty() {
            self.cut_trials().await?;
        }
        while self.join().await? {}
        self.written.sort_by(|a, b| a.part.path.cmp(&b.part.path));
        Ok(Parts { written: self.written, hosts: self.hosts, received: self.received })
    }

    /// Has a part written, once fewer others are being written than there are processors.
    async fn begin(
        &mut self,
        table: &'static str,
        schema: Arc<Schema>,
        order: usize,
        batches: impl FnOnce() -> Result<Vec<RecordBatch>, ArrowError> + Send + 'static,
    ) -> Result<(), UserError> {
        let most = std::thread::available_parallelism().map_or(1, usize::from);
        while self.tasks.len() >= most {
            self.join().await?;
        }
        let path = format!("{table}/{}-{:05}.parquet", self.tools.prefix, self.begun);
        self.begun += 1;
        let place = self.tools.place.clone();
        self.tasks.spawn(async move {
            let of = schema.clone();
            let encoded = tokio::task::spawn_blocking(move || {
                let batches = batches().map_err(|e| unfit(&e))?;
                let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
                let bytes = parquet(&batches, &of, order).map_err(|e| unfit(&e))?;
                let sha256 = ergodic_common::trial::to_hex(&Sha256::digest(&bytes));
                Ok::<_, UserError>((rows, sha256, bytes))
            });
            let (rows, sha256, bytes) = encoded.await.map_err(|e| unfit(&e))??;
            let part = Part { path, rows, bytes: bytes.len() as u64, sha256 };
            place.put(&part.path, bytes).await?;
            Ok(Written { table, schema, part })
        });
        Ok(())
    }

    /// Waits for one part; whether there was one.
    async fn join(&mut self) -> Result<bool, UserError> {
        match self.tasks.join_next().await {
            None => Ok(false),
            Some(written) => {
                self.written.push(written.map_err(|e| unfit(&e))??);
                Ok(true)
            }
        }
    }
}

fn unfit(error: &dyn std::fmt::Display) -> UserError {
    UserError::new(ErrorCode::Internal, format!("rows cannot be written as Parquet: {error}"))
}
