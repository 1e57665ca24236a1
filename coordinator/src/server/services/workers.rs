//! `WorkerService`: the RPCs of workers.

use std::sync::Arc;

use ergodic_common::ids::{SweepId, SweepNumber};
use ergodic_common::spec_file::grammar::GRAMMAR;
use ergodic_common::{Spec, TrialResult};
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::v1::worker_service_server::WorkerService;
use ergodic_proto::{MAX_BATCH_RESULTS, PROTOCOL_VERSION, v1};
use prost::Message as _;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::session::{self, SessionCaller};
use crate::core::{CommitOutcome, MetricPositions, Sweep};
use crate::result_batch::{ResultBatch, ResultComparison};
use crate::server::ServerContext;
use crate::server::auth::Principal;
use crate::server::convert::fence_from_wire;
use crate::server::engine::{BatchRefusal, WorkerEvent};
use crate::server::limits::{Permit, ResponseStream};
use crate::server::listen::PeerInfo;
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
        let caller = SessionCaller {
            principal: request.extensions().get::<Principal>().cloned(),
            peer: request.extensions().get::<PeerInfo>().cloned(),
        };
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
                "these results were damaged in transit: send them again",
            ));
        }

        let (sweep, spec) = self
            .find_sweep(SweepId::from(request.sweep.as_str()))
            .await?;
        let permit = self
            .0
            .limits
            .result_bytes
            .try_acquire_bytes(request.encoded_len())?;
        let batch = read_result_batch(request, sweep, &spec)?;
        let outcome = self.store_batch(batch, permit).await?;

        Ok(Response::new(v1::CommitResultsResponse {
            stored: outcome.stored.len() as u32,
            duplicates: (outcome.already_stored.len() as u64 - outcome.mismatches) as u32,
            mismatches: outcome.differing_count() as u32,
            fenced: outcome.fenced,
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
        let record = self
            .query_sweep(id.into(), |sweep| sweep.record.clone())
            .await?;

        // Workers of protocol 1 know grammar 1 only.
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
    /// The number and spec of a sweep.
    async fn find_sweep(&self, id: SweepId) -> Result<(SweepNumber, Arc<Spec>), Status> {
        self.query_sweep(id, |sweep| (sweep.number, sweep.spec.clone()))
            .await
    }

    /// Queries the sweep with this id.
    async fn query_sweep<T: Send + 'static>(
        &self,
        id: SweepId,
        question: impl FnOnce(&Sweep) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let wanted = id.clone();
        let found = self
            .0
            .engine
            .query_core(move |core| core.sweeps().find(|sweep| sweep.id == wanted).map(question))
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;

        found.ok_or_else(|| {
            Status::not_found(format!(
                "there is no sweep {id}: it was removed, or never launched here"
            ))
        })
    }

    /// Stores a batch; returns when it is durable.
    async fn store_batch(
        &self,
        batch: ResultBatch,
        permit: Permit,
    ) -> Result<CommitOutcome, Status> {
        let weights = batch.named_weights();
        let (reply, answered) = oneshot::channel();
        self.0.engine.send_event(WorkerEvent::ResultsReceived {
            batch: Box::new(batch),
            permit,
            reply,
        });

        let committed = answered
            .await
            .map_err(|_| Status::unavailable("the coordinator is stopping"))?;
        self.0.catalog.blobs.release(&weights);
        let outcome = committed.map_err(|refusal| self.refusal_status(refusal))?;
        self.0.metrics.count_stored_trials(&outcome.stored);

        Ok(outcome)
    }

    fn refusal_status(&self, refusal: BatchRefusal) -> Status {
        match refusal {
            BatchRefusal::NotLeased(key) => Status::permission_denied(format!(
                "the trial {key} is not in the lease it was delivered under"
            )),
            BatchRefusal::Overloaded => self.0.limits.result_bytes.overloaded_status(),
            // FAILED_PRECONDITION makes the worker upload the file before it sends the batch again.
            BatchRefusal::StoreFailed(error @ StoreError::BlobMissing(_)) => {
                Status::failed_precondition(error.to_string())
            }
            BatchRefusal::StoreFailed(error) => Status::unavailable(error.to_string()),
        }
    }
}

/// The results of a request, for the sweep of this number.
///
/// # Errors
/// A field is missing or not what it should be.
pub fn read_result_batch(
    request: v1::CommitResultsRequest,
    sweep: SweepNumber,
    spec: &Spec,
) -> Result<ResultBatch, Status> {
    if request.results.len() > MAX_BATCH_RESULTS {
        return Err(Status::invalid_argument(format!(
            "{} results in one batch; at most {MAX_BATCH_RESULTS} are taken",
            request.results.len()
        )));
    }

    let fence = request.fence.ok_or_else(|| {
        Status::invalid_argument("the field fence of CommitResultsRequest is missing")
    })?;
    let results = request
        .results
        .into_iter()
        .map(TrialResult::try_from)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Status::invalid_argument(e.to_string()))?;
    check_metric_count(&results, spec.measure.metrics.len())?;

    Ok(ResultBatch {
        sweep,
        fence: fence_from_wire(&fence),
        process: request.worker.into(),
        results,
        positions: MetricPositions::from_spec(spec),
        comparison: ResultComparison::of_spec(spec),
    })
}

fn check_metric_count(results: &[TrialResult], metrics: usize) -> Result<(), Status> {
    match results
        .iter()
        .find(|result| result.metrics.len() != metrics)
    {
        None => Ok(()),
        Some(result) => Err(Status::invalid_argument(format!(
            "the trial {} has {} metrics, the sweep has {metrics}",
            result.key,
            result.metrics.len()
        ))),
    }
}
