//! The coordinator process: store, event loop, gRPC services, and an orderly end.

mod admin;
pub(crate) mod backup;
mod checkpoints;
pub mod data;
pub mod door;
pub mod engine;
pub mod files;
mod http;
mod limits;
mod listen;
mod metrics;
pub(crate) mod process;
mod removal;
mod rows;
pub mod session;
mod status;
mod sweeps;
pub mod workers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::MAX_MESSAGE;
use ergodic_proto::status::UserError;
use ergodic_proto::transfer::CHUNK;
use ergodic_proto::v1::admin_service_server::AdminServiceServer;
use ergodic_proto::v1::file_service_server::FileServiceServer;
use ergodic_proto::v1::sweep_service_server::SweepServiceServer;
use ergodic_proto::v1::worker_service_server::WorkerServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::core::{Core, StoredRow, Sweep, SweepRow, SweepState, Timing, main_metric};
use crate::store::place::Place;
use crate::store::writer::{WriterHandle, WriterLoop};
use crate::store::{Damage, Leader, Reader, Store, StoreError, Write, Writer};
use checkpoints::{Checkpoints, Keeper};
use data::DataCatalog;
use door::{Caller, Door, DoorOptions, Guard, Tokens};
use engine::{Engine, EngineHandle, Event};
use files::Shelf;
use limits::{Limited, Limits};
use metrics::Metrics;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the store is.
    pub store: Place,
    /// Where files of sweeps and trials are kept; beside the results if they are kept in a directory.
    pub files: Option<PathBuf>,
    /// Where dataset files are.
    pub data_dir: Option<PathBuf>,
    /// Where to tell over HTTP how the coordinator is doing; port 0 picks a free one.
    pub http: Option<SocketAddr>,
    /// Whether peers are asked who they are, and how.
    pub door: Option<DoorOptions>,
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
    /// Whether curves and predictions are checked, too, before it serves.
    pub check: bool,
    /// Requests per second that a token, or an address where nobody is asked for one, may make; none for any number.
    pub rate_limit: Option<u32>,
}

/// A coordinator that is up.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    secure: bool,
    epoch: u64,
    store: Arc<dyn Store>,
    handle: EngineHandle,
    shutdown: tokio::sync::watch::Sender<bool>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Ends when another coordinator leads.
    deposed: tokio::task::JoinHandle<()>,
}

/// Shared by all services.
pub(crate) struct Shared {
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) metrics: Metrics,
    pub(crate) engine: EngineHandle,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) epoch: u64,
    pub(crate) catalog: DataCatalog,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) lease_ttl: Duration,
    pub(crate) limits: Limits,
    pub(crate) rate_limit: Option<u32>,
    pub(crate) stopping: tokio::sync::watch::Receiver<bool>,
}

impl Shared {
    /// Returns when the token that opened a stream opens nothing any more.
    pub(crate) async fn locked_out(&self, caller: Option<Caller>) {
        match (&self.tokens, caller) {
            (Some(tokens), Some(caller)) => tokens.ended(&caller.token).await,
            _ => std::future::pending().await,
        }
    }
}

/// How often the core looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// How often the leader renews its claim, a third of how long it lasts.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a coordinator that stands by tries to lead.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// How long open connections are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Opens the store, takes up where it was left, and serves.
///
/// # Errors
/// The store is taken or damaged, the address cannot be listened on, or the door cannot be kept.
pub async fn start(options: ServeOptions) -> Result<Running, UserError> {
    let files = files_dir(options.files.as_deref(), &options.store)?;
    let internal = |e: std::io::Error| UserError::new(ErrorCode::Internal, e.to_string());
    let store = tokio::task::block_in_place(|| options.store.open()).map_err(store_error)?;
    let (listener, leader) = lead(&options, store.as_ref()).await?;
    // Not before it leads: whoever led until now may have made tokens.
    let door = options.door.as_ref().map(Door::open).transpose()?;
    let http = match options.http {
        Some(address) => Some(bind("--http", address).await?),
        None => None,
    };
    let address = listener.local_addr().map_err(internal)?;
    let (shutdown, stopping) = tokio::sync::watch::channel(false);
    // From now on, because a large store takes longer to read than a claim to lead lasts.
    let deposed = tokio::spawn(keep_leading(store.clone(), leader.epoch, stopping.clone()));
    let mut writer = tokio::task::block_in_place(|| store.writer(leader.epoch)).map_err(store_error)?;
    let checkpoints = Checkpoints::new(&files);
    let (core, removals) = tokio::task::block_in_place(|| {
        let (mut core, removals) =
            recover(store.as_ref(), writer.as_mut(), leader.epoch, options.lease_ttl, options.check)?;
        checkpoints.recover(&mut core);
        Ok::<_, UserError>((core, removals))
    })?;
    let (tls, tokens) = door.map_or((None, None), |door| (Some(door.tls), Some(door.tokens)));
    let secure = tls.is_some();
    let parts = assemble(Setup {
        store: store.clone(),
        epoch: leader.epoch,
        core,
        writer,
        files,
        data_dir: options.data_dir,
        tokens,
        lease_ttl: options.lease_ttl,
        rate_limit: options.rate_limit,
        stopping: stopping.clone(),
    });
    let Parts { engine, writer, services, keeper } = parts.map_err(internal)?;
    tokio::spawn(removal::go_on(services.0.clone(), removals));
    let handle = services.0.engine.clone();
    let runtime = tokio::runtime::Handle::current();
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let loop_thread = thread("event-loop").spawn(move || runtime.block_on(engine.run())).map_err(internal)?;
    let writer_thread = thread("store-writer").spawn(move || writer.run()).map_err(internal)?;
    if let Some(listener) = http {
        tracing::info!(address = %listener.local_addr().map_err(internal)?, "health and metrics over http");
        tokio::spawn(http::serve(listener, services.0.clone()));
    }
    let server = tokio::spawn(services.serve(listen::incoming(listener, tls, stopping)));
    let threads = vec![loop_thread, writer_thread, keeper];
    Ok(Running { address, secure, epoch: leader.epoch, store, handle, shutdown, server, threads, deposed })
}

/// What a coordinator is put together from.
pub struct Setup {
    /// Where results are kept.
    pub store: Arc<dyn Store>,
    /// In which it leads.
    pub epoch: u64,
    /// What it knows.
    pub core: Core,
    /// The store's one writer.
    pub writer: Box<dyn Writer>,
    /// Where files of sweeps and trials are kept.
    pub files: PathBuf,
    /// Where dataset files are.
    pub data_dir: Option<PathBuf>,
    /// Who may ask, unless everybody may.
    pub tokens: Option<Arc<Tokens>>,
    /// A lease ends after this time without a heartbeat.
    pub lease_ttl: Duration,
    /// Requests that a peer may make in a second, if there is a limit.
    pub rate_limit: Option<u32>,
    /// Says when to end.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// A coordinator put together, whose two loops and services are for its owner to run.
pub struct Parts {
    /// Decides: [`Engine::run`].
    pub engine: Engine,
    /// Makes durable: [`WriterLoop::run`].
    pub writer: WriterLoop,
    /// Answer workers and users: [`Services::serve`].
    pub services: Services,
    /// Puts checkpoints into their places, and ends with the engine.
    pub keeper: std::thread::JoinHandle<()>,
}

/// Puts a coordinator together.
///
/// # Errors
/// The operating system gives no thread.
pub fn assemble(setup: Setup) -> std::io::Result<Parts> {
    let (handle, writer) = WriterHandle::new(setup.writer);
    let metrics = Metrics::new(handle.meter());
    let checkpoints = Checkpoints::new(&setup.files);
    let (events, waiting) = Engine::queue();
    let (keeps, keeper) = Keeper::start(checkpoints.clone(), events.clone())?;
    let (engine, handle) = Engine::new(setup.core, handle, keeps, (events, waiting));
    let shared = Shared {
        metrics,
        tokens: setup.tokens,
        engine: handle,
        store: setup.store,
        epoch: setup.epoch,
        catalog: DataCatalog { source: setup.data_dir, shelf: Shelf::new(setup.files) },
        checkpoints,
        lease_ttl: setup.lease_ttl,
        limits: Limits::new(),
        rate_limit: setup.rate_limit,
        stopping: setup.stopping,
    };
    Ok(Parts { engine, writer, services: Services(Arc::new(shared)), keeper })
}

async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener, UserError> {
    TcpListener::bind(address).await.map_err(|e| {
        let message = format!("cannot listen on {address}: {e}. Choose another address with {option}");
        UserError::new(ErrorCode::Refused, message)
    })
}

impl Running {
    /// Ends streams, waits a little for open connections, and makes sure that what was acknowledged is on disk.
    pub async fn stop(self) {
        // Streams end by themselves on this signal; a client that holds its connection open is not waited for.
        let _ = self.shutdown.send(true);
        let _ = tokio::time::timeout(GRACE, self.server).await;
        self.handle.tell(Event::Stop);
        drop(self.handle);
        let join = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                let _ = thread.join();
            }
            self.store.resign(self.epoch);
        });
        let _ = tokio::time::timeout(GRACE, join).await;
    }

    /// The address to tell workers and clients.
    pub fn url(&self) -> String {
        url(self.address, self.secure)
    }

    /// Waits until another coordinator leads on the same store, which may be never.
    pub async fn deposed(&mut self) -> UserError {
        let _ = (&mut self.deposed).await;
        let message =
            "another coordinator leads since on the same store: this one ends, and may be started again to stand by";
        UserError::new(ErrorCode::Refused, message)
    }
}

fn url(address: SocketAddr, secure: bool) -> String {
    format!("{}://{address}", if secure { "https" } else { "http" })
}

/// A store in a directory has its files beside it. With a database, any coordinator may need them after a take-over.
pub(crate) fn files_dir(files: Option<&Path>, store: &Place) -> Result<PathBuf, UserError> {
    match (files, store) {
        (Some(dir), _) => Ok(dir.to_owned()),
        (None, Place::Directory(dir)) => Ok(dir.join("data")),
        (None, Place::Database(_)) => {
            let message = "--files: with a database as the store, say in which directory datasets and weights are kept; \
                           coordinators on several machines need one that all of them see";
            Err(UserError::new(ErrorCode::BadInput, message))
        }
    }
}

/// Listens and leads. While another coordinator leads, it does neither, and tries again every second.
async fn lead(options: &ServeOptions, store: &dyn Store) -> Result<(TcpListener, Leader), UserError> {
    let mut told = None;
    loop {
        let listener = bind("--listen", options.listen).await?;
        let address = listener.local_addr().map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?;
        match tokio::task::block_in_place(|| store.claim(&url(address, options.door.is_some()))) {
            Ok(leader) if leader.is_this => return Ok((listener, leader)),
            Ok(leader) if told != Some(leader.epoch) => {
                tracing::info!(leader = leader.url, epoch = leader.epoch, "standing by");
                told = Some(leader.epoch);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot lead yet"),
        }
        drop(listener);
        tokio::time::sleep(CLAIM_EVERY).await;
    }
}

/// Renews the claim to lead until it is lost. A database that does not answer takes nothing away: whether another
/// coordinator took over shows when it answers again.
async fn keep_leading(store: Arc<dyn Store>, epoch: u64, mut stopping: tokio::sync::watch::Receiver<bool>) {
    loop {
        let stops = tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => false,
            stop = stopping.wait_for(|stop| *stop) => stop.is_ok(),
        };
        if stops {
            // Whoever stops goes on leading until the last write is durable.
            return std::future::pending().await;
        }
        let asked = store.clone();
        match tokio::task::spawn_blocking(move || asked.renew(epoch)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                tracing::error!(epoch, "another coordinator leads since");
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "the claim to lead could not be renewed"),
            Err(error) => tracing::warn!(%error, "the claim to lead could not be renewed"),
        }
    }
}

pub(crate) fn store_error(error: StoreError) -> UserError {
    let code = match error {
        StoreError::Taken(_) | StoreError::Foreign(_) => ErrorCode::Refused,
        StoreError::Cut(_) | StoreError::Deposed(_) => ErrorCode::Unreachable,
        StoreError::Failed(_) | StoreError::Damaged(_) => ErrorCode::Internal,
    };
    UserError::new(code, error.to_string())
}

/// The core as the store knows it: sweeps with their rows, and leases with a fresh time to live. And sweeps that were
/// removed, and have rows left.
///
/// # Errors
/// The store cannot be read, or holds what no coordinator of this version wrote.
pub fn recover(
    store: &dyn Store,
    writer: &mut dyn Writer,
    epoch: u64,
    lease_ttl: Duration,
    all_of_it: bool,
) -> Result<(Core, Vec<i64>), UserError> {
    let reader = store.reader().map_err(store_error)?;
    let (leases, next_lease) = reader.leases().map_err(store_error)?;
    let mut core = Core::new(Timing { lease_ttl }, epoch, next_lease);
    for mut row in reader.sweeps().map_err(store_error)? {
        let spec = Spec::read(&row.source).map_err(|e| {
            let message = format!("the stored sweep {} cannot be read by this version: {e}", row.id);
            UserError::new(ErrorCode::Version, message)
        })?;
        let (rows, damages) = sound_rows(reader.as_ref(), row.number, &spec, all_of_it).map_err(store_error)?;
        if !damages.is_empty() {
            set_aside(writer, &mut row, &damages).map_err(store_error)?;
        }
        if !rows.is_empty() || row.state == SweepState::Running {
            tracing::info!(sweep = row.id, rows = rows.len(), "sweep taken up");
        }
        let mut audits = reader.audits(row.number).map_err(store_error)?;
        // The row that one compares with may have been set aside.
        audits.retain(|audit| damages.iter().all(|damage| damage.key != audit.key));
        let mut sweep = Sweep::new(Arc::new(row), Arc::new(spec));
        sweep.remember_audits(audits.into_iter().map(|audit| (audit.key, audit.process, audit.finding)));
        core.on_sweep(sweep, rows, Duration::ZERO);
    }
    for lease in leases {
        // Leases that turn out empty are left in the store: nothing can be written under them that is not a duplicate.
        core.on_recorded_lease(lease, Duration::ZERO);
    }
    core.check().map_err(|why| {
        let message = format!("the store is damaged ({why}): go back to a copy of it, or begin a new one with --store");
        UserError::new(ErrorCode::Internal, message)
    })?;
    Ok((core, reader.removals().map_err(store_error)?))
}

/// What the core keeps of a sweep's rows, and which of them are damaged.
fn sound_rows(
    reader: &dyn Reader,
    sweep: i64,
    spec: &Spec,
    all_of_it: bool,
) -> Result<(Vec<StoredRow>, Vec<Damage>), StoreError> {
    let (metric, _) = main_metric(&spec.measure.metrics);
    let (mut rows, mut stranger) = (Vec::new(), None);
    let damages = reader.sound_trials(sweep, all_of_it, &mut |trial| {
        let result = trial.result;
        if !spec.holds(result.key) {
            stranger = Some(result.key);
            return;
        }
        let metric = result.metrics.get(metric).copied().unwrap_or(f64::NAN);
        rows.push(StoredRow { key: result.key, outcome: result.outcome, metric, seconds: result.seconds });
    })?;
    match stranger {
        Some(key) => Err(StoreError::Failed(format!("it has a row of {key}, which is no trial of its sweep"))),
        None => Ok((rows, damages)),
    }
}

/// Trials are pure functions: those whose rows are damaged are run again.
fn set_aside(writer: &mut dyn Writer, row: &mut SweepRow, damages: &[Damage]) -> Result<(), StoreError> {
    for Damage { key, what, why, .. } in damages {
        tracing::error!(sweep = row.id, trial = %key, "its {what} is damaged ({why}): set aside, to be run again");
    }
    writer.commit(&[&Write::SetAside(row.number, damages.iter().map(|damage| damage.key).collect())])?;
    if row.state == SweepState::Completed {
        row.state = SweepState::Running;
    }
    Ok(())
}

fn spawn_ticks(handle: EngineHandle, mut stopping: tokio::sync::watch::Receiver<bool>) {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = ticks.tick() => handle.tell(Event::Tick),
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    });
}

/// The gRPC services.
pub struct Services(Arc<Shared>);

impl Services {
    /// Answers on these connections, and has the core look at the clock, until it is time to end.
    ///
    /// # Errors
    /// No more connections can be had.
    pub async fn serve<C>(
        self,
        connections: impl Stream<Item = std::io::Result<C>>,
    ) -> Result<(), tonic::transport::Error>
    where
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        spawn_ticks(self.0.engine.clone(), self.0.stopping.clone());
        serve(connections, self.0).await
    }
}

async fn serve<C>(
    connections: impl Stream<Item = std::io::Result<C>>,
    shared: Arc<Shared>,
) -> Result<(), tonic::transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (mut stopping, tokens) = (shared.stopping.clone(), shared.tokens.clone());
    let workers = WorkerServiceServer::new(workers::Workers(shared.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let files = FileServiceServer::new(files::Files(shared.clone()))
        .accept_compressed(CompressionEncoding::Zstd)
        // A piece of a file, and what stands around it.
        .max_decoding_message_size(2 * CHUNK);
    let metrics = shared.metrics.clone();
    let limited = Limited::new(shared.limits.clone(), shared.rate_limit);
    let admin = admin::Admin { tokens: tokens.clone(), shared: shared.clone() };
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(64 << 10);
    let sweeps = SweepServiceServer::new(sweeps::Sweeps(shared))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(64 << 20);
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    Server::builder()
        // The guard comes first: what it turns away is not counted, and names nothing.
        .layer(Guard::new(tokens))
        .layer(metrics)
        .layer(limited)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_connection_window_size(8 << 20)
        .initial_stream_window_size(4 << 20)
        .max_concurrent_streams(256)
        .add_service(workers)
        .add_service(files)
        .add_service(sweeps)
        .add_service(admin)
        .serve_with_incoming_shutdown(connections, stopped)
        .await
}
