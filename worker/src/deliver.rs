//! Delivering results: unary batches, each repeated until the coordinator has answered for it.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::TrialResult;
use ergodic_proto::seal::Checksummed as _;
use ergodic_proto::{transfer, v1};
use tonic::{Code, Status};

use crate::desk::Parcel;
use crate::link::{Link, Links};
use crate::session::Backoff;
use crate::slots::Office;
use crate::spool::Spool;
use crate::train::Finished;

/// Parcels under way at a time: one is stored while the next one travels.
const IN_FLIGHT: usize = 2;
/// Results wait at most this long for company.
const PATIENCE: Duration = Duration::from_secs(1);
/// A refusal is believed when it was heard this often before, without anything else in between: damage on the way may look
/// like one.
const BELIEVED_AFTER: u32 = 2;
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Delivers for as long as the worker lives.
pub fn start(office: &Arc<Office>, links: &Links, worker: &str) {
    for _ in 0..IN_FLIGHT {
        tokio::spawn(courier(office.clone(), links.clone(), worker.to_owned()));
    }
    if let Some(spool) = office.spool().filter(|spool| spool.left() > 0) {
        tokio::spawn(deliver_left(spool.clone(), links.clone()));
    }
}

async fn courier(office: Arc<Office>, links: Links, worker: String) {
    loop {
        let waited = tokio::time::timeout(PATIENCE, office.finished.notified()).await.is_err();
        while let Some(mut parcel) = office.with(|desk| desk.parcel(waited)) {
            // The other courier may find something too.
            office.finished.notify_one();
            let keys = parcel.keys();
            if !parcel.spooled.is_empty() {
                parcel = at_spool(&office, parcel, |spool, parcel| spool.fill(parcel)).await;
            }
            if !parcel.results.is_empty() {
                send(&links, &worker, &parcel).await;
            }
            let parcel = at_spool(&office, parcel, move |spool, p| spool.acknowledge(p.fence, &p.sweep, &keys)).await;
            office.with(|desk| desk.acknowledge(&parcel));
            office.changed.notify_one();
        }
    }
}

/// Does something with the spool, if there is one, where nobody waits for the disk.
async fn at_spool(
    office: &Office,
    mut parcel: Parcel,
    act: impl FnOnce(&Spool, &mut Parcel) + Send + 'static,
) -> Parcel {
    let Some(spool) = office.spool().cloned() else { return parcel };
    let acted = tokio::task::spawn_blocking(move || {
        act(&spool, &mut parcel);
        parcel
    });
    acted.await.expect("nothing panics at the spool")
}

/// Delivers what an earlier worker left in the spool, under its name and its leases: whatever the coordinator answers,
/// stored, compared or of a sweep that is over, is the end of it.
async fn deliver_left(spool: Arc<Spool>, links: Links) {
    tracing::info!(results = spool.left(), "the spool holds results of an earlier worker");
    let mut results = 0;
    for segment in spool.segments_left() {
        let reader = spool.clone();
        let read =
            tokio::task::spawn_blocking(move || reader.parcels(segment)).await.expect("nothing panics at the spool");
        let parcels = match read {
            Ok(parcels) => parcels,
            Err(error) => {
                tracing::error!(segment, %error, "a part of the spool cannot be read");
                continue;
            }
        };
        for (worker, parcel) in parcels {
            send(&links, &worker, &parcel).await;
            results += parcel.results.len();
        }
        let remover = spool.clone();
        tokio::task::spawn_blocking(move || remover.discard(segment)).await.expect("nothing panics at the spool");
    }
    tracing::info!(results, "results of an earlier worker delivered");
}

/// Sends a parcel until all of it is answered. Where it is refused, it is sent in halves, until what is refused stands alone:
/// one result that cannot be taken does not take the others with it.
async fn send(links: &Links, worker: &str, parcel: &Parcel) {
    let post = Post { links, worker, parcel };
    // What is yet to be sent, the next piece last.
    let mut pieces = vec![&parcel.results[..]];
    while let Some(piece) = pieces.pop() {
        match post.deliver(piece).await {
            Ok(answer) => report(parcel, piece, &answer),
            Err(status) if is_divisible(piece, status.code()) => {
                tracing::warn!(%status, results = piece.len(), "results refused; trying halves of them");
                let (first, second) = piece.split_at(piece.len() / 2);
                pieces.extend([second, first]);
            }
            Err(status) if status.code() == Code::NotFound => {
                tracing::warn!(%status, results = piece.len(), "the sweep is over; its results are dropped");
            }
            Err(status) => post.deliver_as_failures(piece, &status).await,
        }
    }
}

/// Whether a refusal may be about one of several results. Nothing is lost by sending them apart.
fn is_divisible(piece: &[Finished], code: Code) -> bool {
    piece.len() > 1 && is_final(code) && code != Code::NotFound
}

/// A parcel under way.
struct Post<'a> {
    links: &'a Links,
    worker: &'a str,
    parcel: &'a Parcel,
}

impl Post<'_> {
    /// Sends a piece of the parcel, with its files. A refusal is returned.
    async fn deliver(&self, piece: &[Finished]) -> Result<v1::CommitResultsResponse, Status> {
        let results = piece.iter().map(|finished| finished.result.clone().into()).collect();
        self.until_answered(results, piece, |code| is_divisible(piece, code)).await
    }

    /// Trials whose results are not taken end as failed, with the reason.
    async fn deliver_as_failures(&self, piece: &[Finished], why: &Status) {
        let trials: Vec<String> = piece.iter().take(3).map(|finished| finished.result.key.to_string()).collect();
        let trials = trials.join(", ");
        tracing::error!(%why, results = piece.len(), trials, "the coordinator does not take these results; they are failures then");
        let results = piece.iter().map(|finished| as_failure(&finished.result, why.message()).into()).collect();
        match self.until_answered(results, &[], |_| false).await {
            Ok(answer) => report(self.parcel, piece, &answer),
            Err(status) => {
                tracing::error!(%status, results = piece.len(), "the coordinator does not take these results")
            }
        }
    }

    /// Sends results until they are answered. Whatever looks like transport means "outcome unknown": the same again, which
    /// is safe because a second delivery is only compared. A refusal that is not believed `at_once` must come several times.
    async fn until_answered(
        &self,
        results: Vec<v1::TrialResult>,
        files: &[Finished],
        at_once: impl Fn(Code) -> bool,
    ) -> Result<v1::CommitResultsResponse, Status> {
        let message = self.request(results);
        let (mut refusals, mut backoff) = (0, Backoff::new());
        loop {
            let link = self.links.current();
            let answer = match send_files(&link, files).await {
                Ok(()) => commit(&link, message.clone()).await,
                Err(status) => Err(status),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(status) if is_final(status.code()) && (at_once(status.code()) || refusals == BELIEVED_AFTER) => {
                    return Err(status);
                }
                Err(status) if is_final(status.code()) => {
                    tracing::warn!(%status, "results refused; trying again");
                    refusals += 1;
                    backoff.wait().await;
                }
                Err(status) => {
                    tracing::warn!(%status, "results not delivered; trying again");
                    refusals = 0;
                    backoff.wait_after(&status).await;
                }
            }
        }
    }

    fn request(&self, results: Vec<v1::TrialResult>) -> v1::CommitResultsRequest {
        let Parcel { fence, sweep, .. } = self.parcel;
        let fence = Some(v1::Fence { lease: fence.lease, epoch: fence.epoch });
        let (worker, sweep) = (self.worker.to_owned(), sweep.clone());
        v1::CommitResultsRequest { worker, fence, results, sweep, seal: Vec::new() }.with_checksum()
    }
}

/// Files go before the results that name them: what has a row can be fetched.
async fn send_files(link: &Link, results: &[Finished]) -> Result<(), Status> {
    for finished in results {
        if let (Some(hash), Some(file)) = (finished.result.weights_hash, &finished.weights) {
            transfer::upload_file(&mut link.files.clone(), hash, file.clone()).await?;
        }
    }
    Ok(())
}

async fn commit(link: &Link, request: v1::CommitResultsRequest) -> Result<v1::CommitResultsResponse, Status> {
    let mut attempt = tonic::Request::new(request);
    attempt.set_timeout(ANSWER_WITHIN);
    Ok(link.work.clone().commit_results(attempt).await?.into_inner())
}

/// A trial whose result cannot be taken must not be run again and again: it ends as failed, with the reason.
fn as_failure(result: &TrialResult, why: &str) -> TrialResult {
    let cause = format!("its result was not taken: {}", why.chars().take(500).collect::<String>());
    let (steps, seconds, isa) = (result.steps, result.seconds, result.isa.clone());
    TrialResult { steps, seconds, isa, ..TrialResult::failed(result.key, cause, result.metrics.len()) }
}

fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::OutOfRange | Code::Unimplemented
    )
}

fn report(parcel: &Parcel, piece: &[Finished], answer: &v1::CommitResultsResponse) {
    let v1::CommitResultsResponse { stored, duplicates, fenced, .. } = answer;
    tracing::debug!(lease = parcel.fence.lease, stored, duplicates, fenced, "results acknowledged");
    if answer.mismatches > 0 {
        tracing::error!(mismatches = answer.mismatches, "results differ from rows stored earlier");
    }
    if answer.fenced {
        tracing::warn!(results = piece.len(), "the lease had ended: results were compared, not stored");
    }
}
