//! `SweepService`: what users ask.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::refuse_misleading_sweep;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::{BUILD, ErrorCode};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::convert::WireError;
use ergodic_proto::status::UserError;
use ergodic_proto::v1::sweep_service_server::SweepService;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tonic::{Request, Response, Status};

use crate::analysis::compare::{CompareParams, CompareQuery};
use crate::analysis::table::{AnalysisError, RowSource, TableEntry, TableParams, TableQuery};
use crate::core::queries::SweepMatch;
use crate::core::{Core, Steering, Sweep};
use crate::process_stats;
use crate::server::auth::Principal;
use crate::server::convert::{to_contrast, to_curve_point, to_table_row};
use crate::server::engine::EngineEvent;
use crate::server::limits::{PageSender, ResponseStream};
use crate::server::removal::RemovedData;
use crate::server::services::access::{SweepApi, check_grammar_support, requester_name};
use crate::server::services::explain::explain_match;
use crate::server::services::export_rows;
use crate::server::services::export_rows::RowsQuery;
use crate::server::services::launch::PreparedSweep;
use crate::server::services::results::{
    FEWER_ROWS_HINT, USE_PAGES_HINT, curves_without_points, read_probe_set, send_entry_pages,
    send_predictions, send_trials, table_error, table_without_rows, to_table_question,
};
use crate::server::status::{
    all_statuses, list_statuses_from, sweep_status, unreadable_status, worker_statuses,
};
use crate::server::watch_grid::build_watch_grid;
use crate::server::{ServerContext, lost_blobs, removal, store_error, sweep_changes};

/// Sweeps per page of `ListPages`.
const SWEEPS_PER_PAGE: usize = 500;
/// Shortest time between two messages of `Watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

#[tonic::async_trait]
impl SweepService for SweepApi {
    type WatchStream = ResponseStream<v1::WatchResponse>;
    type TrialsStream = ResponseStream<v1::TrialsResponse>;
    type PredictionsStream = ResponseStream<v1::PredictionsResponse>;
    type RowsStream = ResponseStream<v1::RowsResponse>;
    type TablePagesStream = ResponseStream<v1::TableResponse>;
    type CurvePagesStream = ResponseStream<v1::CurvesResponse>;
    type ListPagesStream = ResponseStream<v1::ListResponse>;

    async fn launch(
        &self,
        request: Request<v1::LaunchRequest>,
    ) -> Result<Response<v1::LaunchResponse>, Status> {
        // Whoever hangs up meanwhile leaves the work behind until it notices: it counts until it has ended.
        let place = Arc::new(self.0.limits.launches.try_acquire()?);
        let by = requester_name(&request);
        let mut request = request.into_inner();
        if !request.verify_checksum() {
            return Err(Status::data_loss(
                "the sweep was damaged on its way here: launch it again",
            ));
        }

        let source: SpecSource = request
            .source
            .ok_or_else(|| {
                Status::invalid_argument("the field source of LaunchRequest is missing")
            })?
            .try_into()
            .map_err(|e: WireError| Status::invalid_argument(e.to_string()))?;
        let source = self.pin_numerics_class(source, place.clone()).await?;
        if request.resume
            && let Some(number) = self.find_unfinished(&source).await?
        {
            let status = self.steer_sweep(number, Steering::Resume).await?;
            return Ok(Response::new(v1::LaunchResponse {
                status,
                found: true,
                ..Default::default()
            }));
        }

        let PreparedSweep {
            row,
            spec,
            data_description,
        } = self
            .prepare_sweep(source, by, place.clone(), refuse_misleading_sweep)
            .await?;

        if request.reuse {
            let launched = self
                .launch_missing_trials(row, spec, request.resume, place)
                .await?;
            return Ok(Response::new(v1::LaunchResponse {
                data_description,
                ..launched
            }));
        }

        let files: Vec<[u8; 32]> = row.named_files().collect();
        let number = self.store_new_sweep(row, Arc::new(spec)).await?;
        self.0.catalog.blobs.release(&files);
        let status = self.query_status(number).await?;
        Ok(Response::new(v1::LaunchResponse {
            status,
            data_description,
            ..Default::default()
        }))
    }

    async fn list_pages(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<Self::ListPagesStream>, Status> {
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let this = Self(self.0.clone());
        tokio::spawn(async move {
            let mut from = i64::MIN;
            loop {
                let page =
                    this.query_core(move |core| list_statuses_from(core, from, SWEEPS_PER_PAGE));
                let page = page.await;
                let last = page
                    .as_ref()
                    .ok()
                    .filter(|page| page.len() == SWEEPS_PER_PAGE)
                    .and_then(|page| page.last());
                let next = last.map(|(number, _)| number + 1);

                let sweeps = page.map(|page| page.into_iter().map(|(_, status)| status).collect());
                let sent = pages
                    .send_page(sweeps.map(|sweeps| v1::ListResponse { sweeps }))
                    .await;

                match next {
                    Some(next) if sent => from = next,
                    _ => return,
                }
            }
        });

        Ok(Response::new(stream))
    }

    async fn list(
        &self,
        _: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let sweeps = self.query_core(all_statuses).await?;
        Ok(Response::new(v1::ListResponse { sweeps }))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let status = |core: &Core, meant: SweepMatch<'_>| match meant {
            SweepMatch::Readable(sweep) => sweep_status(core, sweep),
            SweepMatch::Unreadable(sweep) => unreadable_status(sweep),
        };
        let status = self
            .with_any_sweep(&request.into_inner().sweep, status)
            .await?;
        Ok(Response::new(v1::StatusResponse {
            status: Some(add_server_state(&self.0, status)),
        }))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let place = self.0.limits.watchers.try_acquire()?;
        let caller = request.extensions().get::<Principal>().cloned();
        let id = self
            .with_sweep(&request.into_inner().sweep, |_, sweep| sweep.id.clone())
            .await?;
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

    async fn workers(
        &self,
        _: Request<v1::WorkersRequest>,
    ) -> Result<Response<v1::WorkersResponse>, Status> {
        let workers = self
            .query_core(|core| worker_statuses(core, core_seconds(core)))
            .await?;
        Ok(Response::new(v1::WorkersResponse { workers }))
    }

    async fn table(
        &self,
        request: Request<v1::TableRequest>,
    ) -> Result<Response<v1::TableResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let question = to_table_question(&request);
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let asked = query.clone();
        let _room = self
            .acquire_for_answer(
                query.estimate_bytes(&found.spec, found.done, false, false),
                USE_PAGES_HINT,
            )
            .await?;

        let rows = self
            .read_rows(&found, move |rows| asked.compute_table(rows))
            .await?;
        let table = table_without_rows(&found, &query);
        Ok(Response::new(v1::TableResponse {
            rows: rows.iter().map(to_table_row).collect(),
            ..table
        }))
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
            .acquire_for_answer(
                query.estimate_bytes(&found.spec, found.done, false, true),
                FEWER_ROWS_HINT,
            )
            .await?;

        let table = table_without_rows(&found, &query);
        let work = move |rows: RowSource<'_>,
                         pages: &PageSender<v1::TableResponse>|
              -> Result<(), AnalysisError> {
            let _room = room;
            let fill = |page: &mut v1::TableResponse, entries: &[TableEntry]| {
                page.rows = entries.iter().map(to_table_row).collect()
            };
            send_entry_pages(pages, table, fill, |each| {
                query.for_each_table_page(rows, each)
            })
        };

        Ok(Response::new(self.stream_rows(&found, work)?))
    }

    async fn trials(
        &self,
        request: Request<v1::TrialsRequest>,
    ) -> Result<Response<Self::TrialsStream>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;

        if let Some(key) = request.trial {
            let page = self.read_single_trial(&found, key.into()).await?;
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(page)))));
        }

        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || {
            let sent = shared
                .store
                .open_reader()
                .map_err(store_error)
                .and_then(|r| send_trials(r.as_ref(), &found, &pages));
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

    async fn rows(
        &self,
        request: Request<v1::RowsRequest>,
    ) -> Result<Response<Self::RowsStream>, Status> {
        let v1::RowsRequest {
            sweep,
            after,
            grammar,
        } = request.into_inner();
        let found = self.find_snapshot(&sweep).await?;

        // Later than the sweep was found, and earlier than its rows are read: it never says more than there is.
        let (source, status) = self
            .with_sweep(&found.id, |core, sweep| {
                (sweep.record.source.clone(), sweep_status(core, sweep))
            })
            .await?;
        check_grammar_support(grammar, &source, "ergodic")?;

        let asked = RowsQuery {
            number: found.number,
            status: Some(status),
            source,
            data_hash: found.data_hash,
            after,
        };

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

    async fn curves(
        &self,
        request: Request<v1::CurvesRequest>,
    ) -> Result<Response<v1::CurvesResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let by = &request.by;
        let stats = &request.stats;
        let question = TableParams {
            by,
            metric: &request.metric,
            stats,
            ..TableParams::default()
        };
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let asked = query.clone();

        let _room = self
            .acquire_for_answer(
                query.estimate_bytes(&found.spec, found.done, true, false),
                USE_PAGES_HINT,
            )
            .await?;

        let points = self
            .read_rows(&found, move |rows| asked.compute_curves(rows))
            .await?;
        let curves = curves_without_points(&found, &query);
        Ok(Response::new(v1::CurvesResponse {
            points: points.iter().map(to_curve_point).collect(),
            ..curves
        }))
    }

    async fn curve_pages(
        &self,
        request: Request<v1::CurvesRequest>,
    ) -> Result<Response<Self::CurvePagesStream>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let by = &request.by;
        let stats = &request.stats;
        let question = TableParams {
            by,
            metric: &request.metric,
            stats,
            ..TableParams::default()
        };
        let query = TableQuery::new(&found.spec, &question).map_err(table_error)?;
        let room = self
            .acquire_for_answer(
                query.estimate_bytes(&found.spec, found.done, true, true),
                FEWER_ROWS_HINT,
            )
            .await?;

        let curves = curves_without_points(&found, &query);
        let work = move |rows: RowSource<'_>,
                         pages: &PageSender<v1::CurvesResponse>|
              -> Result<(), AnalysisError> {
            let _room = room;
            let fill = |page: &mut v1::CurvesResponse, entries: &[TableEntry]| {
                page.points = entries.iter().map(to_curve_point).collect();
            };
            send_entry_pages(pages, curves, fill, |each| {
                query.for_each_curve_page(rows, each)
            })
        };

        Ok(Response::new(self.stream_rows(&found, work)?))
    }

    async fn compare(
        &self,
        request: Request<v1::CompareRequest>,
    ) -> Result<Response<v1::CompareResponse>, Status> {
        let request = request.into_inner();
        let found = self.find_snapshot(&request.sweep).await?;
        let baseline: Vec<_> = request
            .baseline
            .into_iter()
            .map(|choice| (choice.axis, choice.value))
            .collect();
        let contest = CompareParams {
            baseline: &baseline,
            metric: &request.metric,
            at: &request.at,
            level: request.level,
        };
        let comparison = CompareQuery::new(&found.spec, &contest).map_err(table_error)?;
        let asked = comparison.clone();

        let _room = self.acquire_for_cells(&found, 0).await?;
        let rows = self
            .read_rows(&found, move |rows| asked.compute_contrasts(rows))
            .await?;
        Ok(Response::new(v1::CompareResponse {
            sweep: found.id,
            name: found.spec.name.clone(),
            metric: comparison.metric().name().into_owned(),
            baseline: comparison.describe_baseline(&found.spec),
            axes: found
                .spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.clone())
                .collect(),
            note: comparison.describe_caveats(&rows),
            rows: rows.iter().map(to_contrast).collect(),
            done: found.done,
            trials: found.trials,
            data: found.data_provenance,
            numerics: found.spec.numerics.clone(),
        }))
    }

    async fn distance(
        &self,
        request: Request<v1::DistanceRequest>,
    ) -> Result<Response<v1::DistanceResponse>, Status> {
        self.answer_distance(request.into_inner()).await
    }

    async fn effects(
        &self,
        request: Request<v1::EffectsRequest>,
    ) -> Result<Response<v1::EffectsResponse>, Status> {
        self.answer_effects(request.into_inner()).await
    }

    async fn variance(
        &self,
        request: Request<v1::VarianceRequest>,
    ) -> Result<Response<v1::VarianceResponse>, Status> {
        self.answer_variance(request.into_inner()).await
    }

    async fn needs(
        &self,
        request: Request<v1::SampleSizeRequest>,
    ) -> Result<Response<v1::SampleSizeResponse>, Status> {
        Ok(Response::new(
            self.answer_sample_size(request.into_inner()).await?,
        ))
    }

    async fn steer(
        &self,
        request: Request<v1::SteerRequest>,
    ) -> Result<Response<v1::SteerResponse>, Status> {
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

        let number = self
            .with_sweep(&request.sweep, |_, sweep| sweep.number)
            .await?;
        let status = match steering {
            Steering::Retry => self.retry_sweep(number).await?,
            _ => self.steer_sweep(number, steering).await?,
        };
        Ok(Response::new(v1::SteerResponse { status }))
    }

    async fn extend(
        &self,
        request: Request<v1::ExtendRequest>,
    ) -> Result<Response<v1::ExtendResponse>, Status> {
        let by = requester_name(&request);
        Ok(Response::new(
            self.extend_sweep(request.into_inner(), by).await?,
        ))
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::RemoveResponse>, Status> {
        let v1::RemoveRequest { sweep, force } = request.into_inner();
        let named = |_: &Core, meant: SweepMatch<'_>| match meant {
            SweepMatch::Readable(sweep) => (sweep.record.clone(), sweep.spec.name.clone()),
            SweepMatch::Unreadable(sweep) => (
                sweep.record.clone(),
                sweep.record.source.sweep_name().unwrap_or_default(),
            ),
        };
        let (record, name) = self.with_any_sweep(&sweep, named).await?;
        let RemovedData {
            trials,
            files,
            bytes,
        } = removal::remove_sweep(&self.0, record.clone(), force).await?;

        Ok(Response::new(v1::RemoveResponse {
            sweep: record.id.clone(),
            name,
            trials,
            files,
            bytes,
        }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let request = request.into_inner();
        let mut lines = match request.trial {
            None => self.with_any_sweep(&request.sweep, explain_match).await?,
            Some(key) => self.explain_trial(&request.sweep, key.into()).await?,
        };
        lines.extend(
            self.0
                .storage_trouble()
                .map(|why| format!("The coordinator cannot store results: {why}.")),
        );

        Ok(Response::new(v1::ExplainResponse { lines }))
    }

    async fn info(
        &self,
        request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::InfoResponse>, Status> {
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
    /// Steers a sweep; its status once that is durable.
    pub(crate) async fn steer_sweep(
        &self,
        number: i64,
        steering: Steering,
    ) -> Result<Option<v1::SweepStatus>, Status> {
        sweep_changes::steer_sweep(&self.0, number, steering).await?;
        self.query_status(number).await
    }

    /// Has failed trials run again, and those whose files are lost.
    pub(crate) async fn retry_sweep(&self, number: i64) -> Result<Option<v1::SweepStatus>, Status> {
        let mut lost = Vec::new();
        // Of others it is told below why not.
        if self
            .query_core(move |core| core.validate_redo(number))
            .await?
            .is_ok()
        {
            lost = lost_blobs::find_trials_to_redo(&self.0, number).await?;
        }

        if lost.is_empty() {
            return self.steer_sweep(number, Steering::Retry).await;
        }

        tracing::info!(
            sweep = number,
            trials = lost.len(),
            "trials whose files are lost are run once more"
        );
        sweep_changes::run_exclusively(&self.0, move |shared| async move {
            sweep_changes::send_and_wait(&shared, |reply| EngineEvent::Redo(number, lost, reply))
                .await
        })
        .await?;

        let failed = move |core: &Core| core.sweep(number).is_some_and(Sweep::has_failures);
        match self.query_core(failed).await? {
            true => self.steer_sweep(number, Steering::Retry).await,
            false => self.query_status(number).await,
        }
    }
}

/// A change of a sweep's share.
fn parse_share_change(priority: Option<i32>, weight: Option<f64>) -> Result<Steering, Status> {
    let default = Share::default();
    let wanted = Share {
        priority: priority.unwrap_or(default.priority),
        weight: weight.unwrap_or(default.weight),
    };
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

/// Adds what the core does not know.
fn add_server_state(shared: &ServerContext, status: v1::SweepStatus) -> v1::SweepStatus {
    let leader = shared.leadership.other_leader().unwrap_or_default();
    v1::SweepStatus {
        trouble: shared.storage_trouble().unwrap_or_default(),
        leader,
        ..status
    }
}

async fn send_watch_updates(
    shared: Arc<ServerContext>,
    id: String,
    messages: PageSender<v1::WatchResponse>,
) {
    let mut changes = shared.engine.subscribe_changes();
    let mut stop = shared.stopping.clone();

    loop {
        let wanted = id.clone();
        let seen =
            |core: &Core, sweep: &Sweep| (sweep_status(core, sweep), build_watch_grid(sweep));
        let answer = shared
            .engine
            .query_core(move |core| core.find_sweep(&wanted).ok().map(|sweep| seen(core, sweep)));
        let Ok(Some((status, grid))) = answer.await else {
            return;
        };
        let status = add_server_state(&shared, status);
        let open = matches!(
            status.state(),
            v1::SweepState::Running | v1::SweepState::Paused
        );
        let ended = !open || !status.withheld.is_empty();

        // A slow reader holds up this task alone.
        if !messages
            .send_page(Ok(v1::WatchResponse {
                status: Some(status),
                grid,
            }))
            .await
            || ended
        {
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
