//! The events of the loop, and the handle through which others send them.

use std::sync::Arc;

use ergodic_common::ids::{Fence, FileHash, LeaseId, SessionNumber, SweepNumber, WorkerId};
use ergodic_common::spec::SpecSource;
use ergodic_common::{Spec, TrialKey};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};

use crate::core::{Core, Effect, JoiningWorker, SessionEnd, Steering, StoredRow, Sweep};
use crate::records::SweepRow;
use crate::result_batch::{CommitOutcome, ResultBatch};
use crate::server::checkpoints::IncomingCheckpoint;
use crate::server::engine::{DrainReply, Engine, OutputQuestion, OutputReply, SessionAbilities};
use crate::server::limits::Permit;
use crate::store::writer::DeletedFiles;
use crate::store::{ClearedRows, ReusingSweep, StoreError, SuccessorSweep};

/// Messages to a worker.
pub type SessionSender = mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>;

/// Receives what became of a user's change, once that is known.
pub type ChangeReply = oneshot::Sender<Result<(), UserError>>;

/// Receives what the store answered.
pub type StoreReply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What follows in the loop once a write is durable, or has failed.
pub type FollowUp = Box<dyn FnOnce(&mut Engine) -> Vec<Effect> + Send>;

/// An event that wakes the loop.
pub enum EngineEvent {
    /// An event of a worker.
    Worker(WorkerEvent),
    /// A change that a user, or the server itself, requests.
    User(UserEvent),
    /// A write is durable, or has failed.
    Persisted(FollowUp),
    /// A query of the core's state.
    Query(Box<dyn FnOnce(&Core) + Send>),
    /// The passing of time.
    Tick,
    /// The coordinator stops.
    Stop,
}

/// Events of workers.
pub enum WorkerEvent {
    /// A worker opened a session.
    Joined {
        /// Who it is, and what it holds.
        joining: JoiningWorker,
        /// Takes what is sent to it.
        sender: SessionSender,
        /// What it does when it is asked.
        abilities: SessionAbilities,
        /// Receives the session's number.
        reply: oneshot::Sender<SessionNumber>,
    },
    /// A session ended, without a goodbye.
    SessionEnded {
        /// The worker.
        worker: WorkerId,
        /// The session's number.
        session: SessionNumber,
        /// How it ended.
        end: SessionEnd,
    },
    /// A message of a session.
    MessageReceived {
        /// The worker.
        worker: WorkerId,
        /// What it says.
        message: WorkerMessage,
        /// The permit for its bytes until it is handled.
        permit: Permit,
    },
    /// A batch of results.
    ResultsReceived {
        /// The results.
        batch: Box<ResultBatch>,
        /// The permit for their bytes until they are stored.
        permit: Permit,
        /// Receives what the store did with them, or why they were refused.
        reply: oneshot::Sender<Result<CommitOutcome, BatchRefusal>>,
    },
    /// A checkpoint that was received completely.
    CheckpointReceived(Box<IncomingCheckpoint>),
    /// A trial's checkpoint is at its path.
    CheckpointStored {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// The trial.
        key: TrialKey,
        /// After how many steps it was taken.
        steps: u64,
    },
}

/// Changes that users request. Each reply is sent once the change is durable or has failed.
pub enum UserEvent {
    /// Store a new sweep.
    Launch {
        /// The sweep.
        row: Box<SweepRow>,
        /// What its file means.
        spec: Arc<Spec>,
        /// Receives its number.
        reply: StoreReply<SweepNumber>,
    },
    /// Steer a sweep.
    Steer {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// What is asked for.
        steering: Steering,
        /// Receives the outcome.
        reply: ChangeReply,
    },
    /// Give a sweep a file that asks for more repeats of its cells.
    Extend {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// The file that it has, unless it was changed meanwhile.
        from: Box<SpecSource>,
        /// The file that it gets.
        to: Box<SpecSource>,
        /// What the new file means.
        spec: Arc<Spec>,
        /// Receives the outcome.
        reply: ChangeReply,
    },
    /// Store a new sweep with the rows of another one.
    InsertSuccessor {
        /// The sweep.
        successor: Box<SuccessorSweep>,
        /// Receives its number.
        reply: StoreReply<SweepNumber>,
    },
    /// Store a new sweep with copies of rows of others.
    InsertReusing {
        /// The sweep.
        reusing: Box<ReusingSweep>,
        /// Receives its number, and how many rows were copied.
        reply: StoreReply<(SweepNumber, u64)>,
    },
    /// Begin with a sweep that is stored.
    AddStoredSweep {
        /// The sweep.
        sweep: Box<Sweep>,
        /// The rows of the sweep.
        rows: Vec<StoredRow>,
        /// Receives a signal once the core has it.
        reply: oneshot::Sender<()>,
    },
    /// Remove a sweep.
    Remove {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// Receives the outcome.
        reply: ChangeReply,
    },
    /// Delete some rows of a removed sweep.
    ClearRows {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// Receives what was cleared.
        reply: StoreReply<ClearedRows>,
    },
    /// Delete files that nothing names, as far as is known.
    DeleteUnreferenced {
        /// Hashes of the files.
        hashes: Vec<FileHash>,
        /// Receives what was deleted.
        reply: StoreReply<DeletedFiles>,
    },
    /// Run trials of a sweep once more, because files that their rows name are lost.
    Redo {
        /// Number of the sweep.
        sweep: SweepNumber,
        /// The trials.
        keys: Vec<TrialKey>,
        /// Receives the outcome.
        reply: ChangeReply,
    },
    /// Ask the worker that runs a trial what it has printed.
    AskForOutput {
        /// What is asked.
        question: OutputQuestion,
        /// Receives the answer.
        reply: OutputReply,
    },
    /// Ask workers to leave.
    DrainWorkers {
        /// Their names or ids.
        names: Vec<String>,
        /// Receives those that were asked, or why none was.
        reply: DrainReply,
    },
    /// Test whether the store accepts a write.
    CheckWritable {
        /// Receives whether it does.
        reply: StoreReply<()>,
    },
}

impl EngineEvent {
    /// Whether what clients see may have changed by it.
    pub(crate) fn is_change(&self) -> bool {
        !matches!(
            self,
            Self::Query(_)
                | Self::User(UserEvent::CheckWritable { .. } | UserEvent::AskForOutput { .. })
                | Self::Worker(WorkerEvent::MessageReceived {
                    message: WorkerMessage::Output(_),
                    ..
                })
                | Self::Tick
        )
    }
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

/// A message from a worker.
pub enum WorkerMessage {
    /// A sign of life.
    Heartbeat {
        /// Trials that run, with the numbers of their leases.
        running: Vec<(LeaseId, TrialKey)>,
        /// How many trials are queued.
        queued: u64,
        /// The leases that it holds.
        held: Vec<Fence>,
    },
    /// A request for a lease.
    RequestWork {
        /// How many slots have nothing to do.
        idle_slots: u32,
    },
    /// A lease is given back.
    Release {
        /// The lease.
        fence: Fence,
        /// Why the worker cannot work on that sweep; empty if it can.
        why: String,
    },
    /// The return of trials of a lease that have not begun.
    Retracted {
        /// The lease.
        fence: Fence,
        /// The trials.
        keys: Vec<TrialKey>,
    },
    /// What a running program has printed.
    Output(v1::OutputPart),
    /// The worker's goodbye.
    Goodbye,
}

/// The reason why a batch was refused.
#[derive(Debug)]
pub enum BatchRefusal {
    /// The lease never held this trial.
    NotLeased(TrialKey),
    /// The store is behind; the worker should send the batch again later.
    Overloaded,
    /// The batch could not be stored; the worker should send it again later.
    StoreFailed(StoreError),
}

/// A cheap handle for sending events to the loop.
#[derive(Clone)]
pub struct EngineHandle {
    pub(crate) events: mpsc::UnboundedSender<EngineEvent>,
    pub(crate) changes: watch::Receiver<u64>,
}

/// The loop has stopped, because the coordinator is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is stopping")]
pub struct EngineStopped;

impl EngineHandle {
    /// Creates a handle without a loop, and the queue of its events, for a standby to answer
    /// queries.
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

    /// Sends an event to the loop.
    pub fn send_event(&self, event: impl Into<EngineEvent>) {
        // Sending fails only when the loop has ended, and then nothing needs the event.
        let _ = self.events.send(event.into());
    }

    /// Runs a query on the core and waits for the answer.
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

    /// A counter that changes whenever the state changes.
    pub fn subscribe_changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The loop's queue.
pub type EngineQueue = (
    mpsc::UnboundedSender<EngineEvent>,
    mpsc::UnboundedReceiver<EngineEvent>,
);
