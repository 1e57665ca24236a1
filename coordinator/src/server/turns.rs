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

use super::checkpoints::Checkpoints;
use super::complaints::Complaints;
use super::data::DataCatalog;
use super::door::Door;
use super::engine::{EngineHandle, Event};
use super::files::Shelf;
use super::limits::Limits;
use super::metrics::Metrics;
use super::recover::recover;
use super::standing::Standing;
use super::view::View;
use super::{
    Parts, ServeOptions, Services, Setup, Shared, assemble, collect, http, listen, lost, removal, store_error,
};
use crate::core::Core;
use crate::store::writer::WriterMetrics;
use crate::store::{Leader, Store, StoreWriter};

/// How often the leader renews its claim: a third of how long it lasts, if it ends at all.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How often a coordinator that stands by tries to lead.
const CLAIM_EVERY: Duration = Duration::from_secs(1);
/// Pause after a store could not be taken up.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// How long open connections are waited for at the end.
const GRACE: Duration = Duration::from_secs(5);

/// What stays the same over all turns.
pub(super) struct Life {
    pub(super) options: ServeOptions,
    /// Where others reach this coordinator.
    pub(super) url: String,
    pub(super) listener: Arc<TcpListener>,
    pub(super) http: Option<Arc<TcpListener>>,
    pub(super) door: Option<Door>,
    pub(super) store: Arc<dyn Store>,
    /// Where files of sweeps and trials are kept. One for all turns: what was promised in one holds in the next.
    pub(super) shelf: Shelf,
    pub(super) stopping: watch::Receiver<bool>,
}

/// Services that are up, and what is behind them.
pub(super) struct Turn {
    kind: Kind,
    over: watch::Sender<bool>,
    engine: EngineHandle,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    tasks: Vec<JoinHandle<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

enum Kind {
    StandsBy(watch::Sender<Leader>),
    /// In this epoch, until the task ends.
    Leads(u64, JoinHandle<()>),
}

/// The core as it was left, sweeps that were removed and have rows left, the store's one writer, and what the store is told by
/// where its files are in a folder that another store might have, too.
type TakenUp = (Core, Vec<i64>, Box<dyn StoreWriter>, Option<i64>);

impl Life {
    /// Leads, if nobody else does.
    ///
    /// # Errors
    /// The store cannot be taken up.
    pub(super) async fn first_turn(&self) -> Result<Turn, UserError> {
        match self.claim().await {
            Ok(leader) if leader.is_this => self.lead(leader.epoch).await,
            Ok(leader) => self.stand_by(leader),
            Err(error) => {
                tracing::warn!(%error, "cannot lead yet");
                self.stand_by(Leader::unknown())
            }
        }
    }

    /// One turn after another, until told to stop.
    pub(super) async fn go_on(self, mut turn: Turn) {
        let mut stopping = self.stopping.clone();
        let mut ending = Ending(None);
        loop {
            let next = tokio::select! {
                next = self.next(&mut turn, &mut ending) => next,
                _ = stopping.wait_for(|stop| *stop) => break,
            };
            let over = std::mem::replace(&mut turn, next);
            let led = over.leads();
            // While its connections end, the next turn's are taken.
            let end = tokio::spawn(over.end(self.store.clone()));
            if led {
                ending = Ending(Some(end));
            }
        }
        tracing::info!("stopping");
        let ends = async {
            turn.end(self.store).await;
            ending.wait().await;
        };
        if tokio::time::timeout(2 * GRACE, ends).await.is_err() {
            tracing::warn!(
                "stopped while something was still being written or read: what was acknowledged is there, and whoever opens \
                 the store next finds it"
            );
        }
    }

    /// The turn after this one, when its time has come.
    async fn next(&self, turn: &mut Turn, ending: &mut Ending) -> Turn {
        loop {
            let next = match &mut turn.kind {
                Kind::StandsBy(leader) => {
                    // What it began when it led last may still be written, and must not be while it leads again: it would read
                    // a store that changes without its knowing.
                    ending.wait().await;
                    self.lead(self.chosen(leader).await).await
                }
                Kind::Leads(_, deposed) => {
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
            tokio::time::sleep(FAILED_PAUSE).await;
        }
    }

    /// The epoch in which this coordinator leads, once it does.
    async fn chosen(&self, leader: &watch::Sender<Leader>) -> u64 {
        let mut complaints = Complaints::default();
        loop {
            match self.claim().await {
                Ok(claimed) if claimed.is_this => return claimed.epoch,
                Ok(other) => drop(leader.send_if_modified(|known| {
                    let changed = *known != other;
                    if changed {
                        tracing::info!(leader = other.url, epoch = other.epoch, "standing by");
                        *known = other;
                    }
                    changed
                })),
                Err(error) => complaints.say("cannot lead yet", &error),
            }
            tokio::time::sleep(CLAIM_EVERY).await;
        }
    }

    async fn claim(&self) -> Result<Leader, UserError> {
        let (store, url) = (self.store.clone(), self.url.clone());
        let claimed = spawn_blocking(move || store.acquire_leadership(&url)).await;
        claimed.map_err(|e| UserError::new(ErrorCode::Internal, e.to_string()))?.map_err(store_error)
    }

    /// Takes the store up and serves; or lets another coordinator do so.
    async fn lead(&self, epoch: u64) -> Result<Turn, UserError> {
        let led = self.try_to_lead(epoch).await;
        if led.is_err() {
            let store = self.store.clone();
            let _ = spawn_blocking(move || store.resign_leadership(epoch)).await;
        }
        led
    }

    async fn try_to_lead(&self, epoch: u64) -> Result<Turn, UserError> {
        let (over, is_over) = watch::channel(false);
        // From now on, because a large store takes longer to read than a claim to lead lasts.
        let deposed = tokio::spawn(keep_leading(self.store.clone(), epoch, is_over.clone()));
        let (core, removals, writer, identity) = block_in_place(|| self.take_up(epoch))?;
        let parts = assemble(Setup {
            store: self.store.clone(),
            epoch,
            core,
            writer,
            shelf: self.shelf.clone(),
            data_dir: self.options.data_dir.clone(),
            tokens: self.door.as_ref().map(|door| door.tokens.clone()),
            lease_ttl: self.options.lease_ttl,
            rate_limit: self.options.rate_limit,
            stopping: is_over,
        });
        let Parts { engine, writer, services, keeper } = parts.map_err(internal)?;
        let clearing = tokio::spawn(removal::go_on(services.0.clone(), removals));
        let collecting = tokio::spawn(collect::go_on(services.0.clone(), identity));
        let runtime = tokio::runtime::Handle::current();
        let event_loop = thread("event-loop", move || runtime.block_on(engine.run()))?;
        let store_writer = thread("store-writer", move || writer.run_until_closed())?;
        tracing::info!(epoch, "leading");
        let threads = vec![event_loop, store_writer, keeper];
        Ok(self.open(Kind::Leads(epoch, deposed), over, services, vec![clearing, collecting], threads))
    }

    fn take_up(&self, epoch: u64) -> Result<TakenUp, UserError> {
        let ServeOptions { lease_ttl, check, .. } = self.options;
        let mut writer = self.store.open_writer(epoch).map_err(store_error)?;
        let identity = match &self.options.files {
            Some(_) => Some(collect::sign_folder(writer.as_mut(), self.shelf.folder())?),
            None => None,
        };
        let (mut core, removals) = recover(self.store.as_ref(), Some(writer.as_mut()), epoch, lease_ttl, check)?;
        let is_alone = collect::owns(self.shelf.folder(), identity).is_ok();
        Checkpoints::new(self.shelf.folder()).recover(&mut core, is_alone);
        if check {
            lost::tell(self.store.as_ref(), &self.shelf)?;
        }
        Ok((core, removals, writer, identity))
    }

    /// Serves what can be answered without leading.
    fn stand_by(&self, leader: Leader) -> Result<Turn, UserError> {
        tracing::info!(leader = leader.url, epoch = leader.epoch, "standing by");
        let (over, is_over) = watch::channel(false);
        let (told, leader) = watch::channel(leader);
        let (engine, questions) = EngineHandle::aside();
        let lease_ttl = self.options.lease_ttl;
        let view = View { store: self.store.clone(), leader: leader.clone(), lease_ttl };
        let view = thread("view", move || view.run(questions))?;
        let services = Services(Arc::new(Shared {
            metrics: Metrics::new(Arc::new(WriterMetrics::new()), false),
            tokens: self.door.as_ref().map(|door| door.tokens.clone()),
            engine,
            store: self.store.clone(),
            standing: Standing::StandsBy(leader),
            catalog: DataCatalog { source: self.options.data_dir.clone(), shelf: self.shelf.clone() },
            checkpoints: Checkpoints::new(self.shelf.folder()),
            lease_ttl,
            limits: Limits::new(),
            changing: Arc::default(),
            launching: super::reuse::Launching::default(),
            rate_limit: self.options.rate_limit,
            stopping: is_over,
        }));
        Ok(self.open(Kind::StandsBy(told), over, services, Vec::new(), vec![view]))
    }

    /// Takes connections.
    fn open(
        &self,
        kind: Kind,
        over: watch::Sender<bool>,
        services: Services,
        tasks: Vec<JoinHandle<()>>,
        threads: Vec<std::thread::JoinHandle<()>>,
    ) -> Turn {
        let engine = services.0.engine.clone();
        if let Some(listener) = &self.http {
            tokio::spawn(http::serve(listener.clone(), services.0.clone()));
        }
        let tls = self.door.as_ref().map(|door| door.tls.clone());
        let server = tokio::spawn(services.serve(listen::incoming(self.listener.clone(), tls, over.subscribe())));
        Turn { kind, over, engine, server, tasks, threads }
    }
}

impl Turn {
    fn leads(&self) -> bool {
        matches!(self.kind, Kind::Leads(..))
    }

    /// Ends streams, waits a little for open connections, and returns when all that the turn began is done: what was
    /// acknowledged is durable, and nothing more will be written.
    async fn end(mut self, store: Arc<dyn Store>) {
        // Streams end by themselves on this signal; a client that holds its connection open is not waited for.
        let _ = self.over.send(true);
        let _ = tokio::time::timeout(GRACE, &mut self.server).await;
        self.end_renewals().await;
        self.engine.tell(Event::Stop);
        drop(self.engine);
        for task in self.tasks {
            let _ = task.await;
        }
        let join = spawn_blocking(move || {
            for thread in self.threads {
                let _ = thread.join();
            }
            if let Kind::Leads(epoch, _) = self.kind {
                store.resign_leadership(epoch);
            }
        });
        let _ = join.await;
    }

    /// Lets the last renewal of the claim to lead end. It reads the store, and SQLite brings its log into the database only
    /// when whoever closes it is the last who has it open: the writer is to be that.
    async fn end_renewals(&mut self) {
        let Kind::Leads(_, renewals) = &mut self.kind else { return };
        // Whoever was deposed has waited for them.
        if !renewals.is_finished() {
            let _ = renewals.await;
        }
    }
}

/// The end of the turn in which this coordinator led last, if it has led.
struct Ending(Option<JoinHandle<()>>);

impl Ending {
    /// Returns when that turn is over, however long its last write takes.
    async fn wait(&mut self) {
        let Some(end) = &mut self.0 else { return };
        if tokio::time::timeout(2 * GRACE, &mut *end).await.is_err() {
            tracing::warn!(
                "this coordinator leads no more, and its last write is not answered: it leads again after that"
            );
            let _ = end.await;
        }
        self.0 = None;
    }
}

/// A number that no other store has.
fn internal(error: std::io::Error) -> UserError {
    UserError::new(ErrorCode::Internal, error.to_string())
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, UserError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(internal)
}

/// Renews the claim to lead until it is lost, or may be, because the database has not answered for as long as it lasts.
async fn keep_leading(store: Arc<dyn Store>, epoch: u64, mut over: watch::Receiver<bool>) {
    let mut renewed = Instant::now();
    let mut complaints = Complaints::default();
    loop {
        let ends = tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => false,
            _ = over.wait_for(|over| *over) => true,
        };
        if ends {
            // Whoever stops goes on leading until the last write is durable; whoever could not begin has resigned.
            return;
        }
        let (asked, at) = (store.clone(), Instant::now());
        let renewing = spawn_blocking(move || asked.renew_leadership(epoch));
        let lasts = store.leadership_ttl();
        let answer = match lasts {
            Some(lasts) => tokio::time::timeout_at(renewed + lasts, renewing).await.ok(),
            // Nobody else can lead: a process, a disk or a machine that was held up goes on where it was.
            None => Some(renewing.await),
        };
        match answer {
            Some(Ok(Ok(true))) => renewed = at,
            Some(Ok(Ok(false))) => {
                tracing::error!(epoch, "another coordinator leads since");
                return;
            }
            Some(Ok(Err(error))) => complaints.say("the claim to lead could not be renewed", &error),
            Some(Err(error)) => complaints.say("the claim to lead could not be renewed", &error),
            None => {}
        }
        if lasts.is_some_and(|lasts| renewed.elapsed() >= lasts) {
            tracing::error!(epoch, "the claim to lead is over, and could not be renewed");
            return;
        }
    }
}
