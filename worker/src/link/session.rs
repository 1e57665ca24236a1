//! The control stream: join, say what is held, heartbeat, ask for work, take grants; again and again until told to leave.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergodic_common::error_code::ErrorCode;
use ergodic_common::{BUILD, Spec, TrialKey};
use ergodic_proto::channel::connect::{ClientChannel, describe_status};
use ergodic_proto::channel::retry::with_jitter;
use ergodic_proto::status::{UserError, leader_url, retry_after};
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::v1::session_response::Message as Response;
use ergodic_proto::v1::worker_service_client::WorkerServiceClient;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::link::datasets::DatasetDirs;
use crate::link::sweeps::LoadedSweep;
use crate::link::{LinkPool, sweeps};
use crate::memory;
use crate::slots::SharedQueue;
use crate::work_queue::Fence;

/// How a worker presents itself, and what it may do.
#[derive(Debug, Clone)]
pub struct WorkerIdentity {
    /// The coordinator's address.
    pub coordinator_url: String,
    /// 32 hex digits.
    pub worker_id: String,
    /// For people.
    pub name: String,
    /// The class of what it computes.
    pub numerics: String,
    /// Trials at a time.
    pub slots: u32,
    /// Leave after being idle for this long.
    pub idle_exit: Option<Duration>,
    /// Bytes that trials may fill, if there is a limit.
    pub memory: Option<u64>,
}

/// A coordinator that was never reached is given up after this time.
const FIRST_CONTACT_TIMEOUT: Duration = Duration::from_secs(60);
/// A refusal is believed when it comes this often in a row: damage on the way may look like one.
const MAX_REFUSALS: u32 = 3;
/// How often the desk is looked at although nothing was heard.
const QUEUE_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// What is running is said no later than this after it began, so that the coordinator knows whom to blame should we die.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Waits between attempts: 0.2 s at first, doubling up to 10 s, anywhere between half and the whole of it.
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            next: Duration::from_millis(200),
        }
    }

    pub(crate) async fn wait_next(&mut self) {
        let nanos = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        let jitter = 0.5 + 0.5 * f64::from(nanos % 1000) / 1000.0;
        tokio::time::sleep(self.next.mul_f64(jitter)).await;
        self.next = (self.next * 2).min(Duration::from_secs(10));
    }

    /// As long as the coordinator says, if it is one that says so.
    pub(crate) async fn wait_after(&mut self, status: &tonic::Status) {
        match retry_after(status) {
            Some(wait) => tokio::time::sleep(with_jitter(wait, 1)).await,
            None => self.wait_next().await,
        }
    }
}

/// Why a session ended.
enum SessionEnd {
    /// All is delivered and given back.
    Left,
    /// The connection was lost, with the reason: join again.
    Lost(String),
}

/// Keeps the worker in session until it is told to leave, or has been idle for long enough.
///
/// # Errors
/// The coordinator refuses this worker, or was never reached.
pub async fn run_until_drained(
    identity: &WorkerIdentity,
    office: &Arc<SharedQueue>,
    links: LinkPool,
    places: &DatasetDirs,
    mut leave: watch::Receiver<bool>,
) -> Result<(), UserError> {
    let mut backoff = Backoff::new();
    let started = Instant::now();
    let mut joined = false;
    let mut last_joined = started;
    let mut refusals = 0;
    let mut sweeps = SweepCache {
        sweeps: HashMap::new(),
        dataset_dirs: places.clone(),
        links: links.clone(),
    };

    loop {
        let mut refused_with = None;
        match WorkerSession::open(identity, office, links.current_link().worker_service).await {
            Ok(mut session) => {
                (joined, refusals) = (true, 0);
                backoff = Backoff::new();

                match session.run_until_ended(&mut sweeps, &mut leave).await {
                    SessionEnd::Left => return Ok(()),
                    SessionEnd::Lost(why) => tracing::warn!(why, "connection lost; joining again"),
                }

                office.with_queue(|desk| desk.stop_renewal_watch());
                last_joined = Instant::now();
            }
            Err(status) => {
                let error = UserError::from(&status);
                // A coordinator that has no room now may have some later.
                let full = status.code() == tonic::Code::ResourceExhausted;
                let refused = matches!(
                    error.code,
                    ErrorCode::Version | ErrorCode::BadInput | ErrorCode::Refused
                ) && !full;
                refusals = if refused { refusals + 1 } else { 0 };

                if refusals == MAX_REFUSALS {
                    return Err(error);
                }

                if !joined && started.elapsed() > FIRST_CONTACT_TIMEOUT {
                    let message = format!(
                        "no coordinator answers at {} ({}): is `ergodic serve` running there?",
                        identity.coordinator_url,
                        describe_status(&status)
                    );
                    return Err(UserError::new(ErrorCode::Unreachable, message));
                }

                let coordinator = &identity.coordinator_url;
                let why = describe_status(&status);
                tracing::warn!(coordinator, why, "not joined; trying again");

                // Whoever stands by has answered: it may lead any moment.
                if leader_url(&status).is_some() {
                    backoff = Backoff::new();
                }

                refused_with = Some(status);
            }
        }

        switch_coordinator(&links, refused_with.as_ref());
        // With nothing left to deliver there is no reason to wait for a coordinator.
        let bored = identity
            .idle_exit
            .is_some_and(|limit| last_joined.elapsed() > limit);
        let free =
            office.with_queue(|desk| desk.unacknowledged_count() == 0 && desk.running_count() == 0);
        if free && (bored || *leave.borrow()) {
            return Ok(());
        }

        match refused_with {
            Some(status) => backoff.wait_after(&status).await,
            None => backoff.wait_next().await,
        }
    }
}

/// One that stands by says who leads; after any other end, the next one is tried.
fn switch_coordinator(links: &LinkPool, refused_with: Option<&tonic::Status>) {
    match refused_with
        .and_then(leader_url)
        .filter(|url| !url.is_empty())
    {
        Some(url) => {
            tracing::info!(leader = url, "the coordinator stands by");
            if let Err(error) = links.follow_leader(&url) {
                tracing::warn!(%error, "the coordinator that leads cannot be asked");
                links.switch_to_next();
            }
        }
        None => links.switch_to_next(),
    }
}

/// Sweeps met so far.
struct SweepCache {
    sweeps: HashMap<String, Arc<LoadedSweep>>,
    dataset_dirs: DatasetDirs,
    links: LinkPool,
}

impl SweepCache {
    async fn get_or_fetch(
        &mut self,
        id: &str,
        against: impl Fn(&Spec) -> Option<String>,
    ) -> Result<Arc<LoadedSweep>, String> {
        if let Some(sweep) = self.sweeps.get(id) {
            return against(&sweep.spec).map_or(Ok(sweep.clone()), Err);
        }

        let sweep = LoadedSweep::fetch_from(
            id,
            &mut self.links.current_link(),
            &self.dataset_dirs,
            against,
        )
        .await
        .map_err(|e| e.to_string())?;
        let sweep = Arc::new(sweep);

        // One dataset in memory at a time is the rule: a sweep that is over is not needed again.
        self.sweeps.retain(|_, old| Arc::strong_count(old) > 1);
        self.sweeps.insert(id.to_owned(), sweep.clone());
        Ok(sweep)
    }
}

struct WorkerSession<'a> {
    identity: &'a WorkerIdentity,
    queue: &'a Arc<SharedQueue>,
    outgoing: mpsc::Sender<v1::SessionRequest>,
    incoming: Streaming<v1::SessionResponse>,
    /// What came in while a sweep was being fetched.
    pending_messages: VecDeque<v1::SessionResponse>,
    heartbeat_interval: Duration,
    work_requested: bool,
    idle_since: Instant,
    /// Trials that were said to be running, and when.
    reported: (Vec<(Fence, TrialKey)>, Instant),
}

impl<'a> WorkerSession<'a> {
    async fn open(
        identity: &'a WorkerIdentity,
        office: &'a Arc<SharedQueue>,
        mut client: WorkerServiceClient<ClientChannel>,
    ) -> Result<Self, tonic::Status> {
        let (outgoing, messages) = mpsc::channel(64);
        let hello = v1::Hello {
            protocol: PROTOCOL_VERSION,
            build: BUILD.to_owned(),
            worker: identity.worker_id.clone(),
            name: identity.name.clone(),
            slots: identity.slots,
            numerics: vec![identity.numerics.clone()],
            held: office
                .with_queue(|desk| desk.held_fences())
                .into_iter()
                .map(fence_to_wire)
                .collect(),
        };
        let first = v1::SessionRequest {
            message: Some(Request::Hello(hello)),
        };
        outgoing
            .send(first)
            .await
            .map_err(|_| tonic::Status::unavailable("the session ended"))?;

        let mut incoming = client
            .session(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let welcome = match incoming.message().await? {
            Some(v1::SessionResponse {
                message: Some(Response::Welcome(welcome)),
            }) => welcome,
            _ => {
                return Err(tonic::Status::failed_precondition(
                    "the coordinator did not say welcome: another version?",
                ));
            }
        };
        tracing::info!(
            coordinator = identity.coordinator_url,
            build = welcome.build,
            "joined"
        );

        let heartbeat = Duration::from_millis(welcome.heartbeat_ms.clamp(50, 60_000));
        // A time to live that no heartbeat could keep is none.
        let ttl = Duration::from_millis(welcome.lease_ttl_ms).max(2 * heartbeat);
        office.with_queue(|desk| desk.start_renewal_watch(ttl, office.uptime()));
        let idle_since = Instant::now();
        let told = (Vec::new(), idle_since);
        let unheard = VecDeque::new();
        Ok(Self {
            identity,
            queue: office,
            outgoing,
            incoming,
            pending_messages: unheard,
            heartbeat_interval: heartbeat,
            work_requested: false,
            idle_since,
            reported: told,
        })
    }

    async fn run_until_ended(
        &mut self,
        sweeps: &mut SweepCache,
        leave: &mut watch::Receiver<bool>,
    ) -> SessionEnd {
        let mut beats = tokio::time::interval(self.heartbeat_interval);
        let mut ticks = tokio::time::interval(QUEUE_CHECK_INTERVAL);
        // A coordinator that answers no heartbeat is as good as gone.
        let silence = self.heartbeat_interval * 4;

        // What was given back in a session that broke off may not have been heard.
        for fence in self.queue.with_queue(|desk| desk.held_fences()) {
            self.return_unstarted(fence, 0).await;
        }

        let mut heard = Instant::now();
        loop {
            let sent = tokio::select! {
                message = next_message(&mut self.pending_messages, &mut self.incoming) => match message {
                    Ok(Some(message)) => {
                        let sent = self.handle_message(message, sweeps).await;
                        heard = Instant::now();
                        sent
                    }
                    Ok(None) => return SessionEnd::Lost("the coordinator ended the session".into()),
                    Err(status) => return SessionEnd::Lost(status.message().to_owned()),
                },
                _ = beats.tick() => self.send_heartbeat().await,
                () = self.queue.queue_changed.notified() => self.request_work().await,
                _ = ticks.tick() => self.request_work().await && self.report_running().await,
                Ok(()) = leave.changed() => true,
            };
            if !sent || heard.elapsed() > silence {
                return SessionEnd::Lost("the coordinator is silent".into());
            }

            if self.is_idle_too_long() {
                self.queue.with_queue(|desk| desk.close());
            }

            if self
                .queue
                .with_queue(|desk| desk.is_closed() && desk.is_empty())
            {
                self.send_message(Request::Goodbye(v1::Goodbye {})).await;
                self.await_close().await;
                return SessionEnd::Left;
            }
        }
    }

    /// Lets the goodbye reach the coordinator, which then ends the stream.
    async fn await_close(&mut self) {
        let ended = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
    }

    async fn handle_message(
        &mut self,
        message: v1::SessionResponse,
        sweeps: &mut SweepCache,
    ) -> bool {
        match message.message {
            Some(Response::Grant(grant)) => {
                self.work_requested = false;
                self.accept_grant(grant, sweeps).await
            }
            Some(Response::Revoke(revoke)) => {
                tracing::info!(leases = revoke.fences.len(), "leases revoked");
                let fences: Vec<Fence> = revoke.fences.iter().map(fence_from_wire).collect();
                self.queue.with_queue(|desk| {
                    fences
                        .into_iter()
                        .for_each(|fence| desk.revoke_lease(fence))
                });

                // Whoever loses leases is asked for its wishes anew.
                self.work_requested = false;
                self.request_work().await
            }
            Some(Response::Renewed(_)) => {
                self.queue
                    .with_queue(|desk| desk.renew_leases(self.queue.uptime()));
                true
            }
            Some(Response::Retract(wanted)) => {
                let Some(fence) = wanted.fence.as_ref().map(fence_from_wire) else {
                    return true;
                };
                self.return_unstarted(fence, wanted.trials).await && self.request_work().await
            }
            Some(Response::Welcome(_)) | None => true,
        }
    }

    /// Takes a lease, after fetching what its sweep needs; gives it back when that cannot be had.
    async fn accept_grant(&mut self, grant: v1::Grant, sweeps: &mut SweepCache) -> bool {
        let Some(fence) = grant.fence.as_ref().map(fence_from_wire) else {
            return true;
        };
        let keys = grant.cells.iter().zip(&grant.repeats);
        let keys: Vec<TrialKey> = keys
            .map(|(cell, repeat)| TrialKey {
                cell: *cell,
                repeat: *repeat,
            })
            .collect();
        let kept = grant.checkpointed.into_iter().map(TrialKey::from).collect();

        let identity = self.identity;
        let fetching = sweeps.get_or_fetch(&grant.sweep, |spec| {
            check_fits_memory(identity, spec, &keys)
        });
        let sweep = self.with_heartbeats(fence, fetching).await;
        match sweep {
            Ok(sweep) => {
                tracing::debug!(lease = fence.lease, trials = keys.len(), "lease granted");
                self.queue.with_queue(|desk| {
                    if !desk.is_closed() {
                        desk.add_lease(fence, sweep, keys, kept)
                    }
                });

                self.request_work().await
            }
            Err(why) => {
                tracing::error!(
                    sweep = grant.sweep,
                    why,
                    "cannot work on this sweep; giving the lease back"
                );
                let release = v1::Release {
                    fence: Some(fence_to_wire(fence)),
                    why,
                };

                self.send_message(Request::Release(release)).await && self.request_work().await
            }
        }
    }

    /// Does something that may take longer than a lease lasts, and keeps the leases meanwhile, that with this fence too.
    /// What is done counts, even when the session ends meanwhile: the lease may be presented in the next one.
    async fn with_heartbeats<T>(&mut self, fence: Fence, work: impl Future<Output = T>) -> T {
        let held = self
            .queue
            .with_queue(|desk| desk.held_fences())
            .into_iter()
            .chain([fence]);
        let held: Vec<v1::Fence> = held.map(fence_to_wire).collect();

        let mut beats = tokio::time::interval(self.heartbeat_interval);
        beats.reset();
        let mut work = std::pin::pin!(work);
        let mut open = true;

        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                message = self.incoming.message(), if open => match message {
                    Ok(Some(v1::SessionResponse { message: Some(Response::Renewed(_)) })) => {
                        self.queue.with_queue(|desk| desk.renew_leases(self.queue.uptime()));
                    }
                    Ok(Some(other)) => self.pending_messages.push_back(other),
                    Ok(None) | Err(_) => open = false,
                },
                _ = beats.tick() => {
                    let beat = v1::Heartbeat { held: held.clone(), ..v1::Heartbeat::default() };
                    let _ = self.outgoing.send(v1::SessionRequest { message: Some(Request::Heartbeat(beat)) }).await;
                }
            }
        }
    }

    /// Gives back up to so many trials that are not begun, and says which, unless there are none.
    async fn return_unstarted(&mut self, fence: Fence, trials: u64) -> bool {
        let keys = self
            .queue
            .with_queue(|desk| desk.retract_trials(fence, trials));
        if keys.is_empty() {
            return true;
        }

        tracing::debug!(
            lease = fence.lease,
            trials = keys.len(),
            "trials given back"
        );
        let (cells, repeats) = keys.iter().map(|key| (key.cell, key.repeat)).unzip();
        self.send_message(Request::Retracted(v1::Retracted {
            fence: Some(fence_to_wire(fence)),
            cells,
            repeats,
        }))
        .await
    }

    /// A heartbeat of its own where other trials are running than was said.
    async fn report_running(&mut self) -> bool {
        let due = self.reported.1.elapsed() >= REPORT_INTERVAL;
        !(due && self.queue.with_queue(|desk| desk.running_trials()) != self.reported.0)
            || self.send_heartbeat().await
    }

    async fn send_heartbeat(&mut self) -> bool {
        let running = self.queue.with_queue(|desk| desk.running_trials());
        let said = running.iter().map(|(fence, key)| v1::RunningTrial {
            lease: fence.lease,
            key: Some((*key).into()),
        });
        let beat = self.queue.with_queue(|desk| v1::Heartbeat {
            running: said.collect(),
            queued: desk.queued_count(),
            unacknowledged: desk.unacknowledged_count(),
            held: desk.held_fences().into_iter().map(fence_to_wire).collect(),
        });

        self.reported = (running, Instant::now());
        self.send_message(Request::Heartbeat(beat)).await
    }

    /// Asks for work if there is need and no question is open.
    async fn request_work(&mut self) -> bool {
        if self.work_requested {
            return true;
        }

        match self.queue.with_queue(|desk| desk.slots_to_request()) {
            None => true,
            Some(idle_slots) => {
                self.work_requested = true;
                self.send_message(Request::RequestWork(v1::RequestWork { idle_slots }))
                    .await
            }
        }
    }

    fn is_idle_too_long(&mut self) -> bool {
        if self.queue.with_queue(|desk| !desk.is_empty()) {
            self.idle_since = Instant::now();
        }
        self.identity
            .idle_exit
            .is_some_and(|limit| self.idle_since.elapsed() > limit)
    }

    async fn send_message(&self, message: Request) -> bool {
        self.outgoing
            .send(v1::SessionRequest {
                message: Some(message),
            })
            .await
            .is_ok()
    }
}

/// What came in and was not heard yet, then what comes in.
async fn next_message(
    unheard: &mut VecDeque<v1::SessionResponse>,
    incoming: &mut Streaming<v1::SessionResponse>,
) -> Result<Option<v1::SessionResponse>, tonic::Status> {
    match unheard.pop_front() {
        Some(message) => Ok(Some(message)),
        None => incoming.message().await,
    }
}

/// Why these trials, which are of one shape, do not fit into memory.
fn check_fits_memory(identity: &WorkerIdentity, spec: &Spec, keys: &[TrialKey]) -> Option<String> {
    let (trial, dataset) = keys
        .first()
        .map_or((0, 0), |key| sweeps::required_bytes(spec, key.cell));
    memory::explain_shortage(identity.memory, identity.slots, trial, dataset)
}

fn fence_to_wire(fence: Fence) -> v1::Fence {
    v1::Fence {
        lease: fence.lease,
        epoch: fence.epoch,
    }
}

fn fence_from_wire(fence: &v1::Fence) -> Fence {
    Fence {
        lease: fence.lease,
        epoch: fence.epoch,
    }
}
