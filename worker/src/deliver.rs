//! Delivering results: unary batches, each repeated until the coordinator has answered for it.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::trial::Curve;
use ergodic_common::{Outcome, TrialResult};
use ergodic_proto::v1;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::desk::Parcel;
use crate::session::Backoff;
use crate::slots::Office;

/// Parcels under way at a time: one is stored while the next one travels.
const IN_FLIGHT: usize = 2;
/// Results wait at most this long for company.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Delivers for as long as the worker lives.
pub(crate) fn start(office: &Arc<Office>, client: &WorkerServiceClient<Channel>, worker: &str) {
    for _ in 0..IN_FLIGHT {
        tokio::spawn(courier(office.clone(), client.clone(), worker.to_owned()));
    }
}

async fn courier(office: Arc<Office>, client: WorkerServiceClient<Channel>, worker: String) {
    loop {
        let waited = tokio::time::timeout(PATIENCE, office.finished.notified()).await.is_err();
        while let Some(parcel) = office.with(|desk| desk.parcel(waited)) {
            // The other courier may find something too.
            office.finished.notify_one();
            send(&client, &worker, &parcel).await;
            office.with(|desk| desk.acknowledge(&parcel));
            office.changed.notify_one();
        }
    }
}

/// Sends a parcel until it is answered. Whatever looks like transport means "outcome unknown": the same again, which is
/// safe because a second delivery is only compared.
async fn send(client: &WorkerServiceClient<Channel>, worker: &str, parcel: &Parcel) {
    let mut request = v1::CommitResultsRequest {
        worker: worker.to_owned(),
        fence: Some(v1::Fence { lease: parcel.fence.lease, epoch: parcel.fence.epoch }),
        results: parcel.results.iter().cloned().map(Into::into).collect(),
        sweep: parcel.sweep.clone(),
    };
    let mut tried_as_failures = false;
    let mut backoff = Backoff::new();
    loop {
        let mut attempt = tonic::Request::new(request.clone());
        attempt.set_timeout(ANSWER_WITHIN);
        match client.clone().commit_results(attempt).await {
            Ok(answer) => return report(parcel, &answer.into_inner()),
            Err(status) if is_final(status.code()) && !tried_as_failures => {
                tracing::error!(%status, "the coordinator does not take these results; they are failures then");
                let failure = |result: &TrialResult| as_failure(result, status.message()).into();
                request.results = parcel.results.iter().map(failure).collect();
                tried_as_failures = true;
            }
            Err(status) if is_final(status.code()) => {
                tracing::error!(%status, results = parcel.results.len(), "the coordinator does not take these results");
                return;
            }
            Err(status) => {
                tracing::warn!(%status, "results not delivered; trying again");
                backoff.wait().await;
            }
        }
    }
}

/// A trial whose result cannot be taken must not be run again and again: it ends as failed, with the reason.
fn as_failure(result: &TrialResult, why: &str) -> TrialResult {
    TrialResult {
        outcome: Outcome::Failed {
            cause: format!("its result was not taken: {}", why.chars().take(500).collect::<String>()),
        },
        metrics: vec![f64::NAN; result.metrics.len()],
        curve: Curve::default(),
        ..result.clone()
    }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::OutOfRange | Code::Unimplemented
    )
}

fn report(parcel: &Parcel, answer: &v1::CommitResultsResponse) {
    if answer.mismatches > 0 {
        tracing::error!(mismatches = answer.mismatches, "results differ from rows stored earlier");
    }
    if answer.fenced {
        tracing::warn!(results = parcel.results.len(), "the lease had ended: results were compared, not stored");
    }
}
