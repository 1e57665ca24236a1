//! Checkpoints on their way to the coordinator and back, beside everything else and one at a time: what a trial waits for
//! is a copy of its state, not a network, and results overtake them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ergodic_common::TrialKey;
use ergodic_proto::seal::Checksummed as _;
use ergodic_proto::transfer::{CHUNK_BYTES, MAX_CHECKPOINT_BYTES};
use ergodic_proto::v1;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::desk::{Assignment, Fence};
use crate::link::{Link, Links};
use crate::session::Backoff;

/// How often one is sent, or asked for, before that is given up.
const TRIED_AT_MOST: u32 = 4;
/// How long an answer may take, besides the time that its bytes need.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes per second below which a connection counts as broken.
const SLOWEST: u64 = 64 << 10;

/// Sends checkpoints, and fetches them.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    uploads: mpsc::UnboundedSender<Upload>,
    links: Links,
    worker: Arc<str>,
    runtime: Handle,
}

/// Whose checkpoint it is.
#[derive(Debug, Clone)]
struct Owner {
    fence: Fence,
    sweep: String,
    key: TrialKey,
}

impl Owner {
    fn of(assignment: &Assignment) -> Self {
        Self { fence: assignment.fence, sweep: assignment.sweep.id.clone(), key: assignment.key }
    }
}

struct Upload {
    owner: Owner,
    steps: u64,
    hash: [u8; 32],
    bytes: Arc<Vec<u8>>,
    /// Raised when it is not needed any more.
    stale: Arc<AtomicBool>,
    done: oneshot::Sender<()>,
}

/// A checkpoint under way. One whose flight is dropped is not sent any more if it was not yet.
pub(crate) struct Flight {
    stale: Arc<AtomicBool>,
    done: oneshot::Receiver<()>,
}

impl Flight {
    /// Whether it has arrived, or was given up.
    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.done.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.stale.store(true, Ordering::Relaxed);
    }
}

impl Checkpoints {
    /// Sends for as long as the worker lives.
    pub(crate) fn start(links: &Links, worker: &str) -> Self {
        // Every slot has one under way at most.
        let (uploads, waiting) = mpsc::unbounded_channel();
        tokio::spawn(courier(waiting, links.clone(), worker.to_owned()));
        Self { uploads, links: links.clone(), worker: worker.into(), runtime: Handle::current() }
    }

    /// Sends what a trial is after so many steps.
    pub(crate) fn send(&self, assignment: &Assignment, steps: u64, checkpoint: Vec<u8>) -> Flight {
        let (hash, stale) = (*blake3::hash(&checkpoint).as_bytes(), Arc::new(AtomicBool::new(false)));
        let (done, arrived) = oneshot::channel();
        let (owner, bytes) = (Owner::of(assignment), Arc::new(checkpoint));
        // A courier that is gone is missed by nobody: the worker ends.
        let _ = self.uploads.send(Upload { owner, steps, hash, bytes, stale: stale.clone(), done });
        Flight { stale, done: arrived }
    }

    /// Waits until one has arrived, or for so long.
    pub(crate) fn wait(&self, flight: &mut Flight, limit: Duration) {
        // The timer needs the runtime it is made in.
        let _ = self.runtime.block_on(async { tokio::time::timeout(limit, &mut flight.done).await });
    }

    /// What the coordinator keeps of a trial; nothing where it cannot be had, or the trial is to stop.
    pub(crate) fn fetch(&self, assignment: &Assignment) -> Option<Vec<u8>> {
        let fetched = self.runtime.block_on(async {
            tokio::select! {
                fetched = self.ask(assignment) => fetched,
                () = raised(&assignment.stop) => Err(Status::cancelled("the trial is to stop")),
            }
        });
        let trial = assignment.key;
        fetched
            .inspect_err(|status| tracing::warn!(%trial, %status, "its checkpoint cannot be had; it begins anew"))
            .ok()
    }

    async fn ask(&self, assignment: &Assignment) -> Result<Vec<u8>, Status> {
        let (owner, mut backoff) = (Owner::of(assignment), Backoff::new());
        let mut asked = 1;
        loop {
            match fetch(&self.links.current(), &self.worker, owner.clone()).await {
                Err(status) if asked < TRIED_AT_MOST && !is_final(status.code()) => backoff.wait().await,
                answer => return answer,
            }
            asked += 1;
        }
    }
}

async fn raised(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn courier(mut waiting: mpsc::UnboundedReceiver<Upload>, links: Links, worker: String) {
    while let Some(upload) = waiting.recv().await {
        send(&links, &worker, &upload).await;
        let _ = upload.done.send(());
    }
}

/// What is not kept costs time and no result: it is tried a few times, and the next one is due in a while.
async fn send(links: &Links, worker: &str, upload: &Upload) {
    let (trial, steps) = (upload.owner.key, upload.steps);
    let mut backoff = Backoff::new();
    for _ in 0..TRIED_AT_MOST {
        if upload.stale.load(Ordering::Relaxed) {
            return;
        }
        match put(&links.current(), worker, upload).await {
            Ok(()) => return tracing::debug!(%trial, steps, "checkpoint kept"),
            Err(status) if is_final(status.code()) => {
                return tracing::warn!(%trial, steps, %status, "the coordinator does not keep this checkpoint");
            }
            Err(status) => tracing::warn!(%trial, steps, %status, "checkpoint not sent"),
        }
        backoff.wait().await;
    }
}

async fn put(link: &Link, worker: &str, upload: &Upload) -> Result<(), Status> {
    let Owner { fence, sweep, key } = upload.owner.clone();
    let head = v1::CheckpointHead {
        worker: worker.to_owned(),
        fence: Some(v1::Fence { lease: fence.lease, epoch: fence.epoch }),
        sweep,
        key: Some(key.into()),
        steps: upload.steps,
        hash: upload.hash.to_vec(),
        seal: Vec::new(),
    };
    let first = v1::KeepCheckpointRequest { head: Some(head.with_checksum()), chunk: Vec::new() };
    let bytes = upload.bytes.clone();
    let pieces = (0..bytes.len()).step_by(CHUNK_BYTES).map(move |at| {
        let chunk = bytes[at..(at + CHUNK_BYTES).min(bytes.len())].to_vec();
        v1::KeepCheckpointRequest { head: None, chunk }
    });
    let messages = tokio_stream::iter([first]).chain(tokio_stream::iter(pieces));
    let limit = PATIENCE + Duration::from_secs(upload.bytes.len() as u64 / SLOWEST);
    let kept = tokio::time::timeout(limit, link.bulk.clone().keep_checkpoint(messages)).await;
    kept.map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))?.map(|_| ())
}

async fn fetch(link: &Link, worker: &str, owner: Owner) -> Result<Vec<u8>, Status> {
    let Owner { fence, sweep, key } = owner;
    let request = v1::FetchCheckpointRequest {
        worker: worker.to_owned(),
        fence: Some(v1::Fence { lease: fence.lease, epoch: fence.epoch }),
        sweep,
        key: Some(key.into()),
    };
    let mut stream = within(PATIENCE, link.bulk.clone().fetch_checkpoint(request)).await?.into_inner();
    let (mut hash, mut bytes) = (Vec::new(), Vec::new());
    while let Some(piece) = within(PATIENCE, stream.message()).await? {
        hash.extend(piece.hash);
        bytes.extend(piece.chunk);
        if bytes.len() as u64 > MAX_CHECKPOINT_BYTES {
            return Err(Status::out_of_range(format!("it has more than {MAX_CHECKPOINT_BYTES} bytes")));
        }
    }
    match hash == blake3::hash(&bytes).as_bytes() {
        true => Ok(bytes),
        false => Err(Status::data_loss("it is damaged")),
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answered = tokio::time::timeout(limit, answer).await;
    answered.map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))?
}

/// A coordinator of an older version does not know the question.
fn is_final(code: Code) -> bool {
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
