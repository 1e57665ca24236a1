//! Assembles a leading coordinator from its parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;
use crate::server::auth::TokenStore;
use crate::server::blobs::BlobStore;
use crate::server::cell_identities::LaunchState;
use crate::server::checkpoints::{CheckpointFiles, CheckpointWriter};
use crate::server::datasets::DatasetCatalog;
use crate::server::engine::{Engine, WorkerEvent};
use crate::server::ha::leadership::Leadership;
use crate::server::limits::{LimitOptions, Limits};
use crate::server::metrics::Metrics;
use crate::server::{GrpcServices, ProgramPolicy, ServerContext};
use crate::store::writer::{WriterHandle, WriterLoop};
use crate::store::{Store, StoreWriter};
use ergodic_common::ids::Epoch;

/// The parts that a coordinator is assembled from.
pub struct CoordinatorSetup {
    /// The store of all results.
    pub store: Arc<dyn Store>,
    /// The epoch in which the coordinator leads.
    pub epoch: Epoch,
    /// The core, as recovered from the store.
    pub core: Core,
    /// The writer of the store.
    pub writer: Box<dyn StoreWriter>,
    /// Files of sweeps and trials.
    pub blobs: BlobStore,
    /// The directory of dataset files.
    pub data_dir: Option<PathBuf>,
    /// The tokens that peers need; `None` if everybody may connect.
    pub tokens: Option<Arc<TokenStore>>,
    /// Whose programs are run.
    pub programs: ProgramPolicy,
    /// Time without a heartbeat after which a lease ends.
    pub lease_ttl: Duration,
    /// The limits that depend on the size of the fleet.
    pub limits: LimitOptions,
    /// Becomes true when the coordinator must stop.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// An assembled coordinator, whose two loops and services the owner runs.
pub struct CoordinatorParts {
    /// The event loop, which decides: [`Engine::run_until_stopped`].
    pub engine: Engine,
    /// The writer's loop, which makes writes durable: [`WriterLoop::run_until_closed`].
    pub writer: WriterLoop,
    /// The services, which answer workers and users: [`GrpcServices::serve_connections`].
    pub services: GrpcServices,
    /// The thread that moves checkpoints to their paths; it ends with the engine.
    pub checkpoint_thread: std::thread::JoinHandle<()>,
}

/// Assembles a coordinator.
///
/// # Errors
/// The operating system refuses a thread.
pub fn assemble_coordinator(setup: CoordinatorSetup) -> std::io::Result<CoordinatorParts> {
    let (writer_handle, writer) = WriterHandle::new(setup.writer, Box::new(setup.blobs.clone()));
    let metrics = Metrics::new(writer_handle.metrics(), true);
    let checkpoints = CheckpointFiles::new(setup.blobs.folder());
    let queue = Engine::new_queue();
    let events = queue.0.clone();
    let (checkpoint_writer, checkpoint_thread) =
        CheckpointWriter::start_thread(checkpoints.clone(), move |sweep, key, steps| {
            let _ = events.send(WorkerEvent::CheckpointStored { sweep, key, steps }.into());
        })?;
    let (engine, engine_handle) = Engine::new(setup.core, writer_handle, checkpoint_writer, queue);
    let context = ServerContext {
        metrics,
        tokens: setup.tokens,
        programs: setup.programs,
        engine: engine_handle,
        store: setup.store,
        leadership: Leadership::Leading(setup.epoch),
        catalog: DatasetCatalog {
            data_dir: setup.data_dir,
            blobs: setup.blobs,
        },
        checkpoints,
        lease_ttl: setup.lease_ttl,
        limits: Limits::new(&setup.limits),
        change_lock: Arc::default(),
        launch_state: LaunchState::default(),
        stopping: setup.stopping,
    };

    Ok(CoordinatorParts {
        engine,
        writer,
        services: GrpcServices(Arc::new(context)),
        checkpoint_thread,
    })
}
