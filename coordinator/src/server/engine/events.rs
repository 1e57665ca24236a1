//! What the event loop receives, and the handle through which others send it.

use std::sync::Arc;

use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{
    Core, GiveUpReversal, GivenUpTrial, JoiningWorker, Steering, StoredRow, Sweep, SweepChange,
};
use crate::records::{Fence, LeaseRow, RecordedAudit, SweepRow, WorkerId};
use crate::server::checkpoints::IncomingCheckpoint;
use crate::server::engine::Engine;
use crate::server::limits::Permit;
use crate::store::{
    ClearedRows, CommitReport, RedoneTrial, ReusingSweep, StoreError, SuccessorSweep,
};

/// Messages to a worker.
pub type SessionSender = mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>;

/// Everything that can wake the loop.
pub enum EngineEvent {
    /// A sweep is to be stored.
    Launch(
        Box<SweepRow>,
        Arc<Spec>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// It was.
    Launched(
        Box<SweepRow>,
        Arc<Spec>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// A worker opened a session.
    WorkerJoined(JoiningWorker, SessionSender, oneshot::Sender<u64>),
    /// A session ended, by its number.
    SessionEnded(WorkerId, u64),
    /// What a worker says in its session, and the room that it takes until it is heard.
    MessageReceived(WorkerId, WorkerMessage, Permit),
    /// A batch of results.
    BatchReceived(Box<IncomingBatch>),
    /// The store has dealt with it.
    BatchCommitted(Box<IncomingBatch>, Result<CommitReport, StoreError>),
    /// A lease is durable and may be sent, or is not.
    LeaseStored(LeaseRow, String, Vec<TrialKey>, Result<(), StoreError>),
    /// The store has dealt with the verdict on a trial: whether it gave it that row.
    GiveUpStored(GivenUpTrial, Result<bool, StoreError>),
    /// A verdict was taken back: what is to be run again, if it stood.
    GiveUpReverted(GiveUpReversal, Result<ReopenedTrials, StoreError>),
    /// Rows that the core did not know.
    RowsLookedUp(i64, Result<FoundRows, StoreError>),
    /// A change of leases or state is not durable.
    WriteFailed(StoreError),
    /// A checkpoint has come.
    CheckpointReceived(Box<IncomingCheckpoint>),
    /// It is in its place, after so many steps of the trial.
    CheckpointStored(i64, TrialKey, u64),
    /// A user steers a sweep.
    Steer(i64, Steering, oneshot::Sender<Result<(), UserError>>),
    /// What that changes is durable, or is not.
    Steered(
        i64,
        SweepChange,
        Result<(), StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// Its failed trials have no rows any more, or still have them.
    Retried(
        i64,
        Result<ReopenedTrials, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// A sweep is to have a file that asks for more repeats of its cells, in place of the first of these.
    Extend(
        i64,
        SpecSource,
        SpecSource,
        Arc<Spec>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// It has it, if the answer is yes.
    Extended(
        i64,
        SpecSource,
        Arc<Spec>,
        Result<bool, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// A new sweep is to be stored with the rows of another one.
    InsertSuccessor(
        Box<SuccessorSweep>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// A new sweep is to be stored with copies of rows of others.
    InsertReusing(
        Box<ReusingSweep>,
        oneshot::Sender<Result<(i64, u64), StoreError>>,
    ),
    /// It is stored, and the other one, of this number, has ended.
    SuccessorInserted(
        i64,
        Result<i64, StoreError>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// A sweep that is stored begins with these rows.
    AddStoredSweep(Box<Sweep>, Vec<StoredRow>, oneshot::Sender<()>),
    /// A user removes a sweep.
    Remove(i64, oneshot::Sender<Result<(), UserError>>),
    /// It is no more, or still there.
    Removed(
        i64,
        Result<(), StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// Some of a removed sweep's rows are to be cleared.
    ClearRows(i64, oneshot::Sender<Result<ClearedRows, StoreError>>),
    /// Files are to go that nothing names, as far as is known; how many of them went, and their bytes.
    DeleteUnreferenced(
        Vec<[u8; 32]>,
        oneshot::Sender<Result<(u64, u64), StoreError>>,
    ),
    /// Trials of a sweep are to be run once more, because files that their rows name are lost.
    Redo(i64, Vec<TrialKey>, oneshot::Sender<Result<(), UserError>>),
    /// They are due, or are not.
    Redone(
        i64,
        Result<Vec<RedoneTrial>, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// Whether the store takes a write.
    CheckWritable(oneshot::Sender<Result<(), StoreError>>),
    /// A question.
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// Time passed.
    Tick,
    /// The coordinator goes.
    Stop,
}

/// Rows, and audits of these.
pub type FoundRows = (Vec<TrialResult>, Vec<RecordedAudit>);

/// Trials, and audits with the processes whose rows they are of.
pub type ReopenedTrials = (Vec<TrialKey>, Vec<(TrialKey, WorkerId)>);

/// What a worker can say.
pub enum WorkerMessage {
    /// It lives.
    Heartbeat(Vec<(u64, TrialKey)>, u64, Vec<Fence>),
    /// It wants a lease for so many idle slots.
    RequestWork(u32),
    /// It gives one back, with a reason if it cannot work on that sweep.
    Release(Fence, String),
    /// It gives back trials of a lease that it has not begun.
    Retracted(Fence, Vec<TrialKey>),
    /// It leaves.
    Goodbye,
}

/// A batch on its way to the store.
pub struct IncomingBatch {
    /// From whom.
    pub worker: WorkerId,
    /// Under which fence.
    pub fence: Fence,
    /// Number of the sweep.
    pub sweep: i64,
    /// The results, until the store has them.
    pub results: Vec<TrialResult>,
    /// What the core keeps of them.
    pub rows: Vec<StoredRow>,
    /// The room that it takes until it is stored.
    pub permit: Permit,
    /// Whether a "no such trial" is to be answered.
    pub reply: oneshot::Sender<Result<CommitReport, BatchRefusal>>,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub enum BatchRefusal {
    /// The lease never held this trial.
    NotLeased(TrialKey),
    /// The store is behind: send it again later.
    Overloaded,
    /// It is not durable: send it again later.
    StoreFailed(StoreError),
}

/// A cheap handle to the loop.
#[derive(Clone)]
pub struct EngineHandle {
    pub(crate) events: mpsc::UnboundedSender<EngineEvent>,
    pub(crate) changes: watch::Receiver<u64>,
}

/// The loop has stopped: the coordinator is going down.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct EngineStopped;

impl EngineHandle {
    /// A handle to somebody who answers questions in the loop's place, and what is asked.
    pub(crate) fn detached() -> (Self, mpsc::UnboundedReceiver<EngineEvent>) {
        let (events, questions) = Engine::new_queue();
        (
            Self {
                events,
                changes: watch::channel(0).1,
            },
            questions,
        )
    }

    /// Tells the loop something.
    pub fn send_event(&self, event: EngineEvent) {
        // A loop that is gone needs to hear nothing.
        let _ = self.events.send(event);
    }

    /// Asks the core something and waits for the answer.
    ///
    /// # Errors
    /// The loop has stopped.
    pub async fn query_core<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Result<T, EngineStopped> {
        let (answer, answered) = oneshot::channel();
        self.send_event(EngineEvent::Query(Box::new(move |core| {
            drop(answer.send(question(core)))
        })));
        answered.await.map_err(|_| EngineStopped)
    }

    /// Counts up whenever something changed.
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The loop's queue.
pub type EngineQueue = (
    mpsc::UnboundedSender<EngineEvent>,
    mpsc::UnboundedReceiver<EngineEvent>,
);
