//! Delivery of results in unary batches, each repeated until the coordinator has answered for it.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::TrialResult;
use ergodic_common::ids::WorkerId;
use ergodic_proto::backoff::Backoff;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::{transfer, v1};
use tonic::{Code, Status};

use crate::link::{Link, LinkPool};
use crate::result_batch::ResultBatch;
use crate::shared_queue::SharedQueue;
use crate::spool::Spool;
use crate::train::FinishedTrial;

/// Number of batches that are sent at a time: one is stored while the next one travels.
const MAX_CONCURRENT_BATCHES: usize = 2;
/// Maximum time for which a result waits for others to share its batch.
const MAX_BATCH_DELAY: Duration = Duration::from_secs(1);
/// Number of refusals in a row that are not believed yet: damage on the way may look like a
/// refusal.
const MAX_REFUSALS: u32 = 2;
/// Time limit for a response of the coordinator.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the tasks that deliver results, which run until the worker ends.
pub fn start_delivery(queue: &Arc<SharedQueue>, links: &LinkPool, worker: &WorkerId) {
    for _ in 0..MAX_CONCURRENT_BATCHES {
        tokio::spawn(sender_loop(queue.clone(), links.clone(), worker.clone()));
    }

    if let Some(spool) = queue.spool().filter(|spool| spool.leftover_results() > 0) {
        tokio::spawn(deliver_leftover_batches(
            queue.clone(),
            spool.clone(),
            links.clone(),
        ));
    }
}

async fn sender_loop(queue: Arc<SharedQueue>, links: LinkPool, worker: WorkerId) {
    loop {
        let waited = tokio::time::timeout(MAX_BATCH_DELAY, queue.results_ready.notified())
            .await
            .is_err();
        while let Some(mut batch) = queue.with_queue(|queue| queue.take_batch(waited)) {
            // Wakes the other sender, because the queue may hold a second batch.
            queue.results_ready.notify_one();
            let keys = batch.trial_keys();

            if !batch.spooled.is_empty() {
                batch = run_on_spool(&queue, batch, |spool, batch| {
                    spool.load_spooled_results(batch)
                })
                .await;
            }

            if !batch.results.is_empty() {
                send_batch(&queue, &links, &worker, &batch).await;
            }

            let batch = run_on_spool(&queue, batch, move |spool, batch| {
                spool.acknowledge_results(batch.fence, &batch.sweep, &keys)
            })
            .await;
            queue.with_queue(|queue| queue.acknowledge_batch(&batch));

            queue.queue_changed.notify_one();
        }
    }
}

/// Calls `act` with the spool, if there is one, on a thread that may wait for the disk.
async fn run_on_spool(
    queue: &SharedQueue,
    mut batch: ResultBatch,
    act: impl FnOnce(&Spool, &mut ResultBatch) + Send + 'static,
) -> ResultBatch {
    let Some(spool) = queue.spool().cloned() else {
        return batch;
    };
    let acted = tokio::task::spawn_blocking(move || {
        act(&spool, &mut batch);
        batch
    });
    acted.await.expect("nothing panics at the spool")
}

/// Delivers the results that an earlier worker left in the spool, under its name and leases. Any
/// response settles them, whether they are stored, compared, or belong to a sweep that is over.
async fn deliver_leftover_batches(queue: Arc<SharedQueue>, spool: Arc<Spool>, links: LinkPool) {
    tracing::info!(
        results = spool.leftover_results(),
        "the spool holds results of an earlier worker"
    );
    let mut results = 0;

    for segment in spool.leftover_segments() {
        let reader = spool.clone();
        let read = tokio::task::spawn_blocking(move || reader.read_leftover_batches(segment))
            .await
            .expect("nothing panics at the spool");
        let batches = match read {
            Ok(batches) => batches,
            Err(error) => {
                tracing::error!(segment, %error, "a segment of the spool cannot be read");
                continue;
            }
        };
        for (worker, batch) in batches {
            send_batch(&queue, &links, &worker, &batch).await;
            results += batch.results.len();
        }

        let remover = spool.clone();
        tokio::task::spawn_blocking(move || remover.discard_segment(segment))
            .await
            .expect("nothing panics at the spool");
    }

    tracing::info!(results, "results of an earlier worker delivered");
}

/// Sends a batch until all of it is answered. A refused batch is sent in halves until each refused result is alone, so that one bad
/// result does not cost the others.
async fn send_batch(queue: &SharedQueue, links: &LinkPool, worker: &WorkerId, batch: &ResultBatch) {
    let sender = BatchSender {
        queue,
        links,
        worker,
        batch,
    };

    // A stack of pieces yet to be sent. The next piece is on top, so that halves keep their order.
    let mut pieces = vec![&batch.results[..]];
    while let Some(piece) = pieces.pop() {
        match sender.deliver_results(piece).await {
            Ok(answer) => log_commit_outcome(batch, piece, &answer),
            Err(status) if can_be_split(piece, status.code()) => {
                tracing::warn!(%status, results = piece.len(), "results refused; sending them in halves");
                let (first, second) = piece.split_at(piece.len() / 2);
                pieces.extend([second, first]);
            }
            Err(status) if status.code() == Code::NotFound => {
                tracing::warn!(%status, results = piece.len(), "the sweep is over; its results are dropped");
            }
            Err(status) => sender.deliver_as_failures(piece, &status).await,
        }
    }
}

/// Whether a refusal may concern only one of several results. Sending them apart loses nothing.
fn can_be_split(piece: &[FinishedTrial], code: Code) -> bool {
    piece.len() > 1 && is_final_code(code) && code != Code::NotFound
}

/// A batch that is being sent.
struct BatchSender<'a> {
    queue: &'a SharedQueue,
    links: &'a LinkPool,
    worker: &'a WorkerId,
    batch: &'a ResultBatch,
}

impl BatchSender<'_> {
    /// Sends some results of the batch, with their files. Returns the status if the coordinator
    /// refuses them.
    async fn deliver_results(
        &self,
        piece: &[FinishedTrial],
    ) -> Result<v1::CommitResultsResponse, Status> {
        let results = piece
            .iter()
            .map(|finished| finished.result.clone().into())
            .collect();
        self.send_until_answered(results, piece, |code| can_be_split(piece, code))
            .await
    }

    /// Reports trials whose results the coordinator refuses as failed, with the reason.
    async fn deliver_as_failures(&self, piece: &[FinishedTrial], why: &Status) {
        let trials: Vec<String> = piece
            .iter()
            .take(3)
            .map(|finished| finished.result.key.to_string())
            .collect();
        let trials = trials.join(", ");
        tracing::error!(%why, results = piece.len(), trials, "the coordinator refuses these results; reporting their trials as failed");

        let results = piece
            .iter()
            .map(|finished| to_failed_result(&finished.result, why.message()).into())
            .collect();
        match self.send_until_answered(results, &[], |_| false).await {
            Ok(answer) => log_commit_outcome(self.batch, piece, &answer),
            Err(status) => {
                tracing::error!(%status, results = piece.len(), "the coordinator refuses these failures too; they are dropped")
            }
        }
    }

    /// Sends results until the coordinator answers. After a transport error the outcome is unknown
    /// and they are sent again, which is safe because a second delivery is only compared. Unless
    /// `at_once` is true for its code, a refusal must come several times.
    async fn send_until_answered(
        &self,
        results: Vec<v1::TrialResult>,
        files: &[FinishedTrial],
        at_once: impl Fn(Code) -> bool,
    ) -> Result<v1::CommitResultsResponse, Status> {
        let mut refusals = 0;
        let mut backoff = Backoff::new();

        loop {
            let link = self.links.current_link();
            let answer = match upload_weights(&link, files).await {
                Ok(()) => commit_results(&link, self.build_request(&results).await).await,
                Err(status) => Err(status),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(status)
                    if is_final_code(status.code())
                        && (at_once(status.code()) || refusals == MAX_REFUSALS) =>
                {
                    return Err(status);
                }
                Err(status) if is_final_code(status.code()) => {
                    tracing::warn!(%status, "results refused; trying again");
                    refusals += 1;
                    backoff.wait_next().await;
                }
                Err(status) => {
                    tracing::warn!(%status, "results not delivered; trying again");
                    refusals = 0;
                    backoff.wait_after(&status).await;
                }
            }
        }
    }

    /// The request, for the coordinator of the last session.
    async fn build_request(&self, results: &[v1::TrialResult]) -> v1::CommitResultsRequest {
        let mut results = results.to_vec();
        if results.iter().any(|result| result.output.is_some()) && !self.may_send_output().await {
            results.iter_mut().for_each(|result| result.output = None);
        }
        let ResultBatch { fence, sweep, .. } = self.batch;
        let fence = Some((*fence).into());
        let worker = self.worker.to_string();

        let sweep = sweep.to_string();
        v1::CommitResultsRequest {
            worker,
            fence,
            results,
            sweep,
            checksum: Vec::new(),
        }
        .with_checksum()
    }

    /// Whether the coordinator takes the output of programs, which it says in its welcome. An older one would take results with
    /// output for damaged ones, because their checksum covers what it does not know.
    async fn may_send_output(&self) -> bool {
        let mut takes_output = self.queue.takes_output.subscribe();
        let told = takes_output.wait_for(Option::is_some).await;
        told.is_ok_and(|told| *told == Some(true))
    }
}

/// Uploads trained weights before the results that name them, so that every stored row's file can
/// be fetched.
async fn upload_weights(link: &Link, results: &[FinishedTrial]) -> Result<(), Status> {
    for finished in results {
        if let (Some(hash), Some(file)) = (finished.result.weights_hash, &finished.weights) {
            transfer::upload_file(&mut link.files.clone(), hash, file.clone()).await?;
        }
    }
    Ok(())
}

async fn commit_results(
    link: &Link,
    request: v1::CommitResultsRequest,
) -> Result<v1::CommitResultsResponse, Status> {
    let mut attempt = tonic::Request::new(request);
    attempt.set_timeout(ANSWER_TIMEOUT);
    Ok(link
        .worker_service
        .clone()
        .commit_results(attempt)
        .await?
        .into_inner())
}

/// Turns a result that the coordinator refuses into a failure with the reason. Otherwise its trial
/// would run again and again.
fn to_failed_result(result: &TrialResult, why: &str) -> TrialResult {
    let cause = format!(
        "the coordinator refused its result: {}",
        why.chars().take(500).collect::<String>()
    );
    let steps = result.steps;
    let seconds = result.seconds;

    let isa = result.isa.clone();
    TrialResult {
        steps,
        seconds,
        isa,
        ..TrialResult::failed(result.key, cause, result.metrics.len())
    }
}

fn is_final_code(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

fn log_commit_outcome(
    batch: &ResultBatch,
    piece: &[FinishedTrial],
    answer: &v1::CommitResultsResponse,
) {
    let v1::CommitResultsResponse {
        stored,
        duplicates,
        fenced,
        ..
    } = answer;
    tracing::debug!(
        lease = batch.fence.lease.0,
        stored,
        duplicates,
        fenced,
        "results acknowledged"
    );

    if answer.mismatches > 0 {
        tracing::error!(
            mismatches = answer.mismatches,
            "results differ from rows stored earlier"
        );
    }

    if answer.fenced {
        tracing::warn!(
            results = piece.len(),
            "the lease had ended: results were compared, not stored"
        );
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::TrialKey;
    use ergodic_common::ids::{Epoch, Fence, LeaseId};
    use ergodic_proto::channel::credentials::ClientAuth;
    use ergodic_proto::output::pack_output;

    use super::*;

    #[tokio::test]
    async fn only_a_coordinator_that_takes_output_gets_it() {
        let queue = SharedQueue::new(1);
        let links = LinkPool::from_urls("http://127.0.0.1:1", &ClientAuth::default());
        let batch = ResultBatch {
            number: 1,
            fence: Fence {
                lease: LeaseId(1),
                epoch: Epoch(1),
            },
            sweep: "abcdefgh".into(),
            results: Vec::new(),
            spooled: Vec::new(),
        };
        let sender = BatchSender {
            queue: &queue,
            links: &links.expect("an address"),
            worker: &"w".into(),
            batch: &batch,
        };
        let silent = TrialResult::completed(TrialKey::new(0, 0));
        let talker = TrialResult {
            output: pack_output(4, b"abcd"),
            ..TrialResult::completed(TrialKey::new(0, 1))
        };
        let results: Vec<v1::TrialResult> = [silent, talker].map(Into::into).to_vec();

        // Before the first session nobody knows whether the coordinator takes output; nothing else waits for that.
        let mut unknown = std::pin::pin!(sender.build_request(&results));
        let early = tokio::time::timeout(Duration::ZERO, &mut unknown).await;
        assert!(early.is_err(), "it waits for a session");
        let quick = tokio::time::timeout(Duration::ZERO, sender.build_request(&results[..1])).await;
        assert!(quick.is_ok(), "nothing was printed");

        queue.takes_output.send_replace(Some(true));
        let mut request = unknown.await;
        assert!(request.verify_checksum());
        assert_eq!(request.results, results);

        queue.takes_output.send_replace(Some(false));
        let mut request = sender.build_request(&results).await;
        assert!(request.verify_checksum());
        let outputs = request.results.iter().map(|result| &result.output);
        assert_eq!(outputs.collect::<Vec<_>>(), [&None, &None]);
    }
}
