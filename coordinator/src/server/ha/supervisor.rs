//! A coordinator's life: on a store that several share it stands by or leads, in turn. Each turn has services of its own on the
//! same address; who is connected when one ends connects again.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
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
use crate::server::checkpoints::CheckpointFiles;
use crate::server::datasets::DatasetCatalog;
use crate::server::engine::EngineHandle;
use crate::server::ha::term::{CoordinatorTerm, TermRole};
use crate::server::limits::Limits;
use crate::server::metrics::Metrics;
use crate::server::recovery::recover_core;
use crate::server::{
    CoordinatorParts, CoordinatorSetup, GrpcServices, ServeOptions, ServerContext,
    assemble_coordinator, blob_collection, http, listen, lost_blobs, removal, store_error,
};
use crate::store::writer::WriterMetrics;
use crate::store::{Leader, Store, StoreWriter};
use crate::throttled_log::ThrottledLog;

/// How often the leader renews its claim: a third of how long it lasts, if it ends at all.
const RENEW_INTERVAL: Duration = Duration::from_secs(2);
/// How often a coordinator that stands by tries to lead.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a store could not be taken up.
const RETRY_DELAY: Duration = Duration::from_secs(10);
/// How long open connections are waited for at the end.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What stays the same over all turns.
pub(crate) struct Supervisor {
    pub(crate) options: ServeOptions,
    /// Where others reach this coordinator.
    pub(crate) url: String,
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) http_listener: Option<Arc<TcpListener>>,
    pub(crate) auth: Option<Auth>,
    pub(crate) store: Arc<dyn Store>,
    /// Where files of sweeps and trials are kept. One for all turns: what was promised in one holds in the next.
    pub(crate) blobs: BlobStore,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// The core as it was left, sweeps that were removed and have rows left, the store's one writer, and what the store is told by
/// where its files are in a folder that another store might have, too.
type RecoveredStore = (Core, Vec<i64>, Box<dyn StoreWriter>, Option<i64>);

impl Supervisor {
    /// Leads, if nobody else does.
    ///
    /// # Errors
    /// The store cannot be taken up.
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

    /// One turn after another, until told to stop.
    pub(crate) async fn run_terms(self, mut turn: CoordinatorTerm) {
        let mut stopping = self.stopping.clone();
        let mut ending = LastLeadingTerm(None);

        loop {
            let next = tokio::select! {
                next = self.next_term(&mut turn, &mut ending) => next,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let over = std::mem::replace(&mut turn, next);
            let led = over.is_leading();

            // While its connections end, the next turn's are taken.
            let end = tokio::spawn(over.end_term(self.store.clone()));
            if led {
                ending = LastLeadingTerm(Some(end));
            }
        }

        tracing::info!("stopping");
        let ends = async {
            turn.end_term(self.store).await;
            ending.wait_until_over().await;
        };
        if tokio::time::timeout(2 * SHUTDOWN_GRACE, ends)
            .await
            .is_err()
        {
            tracing::warn!(
                "stopped while something was still being written or read: what was acknowledged is there, and whoever opens \
                 the store next finds it"
            );
        }
    }

    /// The turn after this one, when its time has come.
    async fn next_term(
        &self,
        turn: &mut CoordinatorTerm,
        ending: &mut LastLeadingTerm,
    ) -> CoordinatorTerm {
        loop {
            let next = match &mut turn.role {
                super::term::TermRole::Standby(leader) => {
                    // What it began when it led last may still be written, and must not be while it leads again: it would read
                    // a store that changes without its knowing.
                    ending.wait_until_over().await;
                    self.lead_or_resign(self.wait_to_lead(leader).await).await
                }
                super::term::TermRole::Leading(_, deposed) => {
                    // It may have been waited for already, and what followed failed.
                    if !deposed.is_finished() {
                        let _ = deposed.await;
                    }
                    self.stand_by(Leader::unknown())
                }
            };
            match next {
                Ok(turn) => return turn,
                Err(error) => tracing::error!(%error, "the store cannot be taken up"),
            }

            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// The epoch in which this coordinator leads, once it does.
    async fn wait_to_lead(&self, leader: &watch::Sender<Leader>) -> u64 {
        let mut complaints = ThrottledLog::default();
        loop {
            match self.acquire_leadership().await {
                Ok(claimed) if claimed.is_this => return claimed.epoch,
                Ok(other) => drop(leader.send_if_modified(|known| {
                    let changed = *known != other;
                    if changed {
                        tracing::info!(leader = other.url, epoch = other.epoch, "standing by");
                        *known = other;
                    }

                    changed
                })),
                Err(error) => complaints.report_error("cannot lead yet", &error),
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

    /// Takes the store up and serves; or lets another coordinator do so.
    async fn lead_or_resign(&self, epoch: u64) -> Result<CoordinatorTerm, UserError> {
        let led = self.try_to_lead(epoch).await;
        if led.is_err() {
            let store = self.store.clone();
            let _ = spawn_blocking(move || store.resign_leadership(epoch)).await;
        }
        led
    }

    async fn try_to_lead(&self, epoch: u64) -> Result<CoordinatorTerm, UserError> {
        let (over, is_over) = watch::channel(false);
        // From now on, because a large store takes longer to read than a claim to lead lasts.
        let deposed = tokio::spawn(keep_renewing_leadership(
            self.store.clone(),
            epoch,
            is_over.clone(),
        ));

        let (core, removals, writer, identity) = block_in_place(|| self.recover_store(epoch))?;
        let parts = assemble_coordinator(CoordinatorSetup {
            store: self.store.clone(),
            epoch,
            core,
            writer,
            blobs: self.blobs.clone(),
            data_dir: self.options.data_dir.clone(),
            tokens: self.auth.as_ref().map(|door| door.tokens.clone()),
            lease_ttl: self.options.lease_ttl,
            rate_limit: self.options.rate_limit,
            stopping: is_over,
        });
        let CoordinatorParts {
            engine,
            writer,
            services,
            checkpoint_thread: keeper,
        } = parts.map_err(internal_error)?;
        let clearing = tokio::spawn(removal::clear_removed_sweeps(services.0.clone(), removals));

        let collecting = tokio::spawn(blob_collection::collect_periodically(
            services.0.clone(),
            identity,
        ));
        let runtime = tokio::runtime::Handle::current();
        let event_loop = spawn_thread("event-loop", move || {
            runtime.block_on(engine.run_until_stopped())
        })?;

        let store_writer = spawn_thread("store-writer", move || writer.run_until_closed())?;
        tracing::info!(epoch, "leading");
        let threads = vec![event_loop, store_writer, keeper];
        Ok(self.open_services(
            super::term::TermRole::Leading(epoch, deposed),
            over,
            services,
            vec![clearing, collecting],
            threads,
        ))
    }

    fn recover_store(&self, epoch: u64) -> Result<RecoveredStore, UserError> {
        let ServeOptions {
            lease_ttl,
            verify_store: check,
            ..
        } = self.options;

        let mut writer = self.store.open_writer(epoch).map_err(store_error)?;
        let identity = match &self.options.files_dir {
            Some(_) => Some(blob_collection::sign_folder(
                writer.as_mut(),
                self.blobs.folder(),
            )?),
            None => None,
        };

        let (mut core, removals) = recover_core(
            self.store.as_ref(),
            Some(writer.as_mut()),
            epoch,
            lease_ttl,
            check,
        )?;

        let is_alone = blob_collection::check_sole_owner(self.blobs.folder(), identity).is_ok();
        CheckpointFiles::new(self.blobs.folder()).recover_checkpoints(&mut core, is_alone);

        if check {
            lost_blobs::report_lost_blobs(self.store.as_ref(), &self.blobs)?;
        }

        Ok((core, removals, writer, identity))
    }

    /// Serves what can be answered without leading.
    fn stand_by(&self, leader: Leader) -> Result<CoordinatorTerm, UserError> {
        tracing::info!(leader = leader.url, epoch = leader.epoch, "standing by");
        let (over, is_over) = watch::channel(false);
        let (told, leader) = watch::channel(leader);
        let (engine, questions) = EngineHandle::detached();
        let lease_ttl = self.options.lease_ttl;
        let view = StandbyView {
            store: self.store.clone(),
            leader: leader.clone(),
            lease_ttl,
        };
        let view = spawn_thread("view", move || view.answer_queries(questions))?;

        let services = GrpcServices(Arc::new(ServerContext {
            metrics: Metrics::new(Arc::new(WriterMetrics::new()), false),
            tokens: self.auth.as_ref().map(|door| door.tokens.clone()),
            engine,
            store: self.store.clone(),
            leadership: Leadership::Standby(leader),
            catalog: DatasetCatalog {
                data_dir: self.options.data_dir.clone(),
                blobs: self.blobs.clone(),
            },
            checkpoints: CheckpointFiles::new(self.blobs.folder()),
            lease_ttl,
            limits: Limits::new(),
            change_lock: Arc::default(),
            launch_state: crate::server::reuse::LaunchState::default(),
            rate_limit: self.options.rate_limit,
            stopping: is_over,
        }));

        Ok(self.open_services(
            super::term::TermRole::Standby(told),
            over,
            services,
            Vec::new(),
            vec![view],
        ))
    }

    /// Takes connections.
    fn open_services(
        &self,
        kind: TermRole,
        over: watch::Sender<bool>,
        services: GrpcServices,
        tasks: Vec<JoinHandle<()>>,
        threads: Vec<std::thread::JoinHandle<()>>,
    ) -> CoordinatorTerm {
        let engine = services.0.engine.clone();
        if let Some(listener) = &self.http_listener {
            tokio::spawn(http::serve_http(listener.clone(), services.0.clone()));
        }

        let tls = self.auth.as_ref().map(|door| door.tls.clone());
        let server = tokio::spawn(services.serve_connections(listen::accept_connections(
            self.listener.clone(),
            tls,
            over.subscribe(),
        )));
        CoordinatorTerm {
            role: kind,
            end_signal: over,
            engine,
            server,
            tasks,
            threads,
        }
    }
}

/// The end of the turn in which this coordinator led last, if it has led.
struct LastLeadingTerm(Option<JoinHandle<()>>);

impl LastLeadingTerm {
    /// Returns when that turn is over, however long its last write takes.
    async fn wait_until_over(&mut self) {
        let Some(end) = &mut self.0 else { return };
        if tokio::time::timeout(2 * SHUTDOWN_GRACE, &mut *end)
            .await
            .is_err()
        {
            tracing::warn!(
                "this coordinator leads no more, and its last write is not answered: it leads again after that"
            );
            let _ = end.await;
        }

        self.0 = None;
    }
}

/// A number that no other store has.
fn internal_error(error: std::io::Error) -> UserError {
    UserError::new(ErrorCode::Internal, error.to_string())
}

fn spawn_thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, UserError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(internal_error)
}

/// Renews the claim to lead until it is lost, or may be, because the database has not answered for as long as it lasts.
async fn keep_renewing_leadership(
    store: Arc<dyn Store>,
    epoch: u64,
    mut over: watch::Receiver<bool>,
) {
    let mut renewed = Instant::now();
    let mut complaints = ThrottledLog::default();

    loop {
        let ends = tokio::select! {
            () = tokio::time::sleep(RENEW_INTERVAL) => false,
            _ = over.wait_for(|over| *over) => true,
        };
        if ends {
            // Whoever stops goes on leading until the last write is durable; whoever could not begin has resigned.
            return;
        }

        let asked = store.clone();
        let at = Instant::now();
        let renewing = spawn_blocking(move || asked.renew_leadership(epoch));
        let lasts = store.leadership_ttl();
        let answer = match lasts {
            Some(lasts) => tokio::time::timeout_at(renewed + lasts, renewing)
                .await
                .ok(),
            // Nobody else can lead: a process, a disk or a machine that was held up goes on where it was.
            None => Some(renewing.await),
        };
        match answer {
            Some(Ok(Ok(true))) => renewed = at,
            Some(Ok(Ok(false))) => {
                tracing::error!(epoch, "another coordinator leads since");
                return;
            }
            Some(Ok(Err(error))) => {
                complaints.report_error("the claim to lead could not be renewed", &error)
            }
            Some(Err(error)) => {
                complaints.report_error("the claim to lead could not be renewed", &error)
            }
            None => {}
        }

        if lasts.is_some_and(|lasts| renewed.elapsed() >= lasts) {
            tracing::error!(epoch, "the claim to lead is over, and could not be renewed");
            return;
        }
    }
}
