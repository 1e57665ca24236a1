//! The life of a coordinator. On a store that several share, it stands by and leads in alternating
//! terms. Each term has its own services on the same address; peers that are connected at its end
//! reconnect.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_common::ids::{Epoch, SweepNumber};
use ergodic_proto::status::UserError;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place, spawn_blocking};
use tokio::time::Instant;

use super::leadership::Leadership;
use super::standby::StandbyView;
use crate::core::Core;
use crate::server::auth::Auth;
use crate::server::blobs::BlobStore;
use crate::server::cell_identities::LaunchState;
use crate::server::checkpoints::CheckpointFiles;
use crate::server::datasets::DatasetCatalog;
use crate::server::engine::EngineHandle;
use crate::server::ha::term::{CoordinatorTerm, SHUTDOWN_GRACE, TermRole};
use crate::server::limits::{ConnectionCapacity, Limits};
use crate::server::metrics::Metrics;
use crate::server::recovery::recover_core;
use crate::server::{
    CoordinatorParts, CoordinatorSetup, GrpcServices, ServeOptions, ServerContext,
    assemble_coordinator, blob_collection, http, internal_error, listen, lost_blobs, removal,
    store_error,
};
use crate::store::writer::WriterMetrics;
use crate::store::{Leader, Store, StoreWriter};
use crate::throttled_log::ThrottledLog;

/// Interval at which the leader renews its claim, a third of its TTL.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// Interval at which a standby tries to lead.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after recovering a store failed.
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// The parts of a coordinator that outlast terms.
pub(crate) struct Supervisor {
    pub(crate) options: ServeOptions,
    /// URL under which others reach this coordinator.
    pub(crate) url: String,
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) http_listener: Option<Arc<TcpListener>>,
    /// Maximum numbers of connections.
    pub(crate) connections: ConnectionCapacity,
    pub(crate) auth: Option<Auth>,
    pub(crate) store: Arc<dyn Store>,
    /// Files of sweeps and trials. Reservations outlast a term.
    pub(crate) blobs: BlobStore,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// A store that was recovered, and is ready for the leader.
struct RecoveredStore {
    core: Core,
    /// Numbers of removed sweeps that have rows left.
    removals: Vec<SweepNumber>,
    writer: Box<dyn StoreWriter>,
    /// The store's identity in a folder of files that other stores may share.
    identity: Option<i64>,
}

impl Supervisor {
    /// Starts the first term: as leader if nobody else leads.
    ///
    /// # Errors
    /// The store cannot be recovered.
    pub(crate) async fn start_first_term(&self) -> Result<CoordinatorTerm, UserError> {
        match self.acquire_leadership().await {
            Ok(leader) if leader.is_this => self.lead_or_resign(leader.epoch).await,
            Ok(leader) => self.stand_by(leader),
            Err(error) => {
                tracing::warn!(%error, "cannot lead yet");
                self.stand_by(Leader::unknown())
            }
        }
    }

    /// Runs one term after another until the coordinator is stopped.
    pub(crate) async fn run_terms(self, mut term: CoordinatorTerm) {
        let mut stopping = self.stopping.clone();
        let mut last_leading = LastLeadingTerm(None);

        loop {
            let next = tokio::select! {
                next = self.next_term(&mut term, &mut last_leading) => next,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let ended = std::mem::replace(&mut term, next);
            let has_led = ended.is_leading();

            // The old term's connections end in the background, while the next term accepts new
            // ones.
            let end = tokio::spawn(ended.end_term(self.store.clone()));
            if has_led {
                last_leading = LastLeadingTerm(Some(end));
            }
        }

        tracing::info!("stopping");
        let ends = async {
            term.end_term(self.store).await;
            last_leading.wait_until_over().await;
        };
        if tokio::time::timeout(2 * SHUTDOWN_GRACE, ends)
            .await
            .is_err()
        {
            tracing::warn!(
                "stopped while something was still being written or read: everything acknowledged is stored, and the next \
                 coordinator on the store finds it"
            );
        }
    }

    /// Waits for the end of this term and starts the next one.
    async fn next_term(
        &self,
        term: &mut CoordinatorTerm,
        last_leading: &mut LastLeadingTerm,
    ) -> CoordinatorTerm {
        loop {
            let next = match &mut term.role {
                TermRole::Standby(leader) => {
                    // Writes of this coordinator's last leading term may still be under way. If it
                    // led again before they end, the store would change under its new core.
                    last_leading.wait_until_over().await;
                    self.lead_or_resign(self.wait_to_lead(leader).await).await
                }
                TermRole::Leading(_, renewals) => {
                    // A join handle panics if it is awaited twice, and a failed attempt may have
                    // awaited this one.
                    if !renewals.is_finished() {
                        let _ = renewals.await;
                    }
                    self.stand_by(Leader::unknown())
                }
            };
            match next {
                Ok(term) => return term,
                Err(error) => tracing::error!(%error, "cannot take over the store; trying again"),
            }

            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Waits until this coordinator leads; returns the epoch.
    async fn wait_to_lead(&self, leader: &watch::Sender<Leader>) -> Epoch {
        let mut throttled_log = ThrottledLog::default();
        loop {
            match self.acquire_leadership().await {
                Ok(claimed) if claimed.is_this => return claimed.epoch,
                Ok(other) => drop(leader.send_if_modified(|known| {
                    let changed = *known != other;
                    if changed {
                        tracing::info!(leader = other.url, epoch = other.epoch.0, "standing by");
                        *known = other;
                    }

                    changed
                })),
                Err(error) => throttled_log.report_error("cannot lead yet", &error),
            }

            tokio::time::sleep(CLAIM_INTERVAL).await;
        }
    }

    async fn acquire_leadership(&self) -> Result<Leader, UserError> {
        let store = self.store.clone();
        let url = self.url.clone();
        let claimed = spawn_blocking(move || store.acquire_leadership(&url)).await;
        claimed
            .map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?
            .map_err(store_error)
    }

    /// Recovers the store and serves as leader. If that fails, resigns, so that another coordinator
    /// can lead.
    async fn lead_or_resign(&self, epoch: Epoch) -> Result<CoordinatorTerm, UserError> {
        let led = self.try_to_lead(epoch).await;
        if led.is_err() {
            let store = self.store.clone();
            let _ = spawn_blocking(move || store.resign_leadership(epoch)).await;
        }
        led
    }

    async fn try_to_lead(&self, epoch: Epoch) -> Result<CoordinatorTerm, UserError> {
        let (end_signal, ended) = watch::channel(false);
        // Renewals start first, because reading a large store can take longer than a leadership
        // claim lasts.
        let renewals = tokio::spawn(keep_renewing_leadership(
            self.store.clone(),
            epoch,
            ended.clone(),
        ));

        let recovered = block_in_place(|| self.recover_store(epoch))?;
        let removals = recovered.removals;
        let identity = recovered.identity;
        let sweeps = recovered.core.sweep_rows().count();
        let CoordinatorParts {
            engine,
            writer,
            services,
            checkpoint_thread,
        } = assemble_coordinator(CoordinatorSetup {
            store: self.store.clone(),
            epoch,
            core: recovered.core,
            writer: recovered.writer,
            blobs: self.blobs.clone(),
            data_dir: self.options.data_dir.clone(),
            tokens: self.auth.as_ref().map(|auth| auth.tokens.clone()),
            programs: self.options.programs,
            lease_ttl: self.options.lease_ttl,
            limits: self.options.limits,
            stopping: ended,
        })
        .map_err(internal_error)?;

        let context = services.0.clone();
        let tasks = vec![
            tokio::spawn(removal::clear_removed_sweeps(context.clone(), removals)),
            tokio::spawn(blob_collection::collect_periodically(context, identity)),
        ];
        let runtime = tokio::runtime::Handle::current();
        let event_loop = spawn_thread("event-loop", move || {
            runtime.block_on(engine.run_until_stopped())
        })?;
        let store_writer = spawn_thread("store-writer", move || writer.run_until_closed())?;

        tracing::info!(
            epoch = epoch.0,
            store = self.options.store.describe(),
            sweeps,
            "leading"
        );
        let role = TermRole::Leading(epoch, renewals);
        let threads = vec![event_loop, store_writer, checkpoint_thread];
        Ok(self.open_services(role, end_signal, services, tasks, threads))
    }

    fn recover_store(&self, epoch: Epoch) -> Result<RecoveredStore, UserError> {
        let ServeOptions {
            lease_ttl,
            verify_store,
            ..
        } = self.options;

        let folder = self.blobs.folder();
        let mut writer = self.store.open_writer(epoch).map_err(store_error)?;
        let identity = match &self.options.files_dir {
            Some(_) => Some(blob_collection::sign_folder(writer.as_mut(), folder)?),
            None => None,
        };

        let (mut core, removals) = recover_core(
            self.store.as_ref(),
            Some(writer.as_mut()),
            epoch,
            lease_ttl,
            verify_store,
        )?;

        let is_alone = blob_collection::check_sole_owner(folder, identity).is_ok();
        CheckpointFiles::new(folder).recover_checkpoints(&mut core, is_alone);

        if verify_store {
            lost_blobs::report_lost_blobs(self.store.as_ref(), &self.blobs)?;
        }

        Ok(RecoveredStore {
            core,
            removals,
            writer,
            identity,
        })
    }

    /// Starts a term as standby.
    fn stand_by(&self, leader: Leader) -> Result<CoordinatorTerm, UserError> {
        tracing::info!(
            leader = leader.url,
            epoch = leader.epoch.0,
            store = self.options.store.describe(),
            "standing by"
        );
        let (end_signal, ended) = watch::channel(false);
        let (leader_sender, leader) = watch::channel(leader);
        let (engine, questions) = EngineHandle::detached();
        let view = StandbyView {
            store: self.store.clone(),
            leader: leader.clone(),
            lease_ttl: self.options.lease_ttl,
        };
        let view = spawn_thread("view", move || view.answer_queries(None, questions))?;

        let context = self.standby_context(engine, leader, ended);
        let role = TermRole::Standby(leader_sender);
        let services = GrpcServices(Arc::new(context));
        Ok(self.open_services(role, end_signal, services, Vec::new(), vec![view]))
    }

    fn standby_context(
        &self,
        engine: EngineHandle,
        leader: watch::Receiver<Leader>,
        stopping: watch::Receiver<bool>,
    ) -> ServerContext {
        ServerContext {
            metrics: Metrics::new(Arc::new(WriterMetrics::new()), false),
            tokens: self.auth.as_ref().map(|auth| auth.tokens.clone()),
            programs: self.options.programs,
            engine,
            store: self.store.clone(),
            leadership: Leadership::Standby(leader),
            catalog: DatasetCatalog {
                data_dir: self.options.data_dir.clone(),
                blobs: self.blobs.clone(),
            },
            checkpoints: CheckpointFiles::new(self.blobs.folder()),
            lease_ttl: self.options.lease_ttl,
            limits: Limits::new(&self.options.limits),
            change_lock: Arc::default(),
            launch_state: LaunchState::default(),
            stopping,
        }
    }

    /// Accepts connections for the services of a term.
    fn open_services(
        &self,
        role: TermRole,
        end_signal: watch::Sender<bool>,
        services: GrpcServices,
        tasks: Vec<JoinHandle<()>>,
        threads: Vec<std::thread::JoinHandle<()>>,
    ) -> CoordinatorTerm {
        let engine = services.0.engine.clone();
        let context = Arc::downgrade(&services.0);
        if let Some(listener) = &self.http_listener {
            tokio::spawn(http::serve_http(listener.clone(), services.0.clone()));
        }

        let tls = self.auth.as_ref().map(|auth| auth.tls.clone());
        let server = tokio::spawn(services.serve_connections(listen::accept_connections(
            self.listener.clone(),
            tls,
            self.connections,
            end_signal.subscribe(),
        )));
        CoordinatorTerm {
            role,
            end_signal,
            engine,
            context,
            server,
            tasks,
            threads,
        }
    }
}

/// The shutdown of this coordinator's last leading term, if there was one.
struct LastLeadingTerm(Option<JoinHandle<()>>);

impl LastLeadingTerm {
    /// Waits until that term is over, however long its last write takes.
    async fn wait_until_over(&mut self) {
        let Some(end) = &mut self.0 else { return };
        if tokio::time::timeout(2 * SHUTDOWN_GRACE, &mut *end)
            .await
            .is_err()
        {
            tracing::warn!(
                "this coordinator no longer leads, and its last write is not answered yet: it cannot lead again before that"
            );
            let _ = end.await;
        }

        self.0 = None;
    }
}

/// Starts a thread.
///
/// # Errors
/// The operating system refuses it.
pub(crate) fn spawn_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, UserError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(internal_error)
}

/// Renews the claim to lead until it is lost, or may be lost because the database has not responded
/// for the TTL.
async fn keep_renewing_leadership(
    store: Arc<dyn Store>,
    epoch: Epoch,
    mut ended: watch::Receiver<bool>,
) {
    let mut renewed_at = Instant::now();
    let mut throttled_log = ThrottledLog::default();

    loop {
        let is_over = tokio::select! {
            () = tokio::time::sleep(RENEW_INTERVAL) => false,
            _ = ended.wait_for(|ended| *ended) => true,
        };
        if is_over {
            // The claim is not given up here. A coordinator that stops leads until its last write
            // is durable, and one that failed to start has resigned.
            return;
        }

        let now = Instant::now();
        let ttl = store.leadership_ttl();
        match renew_in_time(store.clone(), epoch, ttl.map(|ttl| renewed_at + ttl)).await {
            Some(Ok(true)) => renewed_at = now,
            Some(Ok(false)) => {
                tracing::error!(epoch = epoch.0, "another coordinator leads now");
                return;
            }
            Some(Err(error)) => {
                throttled_log.report_error("the leadership could not be renewed", &*error);
            }
            None => {}
        }

        if ttl.is_some_and(|ttl| renewed_at.elapsed() >= ttl) {
            tracing::error!(
                epoch = epoch.0,
                "the leadership has expired, and could not be renewed"
            );
            return;
        }
    }
}

/// Whether this coordinator still leads; `None` if the store has not responded by `deadline`.
/// Without a deadline nobody else can lead, so a process, disk or machine that was stalled goes on.
async fn renew_in_time(
    store: Arc<dyn Store>,
    epoch: Epoch,
    deadline: Option<Instant>,
) -> Option<Result<bool, Box<dyn std::error::Error + Send + Sync>>> {
    let renewing = spawn_blocking(move || store.renew_leadership(epoch));
    let answer = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, renewing).await.ok()?,
        None => renewing.await,
    };

    Some(match answer {
        Ok(renewed) => renewed.map_err(Into::into),
        Err(panicked) => Err(panicked.into()),
    })
}
