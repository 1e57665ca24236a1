//! The writer's thread: takes whatever has queued up, commits it in one transaction, then answers everyone.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::{StoreError, Write, Writer, Written};
use crate::failpoint;

/// Called with what became of a write.
pub type Answer = Box<dyn FnOnce(Result<Written, StoreError>) + Send>;

/// Most writes in one transaction: bounds the time to an answer.
const MAX_GROUP: usize = 64;
/// Writes that may wait; beyond that, those who write wait.
const QUEUE: usize = 256;

/// Hands writes to the writer's thread.
#[derive(Clone)]
pub struct WriterHandle {
    queue: SyncSender<(Write, Answer)>,
}

impl WriterHandle {
    /// Starts the thread. It ends when the last handle is gone.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(writer: Box<dyn Writer>) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, waiting) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn(move || run(writer, &waiting))?;
        Ok((Self { queue }, thread))
    }

    /// Queues a write; `answer` is called on the writer's thread once it is durable, or has failed.
    pub fn write(&self, write: Write, answer: Answer) {
        if let Err(gone) = self.queue.send((write, answer)) {
            (gone.0.1)(Err(StoreError::Failed("the writer has stopped".into())));
        }
    }

    /// Queues a write and waits for it.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn written(&self, write: Write) -> Result<Written, StoreError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        // A full queue must hold up the caller, never the runtime's thread.
        let this = self.clone();
        let queued = tokio::task::spawn_blocking(move || {
            this.write(write, Box::new(move |result| drop(answer.send(result))));
        });
        queued.await.map_err(|e| StoreError::Failed(e.to_string()))?;
        answered.await.map_err(|_| StoreError::Failed("the writer has stopped".into()))?
    }
}

fn run(mut writer: Box<dyn Writer>, waiting: &Receiver<(Write, Answer)>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        group.extend(waiting.try_iter().take(MAX_GROUP - 1));
        let (writes, answers): (Vec<Write>, Vec<Answer>) = group.into_iter().unzip();
        let results = writes.iter().any(|write| matches!(write, Write::Results(_)));
        if results {
            failpoint::reach(failpoint::BEFORE_COMMIT);
        }
        let committed = writer.commit(&writes.iter().collect::<Vec<_>>());
        if results {
            failpoint::reach(failpoint::AFTER_COMMIT);
        }
        match committed {
            Ok(written) => answers.into_iter().zip(written).for_each(|(answer, written)| answer(Ok(written))),
            Err(_) if writes.len() > 1 => one_by_one(writer.as_mut(), &writes, answers),
            Err(error) => answers.into_iter().for_each(|answer| answer(Err(error.clone()))),
        }
    }
}

/// After a failure of the whole group, so that one bad write does not fail its neighbours.
fn one_by_one(writer: &mut dyn Writer, writes: &[Write], answers: Vec<Answer>) {
    for (write, answer) in writes.iter().zip(answers) {
        answer(writer.commit(&[write]).map(|mut written| written.remove(0)));
    }
}
