//! The writer's loop: takes whatever has queued up, commits it in one transaction, then answers everyone.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::error::StoreError;
use super::traits::{ReferencedBlobs, StoreWriter};
use super::writes::{StoreWrite, WriteOutput};
use crate::failpoint;

/// Called with what became of a write.
pub type WriteCallback = Box<dyn FnOnce(Result<WriteOutput, StoreError>) + Send>;

/// Most writes in one transaction: bounds the time to an answer.
const MAX_WRITES_PER_COMMIT: usize = 64;
/// Capacity of the queue of writes, which callers wait for when it is full. Without results, a write is small.
const QUEUE_CAPACITY: usize = 4096;
/// Queue length from which on no further results are accepted.
const MAX_QUEUED_FOR_RESULTS: usize = 256;
/// Time within which a worker whose results were refused retries.
const RETRY_WINDOW: Duration = Duration::from_secs(30);

/// Hands writes to the writer's thread.
#[derive(Clone)]
pub struct WriterHandle {
    queue: SyncSender<(StoreWrite, WriteCallback)>,
    queue_len: Arc<AtomicUsize>,
    metrics: Arc<WriterMetrics>,
}

/// How the writer is doing.
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
        // From a tenth of a millisecond to seven seconds.
        let seconds = Histogram::new(exponential_buckets(1e-4, 4.0, 9));
        Self {
            seconds,
            writes: Counter::default(),
            failures: Counter::default(),
            last_failure: Mutex::new(None),
        }
    }

    /// Why results cannot be stored, if so: they failed lately, and none were stored since. Smaller writes may still find room
    /// on a disk that is all but full.
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

    /// Adds what is counted.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let seconds = self.seconds.clone();
        registry.register_with_unit(
            "commit",
            "Durations of the store's transactions",
            Unit::Seconds,
            seconds,
        );

        registry.register("commit_writes", "Writes in them", self.writes.clone());
        registry.register(
            "commit_failures",
            "Transactions that failed",
            self.failures.clone(),
        );
    }

    fn record_commit(
        &self,
        started: Instant,
        writes: &[&StoreWrite],
        failure: Option<&StoreError>,
    ) {
        self.seconds.observe(started.elapsed().as_secs_f64());
        match failure {
            None => _ = self.writes.inc_by(writes.len() as u64),
            Some(_) => _ = self.failures.inc(),
        }

        if writes
            .iter()
            .any(|write| matches!(write, StoreWrite::StoreResults(_)))
        {
            let mut trouble = self
                .last_failure
                .lock()
                .expect("nothing panics while it holds the trouble");
            *trouble = failure.map(|error| (Instant::now(), error.to_string()));
        }
    }
}

impl WriterHandle {
    /// A handle, and the loop that it hands writes to, which alone takes away files.
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

    /// How the writer is doing.
    pub fn metrics(&self) -> Arc<WriterMetrics> {
        self.metrics.clone()
    }

    /// Whether there is room for results, which are large, and can wait where they are.
    pub fn can_take_results(&self) -> bool {
        self.queue_len.load(Ordering::Relaxed) < MAX_QUEUED_FOR_RESULTS
    }

    /// Queues a write; `answer` is called by the writer's loop once it is durable, or has failed.
    pub fn enqueue_write(&self, write: StoreWrite, answer: WriteCallback) {
        self.queue_len.fetch_add(1, Ordering::Relaxed);
        if let Err(gone) = self.queue.send((write, answer)) {
            (gone.0.1)(Err(StoreError::Failed("the writer has stopped".into())));
        }
    }
}

/// A writer and what is counted about it.
struct MeteredWriter {
    writer: Box<dyn StoreWriter>,
    metrics: Arc<WriterMetrics>,
}

impl MeteredWriter {
    fn commit_writes(&mut self, writes: &[&StoreWrite]) -> Result<Vec<WriteOutput>, StoreError> {
        let started = Instant::now();
        let written = self.writer.commit_writes(writes);
        self.metrics
            .record_commit(started, writes, written.as_ref().err());
        written
    }
}

/// Commits what is handed to it. The server gives it a thread of its own.
pub struct WriterLoop {
    writer: MeteredWriter,
    /// Only here are files looked for by whoever names them and taken away when nothing does, one after the other.
    blobs: Box<dyn ReferencedBlobs>,
    queue: Receiver<(StoreWrite, WriteCallback)>,
    /// The next write, which stands alone.
    held_over: Option<(StoreWrite, WriteCallback)>,
    /// How many wait.
    queue_len: Arc<AtomicUsize>,
}

impl WriterLoop {
    /// Runs until the last handle is gone.
    pub fn run_until_closed(mut self) {
        while let Some(first) = self.held_over.take().or_else(|| self.queue.recv().ok()) {
            self.commit_group(first);
        }
    }

    /// Commits what has queued up, as far as one transaction goes, and waits for nothing.
    pub fn commit_queued(&mut self) {
        if let Some(first) = self.held_over.take().or_else(|| self.queue.try_recv().ok()) {
            self.commit_group(first);
        }
    }

    /// A write and what has queued up behind it, as far as one transaction goes.
    fn take_group(
        &mut self,
        first: (StoreWrite, WriteCallback),
    ) -> Vec<(StoreWrite, WriteCallback)> {
        let mut group = vec![first];
        while !must_stand_alone(&group[0].0) && group.len() < MAX_WRITES_PER_COMMIT {
            match self.queue.try_recv() {
                Ok(next) if must_stand_alone(&next.0) => {
                    self.held_over = Some(next);
                    break;
                }
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }

        group
    }

    /// Writes whose files have arrived; the others get their errors.
    fn reject_missing_blobs(
        &self,
        group: Vec<(StoreWrite, WriteCallback)>,
    ) -> Vec<(StoreWrite, WriteCallback)> {
        let mut admitted = Vec::new();
        for (write, answer) in group {
            match write
                .named_files()
                .into_iter()
                .find(|hash| !self.blobs.has_blob(hash))
            {
                None => admitted.push((write, answer)),
                Some(hash) => {
                    let message = format!(
                        "the file {} that is named is not here: send it first",
                        hex::encode(hash)
                    );
                    answer(Err(StoreError::BlobMissing(message)));
                }
            }
        }

        admitted
    }

    /// Takes away files that nothing names: until it returns, nothing can be stored that does.
    fn delete_unreferenced(&self, hashes: &[[u8; 32]]) -> WriteOutput {
        let mut files = 0;
        let mut bytes = 0;

        for hash in hashes {
            match self.blobs.remove_unreserved(hash) {
                Ok(None) => {}
                Ok(Some(size)) => (files, bytes) = (files + 1, bytes + size),
                Err(error) => {
                    tracing::warn!(%error, file = hex::encode(hash), "a file that nothing names could not be removed")
                }
            }
        }

        WriteOutput::Deleted(files, bytes)
    }

    fn commit_group(&mut self, first: (StoreWrite, WriteCallback)) {
        let group = self.take_group(first);
        self.queue_len.fetch_sub(group.len(), Ordering::Relaxed);
        let group = self.reject_missing_blobs(group);
        if group.is_empty() {
            return;
        }

        let (writes, answers): (Vec<StoreWrite>, Vec<WriteCallback>) = group.into_iter().unzip();
        let results = writes
            .iter()
            .any(|write| matches!(write, StoreWrite::StoreResults(_)));
        if results {
            failpoint::reach(failpoint::BEFORE_COMMIT);
        }

        let committed = self
            .writer
            .commit_writes(&writes.iter().collect::<Vec<_>>());

        if results {
            failpoint::reach(failpoint::AFTER_COMMIT);
        }

        match committed {
            Ok(written) => {
                for (answer, written) in answers.into_iter().zip(written) {
                    answer(Ok(match written {
                        WriteOutput::Unreferenced(hashes) => self.delete_unreferenced(&hashes),
                        written => written,
                    }));
                }
            }
            Err(StoreError::Failed(_) | StoreError::Damaged(_)) if writes.len() > 1 => {
                commit_one_by_one(&mut self.writer, &writes, answers)
            }
            Err(error) => answers
                .into_iter()
                .for_each(|answer| answer(Err(error.clone()))),
        }
    }
}

/// Files are looked for and removed between transactions.
fn must_stand_alone(write: &StoreWrite) -> bool {
    matches!(write, StoreWrite::FindUnreferenced(_))
}

/// After a failure of the whole group, so that one bad write does not fail its neighbours. What fails whatever is written
/// is not tried again for each.
fn commit_one_by_one(
    writer: &mut MeteredWriter,
    writes: &[StoreWrite],
    answers: Vec<WriteCallback>,
) {
    let mut cut_off: Option<StoreError> = None;
    for (write, answer) in writes.iter().zip(answers) {
        let written = match &cut_off {
            Some(error) => Err(error.clone()),
            None => writer
                .commit_writes(&[write])
                .map(|mut written| written.remove(0)),
        };
        cut_off = written
            .as_ref()
            .err()
            .filter(|e| is_fatal_to_all(e))
            .cloned();

        answer(written);
    }
}

/// Whether what failed would fail whatever is written.
fn is_fatal_to_all(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Disconnected(_) | StoreError::Deposed(_) | StoreError::FileGone(_)
    )
}
