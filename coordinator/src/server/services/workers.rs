//! `WorkerService`: what workers ask.

use std::sync::Arc;

use ergodic_common::spec_file::grammar::GRAMMAR;
use ergodic_common::{Spec, TrialResult};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1::worker_service_server::WorkerService;
use ergodic_proto::{MAX_BATCH_RESULTS, PROTOCOL_VERSION, v1};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session;
use crate::core::MetricPositions;
use crate::server::ServerContext;
use crate::server::auth::Principal;
use crate::server::convert::fence_from_wire;
use crate::server::engine::{BatchRefusal, IncomingBatch, WorkerEvent};
use crate::server::limits::{Permit, ResponseStream};
use crate::server::services::access::check_grammar_support;
use crate::store::StoreError;

pub(crate) struct WorkerApi(pub(crate) Arc<ServerContext>);

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    type SessionStream = ResponseStream<v1::SessionResponse>;
    type FetchCheckpointStream = ResponseStream<v1::FetchCheckpointResponse>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = request.extensions().get::<Principal>().cloned();
        let messages = session::open_session(self.0.clone(), caller, request.into_inner()).await?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn commit_results(
        &self,
        request: Request<v1::CommitResultsRequest>,
    ) -> Result<Response<v1::CommitResultsResponse>, Status> {
        let mut request = request.into_inner();
        if !request.verify_checksum() {
            return Err(Status::data_loss(
                "these results were damaged on their way here: send them again",
            ));
        }

        let (sweep, spec) = self.find_sweep(&request.sweep).await?;
        let held = self
            .0
            .limits
            .result_bytes
            .try_acquire_bytes(request.encoded_len())?;
        let delivery = to_incoming_batch(request, sweep, &spec, held)?;
        let rows = delivery.rows.clone();

        let weights: Vec<[u8; 32]> = delivery
            .results
            .iter()
            .filter_map(|result| result.weights_hash)
            .collect();

        let (reply, answered) = oneshot::channel();
        self.0
            .engine
            .send_event(WorkerEvent::BatchReceived(Box::new(IncomingBatch {
                reply,
                ..delivery
            })));

        let report = answered
            .await
            .map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        self.0.catalog.blobs.release(&weights);
        let report = report.map_err(|refusal| match refusal {
            BatchRefusal::NotLeased(key) => Status::permission_denied(format!(
                "the trial {key} is not in the lease it was delivered under"
            )),
            BatchRefusal::Overloaded => self.0.limits.result_bytes.overloaded_status(),
            // Whoever sends it again sends the file first.
            BatchRefusal::StoreFailed(error @ StoreError::BlobMissing(_)) => {
                Status::failed_precondition(error.to_string())
            }
            BatchRefusal::StoreFailed(error) => Status::unavailable(error.to_string()),
        })?;
        self.0
            .metrics
            .count_stored_trials(report.stored.iter().map(|at| &rows[*at]));

        Ok(Response::new(v1::CommitResultsResponse {
            stored: report.stored.len() as u32,
            duplicates: (report.already_stored.len() as u64 - report.mismatches) as u32,
            mismatches: (report.mismatches + report.contradicted) as u32,
            fenced: report.fenced,
        }))
    }

    async fn get_sweep(
        &self,
        request: Request<v1::GetSweepRequest>,
    ) -> Result<Response<v1::GetSweepResponse>, Status> {
        let v1::GetSweepRequest {
            sweep: id,
            protocol,
        } = request.into_inner();
        let wanted = id.clone();
        let record = self
            .0
            .engine
            .query_core(move |core| {
                core.sweeps()
                    .find(|sweep| sweep.id == wanted)
                    .map(|sweep| sweep.record.clone())
            })
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?
            .ok_or_else(|| {
                Status::not_found(format!(
                    "there is no sweep {id}: if it was here, it was removed"
                ))
            })?;

        // Those of protocol 1 know the first grammar alone.
        check_grammar_support(
            if protocol < 2 { 1 } else { GRAMMAR },
            &record.source,
            "program",
        )?;
        let answer = v1::GetSweepResponse {
            source: Some((&record.source).into()),
            data_hash: record.data.hash.map_or_else(Vec::new, |hash| hash.to_vec()),
            data_train: record.data.train,
            checksum: Vec::new(),
        };

        Ok(Response::new(if protocol == PROTOCOL_VERSION {
            answer.with_checksum()
        } else {
            answer
        }))
    }

    async fn keep_checkpoint(
        &self,
        request: Request<Streaming<v1::KeepCheckpointRequest>>,
    ) -> Result<Response<v1::KeepCheckpointResponse>, Status> {
        self.0.receive_checkpoint(request.into_inner()).await?;
        Ok(Response::new(v1::KeepCheckpointResponse {}))
    }

    async fn fetch_checkpoint(
        &self,
        request: Request<v1::FetchCheckpointRequest>,
    ) -> Result<Response<Self::FetchCheckpointStream>, Status> {
        Ok(Response::new(
            self.0.open_checkpoint(request.into_inner()).await?,
        ))
    }
}

impl WorkerApi {
    /// Number of a sweep, and what it is.
    async fn find_sweep(&self, id: &str) -> Result<(i64, Arc<Spec>), Status> {
        let wanted = id.to_owned();
        let found = self.0.engine.query_core(move |core| {
            let sweep = core.sweeps().find(|sweep| sweep.id == wanted)?;
            Some((sweep.number, sweep.spec.clone()))
        });
        let found = found
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;

        found.ok_or_else(|| {
            Status::not_found(format!(
                "there is no sweep {id}: if it was here, it was removed"
            ))
        })
    }
}

/// A batch for the sweep of this number.
///
/// # Errors
/// A field is missing or not what it should be.
pub fn to_incoming_batch(
    request: v1::CommitResultsRequest,
    sweep: i64,
    spec: &Spec,
    held: Permit,
) -> Result<IncomingBatch, Status> {
    let metrics = spec.measure.metrics.len();
    let invalid = |message: String| Status::invalid_argument(message);

    if request.results.len() > MAX_BATCH_RESULTS {
        return Err(invalid(format!(
            "{} results in one batch; at most {MAX_BATCH_RESULTS} are taken",
            request.results.len()
        )));
    }

    let fence = request
        .fence
        .ok_or_else(|| invalid("the field fence of CommitResultsRequest is missing".into()))?;
    let results = request
        .results
        .into_iter()
        .map(TrialResult::try_from)
        .collect::<Result<Vec<_>, _>>();
    let results = results.map_err(|e| invalid(e.to_string()))?;
    if let Some(result) = results.iter().find(|r| r.metrics.len() != metrics) {
        let found = result.metrics.len();
        return Err(invalid(format!(
            "the trial {} has {found} metrics, the sweep has {metrics}",
            result.key
        )));
    }

    let kept = MetricPositions::from_spec(spec);
    let rows = results
        .iter()
        .map(|result| kept.build_row_from_result(result))
        .collect();

    // Replaced by the caller, who waits at the other end.
    let (reply, _) = oneshot::channel();
    Ok(IncomingBatch {
        worker: request.worker,
        fence: fence_from_wire(&fence),
        sweep,
        results,
        rows,
        permit: held,
        reply,
    })
}
