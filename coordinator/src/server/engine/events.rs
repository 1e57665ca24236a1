//! What the event loop receives, and the handle through which others send it.

use std::sync::Arc;

use ergodic_common::ids::Fence;
use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey, TrialResult};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{
    Core, GiveUpReversal, GivenUpTrial, JoiningWorker, Steering, StoredRow, Sweep, SweepChange,
};
use crate::records::{LeaseRow, RecordedAudit, SweepRow, WorkerId};
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
    /// A worker did something.
    Worker(WorkerEvent),
    /// A user, or the server itself, wants something changed.
    User(UserEvent),
    /// The store, or the folder of checkpoints, has dealt with something.
    Store(StoreEvent),
    /// A question about the core's state.
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// Time passed.
    Tick,
    /// The coordinator stops.
    Stop,
}

/// Events of workers.
pub enum WorkerEvent {
    /// A worker opened a session. The reply is the session's number.
    WorkerJoined(JoiningWorker, SessionSender, oneshot::Sender<u64>),
    /// The session of this number ended.
    SessionEnded(WorkerId, u64),
    /// A message of a session, with the permit for its bytes until it is handled.
    MessageReceived(WorkerId, WorkerMessage, Permit),
    /// A batch of results.
    BatchReceived(Box<IncomingBatch>),
    /// A checkpoint that has arrived whole.
    CheckpointReceived(Box<IncomingCheckpoint>),
}

/// Changes that users want. Each reply is sent once the change is durable, or has failed.
pub enum UserEvent {
    /// Store a new sweep. The reply is its number.
    Launch(
        Box<SweepRow>,
        Arc<Spec>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// Steer a sweep.
    Steer(i64, Steering, oneshot::Sender<Result<(), UserError>>),
    /// Give a sweep a file that asks for more repeats of its cells (the second one) in place of the first one.
    Extend(
        i64,
        Box<SpecSource>,
        Box<SpecSource>,
        Arc<Spec>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// Store a new sweep with the rows of another one. The reply is its number.
    InsertSuccessor(
        Box<SuccessorSweep>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// Store a new sweep with copies of rows of others. The reply is its number, and how many rows were copied.
    InsertReusing(
        Box<ReusingSweep>,
        oneshot::Sender<Result<(i64, u64), StoreError>>,
    ),
    /// Begin with a sweep that is stored, and has these rows.
    AddStoredSweep(Box<Sweep>, Vec<StoredRow>, oneshot::Sender<()>),
    /// Remove a sweep.
    Remove(i64, oneshot::Sender<Result<(), UserError>>),
    /// Clear some of a removed sweep's rows.
    ClearRows(i64, oneshot::Sender<Result<ClearedRows, StoreError>>),
    /// Delete files that nothing names, as far as is known. The reply is how many were deleted, and their bytes.
    DeleteUnreferenced(
        Vec<[u8; 32]>,
        oneshot::Sender<Result<(u64, u64), StoreError>>,
    ),
    /// Run trials of a sweep once more, because files that their rows name are lost.
    Redo(i64, Vec<TrialKey>, oneshot::Sender<Result<(), UserError>>),
    /// Find out whether the store takes a write.
    CheckWritable(oneshot::Sender<Result<(), StoreError>>),
}

/// Writes that the store has dealt with, each with the reply that is due, if one is.
pub enum StoreEvent {
    /// A new sweep is stored, under the number in its row.
    Launched(
        Box<SweepRow>,
        Arc<Spec>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// A batch was stored or compared, or could not be.
    BatchCommitted(Box<IncomingBatch>, Result<CommitReport, StoreError>),
    /// A lease is durable and may be sent, or is not.
    LeaseStored(LeaseRow, String, Vec<TrialKey>, Result<(), StoreError>),
    /// A trial was given up: whether the store gave it that row.
    GiveUpStored(GivenUpTrial, Result<bool, StoreError>),
    /// A give-up was taken back: what is to be run again, if it was stored.
    GiveUpReverted(GiveUpReversal, Result<ReopenedTrials, StoreError>),
    /// Rows that the core did not know.
    RowsLookedUp(i64, Result<FoundRows, StoreError>),
    /// A change of leases or state is not durable.
    WriteFailed(StoreError),
    /// A trial's checkpoint is at its path, taken after so many steps.
    CheckpointStored(i64, TrialKey, u64),
    /// A change of a sweep's state or share is durable, or is not.
    Steered(
        i64,
        SweepChange,
        Result<(), StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// A sweep's failed trials have no rows any more, or still have them.
    Retried(
        i64,
        Result<ReopenedTrials, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// A sweep has another file, if the answer is yes.
    Extended(
        i64,
        SpecSource,
        Arc<Spec>,
        Result<bool, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// A successor is stored, and its predecessor, of this number, has ended.
    SuccessorInserted(
        i64,
        Result<i64, StoreError>,
        oneshot::Sender<Result<i64, StoreError>>,
    ),
    /// A sweep is removed, or still there.
    Removed(
        i64,
        Result<(), StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
    /// Trials are to be run once more, or are not.
    Redone(
        i64,
        Result<Vec<RedoneTrial>, StoreError>,
        oneshot::Sender<Result<(), UserError>>,
    ),
}

impl From<WorkerEvent> for EngineEvent {
    fn from(event: WorkerEvent) -> Self {
        Self::Worker(event)
    }
}

impl From<UserEvent> for EngineEvent {
    fn from(event: UserEvent) -> Self {
        Self::User(event)
    }
}

impl From<StoreEvent> for EngineEvent {
    fn from(event: StoreEvent) -> Self {
        Self::Store(event)
    }
}

/// Rows, and audits of these.
pub type FoundRows = (Vec<TrialResult>, Vec<RecordedAudit>);

/// Trials, and audits with the processes whose rows they are of.
pub type ReopenedTrials = (Vec<TrialKey>, Vec<(TrialKey, WorkerId)>);

/// What a worker can say.
pub enum WorkerMessage {
    /// A sign of life: trials that run, with the numbers of their leases; how many are queued; and the leases it holds.
    Heartbeat(Vec<(u64, TrialKey)>, u64, Vec<Fence>),
    /// A request for a lease for so many idle slots.
    RequestWork(u32),
    /// A lease is given back, with a reason if the worker cannot work on that sweep.
    Release(Fence, String),
    /// Trials of a lease that were not begun are given back.
    Retracted(Fence, Vec<TrialKey>),
    /// The worker leaves.
    Goodbye,
}

/// A batch on its way to the store.
pub struct IncomingBatch {
    /// The sender.
    pub worker: WorkerId,
    /// The lease under which it is sent.
    pub fence: Fence,
    /// The number of the sweep that the results are of.
    pub sweep: i64,
    /// The results, until the store has them.
    pub results: Vec<TrialResult>,
    /// What the core keeps of the results.
    pub rows: Vec<StoredRow>,
    /// The permit for its bytes until it is stored.
    pub permit: Permit,
    /// Receives what the store did with it, or why it was refused.
    pub reply: oneshot::Sender<Result<CommitReport, BatchRefusal>>,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub enum BatchRefusal {
    /// The lease never held this trial.
    NotLeased(TrialKey),
    /// The store is behind: the batch is to be sent again later.
    Overloaded,
    /// The batch is not durable, and is to be sent again later.
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
    /// A handle without a loop, and the queue of what is sent through it: a standby answers the questions.
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

    /// Puts an event into the loop's queue.
    pub fn send_event(&self, event: impl Into<EngineEvent>) {
        // A loop that is gone needs to hear nothing.
        let _ = self.events.send(event.into());
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

    /// A counter that is raised whenever something changed.
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The loop's queue.
pub type EngineQueue = (
    mpsc::UnboundedSender<EngineEvent>,
    mpsc::UnboundedReceiver<EngineEvent>,
);
