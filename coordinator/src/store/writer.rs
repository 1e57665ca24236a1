//! The writer's loop: takes whatever has queued up, commits it in one transaction, then answers everyone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::{Kept, StoreError, Write, Writer, Written};
use crate::failpoint;
use ergodic_common::trial::to_hex;

/// Called with what became of a write.
pub type Answer = Box<dyn FnOnce(Result<Written, StoreError>) + Send>;

/// Most writes in one transaction: bounds the time to an answer.
const MAX_GROUP: usize = 64;
/// Writes that may wait; beyond that, whoever writes waits. Without results, a write is small.
const QUEUE: usize = 4096;
/// While so many writes wait, no further results are taken.
const BEHIND: usize = 256;
/// Whoever could not deliver tries again within this time.
const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Hands writes to the writer's thread.
#[derive(Clone)]
pub struct WriterHandle {
    queue: SyncSender<(Write, Answer)>,
    waiting: Arc<AtomicUsize>,
    meter: Arc<Meter>,
}

/// How the writer is doing.
#[derive(Debug)]
pub struct Meter {
    seconds: Histogram,
    writes: Counter,
    failures: Counter,
    trouble: Mutex<Option<(Instant, String)>>,
}

impl Meter {
    /// Nothing counted yet.
    #[allow(clippy::new_without_default, reason = "one belongs to each writer, none is anybody's default")]
    pub fn new() -> Self {
        // From a tenth of a millisecond to seven seconds.
        let seconds = Histogram::new(exponential_buckets(1e-4, 4.0, 9));
        Self { seconds, writes: Counter::default(), failures: Counter::default(), trouble: Mutex::new(None) }
    }

    /// Why results cannot be stored, if so: they failed lately, and none were stored since. Smaller writes may still find room
    /// on a disk that is all but full.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().expect("nothing panics while it holds the trouble");
        trouble.as_ref().filter(|(since, _)| since.elapsed() < TRIED_AGAIN_WITHIN).map(|(_, why)| why.clone())
    }

    /// Adds what is counted.
    pub fn register(&self, registry: &mut Registry) {
        let seconds = self.seconds.clone();
        registry.register_with_unit("commit", "Durations of the store's transactions", Unit::Seconds, seconds);
        registry.register("commit_writes", "Writes in them", self.writes.clone());
        registry.register("commit_failures", "Transactions that failed", self.failures.clone());
    }

    fn count(&self, started: Instant, writes: &[&Write], failure: Option<&StoreError>) {
        self.seconds.observe(started.elapsed().as_secs_f64());
        match failure {
            None => _ = self.writes.inc_by(writes.len() as u64),
            Some(_) => _ = self.failures.inc(),
        }
        if writes.iter().any(|write| matches!(write, Write::Results(_))) {
            let mut trouble = self.trouble.lock().expect("nothing panics while it holds the trouble");
            *trouble = failure.map(|error| (Instant::now(), error.to_string()));
        }
    }
}

impl WriterHandle {
    /// A handle, and the loop that it hands writes to, which alone takes away files.
    pub fn new(writer: Box<dyn Writer>, files: Box<dyn Kept>) -> (Self, WriterLoop) {
        let (queue, waiting) = sync_channel(QUEUE);
        let meter = Arc::new(Meter::new());
        let writer = Metered { writer, meter: meter.clone() };
        let count = Arc::new(AtomicUsize::new(0));
        let writes = WriterLoop { writer, files, waiting, held_over: None, count: count.clone() };
        (Self { queue, waiting: count, meter }, writes)
    }

    /// How the writer is doing.
    pub fn meter(&self) -> Arc<Meter> {
        self.meter.clone()
    }

    /// Whether there is room for results, which are large, and can wait where they are.
    pub fn takes_results(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < BEHIND
    }

    /// Queues a write; `answer` is called by the writer's loop once it is durable, or has failed.
    pub fn write(&self, write: Write, answer: Answer) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(gone) = self.queue.send((write, answer)) {
            (gone.0.1)(Err(StoreError::Failed("the writer has stopped".into())));
        }
    }
}

/// A writer and what is counted about it.
struct Metered {
    writer: Box<dyn Writer>,
    meter: Arc<Meter>,
}

impl Metered {
    fn commit(&mut self, writes: &[&Write]) -> Result<Vec<Written>, StoreError> {
        let started = Instant::now();
        let written = self.writer.commit(writes);
        self.meter.count(started, writes, written.as_ref().err());
        written
    }
}

/// Commits what is handed to it. The server gives it a thread of its own.
pub struct WriterLoop {
    writer: Metered,
    /// Only here are files looked for by whoever names them and taken away when nothing does, one after the other.
    files: Box<dyn Kept>,
    waiting: Receiver<(Write, Answer)>,
    /// The next write, which stands alone.
    held_over: Option<(Write, Answer)>,
    /// How many wait.
    count: Arc<AtomicUsize>,
}

impl WriterLoop {
    /// Runs until the last handle is gone.
    pub fn run(mut self) {
        while let Some(first) = self.held_over.take().or_else(|| self.waiting.recv().ok()) {
            self.commit_group(first);
        }
    }

    /// Commits what has queued up, as far as one transaction goes, and waits for nothing.
    pub fn turn(&mut self) {
        if let Some(first) = self.held_over.take().or_else(|| self.waiting.try_recv().ok()) {
            self.commit_group(first);
        }
    }

    /// A write and what has queued up behind it, as far as one transaction goes.
    fn group(&mut self, first: (Write, Answer)) -> Vec<(Write, Answer)> {
        let stands_alone = |write: &Write| matches!(write, Write::TakeOff(_));
        let mut group = vec![first];
        while !stands_alone(&group[0].0) && group.len() < MAX_GROUP {
            match self.waiting.try_recv() {
                Ok(next) if stands_alone(&next.0) => {
                    self.held_over = Some(next);
                    break;
                }
                Ok(next) => group.push(next),
                Err(_) => break,
            }
        }
        group
    }

    /// Those whose files have come; the others are answered.
    fn admit(&self, group: Vec<(Write, Answer)>) -> Vec<(Write, Answer)> {
        let mut admitted = Vec::new();
        for (write, answer) in group {
            match write.named_files().into_iter().find(|hash| !self.files.has(hash)) {
                None => admitted.push((write, answer)),
                Some(hash) => {
                    let message = format!("the file {} that is named is not here: send it first", to_hex(&hash));
                    answer(Err(StoreError::Missing(message)));
                }
            }
        }
        admitted
    }

    /// Takes away files that nothing names: until it returns, nothing can be stored that does.
    fn take_off(&self, hashes: &[[u8; 32]]) -> Written {
        let (mut files, mut bytes) = (0, 0);
        for hash in hashes {
            match self.files.remove(hash) {
                Ok(None) => {}
                Ok(Some(size)) => (files, bytes) = (files + 1, bytes + size),
                Err(error) => {
                    tracing::warn!(%error, file = to_hex(hash), "a file that nothing names could not be removed")
                }
            }
        }
        Written::TakenOff(files, bytes)
    }

    fn commit_group(&mut self, first: (Write, Answer)) {
        let group = self.group(first);
        self.count.fetch_sub(group.len(), Ordering::Relaxed);
        let group = self.admit(group);
        if group.is_empty() {
            return;
        }
        let (writes, answers): (Vec<Write>, Vec<Answer>) = group.into_iter().unzip();
        let results = writes.iter().any(|write| matches!(write, Write::Results(_)));
        if results {
            failpoint::reach(failpoint::BEFORE_COMMIT);
        }
        let committed = self.writer.commit(&writes.iter().collect::<Vec<_>>());
        if results {
            failpoint::reach(failpoint::AFTER_COMMIT);
        }
        match committed {
            Ok(written) => {
                for (answer, written) in answers.into_iter().zip(written) {
                    answer(Ok(match written {
                        Written::Unnamed(hashes) => self.take_off(&hashes),
                        written => written,
                    }));
                }
            }
            Err(StoreError::Failed(_) | StoreError::Damaged(_)) if writes.len() > 1 => {
                one_by_one(&mut self.writer, &writes, answers)
            }
            Err(error) => answers.into_iter().for_each(|answer| answer(Err(error.clone()))),
        }
    }
}

/// After a failure of the whole group, so that one bad write does not fail its neighbours. What fails whatever is written
/// is not tried again for each.
fn one_by_one(writer: &mut Metered, writes: &[Write], answers: Vec<Answer>) {
    let mut cut_off: Option<StoreError> = None;
    for (write, answer) in writes.iter().zip(answers) {
        let written = match &cut_off {
            Some(error) => Err(error.clone()),
            None => writer.commit(&[write]).map(|mut written| written.remove(0)),
        };
        cut_off = written.as_ref().err().filter(|e| ends_all(e)).cloned();
        answer(written);
    }
}

/// Whether what failed would fail whatever is written.
fn ends_all(error: &StoreError) -> bool {
    matches!(error, StoreError::Cut(_) | StoreError::Deposed(_) | StoreError::Lost(_))
}
