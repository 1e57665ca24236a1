//! Transfer of checkpoints to the coordinator and back, one at a time beside everything else.
//! Trials wait for the copy of their state only, not for the network, and results overtake
//! checkpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_common::ids::{Fence, FileHash, SweepId, WorkerId};
use ergodic_proto::backoff::Backoff;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::transfer::{CHUNK_BYTES, MAX_CHECKPOINT_BYTES};
use ergodic_proto::v1;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::link::{Link, LinkPool};
use crate::work_queue::Assignment;

/// Maximum attempts to send or fetch a checkpoint.
const MAX_ATTEMPTS: u32 = 4;
/// Time limit for a response, besides the time that its bytes need.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Rate below which a connection counts as broken, in bytes per second.
const MIN_BYTES_PER_SECOND: u64 = 64 << 10;

/// Sends and fetches checkpoints.
#[derive(Clone)]
pub(crate) struct CheckpointTransfer {
    uploads: mpsc::UnboundedSender<CheckpointUpload>,
    links: LinkPool,
    worker: WorkerId,
    runtime: Handle,
}

/// The trial and lease that a checkpoint belongs to.
#[derive(Debug, Clone)]
struct CheckpointOwner {
    fence: Fence,
    sweep: SweepId,
    key: TrialKey,
}

impl CheckpointOwner {
    fn from_assignment(assignment: &Assignment) -> Self {
        Self {
            fence: assignment.fence,
            sweep: assignment.sweep.id.clone(),
            key: assignment.key,
        }
    }
}

struct CheckpointUpload {
    owner: CheckpointOwner,
    steps: u64,
    hash: FileHash,
    bytes: Arc<Vec<u8>>,
    /// Set when the checkpoint is not needed any more.
    stale: Arc<AtomicBool>,
    done: SyncSender<()>,
}

/// An upload that was requested. Dropping it cancels the upload if it has not begun.
pub(crate) struct PendingUpload {
    stale: Arc<AtomicBool>,
    done: Receiver<()>,
}

impl PendingUpload {
    /// Whether the checkpoint has arrived or was given up.
    pub(crate) fn is_finished(&mut self) -> bool {
        !matches!(self.done.try_recv(), Err(TryRecvError::Empty))
    }

    /// Waits until the checkpoint has arrived, but at most for `limit`. Works on any thread, also in a runtime of its own.
    pub(crate) fn wait_until_finished(&self, limit: Duration) {
        let _ = self.done.recv_timeout(limit);
    }
}

impl Drop for PendingUpload {
    fn drop(&mut self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

impl CheckpointTransfer {
    /// Starts the task that sends checkpoints, which runs until the worker ends.
    pub(crate) fn start_transfer(links: &LinkPool, worker: &WorkerId) -> Self {
        // Unbounded, because every slot has at most one upload under way.
        let (uploads, waiting) = mpsc::unbounded_channel();
        tokio::spawn(upload_loop(waiting, links.clone(), worker.clone()));
        Self {
            uploads,
            links: links.clone(),
            worker: worker.clone(),
            runtime: Handle::current(),
        }
    }

    /// Requests the upload of a trial's checkpoint after `steps` steps.
    pub(crate) fn start_upload(
        &self,
        assignment: &Assignment,
        steps: u64,
        checkpoint: Vec<u8>,
    ) -> PendingUpload {
        let hash = blake3::hash(&checkpoint).into();
        let stale = Arc::new(AtomicBool::new(false));
        let (done, arrived) = sync_channel(1);
        let owner = CheckpointOwner::from_assignment(assignment);
        let bytes = Arc::new(checkpoint);

        // Sending fails only when the upload task has ended, which means that the worker is ending
        // too.
        let _ = self.uploads.send(CheckpointUpload {
            owner,
            steps,
            hash,
            bytes,
            stale: stale.clone(),
            done,
        });

        PendingUpload {
            stale,
            done: arrived,
        }
    }

    /// Fetches the coordinator's checkpoint of a trial. `None` if that fails or the trial must
    /// stop.
    pub(crate) fn fetch_checkpoint(&self, assignment: &Assignment) -> Option<Vec<u8>> {
        let fetched = self.runtime.block_on(async {
            tokio::select! {
                fetched = self.fetch_with_retries(assignment) => fetched,
                () = wait_until_raised(&assignment.stop) => Err(Status::cancelled("the trial is to stop")),
            }
        });

        let trial = assignment.key;
        fetched
            .inspect_err(|status| tracing::warn!(%trial, %status, "its checkpoint cannot be fetched; the trial begins anew"))
            .ok()
    }

    async fn fetch_with_retries(&self, assignment: &Assignment) -> Result<Vec<u8>, Status> {
        let owner = CheckpointOwner::from_assignment(assignment);
        let mut backoff = Backoff::new();
        let mut asked = 1;

        loop {
            match download_checkpoint(&self.links.current_link(), &self.worker, owner.clone()).await
            {
                Err(status) if asked < MAX_ATTEMPTS && !is_final_code(status.code()) => {
                    backoff.wait_next().await
                }
                answer => return answer,
            }

            asked += 1;
        }
    }
}

async fn wait_until_raised(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn upload_loop(
    mut waiting: mpsc::UnboundedReceiver<CheckpointUpload>,
    links: LinkPool,
    worker: WorkerId,
) {
    while let Some(upload) = waiting.recv().await {
        upload_with_retries(&links, &worker, &upload).await;
        let _ = upload.done.send(());
    }
}

/// Uploads a checkpoint in a few attempts and then gives up: without it, a trial loses time and no
/// result, and the next one is due soon.
async fn upload_with_retries(links: &LinkPool, worker: &WorkerId, upload: &CheckpointUpload) {
    let trial = upload.owner.key;
    let steps = upload.steps;
    let mut backoff = Backoff::new();

    for _ in 0..MAX_ATTEMPTS {
        if upload.stale.load(Ordering::Relaxed) {
            return;
        }

        match upload_checkpoint(&links.current_link(), worker, upload).await {
            Ok(()) => return tracing::debug!(%trial, steps, "checkpoint stored by the coordinator"),
            Err(status) if is_final_code(status.code()) => {
                return tracing::warn!(%trial, steps, %status, "the coordinator refuses this checkpoint");
            }
            Err(status) => {
                tracing::warn!(%trial, steps, %status, "checkpoint not sent; trying again")
            }
        }

        backoff.wait_next().await;
    }
}

async fn upload_checkpoint(
    link: &Link,
    worker: &WorkerId,
    upload: &CheckpointUpload,
) -> Result<(), Status> {
    let CheckpointOwner { fence, sweep, key } = upload.owner.clone();
    let head = v1::CheckpointHead {
        worker: worker.to_string(),
        fence: Some(fence.into()),
        sweep: sweep.into(),
        key: Some(key.into()),
        steps: upload.steps,
        hash: upload.hash.to_vec(),
        checksum: Vec::new(),
    };
    let first = v1::KeepCheckpointRequest {
        head: Some(head.with_checksum()),
        chunk: Vec::new(),
    };

    let bytes = upload.bytes.clone();
    let pieces = (0..bytes.len()).step_by(CHUNK_BYTES).map(move |at| {
        let chunk = bytes[at..(at + CHUNK_BYTES).min(bytes.len())].to_vec();
        v1::KeepCheckpointRequest { head: None, chunk }
    });
    let messages = tokio_stream::iter([first]).chain(tokio_stream::iter(pieces));

    let limit =
        ANSWER_TIMEOUT + Duration::from_secs(upload.bytes.len() as u64 / MIN_BYTES_PER_SECOND);
    let kept =
        tokio::time::timeout(limit, link.checkpoints.clone().keep_checkpoint(messages)).await;
    kept.map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))?
        .map(|_| ())
}

async fn download_checkpoint(
    link: &Link,
    worker: &WorkerId,
    owner: CheckpointOwner,
) -> Result<Vec<u8>, Status> {
    let CheckpointOwner { fence, sweep, key } = owner;
    let request = v1::FetchCheckpointRequest {
        worker: worker.to_string(),
        fence: Some(fence.into()),
        sweep: sweep.into(),
        key: Some(key.into()),
    };
    let mut stream = with_timeout(
        ANSWER_TIMEOUT,
        link.checkpoints.clone().fetch_checkpoint(request),
    )
    .await?
    .into_inner();

    let mut hash = Vec::new();
    let mut bytes = Vec::new();

    while let Some(piece) = with_timeout(ANSWER_TIMEOUT, stream.message()).await? {
        hash.extend(piece.hash);
        bytes.extend(piece.chunk);

        if bytes.len() as u64 > MAX_CHECKPOINT_BYTES {
            return Err(Status::out_of_range(format!(
                "the checkpoint has more than {MAX_CHECKPOINT_BYTES} bytes"
            )));
        }
    }

    match hash == blake3::hash(&bytes).as_bytes() {
        true => Ok(bytes),
        false => Err(Status::data_loss("it is damaged")),
    }
}

async fn with_timeout<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let answered = tokio::time::timeout(limit, answer).await;
    answered.map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))?
}

/// Whether a retry would be in vain. Coordinators of older versions do not know the request.
fn is_final_code(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}
