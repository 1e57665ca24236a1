//! The writer's loop: takes all queued writes, commits them in one transaction, then answers the
//! callers.

use ergodic_common::ids::FileHash;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::sql::FindUnreferenced;
use super::traits::{ReferencedBlobs, StoreWriter};
use super::writes::{PendingWrite, StoreWrite, WriteWithOutput};
use crate::failpoint;

/// Maximum number of writes in one transaction, which bounds the latency.
const MAX_WRITES_PER_COMMIT: usize = 64;
/// Capacity of the queue of writes. Callers wait when it is full. Apart from results, writes are
/// small.
const QUEUE_CAPACITY: usize = 4096;
/// Queue length from which on results are rejected.
const MAX_QUEUED_FOR_RESULTS: usize = 256;
/// Time within which a worker retries rejected results.
const RETRY_WINDOW: Duration = Duration::from_secs(30);

/// A handle that sends writes to the writer's thread.
#[derive(Clone)]
pub struct WriterHandle {
    queue: SyncSender<WriterJob>,
    queue_len: Arc<AtomicUsize>,
    metrics: Arc<WriterMetrics>,
}

/// Files that were deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedFiles {
    /// How many they were.
    pub files: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// What the writer is to do.
enum WriterJob {
    /// Commit a write, together with others.
    Commit(Box<dyn QueuedWrite>),
    /// Delete those of these files that nothing names, between transactions.
    DeleteUnreferenced {
        hashes: Vec<FileHash>,
        answer: Box<dyn FnOnce(Result<DeletedFiles, StoreError>) + Send>,
    },
}

impl WriterJob {
    /// Ends a job that is not done.
    fn fail(self, error: StoreError) {
        match self {
            Self::Commit(write) => write.answer(Err(error)),
            Self::DeleteUnreferenced { answer, .. } => answer(Err(error)),
        }
    }
}

/// A write whose sender waits for what becomes of it.
trait QueuedWrite: Send {
    fn pending(&mut self) -> &mut dyn PendingWrite;

    /// Tells the sender that the write is durable, or why not.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct WriteWithAnswer<W: StoreWrite, F> {
    write: WriteWithOutput<W>,
    answer: F,
}

impl<W, F> QueuedWrite for WriteWithAnswer<W, F>
where
    W: StoreWrite,
    F: FnOnce(Result<W::Output, StoreError>) + Send,
{
    fn pending(&mut self) -> &mut dyn PendingWrite {
        &mut self.write
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { write, answer } = *self;
        answer(committed.and_then(|()| write.into_output()));
    }
}

/// Metrics of the writer.
#[derive(Debug)]
pub struct WriterMetrics {
    seconds: Histogram,
    writes: Counter,
    failures: Counter,
    last_failure: Mutex<Option<(Instant, String)>>,
}

impl WriterMetrics {
    /// Nothing counted yet.
    #[allow(
        clippy::new_without_default,
        reason = "one belongs to each writer, none is anybody's default"
    )]
    pub fn new() -> Self {
        // From 0.1 ms, a fast disk, to about 7 s, a stalled one.
        let seconds = Histogram::new(exponential_buckets(1e-4, 4.0, 9));
        Self {
            seconds,
            writes: Counter::default(),
            failures: Counter::default(),
            last_failure: Mutex::new(None),
        }
    }

    /// The reason why results cannot be stored, if the last attempt failed lately. Smaller writes
    /// may still succeed on a disk that is almost full.
    pub fn recent_failure(&self) -> Option<String> {
        let trouble = self
            .last_failure
            .lock()
            .expect("nothing panics while it holds the trouble");
        trouble
            .as_ref()
            .filter(|(since, _)| since.elapsed() < RETRY_WINDOW)
            .map(|(_, why)| why.clone())
    }

    /// Registers the metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let seconds = self.seconds.clone();
        registry.register_with_unit(
            "commit",
            "Durations of the store's transactions",
            Unit::Seconds,
            seconds,
        );

        registry.register(
            "commit_writes",
            "Writes in the store's transactions",
            self.writes.clone(),
        );
        registry.register(
            "commit_failures",
            "Transactions that failed",
            self.failures.clone(),
        );
    }

    fn record_commit(
        &self,
        started: Instant,
        writes: usize,
        has_results: bool,
        failure: Option<&StoreError>,
    ) {
        self.seconds.observe(started.elapsed().as_secs_f64());
        match failure {
            None => _ = self.writes.inc_by(writes as u64),
            Some(_) => _ = self.failures.inc(),
        }

        if has_results {
            let mut trouble = self
                .last_failure
                .lock()
                .expect("nothing panics while it holds the trouble");
            *trouble = failure.map(|error| (Instant::now(), error.to_string()));
        }
    }
}

impl WriterHandle {
    /// Creates a handle, and the loop that executes its writes. Only the loop deletes files.
    pub fn new(
        writer: Box<dyn StoreWriter>,
        files: Box<dyn ReferencedBlobs>,
    ) -> (Self, WriterLoop) {
        let (queue, waiting) = sync_channel(QUEUE_CAPACITY);
        let meter = Arc::new(WriterMetrics::new());
        let writer = MeteredWriter {
            writer,
            metrics: meter.clone(),
        };

        let count = Arc::new(AtomicUsize::new(0));
        let writes = WriterLoop {
            writer,
            blobs: files,
            queue: waiting,
            held_over: None,
            queue_len: count.clone(),
        };

        (
            Self {
                queue,
                queue_len: count,
                metrics: meter,
            },
            writes,
        )
    }

    /// Metrics of the writer.
    pub fn metrics(&self) -> Arc<WriterMetrics> {
        self.metrics.clone()
    }

    /// Whether there is room for results, which are large and can wait on the workers.
    pub fn can_take_results(&self) -> bool {
        self.queue_len.load(Ordering::Relaxed) < MAX_QUEUED_FOR_RESULTS
    }

    /// Queues a write; the writer's loop calls `answer` with its output once it is durable, or with why it is not.
    pub fn enqueue_write<W: StoreWrite>(
        &self,
        write: W,
        answer: impl FnOnce(Result<W::Output, StoreError>) + Send + 'static,
    ) {
        let write = WriteWithOutput::new(write);
        self.enqueue_job(WriterJob::Commit(Box::new(WriteWithAnswer {
            write,
            answer,
        })));
    }

    /// Queues the deletion of those of these files that neither a sweep nor a trial names by then. Nothing is written meanwhile.
    pub fn enqueue_deletion(
        &self,
        hashes: Vec<FileHash>,
        answer: impl FnOnce(Result<DeletedFiles, StoreError>) + Send + 'static,
    ) {
        let answer = Box::new(answer);
        self.enqueue_job(WriterJob::DeleteUnreferenced { hashes, answer });
    }

    fn enqueue_job(&self, job: WriterJob) {
        self.queue_len.fetch_add(1, Ordering::Relaxed);
        if let Err(unsent) = self.queue.send(job) {
            unsent
                .0
                .fail(StoreError::Failed("the writer has stopped".into()));
        }
    }
}

/// A writer with its metrics.
struct MeteredWriter {
    writer: Box<dyn StoreWriter>,
    metrics: Arc<WriterMetrics>,
}

impl MeteredWriter {
    fn commit_writes(&mut self, writes: &mut [&mut dyn PendingWrite]) -> Result<(), StoreError> {
        let started = Instant::now();
        let has_results = writes.iter().any(|write| write.holds_results());
        let committed = self.writer.commit_writes(writes);
        self.metrics
            .record_commit(started, writes.len(), has_results, committed.as_ref().err());
        committed
    }

    fn commit_group(&mut self, group: &mut [Box<dyn QueuedWrite>]) -> Result<(), StoreError> {
        let mut writes: Vec<&mut dyn PendingWrite> =
            group.iter_mut().map(|write| write.pending()).collect();
        self.commit_writes(&mut writes)
    }
}

/// The loop that commits queued writes, on a thread of its own.
pub struct WriterLoop {
    writer: MeteredWriter,
    /// The files beside the store. Only the loop checks and deletes them, one operation after the
    /// other.
    blobs: Box<dyn ReferencedBlobs>,
    queue: Receiver<WriterJob>,
    /// The next job, which stands alone.
    held_over: Option<WriterJob>,
    /// Number of queued writes.
    queue_len: Arc<AtomicUsize>,
}

impl WriterLoop {
    /// Runs until all handles are dropped.
    pub fn run_until_closed(mut self) {
        while let Some(first) = self.held_over.take().or_else(|| self.queue.recv().ok()) {
            self.run_job(first);
        }
    }

    /// Commits the queued writes that fit into one transaction, without waiting for more.
    pub fn commit_queued(&mut self) {
        if let Some(first) = self.held_over.take().or_else(|| self.queue.try_recv().ok()) {
            self.run_job(first);
        }
    }

    fn run_job(&mut self, job: WriterJob) {
        match job {
            WriterJob::Commit(first) => {
                let group = self.take_group(first);
                self.queue_len.fetch_sub(group.len(), Ordering::Relaxed);
                self.commit_group(group);
            }
            WriterJob::DeleteUnreferenced { hashes, answer } => {
                self.queue_len.fetch_sub(1, Ordering::Relaxed);
                answer(self.delete_unreferenced(hashes));
            }
        }
    }

    /// Takes a write and the queued ones after it that fit into the same transaction.
    fn take_group(&mut self, first: Box<dyn QueuedWrite>) -> Vec<Box<dyn QueuedWrite>> {
        let mut group = vec![first];
        while group.len() < MAX_WRITES_PER_COMMIT {
            match self.queue.try_recv() {
                Ok(WriterJob::Commit(next)) => group.push(next),
                Ok(job @ WriterJob::DeleteUnreferenced { .. }) => {
                    self.held_over = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }

        group
    }

    /// Returns the writes whose files exist; the others get an error.
    fn reject_missing_blobs(&self, group: Vec<Box<dyn QueuedWrite>>) -> Vec<Box<dyn QueuedWrite>> {
        let mut admitted = Vec::new();
        for mut write in group {
            let named = write.pending().named_files();
            match named.into_iter().find(|hash| !self.blobs.has_blob(hash)) {
                None => admitted.push(write),
                Some(hash) => {
                    let message =
                        format!("the file {hash} is named but not stored here: send it first");
                    write.answer(Err(StoreError::BlobMissing(message)));
                }
            }
        }

        admitted
    }

    /// Deletes files that nothing names: until it returns, nothing can be stored that does.
    fn delete_unreferenced(&mut self, hashes: Vec<FileHash>) -> Result<DeletedFiles, StoreError> {
        let mut search = WriteWithOutput::new(FindUnreferenced(hashes));
        self.writer.commit_writes(&mut [&mut search])?;
        let mut deleted = DeletedFiles::default();

        for hash in search.into_output()? {
            match self.blobs.remove_unreserved(&hash) {
                Ok(None) => {}
                Ok(Some(size)) => {
                    deleted.files += 1;
                    deleted.bytes += size;
                }
                Err(error) => {
                    tracing::warn!(%error, file = hash.to_string(), "an unreferenced file could not be removed")
                }
            }
        }

        Ok(deleted)
    }

    fn commit_group(&mut self, group: Vec<Box<dyn QueuedWrite>>) {
        let mut group = self.reject_missing_blobs(group);
        if group.is_empty() {
            return;
        }

        let has_results = group
            .iter_mut()
            .any(|write| write.pending().holds_results());
        if has_results {
            failpoint::reach(failpoint::BEFORE_COMMIT);
        }

        let committed = self.writer.commit_group(&mut group);

        if has_results {
            failpoint::reach(failpoint::AFTER_COMMIT);
        }

        match committed {
            Err(StoreError::Failed(_) | StoreError::Damaged(_)) if group.len() > 1 => {
                commit_one_by_one(&mut self.writer, group)
            }
            committed => group
                .into_iter()
                .for_each(|write| write.answer(committed.clone())),
        }
    }
}

/// Commits writes separately after their common transaction failed, so that one bad write does not
/// fail the others. Stops at a failure that would affect every write.
fn commit_one_by_one(writer: &mut MeteredWriter, group: Vec<Box<dyn QueuedWrite>>) {
    let mut cut_off: Option<StoreError> = None;
    for mut write in group {
        let committed = match &cut_off {
            Some(error) => Err(error.clone()),
            None => writer.commit_writes(&mut [write.pending()]),
        };
        cut_off = committed
            .as_ref()
            .err()
            .filter(|e| is_fatal_to_all(e))
            .cloned();

        write.answer(committed);
    }
}

/// Whether an error would affect every write.
fn is_fatal_to_all(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Disconnected(_) | StoreError::Deposed(_) | StoreError::FileGone(_)
    )
}

#[cfg(test)]
mod tests;
