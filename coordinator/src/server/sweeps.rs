//! `SweepService`: what users ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ergodic_common::dataset::Dataset;
use ergodic_common::escape::escape_line;
use ergodic_common::number_format::format_significant;
use ergodic_common::spec::misleading::{refuse_misleading_sweep, settings_for_new_sweep};
use ergodic_common::spec::scheduling::Share;
use ergodic_common::spec::{Probe, SpecSource};
use ergodic_common::trial::{CUDA_F32, Predictions};
use ergodic_common::{BUILD, ErrorCode, Spec, SpecError, TrialKey};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::status::{UserError, not_leader};
use ergodic_proto::v1::sweep_service_server::SweepService;
use ergodic_proto::{PROTOCOL_VERSION, USER_METADATA, v1};
use tonic::{Request, Response, Status};

use super::auth::Principal;
use super::engine::EngineEvent;
use super::limits::{PageSender, Permit, ResponseStream};
use super::removal::RemovedData;
use super::services::export_rows;
use super::services::export_rows::RowsQuery;
use super::status::{all_statuses, explain_cell, list_statuses_from, sweep_status, unreadable_status, worker_statuses};
use super::watch_grid::build_watch_grid;
use super::{ServerContext, lost_blobs, removal, store_error, sweep_changes};
use crate::analysis::compare::{CellContrast, CompareParams, CompareQuery};
use crate::analysis::table::{AnalysisError, RowSource, TableEntry, TableParams, TableQuery, Weighting};
use crate::core::audits::Finding;
use crate::core::quarantine::CRASH_LIMIT;
use crate::core::queries::{SweepMatch, TrialLocation};
use crate::core::{Core, Steering, Sweep, SweepRow, SweepState, SweepTallies, UnreadableSweep};
use crate::process_stats;
use crate::store::{StoreReader, StoredTrial};

pub(super) struct SweepApi(pub(super) Arc<ServerContext>);

/// A new sweep that can be stored.
pub(super) struct PreparedSweep {
    pub(super) row: SweepRow,
    pub(super) spec: Spec,
    /// What its data look like, in words.
    pub(super) data_description: String,
}

/// Rows per page of `Trials`.
const TRIALS_PER_PAGE: usize = 512;
/// For fewer rows another reader is not worth its opening.
const ROWS_PER_READER: u64 = 10_000;
/// Sweeps per page of `ListPages`.
const SWEEPS_PER_PAGE: usize = 500;
/// What to do where an answer in one piece would be too large.
const USE_PAGES_HINT: &str = "a newer `ergodic` takes it page by page; or name fewer axes (--by)";
/// What to do where even pages are.
const FEWER_ROWS_HINT: &str =
    "name fewer axes (--by), or all of them, and no --at; or `ergodic export` it and ask the files";
/// Shortest time between two messages of `Watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// What the answer to a question about a sweep starts from.
pub(super) struct SweepSnapshot {
    pub(super) number: i64,
    pub(super) id: String,
    pub(super) spec: Arc<Spec>,
    pub(super) done: u64,
    pub(super) trials: u64,
    pub(super) data_provenance: String,
    data_hash: Option<[u8; 32]>,
}

#[tonic::async_trait]
impl SweepService for SweepApi {
    type WatchStream = ResponseStream<v1::WatchResponse>;
    type TrialsStream = ResponseStream<v1::TrialsResponse>;
    type PredictionsStream = ResponseStream<v1::PredictionsResponse>;
    type RowsStream = ResponseStream<v1::RowsResponse>;
    type TablePagesStream = ResponseStream<v1::TableResponse>;
    type CurvePagesStream = ResponseStream<v1::CurvesResponse>;
    type ListPagesStream = ResponseStream<v1::ListResponse>;

    async fn launch(&self, request: Request<v1::LaunchRequest>) -> Result<Response<v1::LaunchResponse>, Status> {
        // Whoever hangs up meanwhile leaves the work behind until it notices: it counts until it has ended.
        let place = Arc::new(self.0.limits.launches.try_acquire()?);
        let by = requester_name(&request);
        let mut request = request.into_inner();
        if !request.verify_checksum() {
            return Err(Status::data_loss("the sweep was damaged on its way here: launch it again"));
        }
        let source: SpecSource = request
            .source
            .ok_or_else(|| Status::invalid_argument("the field source of LaunchRequest is missing"))?
            .try_into()
            .map_err(|e: WireError| Status::invalid_argument(e.to_string()))?;
        let source = self.pin_numerics_class(source, place.clone()).await?;
        if request.resume
            && let Some(number) = self.find_unfinished(&source).await?
        {
            let status = self.steer_sweep(number, Steering::Resume).await?;
            return Ok(Response::new(v1::LaunchResponse { status, found: true, ..Default::default() }));
        }
        let PreparedSweep { row, spec, data_description } =
            self.prepare_sweep(source, by, place.clone(), refuse_misleading_sweep).await?;
        if request.reuse {
            let launched = self.launch_missing_trials(row, spec, request.resume, place).await?;
            return Ok(Response::new(v1::LaunchResponse { data_description, ..launched }));
        }
        let files: Vec<[u8; 32]> = row.named_files().collect();
        let number = self.store_new_sweep(row, Arc::new(spec)).await?;
        self.0.catalog.blobs.release(&files);
        let status = self.query_status(number).await?;
        Ok(Response::new(v1::LaunchResponse { status, data_description, ..Default::default() }))
    }

    async fn list_pages(&self, _: Request<v1::ListRequest>) -> Result<Response<Self::ListPagesStream>, Status> {
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let this = Self(self.0.clone());
        tokio::spawn(async move {
            let mut from = i64::MIN;
            loop {
                let page = this.query_core(move |core| list_statuses_from(core, from, SWEEPS_PER_PAGE));
                let page = page.await;
                let last = page.as_ref().ok().filter(|page| page.len() == SWEEPS_PER_PAGE).and_then(|page| page.last());
                let next = last.map(|(number, _)| number + 1);
                let sweeps = page.map(|page| page.into_iter().map(|(_, status)| status).collect());
                let sent = pages.send_page(sweeps.map(|sweeps| v1::ListResponse { sweeps })).await;
                match next {
                    Some(next) if sent => from = next,
                    _ => return,
                }
            }
        });
        Ok(Response::new(stream))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let sweeps = self.query_core(all_statuses).await?;
        Ok(Response::new(v1::ListResponse { sweeps }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        let status = |core: &Core, meant: SweepMatch<'_>| match meant {
            SweepMatch::Readable(sweep) => sweep_status(core, sweep),
            SweepMatch::Unreadable(sweep) => unreadable_status(sweep),
        };
        let status = self.with_any_sweep(&request.into_inner().sweep, status).await?;
        Ok(Response::new(v1::StatusResponse { status: Some(add_server_state(&self.0, status)) }))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let place = self.0.limits.watchers.try_acquire()?;
        let caller = request.extensions().get::<Principal>().cloned();
        let id = self.with_sweep(&request.into_inner().sweep, |_, sweep| sweep.id.clone()).await?;
        let (messages, stream) = PageSender::new(place);
        let shared = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = send_watch_updates(shared.clone(), id, messages) => {}
                () = shared.wait_until_revoked(caller) => {}
            }
        });
        Ok(Response::new(stream))
    }

    async fn workers(&self, _: Request<v1::WorkersRequest>) -> Result<Response<v1::WorkersResponse>, Status> {
        let workers = self.query_core(|core| worker_statuses(core, core_seconds(core))).await?;
        Ok(Response::new(v1::WorkersResponse { workers }))
    }

    async fn table(&self, request: Request<v1::TableRequest>) -> Result<Response<v1::TableResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let question = to_table_question(&request);
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let asked = query.clone();
        let _room = self
            .acquire_for_answer(query.estimate_bytes(&found.spec, found.done, false, false), USE_PAGES_HINT)
            .await?;
        let rows = self.read_rows(&found, move |rows| asked.compute_table(rows)).await?;
        let table = table_without_rows(&found, &query);
        Ok(Response::new(v1::TableResponse { rows: rows.iter().map(to_table_row).collect(), ..table }))
    }

    async fn table_pages(
        &self,
        request: Request<v1::TableRequest>,
    ) -> Result<Response<Self::TablePagesStream>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let question = to_table_question(&request);
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let room = self
            .acquire_for_answer(query.estimate_bytes(&found.spec, found.done, false, true), FEWER_ROWS_HINT)
            .await?;
        let table = table_without_rows(&found, &query);
        let work = move |rows: RowSource<'_>, pages: &PageSender<v1::TableResponse>| -> Result<(), AnalysisError> {
            let _room = room;
            let fill = |page: &mut v1::TableResponse, entries: &[TableEntry]| {
                page.rows = entries.iter().map(to_table_row).collect()
            };
            send_entry_pages(pages, table, fill, |each| query.for_each_table_page(rows, each))
        };
        Ok(Response::new(self.stream_rows(&found, work)?))
    }

    async fn trials(&self, request: Request<v1::TrialsRequest>) -> Result<Response<Self::TrialsStream>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        if let Some(key) = request.trial {
            let page = self.read_single_trial(&found, key.into()).await?;
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(page)))));
        }
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let sent =
                shared.store.open_reader().map_err(store_error).and_then(|r| send_trials(r.as_ref(), &found, &pages));
            if let Err(error) = sent {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });
        Ok(Response::new(stream))
    }

    async fn predictions(
        &self,
        request: Request<v1::PredictionsRequest>,
    ) -> Result<Response<Self::PredictionsStream>, Status> {
        let found = self.find_snapshot(&request.into_inner().sweep).await?;
        let Some(probe) = found.spec.measure.probe.clone() else {
            let message = format!(
                "the sweep {} keeps no predictions: set probe = {{ points = 1000 }} under [measure] of the next one",
                found.id
            );
            return Err(UserError::new(ErrorCode::NotFound, message).into());
        };
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send_predictions(&shared, &found, &probe, &pages) {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });
        Ok(Response::new(stream))
    }

    async fn rows(&self, request: Request<v1::RowsRequest>) -> Result<Response<Self::RowsStream>, Status> {
        let v1::RowsRequest { sweep, after, grammar } = request.into_inner();
        let found = self.find_snapshot(&sweep).await?;
        // Later than the sweep was found, and earlier than its rows are read: it never says more than there is.
        let (source, status) =
            self.with_sweep(&found.id, |core, sweep| (sweep.record.source.clone(), sweep_status(core, sweep))).await?;
        check_grammar_support(grammar, &source, "ergodic")?;
        let asked = RowsQuery { number: found.number, status: Some(status), source, data_hash: found.data_hash, after };
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let probe = || match &found.spec.measure.probe {
                Some(probe) => read_probe_set(&shared, &found, probe),
                None => Ok(Default::default()),
            };
            let sent = shared
                .store
                .open_reader()
                .map_err(store_error)
                .and_then(|r| export_rows::send_rows_after(r.as_ref(), asked, probe, &pages));
            if let Err(error) = sent {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });
        Ok(Response::new(stream))
    }

    async fn curves(&self, request: Request<v1::CurvesRequest>) -> Result<Response<v1::CurvesResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let (by, stats) = (&request.by, &request.stats);
        let question = TableParams { by, metric: &request.metric, stats, ..TableParams::default() };
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let asked = query.clone();
        let _room =
            self.acquire_for_answer(query.estimate_bytes(&found.spec, found.done, true, false), USE_PAGES_HINT).await?;
        let points = self.read_rows(&found, move |rows| asked.compute_curves(rows)).await?;
        let curves = curves_without_points(&found, &query);
        Ok(Response::new(v1::CurvesResponse { points: points.iter().map(to_curve_point).collect(), ..curves }))
    }

    async fn curve_pages(
        &self,
        request: Request<v1::CurvesRequest>,
    ) -> Result<Response<Self::CurvePagesStream>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let (by, stats) = (&request.by, &request.stats);
        let question = TableParams { by, metric: &request.metric, stats, ..TableParams::default() };
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let room =
            self.acquire_for_answer(query.estimate_bytes(&found.spec, found.done, true, true), FEWER_ROWS_HINT).await?;
        let curves = curves_without_points(&found, &query);
        let work = move |rows: RowSource<'_>, pages: &PageSender<v1::CurvesResponse>| -> Result<(), AnalysisError> {
            let _room = room;
            let fill = |page: &mut v1::CurvesResponse, entries: &[TableEntry]| {
                page.points = entries.iter().map(to_curve_point).collect();
            };
            send_entry_pages(pages, curves, fill, |each| query.for_each_curve_page(rows, each))
        };
        Ok(Response::new(self.stream_rows(&found, work)?))
    }

    async fn compare(&self, request: Request<v1::CompareRequest>) -> Result<Response<v1::CompareResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let baseline: Vec<_> = request.baseline.into_iter().map(|choice| (choice.axis, choice.value)).collect();
        let contest =
            CompareParams { baseline: &baseline, metric: &request.metric, at: &request.at, level: request.level };
        let comparison = CompareQuery::new(&found.spec, &contest).map_err(table_error)?;
        let asked = comparison.clone();
        let _room = self.acquire_for_cells(&found, 0).await?;
        let rows = self.read_rows(&found, move |rows| asked.compute_contrasts(rows)).await?;
        Ok(Response::new(v1::CompareResponse {
            sweep: found.id,
            name: found.spec.name.clone(),
            metric: comparison.metric().name().into_owned(),
            baseline: comparison.describe_baseline(&found.spec),
            axes: found.spec.grid.axes().iter().map(|axis| axis.name.clone()).collect(),
            note: comparison.describe_caveats(&rows),
            rows: rows.iter().map(to_contrast).collect(),
            done: found.done,
            trials: found.trials,
            data: found.data_provenance,
            numerics: found.spec.numerics.clone(),
        }))
    }

    async fn distance(&self, request: Request<v1::DistanceRequest>) -> Result<Response<v1::DistanceResponse>, Status> {
        self.answer_distance(request.into_inner()).await
    }

    async fn effects(&self, request: Request<v1::EffectsRequest>) -> Result<Response<v1::EffectsResponse>, Status> {
        self.answer_effects(request.into_inner()).await
    }

    async fn variance(&self, request: Request<v1::VarianceRequest>) -> Result<Response<v1::VarianceResponse>, Status> {
        self.answer_variance(request.into_inner()).await
    }

    async fn needs(&self, request: Request<v1::SampleSizeRequest>) -> Result<Response<v1::SampleSizeResponse>, Status> {
        Ok(Response::new(self.answer_sample_size(request.into_inner()).await?))
    }

    async fn steer(&self, request: Request<v1::SteerRequest>) -> Result<Response<v1::SteerResponse>, Status> {
        let request = request.into_inner();
        let steering = match request.steering() {
            v1::Steering::Pause => Steering::Pause,
            v1::Steering::Resume => Steering::Resume,
            v1::Steering::Cancel => Steering::Cancel,
            v1::Steering::Retry => Steering::Retry,
            v1::Steering::Share => parse_share_change(request.priority, request.weight)?,
            v1::Steering::Unspecified => {
                return Err(Status::invalid_argument(
                    "the field steering of SteerRequest is missing, or of a newer version",
                ));
            }
        };
        let number = self.with_sweep(&request.sweep, |_, sweep| sweep.number).await?;
        let status = match steering {
            Steering::Retry => self.retry_sweep(number).await?,
            _ => self.steer_sweep(number, steering).await?,
        };
        Ok(Response::new(v1::SteerResponse { status }))
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        let by = requester_name(&request);
        Ok(Response::new(self.extend_sweep(request.into_inner(), by).await?))
    }

    async fn remove(&self, request: Request<v1::RemoveRequest>) -> Result<Response<v1::RemoveResponse>, Status> {
        let v1::RemoveRequest { sweep, force } = request.into_inner();
        let named = |_: &Core, meant: SweepMatch<'_>| match meant {
            SweepMatch::Readable(sweep) => (sweep.record.clone(), sweep.spec.name.clone()),
            SweepMatch::Unreadable(sweep) => {
                (sweep.record.clone(), sweep.record.source.sweep_name().unwrap_or_default())
            }
        };
        let (record, name) = self.with_any_sweep(&sweep, named).await?;
        let RemovedData { trials, files, bytes } = removal::remove_sweep(&self.0, record.clone(), force).await?;
        Ok(Response::new(v1::RemoveResponse { sweep: record.id.clone(), name, trials, files, bytes }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        let mut lines = match request.trial {
            None => self.with_any_sweep(&request.sweep, explain_match).await?,
            Some(key) => self.explain_trial(&request.sweep, key.into()).await?,
        };
        lines.extend(self.0.storage_trouble().map(|why| format!("The coordinator cannot store results: {why}.")));
        Ok(Response::new(v1::ExplainResponse { lines }))
    }

    async fn info(&self, request: Request<v1::InfoRequest>) -> Result<Response<v1::InfoResponse>, Status> {
        Ok(Response::new(v1::InfoResponse {
            principal: requester_name(&request),
            build: BUILD.to_owned(),
            protocol: PROTOCOL_VERSION,
            cpu_seconds: process_stats::cpu_seconds(),
            peak_rss_bytes: process_stats::peak_rss_bytes(),
            epoch: self.0.leadership.epoch(),
            leader: self.0.leadership.other_leader().unwrap_or_default(),
        }))
    }
}

impl SweepApi {
    pub(super) async fn query_core<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, Status> {
        self.0.engine.query_core(question).await.map_err(|_| self.0.unanswered_status())
    }

    /// Asks about the sweep that `id` means.
    pub(super) async fn with_sweep<T: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(&Core, &Sweep) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let about = |core: &Core, meant: SweepMatch<'_>| match meant {
            SweepMatch::Readable(sweep) => Ok(question(core, sweep)),
            SweepMatch::Unreadable(UnreadableSweep { record, why }) => {
                let message = format!("the sweep {} cannot be read by this program: {why}", record.id);
                Err(UserError::new(ErrorCode::Version, message))
            }
        };
        Ok(self.with_any_sweep(id, about).await??)
    }

    /// The same, whether the sweep can be read or not.
    async fn with_any_sweep<T: Send + 'static>(
        &self,
        id: &str,
        question: impl FnOnce(&Core, SweepMatch<'_>) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let id = id.to_owned();
        let answer = self.query_core(move |core| core.find_any_sweep(&id).map(|meant| question(core, meant))).await?;
        answer.map_err(|message| match self.0.leadership.other_leader() {
            // What was launched a moment ago may not have been read yet.
            Some(leader) if !leader.is_empty() => not_leader(&leader, ""),
            _ => UserError::new(ErrorCode::NotFound, message).into(),
        })
    }

    pub(super) async fn find_snapshot(&self, id: &str) -> Result<SweepSnapshot, Status> {
        let found = |_: &Core, sweep: &Sweep| SweepSnapshot {
            number: sweep.number,
            id: sweep.id.clone(),
            spec: sweep.spec.clone(),
            done: sweep.counts.done(),
            trials: sweep.total_trials(),
            data_provenance: sweep.record.data.provenance.clone(),
            data_hash: sweep.record.data.hash,
        };
        self.with_sweep(id, found).await
    }

    /// Reads the store away from the runtime's threads.
    async fn read_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn StoreReader) -> Result<T, UserError> + Send + 'static,
    ) -> Result<T, Status> {
        let (shared, place) = (self.0.clone(), self.0.limits.readers.try_acquire()?);
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            work(shared.store.open_reader().map_err(store_error)?.as_ref())
        });
        let result = task.await.map_err(|e| Status::internal(e.to_string()))?;
        result.map_err(Into::into)
    }

    /// Reads the rows of a sweep, on several threads where there are many of them.
    pub(super) async fn read_rows<T: Send + 'static>(
        &self,
        found: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>) -> Result<T, AnalysisError> + Send + 'static,
    ) -> Result<T, Status> {
        let (spec, sweep, data) = (found.spec.clone(), found.number, found.data_hash.unwrap_or_default());
        let (shared, places) = (self.0.clone(), self.reader_permits(found.done)?);
        let task = tokio::task::spawn_blocking(move || {
            let readers = shared.store.open_readers(places.len()).map_err(store_error)?;
            work(RowSource { spec: &spec, sweep, dataset_hash: data, readers: &readers }).map_err(table_error)
        });
        let result: Result<T, UserError> = task.await.map_err(|e| Status::internal(e.to_string()))?;
        result.map_err(Into::into)
    }

    /// Room for an answer about all cells, and so many bytes besides.
    pub(super) async fn acquire_for_cells(&self, found: &SweepSnapshot, more: u64) -> Result<Permit, Status> {
        let cells = found.spec.grid.cell_count().min(found.done).saturating_mul(1024);
        let bytes = found.done.saturating_mul(32).saturating_add(cells).saturating_add(more);
        self.acquire_for_answer(
            bytes,
            "ask about fewer cells or trials, or `ergodic export` the sweep and ask the files",
        )
        .await
    }

    /// Room for an answer of so many bytes.
    async fn acquire_for_answer(&self, bytes: u64, instead: &str) -> Result<Permit, Status> {
        self.0.limits.answer_bytes.acquire_for_answer(bytes, instead).await
    }

    /// The same as [`Self::read_rows`] for what is sent page by page.
    fn stream_rows<T: Send + 'static>(
        &self,
        found: &SweepSnapshot,
        work: impl FnOnce(RowSource<'_>, &PageSender<T>) -> Result<(), AnalysisError> + Send + 'static,
    ) -> Result<ResponseStream<T>, Status> {
        let (spec, sweep, data) = (found.spec.clone(), found.number, found.data_hash.unwrap_or_default());
        let (shared, mut places) = (self.0.clone(), self.reader_permits(found.done)?);
        let count = places.len();
        let (pages, stream) = PageSender::new(places.remove(0));
        tokio::task::spawn_blocking(move || {
            let _held = places;
            let readers = shared.store.open_readers(count).map_err(store_error);
            let sent = readers.and_then(|readers| {
                work(RowSource { spec: &spec, sweep, dataset_hash: data, readers: &readers }, &pages)
                    .map_err(table_error)
            });
            if let Err(error) = sent {
                let _ = pages.send_page_blocking(Err(error.into()));
            }
        });
        Ok(stream)
    }

    /// Places for the readers of so many rows: one at least, and as many more as help and are free.
    fn reader_permits(&self, rows: u64) -> Result<Vec<Permit>, Status> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = threads.min((rows / ROWS_PER_READER) as usize);
        let first = self.0.limits.readers.try_acquire()?;
        let others = (1..wanted).map_while(|_| self.0.limits.readers.try_acquire().ok());
        Ok(std::iter::once(first).chain(others).collect())
    }

    /// Steers a sweep; its status once that is durable.
    pub(super) async fn steer_sweep(&self, number: i64, steering: Steering) -> Result<Option<v1::SweepStatus>, Status> {
        sweep_changes::steer_sweep(&self.0, number, steering).await?;
        self.query_status(number).await
    }

    /// Has failed trials run again, and those whose files are lost.
    pub(super) async fn retry_sweep(&self, number: i64) -> Result<Option<v1::SweepStatus>, Status> {
        let mut lost = Vec::new();
        // Of others it is told below why not.
        if self.query_core(move |core| core.validate_redo(number)).await?.is_ok() {
            lost = lost_blobs::find_trials_to_redo(&self.0, number).await?;
        }
        if lost.is_empty() {
            return self.steer_sweep(number, Steering::Retry).await;
        }
        tracing::info!(sweep = number, trials = lost.len(), "trials whose files are lost are run once more");
        sweep_changes::run_exclusively(&self.0, move |shared| async move {
            sweep_changes::send_and_wait(&shared, |reply| EngineEvent::Redo(number, lost, reply)).await
        })
        .await?;
        let failed = move |core: &Core| core.sweep(number).is_some_and(Sweep::has_failures);
        match self.query_core(failed).await? {
            true => self.steer_sweep(number, Steering::Retry).await,
            false => self.query_status(number).await,
        }
    }

    pub(super) async fn query_status(&self, number: i64) -> Result<Option<v1::SweepStatus>, Status> {
        self.query_core(move |core| core.sweep(number).map(|sweep| sweep_status(core, sweep))).await
    }

    /// An unfinished sweep of the same content, the latest if there are several.
    async fn find_unfinished(&self, source: &SpecSource) -> Result<Option<i64>, Status> {
        let source = source.clone();
        self.query_core(move |core| {
            let same = |sweep: &&Sweep| {
                let old = &sweep.record.source;
                sweep.state.is_open()
                    && sweep.withheld.is_none()
                    && old.grammar == source.grammar
                    && (&old.text, &old.settings, &old.files) == (&source.text, &source.settings, &source.files)
            };
            core.sweeps().filter(same).last().map(|sweep| sweep.number)
        })
        .await
    }

    /// Pins a sweep to its numerics class in full, by a setting: a later version of this program must not take it for its own.
    async fn pin_numerics_class(&self, mut source: SpecSource, place: Arc<Permit>) -> Result<SpecSource, Status> {
        let read = source.clone();
        let (_asker, asked) = track_requester();
        let spec = tokio::task::spawn_blocking(move || {
            let _held = place;
            read_new_spec(&read, &asked)
        });
        let spec = spec.await;
        // What is wrong with it is told later.
        let Ok(Ok(spec)) = spec else { return Ok(source) };
        // Older programs work on it where they can.
        source.grammar = spec.min_grammar();
        source.settings.extend(settings_for_new_sweep(&spec));
        let numerics = spec.numerics;
        let class = if numerics == CUDA_F32 { self.find_cuda_class().await? } else { numerics };
        source.settings.push(format!("numerics=\"{class}\""));
        Ok(source)
    }

    /// The class that joined workers compute on CUDA: it depends on their devices.
    async fn find_cuda_class(&self) -> Result<String, Status> {
        let offered = self.query_core(|core| {
            let all = core.workers().filter(|(_, w)| w.connected).flat_map(|(_, w)| w.numerics.clone());
            all.filter(|class| class.starts_with("cuda-f32/")).collect::<BTreeSet<String>>()
        });
        let offered = Vec::from_iter(offered.await?);
        if offered.len() != 1 {
            let message = if offered.is_empty() {
                "numerics: no joined worker computes on CUDA: start one with --device cuda:0 first, or name the class in \
                 full, as in \"cuda-f32/2/sm90/cublas13.1\""
                    .to_owned()
            } else {
                format!(
                    "numerics: joined workers compute in several classes, which do not mix: name one of {}",
                    offered.join(", ")
                )
            };
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }
        Ok(offered.concat())
    }

    /// Reads the sweep file and pins the dataset: everything that can be wrong is found here, before anything is stored.
    ///
    /// `refuse` says what is asked of it beyond that it can be read.
    pub(super) async fn prepare_sweep(
        &self,
        source: SpecSource,
        launched_by: String,
        place: Arc<Permit>,
        refuse: impl FnOnce(&Spec) -> Result<(), SpecError> + Send + 'static,
    ) -> Result<PreparedSweep, Status> {
        let catalog = self.0.catalog.clone();
        let (_asker, asked) = track_requester();
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            let bad = |message: String| UserError::new(ErrorCode::BadInput, message);
            let mut source = source;
            let spec = read_new_spec(&source, &asked).map_err(|e| bad(e.to_string()))?;
            refuse(&spec).map_err(|e| bad(e.with_file(&source.file).to_string()))?;
            source.grammar = spec.min_grammar();
            source.cells_fingerprint = Some(spec.compute_cells_fingerprint());
            let (data, looks) = catalog.pin_dataset(&spec, &source.files).map_err(|e| bad(e.to_string()))?;
            let launched_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
            let id = generate_sweep_id(&source, launched_at);
            let (state, tallies) = (SweepState::Running, SweepTallies::default());
            let share = spec.scheduling.share;
            let row = SweepRow { number: 0, id, source, data, state, share, launched_at, launched_by, tallies };
            Ok(PreparedSweep { row, spec, data_description: looks })
        });
        let prepared: Result<_, UserError> = task.await.map_err(|e| Status::internal(e.to_string()))?;
        prepared.map_err(Into::into)
    }

    async fn read_single_trial(&self, found: &SweepSnapshot, key: TrialKey) -> Result<v1::TrialsResponse, Status> {
        let number = found.number;
        let row = self
            .read_store(move |reader| reader.read_trial(number, key).map_err(store_error))
            .await?
            .ok_or_else(|| {
                let message =
                    format!("the sweep {} has no result of a trial {key}: see explain {} {key}", found.id, found.id);
                UserError::new(ErrorCode::NotFound, message)
            })?;
        let values = found.spec.grid.axis_values(key.cell).iter().map(Into::into).collect();
        let row = v1::TrialRow { result: Some(row.result.into()), values, worker: row.worker };
        Ok(v1::TrialsResponse { rows: vec![row], ..empty_trials_page(found) })
    }

    async fn explain_trial(&self, id: &str, key: TrialKey) -> Result<Vec<String>, Status> {
        let place = move |core: &Core, sweep: &Sweep| {
            if !sweep.spec.has_trial(key) {
                let message = format!(
                    "the sweep {} has no trial {key}: its cells are numbered below {}, its repeats below {}",
                    sweep.id,
                    sweep.spec.grid.cell_number_bound(),
                    sweep.spec.repeats
                );
                return Err(UserError::new(ErrorCode::NotFound, message));
            }
            let state = sweep.state;
            let kept = core.checkpoint_steps(sweep.number, key);
            let lines = (explain_cell(sweep, key), core.explain_sweep(sweep));
            Ok((sweep.number, lines, core.locate_trial(sweep, key), kept, state))
        };
        let (number, (mut lines, sweep_lines), place, kept, state) = self.with_sweep(id, place).await??;
        match place {
            TrialLocation::Done => {
                let row = self.read_store(move |reader| reader.read_trial(number, key).map_err(store_error)).await?;
                lines.extend(row.map(|row| explain_end(&row)));
            }
            TrialLocation::Unneeded => {
                lines.push(format!("The trial {key} is not run: as far as is known, its cell needs fewer repeats."));
            }
            TrialLocation::Leased { fence, worker, running } => lines.push(format!(
                "The trial {key} is {} {worker}, under lease {} of epoch {}.",
                if running { "being run by" } else { "granted to" },
                fence.lease,
                fence.epoch
            )),
            TrialLocation::Quarantined(killed) => {
                lines.push(format!("The trial {key} was in flight when {} died.", killed.join(", ")));
                lines.push(match state {
                    SweepState::Cancelled => "The sweep was cancelled: it will not be run.".into(),
                    _ if killed.len() < CRASH_LIMIT => "It is run again at the end, alone.".into(),
                    _ => "It is given up.".into(),
                });
                lines.extend(sweep_lines);
            }
            TrialLocation::Pending => {
                lines.push(format!("The trial {key} waits for a worker."));
                if state.is_open() {
                    lines.extend(sweep_lines);
                } else {
                    lines.push("The sweep was cancelled: it will not be run.".into());
                }
            }
        }
        lines.extend(self.explain_audit(number, key).await?);
        lines.extend(
            kept.map(|steps| format!("A checkpoint of it after {steps} steps is kept: it goes on from there.")),
        );
        let attempts = self.read_store(move |reader| reader.read_attempts(number, key).map_err(store_error)).await?;
        lines.extend(attempts.iter().map(|attempt| match &attempt.worker[..] {
            "" => format!("An earlier attempt failed: {}.", attempt.cause),
            worker => {
                format!(
                    "An earlier attempt on {worker} failed after {} s: {}.",
                    format_significant(attempt.seconds, 4),
                    attempt.cause
                )
            }
        }));
        Ok(lines)
    }
}

impl SweepApi {
    /// What became of a trial's audit, if it has one.
    async fn explain_audit(&self, number: i64, key: TrialKey) -> Result<Option<String>, Status> {
        let read = move |reader: &dyn StoreReader| {
            let (audit, row) = (reader.read_audit(number, key), reader.read_trial(number, key));
            Ok((audit.map_err(store_error)?, row.map_err(store_error)?))
        };
        let (Some(audit), row) = self.read_store(read).await? else { return Ok(None) };
        let place = self.query_core(move |core| {
            let sweep = core.sweep(number)?;
            Some((core.locate_audit(sweep, key), sweep.state))
        });
        let first = describe_worker(&row.map(|row| row.worker).unwrap_or_default(), &audit.process);
        // Where it is not known whose the row is, or matters no more, any process may.
        let any = audit.process.is_empty();
        let second = describe_worker(&audit.auditor, &audit.auditor_process);
        Ok(Some(match audit.finding {
            Some(Finding::Same) => format!("Audit: {second} ran it again, after {first}, and got the same bits."),
            Some(Finding::Different) => format!(
                "ALARM: {second} ran it again and got other bits than {first}, whose row is kept; what differs: {}.",
                audit.why
            ),
            Some(Finding::Failed) if audit.auditor.is_empty() => format!("Its audit was given up: {}.", audit.why),
            Some(Finding::Failed) => format!("Its audit, by {second}, failed: {}.", audit.why),
            None => match place.await? {
                Some((TrialLocation::Leased { worker, running, .. }, _)) => {
                    let how = if running { "is being run again by" } else { "is to be run again by" };
                    format!("Audit: it {how} {worker}, after {first}.")
                }
                Some((_, SweepState::Completed)) if any => {
                    "It was chosen to be run again, but no worker process was there.".into()
                }
                Some((_, SweepState::Completed)) => {
                    format!("It was chosen to be audited, but no other worker process than {first} was there.")
                }
                Some((_, SweepState::Cancelled)) => "It was chosen to be audited, and will not be.".into(),
                _ if any => "It is to be run again by any worker process, and compared.".into(),
                _ => format!("It is to be audited by another worker process than {first}."),
            },
        }))
    }
}

/// A worker process in words: several may have the same name.
fn describe_worker(worker: &str, process: &str) -> String {
    if process.is_empty() {
        return worker.to_owned();
    }
    format!("{worker} (process {})", process.get(..8).unwrap_or(process))
}

fn explain_end(row: &StoredTrial) -> String {
    use ergodic_common::Outcome;
    let result = &row.result;
    let how = match &result.outcome {
        Outcome::Completed => format!("completed after {} steps", result.steps),
        Outcome::Diverged { step } => {
            format!("diverged at step {step}: the loss or a weight was no longer finite, which is a result")
        }
        Outcome::Failed { cause } => format!("failed: {cause}"),
    };
    let isa = if result.isa.is_empty() { String::new() } else { format!(", on {}", result.isa) };
    let what = format!("The trial {} {how}.", result.key);
    // Whoever is given up was computed by nobody.
    if row.worker.is_empty() {
        what
    } else {
        format!("{what} It took {} {} s{isa}.", row.worker, format_significant(result.seconds, 4))
    }
}

/// A change of a sweep's share.
fn parse_share_change(priority: Option<i32>, weight: Option<f64>) -> Result<Steering, Status> {
    let default = Share::default();
    let wanted = Share { priority: priority.unwrap_or(default.priority), weight: weight.unwrap_or(default.weight) };
    match wanted.check_ranges() {
        Ok(_) if (priority, weight) == (None, None) => {
            let message = "say --priority or --weight: which share is the sweep to have?";
            Err(UserError::new(ErrorCode::BadInput, message).into())
        }
        Ok(_) => Ok(Steering::Share { priority, weight }),
        Err(message) => Err(UserError::new(ErrorCode::BadInput, message).into()),
    }
}

fn core_seconds(core: &Core) -> f64 {
    core.latest_time().as_secs_f64()
}

/// Most bytes of what a client says of its user.
const MAX_NAME_BYTES: usize = 256;

/// Who asks: the token, or whoever the client says where tokens are not asked for.
fn requester_name<T>(request: &Request<T>) -> String {
    if let Some(caller) = request.extensions().get::<Principal>() {
        return caller.token_id.clone();
    }
    let said = request.metadata().get_bin(USER_METADATA).and_then(|said| said.to_bytes().ok()).unwrap_or_default();
    let said = &said[..said.len().min(MAX_NAME_BYTES)];
    escape_line(&String::from_utf8_lossy(said)).into_owned()
}

/// Reads the file of a new sweep for as long as somebody waits for it.
fn read_new_spec(source: &SpecSource, asked: &impl Fn() -> bool) -> Result<Spec, SpecError> {
    let spec = Spec::read_new_while_wanted(source, asked);
    if spec.is_err() && !asked() {
        tracing::debug!("nobody waits for this launch any more");
    }
    spec
}

/// Somebody who waits as long as the first half is there, which the second one tells: work on another thread ends with its request.
pub(super) fn track_requester() -> (Arc<()>, impl Fn() -> bool) {
    let asker = Arc::new(());
    let waits = Arc::downgrade(&asker);
    (asker, move || waits.strong_count() > 0)
}

/// Why a sweep is where it is.
fn explain_match(core: &Core, meant: SweepMatch<'_>) -> Vec<String> {
    match meant {
        SweepMatch::Readable(sweep) => core.explain_sweep(sweep),
        SweepMatch::Unreadable(UnreadableSweep { record, why }) => vec![
            format!("The sweep cannot be read by this program, and nothing of it is run: {why}."),
            format!("`ergodic rm {}` removes it; a backup takes it along as it is.", record.id),
        ],
    }
}

/// Sends a sweep file to programs alone that read it as it is meant.
///
/// # Errors
/// The program, which reads grammars up to this version, would misunderstand it.
pub(super) fn check_grammar_support(grammar: u32, source: &SpecSource, program: &str) -> Result<(), Status> {
    if source.grammar <= grammar.max(1) {
        return Ok(());
    }
    let message = format!(
        "the sweep is in version {} of the grammar, which this {program} is too old to know: use one of the coordinator's \
         version, {BUILD}",
        source.grammar
    );
    Err(UserError::new(ErrorCode::Version, message).into())
}

/// Eight letters and digits that no earlier sweep has.
fn generate_sweep_id(source: &SpecSource, launched_at: f64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 sweep id v1");
    hasher.update(source.text.as_bytes()).update(&launched_at.to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    hasher.finalize().as_bytes()[..8].iter().map(|b| ALPHABET[(*b % 32) as usize] as char).collect()
}

/// Adds what the core does not know.
fn add_server_state(shared: &ServerContext, status: v1::SweepStatus) -> v1::SweepStatus {
    let leader = shared.leadership.other_leader().unwrap_or_default();
    v1::SweepStatus { trouble: shared.storage_trouble().unwrap_or_default(), leader, ..status }
}

async fn send_watch_updates(shared: Arc<ServerContext>, id: String, messages: PageSender<v1::WatchResponse>) {
    let mut changes = shared.engine.subscribe_changes();
    let mut stop = shared.stopping.clone();
    loop {
        let wanted = id.clone();
        let seen = |core: &Core, sweep: &Sweep| (sweep_status(core, sweep), build_watch_grid(sweep));
        let answer = shared.engine.query_core(move |core| core.find_sweep(&wanted).ok().map(|sweep| seen(core, sweep)));
        let Ok(Some((status, grid))) = answer.await else { return };
        let status = add_server_state(&shared, status);
        let open = matches!(status.state(), v1::SweepState::Running | v1::SweepState::Paused);
        let ended = !open || !status.withheld.is_empty();
        // A slow reader holds up this task alone.
        if !messages.send_page(Ok(v1::WatchResponse { status: Some(status), grid })).await || ended {
            return;
        }
        tokio::select! {
            _ = async { tokio::time::sleep(WATCH_INTERVAL).await; changes.changed().await } => {}
            // Rates fade even when nothing happens.
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
            () = messages.wait_closed() => return,
        }
    }
}

pub(super) fn table_error(error: AnalysisError) -> UserError {
    match error {
        AnalysisError::Unknown(message) => UserError::new(ErrorCode::NotFound, message),
        AnalysisError::Invalid(message) => UserError::new(ErrorCode::BadInput, message),
        AnalysisError::Store(error) => store_error(error),
    }
}

/// Sends entries page by page, of which the first one says what the columns are: also where there is no entry.
fn send_entry_pages<P: Default + Send + 'static>(
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

fn to_table_question(request: &v1::TableRequest) -> TableParams<'_> {
    let weighting = if request.cells_alike { Weighting::Cells } else { Weighting::Trials };
    TableParams { by: &request.by, metric: &request.metric, at: &request.at, stats: &request.stats, weighting }
}

fn table_without_rows(found: &SweepSnapshot, query: &TableQuery) -> v1::TableResponse {
    v1::TableResponse {
        sweep: found.id.clone(),
        name: found.spec.name.clone(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&found.spec),
        rows: Vec::new(),
        better: query.metric().larger_is_better().map_or(0, |larger| if larger { 1 } else { -1 }),
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

fn curves_without_points(found: &SweepSnapshot, query: &TableQuery) -> v1::CurvesResponse {
    v1::CurvesResponse {
        sweep: found.id.clone(),
        metric: query.metric().name().into_owned(),
        axes: query.axis_names(&found.spec),
        points: Vec::new(),
        columns: query.statistic_columns(),
    }
}

fn to_curve_point(entry: &TableEntry) -> v1::CurvePoint {
    v1::CurvePoint {
        values: entry.values.iter().map(Into::into).collect(),
        step: entry.step,
        summary: Some(to_summary(entry)),
        figures: to_figures(&entry.statistics),
        note: entry.note.clone(),
    }
}

fn to_table_row(entry: &TableEntry) -> v1::TableRow {
    v1::TableRow {
        values: entry.values.iter().map(Into::into).collect(),
        summary: Some(to_summary(entry)),
        figures: to_figures(&entry.statistics),
        note: entry.note.clone(),
        rank: entry.rank.map(|place| place.rank),
        mean_rank: entry.rank.map(|place| place.mean_rank),
        may_be_best: entry.rank.is_some_and(|place| place.may_be_best),
    }
}

fn to_contrast(contrast: &CellContrast) -> v1::Contrast {
    let paired = &contrast.paired;
    v1::Contrast {
        values: contrast.values.iter().map(Into::into).collect(),
        n: paired.n,
        mean: paired.mean,
        baseline: paired.baseline,
        difference: paired.difference,
        std: paired.std,
        low: paired.interval.map(|ends| ends.0),
        high: paired.interval.map(|ends| ends.1),
        above: paired.above,
        below: paired.below,
        sign_p: paired.sign_p,
        sign_holm: contrast.sign_holm,
        wilcoxon_p: paired.wilcoxon.map(|test| test.p),
        wilcoxon_holm: contrast.wilcoxon_holm,
        wilcoxon_exact: paired.wilcoxon.is_some_and(|test| test.exact),
        correlation: paired.correlation,
        unpaired: paired.unpaired_repeats,
        saved: paired.saved_repeats(),
        note: contrast.note.clone(),
    }
}

/// What is not defined is NaN on the wire.
fn to_figures(figures: &[Option<f64>]) -> Vec<f64> {
    figures.iter().map(|x| x.unwrap_or(f64::NAN)).collect()
}

fn to_summary(entry: &TableEntry) -> v1::Summary {
    let s = &entry.summary;
    v1::Summary {
        n: s.n,
        diverged: entry.counts.diverged,
        failed: entry.counts.failed,
        mean: s.mean,
        std: s.std,
        ci95_low: s.ci95.map(|c| c.0),
        ci95_high: s.ci95.map(|c| c.1),
        min: s.min,
        median: s.median,
        max: s.max,
    }
}

/// Sends rows in pages, the first of which says what the columns are.
/// The columns of a sweep's rows, without rows.
fn empty_trials_page(found: &SweepSnapshot) -> v1::TrialsResponse {
    v1::TrialsResponse {
        sweep: found.id.clone(),
        axes: found.spec.grid.axes().iter().map(|axis| axis.name.clone()).collect(),
        metrics: found.spec.measure.metrics.iter().map(|m| m.name().into_owned()).collect(),
        numerics: found.spec.numerics.clone(),
        rows: Vec::new(),
    }
}

fn send_trials(
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
                cell = (key.cell, found.spec.grid.axis_values(key.cell).iter().map(Into::into).collect());
            }
            page.rows.push(v1::TrialRow {
                result: Some(row.result.into()),
                values: cell.1.clone(),
                worker: row.worker,
            });
            page.rows.len() < TRIALS_PER_PAGE || pages.send_page_blocking(Ok(std::mem::take(&mut page)))
        })
        .map_err(store_error)?;
    // An empty last page is sent too: a sweep without rows still has columns.
    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

/// Bytes of predictions per page.
const PREDICTIONS_PAGE_BYTES: usize = 1 << 20;

/// Sends what was predicted, the first page saying for which images.
fn send_predictions(
    shared: &ServerContext,
    found: &SweepSnapshot,
    probe: &Probe,
    pages: &PageSender<v1::PredictionsResponse>,
) -> Result<(), UserError> {
    let (images, labels) = read_probe_set(shared, found, probe)?;
    let axes = found.spec.grid.axes().iter().map(|axis| axis.name.clone()).collect();
    let mut page = v1::PredictionsResponse { sweep: found.id.clone(), axes, images, labels, rows: Vec::new() };
    let mut bytes = 0;
    let reader = shared.store.open_reader().map_err(store_error)?;
    let mut send = |key: TrialKey, predictions: Predictions| {
        bytes += predictions.classes.len();
        page.rows.push(v1::PredictionRow {
            key: Some(key.into()),
            values: found.spec.grid.axis_values(key.cell).iter().map(Into::into).collect(),
            steps: predictions.steps,
            classes: predictions.classes,
        });
        if bytes < PREDICTIONS_PAGE_BYTES {
            return true;
        }
        bytes = 0;
        pages.send_page_blocking(Ok(std::mem::take(&mut page)))
    };
    reader.read_predictions(found.number, &mut send).map_err(store_error)?;
    let _ = pages.send_page_blocking(Ok(page));
    Ok(())
}

/// The test images that predictions were kept for, and their labels.
fn read_probe_set(
    shared: &ServerContext,
    found: &SweepSnapshot,
    probe: &Probe,
) -> Result<(Vec<u32>, Vec<u8>), UserError> {
    let lost = |what: String| UserError::new(ErrorCode::Internal, format!("the sweep's dataset is lost: {what}"));
    let hash = found.data_hash.ok_or_else(|| lost("it has none".into()))?;
    let path = shared.catalog.blobs.blob_path(&hash);
    let bytes = std::fs::read(&path).map_err(|e| lost(format!("{}: {e}", path.display())))?;
    let dataset = Dataset::decode(&bytes).map_err(|e| lost(e.to_string()))?;
    // The choice ignores repeat and cell.
    let streams = found.spec.trial_streams(TrialKey { cell: 0, repeat: 0 }, [0; 32]);
    let images = dataset.choose_probe_set(probe.points, &streams);
    let labels = images.iter().map(|image| dataset.test.labels[*image as usize]).collect();
    Ok((images, labels))
}
