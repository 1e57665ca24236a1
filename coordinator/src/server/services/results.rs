//! Reads of stored rows in bounded pages: tables, curves, trials, predictions.

use ergodic_common::dataset::Dataset;
use ergodic_common::spec::Probe;
use ergodic_common::trial::Predictions;
use ergodic_common::{ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::table::{
    AnalysisError, RowSource, TableEntry, TableParams, TableQuery, Weighting,
};
use crate::server::limits::{PageSender, Permit, ResponseStream};
use crate::server::services::access::SweepApi;
use crate::server::services::snapshot::SweepSnapshot;
use crate::server::{ServerContext, store_error};
use crate::store::StoreReader;

/// Rows per page of `Trials`.
pub(crate) const TRIALS_PER_PAGE: usize = 512;

/// For fewer rows another reader is not worth its opening.
pub(crate) const ROWS_PER_READER: u64 = 10_000;

/// What to do where an answer in one piece would be too large.
pub(crate) const USE_PAGES_HINT: &str =
    "a newer `ergodic` takes it page by page; or name fewer axes (--by)";

/// What to do where even pages are.
pub(crate) const FEWER_ROWS_HINT: &str =
    "name fewer axes (--by), or all of them, and no --at; or `ergodic export` it and ask the files";

pub(crate) fn table_error(error: AnalysisError) -> UserError {
    match error {
        AnalysisError::Unknown(message) => UserError::new(ErrorCode::NotFound, message),
        AnalysisError::Invalid(message) => UserError::new(ErrorCode::BadInput, message),
        AnalysisError::Store(error) => store_error(error),
    }
}

/// Sends entries page by page, of which the first one says what the columns are: also where there is no entry.
pub(crate) fn send_entry_pages<P: Default + Send + 'static>(
    pages: &PageSender<P>,
    first: P,
    fill: impl Fn(&mut P, &[TableEntry]),
    work_out: impl FnOnce(&mut dyn FnMut(Vec<TableEntry>) -> bool) -> Result<(), AnalysisError>,
) -> Result<(), AnalysisError> {
    let mut first = Some(first);
    work_out(&mut |entries| {
        let mut page = first.take().unwrap_or_default();
        fill(&mut page, &entries);
        pages.send_page_blocking(Ok(page))
    })?;

    if let Some(page) = first {
        pages.send_page_blocking(Ok(page));
    }

    Ok(())
}

pub(crate) fn to_table_question(request: &v1::TableRequest) -> TableParams<'_> {
    let weighting = if request.cells_alike {
        Weighting::Cells
    } else {
        Weighting::Trials
    };
    TableParams {
        by: &request.by,
        metric: &request.metric,
        at: &request.at,
        stats: &request.stats,
        weighting,
    }
}

pub(crate) fn table_without_rows(found: &SweepSnapshot, query: &TableQuery) -> v1::TableResponse {
    v1::TableResponse {
        sweep: found.id.clone(),
        name: found.spec.name.clone(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&found.spec),
        rows: Vec::new(),
        better: query
            .metric()
            .larger_is_better()
            .map_or(0, |larger| if larger { 1 } else { -1 }),
        done: found.done,
        trials: found.trials,
        data: found.data_provenance.clone(),
        numerics: found.spec.numerics.clone(),
        columns: query.statistic_columns(),
        weighting: query.weighting_name().unwrap_or_default().to_owned(),
        unranked: query.unranked_reason().unwrap_or_default().to_owned(),
        ranked_by: Some(query.selection_metric())
            .filter(|by| *by != query.metric())
            .map(|by| by.name().into_owned())
            .unwrap_or_default(),
    }
}

pub(crate) fn curves_without_points(
    found: &SweepSnapshot,
    query: &TableQuery,
) -> v1::CurvesResponse {
    v1::CurvesResponse {
        sweep: found.id.clone(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&found.spec),
        points: Vec::new(),
        columns: query.statistic_columns(),
    }
}

/// Sends rows in pages, the first of which says what the columns are.
/// The columns of a sweep's rows, without rows.
pub(crate) fn empty_trials_page(found: &SweepSnapshot) -> v1::TrialsResponse {
    v1::TrialsResponse {
        sweep: found.id.clone(),
        axes: found
            .spec
            .grid
            .axes()
            .iter()
            .map(|axis| axis.name.clone())
            .collect(),
        metrics: found
            .spec
            .measure
            .metrics
            .iter()
            .map(|m| m.name().into_owned())
            .collect(),
        numerics: found.spec.numerics.clone(),
        rows: Vec::new(),
    }
}

pub(crate) fn send_trials(
    reader: &dyn StoreReader,
    found: &SweepSnapshot,
    pages: &PageSender<v1::TrialsResponse>,
) -> Result<(), UserError> {
    let mut page = empty_trials_page(found);
    let mut cell: (u64, Vec<v1::AxisValue>) = (u64::MAX, Vec::new());
    reader
        .read_trials(found.number, &mut |row| {
            let key = row.result.key;
            if cell.0 != key.cell {
                cell = (
                    key.cell,
                    found
                        .spec
                        .grid
                        .axis_values(key.cell)
                        .iter()
                        .map(Into::into)
                        .collect(),
                );
            }

            page.rows.push(v1::TrialRow {
                result: Some(row.result.into()),
                values: cell.1.clone(),
                worker: row.worker,
            });

            page.rows.len() < TRIALS_PER_PAGE
                || pages.send_page_blocking(Ok(std::mem::take(&mut page)))
        })
        .map_err(store_error)?;

    // An empty last page is sent too: a sweep without rows still has columns.
    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

/// Bytes of predictions per page.
pub(crate) const PREDICTIONS_PAGE_BYTES: usize = 1 << 20;

/// Sends what was predicted, the first page saying for which images.
pub(crate) fn send_predictions(
    shared: &ServerContext,
    found: &SweepSnapshot,
    probe: &Probe,
    pages: &PageSender<v1::PredictionsResponse>,
) -> Result<(), UserError> {
    let (images, labels) = read_probe_set(shared, found, probe)?;
    let axes = found
        .spec
        .grid
        .axes()
        .iter()
        .map(|axis| axis.name.clone())
        .collect();
    let mut page = v1::PredictionsResponse {
        sweep: found.id.clone(),
        axes,
        images,
        labels,
        rows: Vec::new(),
    };

    let mut bytes = 0;
    let reader = shared.store.open_reader().map_err(store_error)?;
    let mut send = |key: TrialKey, predictions: Predictions| {
        bytes += predictions.classes.len();
        page.rows.push(v1::PredictionRow {
            key: Some(key.into()),
            values: found
                .spec
                .grid
                .axis_values(key.cell)
                .iter()
                .map(Into::into)
                .collect(),
            steps: predictions.steps,
            classes: predictions.classes,
        });

        if bytes < PREDICTIONS_PAGE_BYTES {
            return true;
        }

        bytes = 0;
        pages.send_page_blocking(Ok(std::mem::take(&mut page)))
    };
    reader
        .read_predictions(found.number, &mut send)
        .map_err(store_error)?;

    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

/// The test images that predictions were kept for, and their labels.
pub(crate) fn read_probe_set(
    shared: &ServerContext,
    found: &SweepSnapshot,
    probe: &Probe,
) -> Result<(Vec<u32>, Vec<u8>), UserError> {
    let lost = |what: String| {
        UserError::new(
            ErrorCode::Internal,
            format!("the sweep's dataset is lost: {what}"),
        )
    };
    let hash = found.data_hash.ok_or_else(|| lost("it has none".into()))?;
    let path = shared.catalog.blobs.blob_path(&hash);
    let bytes = std::fs::read(&path).map_err(|e| lost(format!("{}: {e}", path.display())))?;
    let dataset = Dataset::decode(&bytes).map_err(|e| lost(e.to_string()))?;

    // The choice ignores repeat and cell.
    let streams = found
        .spec
        .trial_streams(TrialKey { cell: 0, repeat: 0 }, [0; 32]);
    let images = dataset.choose_probe_set(probe.points, &streams);
    let labels = images
        .iter()
        .map(|image| dataset.test.labels[*image as usize])
        .collect();

    Ok((images, labels))
}

impl SweepApi {
    /// Reads the rows of a sweep, on several threads where there are many of them.
    pub(crate) async fn read_rows<T: Send + 'static>(
        &self,
        found: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>) -> Result<T, AnalysisError> + Send + 'static,
    ) -> Result<T, Status> {
        let spec = found.spec.clone();
        let sweep = found.number;
        let data = found.data_hash.unwrap_or_default();
        let shared = self.0.clone();
        let places = self.reader_permits(found.done)?;
        let task = tokio::task::spawn_blocking(move || {
            let readers = shared
                .store
                .open_readers(places.len())
                .map_err(store_error)?;
            work(RowSource {
                spec: &spec,
                sweep,
                dataset_hash: data,
                readers: &readers,
            })
            .map_err(table_error)
        });
        let result: Result<T, UserError> =
            task.await.map_err(|e| Status::internal(e.to_string()))?;

        result.map_err(Into::into)
    }

    /// Room for an answer about all cells, and so many bytes besides.
    pub(crate) async fn acquire_for_cells(
        &self,
        found: &SweepSnapshot,
        more: u64,
    ) -> Result<Permit, Status> {
        let cells = found
            .spec
            .grid
            .cell_count()
            .min(found.done)
            .saturating_mul(1024);
        let bytes = found
            .done
            .saturating_mul(32)
            .saturating_add(cells)
            .saturating_add(more);

        self.acquire_for_answer(
            bytes,
            "ask about fewer cells or trials, or `ergodic export` the sweep and ask the files",
        )
        .await
    }

    /// Room for an answer of so many bytes.
    pub(crate) async fn acquire_for_answer(
        &self,
        bytes: u64,
        instead: &str,
    ) -> Result<Permit, Status> {
        self.0
            .limits
            .answer_bytes
            .acquire_for_answer(bytes, instead)
            .await
    }

    /// The same as [`Self::read_rows`] for what is sent page by page.
    pub(crate) fn stream_rows<T: Send + 'static>(
        &self,
        found: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>, &PageSender<T>) -> Result<(), AnalysisError> + Send + 'static,
    ) -> Result<ResponseStream<T>, Status> {
        let spec = found.spec.clone();
        let sweep = found.number;
        let data = found.data_hash.unwrap_or_default();
        let shared = self.0.clone();
        let mut places = self.reader_permits(found.done)?;
        let count = places.len();

        let (pages, stream) = PageSender::new(places.remove(0));
        tokio::task::spawn_blocking(move || {
            let _held = places;
            let readers = shared.store.open_readers(count).map_err(store_error);
            let sent = readers.and_then(|readers| {
                work(
                    RowSource {
                        spec: &spec,
                        sweep,
                        dataset_hash: data,
                        readers: &readers,
                    },
                    &pages,
                )
                .map_err(table_error)
            });

            if let Err(error) = sent {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });

        Ok(stream)
    }

    /// Places for the readers of so many rows: one at least, and as many more as help and are free.
    pub(crate) fn reader_permits(&self, rows: u64) -> Result<Vec<Permit>, Status> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = threads.min((rows / ROWS_PER_READER) as usize);
        let first = self.0.limits.readers.try_acquire()?;
        let others = (1..wanted).map_while(|_| self.0.limits.readers.try_acquire().ok());
        Ok(std::iter::once(first).chain(others).collect())
    }

    pub(crate) async fn read_single_trial(
        &self,
        found: &SweepSnapshot,
        key: TrialKey,
    ) -> Result<v1::TrialsResponse, Status> {
        let number = found.number;
        let row = self
            .read_store(move |reader| reader.read_trial(number, key).map_err(store_error))
            .await?
            .ok_or_else(|| {
                let message = format!(
                    "the sweep {} has no result of a trial {key}: see explain {} {key}",
                    found.id, found.id
                );
                UserError::new(ErrorCode::NotFound, message)
            })?;

        let values = found
            .spec
            .grid
            .axis_values(key.cell)
            .iter()
            .map(Into::into)
            .collect();
        let row = v1::TrialRow {
            result: Some(row.result.into()),
            values,
            worker: row.worker,
        };

        Ok(v1::TrialsResponse {
            rows: vec![row],
            ..empty_trials_page(found)
        })
    }
}
