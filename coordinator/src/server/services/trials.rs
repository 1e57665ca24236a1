//! `Trials` and `Predictions`: a sweep's rows as stored, in pages.

use ergodic_common::dataset::Dataset;
use ergodic_common::ids::{CellHash, CellIndex};
use ergodic_common::spec::Probe;
use ergodic_common::trial::Outcome;
use ergodic_common::{BUILD, ErrorCode, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::distance::how_to_report;
use crate::server::limits::{PageSender, ResponseStream};
use crate::server::services::access::SweepApi;
use crate::server::services::further_columns::{FurtherColumns, FurtherValues};
use crate::server::services::snapshot::SweepSnapshot;
use crate::server::{ServerContext, store_error};
use crate::store::{StoreError, StoreReader};

/// Number of rows per page of `Trials`.
const TRIALS_PER_PAGE: usize = 512;
/// Maximum bytes of predictions per page.
const PREDICTIONS_PAGE_BYTES: usize = 1 << 20;

impl SweepApi {
    /// The body of `Trials`, for all trials of a sweep or one.
    pub(crate) async fn stream_trials(
        &self,
        request: v1::TrialsRequest,
    ) -> Result<ResponseStream<v1::TrialsResponse>, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        if let Some(key) = request.trial {
            let page = self.read_single_trial(&snapshot, key.into()).await?;
            return Ok(Box::pin(tokio_stream::once(Ok(page))));
        }

        let further = FurtherColumns::find(&snapshot.spec, &request.further_metrics)?;
        let trials = TrialPages {
            only_failed: request.only_failed,
            names: further.names(),
            snapshot,
        };
        if further.is_empty() {
            return self.stream_pages(move |context, pages| {
                let reader = context.store.open_reader().map_err(store_error)?;
                let sent = trials.send(reader.as_ref(), FurtherValues::none(), pages);
                sent.map_err(store_error)
            });
        }

        let bytes = further.estimate_bytes(trials.snapshot.done);
        let permit = self
            .acquire_for_answer(bytes, "name fewer columns (--metric)")
            .await?;
        let snapshot = trials.snapshot.clone();
        self.stream_rows(&snapshot, move |rows, pages| {
            let _permit = permit;
            let values = further.read_values(rows)?;
            let sent = rows
                .readers
                .with_reader(|reader| trials.send(reader, values, pages));
            Ok(sent?)
        })
    }

    async fn read_single_trial(
        &self,
        snapshot: &SweepSnapshot,
        key: TrialKey,
    ) -> Result<v1::TrialsResponse, Status> {
        let number = snapshot.number;
        let row = self
            .read_store(move |reader| reader.read_trial(number, key).map_err(store_error))
            .await?
            .ok_or_else(|| {
                let message = format!(
                    "the sweep {} has no result of a trial {key}: see `ergodic explain {} {key}`",
                    snapshot.id, snapshot.id
                );
                UserError::new(ErrorCode::NotFound, message)
            })?;

        let row = v1::TrialRow {
            result: Some(row.result.into()),
            values: snapshot.axis_values(key.cell),
            worker: row.worker,
        };

        Ok(v1::TrialsResponse {
            rows: vec![row],
            ..empty_trials_page(snapshot)
        })
    }

    /// The body of `Predictions`.
    pub(crate) async fn stream_predictions(
        &self,
        request: v1::PredictionsRequest,
    ) -> Result<ResponseStream<v1::PredictionsResponse>, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        let probe = snapshot.spec.measure.probe.clone();
        let is_of_program = snapshot.spec.program().is_some();
        if is_of_program && !request.programs {
            let message = format!(
                "this ergodic is too old to show predictions of programs: use the coordinator's version, {BUILD}"
            );
            return Err(UserError::new(ErrorCode::Version, message).into());
        }
        if snapshot.spec.grid.has_targets() && !is_of_program {
            let message = format!(
                "predictions are classes, and the images of the sweep {} have targets ('y_train' is F32): see test_loss in \
                 `ergodic table`",
                snapshot.id
            );
            return Err(UserError::new(ErrorCode::NotFound, message).into());
        }
        if probe.is_none() && !is_of_program {
            let message = format!(
                "the sweep {} keeps no predictions: set probe = {{ points = 1000 }} under [measure] in the next sweep",
                snapshot.id
            );
            return Err(UserError::new(ErrorCode::NotFound, message).into());
        }

        self.stream_pages(move |context, pages| {
            send_predictions(context, &snapshot, probe.as_ref(), pages)
        })
    }
}

/// A page with the columns of a sweep's rows and no rows.
fn empty_trials_page(snapshot: &SweepSnapshot) -> v1::TrialsResponse {
    let metrics = snapshot.spec.measure.metrics.iter();
    let better = metrics
        .clone()
        .map(|metric| match metric.larger_is_better() {
            Some(true) => 1,
            Some(false) => -1,
            None => 0,
        });
    v1::TrialsResponse {
        sweep: snapshot.id.to_string(),
        axes: snapshot.axis_names(),
        metrics: metrics.map(|metric| metric.name().into_owned()).collect(),
        numerics: snapshot.spec.numerics.clone(),
        rows: Vec::new(),
        better: better.collect(),
    }
}

/// The rows of a sweep that are sent.
struct TrialPages {
    snapshot: SweepSnapshot,
    only_failed: bool,
    /// Names of the columns after the metrics of the sweep.
    names: Vec<String>,
}

impl TrialPages {
    /// Sends all rows, or those of failed trials, in pages; the first page names the columns.
    fn send(
        &self,
        reader: &dyn StoreReader,
        mut further: FurtherValues,
        pages: &PageSender<v1::TrialsResponse>,
    ) -> Result<(), StoreError> {
        let snapshot = &self.snapshot;
        let mut page = empty_trials_page(snapshot);
        page.metrics.extend(self.names.iter().cloned());
        // Rows are sorted by cell, so the values of the last cell are kept instead of looked up per
        // row.
        let mut cell: (CellIndex, Vec<v1::AxisValue>) = (CellIndex(u64::MAX), Vec::new());

        reader.read_trials(snapshot.number, &mut |mut row| {
            if self.only_failed && !matches!(row.result.outcome, Outcome::Failed { .. }) {
                return true;
            }

            let key = row.result.key;
            if cell.0 != key.cell {
                cell = (key.cell, snapshot.axis_values(key.cell));
            }

            row.result.metrics.extend(further.take_values(key));
            page.rows.push(v1::TrialRow {
                result: Some(row.result.into()),
                values: cell.1.clone(),
                worker: row.worker,
            });

            page.rows.len() < TRIALS_PER_PAGE
                || pages.send_page_blocking(Ok(std::mem::take(&mut page)))
        })?;

        // An empty last page is sent too: a sweep without rows still has columns.
        let _ = pages.send_page_blocking(Ok(page));
        Ok(())
    }
}

/// Sends predictions in pages; the first page names the images, if there are any.
fn send_predictions(
    context: &ServerContext,
    snapshot: &SweepSnapshot,
    probe: Option<&Probe>,
    pages: &PageSender<v1::PredictionsResponse>,
) -> Result<(), UserError> {
    let (images, labels) = match probe {
        Some(probe) => read_probe_set(context, snapshot, probe)?,
        None => Default::default(),
    };
    let mut page = v1::PredictionsResponse {
        sweep: snapshot.id.to_string(),
        axes: snapshot.axis_names(),
        images,
        labels,
        rows: Vec::new(),
    };

    let mut bytes = 0;
    let mut trials = 0_u64;
    let reader = context.store.open_reader().map_err(store_error)?;
    reader
        .read_predictions(snapshot.number, &mut |key, predictions| {
            trials += 1;
            bytes += predictions.classes.len();
            page.rows.push(v1::PredictionRow {
                key: Some(key.into()),
                values: snapshot.axis_values(key.cell),
                steps: predictions.steps,
                classes: predictions.classes,
            });

            if bytes < PREDICTIONS_PAGE_BYTES {
                return true;
            }

            bytes = 0;
            pages.send_page_blocking(Ok(std::mem::take(&mut page)))
        })
        .map_err(store_error)?;
    if trials == 0 && probe.is_none() && snapshot.done > 0 {
        let message = format!(
            "no trial of {} has reported predictions: {}",
            snapshot.id,
            how_to_report(&snapshot.spec)
        );
        return Err(UserError::new(ErrorCode::NotFound, message));
    }

    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

/// Reads the test images of a sweep's predictions, with their labels.
pub(crate) fn read_probe_set(
    context: &ServerContext,
    snapshot: &SweepSnapshot,
    probe: &Probe,
) -> Result<(Vec<u32>, Vec<u8>), UserError> {
    let hash = snapshot
        .data_hash
        .ok_or_else(|| lost_dataset_error("it has none"))?;
    let path = context.catalog.blobs.blob_path(&hash.into());
    let bytes = std::fs::read(&path)
        .map_err(|e| lost_dataset_error(&format!("{}: {e}", path.display())))?;
    let dataset = Dataset::decode(&bytes).map_err(|e| lost_dataset_error(&e.to_string()))?;

    // The images depend on the sweep's seed alone, so the streams of any trial choose the same
    // ones.
    let streams = snapshot
        .spec
        .trial_streams(TrialKey::new(0, 0), CellHash([0; 32]));
    let images = dataset.choose_probe_set(probe.points, &streams);
    let labels = images
        .iter()
        .map(|image| dataset.test.labels[*image as usize])
        .collect();

    Ok((images, labels))
}

fn lost_dataset_error(why: &str) -> UserError {
    UserError::new(
        ErrorCode::Internal,
        format!("the sweep's dataset is lost: {why}"),
    )
}
